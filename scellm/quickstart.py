"""The main job on real cells, in one command: `python -m scellm.quickstart`.

Embeds the 700 blood cells that come with scanpy with the weights that come with scellm, and names their types from the
reference that comes with them; needs no network.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ._files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData

LABELS = "bulk_labels"
"""Column of cell types in scanpy's cells: the sorted population each resembles most (Zheng et al. 2017)."""
TYPES = "scellm_cell_type"
"""Column `tl.annotate` writes."""
N_PCS = 50
RARE = 0.01
"""Share of the cells below which types are drawn as one, in gray."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Embed, annotate, compare with PCA, and write the cells and a picture to a folder."""
    parser = argparse.ArgumentParser(prog="python -m scellm.quickstart", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart"), help="folder for the results")
    folder = parser.parse_args(arguments).out

    print("Importing torch and scanpy ...", flush=True)  # the first time takes up to a minute
    import scanpy as sc

    import scellm

    adata = sc.datasets.pbmc68k_reduced()
    del adata.obsm["X_pca"], adata.varm["PCs"], adata.uns["pca"]  # of the scaled X
    print(f"Embedding {adata.n_obs} blood cells with {adata.raw.n_vars} genes ...", flush=True)
    # X is scaled, raw is log-normalized; 765 genes are 4 % of the vocabulary
    scellm.tl.embed(adata, use_raw=True, min_overlap=0.03)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scellm.tl.annotate(adata, tissue="blood", use_raw=True, min_overlap=0.03)
    for warning in said:
        print(f"Warning: {warning.message}")
    if said:
        print(
            f"Here that is so because {adata.raw.n_vars} selected genes are few. Bring all genes of your own cells."
        )
    adata.obsm["X_pca"] = pca_of_raw(adata)

    sc.pp.neighbors(adata, use_rep="X_scellm", n_neighbors=15)
    sc.tl.umap(adata, random_state=0)
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        write_cells(adata, folder / "pbmc68k_scellm.h5ad"),
        draw_umap(adata, folder / "pbmc68k_umap.png"),
    ]
    for path in written:
        print(f"Wrote {path}")
    print(comparison(adata))


def pca_of_raw(adata: AnnData) -> np.ndarray:
    """The usual alternative on the same values: PCA of the log-normalized genes, (n_obs, N_PCS)."""
    import scanpy as sc

    return sc.pp.pca(adata.raw.to_adata().X, n_comps=N_PCS, random_state=0)


def comparison(adata: AnnData) -> str:
    """One line: neighbors' macro-F1 in the embedding and in PCA."""
    from scellm.metrics import neighbor_score

    scores = {key: neighbor_score(adata.obsm[key], adata.obs[LABELS]) for key in ("X_scellm", "X_pca")}
    score = scores["X_scellm"]
    left_out = f", {sum(score.left_out.values())} cells of rarer types left out" if score.left_out else ""
    return (
        f"Cell types from 15 nearest neighbors, macro-F1 over {len(score.f1)} types{left_out}: "
        f"X_scellm {score.macro_f1:.3f}, PCA of the same cells {scores['X_pca'].macro_f1:.3f}"
    )


def write_cells(adata: AnnData, path: Path) -> Path:
    """Write the cells, whole or not at all."""
    with replacing(path) as part:
        adata.write_h5ad(part, compression="gzip")
    return path


def draw_umap(adata: AnnData, path: Path) -> Path:
    """Draw the UMAP colored by the population a cell was likened to when it was published, and by predicted type."""
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = {
        LABELS: f"{adata.n_obs} blood cells: published labels",
        TYPES: "Types found by scellm.tl.annotate",
    }
    for axes, (key, title) in zip(figure.subplots(2, 1), panels.items(), strict=True):
        share = adata.obs[key].value_counts(normalize=True)
        is_rare = adata.obs[key].map(share).astype(float).to_numpy() < RARE
        kept = [name for name in adata.obs[key].cat.categories if share[name] >= RARE]
        groups = {str(name): (adata.obs[key] == name).to_numpy() for name in kept}
        colors = adata.uns.get(f"{key}_colors", matplotlib.color_sequences["tab20"])
        styles = dict(zip(groups, itertools.cycle(colors)))  # as many as there are types
        if is_rare.any():
            groups["rarer types"], styles["rarer types"] = is_rare, "0.75"
        for name, cells in groups.items():
            axes.scatter(*adata.obsm["X_umap"][cells].T, s=12, color=styles[name], linewidths=0, label=name)
        axes.set(title=title, xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=1.8)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as part:
        figure.savefig(part, dpi=130)
    return path


if __name__ == "__main__":
    main()
