"""Cells that should not be read as what they seem: those of another species in a table of several."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..genes._gene_match import GeneMatch
from ._values import ValueReport


def foreign_cells(rows: sp.csr_array, is_foreign: np.ndarray, is_other: np.ndarray) -> np.ndarray:
    """Which cells have most of their counts in columns of another species, (B,) bool.

    Parameters
    ----------
    rows
        (B, n_vars) linear expression.
    is_foreign
        (n_vars,) bool, genes of another species.
    is_other
        (n_vars,) bool, columns that are not genes and do not count.
    """
    foreign = np.asarray(rows @ is_foreign.astype(np.float64)).ravel()
    own = np.asarray(rows @ (~is_foreign & ~is_other).astype(np.float64)).ravel()
    return foreign > own


def empty_rows(rows: sp.csr_array, is_out: np.ndarray) -> sp.csr_array:
    """A copy in which some rows, (B,) bool, hold nothing."""
    lengths = np.diff(rows.indptr)
    kept = np.repeat(~is_out, lengths)
    indptr = np.concatenate([[0], np.cumsum(np.where(is_out, 0, lengths))])
    return sp.csr_array((rows.data[kept], rows.indices[kept], indptr), shape=rows.shape)


class SpeciesCheck:
    """Empties the rows of cells of another species, block by block, and counts them.

    Such cells would be read by the few stray counts that fell on genes of the model's species.

    Parameters
    ----------
    match
        The genes, with `is_foreign`.
    values
        What the values are: shares are taken of linear ones.
    """

    def __init__(self, match: GeneMatch, values: ValueReport) -> None:
        self.n_foreign = 0
        self._match, self._values = match, values
        self._needed = bool(match.is_foreign.any()) and values.usable

    def keep(self, rows: sp.csr_array) -> sp.csr_array:
        """The (B, n_vars) rows as stored, those of cells of another species empty."""
        if not self._needed:
            return rows
        linear = sp.csr_array(
            (self._values.linearize(rows.data), rows.indices, rows.indptr), shape=rows.shape
        )
        is_out = foreign_cells(linear, self._match.is_foreign, self._match.is_other)
        if not is_out.any():
            return rows
        self.n_foreign += int(is_out.sum())
        return empty_rows(rows, is_out)

    def message(self, where: str, n_obs: int) -> str:
        """What was found, and how to read the other species' cells."""
        others = ", ".join(repr(name) for name in self._match.names[self._match.is_foreign][:2].tolist())
        return (
            f"{self.n_foreign} of {n_obs} cells in `{where}` have most of their counts in {int(self._match.is_foreign.sum())} "
            f"columns of another species (such as {others}; the others are read as {self._match.organism}): they are cells of "
            "that species, and have no result. For mouse cells, pass the columns of mouse alone."
        )
