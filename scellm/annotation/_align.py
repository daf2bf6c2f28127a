"""The shift that a study as a whole has in the embedding, and cells without it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .._room import take_rows
from ..metrics._calibration import softmax
from ._annotator import Annotator, unit

ROUNDS = (16.0, 8.0, 4.0, 2.0, *[1.0] * 6)
"""What the temperature is multiplied by in each round of labels and shift. The first rounds believe the labels little, and
so begin near the move of the whole; after about three of the last the shift stands still (ours)."""
TRUSTED = 0.7
"""Share of the cells, the least strange ones, that the shift is taken from: types that the reference lacks must not
pull (ours: chosen on sets of the training corpus)."""
FEWEST_CELLS = 50
"""With fewer cells a shift cannot be told from chance (ours)."""
MOST_CELLS = 2_000
"""The shift is taken from no more cells, drawn at random: it is one vector."""
AT_ONCE = 256
"""Cells whose products with all exemplars stay in the cache."""
NEARER = 0.92
"""Without the shift, cells must lie so much nearer to the reference, in the median, for it to be one. Within studies of
the training corpus the factor is 0.95 to 1.1, between two of them 0.43 to 0.89 (ours)."""


def batch_shift(
    annotator: Annotator, vectors: np.ndarray, strange_less: _Strangeness | None = None
) -> np.ndarray:
    r"""How far cells lie from the reference cells of their own types, on average over types, (F,).

    Protocols move all cells of a study alike in the embedding. The mean over cells would take other proportions of types
    for such a move; so labels and shift are found in turn :cite:p:`Dempster1977`: with p the probabilities of the cells
    less the present shift, :math:`m_k` the mean of the cells weighted by :math:`p_{ik}` and :math:`r_k` the mean of the
    reference cells of type k, the next shift is the mean of :math:`m_k - r_k`. A type weighs in full from a share of
    1/K of the cells on, and less below.

    Parameters
    ----------
    annotator
        Fitted on embeddings.
    vectors
        (n, F) unit vectors of the cells of one study; too few of them give no shift.
    strange_less
        Of these, if there is one already.
    """
    shift = np.zeros(vectors.shape[1], dtype=np.float32)
    if len(vectors) < FEWEST_CELLS or annotator.head.genes:
        return shift
    n_classes, exemplars = len(annotator.classes), annotator.exemplars
    is_there = np.bincount(exemplars.labels, minlength=n_classes) > 0
    means = np.stack(
        [
            exemplars.cells[exemplars.labels == k].mean(axis=0) if is_there[k] else shift
            for k in range(n_classes)
        ]
    )
    strange_less = strange_less or _Strangeness(annotator, vectors)
    for softer in ROUNDS:
        moved = vectors - shift
        strange = strange_less(shift)
        trusted = strange <= np.quantile(strange, TRUSTED)
        logits = annotator.logits(moved[trusted]) / (annotator.calibration.temperature * softer)
        shares = softmax(logits) * is_there
        sizes = shares.sum(axis=0) + 1e-9
        found = shares.T @ vectors[trusted] / sizes[:, None]
        weight = np.minimum(sizes / sizes.sum() * n_classes, 1.0) * is_there
        shift = ((found - means) * weight[:, None]).sum(axis=0) / weight.sum()
        shift = shift.astype(np.float32)
    return shift


class _Strangeness:
    """Outlier scores of (n, F) unit vectors less one shift after the other; their products with exemplars are made once."""

    def __init__(self, annotator: Annotator, vectors: np.ndarray) -> None:
        self.annotator, self.vectors, cells = annotator, vectors, annotator.exemplars.cells
        is_plain = not annotator.exemplars.projection.size and len(vectors) >= FEWEST_CELLS
        self.products = vectors @ cells.T if is_plain else None

    def __call__(self, shift: np.ndarray) -> np.ndarray:
        """(n,) of `vectors - shift`."""
        moved = self.vectors - shift
        if self.products is None:
            return self.annotator.outlier_score(moved)
        lengths = np.linalg.norm(moved, axis=1)
        off = self.annotator.exemplars.cells @ shift
        found = [
            self.annotator.outlier_score_by(self.products[i : i + AT_ONCE] - off, lengths[i : i + AT_ONCE])
            for i in range(0, len(moved), AT_ONCE)
        ]
        return np.concatenate(found)


def check_align(align: bool | Literal["auto"]) -> None:
    """Refuse what is no choice."""
    if not isinstance(align, bool) and align != "auto":
        msg = f"align={align!r} is unknown; choose 'auto', True or False."
        raise ValueError(msg)


def find_shift(
    annotator: Annotator,
    vectors: np.ndarray,
    align: bool | Literal["auto"],
    is_full: np.ndarray | None = None,
) -> np.ndarray | None:
    """The shift of cells of one study, (F,), if it is to be taken out; from some of them. Rows of NaN have no say.

    `"auto"` takes it out if the cells are nearer to the reference then, by the factor `NEARER`. `is_full` (n,) says which rows
    are not NaN, if that is known.
    """
    if align is False:
        return None
    rows = np.flatnonzero(np.isfinite(vectors).all(axis=1) if is_full is None else is_full)
    if len(rows) > MOST_CELLS:
        rows = rows[np.random.default_rng(0).choice(len(rows), MOST_CELLS, replace=False)]
    drawn = unit(take_rows(vectors, rows))
    strange_less = _Strangeness(annotator, drawn)
    shift = batch_shift(annotator, drawn, strange_less)
    if not shift.any():
        return None
    if align == "auto":
        before, after = (np.median(strange_less(x)) for x in (np.zeros_like(shift), shift))
        if after > NEARER * before:
            return None
    return shift


def without_shift(vectors: np.ndarray, shift: np.ndarray | None) -> np.ndarray:
    """Cells less the shift that `find_shift` found; rows of NaN stay."""
    return vectors if shift is None else unit(vectors) - shift


def align_cells(
    annotator: Annotator, vectors: np.ndarray, align: bool | Literal["auto"]
) -> tuple[np.ndarray, float]:
    """Cells of one study without its shift, (n, F), and the length of the shift, 0 if there was none to take out."""
    shift = find_shift(annotator, vectors, align)
    return without_shift(vectors, shift), 0.0 if shift is None else float(np.linalg.norm(shift))
