"""annotation: predicted types and how sure they are, side by side on the UMAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._containers import takes_cells
from .._keys import CELL_TYPE, X_SCELLM
from ._colours import CONFIDENCE, colours_of, palette
from ._figure import color_bar, dot, finish, plain, short
from ._results import REFUSALS, read_confidence, read_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_ALONE = 7
"""Most classes that color alone tells apart; with more, classes are numbered in the figure."""
LEGEND_ROWS = 22
"""Classes in one column of the legend."""
MOST_SHOWN, RARE = 10, 0.005
"""With more classes than this, those with a smaller share of the cells are drawn as one."""
GATHERED = "rare types"


@takes_cells
def annotation(
    adata: AnnData,
    *,
    key: str = CELL_TYPE,
    basis: str = "X_umap",
    size: float | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> list[Axes] | Figure | None:
    """Draw cells by predicted type, and beside it by confidence.

    Cells are drawn in random order on the left, so that no type hides another, and the least sure ones last on the
    right. Nothing is computed: the coordinates must be there. More than seven types are numbered where most of their
    cells lie, as no set of so many colors can be told apart by all readers. Where more than ten types were found, those with
    less than 0.5 % of the cells are drawn in one violet gray, and the legend says how many they are.

    Parameters
    ----------
    adata
        Cells that `tl.annotate` has labeled.
    key
        Key of the labels in `adata.obs`.
    basis
        Key of two coordinates per cell in `adata.obsm`.
    size
        Area of a cell's dot in square points; `None` chooses by the number of cells.
    ax
        Two axes to draw on; `None` makes a figure.
    show, return_fig
        Whether to show the figure, which is done if no `ax` is given, and whether to return it in place of the axes.

    Returns
    -------
    The two axes, the figure if `return_fig=True`, or `None` if it was shown. Sets, if it is not there already and
    `adata` is not a view:

    `adata.uns[f"{key}_colors"]` : array of str
        Color of each category, which scanpy's figures use too.

    Raises
    ------
    KeyError
        No labels, no confidence, or no coordinates; the message says what to run.
    TypeError
        `adata` is not an AnnData.
    ValueError
        `ax` is not two axes.
    """
    labels, confidence = read_labels(adata, key), read_confidence(adata, key)
    xy = _coordinates(adata, basis)
    if ax is not None and np.size(ax) != 2:
        msg = f"ax= takes two axes, one for labels and one for confidence; found {np.size(ax)}."
        raise ValueError(msg)
    labels, n_gathered = _gather(labels)
    names = [name for name in labels.cat.categories if name not in (*REFUSALS, GATHERED)]
    names += [name for name in (GATHERED, *REFUSALS) if name in labels.cat.categories]
    is_ours = ax is None
    left, right = _two_axes(len(names), max(map(len, map(short, names)))) if is_ours else np.ravel(ax)
    size = size or float(np.clip(60_000 / len(labels), 1.0, 40.0))

    colours = (
        colours_of(adata, key) if isinstance(adata.obs[key].dtype, pd.CategoricalDtype) else palette(names)
    )
    colours |= {GATHERED: "#7D6B91"} if n_gathered else {}
    shuffled = np.random.default_rng(0).permutation(len(labels))
    colour_of_cell = labels.astype(object).map(colours).fillna("#EEEEEE").to_numpy()  # no label: nearly white
    _scatter(left, xy[shuffled], colour_of_cell[shuffled], size)
    shown = {GATHERED: f"{n_gathered} rare types"}
    _legend(left, names, colours, labels.value_counts(), shown)
    if len(names) > NAMED_ALONE:
        _number(left, xy, labels, [name for name in names if name not in (*REFUSALS, GATHERED)])

    is_known = ~np.isnan(confidence)
    order = np.argsort(-np.where(is_known, confidence, 2.0))
    _scatter(right, xy[~is_known], "#DDDDDD", size)
    order = order[is_known[order]]
    dots = _scatter(right, xy[order], confidence[order], size, cmap=CONFIDENCE, vmin=0, vmax=1)
    color_bar(dots, right, fraction=0.05, pad=0.02, aspect=30)
    name = basis.removeprefix("X_").upper() if basis == "X_umap" else basis.removeprefix("X_")
    for axes, title in ((left, "cell type"), (right, "confidence")):
        axes.set(title=title, xlabel=f"{name} 1", ylabel=f"{name} 2", xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(False)
        plain(axes)
    return finish([left, right], is_ours=is_ours, show=show, return_fig=return_fig)


def _coordinates(adata: AnnData, basis: str) -> np.ndarray:
    """Two coordinates per cell, (n_obs, 2)."""
    if basis not in adata.obsm:
        run = (
            "a UMAP is made by scanpy.pp.neighbors(adata, use_rep='X_scellm'); scanpy.tl.umap(adata)"
            if X_SCELLM in adata.obsm
            else "a UMAP is made by scellm.tl.embed(adata); scanpy.pp.neighbors(adata, use_rep='X_scellm'); "
            "scanpy.tl.umap(adata)"
        )
        msg = f"{basis!r} is not in `adata.obsm`, which has {list(adata.obsm)}. This figure computes nothing; {run}."
        raise KeyError(msg)
    return np.asarray(adata.obsm[basis])[:, :2]


def _two_axes(n_names: int, longest: int) -> list[Axes]:
    """Two panels of one size with room for the legend between them."""
    import matplotlib.pyplot as plt

    columns = -(-n_names // LEGEND_ROWS)
    width = 8.6 + columns * (0.55 + 0.075 * longest)
    _, axes = plt.subplots(1, 2, figsize=(width, 4.4), layout="constrained")
    return list(axes)


def _scatter(ax: Axes, xy: np.ndarray, colours: object, size: float, **options: object) -> object:
    return ax.scatter(xy[:, 0], xy[:, 1], c=colours, s=size, linewidths=0, rasterized=True, **options)


def _gather(labels: pd.Series) -> tuple[pd.Series, int]:
    """Labels with rare types as one where there are many, and how many those are."""
    counts = labels.value_counts()
    types = [name for name in labels.cat.categories if name not in REFUSALS]
    rare = [name for name in types if counts[name] < RARE * len(labels)]
    if len(types) <= MOST_SHOWN or len(rare) < 2:
        return labels, 0
    kept = [name for name in labels.cat.categories if name not in rare]
    gathered = labels.astype(object).where(~labels.isin(rare), GATHERED)
    return pd.Series(pd.Categorical(gathered, categories=[*kept, GATHERED]), index=labels.index), len(rare)


def _legend(
    ax: Axes, names: list[str], colours: dict[str, str], counts: pd.Series, shown: dict[str, str]
) -> None:
    """Names, numbered where color alone does not do, with their numbers of cells."""
    many = len(names) > NAMED_ALONE
    numbers = {name: f"{i} " for i, name in enumerate(names, 1) if many and name not in (*REFUSALS, GATHERED)}
    handles = [
        dot(f"{numbers.get(name, '')}{shown.get(name) or short(name)} ({counts[name]:,})", colours[name])
        for name in names
    ]
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        ncols=-(-len(names) // LEGEND_ROWS),
        frameon=False,
        fontsize=8 if len(names) <= LEGEND_ROWS else 7,
        handletextpad=0.2,
        columnspacing=0.8,
    )


def _number(ax: Axes, xy: np.ndarray, labels: pd.Series, names: list[str]) -> None:
    """The number of each class at its most central cell, moved off those of larger classes that it would hide."""
    from matplotlib.patheffects import withStroke

    counts, taken = labels.value_counts(), np.zeros((0, 2))
    room = np.ptp(xy, axis=0) * (0.032, 0.05)
    for name in sorted(names, key=lambda name: -counts[name]):
        cells = xy[(labels == name).to_numpy()]
        order = np.argsort(((cells - np.median(cells, axis=0)) ** 2).sum(1))
        free = [i for i in order[:: max(1, len(order) // 200)] if _is_free(cells[i], taken, room)]
        middle = cells[free[0] if free else order[0]]
        taken = np.vstack([taken, middle])
        ax.annotate(
            str(names.index(name) + 1),
            middle,
            ha="center",
            va="center",
            fontsize=8 if len(names) <= LEGEND_ROWS else 7,
            weight="bold",
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def _is_free(point: np.ndarray, taken: np.ndarray, room: np.ndarray) -> bool:
    """Whether no number stands within the room of a point."""
    return not (np.abs(taken - point) < room).all(axis=1).any()
