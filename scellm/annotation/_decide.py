"""From scores to labels: a type, "unassigned" or "novel", with confidence and a set of types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._annotator import Annotator
from ._vote import vote

UNASSIGNED, NOVEL = -1, -2
"""Codes of cells that get no type."""
MAX_SHIFT = 3.0
"""Protocols of the training corpus shift distances up to this; more is another kind of cell (ours)."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a cell gets no type; `None` switches a rule off."""

    target_error: float | None = None
    min_confidence: float | None = None
    novelty_error: float | None = None

    def __post_init__(self) -> None:
        for name in ("target_error", "novelty_error"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                msg = f"{name}={value!r} is a share of cells; it must be above 0 and below 1, for instance 0.05."
                raise ValueError(msg)
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            msg = f"min_confidence={self.min_confidence!r} is a probability; it must be between 0 and 1."
            raise ValueError(msg)


@dataclass
class Result:
    """What was decided about n cells."""

    codes: np.ndarray
    """(n,) class, `UNASSIGNED` or `NOVEL`."""
    probabilities: np.ndarray
    """(n, K), NaN for empty cells."""
    confidence: np.ndarray
    novelty: np.ndarray
    is_empty: np.ndarray
    sets: np.ndarray | None
    shift: float
    """How many times farther these cells are from the reference than held-out ones, before the bound."""


def decide(
    annotator: Annotator,
    vectors: np.ndarray,
    limits: Thresholds,
    *,
    is_shifted: bool,
) -> Result:
    """Types, or why there is none; with `is_shifted` outlier scores are divided by their common shift first."""
    if limits.target_error is not None and not annotator.is_calibrated:
        msg = (
            "target_error needs held-out cells, and this head was fitted without: pass calibrate=True to "
            "tl.fine_tune, or leave target_error out."
        )
        raise ValueError(msg)
    is_empty = np.isnan(vectors).any(axis=1)
    n, n_classes = len(vectors), len(annotator.classes)
    probabilities = np.full((n, n_classes), np.nan, np.float32)
    novelty = np.full(n, np.nan, np.float32)
    some = vectors[~is_empty]
    probabilities[~is_empty] = annotator.probabilities(some)
    shift = 1.0
    if limits.novelty_error is not None and len(annotator.novelty) and len(some):
        strange = annotator.outlier_score(some)
        shift = annotator.shift(strange) if is_shifted else 1.0
        novelty[~is_empty] = annotator.novelty_scores(
            strange, limits.novelty_error, shift=min(shift, MAX_SHIFT)
        )
    filled = np.nan_to_num(probabilities)
    confidence = filled.max(axis=1)
    codes = filled.argmax(axis=1)
    sets = None
    if limits.target_error is not None:
        sets = np.ones((n, n_classes), dtype=bool)  # of an empty cell nothing can be excluded
        sets[~is_empty] = annotator.sets(probabilities[~is_empty], limits.target_error)
        codes[sets.sum(axis=1) > 1] = UNASSIGNED
    if limits.min_confidence is not None:
        codes[confidence < limits.min_confidence] = UNASSIGNED
    codes[is_empty] = UNASSIGNED
    codes[novelty > 1] = NOVEL  # a comparison with NaN is false
    return Result(codes, probabilities, confidence, novelty, is_empty, sets, shift)


def vote_clusters(result: Result, clusters: np.ndarray) -> None:
    """Give all cells of a cluster one code; cells without a cluster keep theirs."""
    has = clusters != ""
    result.codes[has] = vote(result.codes[has], clusters[has])
    named = (result.codes >= 0) & ~result.is_empty
    result.confidence[named] = result.probabilities[named, result.codes[named]]
