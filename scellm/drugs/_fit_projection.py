"""Fit the projection of cells to cell lines, at each depth."""

from __future__ import annotations

import numpy as np

from ._profiles import DEPTHS, Platform, at_most_unit, downsample, fractions, log_fractions, to_unit
from ._projection import reader_of

FEWEST_COPIES = 200
"""Downsampled profiles that a projection is fitted on at least; few cell lines are repeated."""
RANK = 256
"""Dimensions of a cell line's vector."""
LEAST_SIMILAR = 0.1
"""Share of the cell lines, those least similar to any other, that lie beyond the edge of what the model has seen."""


def fit_projector(
    log2_tpm: np.ndarray, *, platform: Platform | None = None, rank: int = RANK, rng: int = 0
) -> dict[str, np.ndarray]:
    """Learn how to project cells of any depth from the profiles of cell lines; keeps moments, not profiles.

    A gene of a cell is its mean over cell lines, plus a gain times what the cell line's vector says of the gene in bulk,
    plus noise of the gene's own (factor analysis); gain and noise belong to the depth.

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
    `line_vectors` (L, R), `loadings` and `signal` (G, R), `prior` (R,), `gene_weight` and `mean_fraction` (G,); for each depth
    `gain` and `noise` (K, G); for each depth and then for bulk `center` (K + 1, G) and `edge` (K + 1,).
    """
    linear = np.exp2(log2_tpm.astype(np.float64)) - 1
    of_cells = linear if platform is None else linear * platform.factor
    whole = log_fractions(linear, 1.0).astype(np.float64)
    weight = np.maximum(whole.std(0), 1e-2) ** -0.5
    unit = to_unit((whole - whole.mean(0)) * weight)
    rank = min(rank, *unit.shape)
    loadings = principal_axes(unit, rank)  # (G, R)
    vectors = unit @ loadings
    prior = (vectors**2).mean(0)
    moments = vectors.T @ vectors / len(vectors) + 1e-3 * prior.max() * np.eye(rank)
    signal = np.linalg.solve(moments, vectors.T @ (whole - whole.mean(0)) / len(vectors)).T  # (G, R)
    statistics = {
        "line_vectors": vectors.astype(np.float32),
        "loadings": loadings.astype(np.float16),
        "signal": signal.astype(np.float16),
        "prior": prior.astype(np.float32),
        "gene_weight": weight.astype(np.float32),
        "mean_fraction": fractions(of_cells).mean(0).astype(np.float32),
    }
    repeats = -(-FEWEST_COPIES // len(linear))
    expected = np.tile(vectors, (repeats, 1)) @ signal.T
    centers, gains, noises, edges = [], [], [], []
    for i, depth in enumerate(DEPTHS):
        seen = linear if platform is None else platform.simulate(np.tile(linear, (repeats, 1)), rng=rng + i)
        counts = downsample(seen, depth, repeats=repeats if platform is None else 1, rng=rng + i)
        logged = log_fractions(counts, 1.0).astype(np.float64)
        centers.append(logged.mean(0))
        logged -= centers[-1]
        power = (expected**2).mean(0)
        gains.append((logged * expected).mean(0) / (power + 1e-3 * power.mean()))
        noises.append(np.maximum(((logged - expected * gains[-1]) ** 2).mean(0), 1e-4))
        linear_map, _ = reader_of(signal * gains[-1][:, None], noises[-1], prior)
        edges.append(_edge(at_most_unit(logged[: len(linear)] @ linear_map) @ to_unit(vectors).T))
    return statistics | {
        "center": np.array([*centers, whole.mean(0)], dtype=np.float32),
        "gain": np.array(gains, dtype=np.float32),
        "noise": np.array(noises, dtype=np.float32),
        "edge": np.array([*edges, _edge(vectors @ to_unit(vectors).T)], dtype=np.float32),
    }


def principal_axes(rows: np.ndarray, rank: int) -> np.ndarray:
    """(G, R) leading right singular vectors of fewer rows than columns, (L, G), by way of their inner products."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    return rows.T @ (vectors / np.sqrt(np.maximum(values, 1e-12 * values[0])))


def _edge(similarity: np.ndarray) -> float:
    """Similarity to the nearest other cell line that all but a tenth of cell lines reach."""
    others = np.where(np.eye(len(similarity), dtype=bool), -1, similarity).max(1)
    return float(np.quantile(others, LEAST_SIMILAR))
