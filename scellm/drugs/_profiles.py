"""Expression profiles at any depth: what single-cell sequencing shows of bulk expression, and log fractions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SCALE = 8.0
"""Counts per gene and profile before the logarithm, in the mean over the genes."""
DEPTHS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Counts over the model's genes for which there is a projection of its own; a cell takes the nearest.

Deeper sums of single cells are projected as of 100,000: what parts them from bulk RNA-seq is the platform then, not counts.
"""
DEEP = 2_000_000
"""Depth from which a profile is projected as it is, as bulk RNA-seq is."""
BULK_SHOWS = 1.6
"""Counts per gene of an average cell line that would show as many genes as bulk shows at least. A single cell shows fewer, however many
reads of it were counted."""
COUNTS_PER_SHOWN = (3.0, 8.0)
"""Counts of a cell for each count of an average cell line that would show as many genes: usual, and the most that cells of UMI
protocols have. Where there are more, and more than in any of `DEPTHS`, they are copies of the same molecules, or fractions of reads,
and the usual ones are taken."""


@dataclass(frozen=True)
class Platform:
    """How single-cell sequencing sees the genes, beside bulk sequencing of the same cells."""

    factor: np.ndarray
    """(G,) how much more it sees of a gene on average, over platforms."""
    spread: np.ndarray
    """(G,) standard deviation of log2 of that between platforms and cell lines."""

    def simulate(self, linear: np.ndarray, *, rng: np.random.Generator | int) -> np.ndarray:
        """Linear bulk profiles (n, G) as a platform drawn at random would show each."""
        noise = np.random.default_rng(rng).normal(size=linear.shape)
        return linear * self.factor * np.exp2(self.spread * noise)


def downsample(
    linear: np.ndarray, depth: float, *, repeats: int = 1, rng: np.random.Generator | int = 0
) -> np.ndarray:
    """Poisson counts of profiles at a depth, (repeats * n, G), all profiles of one repeat after the other.

    Parameters
    ----------
    linear
        (n, G) linear expression.
    depth
        Expected sum of a row.
    repeats
        Copies of each profile.
    rng
        Seed or generator.
    """
    rng, profiles = np.random.default_rng(rng), fractions(linear)
    return np.concatenate([rng.poisson(depth * profiles) for _ in range(repeats)]).astype(np.float64)


def expected_genes(fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depths up to `DEEP`, and how many genes a profile (P,) that sums to 1 shows there on average."""
    depths = np.geomspace(1, DEEP, 150)
    return depths, np.array([-np.expm1(-depth * fraction).sum() for depth in depths])


def fractions(values: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; rows of zeros stay."""
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def log_fractions(values: np.ndarray, share: float, n_genes: int | None = None) -> np.ndarray:
    """log2(1 + counts at a mean of `SCALE` a gene), of genes that hold a `share` of an average profile.

    `n_genes` is how many genes a whole profile has; `None` takes `values` for whole.
    """
    n_genes = values.shape[1] if n_genes is None else n_genes
    return np.log2(1 + fractions(values) * np.float32(SCALE * n_genes * share))


def to_unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def at_most_unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors cut to length 1; shorter ones, of which little is known, stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
