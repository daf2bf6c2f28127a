"""confusion_matrix: known types against predicted ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._containers import takes_cells
from .._keys import CELL_TYPE
from ._figure import color_bar, finish, new_axes, plain, short
from ._results import REFUSALS, read_labels, read_truth, renamed

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN_UP_TO = 22
"""Most classes whose matrix has its numbers written in."""


@takes_cells
def confusion_matrix(
    adata: AnnData,
    truth: str,
    *,
    key: str = CELL_TYPE,
    mapping: Mapping[str, str] | None = None,
    normalize: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw which known types were predicted as which.

    A row is a known type. Types that are known and predicted stand in the same order on both sides, so that the
    diagonal is what agrees; of the others each known type stands at the predicted one that most of its cells got, as far
    as these are free; what is left, "unassigned" and "novel" come last. Cells without a
    known type are left out, and the title says how many.

    Parameters
    ----------
    adata
        Cells that `tl.annotate` has labeled.
    truth
        Column of `adata.obs` with the known types.
    key
        Key of the predicted labels in `adata.obs`.
    mapping
        Predicted name of each known type, as in `{"Beta": "beta cell"}`; types that are not in it keep their names, and
        several may have one.
    normalize
        Draw shares of each row; `False` draws numbers of cells.
    ax, show, return_fig
        Axes to draw on, or `None` for a new figure; whether to show it, which is done if no `ax` is given; and whether to
        return the figure in place of the axes.

    Returns
    -------
    The axes, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        `truth` or `key` is not in `adata.obs`.
    TypeError
        `adata` is not an AnnData.
    ValueError
        No cell has both a known type and a label, or `mapping` names types that are not there.
    """
    known = renamed(read_truth(adata, truth), truth, mapping)
    counts, n_left_out = table_of(known, read_labels(adata, key))
    if counts.empty:
        msg = f"No cell has both a known type in `adata.obs[{truth!r}]` and a label in `adata.obs[{key!r}]`."
        raise ValueError(msg)
    shares = counts.div(counts.sum(axis=1), axis=0)
    n_rows, n_columns = counts.shape
    is_ours = ax is None
    if is_ours:
        longest = max(len(short(name)) for name in [*counts.index, *counts.columns])
        room, step = 0.9 + 0.075 * longest, 0.34 if max(counts.shape) <= WRITTEN_UP_TO else 0.2
        ax = new_axes(max(3.6, room + 0.7 + step * n_columns), max(3.0, room + 0.4 + step * n_rows))
    image = ax.imshow(shares if normalize else counts, cmap="Blues", vmin=0, vmax=1 if normalize else None)
    font = 8 if max(counts.shape) <= WRITTEN_UP_TO else 7
    ax.set_xticks(np.arange(n_columns), [short(name) for name in counts.columns], rotation=90, fontsize=font)
    ax.set_yticks(np.arange(n_rows), [short(name) for name in counts.index], fontsize=font)
    ax.set(xlabel="predicted", ylabel="known")
    left_out = f"; {n_left_out:,} without a known type left out" if n_left_out else ""
    ax.set_title(f"{int(counts.to_numpy().sum()):,} cells{left_out}")
    plain(ax)
    ax.tick_params(length=0)
    _separate(ax, counts)
    if max(counts.shape) <= WRITTEN_UP_TO:
        _write_numbers(ax, shares, None if normalize else counts)
    color_bar(image, ax, "share of the known type" if normalize else "cells", fraction=0.046, pad=0.02)
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def table_of(truth: pd.Series, labels: pd.Series) -> tuple[pd.DataFrame, int]:
    """Numbers of cells, known types x predicted ones, shared names first on both sides; and cells left out."""
    is_known = truth.notna().to_numpy() & labels.notna().to_numpy()
    counts = pd.crosstab(truth[is_known].astype(str).to_numpy(), labels[is_known].astype(str).to_numpy())
    predicted = [name for name in labels.cat.categories if name in counts.columns]
    known = [name for name in truth.cat.categories if name in counts.index]
    shared = [name for name in known if name in predicted]
    others = [name for name in predicted if name not in (*shared, *REFUSALS)]
    rest = [name for name in known if name not in shared]
    rows, columns = _best_match(counts, rest, others)
    refused = [name for name in REFUSALS if name in predicted]
    rows, columns = shared + rows, shared + columns + refused
    return counts.reindex(index=rows, columns=columns), int((~is_known).sum())


def _best_match(counts: pd.DataFrame, rows: list[str], columns: list[str]) -> tuple[list[str], list[str]]:
    """Rows and columns in an order that puts as many cells on the diagonal as can be; what has no partner is last."""
    from scipy.optimize import linear_sum_assignment

    if not rows or not columns:
        return rows, columns
    table = counts.loc[rows, columns].to_numpy()
    pairs = sorted(
        (pair for pair in zip(*linear_sum_assignment(-table), strict=True) if table[pair] > 0),
        key=lambda pair: -table[pair],
    )
    of_rows, of_columns = [rows[i] for i, _ in pairs], [columns[j] for _, j in pairs]
    return (
        of_rows + [name for name in rows if name not in of_rows],
        of_columns + [name for name in columns if name not in of_columns],
    )


def _separate(ax: Axes, counts: pd.DataFrame) -> None:
    """A thin line between what can agree and what cannot."""
    n_shared = sum(name in counts.columns for name in counts.index)
    if 0 < n_shared < counts.shape[1]:
        ax.axvline(n_shared - 0.5, color="0.6", lw=0.8)
    if 0 < n_shared < counts.shape[0]:
        ax.axhline(n_shared - 0.5, color="0.6", lw=0.8)


def _write_numbers(ax: Axes, shares: pd.DataFrame, counts: pd.DataFrame | None) -> None:
    """Shares in hundredths, or numbers of cells; nothing where there is nothing."""
    top = 1.0 if counts is None else float(counts.to_numpy().max())
    values = (shares if counts is None else counts).to_numpy()
    for (row, column), value in np.ndenumerate(values):
        text = f"{100 * value:.0f}" if counts is None else f"{value:,}"
        if text != "0":
            ink = "white" if value / top > 0.55 else "0.15"
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
