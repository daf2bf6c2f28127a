"""The small index of the corpus that comes with scellm: python tests/benchmarks/exemplar_index.py DATA.

DATA is the folder with `corpus`, `corpus_wide` and `corpus_more`. Of every human dataset, an equal number of cells of each type is taken,
until the index has some 4 MB. Run it again when the weights of `scellm-small` change: a test compares their hashes.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import scellm
from scellm.atlas import build_index
from scellm.data import ReadOptions
from scellm.tl._embed import EncodeOptions
from scellm.tl._search import SHIPPED
from scellm.tl._vectors import vectors_and_marks

FOLDERS = ("corpus", "corpus_wide", "corpus_more")
COLUMNS = ("cell_type", "tissue", "disease", "study", "paper")
N_CELLS = 7_000
MOST_OF_A_TYPE = 60
"""Cells of a type and study that are embedded."""
UNKNOWN = ("NA", "nan", "", "unknown")


def human(path: Path) -> ad.AnnData | None:
    """Cells of a file; `None` for those of mice."""
    adata = ad.read_h5ad(path)
    organism = str(adata.uns.get("organism", "human")) + " ".join(
        map(str, adata.obs.get("organism", ["human"])[:1])
    )
    return None if "mouse" in organism or path.stem.startswith(("mouse_", "tabula_muris")) else adata


def main() -> None:
    """Embed, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = scellm.models.load("scellm-small")
    tables, vectors, marks = [], [], []
    for path in sorted(file for folder in FOLDERS for file in (options.data / folder).glob("*.h5ad")):
        adata = human(path)
        if adata is None:
            continue
        types = (
            adata.obs["cell_type"].astype(str)
            if "cell_type" in adata.obs
            else pd.Series("", index=adata.obs_names)
        )
        order = pd.Series(np.random.default_rng(0).permutation(adata.n_obs), index=adata.obs_names)
        rank = order.groupby(types.to_numpy()).rank()
        adata = adata[(rank <= MOST_OF_A_TYPE).to_numpy()].copy()
        scellm.tl.embed(adata, model, min_overlap=0.02, show_progress=False)
        table = pd.DataFrame(
            {
                name: adata.obs[name].astype(str).to_numpy() if name in adata.obs else ""
                for name in COLUMNS[:3]
            }
        )
        table["study"], table["paper"] = (
            path.stem,
            str(adata.uns.get("paper", adata.uns.get("source", "")))[:120],
        )
        is_full = np.isfinite(adata.obsm["X_scellm"]).all(1)
        marks.append(
            vectors_and_marks(adata, model, ReadOptions(min_overlap=0.02), EncodeOptions())[1][is_full]
        )
        tables.append(table[is_full])
        vectors.append(adata.obsm["X_scellm"][is_full].astype(np.float16))
    table, X = pd.concat(tables, ignore_index=True), np.concatenate(vectors)
    rank = table.assign(order=np.random.default_rng(0).permutation(len(table))).sort_values("order")
    rank = rank.groupby(
        ["study", "cell_type"]
    ).cumcount()  # the first of each type and study, then the second ...
    rows = np.sort(rank.sort_values(kind="stable").index[:N_CELLS].to_numpy())
    table = table.iloc[rows].where(~table.iloc[rows].isin(UNKNOWN), None)
    about = {
        "model": model.name,
        "sha256": model.sha256,
        "about": "Exemplars of the corpus behind scellm-small and its reference of cell types; embeddings only, no expression.",
    }
    columns = {name: table[name] for name in COLUMNS}
    index = build_index([X[rows]], columns, SHIPPED, about=about, marks=np.concatenate(marks)[rows])
    size = sum(file.stat().st_size for file in SHIPPED.iterdir())
    print(f"{SHIPPED}: {index.n_cells} cells of {table['study'].nunique()} studies, {size / 1e6:.2f} MB")
    print({name: table[name].nunique() for name in COLUMNS})


if __name__ == "__main__":
    main()
