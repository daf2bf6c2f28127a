"""How much of a clone's copy number one cell shows: a one-step fit to its counts.

For gene g of cell i, a negative binomial with mean mu = N p_g and dispersion 1; a clone with log shift m_s in segment s has
mu exp(beta m_s), beta = 0 for normal cells and 1 for the clone. Score and information of log mu in a segment are
U = sum (x - mu) / (1 + mu) and I = sum mu / (1 + mu), and beta = sum m U / sum m^2 I.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ._genome import Segments

MOST_COUNTS = 20_000.0
"""Deeper cells are read as if they had so many counts: reads of full-length protocols are no molecules."""
LARGEST_RESIDUAL = 3.0
CELLS_AT_ONCE = 512


def effective_totals(totals: np.ndarray) -> np.ndarray:
    """Counts per cell that are believed."""
    return np.minimum(totals, MOST_COUNTS)


def segment_scores(
    counts: sp.csr_array, profiles: np.ndarray, group: np.ndarray, segments: Segments
) -> tuple[np.ndarray, np.ndarray]:
    """Score and information of each cell in each segment, (n, S) float32 each.

    Parameters
    ----------
    counts
        (n, Q) linear expression of the genes of the segments.
    profiles
        (K, Q) fractions expected in each group without copy number.
    group
        (n,) group of each cell.
    segments
        Segments.
    """
    n, n_segments = counts.shape[0], len(segments)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    believed = effective_totals(totals)
    scores, information = (np.zeros((n, n_segments), dtype=np.float32) for _ in range(2))
    starts = np.searchsorted(segments.of_gene, np.arange(n_segments))
    for start in range(0, n, CELLS_AT_ONCE):
        rows = slice(start, min(start + CELLS_AT_ONCE, n))
        scale = np.divide(
            believed[rows], totals[rows], out=np.zeros(len(believed[rows])), where=totals[rows] > 0
        )
        expected = (profiles[group[rows]] * believed[rows, None]).astype(np.float32)
        residual = counts[rows].toarray() * scale[:, None].astype(np.float32)
        residual -= expected
        expected_1 = expected + 1
        residual /= expected_1
        np.minimum(residual, LARGEST_RESIDUAL, out=residual)
        scores[rows] = np.add.reduceat(residual, starts, axis=1)
        information[rows] = np.add.reduceat(expected / expected_1, starts, axis=1)
    return scores, information


def clone_share(
    scores: np.ndarray, information: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Score of each cell for one clone, and its information, (n,) each; a factor on all genes of a cell is left out.

    Parameters
    ----------
    scores, information
        (n, S) from `segment_scores`.
    shift
        (S,) log shift of the clone.
    """
    total = np.maximum(information.sum(axis=1), 1e-9)
    centered = shift[None, :] - ((information @ shift) / total)[:, None]
    precision = (centered**2 * information).sum(axis=1)
    return (centered * scores).sum(axis=1) / np.maximum(precision, 1e-9), precision


SHARES = {
    True: np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98]),
    False: np.array([0.002, 0.01, 0.03, 0.1, 0.2, 0.3]),
}
"""Shares of clonal cells that are tried in a group that is aneuploid, and in others."""
PRIOR = {True: 6.0, False: -10.0}
"""Slope of the log prior of these shares: most groups are of one kind."""


def mixture_odds(share: np.ndarray, precision: np.ndarray, *, is_clone: bool) -> np.ndarray:
    """Log odds that each cell of a group is clonal, with the share of such cells that fits the group best, (n,).

    Scores of clonal cells lie around b, those of others around 0, each with its own variance. In a group that is aneuploid
    the scores have the mean 1, so that b is 1 over the share; in others b is 1.

    Parameters
    ----------
    share, precision
        (n,) scores of the cells and their inverse variances.
    is_clone
        Whether the group itself is aneuploid.
    """
    best, result = -np.inf, np.zeros(len(share))
    for part in SHARES[is_clone]:
        center = 1 / part if is_clone else 1.0
        odds = np.log(part / (1 - part)) + precision * center * (share - center / 2)
        fit = np.logaddexp(0, odds).sum() + len(share) * np.log1p(-part) + PRIOR[is_clone] * part
        if fit > best:
            best, result = fit, odds
    return result
