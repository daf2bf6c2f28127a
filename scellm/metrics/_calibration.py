"""Whether a confidence of 0.9 is right nine times in ten, and the one number that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TEMPERATURES = (0.05, 1000.0)
"""Temperatures looked at; at the upper end scores say nothing."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of scores, row by row, (n, K) -> (n, K); a score of -inf has probability 0."""
    return special.softmax(logits, axis=1)


def expected_calibration_error(probabilities: ArrayLike, truth: ArrayLike, *, n_bins: int = 15) -> float:
    """Mean difference between confidence and accuracy :cite:p:`Guo2017`.

    Cells are put into bins of equal width by the probability of their predicted class; the error is the mean over
    bins of the distance between accuracy and mean confidence, weighted by the cells in each. 0 is perfect.

    Parameters
    ----------
    probabilities
        (n, K) predicted probabilities.
    truth
        (n,) column of the true class; -1 for a class without a column, which is always wrong.
    n_bins
        Bins; 15 as in the source.

    Returns
    -------
    A number from 0 to 1; NaN without cells.

    Raises
    ------
    ValueError
        Shapes differ, or probabilities outside [0, 1].

    Examples
    --------
    >>> scellm.metrics.expected_calibration_error(
    ...     [[0.8, 0.2], [0.8, 0.2]], [0, 1]
    ... )  # said 80 %, right in half
    0.3...
    """
    probabilities, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        msg = (
            f"Probabilities have shape {probabilities.shape}, the truth {truth.shape}; need (n, K) and (n,)."
        )
        raise ValueError(msg)
    if not len(truth):
        return float("nan")
    if not (probabilities >= -1e-6).all() or not (probabilities <= 1 + 1e-6).all():
        msg = "Probabilities must lie between 0 and 1; these look like scores."
        raise ValueError(msg)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(truth))


def fit_temperature(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The T for which softmax(logits / T) is likeliest, temperature scaling :cite:p:`Guo2017`.

    Parameters
    ----------
    logits
        (n, K) scores of cells the classifier was not fitted on; -inf where it does not know a class.
    truth
        (n,) column of the true class, whose score is finite.
    weights
        (n,) weight of each cell; `None` weighs all the same.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(truth))
    weights = np.ones(len(truth)) if weights is None else weights

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits / np.exp(log_temperature))[rows, truth]
        return -float(np.average(np.log(np.maximum(probabilities, 1e-12)), weights=weights))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))
