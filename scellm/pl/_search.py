"""search: what groups of cells look most like in an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._keys import SEARCH
from ..get import search as search_table
from ._colours import palette
from ._figure import finish, ink_on, new_axes, plain, short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHER = "#E4E4E4"
"""Values that come together in one bar."""
ROOM_FOR_NAME = 0.16
"""Share from which the name of a value fits into its bar."""


def search(
    adata: AnnData,
    groupby: str | None = None,
    *,
    column: str | None = None,
    n_values: int = 7,
    key: str = SEARCH,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw what the cells of each group look most like in an index.

    A bar is a group, its parts the shares of cells whose neighbors mostly have a value; all values but the most frequent
    ones come together in gray. A dot marks the share of the group's cells that are unlike all of the index.

    Parameters
    ----------
    adata
        Cells that `tl.search` has looked up.
    groupby
        Column of `adata.obs` with groups, such as clusters; `None` draws all cells as one.
    column
        Column of the index, for instance `"tissue"`; `None` takes the first.
    n_values
        Values with a color of their own.
    key
        Key of the results.
    ax
        Axes to draw on; `None` makes a figure.
    show
        Show the figure; `None` shows it if no `ax` is given.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The axes, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        No results under this key; no such column.
    TypeError
        `adata` is not an AnnData.
    ValueError
        No cell has a neighbor with a value in the column; `n_values` below 1.
    """
    table = search_table(adata, groupby, key=key)
    there = list(dict.fromkeys(table["column"]))
    searched = [str(name) for name in adata.uns[key]["columns"]]
    column = searched[0] if column is None else column
    if column not in searched:
        msg = f"column={column!r} was not searched for; there are {searched}."
        raise KeyError(msg)
    if n_values < 1:
        msg = f"n_values={n_values!r} must be at least 1."
        raise ValueError(msg)
    if column not in there:
        msg = f"No cell has a neighbor with a value of {column!r}. Choose another column: {there}."
        raise ValueError(msg)
    table = table[table["column"] == column]
    cells = table.groupby("value")["n_cells"].sum().sort_values(ascending=False, kind="stable")
    names = [str(name) for name in cells.index[:n_values]]
    shares = table.pivot_table(index="group", columns="value", values="share", fill_value=0.0, observed=True)
    unlike = table.groupby("group", observed=True)["unlike"].first()
    groups = list(shares.index)[::-1]  # the first on top

    is_ours = ax is None
    if is_ours:
        longest = max(len(short(str(name))) for name in groups)
        ax = new_axes(5.6 + 0.07 * longest, 1.4 + 0.34 * len(groups))
    place, left, colours = np.arange(len(groups)), np.zeros(len(groups)), palette(names)
    for name in names:
        width = shares.loc[groups, name].to_numpy(float)
        ax.barh(place, width, left=left, height=0.72, color=colours[name], label=short(name))
        for y in np.flatnonzero(width >= ROOM_FOR_NAME):
            text = name if len(name) <= 60 * width[y] else f"{name[: int(60 * width[y]) - 1]}…"
            ax.text(left[y] + width[y] / 2, y, text, ha="center", va="center", fontsize=7, color=ink_on(colours[name]))  # fmt: skip
        left += width
    rest = shares.loc[groups].sum(axis=1).to_numpy(float) - left
    if (rest > 1e-6).any():
        ax.barh(place, rest, left=left, height=0.72, color=OTHER, label="others")
    ax.scatter(
        unlike[groups], place, s=34, color="black", edgecolor="white", lw=0.8, zorder=4, label="unlike all"
    )
    ax.set_yticks(place, [short(str(name)) for name in groups], fontsize=8)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.6, len(groups) - 0.4), xlabel="share of the cells")
    plain(ax)
    ax.set_title(f"most like, by {column}", loc="left")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)
