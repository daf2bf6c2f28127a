"""Copy number and expression in one probability, and a call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ._infer import CopyNumber

CALLS = ("malignant", "normal", "undecided")
LEAST_MALIGNANT, MOST_NORMAL = 0.8, 0.35
"""Probabilities from which a cell is called; between them it is undecided."""
ALONE_MALIGNANT = 0.98
"""The same where copy number cannot be read: the head alone calls too many normal cells malignant."""
BOUND_COPY, BOUND_HEAD = 10.0, 6.0
"""Log odds of one kind of evidence do not count for more."""


@dataclass(frozen=True)
class Combination:
    """Weights of the evidence, fitted on studies left out (tests/benchmarks/malignancy.py).

    Attributes
    ----------
    head
        Of the log odds of the encoder's head.
    copy
        Of those of the cell's copy number, where the sample has aneuploid cells.
    found
        Added where it has.
    absent
        Added where it has none.
    """

    head: float = 0.35
    copy: float = 0.9
    found: float = 0.0
    absent: float = -4.0

    @classmethod
    def from_array(cls, weights: np.ndarray) -> Combination:
        """From the tensor `combination` of a model's part "malignancy"."""
        return cls(*(float(value) for value in weights))


def combine(head_log_odds: np.ndarray, copies: CopyNumber | None, weights: Combination) -> np.ndarray:
    """Probability that each cell is malignant, (n,); NaN where the head has none.

    Parameters
    ----------
    head_log_odds
        (n,) of the encoder's head, calibrated; NaN for empty cells.
    copies
        Copy number; `None` or one that is not usable leaves the head alone.
    weights
        Weights.
    """
    if copies is None or not copies.is_usable:
        return expit(head_log_odds)
    head = weights.head * np.clip(head_log_odds, -BOUND_HEAD, BOUND_HEAD)
    if not copies.clones:
        return expit(head + weights.absent)
    return expit(head + weights.found + weights.copy * np.clip(copies.log_odds, -BOUND_COPY, BOUND_COPY))


def call(probability: np.ndarray, *, is_alone: bool) -> np.ndarray:
    """(n,) one of `CALLS` for each probability; NaN is undecided.

    Parameters
    ----------
    probability
        (n,) from `combine`.
    is_alone
        Whether the head was the only evidence.
    """
    least = ALONE_MALIGNANT if is_alone else LEAST_MALIGNANT
    calls = np.full(len(probability), "undecided", dtype=object)
    calls[probability >= least] = "malignant"
    calls[probability <= MOST_NORMAL] = "normal"
    return calls
