"""malignancy: both pieces of evidence and the call, on the UMAP and as distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._containers import takes_cells
from .._keys import MALIGNANT
from ._annotation import _coordinates
from ._colours import CONFIDENCE
from ._figure import finish, plain
from ._malignancy_results import CALL_COLOURS, read_malignancy

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THRESHOLDS = (0.35, 0.8)


@takes_cells
def malignancy(
    adata: AnnData,
    *,
    key: str = MALIGNANT,
    basis: str = "X_umap",
    size: float | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> list[Axes] | Figure | None:
    """Draw copy number, expression and the call on the UMAP, and the distribution of the probability.

    Nothing is computed: the coordinates must be there. Gray cells have no copy number.

    Parameters
    ----------
    adata
        Cells that `tl.malignancy` has called.
    key
        Key of the results.
    basis
        Key of two coordinates per cell in `adata.obsm`.
    size
        Area of a cell's dot in square points; `None` chooses by the number of cells.
    show
        Show the figure; `None` shows it.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    The four axes, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        No results under `key`, or no coordinates; the message says what to run.
    TypeError
        `adata` is no AnnData.
    """
    import matplotlib.pyplot as plt

    read_malignancy(adata, key)
    xy = _coordinates(adata, basis)
    _, grid = plt.subplots(2, 2, figsize=(8.6, 7.2), layout="constrained")
    axes = list(np.ravel(grid))
    size = size or float(np.clip(60_000 / adata.n_obs, 1.0, 40.0))
    order = np.random.default_rng(0).permutation(adata.n_obs)
    calls = adata.obs[f"{key}_call"].astype(object).to_numpy()
    _numbers(
        axes[0], xy[order], adata.obs[f"{key}_copy_number"].to_numpy(float)[order], size, "copy number", 1.2
    )
    _numbers(
        axes[1], xy[order], adata.obs[f"{key}_expression"].to_numpy(float)[order], size, "expression", 1.0
    )
    colours = [CALL_COLOURS.get(call, "#C8C8C8") for call in calls[order]]
    axes[2].scatter(*xy[order].T, c=colours, s=size, lw=0, rasterized=True)
    for name, colour in CALL_COLOURS.items():
        axes[2].scatter([], [], color=colour, s=25, lw=0, label=f"{name} ({(calls == name).sum():,})")
    axes[2].legend(frameon=False, fontsize=8, loc="best")
    axes[2].set_title("call")
    name = basis.removeprefix("X_").upper() if basis == "X_umap" else basis.removeprefix("X_")
    for ax in axes[:3]:
        ax.set(xlabel=f"{name} 1", ylabel=f"{name} 2", xticks=[], yticks=[])
        ax.spines[["top", "right"]].set_visible(False)
        plain(ax)
    _distribution(axes[3], adata.obs[key].to_numpy(float), calls)
    return finish(axes, is_ours=True, show=show, return_fig=return_fig)


def _numbers(ax: Axes, xy: np.ndarray, values: np.ndarray, size: float, title: str, most: float) -> None:
    """Dots colored by one kind of evidence, with its bar."""
    is_known = ~np.isnan(values)
    ax.scatter(*xy[~is_known].T, c="#DDDDDD", s=size, lw=0, rasterized=True)
    dots = ax.scatter(
        *xy[is_known].T, c=values[is_known], s=size, lw=0, cmap=CONFIDENCE, vmin=0, vmax=most, rasterized=True
    )
    bar = ax.figure.colorbar(dots, ax=ax, fraction=0.05, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    bar.ax.tick_params(labelsize=8)
    ax.set_title(title if is_known.any() else f"{title}: not read")


def _distribution(ax: Axes, probability: np.ndarray, calls: np.ndarray) -> None:
    """Cells by probability, colored by call, with the thresholds."""
    parts = [probability[(calls == name) & ~np.isnan(probability)] for name in CALL_COLOURS]
    ax.hist(parts, bins=np.linspace(0, 1, 41), stacked=True, color=list(CALL_COLOURS.values()), lw=0)
    for threshold in THRESHOLDS:
        ax.axvline(threshold, color="0.3", lw=1, ls=(0, (1, 2)))
    ax.set(
        xlabel="probability of being malignant",
        ylabel="cells",
        xlim=(0, 1),
        title="probability and thresholds",
    )
    ax.set_yscale("symlog", linthresh=10)
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    plain(ax)
    ax.tick_params(labelsize=8)
