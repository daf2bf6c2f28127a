"""Predicted responses cell by cell: UMAPs and violins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._drug_colours import LABELS, UNKNOWN, Scale, Unit
from ._drug_table import Responses, fraction_outside, label
from ._figure import short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

PANELS_PER_ROW = 3
FEWEST_FOR_SHAPE = 3
"""Cells from which a group has a violin."""
CELLS_FOR_DENSITY = 2_000
"""Cells of a group that the outline of a violin is made from, evenly spaced among all when sorted."""


def draw_umap(
    adata: AnnData,
    responses: Responses,
    *,
    unit: Unit,
    cmap: str | Colormap | None,
    ax: Axes | None,
    note: str,
) -> list[Axes]:
    """A panel per drug, paler where less certain, and one with the distance to the training cell lines."""
    if "X_umap" not in adata.obsm:
        msg = (
            "There is no UMAP in `adata.obsm['X_umap']`. Run scellm.tl.embed(adata), "
            "scanpy.pp.neighbors(adata, use_rep='X_scellm') and scanpy.tl.umap(adata) first."
        )
        raise KeyError(msg)
    xy = np.asarray(adata.obsm["X_umap"])[:, :2]
    shuffled = np.random.default_rng(0).permutation(len(xy))  # no group lies on top because of its order
    size = float(np.clip(40_000 / len(xy), 1, 30))
    values = responses.values
    has_applicability = ax is None and np.isfinite(responses.applicability).any()
    axes = [ax] if ax else _panels(len(responses.drugs) + int(has_applicability), (3.6, 3.1), note=note)
    for i, panel in enumerate(axes[: len(responses.drugs)]):
        scale = Scale(values[:, i], responses.std[:, i], unit=unit, cmap=cmap)
        colours = scale.colours(values[:, i], responses.std[:, i])
        unknown = ~np.isfinite(values[:, i])
        order = shuffled[np.argsort(~unknown[shuffled], kind="stable")]  # unknown ones beneath
        panel.scatter(*xy[order].T, c=colours[order], s=size, lw=0, rasterized=True, gid="responses")
        panel.set_title(_title(responses, i), fontsize=10)
        _bar(panel, scale.cmap, scale.norm, scale.label)
        if unknown.any():
            panel.plot([], [], "o", color=UNKNOWN, ms=5, label=f"not predictable ({unknown.sum():,})")
            panel.legend(frameon=False, fontsize=7, loc="lower left", handletextpad=0.1, borderaxespad=0)
    if has_applicability:
        _draw_applicability(axes[-1], xy, responses.applicability, shuffled, size)
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.set_xlabel("UMAP1", fontsize=9)
        panel.set_ylabel("UMAP2", fontsize=9)
        panel.grid(visible=False)
        panel.spines[["top", "right"]].set_visible(False)
    return axes


def draw_violins(
    responses: Responses,
    codes: np.ndarray,
    groups: list[str],
    groupby: str | None,
    *,
    unit: Unit,
    ax: Axes | None,
    note: str,
) -> list[Axes]:
    """A panel per drug: the cells of each group, their median, and how uncertain a prediction is."""
    values = responses.values
    height = 0.27 * len(groups) + 1.0
    axes = [ax] if ax else _panels(len(responses.drugs), (2.5, height), note=note, names=groups)
    outside = [fraction_outside(responses.applicability[codes == j]) for j in range(len(groups))]
    names = [
        label(
            name, int((codes == j).sum()), *([f"{100 * outside[j]:.0f} % outside"] if outside[j] > 0 else [])
        )
        for j, name in enumerate(groups)
    ]
    for i, panel in enumerate(axes):
        for j in range(len(groups)):
            _draw_violin(panel, j, values[codes == j, i], responses.std[codes == j, i])
        panel.set_title(_title(responses, i), fontsize=10)
        panel.set_ylim(len(groups) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
        panel.grid(axis="x", color="0.9", lw=0.6)
        panel.set_axisbelow(True)
        panel.set_yticks(
            range(len(groups)), names if i % PANELS_PER_ROW == 0 else [""] * len(groups), fontsize=8
        )
        panel.tick_params(axis="x", labelsize=8)
        panel.tick_params(axis="y", length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
        if i % PANELS_PER_ROW == 0 and groupby:
            panel.set_ylabel(groupby, fontsize=10)
    what = LABELS[unit].replace("\n", " ")
    shapes = (
        "shape: cells; "
        if any(line.get_gid() == "violin" for panel in axes for line in panel.collections)
        else ""
    )
    what += f"\n{shapes}dot: median; bar: ± standard deviation of a prediction"
    if any(fraction > 0 for fraction in outside):
        what += "\noutside: fraction of cells unlike all training cell lines"
    if ax:
        ax.set_xlabel(what, fontsize=8)
    else:
        axes[0].figure.supxlabel(what, fontsize=8)
    return axes


def _panels(n: int, size: tuple[float, float], *, note: str, names: list[str] | None = None) -> list[Axes]:
    """Panels in rows of a few."""
    import matplotlib.pyplot as plt

    columns = min(n, PANELS_PER_ROW)
    rows = -(-n // columns)
    margin = 0.07 * max(len(short(name)) + 14 for name in names) if names else 0.0
    figure: Figure = plt.figure(
        figsize=(columns * size[0] + margin, rows * size[1] + 0.5), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[n:]:
        unused.remove()
    if note:
        figure.suptitle(note, fontsize=9)
    return list(axes[:n])


def _title(responses: Responses, i: int) -> str:
    """Name and class of a drug."""
    return short(responses.drugs[i]) + (f"\n{short(responses.classes[i])}" if responses.classes[i] else "")


def _bar(panel: Axes, cmap: Colormap, norm: object, label: str) -> None:
    """A color bar without a frame."""
    from matplotlib.cm import ScalarMappable

    bar = panel.figure.colorbar(ScalarMappable(norm, cmap), ax=panel, aspect=25, pad=0.02)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    bar.ax.grid(visible=False)  # scanpy's style draws one
    bar.outline.set_visible(False)


def _draw_applicability(
    panel: Axes, xy: np.ndarray, applicability: np.ndarray, shuffled: np.ndarray, size: float
) -> None:
    """Distance to the training cell lines; the colors change at 1, where the cells leave them."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, Normalize

    blues, oranges = mpl.colormaps["Blues_r"], mpl.colormaps["Oranges"]
    steps = np.linspace(0.2, 0.7, 64)
    cmap = ListedColormap(
        np.vstack([blues(steps), oranges(steps + 0.2)])
    )  # dark blue .. pale | pale .. dark orange
    known = shuffled[np.isfinite(applicability[shuffled])]
    norm = Normalize(0, 2)
    panel.scatter(*xy.T, c=UNKNOWN, s=size, lw=0, rasterized=True)
    panel.scatter(*xy[known].T, c=applicability[known], cmap=cmap, norm=norm, s=size, lw=0, rasterized=True)
    panel.set_title(
        f"applicability\n{100 * fraction_outside(applicability):.0f} % of cells outside", fontsize=10
    )
    _bar(panel, cmap, norm, "distance to training cell lines, > 1: outside")


def _draw_violin(panel: Axes, y: int, values: np.ndarray, std: np.ndarray) -> None:
    """One group of cells on one line; a cross in the middle if nothing is predictable."""
    known = np.sort(values[np.isfinite(values)])
    if not len(known):
        panel.plot(
            0.5, y, marker="x", color="0.6", ms=5, transform=panel.get_yaxis_transform(), gid="unknown"
        )
        return
    median = float(np.median(known))
    if len(known) >= FEWEST_FOR_SHAPE and known[-1] - known[0] > 1e-6:
        grid, density = _density(known)
        panel.fill_between(
            grid, y - 0.4 * density, y + 0.4 * density, color="#56B4E9", lw=0, alpha=0.8, gid="violin"
        )
    spread = std[np.isfinite(std)]
    if len(spread):
        panel.plot([median - spread.mean(), median + spread.mean()], [y, y], color="0.15", lw=1, gid="std")
    panel.plot(median, y, "o", color="0.15", ms=3.5, gid="median")


def _density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density of sorted values within their range, highest 1."""
    from scipy.stats import gaussian_kde

    some = values[np.unique(np.linspace(0, len(values) - 1, CELLS_FOR_DENSITY).round().astype(int))]
    grid = np.linspace(values[0], values[-1], 100)
    density = gaussian_kde(some)(grid)
    return grid, density / density.max()
