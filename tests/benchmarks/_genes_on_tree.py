"""The baseline of the reference: logistic regression on genes, with the same tree and labels of any depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from _annotation_methods import variable

from scellm.annotation._fit_tree import allowed_classes, balanced
from scellm.annotation._softmax import fit_softmax
from scellm.annotation._tree import Tree

PENALTY = 0.1
"""C; see the page of the studies left out for others."""
MOST = 20
"""Cells of a label to learn from, drawn once."""
ITERATIONS = 60
N_GENES = 1_000
GENES_WEIGH = 0.5
"""Weight of these scores in a mean with those of the embedding."""


@dataclass
class GenesOnTree:
    """A fitted baseline; genes that are not measured count as the mean of the training cells."""

    genes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def standardize(self, X: sp.csr_array, has: np.ndarray) -> np.ndarray:
        """(n, n_chosen) from (n, n_genes) log values and whether each gene is measured, of each cell or of all."""
        values = (X[:, self.genes].toarray() - self.mean) / self.scale
        return np.where(has[..., self.genes], np.clip(values, -10, 10), 0).astype(np.float32)

    def logits(self, X: sp.csr_array, has: np.ndarray) -> np.ndarray:
        """(n, K)."""
        return self.standardize(X, has) @ self.weight.T + self.bias


def fit_genes(
    X: sp.csr_array,
    has: np.ndarray,
    nodes: np.ndarray,
    studies: np.ndarray,
    tree: Tree,
    *,
    n_genes: int = N_GENES,
    penalty: float = PENALTY,
) -> GenesOnTree:
    """Fit as the shipped head is fitted, on the most variable genes instead of the embedding."""
    genes = variable(sp.csr_matrix(X))
    dense = X[:, genes].toarray()
    measured = has[:, genes]
    n = np.maximum(measured.sum(axis=0), 1)
    mean = (dense * measured).sum(axis=0) / n
    scale = np.sqrt((((dense - mean) * measured) ** 2).sum(axis=0) / n) + 1e-6
    spread = np.argsort(-scale)[:n_genes]
    found = GenesOnTree(genes[spread], mean[spread], scale[spread], np.zeros(0), np.zeros(0))
    found.weight, found.bias = fit_softmax(
        found.standardize(X, has),
        allowed_classes(tree, nodes),
        balanced(nodes, studies),
        penalty,
        iterations=ITERATIONS,
    )
    return found


def together(
    embedding: np.ndarray,
    genes: np.ndarray,
    share: np.ndarray | float = 1.0,
    weight: float = GENES_WEIGH,
) -> np.ndarray:
    """(n, K) mean of both scores; `share` of the genes that the cells have, (n, 1) or of all."""
    weigh = weight * np.sqrt(share)
    return (1 - weigh) * embedding + weigh * np.maximum(genes, -1e4)


def some_of_each(nodes: np.ndarray, rng: np.random.Generator, most: int = MOST) -> np.ndarray:
    """Rows, at most so many of each node."""
    return np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(nodes == node))[:most] for node in np.unique(nodes)])
    )
