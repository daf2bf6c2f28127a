"""Compare recipes on labeled sets of the training corpus, which `training_corpus.py` leaves out; never on the benchmark.

    python tests/benchmarks/validation.py DATA MODEL [MODEL ...]

Prints macro-F1 of cell types from 15 nearest neighbors, beside PCA fitted on each set.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

import scellm
from scellm.metrics import neighbor_score

SETS = (
    "breast_komen_gtex",
    "enge_pancreas",
    "ipsc_cardio_scdatasets",
    "melanoma_tirosh_mini",
    "mouse_cortex_zeisel",
    "mouse_epidermis_joost",
    "scmixology_sc_celseq2_5cl_p1",
    "zheng_sorted_same",
)
"""Labeled sets of several tissues and protocols."""


def read(data: Path, name: str) -> ad.AnnData:
    """The labeled cells of a set."""
    path = next(
        data / folder / f"{name}.h5ad"
        for folder in ("corpus", "corpus_wide", "corpus_more")
        if (data / folder / f"{name}.h5ad").exists()
    )
    adata = ad.read_h5ad(path)
    adata = adata[adata.obs["cell_type"].astype(str) != "NA"].copy()
    adata.X = adata.X.astype(np.float32)
    return adata


def pca(adata: ad.AnnData) -> np.ndarray:
    """PCA-50 of log-normalized variable genes that three cells express; logarithms are taken as they are.

    Without the filter genes of one or two cells are among the most variable ones, and macro-F1 is 0.016 lower on average.
    """
    adata = adata.copy()
    sc.pp.filter_genes(adata, min_cells=3)
    if adata.X.max() > 30:
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    return sc.pp.pca(
        adata[:, adata.var["highly_variable"]].X, n_comps=min(50, adata.n_obs - 1), random_state=0
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    models = {name: scellm.models.load(name) for name in options.models}
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SETS:
            adata = read(options.data, name)
            types = adata.obs["cell_type"]
            row = {"set": name, "PCA": neighbor_score(pca(adata), types).macro_f1}
            for key, model in models.items():
                scellm.tl.embed(adata, model, min_overlap=0.05, show_progress=False)
                row[key] = neighbor_score(adata.obsm["X_scellm"], types).macro_f1
            rows.append(row)
    table = pd.DataFrame(rows)
    mean = {"set": "mean", **table.drop(columns="set").mean().to_dict()}
    print(pd.concat([table, pd.DataFrame([mean])]).to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
