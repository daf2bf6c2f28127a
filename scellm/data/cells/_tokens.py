"""Expression rows -> gene ids, values and lengths, vectorised over the sparse arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

MAX_CONTEXT = 10_000_000
"""Genes of the longest cell that can be asked for."""


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """How a checkpoint wants its cells read.

    Parameters
    ----------
    target_sum
        Counts per cell after normalization, over the vocabulary genes; then ln(1 + x). 1e4 as in the paper.
    max_genes
        Longest cell the encoder is given; longer ones are truncated.
    truncation
        Which genes of a longer cell stay. `"highest"`: the most expressed, the first in vocabulary order
        among equals (ours). `"first"`: the first in vocabulary order, as published.
    """

    target_sum: float = 1e4
    max_genes: int = 2048
    truncation: Literal["highest", "first"] = "highest"

    def __post_init__(self) -> None:
        is_number = isinstance(self.target_sum, Real) and not isinstance(self.target_sum, bool)
        if not is_number or not 0 < self.target_sum < np.inf:
            msg = f"target_sum is {self.target_sum!r}; it must be a positive number."
            raise ValueError(msg)
        is_whole = isinstance(self.max_genes, Integral) and not isinstance(self.max_genes, bool)
        if not is_whole or not 1 <= self.max_genes <= MAX_CONTEXT:
            msg = f"max_genes is {self.max_genes!r}; it must be a whole number from 1 to {MAX_CONTEXT:,}."
            raise ValueError(msg)
        if self.truncation not in ("highest", "first"):
            msg = f"truncation is {self.truncation!r}; choose 'highest' or 'first'."
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Fields as a plain dictionary, for `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TokenConfig:
        """Build from a dictionary.

        Raises
        ------
        ValueError
            Unknown fields.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            msg = f"Unknown token fields {unknown}. Known: {sorted(known)}."
            raise ValueError(msg)
        return cls(**fields)


@dataclass(frozen=True)
class Tokens:
    """Cells as packed rows of gene ids and values.

    Cell i owns `gene_ids[indptr[i] : indptr[i + 1]]`, in vocabulary order, and the same slice of `values`.
    """

    gene_ids: np.ndarray
    """(n_tokens,) int32."""
    values: np.ndarray
    """(n_tokens,) float32, ln(1 + counts per `target_sum`)."""
    indptr: np.ndarray
    """(n_cells + 1,) int64."""
    n_truncated: int = 0
    """Cells that had more than `max_genes` expressed genes."""

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n_cells,) expressed genes per cell."""
        return np.diff(self.indptr)

    def __getitem__(self, rows: np.ndarray) -> Tokens:
        """Some cells, packed."""
        lengths = self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        source = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Tokens(self.gene_ids[source], self.values[source], indptr)

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Some cells as rectangles: gene ids (B, G) int64, values (B, G) float32, is_gene (B, G) bool."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=0))
        is_gene = columns < lengths[:, None]
        source = np.where(is_gene, self.indptr[rows][:, None] + columns, 0)
        if not len(self.values):  # nothing but empty cells
            return source, source.astype(np.float32), is_gene
        return self.gene_ids[source].astype(np.int64), np.where(is_gene, self.values[source], 0), is_gene

    def arrays(self, rows: np.ndarray, *, is_packed: bool) -> dict[str, np.ndarray]:
        """Some cells as the encoder takes them: packed, or as rectangles."""
        if not is_packed:
            return dict(zip(("gene_ids", "values", "is_gene"), self.padded(rows), strict=True))
        some = self[rows]
        return {"gene_ids": some.gene_ids.astype(np.int64), "values": some.values, "indptr": some.indptr}

    def batches(self, tokens_per_batch: int, *, cells_per_batch: int | None = None) -> Iterator[np.ndarray]:
        """Rows of cells with at least one gene, longest first, as many at once as the budget of positions holds.

        Longest first, so that a batch too large for the memory shows at once.
        """
        order = np.argsort(-self.lengths, kind="stable")
        order = order[self.lengths[order] > 0]
        start = 0
        while start < len(order):
            size = max(1, tokens_per_batch // int(self.lengths[order[start]]))
            size = size if cells_per_batch is None else cells_per_batch
            yield order[start : start + size]
            start += size


def gene_counts(
    rows: sp.csr_matrix | sp.csr_array | np.ndarray,
    gene_ids: np.ndarray,
    n_genes: int,
    linearize: Callable[[np.ndarray], np.ndarray] | None = None,
) -> sp.csr_array:
    """Linear expression of the vocabulary genes, (B, n_genes) CSR float32, sorted, without stored zeros.

    Parameters
    ----------
    rows
        (B, n_vars) expression.
    gene_ids
        (n_vars,) vocabulary id of each column; -1 leaves a column out, columns with one id are summed.
    n_genes
        Size of the vocabulary.
    linearize
        Takes stored values to linear scale; `None` for values that are linear already.
    """
    rows = sp.csr_array(rows, dtype=np.float32)  # a copy where the type differs; never written to below
    if linearize is not None:
        data = np.asarray(linearize(rows.data), dtype=np.float32)
        rows = sp.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)
    kept = np.flatnonzero(gene_ids >= 0)
    if np.bincount(gene_ids[kept]).max(initial=0) <= 1 and rows.has_canonical_format:
        counts = _renumber(rows, gene_ids, n_genes)
    else:
        ones = np.ones(len(kept), dtype=np.float32)
        selector = sp.csr_array((ones, (kept, gene_ids[kept])), shape=(len(gene_ids), n_genes))
        counts = sp.csr_array(rows @ selector)
        counts.eliminate_zeros()
    # two transpositions sort twice as fast as `sort_indices`
    return counts if counts.has_sorted_indices else counts.tocsc().tocsr()


def _renumber(rows: sp.csr_array, gene_ids: np.ndarray, n_genes: int) -> sp.csr_array:
    """`gene_counts` where no two entries are of one gene, not sorted yet: nothing to add up, so no product."""
    indices = gene_ids.astype(np.int32)[rows.indices]
    kept = (indices >= 0) & (rows.data != 0)
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    return sp.csr_array((rows.data[kept], indices[kept], indptr), shape=(rows.shape[0], n_genes))


def log_normalize(counts: sp.csr_array, target_sum: float | None) -> sp.csr_array:
    """ln(1 + x * target_sum / sum of the cell), or ln(1 + x) if `target_sum` is `None`."""
    scale = np.ones(counts.shape[0], dtype=np.float64)
    if target_sum is not None:
        totals = counts.sum(1, dtype=np.float64)
        np.divide(target_sum, totals, out=scale, where=totals > 0)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr))).astype(np.float32)
    return sp.csr_array((data, counts.indices, counts.indptr), shape=counts.shape)


def tokenize(
    rows: sp.csr_matrix | sp.csr_array | np.ndarray,
    gene_ids: np.ndarray,
    n_genes: int,
    config: TokenConfig,
    *,
    linearize: Callable[[np.ndarray], np.ndarray] | None = None,
    normalize: bool = True,
) -> Tokens:
    """Turn expression rows into tokens.

    Parameters
    ----------
    rows
        (B, n_vars) expression, sparse or dense.
    gene_ids
        (n_vars,) vocabulary id of each column, -1 for columns outside the vocabulary.
    n_genes
        Size of the vocabulary.
    config
        The scale and length the checkpoint wants.
    linearize
        Takes stored values to linear scale; `None` for linear values.
    normalize
        Scale every cell to `config.target_sum`; `False` for values that are at that scale already.

    Returns
    -------
    The cells' tokens in the order of `rows`, genes in vocabulary order.
    """
    counts = gene_counts(rows, gene_ids, n_genes, linearize)
    return as_tokens(log_normalize(counts, config.target_sum if normalize else None), config)


def as_tokens(values: sp.csr_array, config: TokenConfig) -> Tokens:
    """Tokens of (B, n_genes) log values at the scale of a checkpoint, sorted, without stored zeros."""
    kept, indptr, n_truncated = _truncate(values, config)
    return Tokens(
        gene_ids=values.indices[kept].astype(np.int32),
        values=values.data[kept],
        indptr=indptr,
        n_truncated=n_truncated,
    )


def _truncate(values: sp.csr_array, config: TokenConfig) -> tuple[slice | np.ndarray, np.ndarray, int]:
    """Which stored values stay (a slice or an ascending index), the new row pointer, and the cells cut."""
    lengths = np.diff(values.indptr)
    is_long = lengths > config.max_genes
    indptr = values.indptr.astype(np.int64)
    if not is_long.any():
        return slice(None), indptr, 0
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.arange(len(row_of)) - indptr[row_of]  # place within the cell, in vocabulary order
    if config.truncation == "highest":
        among_long = np.flatnonzero(is_long[row_of])
        order = among_long[np.lexsort((rank[among_long], -values.data[among_long], row_of[among_long]))]
        rank[order] = rank[among_long].copy()  # both lists run cell by cell
    kept = np.flatnonzero(rank < config.max_genes)
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, config.max_genes))])
    return kept, indptr, int(is_long.sum())
