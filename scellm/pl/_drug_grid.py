"""Groups by drugs: the heatmap and the dot plot of predicted responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._colours import OKABE_ITO
from ._drug_colours import UNKNOWN, Scale, Unit, class_colours
from ._drug_table import Summary, label
from ._figure import ink_on, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

COLUMN, ROW = 0.21, 0.24
"""Inches of a drug and of a group."""
BAR = 1.4
"""Inches of a color bar."""
LABELS = 0.9
"""Inches of what is written beside it."""
CELLS = 4.0
"""Inches of a heatmap with a row for each cell."""
LARGEST_DOT = 130
"""Area of the dot of a sure prediction, square points."""


def draw_heatmap(
    summary: Summary,
    ylabel: str,
    *,
    by_cell: bool,
    unit: Unit,
    cmap: str | Colormap | None,
    ax: Axes | None,
    note: str,
) -> Axes:
    """Colored cells, paler where less certain, and beside them a bar that shows both."""
    is_ours, ax = ax is None, ax or _axes_for(summary, by_cell=by_cell)
    values = summary.values
    scale = Scale(values, summary.std, unit=unit, cmap=cmap)
    image = ax.imshow(scale.colours(values, summary.std), aspect="auto", interpolation="nearest")
    image.set_gid("responses")
    if not by_cell:
        ax.set_xticks(np.arange(1, len(summary.drugs)) - 0.5, minor=True)
        ax.set_yticks(np.arange(1, len(summary.rows)) - 0.5, minor=True)
        ax.grid(which="minor", color="white", lw=0.6)
        _hatch_unknown(ax, values)
    _frame(ax, summary, ylabel, by_cell=by_cell, note=note)
    bar = _colour_bar(ax, scale, is_ours=is_ours)
    if not np.isfinite(values).all():
        from matplotlib.patches import Patch

        hatch = None if by_cell else "////"
        patch = Patch(facecolor=UNKNOWN, edgecolor="0.5", hatch=hatch, lw=0, label="not predictable")
        _key_beneath(bar, [patch], below=0.6)
    if is_ours:
        _fit(ax)
    return ax


def draw_dots(
    summary: Summary,
    ylabel: str,
    *,
    by_cell: bool,
    unit: Unit,
    cmap: str | Colormap | None,
    ax: Axes | None,
    note: str,
) -> Axes:
    """Colored dots, smaller where less certain; a cross where there is no prediction."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    is_ours, ax = ax is None, ax or _axes_for(summary, by_cell=by_cell)
    values = summary.values
    scale = Scale(values, summary.std, unit=unit, cmap=cmap)
    rows, columns = np.indices(values.shape)
    known = np.isfinite(values)
    dots = ax.scatter(
        columns[known],
        rows[known],
        s=LARGEST_DOT * scale.strength(summary.std[known]),
        c=values[known],
        cmap=scale.cmap,
        norm=scale.norm,
        edgecolors="0.3",
        linewidths=0.4,
    )
    dots.set_gid("responses")
    ax.scatter(columns[~known], rows[~known], marker="x", s=18, color="0.6", linewidths=0.8)
    ax.set(xlim=(-0.6, len(summary.drugs) - 0.4), ylim=(len(summary.rows) - 0.4, -0.6))
    _frame(ax, summary, ylabel, by_cell=by_cell, note=note)
    bar = ax.figure.colorbar(ScalarMappable(scale.norm, scale.cmap), cax=_bar_axes(ax, 0.15, is_ours=is_ours))
    bar.set_label(scale.label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    keys = []
    for std in _std_steps(scale):
        size = np.sqrt(LARGEST_DOT * scale.strength(np.array(std)))
        keys.append(
            Line2D([], [], marker="o", ls="", ms=size, mfc="0.7", mec="0.3", mew=0.4, label=f"± {std:.2g}")
        )
    if not known.all():
        keys.append(Line2D([], [], marker="x", ls="", ms=4, color="0.6", mew=0.8, label="not predictable"))
    _key_beneath(bar.ax, keys, "standard deviation" if len(keys) > 1 else "")
    if is_ours:
        _fit(ax)
    return ax


def _axes_for(summary: Summary, *, by_cell: bool) -> Axes:
    """The grid in inches, in a figure of any size: `_fit` gives it its own."""
    import matplotlib.pyplot as plt

    width = COLUMN * (len(summary.drugs) + 2)
    height = CELLS if by_cell else ROW * (len(summary.rows) + 1)
    figure = plt.figure(figsize=(2 * width, 2 * height))
    return figure.add_axes((0.25, 0.25, 0.5, 0.5))


def _fit(ax: Axes) -> None:
    """Make the figure as large as all that is drawn, leaving the grid its size."""
    figure = ax.figure
    everything, grid = figure.get_tightbbox().padded(0.12), ax.get_position()
    width, height = figure.get_size_inches()
    left, bottom = grid.x0 * width - everything.x0, grid.y0 * height - everything.y0
    figure.set_size_inches(everything.width, everything.height)
    ax.set_position(
        (
            left / everything.width,
            bottom / everything.height,
            grid.width * width / everything.width,
            grid.height * height / everything.height,
        )
    )


def _frame(ax: Axes, summary: Summary, ylabel: str, *, by_cell: bool, note: str) -> None:
    """Names, the classes of drugs above, and beside each row how much of it is unlike the training cell lines."""
    n_rows, n_drugs = len(summary.rows), len(summary.drugs)
    labels = [short(name) for name in summary.drugs]
    ticks = list(range(n_drugs))
    if np.isfinite(summary.outside).any():
        _draw_outside(ax, summary, by_cell=by_cell)
        ticks.append(n_drugs + 0.6)
        what = "cells outside\ntraining cell lines"
        labels.append(what[6:] if by_cell else "applicability\n(> 1: outside)" if summary.as_one else what)
    ax.set_xticks(ticks, labels, rotation=90, fontsize=8)
    ax.tick_params(which="both", length=0)
    ax.grid(visible=False, which="major")
    if by_cell:
        ax.set_yticks([])
        ax.set_ylabel(f"{n_rows:,} cells", fontsize=10)
    else:
        ax.set_yticks(
            range(n_rows),
            [label(name, n) for name, n in zip(summary.rows, summary.n_cells.tolist(), strict=True)],
            fontsize=9,
        )
        ax.set_ylabel(ylabel, fontsize=10)
    ax.spines[:].set_visible(False)
    _draw_classes(ax, summary.classes, note, row=n_rows / 16 if by_cell else 1.0)


def _draw_classes(ax: Axes, classes: list[str], note: str, *, row: float) -> None:
    """A strip above the columns, and what its colors mean; more classes than colors tell apart are numbered."""
    from matplotlib.patches import Patch, Rectangle

    n_rows = ax.get_ylim()[0]
    colours = class_colours(classes)
    if not colours:
        ax.set_title(note, fontsize=9, loc="left")
        return
    number = {name: f"{i} " for i, name in enumerate(colours, 1)} if len(colours) > len(OKABE_ITO) else {}
    top, height = -0.5 - 0.85 * row, 0.65 * row
    for i, name in enumerate(classes):
        if name:
            box = Rectangle(
                (i - 0.5, top), 1, height, facecolor=colours[name], ec="white", lw=0.6, gid="class"
            )
            ax.add_patch(box)
        if name in number:
            ink = ink_on(colours[name])
            ax.text(
                i, top + height / 2, number[name].strip(), color=ink, fontsize=7, ha="center", va="center"
            )
    ax.set_ylim(n_rows, top)
    ax.legend(
        handles=[Patch(facecolor=colour, label=number.get(name, "") + short(name)) for name, colour in colours.items()],
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=_legend_columns(len(classes)), frameon=False, fontsize=8,
        handlelength=1, handleheight=1, borderaxespad=0.3, columnspacing=1, title=note or None, title_fontsize=9,
        alignment="left",
    )  # fmt: skip


def _legend_columns(n_drugs: int) -> int:
    """As many as fit above the drugs."""
    return max(1, min(4, int(COLUMN * n_drugs / 2.2)))


def _draw_outside(ax: Axes, summary: Summary, *, by_cell: bool) -> None:
    """Fraction of cells beyond the training cell lines: a number per group, a mark per cell."""
    x = len(summary.drugs) + 0.6
    if by_cell:
        marks = np.where(summary.outside == 1, 0.1, 0.92)[:, None, None].repeat(3, 2)
        ax.imshow(
            marks, aspect="auto", interpolation="nearest", extent=(x - 0.5, x + 0.5, len(marks) - 0.5, -0.5)
        ).set_gid("outside")
    else:
        for i in np.flatnonzero(np.isfinite(summary.outside)):
            text = (
                f"{summary.applicability[i]:.2f}" if summary.as_one else f"{100 * summary.outside[i]:.0f} %"
            )
            ink = {"weight": "bold"} if summary.outside[i] > 0.5 else {"color": "0.35"}
            ax.text(x, i, text, ha="center", va="center", fontsize=8, gid="outside", **ink)
    ax.set_xlim(-0.6, x + 0.6)


def _hatch_unknown(ax: Axes, values: np.ndarray) -> None:
    """Hatches where there is no prediction."""
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(~np.isfinite(values)):
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", ec="0.6", lw=0, gid="unknown"
            )
        )


def _bar_axes(ax: Axes, width: float, *, is_ours: bool) -> Axes:
    """Axes of a color bar: beside the grid in a figure of ours, else in a part of the axes that were given."""
    from mpl_toolkits.axes_grid1 import make_axes_locatable
    from mpl_toolkits.axes_grid1.inset_locator import inset_axes

    if is_ours:
        place = {
            "loc": "upper left",
            "bbox_to_anchor": (1, 1),
            "bbox_transform": ax.transAxes,
            "borderpad": 1,
        }
        bar = inset_axes(ax, width=width, height=BAR, **place)
    else:
        divider = make_axes_locatable(ax)
        bar = divider.append_axes("right", size=width, pad=0.15)
        divider.append_axes(
            "right", size=LABELS, pad=0
        ).set_axis_off()  # room for what is written beside the bar
    bar.grid(visible=False)  # scanpy's style draws one
    return bar


def _colour_bar(ax: Axes, scale: Scale, *, is_ours: bool) -> Axes:
    """Value upwards, standard deviation to the right: the colors of the heatmap, pale ones included."""
    steps = _std_steps(scale)
    bar = _bar_axes(ax, 0.4 if len(steps) > 1 else 0.15, is_ours=is_ours)
    values = np.linspace(scale.norm.vmin, scale.norm.vmax, 256)[::-1, None]
    std = np.linspace(steps[0], steps[-1], 64) if len(steps) > 1 else np.array([scale.best_std])
    colours = scale.colours(np.broadcast_to(values, (256, len(std))), np.broadcast_to(std, (256, len(std))))
    bar.imshow(colours, aspect="auto", extent=(0, 1, scale.norm.vmin, scale.norm.vmax))
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.set_ylabel(scale.label, fontsize=8)
    bar.tick_params(labelsize=8)
    if len(steps) > 1:
        bar.set_xticks([0, 1], [f"{steps[0]:.2g}", f"{steps[-1]:.2g}"])
        bar.set_xlabel("standard\ndeviation", fontsize=8)
    else:
        bar.set_xticks([])
    return bar


def _std_steps(scale: Scale) -> list[float]:
    """Standard deviations for the key: the surest, the least sure, and one between; one if all are about the same."""
    if not np.isfinite(scale.best_std):
        return []
    if scale.worst_std < 1.1 * scale.best_std:
        return [scale.best_std]
    return [scale.best_std, float(np.sqrt(scale.best_std * scale.worst_std)), scale.worst_std]


def _key_beneath(bar: Axes, handles: list[Any], title: str = "", *, below: float = 0.15) -> None:
    """A legend below a color bar, by so many inches."""
    from matplotlib.transforms import ScaledTranslation

    if handles:
        bar.legend(
            handles=handles, title=title or None, loc="upper left", bbox_to_anchor=(-0.3, 0),
            bbox_transform=bar.transAxes + ScaledTranslation(0, -below, bar.figure.dpi_scale_trans),
            frameon=False, fontsize=8, title_fontsize=8, alignment="left", borderaxespad=0,
        )  # fmt: skip
