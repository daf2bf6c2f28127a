"""Expression along the genome, cell by cell, for figures."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ._genome import Genome, Segments

WINDOW = 101
"""Genes of a window."""
STEP = 20
"""Genes from one window to the next."""
LARGEST = 3.0
CELLS_AT_ONCE = 512


def profile_windows(genome: Genome, segments: Segments) -> tuple[sp.csr_array, np.ndarray, np.ndarray]:
    """Windows of genes along each chromosome: (Q, W) weights that make means, chromosome (W,) and position (W,)."""
    rows, columns, values, chromosomes, starts = [], [], [], [], []
    chromosome = genome.chromosome[segments.genes]
    for name in dict.fromkeys(chromosome.tolist()):
        here = np.flatnonzero(chromosome == name)
        size = min(WINDOW, len(here))
        for first in range(0, len(here) - size + 1, STEP):
            genes = here[first : first + size]
            rows.append(genes)
            columns.append(np.full(size, len(starts)))
            values.append(np.full(size, 1 / size, dtype=np.float32))
            chromosomes.append(name)
            starts.append(int(np.median(genome.start[segments.genes[genes]])))
    shape = (len(segments.genes), len(starts))
    weights = sp.csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    return weights, np.array(chromosomes), np.array(starts, dtype=np.int64)


def window_profile(
    counts: sp.csr_array, normal: sp.csr_array | np.ndarray, windows: sp.csr_array
) -> np.ndarray:
    """Mean of log1p CP10k less that of normal cells in each window, centered in each cell, (n, W) float32.

    Parameters
    ----------
    counts
        (n, Q) linear expression.
    normal
        (m, Q) the same of normal cells, or (Q,) their fractions.
    windows
        (Q, W) from `profile_windows`.
    """
    if isinstance(normal, np.ndarray):
        baseline = np.log1p(1e4 * normal).astype(np.float32)
    else:
        baseline = np.asarray(_log1p(normal).mean(axis=0)).ravel().astype(np.float32)
    result = np.empty((counts.shape[0], windows.shape[1]), dtype=np.float32)
    for start in range(0, counts.shape[0], CELLS_AT_ONCE):
        block = _log1p(counts[start : start + CELLS_AT_ONCE]).toarray().astype(np.float32)
        block -= baseline
        np.clip(block, -LARGEST, LARGEST, out=block)
        means = block @ windows
        result[start : start + len(block)] = means - np.median(means, axis=1, keepdims=True)
    return result


def _log1p(counts: sp.csr_array) -> sp.csr_array:
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-12)
    scaled = sp.csr_array(sp.diags_array(1e4 / totals) @ counts)
    scaled.data = np.log1p(scaled.data)
    return scaled
