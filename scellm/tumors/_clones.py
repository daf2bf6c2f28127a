"""Clones: cells of a tumor that differ in copy number."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ._aneuploidy import THRESHOLD, coherence
from ._cells import segment_scores
from ._genome import Segments

SMALLEST_CLONE = 20
MOST_CLONES = 8


def find_clones(counts: sp.csr_array, normal: np.ndarray, segments: Segments, rng: int) -> np.ndarray:
    """(n,) clone of each tumor cell, 0 the largest.

    Cells are halved by the arms that part them most, read from every other gene; the halves are two clones if the genes
    that were left out shift along arms as well. So are the halves of halves.

    Parameters
    ----------
    counts
        (n, Q) linear expression of aneuploid cells.
    normal
        (Q,) fractions of normal cells.
    segments
        Segments.
    rng
        Seed.
    """
    odd = np.arange(len(segments.genes)) % 2 == 1
    halves = [Segments(segments.genes[part], segments.of_gene[part], segments.arm) for part in (odd, ~odd)]
    views = [sp.csr_array(counts[:, np.flatnonzero(part)]) for part in (odd, ~odd)]
    arms = _arm_shifts(views[0], normal[odd], halves[0])
    code = np.zeros(counts.shape[0], dtype=np.int64)
    waiting = [0]
    while waiting and code.max() + 1 < MOST_CLONES:
        rows = np.flatnonzero(code == waiting.pop())
        part = _halve(arms[rows], rng)
        if part is None or min(part.sum(), (~part).sum()) < SMALLEST_CLONE:
            continue
        first, second = (_fractions(views[1][rows[side]]) for side in (part, ~part))
        if coherence(first, second, halves[1]).statistic > THRESHOLD:
            new = code.max() + 1
            waiting += [int(code[rows[0]]), int(new)]
            code[rows[part]] = new
    order = np.argsort(-np.bincount(code), kind="stable")
    return np.argsort(order)[code]


def _arm_shifts(counts: sp.csr_array, normal: np.ndarray, segments: Segments) -> np.ndarray:
    """(n, A) noisy log shift of each arm in each cell."""
    profile = (normal / normal.sum())[None]
    scores, information = segment_scores(counts, profile, np.zeros(counts.shape[0], dtype=np.int64), segments)
    names, code = np.unique(segments.arm, return_inverse=True)
    of_arm = np.eye(len(names))[code]
    shift = (scores @ of_arm) / np.maximum(information @ of_arm, 1e-9)
    return shift - np.median(shift, axis=1, keepdims=True)


def _halve(arms: np.ndarray, rng: int) -> np.ndarray | None:
    """(n,) which half each cell is in, by k-means on the arms' first directions."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    if len(arms) < 2 * SMALLEST_CLONE:
        return None
    reduced = PCA(min(5, *arms.shape), random_state=rng).fit_transform(arms)
    return KMeans(2, n_init=5, random_state=rng).fit_predict(reduced) == 1


def _fractions(counts: sp.csr_array) -> np.ndarray:
    pooled = np.asarray(counts.sum(axis=0)).ravel()
    return pooled / max(pooled.sum(), 1e-12)
