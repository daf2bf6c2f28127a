"""Split conformal prediction: sets of classes that miss the truth no more often than asked.

A cell's nonconformity is 1 - p(true class) :cite:p:`Sadinle2019`. With n held-out cells, the threshold at error e is
their ceil((n + 1)(1 - e))-th smallest nonconformity; a set holds every class k with 1 - p(k) at or below it. If a new
cell is exchangeable with the held-out ones, its set misses the truth with probability at most e :cite:p:`Angelopoulos2023`.
"""

from __future__ import annotations

import numpy as np

LEVELS = np.linspace(0, 1, 1001)
"""Shares at which the nonconformity of held-out cells is kept."""


def nonconformity(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) 1 - probability of the true class, of (n, K) probabilities and (n,) columns."""
    return 1 - probabilities[np.arange(len(truth)), truth]


def balance(groups: np.ndarray | None, n: int) -> np.ndarray:
    """(n,) weights that sum to n: each group, such as a donor, weighs the same :cite:p:`Dunn2023`; all the same without."""
    if groups is None:
        return np.ones(n)
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return n / len(sizes) / sizes[codes]


def score_quantiles(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(1001,) smallest score with at least each share of `LEVELS` of the weight at or below it."""
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    at = np.searchsorted(share, LEVELS - 1e-9)
    return scores[order][np.minimum(at, len(scores) - 1)]


def conformal_threshold(quantiles: np.ndarray, n: int, target_error: float) -> float:
    """The nonconformity up to which a class is in the set; infinite if `n` cells cannot support the error.

    Between two shares of `LEVELS` the larger counts, so that rounding adds classes, never takes them away.
    """
    share = np.ceil((n + 1) * (1 - target_error) - 1e-9) / n
    if share > 1:
        return float("inf")
    return float(quantiles[min(int(np.ceil(share * (len(LEVELS) - 1) - 1e-9)), len(LEVELS) - 1)])


def prediction_sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """(n, K) bool, classes that cannot be excluded; the likeliest always belongs, so that no set is empty."""
    sets = 1 - probabilities <= threshold + 1e-9
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets
