"""Logistic regression on genes with the tree of the reference and labels of any depth, a baseline and part of what ships;
and how its scores, those of the embedding and those of neighbors go together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from _annotation_methods import variable

from scellm.annotation._fit_tree import allowed_classes, balanced
from scellm.annotation._gene_head import GeneHead
from scellm.annotation._neighbors import Neighborhood
from scellm.annotation._smoothing import Smoothing
from scellm.annotation._softmax import fit_softmax
from scellm.annotation._tree import Tree

PENALTY = 0.1
"""C; see the page of the studies left out for others."""
MOST = 20
"""Cells of a label to learn from, drawn once."""
ITERATIONS = 60
N_GENES = 1_000
GENES_WEIGH = 0.5
"""What the scores of genes weigh beside those of the embedding; chosen on studies left out, as the page of these shows."""


N_NEIGHBORS, NEIGHBORS_WEIGH = 15, 0.5
"""Of the cells near a cell in its study; chosen on studies left out, too."""


@dataclass
class GenesOnTree:
    """A fitted head, and the columns of its genes."""

    columns: np.ndarray
    head: GeneHead

    def logits(self, X: sp.csr_array, has: np.ndarray) -> np.ndarray:
        """(n, K) from (n, n_genes) log values and whether each gene is measured, of each cell or of all."""
        return self.head.logits(X[:, self.columns], has[..., self.columns])

    def named(self, symbols: np.ndarray, temperature: float, joint: float) -> GeneHead:
        """The head as it ships, its scores such that the embedding keeps its own temperature.

        Parameters
        ----------
        symbols
            (n_genes,) names of the columns.
        temperature
            Of the embedding alone.
        joint
            Of the two together, weighed by `GENES_WEIGH`.
        """
        times = np.float32(GENES_WEIGH * temperature / joint)
        return replace(
            self.head,
            genes=[str(x) for x in symbols[self.columns]],
            weight=times * self.head.weight,
            bias=times * self.head.bias,
            kept=(1 - GENES_WEIGH) * temperature / joint,
        )


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
    columns, classes = genes[spread], len(tree.node_of_class)
    head = GeneHead(
        genes=[str(x) for x in columns],
        centre=mean[spread].astype(np.float32),
        scale=scale[spread].astype(np.float32),
        weight=np.zeros((classes, len(columns)), np.float32),
        bias=np.zeros(classes, np.float32),
        kept=0.0,
    )
    weight, bias = fit_softmax(
        head.standardize(X[:, columns], has[:, columns]),
        allowed_classes(tree, nodes),
        balanced(nodes, studies),
        penalty,
        iterations=ITERATIONS,
    )
    return GenesOnTree(columns, replace(head, weight=weight, bias=bias))


def together(
    embedding: np.ndarray,
    genes: np.ndarray,
    share: np.ndarray | float = 1.0,
    weight: float = GENES_WEIGH,
) -> np.ndarray:
    """(n, K) scores of both; `share` of the genes that the cells have, (n, 1) or of all."""
    weigh = weight * np.sqrt(share)
    return (1 - weigh) * embedding + weigh * np.maximum(genes, -1e4)


def neighbors_said(
    vectors: np.ndarray, own: np.ndarray, studies: np.ndarray, smoothing: Smoothing
) -> np.ndarray:
    """(n, K) scores, before their temperature, of cells and those near them in their study."""
    found = np.zeros_like(own)
    for study in np.unique(studies):
        here = np.flatnonzero(studies == study)
        around = Neighborhood.of(
            vectors[here], np.ones(len(here), bool), smoothing, lambda rows, here=here: own[here[rows]]
        )
        near = own[here] if around is None else around.around(vectors[here], np.arange(len(here)))
        found[here] = smoothing.logits(own[here], near)
    return found


def some_of_each(nodes: np.ndarray, rng: np.random.Generator, most: int = MOST) -> np.ndarray:
    """Rows, at most so many of each node."""
    return np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(nodes == node))[:most] for node in np.unique(nodes)])
    )
