"""The main job on real cells, in one command: `python -m scellm.quickstart`.

Embeds the 700 blood cells that come with scanpy with the weights that come with scellm, and names their types from the
reference that comes with them; needs no network.
"""

from __future__ import annotations

import argparse
import itertools
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
    scellm.tl.annotate(adata, use_raw=True, min_overlap=0.03)
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
        types = adata.obs[key].cat.categories
        colours = adata.uns.get(f"{key}_colors", matplotlib.color_sequences["tab20"])
        for cell_type, colour in zip(types, itertools.cycle(colours)):  # as many as there are types
            x, y = adata.obsm["X_umap"][(adata.obs[key] == cell_type).to_numpy()].T
            axes.scatter(x, y, s=12, color=colour, linewidths=0, label=cell_type)
        axes.set(title=title, xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=1.8)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as part:
        figure.savefig(part, dpi=130)
    return path


if __name__ == "__main__":
    main()
