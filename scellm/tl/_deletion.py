"""Do the genes that are said to matter matter? They are taken out of other cells, beside random ones of equal expression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data import Tokens

N_DRAWS = 20
"""Random sets of genes that the important ones are held against."""
NEIGHBOURS = 20
"""Genes nearest in mean expression, of which each random one is drawn."""


def without(tokens: Tokens, gene_ids: np.ndarray) -> Tokens:
    """The cells as if some genes were not expressed in them."""
    stays = ~np.isin(tokens.gene_ids, gene_ids)
    kept = np.concatenate([[0], np.cumsum(stays)])
    return Tokens(tokens.gene_ids[stays], tokens.values[stays], kept[tokens.indptr])


def matched(genes: np.ndarray, expression: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One other gene for each, near it in mean expression, none twice; fewer where there are no more.

    Parameters
    ----------
    genes
        Ids of the genes to match.
    expression
        (n_genes,) mean of each gene; those at 0 are never drawn.
    rng
        Source of chance.
    """
    is_free = expression > 0
    is_free[genes] = False
    drawn = []
    for gene in genes:
        free = np.flatnonzero(is_free)
        if not len(free):
            break
        distance = np.abs(np.log(expression[free]) - np.log(max(expression[gene], 1e-6)))
        near = free[np.argsort(distance, kind="stable")[:NEIGHBOURS]]
        drawn.append(rng.choice(near))
        is_free[drawn[-1]] = False
    return np.array(drawn, dtype=int)


def deletion(
    score: Callable[[Tokens], np.ndarray],
    tokens: Tokens,
    importance: np.ndarray,
    n_deleted: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """How far the score of cells falls without their most important genes, and without random ones.

    Parameters
    ----------
    score
        Cells -> (n,) how far each points to its type.
    tokens
        Cells that the importance was not computed from.
    importance
        (n_genes,) by vocabulary id; 0 for genes that play no part.
    n_deleted
        Genes taken out.
    rng
        Source of chance.

    Returns
    -------
    Mean `score` of the whole cells, `drop` without the important genes, mean and standard deviation over draws of
    the drop without random genes (`random_drop`, `random_drop_sd`), and `n_deleted`.
    """
    genes = np.argsort(-importance, kind="stable")[:n_deleted]
    genes = genes[importance[genes] > 0]
    expression = np.bincount(tokens.gene_ids, weights=tokens.values, minlength=len(importance)) / len(tokens)
    whole = score(tokens)
    chance = [
        float(np.nanmean(whole - score(without(tokens, matched(genes, expression, rng)))))
        for _ in range(N_DRAWS)
    ]
    return {
        "score": float(np.mean(whole)),
        "drop": float(np.nanmean(whole - score(without(tokens, genes)))),
        "random_drop": float(np.mean(chance)),
        "random_drop_sd": float(np.std(chance)),
        "n_deleted": len(genes),
    }
