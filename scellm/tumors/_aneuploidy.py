"""Whether a group of cells is aneuploid: do neighboring segments of the genome shift together against normal cells?

Two cell types differ in many genes, but not in whole arms: what differs is scattered. So the shift of a segment is
measured in units of the spread of its own genes, and the statistic asks whether such shifts are alike along an arm.

Protocols do shift whole arms, those rich in GC and in genes against the others. The directions in which normal profiles
of many studies differ most from each other are taken out first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ._genome import Segments
from ._panel import PSEUDOCOUNT, Panel

LARGEST = 2.0
"""Log ratios of genes are cut here: one gene must not move a segment."""
NOISE = np.array([1.0, 1.25, 1.5, 1.75, 2.0, 2.5])
"""Variances of a segment of normal cells, in units of that from its genes' spread; above 1, as genes are not independent."""
SIGNAL = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
"""Variances of copy number, in the same units."""
REACH = np.array([0.6, 0.9, 0.99])
"""Correlations of copy number between neighboring segments of an arm."""
N_NUISANCE = 3
"""Directions of difference between normal profiles that are taken out."""
THRESHOLD = 4.0
"""Log likelihood ratio from which a group is aneuploid; see docs/benchmarks/malignancy.md."""


@dataclass(frozen=True, eq=False)
class Coherence:
    """A group against normal cells.

    Attributes
    ----------
    shift
        (S,) log ratio of each segment, without what protocols do to it; their median is 0.
    error
        (S,) standard error.
    statistic
        Log likelihood ratio of copy number against none.
    estimate
        (S,) the shift less its noise (posterior mean); 0 where there is no signal.
    """

    shift: np.ndarray
    error: np.ndarray
    statistic: float
    estimate: np.ndarray


def log_ratio(profile: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Log ratio of two profiles of fractions, gene by gene, cut at ±2."""
    ratio = np.log((1e4 * profile + PSEUDOCOUNT) / (1e4 * normal + PSEUDOCOUNT))
    return np.clip(ratio, -LARGEST, LARGEST)


def nuisance(panel: Panel, segments: Segments) -> np.ndarray:
    """(S, 3) directions, in units of the error, in which each normal profile differs most from those most like it."""
    profiles = panel.fractions(segments.genes)
    others = panel.nearest(profiles, segments.genes, without_itself=True)
    z = []
    for profile, normal in zip(profiles, others, strict=True):
        shift, error = _shift(profile, normal, segments)
        z.append(shift / error)
    return np.linalg.svd(np.array(z), full_matrices=False)[2][:N_NUISANCE].T


def coherence(
    profile: np.ndarray, normal: np.ndarray, segments: Segments, directions: np.ndarray | None = None
) -> Coherence:
    """Compare the mean profile of a group with that of normal cells.

    Parameters
    ----------
    profile, normal
        (Q,) fractions of the genes of the segments.
    segments
        Segments of these genes.
    directions
        (S, 3) from `nuisance`; `None` takes nothing out, as within one sample.
    """
    shift, error = _shift(profile, normal, segments)
    if directions is None:
        directions = np.zeros((len(shift), 1))
    free = np.eye(len(shift)) - directions @ directions.T
    z = free @ (shift / error)
    statistic, estimate = _fit(z, segments.arm, free)
    shift = z * error
    return Coherence(shift - np.median(shift), error, statistic, estimate * error)


def _shift(profile: np.ndarray, normal: np.ndarray, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """(S,) log ratio of segments around their median, and its standard error."""
    ratio = log_ratio(profile, normal)
    shift = segments.mean(ratio)
    spread = segments.mean((ratio - shift[segments.of_gene]) ** 2)
    return shift - np.median(shift), np.sqrt(np.maximum(spread, 1e-6) / segments.sizes)


def _fit(z: np.ndarray, arm: np.ndarray, free: np.ndarray) -> tuple[float, np.ndarray]:
    """Log likelihood ratio of coherent shifts, and their posterior mean in units of the error."""
    none = max(_log_likelihood(z**2, np.full(len(z), noise)) for noise in NOISE)
    best, fitted = -np.inf, np.zeros(len(z))
    for reach in REACH:
        values, vectors = _eigen(arm.tobytes(), arm.dtype.str, free.tobytes(), reach)
        turned = vectors.T @ z
        for noise in NOISE:
            for signal in SIGNAL:
                found = _log_likelihood(turned**2, noise + signal * values)
                if found > best:
                    best = found
                    fitted = vectors @ (turned * signal * values / (noise + signal * values))
    return float(best - none), fitted


@lru_cache(maxsize=32)
def _eigen(arm: bytes, kind: str, free: bytes, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of the covariance of copy number that is left; the same for all groups of a sample."""
    names = np.frombuffer(arm, dtype=kind)
    outside = np.frombuffer(free).reshape(len(names), len(names))
    values, vectors = np.linalg.eigh(outside @ _correlation(names, reach) @ outside)
    return np.maximum(values, 0), vectors


def _log_likelihood(squares: np.ndarray, variances: np.ndarray) -> float:
    return float(-0.5 * (np.log(variances) + squares / variances).sum())


def _correlation(arm: np.ndarray, reach: float) -> np.ndarray:
    """(S, S) correlation of copy number between segments: falls with distance, 0 between arms."""
    place = np.arange(len(arm))
    near = reach ** np.abs(place[:, None] - place[None, :])
    return np.where(arm[:, None] == arm[None, :], near, 0.0)
