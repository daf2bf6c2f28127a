"""Directions of genes taken from the corpus: principal components within datasets, and what tells cell types apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from ..data import log_normalize
from ..nn import CellLMConfig
from ..nn._encoder import ContinuousExpression

N_COMPONENTS = 512
"""Principal components within which discriminants are sought."""
FAINT = 1e-3
"""Size of directions the corpus does not have, relative to the others."""


def bag_values(
    counts: sp.csr_array, config: CellLMConfig, target_sum: float, gain: np.ndarray
) -> sp.csr_array:
    """What a bag of genes multiplies its gene embeddings with, (n_cells, n_genes) float32.

    Parameters
    ----------
    counts
        (n_cells, n_genes) linear expression.
    config
        Encoder with `expression="continuous"`: scale of the amounts, and how they are pooled.
    target_sum
        Counts per cell after normalization.
    gain
        (n_genes,) factor of expression, as in the encoder.
    """
    values = log_normalize(counts, target_sum)
    amount = np.sqrt(np.expm1(values.data)) if config.amount == "sqrt" else values.data
    amount = np.minimum(amount * gain[values.indices], ContinuousExpression.MAX[config.amount])
    lengths = np.diff(values.indptr)
    if config.has_unit_amounts:
        cell = np.repeat(np.arange(len(lengths)), lengths)
        size = np.sqrt(np.bincount(cell, weights=amount.astype(np.float64) ** 2, minlength=len(lengths)))
    else:
        size = lengths
    amount = amount / np.repeat(np.where(lengths > 0, size, 1), lengths)
    return sp.csr_array((amount.astype(np.float32), values.indices, values.indptr), shape=values.shape)


def gene_loadings(
    corpus: Mapping[str, sp.csr_array],
    dim: int,
    target_sum: float,
    *,
    gain: np.ndarray,
    config: CellLMConfig | None = None,
    seed: int = 0,
    n_rounds: int = 4,
) -> np.ndarray:
    """Loadings of genes on the principal components within datasets, (n_genes, dim).

    What a bag of genes with these embeddings computes is a principal component analysis of all datasets together, with
    the mean of each taken out, so that differences between studies do not count. Every dataset weighs the same.
    Components are scaled by 1 / sqrt(singular value), half-way to equal spread.

    Parameters
    ----------
    corpus
        (n_cells, n_genes) linear expression of each dataset.
    dim
        Number of components, at most that of genes.
    target_sum
        Counts per cell after normalization.
    gain
        (n_genes,) factor of expression, as in the encoder.
    config
        The encoder: scale of expression and pooling. `None` is the mean of log1p expression.
    seed
        Of the random directions it starts from.
    n_rounds
        Rounds of the iteration.
    """
    values = _values(corpus, config, target_sum, gain)
    directions, spread = _components(values, dim, seed=seed, n_rounds=n_rounds)
    return _filled(directions / np.sqrt(spread), dim, seed)


def gene_discriminants(
    corpus: Mapping[str, sp.csr_array],
    labels: Mapping[str, np.ndarray],
    dim: int,
    target_sum: float,
    *,
    gain: np.ndarray,
    config: CellLMConfig | None = None,
    ridge: float = 0.1,
    n_components: int = N_COMPONENTS,
    seed: int = 0,
    n_rounds: int = 3,
) -> np.ndarray:
    """Directions of genes that tell cell types of one dataset apart best, (n_genes, dim).

    Fisher's linear discriminants within the leading principal components: directions are scaled so that cells of one
    type of one dataset spread equally along all of them, and those along which types differ most come first. With S_w
    the covariance within types, averaged over datasets with weight sqrt(n), and S_b that of the types around the mean
    type of their dataset, averaged over types, they solve S_b v = lambda (S_w + ridge * mean variance) v.

    Parameters
    ----------
    corpus
        (n_cells, n_genes) linear expression of each dataset.
    labels
        (n_cells,) cell type of each cell; "" is unknown.
    dim
        Number of directions.
    target_sum, gain, config
        As in `gene_loadings`.
    ridge
        Share of the mean variance added to that within types: as if directions of little spread had more. 0.1 was
        best on labeled sets that were left out (ours).
    n_components
        Principal components that are looked at.
    seed, n_rounds
        As in `gene_loadings`.

    Raises
    ------
    ValueError
        No dataset has two labeled types.
    """
    features = _values(corpus, config, target_sum, gain)
    components, _ = _components(features, max(n_components, dim), seed=seed, n_rounds=n_rounds)
    within, between = np.zeros((2, components.shape[1], components.shape[1]))
    weight, n_types = 0.0, 0
    for name, values in features.items():
        is_known = labels[name] != ""
        types, kind, size = np.unique(labels[name][is_known], return_inverse=True, return_counts=True)
        if len(types) < 2:
            continue
        scores = (values[is_known] @ components).astype(np.float64)
        means = np.zeros((len(types), scores.shape[1]))
        np.add.at(means, kind, scores)
        means /= size[:, None]
        rest = scores - means[kind]
        within += rest.T @ rest / np.sqrt(len(rest))
        weight += np.sqrt(len(rest))
        means -= means.mean(0)
        between += means.T @ means
        n_types += len(types) - 1
    if not n_types:
        msg = "No dataset has two labeled cell types; discriminants need some. gene_init='pca' needs none."
        raise ValueError(msg)
    within /= weight
    between /= n_types
    spread, turn = np.linalg.eigh(within + ridge * np.trace(within) / len(within) * np.eye(len(within)))
    whiten = turn / np.sqrt(spread)
    _, directions = np.linalg.eigh(whiten.T @ between @ whiten)
    return _filled((components @ (whiten @ directions[:, ::-1][:, :dim])).astype(np.float32), dim, seed)


def _values(
    corpus: Mapping[str, sp.csr_array], config: CellLMConfig | None, target_sum: float, gain: np.ndarray
) -> dict[str, sp.csr_array]:
    """`bag_values` of each dataset."""
    if config is None:
        config = CellLMConfig(n_genes=len(gain), expression="continuous", cell_embedding="mean")
    return {name: bag_values(counts, config, target_sum, gain) for name, counts in corpus.items()}


def _filled(directions: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """(n_genes, dim): the directions, and faint random ones where the corpus has too few."""
    n_genes, found = directions.shape
    size = FAINT * np.sqrt(np.mean(directions**2))
    loadings = np.random.default_rng(seed).standard_normal((n_genes, dim)).astype(np.float32) * size
    loadings[:, :found] = directions[:, :dim]
    return loadings.astype(np.float32)


def _components(
    corpus: Mapping[str, sp.csr_array], n: int, *, seed: int, n_rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Leading principal axes within datasets, (n_genes, <= n) orthonormal, and their spread.

    By randomized subspace iteration over the sparse values :cite:p:`Halko2011`.
    """
    sizes = np.array([values.shape[0] for values in corpus.values()])
    starts, of = np.cumsum([0, *sizes[:-1]]), np.repeat(np.arange(len(sizes)), sizes)
    cells = sp.csr_array(sp.vstack(list(corpus.values()), format="csr"))
    cells.data *= np.repeat(1 / np.sqrt(sizes[of]), np.diff(cells.indptr)).astype(
        np.float32
    )  # datasets alike
    means = np.array([values.mean(0) for values in corpus.values()], dtype=np.float32)
    means /= np.sqrt(sizes)[:, None].astype(np.float32)
    genes = cells.T  # the same arrays, read the other way

    def project(directions: np.ndarray) -> np.ndarray:
        return cells @ directions - (means @ directions)[of]

    def project_back(scores: np.ndarray) -> np.ndarray:
        return genes @ scores - means.T @ np.add.reduceat(scores, starts, axis=0)

    rng = np.random.default_rng(seed)
    n_directions = min(n + 20, *cells.shape)
    directions = rng.standard_normal((cells.shape[1], n_directions)).astype(np.float32)
    for _ in range(n_rounds):
        directions = np.linalg.qr(project_back(np.linalg.qr(project(directions)).Q)).Q
    _, spread, turn = np.linalg.svd(project(directions), full_matrices=False)
    kept = min(n, int((spread > 1e-6 * spread[0]).sum()))
    return (directions @ turn.T)[:, :kept].astype(np.float32), spread[:kept].astype(np.float32)
