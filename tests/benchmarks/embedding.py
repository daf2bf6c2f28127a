"""Cells embedded without training on them: scellm beside PCA, untrained weights, all genes, and scVI.

    python tests/benchmarks/embedding.py [--model scellm-small] [--data FOLDER] [--seeds MODEL ...]
    python tests/benchmarks/embedding.py --scvi      # trains scVI on each set, tens of minutes; kept until run again
    python tests/benchmarks/embedding.py --page      # only writes the page

Needs scib-metrics and scvi-tools for their parts (`pip install 'scellm[benchmark]'`); without them these are not measured.
`--seeds` are models trained by the same recipe with other seeds; without it, their numbers are kept as long as the weights are the same. What does not depend on the weights and takes long (all
genes, scVI) is kept from run to run and measured again with `--again`. Writes `docs/benchmarks/embedding.md`, `.json`
and figures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _embedding_methods as methods
import anndata as ad
import numpy as np
import pandas as pd
from _embedding_page import write_page
from _report import DOCS, machine

import scellm
from scellm.metrics import anisotropy, neighbor_score, uniformity
from scellm.models import CellLM

NAME = "embedding"
DATA = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
RANDOM_SEEDS, FOLD_SEEDS, LONG_FOLD_SEEDS, LEIDEN_SEEDS = 3, 5, 1, 5
SPHERE_CELLS, SPEED_CELLS, SPEED_SET = 1000, 10_000, "pbmc3k"
LONG = ("log genes", "scVI")
"""Methods that do not depend on the weights and take long; kept from run to run."""


def score(vectors: np.ndarray, labels: pd.Series, n_seeds: int = FOLD_SEEDS) -> dict[str, float]:
    """15-NN macro-F1: mean and standard deviation over draws of the folds."""
    found = [neighbor_score(vectors, labels, rng=seed).macro_f1 for seed in range(n_seeds)]
    return {"macro_f1": float(np.mean(found)), "macro_f1_sd": float(np.std(found))}


def structure(vectors: np.ndarray, labels: pd.Series) -> dict[str, float]:
    """Silhouette of labels, NMI and ARI of the best Leiden clustering (scib-metrics), mean and standard deviation over seeds of Leiden; empty without the package."""
    try:
        import scib_metrics
        from scib_metrics.nearest_neighbors import NeighborsResults
    except ImportError:
        return {}
    from sklearn.neighbors import NearestNeighbors

    known = labels.notna().to_numpy()
    unit = vectors[known] / np.linalg.norm(vectors[known], axis=1, keepdims=True)
    names = labels[known].astype(str).to_numpy()
    distances, indices = NearestNeighbors(n_neighbors=15).fit(unit).kneighbors(unit)  # itself is the first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clustered = [
            scib_metrics.nmi_ari_cluster_labels_leiden(NeighborsResults(indices, distances), names, seed=seed)
            for seed in range(LEIDEN_SEEDS)
        ]
        width = scib_metrics.silhouette_label(unit, names, rescale=False, metric="cosine")
    table = pd.DataFrame(clustered).astype(float)
    spread = table.std(ddof=0).add_suffix("_sd")
    return {"silhouette": float(width), **table.mean(), **spread}


def sphere(vectors: np.ndarray) -> dict[str, float]:
    """Anisotropy and uniformity of a sample of cells."""
    rows = np.random.default_rng(0).permutation(len(vectors))[:SPHERE_CELLS]
    return {"anisotropy": anisotropy(vectors[rows]), "uniformity": uniformity(vectors[rows])}


def everything(vectors: np.ndarray, labels: pd.Series, n_seeds: int = FOLD_SEEDS) -> dict[str, float]:
    """All numbers of one embedding of one set."""
    return score(vectors, labels, n_seeds) | structure(vectors, labels) | sphere(vectors)


def read(path: Path) -> tuple[ad.AnnData, pd.Series]:
    """Cells with float counts, and their labels."""
    adata = ad.read_h5ad(path)
    adata.X = adata.X.astype(np.float32)
    adata.var_names_make_unique()
    return adata, adata.obs["cell_type"].astype(str).replace("NA", np.nan)


def measure(
    path: Path, model: CellLM, kept: dict[str, Any], *, again: bool, seeds: list[CellLM]
) -> dict[str, Any]:
    """All methods on one set, by name."""
    adata, labels = read(path)
    scored = neighbor_score(methods.pca(adata), labels)
    found: dict[str, Any] = {name: kept[name] for name in LONG if name in kept}
    found |= {"cells": scored.n_cells, "types": len(scored.f1), "left_out": scored.left_out}
    found["groups"] = {
        key: int(adata.obs[key].astype(str).nunique()) for key in ("batch", "donor") if key in adata.obs
    }
    found["scellm"] = everything(methods.scellm_of(adata, model), labels)
    found["PCA"] = everything(methods.pca(adata), labels)
    untrained = [
        everything(methods.scellm_of(adata, methods.random_like(model, seed)), labels, 1)
        for seed in range(RANDOM_SEEDS)
    ]
    found["random weights"] = _mean(untrained)
    if again or "log genes" not in kept:
        found["log genes"] = everything(methods.log_genes(adata), labels, LONG_FOLD_SEEDS)
    if "seeds" in kept:
        found["seeds"] = kept["seeds"]
    if seeds:
        found["seeds"] = [score(methods.scellm_of(adata, other), labels)["macro_f1"] for other in seeds]
    return found


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over initialisations, and the spread of macro-F1 over them."""
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return means | {"macro_f1_sd": float(np.std([row["macro_f1"] for row in rows]))}


def train_scvi(path: Path) -> dict[str, Any]:
    """scVI on one set, one seed."""
    adata, labels = read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectors, facts = methods.scvi(adata, seed=0)
    return (
        everything(vectors, labels) | facts | {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    )


def speed(data: Path, model: str, method: str) -> dict[str, Any]:
    """Processor seconds and growth of the memory peak of one method on many cells; in a process of its own."""
    adata, _ = read(data / f"{SPEED_SET}.h5ad")
    rows = np.random.default_rng(0).choice(adata.n_obs, SPEED_CELLS)
    small = adata[:64].copy()
    adata = adata[rows].copy()
    adata.obs_names_make_unique()
    run: Callable[[ad.AnnData], np.ndarray] = {"PCA": methods.pca, "log genes": methods.logged}.get(method)
    if run is None:
        loaded = scellm.models.load(model)

        def run(cells: ad.AnnData) -> np.ndarray:
            return methods.scellm_of(cells, loaded)

    run(small)  # what is compiled or read at the first use
    with _Peak() as peak:
        began, clock = time.process_time(), time.perf_counter()
        run(adata)
        seconds = time.process_time() - began
    return {
        "seconds": seconds,
        "wall": time.perf_counter() - clock,
        "cells_per_second": SPEED_CELLS / seconds,
        "peak_mib": peak.mib,
        "median_genes": float(np.median(np.diff(adata.X.indptr))),
    }


class _Peak:
    """Most memory the process holds above what it held at the start, looked at every few milliseconds."""

    def __enter__(self) -> _Peak:
        self._start, self.mib, self._done = _resident(), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.003):
            self.mib = max(self.mib, _resident() - self._start)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def _resident() -> float:
    """MiB of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def speeds(options: argparse.Namespace) -> dict[str, Any]:
    """`speed` of each method."""
    found = {}
    for method in ("scellm", "PCA", "log genes"):
        command = [
            sys.executable,
            __file__,
            "--speed-of",
            method,
            "--model",
            options.model,
            "--data",
            options.data,
        ]
        done = subprocess.run([str(x) for x in command], check=True, capture_output=True, text=True)
        found[method] = json.loads(done.stdout.splitlines()[-1])
    return found


def umaps(
    data: Path, model: CellLM, sets: tuple[str, ...] = ("baron_h1_pancreas", "pbmc3k")
) -> dict[str, Any]:
    """UMAP coordinates of sets under PCA and scellm, with labels."""
    import scanpy as sc

    found = {}
    for name in sets:
        adata, labels = read(data / f"{name}.h5ad")
        for method, vectors in (("PCA", methods.pca(adata)), ("scellm", methods.scellm_of(adata, model))):
            cells = ad.AnnData(obs=pd.DataFrame(index=adata.obs_names))
            cells.obsm["X"] = vectors
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sc.pp.neighbors(cells, n_neighbors=15, use_rep="X", metric="cosine", random_state=0)
                sc.tl.umap(cells, random_state=0)
            found[f"{name} {method}"] = (cells.obsm["X_umap"], labels.fillna("no label").to_numpy())
    return found


def store(path: Path, results: dict[str, Any]) -> None:
    """Keep the numbers of scVI before there is a page for them."""
    page = json.loads(path.read_text())
    for name, found in results.items():
        page["facts"].setdefault("results", {}).setdefault(name, {})["scVI"] = found["scVI"]
    new = path.with_suffix(".new")
    new.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of labeled .h5ad files")
    parser.add_argument("--seeds", nargs="*", default=[], help="models of the same recipe, other seeds")
    parser.add_argument(
        "--scvi", action="store_true", help="train scVI on each set; the page shows it when it is made next"
    )
    parser.add_argument("--again", action="store_true", help="measure again what is kept from run to run")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--speed-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speed_of:
        print(json.dumps(speed(options.data, options.model, options.speed_of)))
        return
    path = DOCS / f"{NAME}.json"
    facts = json.loads(path.read_text())["facts"] if path.exists() else {}
    results = facts.get("results", {})
    sets = sorted(options.data.glob("*.h5ad"))
    if options.scvi:
        for each in sets:
            found = train_scvi(each)
            print(each.stem, found, flush=True)
            store(path, {each.stem: {"scVI": found}})
        return
    if options.page:
        print(write_page(facts, None))
        return
    model = scellm.models.load(options.model)
    others = [scellm.models.load(name) for name in options.seeds]
    if facts.get("sha256") != model.sha256:
        for found in results.values():
            found.pop("seeds", None)
        facts["seeds"] = []
    for each in sets:
        began = time.monotonic()
        results[each.stem] = measure(
            each, model, results.get(each.stem, {}), again=options.again, seeds=others
        )
        print(each.stem, f"{time.monotonic() - began:.0f} s", results[each.stem]["scellm"], flush=True)
    for name, found in (
        json.loads(path.read_text())["facts"].get("results", {}).items() if path.exists() else ()
    ):
        if "scVI" in found and name in results:  # of a run that went on meanwhile
            results[name]["scVI"] = found["scVI"]
    facts |= {
        "model": model.name,
        "sha256": model.sha256,
        "seeds": [other.sha256 for other in others] or facts.get("seeds", []),
        "recipe_seconds": 60 * float(model.provenance.get("minutes", 0)),
        "measured": machine(),
        "results": results,
        "speed": speeds(options),
    }
    print(write_page(facts, umaps(options.data, model)))


if __name__ == "__main__":
    main()
