"""confidence: how sure the labels are, type by type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._containers import takes_cells
from .._keys import CELL_TYPE
from ..annotation._records import AnnotationRecord
from ._colours import colours_of, palette
from ._figure import finish, new_axes, plain, short
from ._results import as_categories, read_confidence, read_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles drawn: whisker, box, median, box, whisker."""


@takes_cells
def confidence(
    adata: AnnData,
    *,
    key: str = CELL_TYPE,
    groupby: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw the confidence of each predicted type: median, half of the cells, nine tenths of the cells.

    The surest type is on top. Numbers beside the names are cells; a dotted line is the threshold under which cells were
    left unassigned, if there was one.

    Parameters
    ----------
    adata
        Cells that `tl.annotate` has labeled.
    key
        Key of the labels in `adata.obs`.
    groupby
        Column of `adata.obs` to draw by instead of the predicted types, such as donors or clusters.
    ax, show, return_fig
        Axes to draw on, or `None` for a new figure; whether to show it, which is done if no `ax` is given; and whether to
        return the figure in place of the axes.

    Returns
    -------
    The axes, the figure if `return_fig=True`, or `None` if it was shown. Without `groupby` it sets, if it is not
    there already and `adata` is not a view:

    `adata.uns[f"{key}_colors"]` : array of str
        Color of each category, which scanpy's figures use too.

    Raises
    ------
    KeyError
        Labels, their confidence or `groupby` are not in `adata.obs`.
    TypeError
        `adata` is not an AnnData.
    ValueError
        No cell has a confidence.
    """
    labels, values = read_labels(adata, key), read_confidence(adata, key)
    column = key if groupby is None else groupby
    if column not in adata.obs:
        msg = f"groupby={column!r} is not in `adata.obs`, which has {list(adata.obs)}."
        raise KeyError(msg)
    groups = labels if groupby is None else as_categories(adata, column)
    if np.isnan(values).all():
        msg = f"`adata.obs[{key + '_confidence'!r}]` holds NaN only: no cell has a confidence."
        raise ValueError(msg)
    by_group = pd.Series(values, index=adata.obs_names).groupby(groups.to_numpy(), observed=True)
    quantiles = by_group.quantile(LEVELS).unstack().dropna().sort_values([0.5, 0.25])
    sizes = by_group.size()

    is_ours = ax is None
    if is_ours:
        longest = max(len(short(str(name))) for name in quantiles.index)
        ax = new_axes(4.4 + 0.08 * longest, 1.0 + 0.24 * len(quantiles))
    is_categorical = isinstance(adata.obs[column].dtype, pd.CategoricalDtype)
    names = [str(name) for name in quantiles.index]
    colours = colours_of(adata, key) if groupby is None and is_categorical else palette(names)
    place = np.arange(len(quantiles))
    ax.hlines(place, quantiles[LEVELS[0]], quantiles[LEVELS[-1]], color="0.6", lw=1, zorder=1)
    ax.barh(
        place,
        quantiles[0.75] - quantiles[0.25],
        left=quantiles[0.25],
        height=0.62,
        color=[colours[name] for name in names],
        edgecolor="0.35",
        lw=0.5,
        zorder=2,
    )
    ax.scatter(quantiles[0.5], place, marker="|", s=90, color="black", lw=1.8, zorder=3)
    _threshold(ax, adata, key)
    ax.set_yticks(place, [f"{short(name)} ({sizes[name]:,})" for name in names], fontsize=8)
    ax.set(xlim=(0, 1.01), ylim=(-0.7, len(quantiles) - 0.3), xlabel="confidence")
    plain(ax, grid="x")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def _threshold(ax: Axes, adata: AnnData, key: str) -> None:
    """The line under which labels were withheld."""
    record = AnnotationRecord.from_uns(adata.uns.get(key))
    limit = None if record is None else record.min_confidence
    if limit is not None and np.ndim(limit) == 0 and 0 < float(limit) < 1:
        ax.axvline(float(limit), color="0.3", lw=1, ls=(0, (1, 2)), zorder=4)
