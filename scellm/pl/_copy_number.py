"""copy_number: expression along the genome, cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._containers import takes_cells
from .._keys import MALIGNANT
from .._obs import read_groups
from ._colours import palette
from ._figure import finish, new_axes, plain, short
from ._malignancy_results import read_malignancy, read_profile

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRONGEST = 0.6
"""Log ratio at the ends of the colors: that of one copy more."""
SMALLEST_GROUP = 0.012
"""Part of the height below which a group is not named."""
MOST_ROWS = 1500
"""Rows of pixels; more cells are averaged with their neighbors of the same group."""


@takes_cells
def copy_number(
    adata: AnnData,
    *,
    key: str = MALIGNANT,
    groupby: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw expression along the genome, less that of normal cells: one row per cell, red for more, blue for less.

    Rows are grouped by clone, then by cell type; within a group the cells most like each other lie together. A shift of a whole
    chromosome arm in all cells of a group is a gain or loss. Single stripes in one type are genes of that type.

    Parameters
    ----------
    adata
        Cells that `tl.malignancy` has called.
    key
        Key of the results.
    groupby
        Column of `adata.obs` to group rows by instead.
    ax, show, return_fig
        Axes to draw on, or `None` for a new figure; whether to show it, which is done if no `ax` is given; and whether to
        return the figure in place of the axes.

    Returns
    -------
    The axes, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        No results under `key`, or no such column.
    TypeError
        `adata` is no AnnData.
    ValueError
        Copy number was read in no cell.
    """
    record = read_malignancy(adata, key)
    profile = read_profile(adata, key)
    groups = _by_clone(adata, key) if groupby is None else pd.Series(read_groups(adata, groupby))
    is_shown = ~np.isnan(profile).any(axis=1) & groups.notna().to_numpy()
    rows, names, sizes = _order(profile, groups, is_shown)
    image = _shrink(profile[rows], sizes)
    is_ours = ax is None
    if is_ours:
        ax = new_axes(10.5, 6.0)
    shown = ax.imshow(
        image,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-STRONGEST,
        vmax=STRONGEST,
        interpolation="antialiased",
        rasterized=True,
    )
    plain(ax)
    _chromosomes(ax, np.array([str(name) for name in record["chromosome"]]))  # zarr gives StringDType
    _groups(ax, names, sizes, len(image))
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.02, pad=0.01, aspect=30)
    bar.set_label("log ratio to normal cells", fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)
    ax.set_xlabel("chromosome")
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def _by_clone(adata: AnnData, key: str) -> pd.Series:
    """Name "clone 1" for cells of a clone that are malignant, else the type; normal types first."""
    clone = adata.obs[f"{key}_clone"].astype(object)
    is_malignant = (adata.obs[f"{key}_call"] == "malignant").to_numpy() & clone.notna().to_numpy()
    types = adata.obs[f"{key}_label"].astype(object).fillna("no type")
    labels = np.where(is_malignant, "clone " + clone.astype(str), types.astype(str))
    names = pd.Series(labels).value_counts()
    normal = [name for name in names.index if not name.startswith("clone ")]
    clones = sorted(name for name in names.index if name.startswith("clone "))
    return pd.Series(pd.Categorical(labels, categories=[*normal, *clones]))


def _order(
    profile: np.ndarray, groups: pd.Series, is_shown: np.ndarray
) -> tuple[np.ndarray, list[str], list[int]]:
    """Rows group by group, cells of a group along the first direction in which they differ."""
    rows, names, sizes = [], [], []
    for name in groups.cat.categories:
        here = np.flatnonzero((groups == name).to_numpy() & is_shown)
        if not len(here):
            continue
        centered = profile[here] - profile[here].mean(axis=0)
        if len(here) > 2:
            first = np.linalg.svd(centered.T @ centered, hermitian=True)[0][:, 0]
            here = here[np.argsort(centered @ first, kind="stable")]
        rows.append(here)
        names.append(str(name))
        sizes.append(len(here))
    return np.concatenate(rows), names, sizes


def _shrink(image: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Means of neighboring rows where there are more cells than pixels; groups are not mixed."""
    if len(image) <= MOST_ROWS:
        return image
    parts, start = [], 0
    for size in sizes:
        n_rows = max(1, round(size * MOST_ROWS / len(image)))
        pieces = np.array_split(image[start : start + size], n_rows)
        parts += [piece.mean(axis=0) for piece in pieces if len(piece)]
        start += size
    return np.array(parts)


def _chromosomes(ax: Axes, chromosome: np.ndarray) -> None:
    """Lines between chromosomes, and their names."""
    edges = np.flatnonzero(chromosome[1:] != chromosome[:-1]) + 0.5
    for edge in edges:
        ax.axvline(edge, color="0.25", lw=0.6)
    bounds = np.concatenate([[-0.5], edges, [len(chromosome) - 0.5]])
    centers = (bounds[1:] + bounds[:-1]) / 2
    names = list(dict.fromkeys(chromosome.tolist()))
    wide = np.diff(bounds) > 0.012 * len(chromosome)
    ax.set_xticks(centers[wide], [name for name, keep in zip(names, wide, strict=True) if keep], fontsize=7)
    ax.tick_params(axis="x", length=0)


def _groups(ax: Axes, names: list[str], sizes: list[int], height: int) -> None:
    """A colored bar and a name for each group of rows."""
    from matplotlib.patches import Rectangle

    colours = palette(names)
    scale = height / sum(sizes)
    edges = np.concatenate([[0], np.cumsum(sizes)]) * scale - 0.5
    ticks, labels = [], []
    for name, size, low, high in zip(names, sizes, edges[:-1], edges[1:], strict=True):
        bar = Rectangle(
            (-0.016, low),
            0.012,
            high - low,
            transform=ax.get_yaxis_transform(),
            color=colours[name],
            clip_on=False,
            lw=0,
        )
        ax.add_patch(bar)
        if low > -0.5:
            ax.axhline(low, color="0.25", lw=0.6)
        if high - low > SMALLEST_GROUP * height:
            ticks.append((low + high) / 2)
            labels.append(f"{short(name)} ({size:,})")
    ax.set_yticks(ticks, labels, fontsize=8)
    ax.tick_params(axis="y", length=0, pad=12)
