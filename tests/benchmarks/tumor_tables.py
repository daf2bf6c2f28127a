"""Make the tables of `scellm/tumors`: places of genes and the panel of normal profiles.

python tests/benchmarks/tumor_tables.py DATA

DATA has `knowledge/gene_positions_hg38.tsv.gz` and `profiles/human_celltypes.h5ad`.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from scellm.data import GeneVocabulary
from scellm.tumors._genome import TABLES

N_PROFILES = 120
SCALE = 28
"""log1p values are stored as whole numbers of this part, up to 255."""


def positions(path: Path) -> pd.DataFrame:
    """Genes of the vocabulary with one place, in the vocabulary's order."""
    table = pd.read_csv(path, sep="\t", dtype=str).fillna("")
    agrees = [
        arm.startswith(chromosome) and arm[len(chromosome) :] in ("p", "q")
        for arm, chromosome in zip(table["arm"], table["chromosome"], strict=True)
    ]
    table = table[np.array(agrees) & table["chromosome"].isin([*map(str, range(1, 23)), "X"])]
    by_id = table[table["ensembl_id"] != ""].drop_duplicates("ensembl_id", keep=False).set_index("ensembl_id")
    by_symbol = table.drop_duplicates("symbol", keep=False).set_index("symbol")
    vocabulary = GeneVocabulary.default()
    rows = []
    for ensembl_id, symbol in zip(vocabulary.ensembl_ids, vocabulary.symbols, strict=True):
        place = by_id.loc[ensembl_id] if ensembl_id in by_id.index else None
        place = by_symbol.loc[symbol] if place is None and symbol in by_symbol.index else place
        if place is not None:
            rows.append((ensembl_id, symbol, place["chromosome"], place["start"], place["arm"]))
    return pd.DataFrame(rows, columns=["ensembl_id", "symbol", "chromosome", "start", "arm"])


def panel(path: Path, symbols: np.ndarray, names_before: np.ndarray | None) -> dict[str, np.ndarray]:
    """The profiles nearest to the centers of 120 clusters, or those that were chosen before."""
    profiles = ad.read_h5ad(path)
    study = profiles.obs["dataset"].astype(str)
    keep = study.str.startswith("CPL_") & (profiles.obs["malignant"].astype(str) == "False")
    profiles = profiles[(keep & ~study.str.contains("Darmanis")).to_numpy()].copy()
    linear = np.expm1(np.asarray(profiles.X, dtype=float) / profiles.uns["scale"]) / 50
    masks = np.array(
        [
            np.unpackbits(profiles.uns["gene_mask"][name])[: profiles.n_vars].astype(bool)
            for name in profiles.obs["dataset"]
        ]
    )
    at = pd.Index(profiles.var_names).get_indexer(symbols)
    expression = np.where(at >= 0, linear[:, at], 0)
    measured = np.where(at >= 0, masks[:, at], False)
    expression = np.where(measured, expression, 0).astype(np.float32)
    logged = np.log1p(expression / expression.sum(axis=1, keepdims=True) * 1e4)
    study = profiles.obs["dataset"].astype(str).str.removeprefix("CPL_Human__")
    names = (profiles.obs["cell_type"].astype(str) + " | " + study).to_numpy(str)
    if names_before is None:
        chosen = central(logged[:, measured.mean(axis=0) > 0.9])
    else:
        chosen = np.flatnonzero(np.isin(names, names_before))
    return {
        "symbols": symbols,
        "names": names[chosen],
        "scale": np.float32(SCALE),
        "log1p": np.minimum(np.round(logged[chosen] * SCALE), 255).astype(np.uint8),
        "measured": np.packbits(measured[chosen], axis=1),
    }


def central(logged: np.ndarray) -> np.ndarray:
    """Rows nearest to the centers of 120 clusters; k-means in float32 may end elsewhere on another machine."""
    shapes = logged - logged.mean(axis=1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    clusters = KMeans(N_PROFILES, n_init=5, random_state=0).fit(shapes)
    chosen = []
    for number, center in enumerate(clusters.cluster_centers_):
        rows = np.flatnonzero(clusters.labels_ == number)
        chosen.append(int(rows[((shapes[rows] - center) ** 2).sum(axis=1).argmin()]))
    return np.array(sorted(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=TABLES)
    parser.add_argument("--choose", action="store_true", help="choose the profiles anew")
    options = parser.parse_args()
    before = None
    if not options.choose:
        with np.load(TABLES / "normal_panel.npz", allow_pickle=False) as file:
            before = file["names"]
    table = positions(options.data / "knowledge" / "gene_positions_hg38.tsv.gz")
    with gzip.GzipFile(options.out / "positions.tsv.gz", "wb", mtime=0) as file:
        file.write(table.to_csv(sep="\t", index=False).encode())
    arrays = panel(options.data / "profiles" / "human_celltypes.h5ad", table["symbol"].to_numpy(str), before)
    np.savez_compressed(options.out / "normal_panel.npz", **arrays)
    print(f"{len(table)} genes, {len(arrays['names'])} profiles in {options.out}")


if __name__ == "__main__":
    main()
