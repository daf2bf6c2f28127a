"""Normal profiles that come with the package, for samples that hold too few normal cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ._genome import TABLES, Genome

NEAREST = 5
"""Profiles that are averaged."""
PSEUDOCOUNT = 0.5
"""Added to counts per 10,000 before a logarithm of means."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Mean expression of normal cell types over the genes of a `Genome`.

    Attributes
    ----------
    names
        (N,) type and study.
    expression
        (N, P) counts per 10,000; 0 where not measured.
    is_measured
        (N, P) whether the study measured the gene.
    """

    names: np.ndarray
    expression: np.ndarray
    is_measured: np.ndarray

    def fractions(self, genes: np.ndarray) -> np.ndarray:
        """(N, Q) fractions of each profile over `genes`; what it lacks is filled with the mean of the others."""
        known = self.is_measured[:, genes]
        expression = self.expression[:, genes].astype(np.float64)
        mean = expression.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        expression = np.where(known, expression, mean)
        return expression / expression.sum(axis=1, keepdims=True)

    def nearest(self, profiles: np.ndarray, genes: np.ndarray, *, without_itself: bool = False) -> np.ndarray:
        """What normal cells nearest to each profile express: (K, Q) fractions over `genes` -> (K, Q) fractions.

        `without_itself` leaves out profile i for row i, where the rows are those of the panel.
        """
        fractions = self.fractions(genes)
        logged = standard(np.log(1e4 * fractions + PSEUDOCOUNT))
        likeness = standard(np.log(1e4 * profiles + PSEUDOCOUNT)) @ logged.T  # (K, N)
        if without_itself:
            np.fill_diagonal(likeness, -np.inf)
        chosen = np.argsort(-likeness, axis=1, kind="stable")[:, :NEAREST]
        return fractions[chosen].mean(axis=1)

    def share(self, genes: np.ndarray) -> np.ndarray:
        """(Q,) share of the profiles that measured each gene."""
        return self.is_measured[:, genes].mean(axis=0)


def standard(rows: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and length 1, whose products are correlations."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@cache
def _stored() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    with np.load(TABLES / "normal_panel.npz", allow_pickle=False) as file:
        symbols, names, scale = file["symbols"], file["names"], float(file["scale"])
        expression = np.expm1(file["log1p"].astype(np.float32) / scale)
        measured = np.unpackbits(file["measured"], axis=1)[:, : len(symbols)].astype(bool)
    return symbols, names, expression, measured


def load_panel(genome: Genome, symbols: np.ndarray) -> Panel:
    """The shipped panel over the genes of a genome.

    Parameters
    ----------
    genome
        Genes.
    symbols
        (n_genes,) of the vocabulary.
    """
    stored, names, expression, measured = _stored()
    column = {symbol: i for i, symbol in enumerate(stored.tolist())}
    at = np.array([column.get(str(symbols[i]), -1) for i in genome.ids])
    is_there = at >= 0
    values = np.zeros((len(names), len(genome)), dtype=np.float32)
    known = np.zeros((len(names), len(genome)), dtype=bool)
    values[:, is_there] = expression[:, at[is_there]]
    known[:, is_there] = measured[:, at[is_there]]
    return Panel(names, values, known)
