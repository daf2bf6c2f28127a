"""From scores to labels: a type, a broader one, "unassigned" or "novel", with confidence and a set of types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._room import make_room, row_slices
from ._align import without_shift
from ._annotator import Annotator
from ._gene_head import GeneScores
from ._looks import Looks
from ._neighbors import Neighborhood
from ._tree import Tree
from ._vote import vote

UNASSIGNED, NOVEL = -1, -2
"""Codes of cells that get no type."""
MAX_SHIFT = 3.0
"""Protocols of the training corpus shift distances up to this; more is another kind of cell (ours)."""
AS_LIKELY_AS_NOT = 0.5
"""What `min_confidence="auto"` asks of a node of a tree."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How cells are named, and when one gets no type; `None` switches a rule off."""

    target_error: float | None = None
    min_confidence: float | None = None
    novelty_error: float | None = None
    ask_neighbors: bool = False
    """The nearest cells have a say, if the annotator is calibrated for it."""
    named_instead: tuple[int, ...] = ()
    """Node of the tree that each node is named as; empty for all as themselves."""

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
    probabilities: np.ndarray
    """(n, K) probabilities of the classes, NaN for empty cells."""
    confidence: np.ndarray
    novelty: np.ndarray
    is_empty: np.ndarray
    lineages: np.ndarray
    """(n,) the likeliest lineage of the tree if it is as likely as not, else `UNASSIGNED`."""
    sets: np.ndarray | None
    tree: Tree | None
    looks: Looks
    """Of the cells with genes."""
    shift: float = 1.0
    """How many times farther these cells are from the reference than held-out ones, before the bound."""


def empty_cells(vectors: np.ndarray) -> np.ndarray:
    """(n,) rows that are NaN."""
    found = np.zeros(len(vectors), dtype=bool)
    for rows in row_slices(len(vectors), vectors):
        found[rows] = np.isnan(vectors[rows]).any(axis=1)
    return found


def decide(
    annotator: Annotator,
    vectors: np.ndarray,
    limits: Thresholds,
    *,
    is_shifted: bool,
    allowed: np.ndarray | None = None,
    move: np.ndarray | None = None,
    on_disk: bool = False,
    genes: GeneScores | None = None,
) -> Result:
    """Types, or why there is none, some thousand cells at a time.

    Parameters
    ----------
    annotator
        Fitted.
    vectors
        (n, F), NaN for empty cells.
    limits
        When a cell gets no type.
    is_shifted
        Outlier scores are divided by their common shift first.
    allowed
        (K,) leaves classes out: the others share the probability.
    move
        (F,) from `find_shift`, taken from the vectors first.
    on_disk
        Large results may be in a temporary file.
    genes
        What the genes of the cells say.
    """
    if limits.target_error is not None and not annotator.is_calibrated:
        msg = (
            "target_error needs held-out cells, and this head was fitted without: pass calibrate=True to "
            "tl.fine_tune, or leave target_error out."
        )
        raise ValueError(msg)
    n, n_classes, tree = len(vectors), len(annotator.classes), annotator.tree
    found = Result(
        codes=np.full(n, UNASSIGNED, dtype=np.int32),
        names=annotator.classes if tree is None else tree.names,
        probabilities=make_room((n, n_classes), np.float32, on_disk=on_disk),
        confidence=np.zeros(n, np.float32),
        novelty=np.full(n, np.nan, np.float32),
        is_empty=empty_cells(vectors),
        lineages=np.full(n, UNASSIGNED, dtype=np.int32),
        sets=None
        if limits.target_error is None
        else make_room((n, n_classes), np.dtype(bool), on_disk=on_disk),
        tree=tree,
        looks=Looks(0, np.zeros(n_classes), 0.0, np.zeros(n_classes, dtype=int)),
    )
    _judge_novelty(found, annotator, vectors, limits, move, is_shifted=is_shifted)

    def own(rows: np.ndarray) -> np.ndarray:
        said = None if genes is None else genes[rows]
        return annotator.probabilities(without_shift(vectors[rows], move), said)

    around = None
    if limits.ask_neighbors and annotator.smoothing is not None:
        around = Neighborhood.of(vectors, ~found.is_empty, annotator.smoothing, own)

    def blocks() -> Iterator[np.ndarray]:
        said_of = () if genes is None else (genes.values,)
        for rows in row_slices(n, vectors, found.probabilities, *said_of):
            full = rows.start + np.flatnonzero(~found.is_empty[rows])
            alone = own(full) if around is None else around.own(full, own)
            said = alone if around is None else around.smooth(alone, vectors[full], full)
            restricted = _restricted(said, allowed)
            _choose_rows(found, annotator, rows, restricted, limits, is_smooth=around is not None)
            yield alone

    found.looks = Looks.of(blocks(), n_classes)
    found.codes[found.novelty > 1] = NOVEL  # a comparison with NaN is false
    return found


def _judge_novelty(
    found: Result,
    annotator: Annotator,
    vectors: np.ndarray,
    limits: Thresholds,
    move: np.ndarray | None,
    *,
    is_shifted: bool,
) -> None:
    """How strange cells are, and all of them together."""
    is_full = ~found.is_empty
    if limits.novelty_error is None or not len(annotator.calibration.novelty) or not is_full.any():
        return
    parts = [
        annotator.outlier_score(without_shift(vectors[rows][is_full[rows]], move))
        for rows in row_slices(len(vectors), vectors)
    ]
    strange = np.concatenate(parts)
    found.shift = annotator.shift(strange) if is_shifted else 1.0
    found.novelty[is_full] = annotator.novelty_scores(
        strange, limits.novelty_error, shift=min(found.shift, MAX_SHIFT)
    )


def _choose_rows(
    found: Result,
    annotator: Annotator,
    rows: slice,
    probabilities: np.ndarray,
    limits: Thresholds,
    *,
    is_smooth: bool,
) -> None:
    """Put what is decided about some rows into the result; `probabilities` are of those that are not empty."""
    is_empty, tree = found.is_empty[rows], found.tree
    filled = np.full((len(is_empty), len(annotator.classes)), np.nan, np.float32)
    filled[~is_empty] = probabilities
    found.probabilities[rows] = filled
    codes, values, sets = _choose(annotator, filled, limits, is_smooth=is_smooth)
    confidence = np.where(codes >= 0, _at(values, codes), np.nan_to_num(filled).max(axis=1))
    if sets is not None and found.sets is not None:
        found.sets[rows] = sets
    if tree is not None:
        places = np.flatnonzero(tree.is_lineage)
        sums = np.nan_to_num(values[:, places])
        found.lineages[rows] = np.where(
            sums.max(axis=1) >= AS_LIKELY_AS_NOT, places[sums.argmax(axis=1)], UNASSIGNED
        )
    codes[is_empty] = UNASSIGNED
    confidence[is_empty] = 0
    found.codes[rows], found.confidence[rows] = codes, confidence


def _restricted(found: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """(n, K) probabilities over the classes that are allowed."""
    if allowed is None:
        return found
    found = np.where(allowed, np.maximum(found, 1e-12), 0)
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def _choose(
    annotator: Annotator, probabilities: np.ndarray, limits: Thresholds, *, is_smooth: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Codes, the probabilities behind them, and sets of classes."""
    filled, tree = np.nan_to_num(probabilities), annotator.tree
    is_full = np.isfinite(probabilities).all(axis=1)
    least, sets, least_score = limits.min_confidence or 0.0, None, 0.0
    if tree is not None:
        if limits.target_error is not None:
            least_score = annotator.least_score(limits.target_error, is_smooth=is_smooth)
        codes = tree.deepest(filled, least, least_score=least_score)
        if limits.named_instead:
            codes = np.where(codes >= 0, np.array(limits.named_instead)[codes], codes)
        if limits.target_error is not None:
            sets = np.vstack([tree.holds.T, np.ones(len(annotator.classes), dtype=bool)])[codes]
            sets[~is_full] = True
        return codes, tree.sums(probabilities), sets
    codes = filled.argmax(axis=1)
    if limits.target_error is not None:
        sets = np.ones(filled.shape, dtype=bool)  # of an empty cell nothing can be excluded
        sets[is_full] = annotator.sets(probabilities[is_full], limits.target_error)
        codes[sets.sum(axis=1) > 1] = UNASSIGNED
    codes[filled.max(axis=1) < least] = UNASSIGNED
    return codes, probabilities, sets


def _at(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n,) value of each row's code; of refusals anything."""
    return np.nan_to_num(values[np.arange(len(values)), np.maximum(codes, 0)])


def vote_clusters(result: Result, clusters: np.ndarray) -> None:
    """Give all cells of a cluster one code; cells without a cluster keep theirs."""
    has = clusters != ""
    result.codes[has] = vote(result.codes[has], clusters[has])
    for rows in row_slices(len(clusters), result.probabilities):
        codes, some = result.codes[rows], result.probabilities[rows]
        named = (codes >= 0) & ~result.is_empty[rows]
        values = some if result.tree is None else result.tree.sums(some)
        result.confidence[rows] = np.where(named, _at(values, codes), result.confidence[rows])
