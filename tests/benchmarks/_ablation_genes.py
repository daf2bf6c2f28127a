"""Gene embeddings from what is known of genes, for `ablation.py`: a protein network, bulk expression, nothing."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from scellm.data import GeneVocabulary

FAINT = 1e-3
"""Spread of genes that the source lacks, relative to those it has: they start nearly at zero."""


def random_embedding(n_genes: int, dim: int, seed: int) -> np.ndarray:
    """Normal numbers, (n_genes, dim)."""
    return np.random.default_rng([seed, 11]).standard_normal((n_genes, dim)).astype(np.float32)


def string_embedding(path: Path, vocabulary: GeneVocabulary, dim: int) -> np.ndarray:
    """Leading eigenvectors of the degree-normalized STRING network, times the root of their eigenvalue.

    (n_genes, dim). The first one, which is the degree alone, is left out.
    """
    edges = pd.read_csv(path, sep="\t")
    names = pd.unique(edges[["symbol_a", "symbol_b"]].astype(str).to_numpy().ravel())
    gene_of = pd.Series(vocabulary.match(names).ids, index=names)
    a, b = (gene_of[edges[column].astype(str)].to_numpy() for column in ("symbol_a", "symbol_b"))
    known = (a >= 0) & (b >= 0)
    a, b, score = a[known], b[known], edges["score"].to_numpy(np.float64)[known] / 1000
    n_genes = len(vocabulary)
    network = sp.coo_array((np.tile(score, 2), (np.r_[a, b], np.r_[b, a])), shape=(n_genes, n_genes)).tocsr()
    degree = network.sum(1)
    scale = sp.diags_array(1 / np.sqrt(np.maximum(degree, 1e-12)) * (degree > 0))
    _, size, turn = randomized_svd(scale @ network @ scale, dim + 1, n_iter=8, random_state=0)
    return _filled(turn[1:].T * np.sqrt(size[1:]), degree > 0)


def bulk_embedding(tissues: Path, lines: Path, vocabulary: GeneVocabulary, dim: int) -> np.ndarray:
    """Loadings of genes over bulk samples: tissues, sorted blood, cell lines, and the NCI-60 panel. (n_genes, dim).

    Genes are standardized within each source; loadings are scaled as in `train.gene_loadings`.
    """
    profiles = ad.read_h5ad(tissues)
    log_cp10k = np.log1p(np.expm1(profiles.X.astype(np.float64) / profiles.uns["scale"]) / 50)
    parts = [
        _standard(log_cp10k[rows], vocabulary.match(profiles.var_names).ids, len(vocabulary))
        for rows in profiles.obs.groupby("dataset", observed=True).indices.values()
    ]
    panel = ad.read_h5ad(lines)
    values = np.asarray(panel.X, dtype=np.float64)
    parts.append(_standard(values, vocabulary.match(panel.var_names).ids, len(vocabulary)))
    _, size, turn = np.linalg.svd(np.concatenate(parts), full_matrices=False)
    turn, size = turn[:dim], size[:dim]
    return _filled(turn.T / np.sqrt(size), np.abs(turn).sum(0) > 0)


def _standard(values: np.ndarray, gene_ids: np.ndarray, n_genes: int) -> np.ndarray:
    """(n_samples, n_genes) z-scores over the vocabulary, zero where not measured; each source weighs the same."""
    values = values[:, gene_ids >= 0]
    gene_ids = gene_ids[gene_ids >= 0]
    is_measured = np.isfinite(values).any(0)
    values, gene_ids = values[:, is_measured], gene_ids[is_measured]
    spread = np.nanstd(values, axis=0)
    scored = np.nan_to_num((values - np.nanmean(values, axis=0)) / np.where(spread > 1e-6, spread, np.inf))
    result = np.zeros((len(values), n_genes))
    result[:, gene_ids] = scored
    return result / np.sqrt(len(values))


def _filled(found: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Faint random directions for genes the source does not have."""
    faint = random_embedding(*found.shape, seed=0) * FAINT * np.sqrt(np.mean(found[is_known] ** 2))
    return np.where(is_known[:, None], found, faint).astype(np.float32)
