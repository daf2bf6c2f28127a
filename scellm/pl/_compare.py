"""compare: scellm beside simple baselines, overall and class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData

from .._containers import takes_cells
from .._keys import FINE_TUNE
from .._records import FitRecord
from ._colours import OKABE_ITO
from ._figure import finish, new_axes, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
"""Columns that are drawn, and what they are called; all are better the higher."""
NAMES = {"logistic": "logistic regression", "pca_knn": "PCA + neighbors", "embedding": "head on embedding"}
MARKERS = "osD^vPX"


class Compared(Protocol):
    """What `metrics.compare_baselines` returns, as far as this function looks at it."""

    table: pd.DataFrame
    per_class: pd.DataFrame


@takes_cells
def compare(
    comparison: AnnData | Compared | pd.DataFrame,
    *,
    key: str = FINE_TUNE,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw how scellm did beside the baselines that were trained on the same split.

    Methods keep one color and one marker in both panels; the best macro-F1 is on top. Below, classes are sorted by how
    far the methods differ, so that what a choice of method costs is seen first.

    Parameters
    ----------
    comparison
        Cells that `tl.fine_tune` has reported on, what `metrics.compare_baselines` returned, or its table: methods in
        rows, `macro_f1` and other scores in columns.
    key
        Key of the report in `adata.uns`.
    ax
        Axes for the scores alone; `None` makes a figure, with a second panel for the F1 of each class where it is known.
    show, return_fig
        Whether to show the figure, which is done if no `ax` is given, and whether to return it in place of the axes.

    Returns
    -------
    The axes of the scores, the figure if `return_fig=True`, or `None` if it was shown. The second panel, if there is
    one, is `ax.figure.axes[1]`.

    Raises
    ------
    KeyError
        No report at `key`, one without baselines, or a table without `macro_f1`.
    TypeError
        Something else was given.
    """
    table, per_class = _read(comparison, key)
    table = table.sort_values("macro_f1", ascending=False, kind="stable")
    methods = [str(name) for name in table.index]
    looks = _looks(methods)
    is_ours, below = ax is None, None
    if is_ours and per_class is not None:
        import matplotlib.pyplot as plt

        longest = max(len(short(str(name))) for name in per_class.columns)
        heights = (0.5 + 0.3 * len(methods), 0.3 + 0.2 * per_class.shape[1])
        _, (ax, below) = plt.subplots(
            2, figsize=(4.6 + 0.07 * longest, 1.3 + sum(heights)), layout="constrained", height_ratios=heights
        )
    elif is_ours:
        ax = new_axes(5.6, 1.2 + 0.32 * len(methods))
    _draw_scores(ax, table, looks)
    if below is not None:
        _draw_classes(below, per_class, methods, looks)
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def _looks(methods: list[str]) -> dict[str, tuple[str, str]]:
    """Color and marker of each method; scellm is always the first blue dot."""
    order = sorted(methods, key=lambda name: (not name.startswith("scellm"), name))
    return {name: (OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(order)}


def _draw_scores(ax: Axes, table: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> None:
    """One line per method: the macro-F1 with its number, other scores paler."""
    place = np.arange(len(table))
    others = [name for name in SCORES if name in table and name != "macro_f1"]
    spread = table[["macro_f1", *others]].astype(float)
    ax.hlines(place, spread.min(axis=1), spread.max(axis=1), color="0.85", lw=2, zorder=1)
    for mark, name in zip("|x", others, strict=False):
        ax.scatter(table[name], place, marker=mark, color="0.45", s=50, lw=1.5, label=SCORES[name], zorder=2)
    for i, (name, value) in enumerate(table["macro_f1"].items()):
        colour, marker = looks[str(name)]
        ax.scatter(value, i, color=colour, marker=marker, s=55, linewidths=0, zorder=3)
        ax.annotate(f"{value:.3f}", (1.01, i), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    ax.scatter([], [], marker="o", color="0.2", s=55, linewidths=0, label="macro-F1 (number)")
    ax.set_yticks(place, [NAMES.get(str(name), str(name)) for name in table.index], fontsize=9)
    low = max(0.0, float(np.floor(10 * spread.min().min() - 0.5) / 10))
    ax.set(xlim=(low, 1.01), ylim=(len(table) - 0.4, -0.6))
    ax.legend(
        frameon=False,
        fontsize=8,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        handletextpad=0.2,
        columnspacing=1.0,
    )
    _clean(ax)


def _draw_classes(
    ax: Axes, per_class: pd.DataFrame, methods: list[str], looks: Mapping[str, tuple[str, str]]
) -> None:
    """F1 of each class by method."""
    values = per_class.loc[methods].astype(float).dropna(axis=1, how="all")
    values = values[(values.max() - values.min()).sort_values(ascending=False, kind="stable").index]
    place = np.arange(values.shape[1])
    ax.hlines(place, values.min(), values.max(), color="0.85", lw=2, zorder=1)
    for name in methods:
        colour, marker = looks[name]
        ax.scatter(
            values.loc[name],
            place,
            color=colour,
            marker=marker,
            s=36,
            linewidths=0,
            label=NAMES.get(name, name),
            zorder=3,
        )
    ax.set_yticks(place, [short(str(name)) for name in values.columns], fontsize=8)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(place) - 0.4, -0.6), xlabel="F1 of the class")
    _clean(ax)


def _clean(ax: Axes) -> None:
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    plain(ax, grid="x")


def _read(comparison: Any, key: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Scores by method, and F1 by method and class."""
    if isinstance(comparison, AnnData):
        return _of_report(comparison, key)
    per_class = getattr(comparison, "per_class", None)
    table = comparison if isinstance(comparison, pd.DataFrame) else getattr(comparison, "table", None)
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"Need cells that tl.fine_tune has reported on, what metrics.compare_baselines returned, or its table; found "
            f"{type(comparison).__name__}."
        )
        raise TypeError(msg)
    if "macro_f1" not in table or table.empty:
        msg = f"The table needs a column 'macro_f1' and a row per method; it has {len(table)} rows of {list(table.columns)}."
        raise KeyError(msg)
    return table, per_class


def _of_report(adata: AnnData, key: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The same from `uns`."""
    if key not in adata.uns:
        msg = f"{key!r} is not in `adata.uns`, which has {list(adata.uns)}. scellm.tl.fine_tune(adata, labels=...) writes it."
        raise KeyError(msg)
    record = FitRecord.from_uns(adata.uns[key])
    found = None if record is None else record.tables(SCORES)
    if found is None:
        msg = f"`adata.uns[{key!r}]` has no baselines to compare with; run tl.fine_tune with baseline=True."
        raise KeyError(msg)
    return found
