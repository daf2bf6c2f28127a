"""Fit the projection of cells to cell lines, at each depth."""

from __future__ import annotations

import numpy as np

from ._profiles import DEPTHS, SCALE, Platform, at_most_unit, downsample, fractions, pack_symmetric, to_unit
from ._projection import ridge

REPEATS = 4
"""Downsampled copies of each cell line that a projection is fitted on."""
RANK = 128
"""Dimensions of a cell line's vector."""
LEAST_SIMILAR = 0.1
"""Share of the cell lines, those least similar to any other, that lie beyond the edge of what the model has seen."""


def fit_projector(
    log2_tpm: np.ndarray, *, platform: Platform | None = None, rank: int = RANK, rng: int = 0
) -> dict[str, np.ndarray]:
    """Learn how to project cells of any depth from the profiles of cell lines; keeps second moments, not profiles.

    Parameters
    ----------
    log2_tpm
        (L, G) log2(TPM + 1).
    platform
        How single-cell sequencing sees genes; `None` as bulk does.
    rank
        Most dimensions of a vector.
    rng
        Seed of the downsampling.

    Returns
    -------
    `line_vectors` (L, R), `loadings` (G, R), `gene_weight` and `mean_fraction` (G,); for each depth `gram`
    (K, G (G + 1) / 2) and `cross` (K, G, R), both float16; for each depth and then for bulk `center` (K + 1, G) and
    `edge` (K + 1,).
    """
    linear = np.exp2(log2_tpm.astype(np.float64)) - 1
    of_cells = linear if platform is None else linear * platform.factor
    whole = np.log2(1 + fractions(linear) * SCALE)
    weight = np.maximum(whole.std(0), 1e-2) ** -0.5
    unit = to_unit((whole - whole.mean(0)) * weight)
    rank = min(rank, *unit.shape)
    loadings = np.linalg.svd(unit, full_matrices=False)[2][:rank].T  # (G, R)
    vectors = to_unit(unit @ loadings)
    centers, grams, crosses, edges = [], [], [], []
    for i, depth in enumerate(DEPTHS):
        seen = linear if platform is None else platform.simulate(np.tile(linear, (REPEATS, 1)), rng=rng + i)
        counts = downsample(seen, depth, repeats=REPEATS if platform is None else 1, rng=rng + i)
        logged = np.log2(1 + fractions(counts) * SCALE)
        centers.append(logged.mean(0))
        logged -= centers[-1]
        gram = logged.T @ logged / len(logged)
        cross = logged.T @ np.tile(vectors, (REPEATS, 1)) / len(logged)
        grams.append(pack_symmetric(gram))
        crosses.append(cross)
        edges.append(_edge(at_most_unit(logged[: len(linear)] @ ridge(gram, cross)[0]) @ vectors.T))
    centers.append(whole.mean(0))
    edges.append(_edge(vectors @ vectors.T))
    return {
        "line_vectors": vectors.astype(np.float32),
        "loadings": loadings.astype(np.float32),
        "gene_weight": weight.astype(np.float32),
        "mean_fraction": fractions(of_cells).mean(0).astype(np.float32),
        "center": np.array(centers, dtype=np.float32),
        "gram": np.array(grams, dtype=np.float16),
        "cross": np.array(crosses, dtype=np.float16),
        "edge": np.array(edges, dtype=np.float32),
    }


def _edge(similarity: np.ndarray) -> float:
    """Similarity to the nearest other cell line that all but a tenth of cell lines reach."""
    others = np.where(np.eye(len(similarity), dtype=bool), -1, similarity).max(1)
    return float(np.quantile(others, LEAST_SIMILAR))
