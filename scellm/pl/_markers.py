"""markers: do predicted types express the genes they should?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .._checks import get_matrix
from .._containers import takes_cells
from .._keys import CELL_TYPE
from .._warn import warn
from ..data.cells._expression import judge_values
from ._figure import color_bar, dot, finish, new_axes, plain, short
from ._results import REFUSALS, names_of, read_labels, reference_markers

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TARGET_SUM = 1e4
"""Counts are drawn as log1p of counts per 10,000."""
STEP = 0.25
"""Inches between dots."""
LARGEST_DOT = 110.0
"""Square points of a gene that all cells of a type express."""


@takes_cells
def markers(
    adata: AnnData,
    markers: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    *,
    key: str = CELL_TYPE,
    n_genes: int = 3,
    layer: str | None = None,
    use_raw: bool | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw marker genes by predicted type: a dot's size is the share of cells that express the gene, its color how much.

    The labels come from a model; markers are what a biologist can hold against them.
    Counts are normalized to 10,000 per cell and log1p-transformed for the figure, other values are drawn as they are;
    the color of each gene goes from 0 to its highest mean over types.

    Parameters
    ----------
    adata
        Cells that `tl.annotate` has labeled.
    markers
        Genes to look at, as a list or by type, as in `{"B cell": ["MS4A1", "CD79A"]}`. `None` takes `n_genes` of each
        label that the shipped reference learned from its own cells and the data has: evidence for the names. Where the
        labels are not of that reference, it takes those that are highest in each type from `uns["rank_genes_groups"]`,
        which `scanpy.tl.rank_genes_groups(adata, key)` writes; these were found in the same cells and say what tells the
        predicted types apart, not that the names are right.
    key
        Key of the labels in `adata.obs`, or any other column of types.
    n_genes
        Genes per type where `markers` is `None`.
    layer
        Layer with expression; `None` reads `adata.X`.
    use_raw
        Read `adata.raw`; `None` is `False`.
    ax, show, return_fig
        Axes to draw on, or `None` for a new figure; whether to show it, which is done if no `ax` is given; and whether to
        return the figure in place of the axes.

    Returns
    -------
    The axes of the dots, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        No labels, no such layer, no ranked genes for `key` where `markers` is `None`, or none of the markers is in the
        data. Some that are not are named in a warning.
    TypeError
        `adata` is not an AnnData.
    ValueError
        The matrix is absent or holds negative values: dots need "not expressed" to be 0.
    """
    labels = read_labels(adata, key)
    X, var, where = get_matrix(adata, layer, use_raw)
    wanted = _default(adata, labels, key, var.index, n_genes) if markers is None else markers
    found = _present(wanted, var.index, where)
    genes = [gene for part in found.values() for gene in part]
    values = _expression(X, var.index.get_indexer(genes), where)  # (n_obs, n_columns)

    names = names_of(labels)
    rows = [(labels == name).to_numpy() for name in names]
    mean = np.array([values[row].mean(axis=0) for row in rows])  # (n_types, n_columns)
    share = np.array([(values[row] > 0).mean(axis=0) for row in rows])
    highest = mean.max(axis=0)
    colour = mean / np.where(highest > 0, highest, 1.0)

    is_ours = ax is None
    shown = [f"{short(name)} ({row.sum():,})" for name, row in zip(names, rows, strict=True)]
    if is_ours:
        above = max(len(short(name)) for name in found)
        ax = new_axes(
            2.3 + 0.075 * max(map(len, shown)) + STEP * len(genes),
            max(2.6, 1.1 + 0.07 * above + STEP * len(names)),
        )
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(names)))
    dots = ax.scatter(
        x, y, s=LARGEST_DOT * share, c=colour, cmap="Blues", vmin=0, vmax=1, edgecolor="0.5", linewidths=0.4
    )
    ax.set_xticks(np.arange(len(genes)), genes, rotation=90, fontsize=8, style="italic")
    ax.set_yticks(np.arange(len(names)), shown, fontsize=8)
    ax.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(names) - 0.3, -0.7))
    ax.tick_params(length=0)
    ax.spines[["top", "right", "bottom", "left"]].set_color("0.8")
    plain(ax)
    _name_groups(ax, found)
    _keys(ax, dots)
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def _name_groups(ax: Axes, found: Mapping[str, Sequence[str]]) -> None:
    """A bracket over the genes of each type, with its name."""
    start = 0
    for name, genes in found.items():
        if name:
            middle, half = start + (len(genes) - 1) / 2, (len(genes) - 1) / 2 + 0.35
            above = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            ax.plot(
                [middle - half, middle + half],
                [1.015] * 2,
                color="0.3",
                lw=1,
                transform=ax.get_xaxis_transform(),
                clip_on=False,
            )
            level = len(name) <= 3.6 * len(genes)  # fits over its genes
            ax.annotate(
                short(name),
                (middle, 1.015),
                (0, 3),
                ha="center",
                va="bottom",
                fontsize=8,
                rotation=0 if level else 90,
                **above,
            )
        start += len(genes)


def _keys(ax: Axes, dots: Any) -> None:
    """What size and color mean."""
    handles = [dot(f"{share:.0%}", "0.6", np.sqrt(LARGEST_DOT * share)) for share in (0.25, 0.5, 1.0)]
    ax.legend(
        handles=handles,
        title="express it",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        alignment="left",
    )
    place = {"fraction": 0.05, "pad": 0.02, "shrink": 0.5, "anchor": (0.0, 0.0), "aspect": 12}
    color_bar(dots, ax, "mean / highest", **place)


def _default(
    adata: AnnData, labels: pd.Series, key: str, columns: pd.Index, n_genes: int
) -> dict[str, list[str]]:
    """Genes that the reference knows of the labels, of those in the data; else those that scanpy ranked."""
    known = reference_markers(adata, key)
    if not known:
        return _ranked(adata, key, n_genes)
    found = {
        name: [gene for gene in known.get(name, []) if gene in columns][:n_genes]
        for name in labels.cat.categories
    }
    return {name: genes for name, genes in found.items() if genes} or known


def _ranked(adata: AnnData, key: str, n_genes: int) -> dict[str, list[str]]:
    """The genes that scanpy found highest in each type."""
    stored = adata.uns.get("rank_genes_groups")
    groupby = stored["params"]["groupby"] if stored is not None else None
    if groupby != key:
        there = f"the one that is there was made for {groupby!r}" if groupby else "there is none"
        msg = (
            f"Without markers= `adata.uns['rank_genes_groups']` is needed for {key!r}, and {there}. Run "
            f"scanpy.tl.rank_genes_groups(adata, {key!r}) on log-normalized values first, or pass markers=."
        )
        raise KeyError(msg)
    names = stored["names"]
    return {
        group: [str(gene) for gene in names[group][:n_genes]]
        for group in names.dtype.names
        if group not in REFUSALS
    }


def _present(markers: Any, columns: pd.Index, where: str) -> dict[str, list[str]]:
    """The markers that the data has, by type; `""` for a plain list. Warns of those it has not."""
    by_type = (
        {str(name): list(genes) for name, genes in markers.items()}
        if isinstance(markers, Mapping)
        else {"": list(markers)}
    )
    by_type = {name: [genes] if isinstance(genes, str) else genes for name, genes in by_type.items()}
    absent = sorted({gene for genes in by_type.values() for gene in genes if gene not in columns})
    found = {name: [gene for gene in genes if gene in columns] for name, genes in by_type.items()}
    found = {name: genes for name, genes in found.items() if genes}
    if not found:
        msg = f"None of the markers {absent} is in the names of `{where}`, such as {list(columns[:3])}."
        raise KeyError(msg)
    if absent:
        warn(f"{len(absent)} markers are not in `{where}` and are not drawn: {', '.join(map(str, absent))}.")
    return found


def _expression(X: Any, columns: np.ndarray, where: str) -> np.ndarray:
    """Values of some columns, (n_obs, n); log1p CP10k of counts, other values as they are."""
    kind = judge_values(X, where)
    X = X[:] if not isinstance(X, np.ndarray) and not sp.issparse(X) else X
    part = X[:, columns]
    part = np.asarray(part.toarray() if sp.issparse(part) else part, dtype=np.float32)
    if kind.kind in ("counts", "non_integer_counts", "normalized"):
        totals = np.asarray(X.sum(axis=1), dtype=float).reshape(-1, 1)
        part = np.log1p(part * (TARGET_SUM / np.maximum(totals, 1.0)).astype(np.float32))
    return part
