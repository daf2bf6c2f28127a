"""Donors, technologies and studies: python tests/benchmarks/batches.py DATA [--scvi].

Every set is embedded as it is, without a parameter; beside it stand principal components of 2,000 variable genes, both with Harmony on
top, and with `--scvi` scVI where a set has counts. Scores are those of scib-metrics: what mixes batches and what keeps types apart.
Sets have at most 1,500 cells. Writes `docs/benchmarks/batches.md`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import write

import scellm

MOST_CELLS = 1_500
SETS = {
    "islets, 3 technologies": (["corpus_more/pancreas_panc8_3tech_mini"], "batch", "cell_type"),
    "blood, 3 technologies": (["corpus_more/pbmc_symphony_3tech"], "batch", "cell_type"),
    "blood, 2 technologies": (["corpus_more/pbmc_ding_2tech"], "batch", "cell_type"),
    "T cells, 8 libraries": (["corpus_more/tcells_ards_screp"], "batch", None),
    "blood, resting and interferon": (["corpus/kang_ifnb_pbmc"], "condition", "cell_type"),
    "islets, 3 studies": (
        [
            "corpus_more/pancreas_panc8_3tech_mini",
            "corpus_wide/enge_pancreas",
            "benchmarks/baron_h1_pancreas",
        ],
        "study",
        "cell_type",
    ),
}
"""Files, column of batches, column of types."""
SAME = {
    "acinar cell": "acinar", "ductal cell": "ductal", "pancreatic acinar cell": "acinar", "pancreatic ductal cell": "ductal",
    "pancreatic a cell": "alpha", "pancreatic d cell": "delta", "pancreatic pp cell": "gamma", "type b pancreatic cell": "beta",
    "pancreatic A cell": "alpha", "pancreatic D cell": "delta", "type B pancreatic cell": "beta",
    "beta cell": "beta", "alpha cell": "alpha", "delta cell": "delta", "gamma cell": "gamma", "pp": "gamma", "pp cell": "gamma",
}  # fmt: skip


def cells_of(data: Path, files: list[str], batch: str, label: str | None) -> ad.AnnData:
    """Cells with both columns as text, at most `MOST_CELLS`, and types that two batches have."""
    parts = {Path(name).name: ad.read_h5ad(data / f"{name}.h5ad") for name in files}
    adata = (
        ad.concat(parts, join="inner", label="study", index_unique="-")
        if len(parts) > 1
        else next(iter(parts.values()))
    )
    adata.X = adata.X.astype(np.float32)
    adata.obs["a batch"] = adata.obs[batch].astype(str).to_numpy()
    labels = adata.obs[label].astype(str).to_numpy() if label else np.full(adata.n_obs, "all")
    adata.obs["a type"] = [SAME.get(name, SAME.get(name.lower(), name.lower())) for name in labels]
    n_batches = adata.obs.groupby("a type")["a batch"].transform("nunique")
    size = adata.obs.groupby("a type")["a batch"].transform("size")
    known = ~adata.obs["a type"].isin(["na", "nan", "unknown"]) & (n_batches > 1) & (size >= 10)
    adata = adata[known.to_numpy()]
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:MOST_CELLS]
    return adata[np.sort(rows)].copy()


def principal(adata: ad.AnnData) -> np.ndarray:
    """Fifty principal components of log values of variable genes."""
    logged = adata.copy()
    if scellm.data.describe_values(adata.X).kind == "counts":
        sc.pp.normalize_total(logged, target_sum=1e4)
        sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=min(2000, logged.n_vars - 1))
    sc.pp.pca(logged, n_comps=50)
    return logged.obsm["X_pca"]


def harmony(vectors: np.ndarray, adata: ad.AnnData) -> np.ndarray:
    """Vectors after Harmony."""
    import harmonypy

    found = np.asarray(harmonypy.run_harmony(vectors.astype(np.float64), adata.obs, ["a batch"]).Z_corr)
    return found if found.shape == vectors.shape else found.T


def scvi_latent(adata: ad.AnnData) -> np.ndarray:
    """The latent space of scVI, trained for 60 epochs."""
    import scvi

    few = adata.copy()
    sc.pp.highly_variable_genes(few, flavor="seurat_v3", n_top_genes=min(2000, few.n_vars - 1), subset=True)
    scvi.model.SCVI.setup_anndata(few, batch_key="a batch")
    model = scvi.model.SCVI(few)
    model.train(max_epochs=60, accelerator="cpu", enable_progress_bar=False)
    return model.get_latent_representation()


def scores(vectors: np.ndarray, adata: ad.AnnData) -> dict[str, float]:
    """Mixing of batches and separation of types, 0 to 1, more is better."""
    import scib_metrics
    from scib_metrics.nearest_neighbors import pynndescent

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    batch, types = adata.obs["a batch"].to_numpy(), adata.obs["a type"].to_numpy()
    near = pynndescent(vectors, n_neighbors=90, n_jobs=1)
    found = {"mixing: iLISI": float(scib_metrics.ilisi_knn(near, batch))}
    if len(set(types)) > 1:
        found |= {
            "types: silhouette": float(scib_metrics.silhouette_label(vectors, types)),
            "types: cLISI": float(scib_metrics.clisi_knn(near, types)),
            "types: macro-F1 from other batches": from_other_batches(vectors, batch, types),
        }
    return found


def from_other_batches(vectors: np.ndarray, batch: np.ndarray, types: np.ndarray) -> float:
    """Macro-F1 of the type that most of the 15 nearest cells of other batches have."""
    from sklearn.metrics import f1_score
    from sklearn.neighbors import KNeighborsClassifier

    predicted = np.empty(len(types), dtype=object)
    for name in np.unique(batch):
        here = batch == name
        near = KNeighborsClassifier(15).fit(vectors[~here], types[~here])
        predicted[here] = near.predict(vectors[here])
    return float(f1_score(types, predicted.astype(str), average="macro"))


def spaces(adata: ad.AnnData, *, with_scvi: bool) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Names of methods, and what makes their vectors."""
    made: dict[str, np.ndarray] = {}

    def keep(name: str, vectors: np.ndarray) -> np.ndarray:
        made[name] = vectors
        return vectors

    def embedded() -> np.ndarray:
        copy = adata.copy()
        scellm.tl.embed(copy, min_overlap=0.02, show_progress=False)
        return copy.obsm["X_scellm"]

    yield "X_scellm", lambda: keep("scellm", embedded())
    yield "X_scellm, Harmony", lambda: harmony(made["scellm"], adata)
    yield "PCA", lambda: keep("pca", principal(adata))
    yield "PCA, Harmony", lambda: harmony(made["pca"], adata)
    if with_scvi and scellm.data.describe_values(adata.X).kind == "counts":
        yield "scVI", lambda: scvi_latent(adata)


def main() -> None:
    """Embed, mix, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--scvi", action="store_true")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name in options.sets:
        files, batch, label = SETS[name]
        adata = cells_of(options.data, files, batch, label)
        for method, make in spaces(adata, with_scvi=options.scvi):
            start = time.process_time()
            try:
                vectors = make()
            except ImportError as error:
                print(f"{method} was not run: {error}")
                continue
            seconds = time.process_time() - start
            is_full = np.isfinite(vectors).all(1)
            found = scores(vectors[is_full], adata[is_full])
            rows.append(
                {"set": name, "method": method, **found, "processor s": seconds, "cells": adata.n_obs}
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    numbers = [column for column in table if ":" in column]
    mean = table.groupby("method", sort=False)[numbers].mean().reset_index()
    sets = {
        name: table[table["set"] == name].drop(columns=["set"]).dropna(axis=1)
        for name in dict.fromkeys(table["set"])
    }
    text = (
        "Four ways to compare cells of several donors, technologies or studies, on "
        f"{table['set'].nunique()} sets of at most {MOST_CELLS:,} cells: the embedding as it is, principal components of 2,000 variable genes, "
        "and Harmony on top of each; scVI where a set has counts and it was run. iLISI says how well batches mix among the 90 nearest cells (0 not at all, 1 "
        "like one batch), silhouette and cLISI how well types lie apart; the macro-F1 is that of naming a cell by its 15 nearest cells *of "
        "other batches*, which needs both. The sets are parts of the training corpus of the encoder, which saw their cells without labels of batches; the islets "
        "of Baron were not seen. Most sets come with 875 to 2,000 genes only, which costs the embedding more than principal components. "
        "The mean of scVI is over fewer sets. CONCORD was not run."
    )
    print(write("batches", "Batches", text, {"Mean over sets": mean, **sets}, {"sets": list(sets)}))


if __name__ == "__main__":
    main()
