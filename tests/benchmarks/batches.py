"""Donors, technologies and studies: python tests/benchmarks/batches.py DATA [--rows FILE].

Every set is embedded as it is, without a parameter; beside it stand principal components of 2,000 variable genes, both with Harmony on
top, and where they are installed scVI and CONCORD, for sets with counts. Scores: ours by scikit-learn, and those of scib-metrics where that
is installed. Sets have at most 800 cells. Writes `docs/benchmarks/batches.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import write

import scellm

MOST_CELLS = 800
EPOCHS = 60
"""Of scVI."""
SETS = {
    "islets, 3 technologies": (["corpus_more/pancreas_panc8_3tech_mini"], "batch", "cell_type"),
    "blood, 3 technologies": (["corpus_more/pbmc_symphony_3tech"], "batch", "cell_type"),
    "blood, 2 technologies": (["corpus_more/pbmc_ding_2tech"], "batch", "cell_type"),
    "T cells, 8 libraries": (["corpus_more/tcells_ards_screp"], "batch", None),
    "blood, resting and interferon": (["corpus/kang_ifnb_pbmc"], "condition", "cell_type"),
    "islets, 2 studies": (
        ["corpus_wide/enge_pancreas", "benchmarks/baron_h1_pancreas"],
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

    found = np.asarray(
        harmonypy.run_harmony(vectors.astype(np.float64), adata.obs, ["a batch"], verbose=False).Z_corr
    )
    return found if found.shape == vectors.shape else found.T


def scvi_latent(adata: ad.AnnData) -> np.ndarray:
    """The latent space of scVI, trained for `EPOCHS`."""
    import scvi

    few = adata.copy()
    sc.pp.highly_variable_genes(few, flavor="seurat_v3", n_top_genes=min(2000, few.n_vars - 1), subset=True)
    scvi.model.SCVI.setup_anndata(few, batch_key="a batch")
    model = scvi.model.SCVI(few)
    model.train(max_epochs=EPOCHS, accelerator="cpu", enable_progress_bar=False)
    return model.get_latent_representation()


def concord_latent(adata: ad.AnnData) -> np.ndarray:
    """The latent space of CONCORD, by its own defaults."""
    import concord

    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=min(2000, logged.n_vars - 1), subset=True)
    with tempfile.TemporaryDirectory() as folder:
        model = concord.Concord(
            adata=logged, domain_key="a batch", device="cpu", save_dir=folder, verbose=False
        )
        model.fit_transform(output_key="X_concord")
    return np.asarray(model.adata.obsm["X_concord"] if hasattr(model, "adata") else logged.obsm["X_concord"])


def scores(vectors: np.ndarray, adata: ad.AnnData) -> dict[str, float]:
    """Mixing of batches and separation of types, 0 to 1, more is better."""
    from sklearn.metrics import silhouette_score

    batch, types = adata.obs["a batch"].to_numpy(), adata.obs["a type"].to_numpy()
    found = {"mixing: entropy": entropy_mixing(vectors, batch, types)}
    if find_spec("scib_metrics"):
        found |= scib_scores(vectors.astype(np.float32), batch, types)
    if len(set(types)) > 1:
        found |= {
            "types: silhouette": (1 + float(silhouette_score(vectors, types))) / 2,
            "types: macro-F1 from other batches": from_other_batches(vectors, batch, types),
        }
    return found


def scib_scores(vectors: np.ndarray, batch: np.ndarray, types: np.ndarray) -> dict[str, float]:
    """Scores of scib-metrics, 0 to 1, more is better; neighbors are exact."""
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=90).fit(vectors).kneighbors(vectors)
    near = NeighborsResults(indices=indices, distances=distances)
    batches, codes = (np.unique(x, return_inverse=True)[1] for x in (batch, types))
    found = {"scib mixing: iLISI": scib_metrics.ilisi_knn(near, batches)}
    if codes.max():
        found |= {
            "scib mixing: BRAS": scib_metrics.bras(vectors, codes, batches),
            "scib types: cLISI": scib_metrics.clisi_knn(near, codes),
            "scib types: NMI of KMeans": scib_metrics.nmi_ari_cluster_labels_kmeans(vectors, codes)["nmi"],
        }
    return {name: float(value) for name, value in found.items()}


def entropy_mixing(vectors: np.ndarray, batch: np.ndarray, types: np.ndarray) -> float:
    """Mean entropy of the batches among the 30 nearest cells of the same type, over that of all its cells."""
    from sklearn.neighbors import NearestNeighbors

    found, sizes = [], []
    for name in np.unique(types):
        of_type = types == name
        codes = np.unique(batch[of_type], return_inverse=True)[1]
        k = min(30, of_type.sum() - 1)
        near = NearestNeighbors(n_neighbors=k).fit(vectors[of_type]).kneighbors(return_distance=False)
        shares = np.stack([(codes[near] == code).mean(1) for code in range(codes.max() + 1)], 1)
        whole = np.bincount(codes) / len(codes)
        found.append(float((_entropy(shares) / _entropy(whole[None])).mean()))
        sizes.append(int(of_type.sum()))
    return float(np.clip(np.average(found, weights=sizes), 0, 1))


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log(np.maximum(shares, 1e-12))).sum(1)


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


def spaces(adata: ad.AnnData) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
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
    if scellm.data.describe_values(adata.X).kind == "counts":
        yield "scVI", lambda: scvi_latent(adata)
        yield "CONCORD", lambda: concord_latent(adata)


def measured(name: str, adata: ad.AnnData) -> Iterator[dict[str, object]]:
    """A row for each method that can be run on a set."""
    for method, make in spaces(adata):
        start = time.process_time()
        try:
            vectors = make()
        except ImportError as error:
            print(f"{method} was not run: {error}")
            continue
        seconds = time.process_time() - start
        is_full = np.isfinite(vectors).all(1)
        found = scores(vectors[is_full], adata[is_full])
        yield {"set": name, "method": method, **found, "processor s": seconds, "cells": adata.n_obs}


def text_of(table: pd.DataFrame) -> str:
    """What the rows are."""
    n_sets = table["set"].nunique()
    ran = table.groupby("method")["set"].nunique()
    others = " ".join(
        f"{name} was run on {ran[name]} of them, those with counts."
        if name in ran
        else f"{name} was not run."
        for name in ("scVI", "CONCORD")
    )
    scib = (
        " Columns of scib-metrics: iLISI and BRAS for mixing; cLISI and the NMI of KMeans for types, from 90 exact neighbors."
        if any(column.startswith("scib") for column in table)
        else " scib-metrics was not run."
    )
    packages = ("harmonypy", "scvi-tools", "concord-sc", "scib-metrics")
    others += f" Versions: {', '.join(f'{x} {version(x)}' for x in packages if is_installed(x))}."
    return (
        f"Ways to compare cells of several donors, technologies or studies, on {n_sets} sets of at most {MOST_CELLS:,} cells: the embedding "
        "as it is, principal components of 2,000 variable genes, Harmony on top of each, and methods that are trained on each set (scVI: "
        f"{EPOCHS} epochs). {others} Entropy says how well batches mix among the 30 nearest cells of a type (0 not at all, 1 "
        "as in all cells of it), silhouette, from 0 to 1, how well types lie apart; the macro-F1 is that of naming a cell by its 15 nearest cells *of "
        f"other batches*, which needs both.{scib} The encoder was trained on Kang's cells and those of Enge, without "
        "labels of batches, and on none of the others. Most sets come with 875 to 2,000 genes only. Means over sets are over those that all "
        "methods were run on. Seconds are of the processor, what happens once in a process (imports, compiling) included."
    )


def is_installed(package: str) -> bool:
    """Whether there is a package."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def main() -> None:
    """Embed, mix, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument(
        "--rows", type=Path, help="file of rows that are kept from run to run; sets in it are not run again"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = [json.loads(line) for line in kept]
    done = {row["set"] for row in rows}
    for name in options.sets:
        if name in done:
            continue
        files, batch, label = SETS[name]
        for row in measured(name, cells_of(options.data, files, batch, label)):
            rows.append(row)
            print(row, flush=True)
        if options.rows:
            options.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pd.DataFrame(rows)
    numbers = [column for column in table if ":" in column]
    is_in_all = table.groupby("set")["method"].transform("nunique") == table["method"].nunique()
    mean = table[is_in_all].groupby("method", sort=False)[numbers].mean().reset_index()
    sets = {
        name: table[table["set"] == name].drop(columns=["set"]).dropna(axis=1)
        for name in dict.fromkeys(table["set"])
    }
    heading = f"Mean over the {table.loc[is_in_all, 'set'].nunique()} sets that all were run on"
    print(write("batches", "Batches", text_of(table), {heading: mean, **sets}, {"sets": list(sets)}))


if __name__ == "__main__":
    main()
