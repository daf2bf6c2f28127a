"""reliability: is a confidence of 0.8 right in 8 of 10 cells?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._containers import takes_cells
from .._keys import CELL_TYPE
from ..annotation._records import AnnotationRecord
from ._figure import finish, new_axes, plain
from ._results import read_confidence, read_labels, read_truth, renamed

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@takes_cells
def reliability(
    adata: AnnData,
    truth: str,
    *,
    key: str = CELL_TYPE,
    mapping: Mapping[str, str] | None = None,
    n_bins: int = 15,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw how often labels are right against how sure they are.

    Cells are put in bins of equal width by the confidence in their most probable type, also those that were left
    "unassigned" or called "novel". On the diagonal confidence is what it says; below it, too high. The bars are the
    shares of cells in the bins. The title has the expected calibration error :cite:p:`Guo2017`: the mean over bins,
    weighted by their cells, of the distance between the confidence and the share that is right.

    Parameters
    ----------
    adata
        Cells that `tl.annotate` has labeled.
    truth
        Column of `adata.obs` with the known types. A type that the annotation has no class for is always wrong. Cells
        without one are left out.
    key
        Key of the predicted labels in `adata.obs`.
    mapping
        Known type -> name that the annotation has for it, such as `{"beta": "type B pancreatic cell"}`; types that are
        not in it keep their names.
    n_bins
        Number of bins between 0 and 1; 15 as in `metrics.expected_calibration_error`.
    ax, show, return_fig
        Axes to draw on, or `None` for a new figure; whether to show it, which is done if no `ax` is given; and whether to
        return the figure in place of the axes.

    Returns
    -------
    The axes, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        `truth`, labels or their confidence are not in `adata.obs`.
    TypeError
        `adata` is not an AnnData.
    ValueError
        `n_bins` is below 2; no cell has both a known type and a confidence; no known type has the name of a predicted
        one; `mapping` names types that are not there.
    """
    if n_bins < 2:
        msg = f"n_bins={n_bins!r} must be at least 2."
        raise ValueError(msg)
    known = renamed(read_truth(adata, truth), truth, mapping)
    confidence, predicted = _most_probable(adata, key)
    is_used = known.notna().to_numpy() & ~np.isnan(confidence)
    if not is_used.any():
        msg = f"No cell has both a known type in `adata.obs[{truth!r}]` and a confidence."
        raise ValueError(msg)
    _check_names(known[is_used], predicted[is_used], truth)
    is_right = known.astype(object).to_numpy()[is_used] == predicted[is_used]
    bins = bins_of(confidence[is_used], is_right, n_bins)
    error = float((bins["share"] * (bins["confidence"] - bins["right"]).abs()).sum())
    is_ours = ax is None
    ax = new_axes(4.2, 4.2) if is_ours else ax
    _draw(ax, bins, error, n_bins)
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def _draw(ax: Axes, bins: pd.DataFrame, error: float, n_bins: int) -> None:
    """Bars of the share of cells, points of the share that is right."""
    ax.bar(bins["middle"], bins["share"], 0.96 / n_bins, color="0.85", label="share of cells", zorder=1)
    ax.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--", zorder=2)
    spread = np.sqrt(bins["right"] * (1 - bins["right"]) / bins["cells"])  # binomial standard error
    ax.errorbar(
        bins["confidence"],
        bins["right"],
        yerr=spread,
        color="#0072B2",
        marker="o",
        ms=5,
        lw=1.4,
        elinewidth=1,
        label="share that is right",
        zorder=3,
    )
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share", aspect="equal")
    ax.set_title(f"{int(bins['cells'].sum()):,} cells, calibration error {error:.3f}")
    plain(ax)
    ax.tick_params(labelsize=9)
    ax.legend(frameon=False, loc="upper left", fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _check_names(known: pd.Series, predicted: np.ndarray, truth: str) -> None:
    """Refuse two sets of names without one in common: every cell would count as wrong."""
    names, ours = sorted(set(known)), sorted(set(predicted))
    if not set(names) & set(ours):
        msg = (
            f"No type of `adata.obs[{truth!r}]` has the name of a predicted one: {names[:5]} against {ours[:5]}. Pass "
            f"mapping= with a predicted name for each, such as mapping={{{names[0]!r}: {ours[0]!r}}}."
        )
        raise ValueError(msg)


def _most_probable(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and name of each cell's most probable type, whatever its label became."""
    labels, confidence = read_labels(adata, key), read_confidence(adata, key)
    predicted = labels.astype(object).to_numpy()
    record = AnnotationRecord.from_uns(adata.uns.get(key))
    if f"{key}_probabilities" in adata.obsm and record is not None:
        probabilities = np.asarray(adata.obsm[f"{key}_probabilities"], dtype=float)
        has_any = ~np.isnan(probabilities).any(axis=1)
        best = np.where(has_any, np.argmax(np.nan_to_num(probabilities), axis=1), 0)
        predicted = np.asarray(record.classes, dtype=object)[best]
        confidence = np.where(has_any, np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0], np.nan)
    return confidence, predicted


def bins_of(confidence: np.ndarray, is_right: np.ndarray, n_bins: int) -> pd.DataFrame:
    """One line per bin that holds cells: middle, mean confidence, share right, cells and their share of all."""
    place = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    table = pd.DataFrame({"bin": place, "confidence": confidence, "right": is_right.astype(float)})
    bins = table.groupby("bin").agg(
        confidence=("confidence", "mean"), right=("right", "mean"), cells=("right", "size")
    )
    return bins.assign(middle=(bins.index + 0.5) / n_bins, share=bins["cells"] / len(table))
