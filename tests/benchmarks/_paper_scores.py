"""Scores of the models of `paper.py` on datasets that none of them saw: neighbors, geometry, few and many labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from validation import SETS, pca, read

import scellm
from scellm.metrics import anisotropy, neighbor_score, uniformity

N_CELLS = 400
"""Cells of a dataset at most."""
FEW, DRAWS = 5, 5
"""Labels of a type, and how often they are drawn."""


def cells(data: Path) -> dict[str, ad.AnnData]:
    """The datasets of `validation.py`."""
    found = {}
    for name in SETS:
        adata = read(data, name)
        rows = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:N_CELLS])
        found[name] = adata[rows].copy()
    return found


def log_genes(adata: ad.AnnData) -> np.ndarray:
    """Log values of the 2,000 most variable genes."""
    adata = adata.copy()
    if adata.X.max() > 30:
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    X = adata[:, adata.var["highly_variable"]].X
    return np.asarray(X.todense() if hasattr(X, "todense") else X)


def embedded(model: scellm.models.CellLM) -> Callable[[ad.AnnData], np.ndarray]:
    """How a model sees cells."""

    def vectors(adata: ad.AnnData) -> np.ndarray:
        scellm.tl.embed(adata, model, min_overlap=0.05, show_progress=False)
        return adata.obsm["X_scellm"]

    return vectors


def score(see: Callable[[ad.AnnData], np.ndarray], datasets: dict[str, ad.AnnData]) -> pd.DataFrame:
    """A row for each dataset."""
    rows = []
    for name, adata in datasets.items():
        vectors, types = see(adata), adata.obs["cell_type"].astype(str).to_numpy()
        rows.append(
            {
                "dataset": name,
                "macro_f1": neighbor_score(vectors, adata.obs["cell_type"]).macro_f1,
                "anisotropy": anisotropy(vectors),
                "uniformity": uniformity(vectors),
                "few_labels": _few(vectors, types),
                "many_labels": _many(vectors, types),
            }
        )
    return pd.DataFrame(rows)


def _classifier() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=300))


def _few(vectors: np.ndarray, types: np.ndarray) -> float:
    """Macro-F1 of logistic regression that knows five cells of each type with fifteen or more."""
    names, counts = np.unique(types, return_counts=True)
    keep = np.isin(types, names[counts >= 3 * FEW])
    vectors, types = vectors[keep], types[keep]
    found = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        train = np.concatenate([rng.permutation(np.flatnonzero(types == t))[:FEW] for t in np.unique(types)])
        test = np.setdiff1d(np.arange(len(types)), train)
        predicted = _classifier().fit(vectors[train], types[train]).predict(vectors[test])
        found.append(f1_score(types[test], predicted, average="macro"))
    return float(np.mean(found))


def _many(vectors: np.ndarray, types: np.ndarray) -> float:
    """Macro-F1 of logistic regression in five folds."""
    names, counts = np.unique(types, return_counts=True)
    keep = np.isin(types, names[counts >= 10])
    vectors, types = vectors[keep], types[keep]
    predicted = np.empty_like(types)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(vectors, types):
        predicted[test] = _classifier().fit(vectors[train], types[train]).predict(vectors[test])
    return float(f1_score(types, predicted, average="macro"))


def all_scores(data: Path, runs: Path, names: list[str]) -> pd.DataFrame:
    """Scores of finished runs, of their starts, of PCA and of genes; what `scores.csv` has is not measured again."""
    path = runs / "scores.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame({"run": []})
    seen: dict[str, Callable[[ad.AnnData], np.ndarray] | Path] = {"PCA": pca, "genes": log_genes}
    seen |= {p.name: p for p in sorted(runs.glob("start-*"))} | {
        name: runs / name / "model" for name in names
    }
    datasets = None
    for name, what in seen.items():
        if (table["run"] == name).any():
            continue
        datasets = cells(data) if datasets is None else datasets
        see = embedded(scellm.models.load(what)) if isinstance(what, Path) else what
        table = pd.concat([table, score(see, datasets).assign(run=name)], ignore_index=True)
        table.to_csv(path, index=False)
    return table
