"""Expression along the genome, cell by cell, for figures."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ._cells import LARGEST_RESIDUAL, effective_totals
from ._genome import Genome

WINDOW = 101
"""Genes of a window."""
STEP = 25
"""Genes from one window to the next."""
PRIOR_INFORMATION = 5.0
"""Information that draws the log ratio of a window in a cell towards 0 (ours)."""
CELLS_AT_ONCE = 512


def profile_windows(genome: Genome, genes: np.ndarray) -> tuple[sp.csr_array, np.ndarray, np.ndarray]:
    """Windows of 101 genes along each chromosome, one every 25.

    Parameters
    ----------
    genome
        Places.
    genes
        (Q,) genes that are read, as positions in the genome, ascending.

    Returns
    -------
    (Q, W) which genes are in each window, and its chromosome and the place of its middle gene, (W,) each.
    """
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    chromosomes: list[str] = []
    starts: list[int] = []
    chromosome = genome.chromosome[genes]
    for name in dict.fromkeys(chromosome.tolist()):
        here = np.flatnonzero(chromosome == name)
        size = min(WINDOW, len(here))
        for first in range(0, len(here) - size + 1, STEP):
            rows.append(here[first : first + size])
            columns.append(np.full(size, len(starts)))
            chromosomes.append(name)
            starts.append(int(genome.start[genes[here[first + size // 2]]]))
    shape = (len(genes), len(starts))
    ones = np.ones(sum(map(len, rows)), dtype=np.float32)
    windows = sp.csr_array((ones, (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    return windows, np.array(chromosomes), np.array(starts, dtype=np.int64)


def window_profile(counts: sp.csr_array, normal: np.ndarray, windows: sp.csr_array) -> np.ndarray:
    """Log ratio of each window in each cell to normal cells, around the cell's median, (n, W) float32.

    The one-step fit of `_cells`, with a prior for windows of which a cell shows little.

    Parameters
    ----------
    counts
        (n, Q) linear expression.
    normal
        (Q,) fractions that normal cells express.
    windows
        (Q, W) from `profile_windows`.
    """
    result = np.empty((counts.shape[0], windows.shape[1]), dtype=np.float32)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    believed = effective_totals(totals)
    scale = np.divide(believed, totals, out=np.zeros(len(totals)), where=totals > 0).astype(np.float32)
    fractions = (normal / max(normal.sum(), 1e-12)).astype(np.float32)
    transposed = sp.csr_array(windows.T)
    for start in range(0, counts.shape[0], CELLS_AT_ONCE):
        rows = slice(start, min(start + CELLS_AT_ONCE, counts.shape[0]))
        expected = fractions[None, :] * believed[rows, None].astype(np.float32)
        residual = counts[rows].toarray().astype(np.float32) * scale[rows, None] - expected
        residual /= expected + 1
        np.minimum(residual, LARGEST_RESIDUAL, out=residual)
        information = (transposed @ (expected / (expected + 1)).T).T
        ratio = (transposed @ residual.T).T / (information + PRIOR_INFORMATION)
        result[rows] = ratio - np.median(ratio, axis=1, keepdims=True)
    return result
