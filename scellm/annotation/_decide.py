"""From scores to labels: a type, a broader one, "unassigned" or "novel", with confidence and a set of types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._annotator import Annotator
from ._gene_head import GeneScores
from ._vote import vote

UNASSIGNED, NOVEL = -1, -2
"""Codes of cells that get no type."""
MAX_SHIFT = 3.0
"""Protocols of the training corpus shift distances up to this; more is another kind of cell (ours)."""
AS_LIKELY_AS_NOT = 0.5
"""What `min_confidence="auto"` asks of a node of a tree."""


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
    """(n,) place in `names`, `UNASSIGNED` or `NOVEL`."""
    names: list[str]
    """Names of the codes: nodes of the tree, or classes where there is none."""
    values: np.ndarray
    """(n, number of names) probabilities, NaN for empty cells."""
    probabilities: np.ndarray
    """(n, K) probabilities of the classes."""
    confidence: np.ndarray
    novelty: np.ndarray
    is_empty: np.ndarray
    sets: np.ndarray | None
    shift: float
    """How many times farther these cells are from the reference than held-out ones, before the bound."""
    strange: np.ndarray
    """(n_full,) outlier scores of the cells with genes."""
    unrestricted: np.ndarray
    """(n_full, K) probabilities before any class was left out."""


def decide(
    annotator: Annotator,
    vectors: np.ndarray,
    limits: Thresholds,
    *,
    is_shifted: bool,
    allowed: np.ndarray | None = None,
    genes: GeneScores | None = None,
) -> Result:
    """Types, or why there is none; with `is_shifted` outlier scores are divided by their common shift first.

    `allowed` (K,) leaves classes out: the others share the probability. `genes` is what the genes of the cells say.
    """
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
    unrestricted = annotator.probabilities(some, None if genes is None else genes[~is_empty])
    probabilities[~is_empty] = _restricted(unrestricted, allowed)
    shift, strange = 1.0, np.zeros(0, np.float32)
    if limits.novelty_error is not None and len(annotator.calibration.novelty) and len(some):
        strange = annotator.outlier_score(some)
        shift = annotator.shift(strange) if is_shifted else 1.0
        novelty[~is_empty] = annotator.novelty_scores(
            strange, limits.novelty_error, shift=min(shift, MAX_SHIFT)
        )
    codes, values, names, sets = _choose(annotator, probabilities, limits)
    confidence = np.where(codes >= 0, _at(values, codes), np.nan_to_num(probabilities).max(axis=1))
    codes[is_empty] = UNASSIGNED
    confidence[is_empty] = 0
    codes[novelty > 1] = NOVEL  # a comparison with NaN is false
    return Result(
        codes, names, values, probabilities, confidence, novelty, is_empty, sets, shift, strange, unrestricted
    )


def _restricted(found: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """(n, K) probabilities over the classes that are allowed."""
    if allowed is None:
        return found
    found = np.where(allowed, np.maximum(found, 1e-12), 0)
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def _choose(
    annotator: Annotator, probabilities: np.ndarray, limits: Thresholds
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray | None]:
    """Codes, the probabilities behind them, what the codes mean, and sets of classes."""
    filled, tree = np.nan_to_num(probabilities), annotator.tree
    is_full = np.isfinite(probabilities).all(axis=1)
    least, sets = limits.min_confidence or 0.0, None
    if tree is not None:
        if limits.target_error is not None:
            least = max(least, annotator.least_probability(limits.target_error))
        codes = tree.deepest(filled, least)
        if limits.target_error is not None:
            sets = np.vstack([tree.holds.T, np.ones(len(annotator.classes), dtype=bool)])[codes]
            sets[~is_full] = True
        return codes, tree.sums(probabilities), tree.names, sets
    codes = filled.argmax(axis=1)
    if limits.target_error is not None:
        sets = np.ones(filled.shape, dtype=bool)  # of an empty cell nothing can be excluded
        sets[is_full] = annotator.sets(probabilities[is_full], limits.target_error)
        codes[sets.sum(axis=1) > 1] = UNASSIGNED
    codes[filled.max(axis=1) < least] = UNASSIGNED
    return codes, probabilities, annotator.classes, sets


def _at(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n,) value of each row's code; of refusals anything."""
    return np.nan_to_num(values[np.arange(len(values)), np.maximum(codes, 0)])


def vote_clusters(result: Result, clusters: np.ndarray) -> None:
    """Give all cells of a cluster one code; cells without a cluster keep theirs."""
    has = clusters != ""
    result.codes[has] = vote(result.codes[has], clusters[has])
    named = (result.codes >= 0) & ~result.is_empty
    result.confidence[named] = result.values[named, result.codes[named]]
