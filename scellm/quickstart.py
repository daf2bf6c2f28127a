"""The main job on real cells, in one command: `python -m scellm.quickstart`.

Names the types of 1,937 cells of a human pancreas with the model that comes with scellm, which has never seen this
study, and sets them beside the labels that its authors published. Needs no network.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from ._files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

PUBLISHED = "cell_type"
"""Column of the authors' labels."""
TYPES = "scellm_cell_type"
"""Column `tl.annotate` writes."""
RARE = 0.005
"""Share of the cells below which types are drawn as one, in gray."""
NEXT = """
What now?
  your own cells    scellm annotate my_cells.h5ad -o annotated.h5ad    (counts of all genes: h5ad, 10x h5 or mtx)
  in Python         scellm.tl.annotate(adata); scellm.pl.annotation(adata)
  what is what      docs/tutorials.md, beginning with "From counts to cell types"; docs/faq.md for questions
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Annotate, compare with the published labels, and write cells and picture to a folder."""
    parser = argparse.ArgumentParser(prog="python -m scellm.quickstart", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart"), help="folder for the results")
    folder = parser.parse_args(arguments).out

    print("Importing torch and scanpy ...", flush=True)  # the first time takes up to a minute
    import scanpy as sc

    import scellm

    adata = scellm.datasets.pancreas()
    print(f"Annotating {adata.n_obs:,} cells of a human pancreas with {adata.n_vars:,} genes ...", flush=True)
    scellm.tl.annotate(adata)
    sc.pp.neighbors(adata, use_rep="X_scellm", n_neighbors=15)  # annotate kept the embedding
    sc.tl.umap(adata, random_state=0)

    markers = scellm.get.annotation(adata).set_index("label")["markers_expressed"]
    print(f"\n{agreement(adata, markers).to_string(index=False)}\n")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Wrote {write_cells(adata, folder / 'pancreas_scellm.h5ad')}")
    print(f"Wrote {draw_umap(adata, folder / 'pancreas_umap.png')}")
    print(NEXT)


def agreement(adata: AnnData, markers: pd.Series) -> pd.DataFrame:
    """One row per published label: what its cells are called most often, and the markers they express."""
    import pandas as pd

    rows = []
    for label, types in adata.obs.groupby(PUBLISHED, observed=True)[TYPES]:
        counts = types.value_counts()
        genes = str(markers.get(counts.index[0], "")).split(", ")[:3]
        rows.append(
            (label, len(types), counts.index[0], f"{counts.iloc[0] / len(types):.0%}", ", ".join(genes))
        )
    names = ["published label", "cells", "most are called", "share", "as they express"]
    return pd.DataFrame(rows, columns=names).sort_values("cells", ascending=False)


def write_cells(adata: AnnData, path: Path) -> Path:
    """Write the cells, whole or not at all."""
    with replacing(path) as part:
        adata.write_h5ad(part, compression="gzip")
    return path


def type_colors(adata: AnnData) -> tuple[dict[str, str], dict[str, str]]:
    """Colors of the published labels and of the types; a type has that of the label it stands for."""
    import matplotlib

    tones = [*matplotlib.color_sequences["tab20"][::2], *matplotlib.color_sequences["tab20"][1::2]]
    palette = itertools.cycle([*tones, *matplotlib.color_sequences["tab20b"]])
    labels = adata.obs[PUBLISHED].value_counts().index
    of_label = {
        str(label): matplotlib.colors.to_hex(color) for label, color in zip(labels, palette, strict=False)
    }
    of_type: dict[str, str] = {"unassigned": "#999999", "novel": "#000000"}
    for name, cells in adata.obs.groupby(TYPES, observed=True)[PUBLISHED]:
        label = str(cells.mode().iloc[0])
        most = adata.obs.loc[adata.obs[PUBLISHED] == label, TYPES].mode().iloc[0]
        of_type.setdefault(
            str(name), of_label[label] if name == most else matplotlib.colors.to_hex(next(palette))
        )
    return of_label, of_type


def draw_umap(adata: AnnData, path: Path) -> Path:
    """Draw the UMAP twice: colored by the published labels and by the types that scellm found."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    of_label, of_type = type_colors(adata)
    draw_panel(left, adata, PUBLISHED, of_label)
    draw_panel(right, adata, TYPES, of_type)
    left.set_title(f"Labels published with the {adata.n_obs:,} cells")
    right.set_title("Types found by scellm.tl.annotate(adata)")
    with replacing(path) as part:
        figure.savefig(part, dpi=120)
    return path


def draw_panel(axes: Axes, adata: AnnData, key: str, colors: dict[str, str]) -> None:
    """One UMAP with its legend, common types first, rare ones together."""
    counts = adata.obs[key].value_counts()
    common = [str(name) for name, n in counts.items() if n >= RARE * adata.n_obs]
    groups = {name: (adata.obs[key] == name).to_numpy() for name in common}
    is_rare = ~adata.obs[key].isin(common).to_numpy()
    if is_rare.any():
        groups[f"{len(counts) - len(common)} rarer types"] = is_rare
    for name, cells in groups.items():
        axes.scatter(
            adata.obsm["X_umap"][cells, 0],
            adata.obsm["X_umap"][cells, 1],
            s=14,
            color=colors.get(name, "0.8"),
            linewidths=0,
            label=f"{name} ({cells.sum()})",
        )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
    axes.set(xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
