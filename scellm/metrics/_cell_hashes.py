"""Marks of a measured cell that survive normalization and loss of genes: to find the same measurement twice."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from hashlib import blake2b, shake_128

import numpy as np
import scipy.sparse as sp

N_PARTS, N_USED = 48, 12
"""Genes fall into so many parts by their names, and a cell has a mark of each of the first ones. Losing a gene costs one mark."""
FEWEST = 6
"""Expressed genes in a part below which a mark says nothing: two cells may share it by chance (ours)."""
FEWEST_OF_A_SET = 20
"""Expressed genes below which a cell has no mark of its set of genes (ours)."""
NEARLY_ALL, CELLS_TO_JUDGE = 0.95, 20
"""Share of the genes from which on a cell has no mark; the fewest cells that tell which genes are measured (ours)."""
SHARED = 0.5
"""Share of its marks that a cell must have in common with one set of cells to count as one of them (ours)."""


def cell_hashes(X: sp.csr_array, genes: Sequence[str]) -> np.ndarray:
    """(n, N_USED) marks of cells, int64, 0 where a part of the genes has too few expressed ones.

    A mark is a hash of which genes of a part are expressed and how their values are ordered, ties included; scaling a
    cell or taking logarithms changes neither.

    Parameters
    ----------
    X
        (n, n_genes) expression, 0 where a gene is not expressed.
    genes
        (n_genes,) symbols.
    """
    codes = np.array([zlib.crc32(str(gene).encode()) for gene in genes], dtype=np.int64)
    part = codes % N_PARTS
    kept = np.flatnonzero(part < N_USED)
    kept = kept[np.lexsort((codes[kept], part[kept]))]
    taken = sp.csr_array(X.tocsc()[:, kept])
    taken.sort_indices()
    codes, part = codes[kept], part[kept]
    found = np.zeros((X.shape[0], N_USED), dtype=np.int64)
    for row, (start, end) in enumerate(zip(taken.indptr[:-1], taken.indptr[1:], strict=True)):
        columns, values = taken.indices[start:end], taken.data[start:end].astype(np.float32)
        columns, values = columns[values > 0], values[values > 0]
        edges = np.searchsorted(part[columns], np.arange(N_USED + 1))
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            if high - low >= FEWEST:
                _, ranks = np.unique(values[low:high], return_inverse=True)
                text = codes[columns[low:high]].tobytes() + ranks.astype(np.int16).tobytes()
                found[row, i] = int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)
    return found


def gene_set_marks(X: sp.csr_array) -> np.ndarray:
    """(n,) uint64, a mark of which genes a cell expresses; 0 for a cell with fewer than 20, or with nearly all.

    The same for counts and log values of a cell, and on any machine; another one if a gene is missing. Two cells express exactly the same
    genes by chance only where next to none are measured. In imputed or denoised data all cells express all genes: then a mark would say nothing.

    Parameters
    ----------
    X
        (n, n_genes) expression over the genes of a vocabulary, without stored zeros. Genes that none of 20 or more cells expresses count
        as not measured.
    """
    words = np.frombuffer(shake_128(b"scellm cells").digest(8 * X.shape[1]), dtype="<u8")
    found = np.zeros(X.shape[0], np.uint64)
    n_genes = np.diff(X.indptr)
    filled = np.flatnonzero(n_genes)
    if len(filled):
        found[filled] = np.add.reduceat(words[X.indices], X.indptr[filled])  # modulo 2 ** 64
    n_measured = X.shape[1]
    if X.shape[0] >= CELLS_TO_JUDGE:
        n_measured = int(np.bincount(X.indices, minlength=X.shape[1]).astype(bool).sum())
    found[(n_genes < FEWEST_OF_A_SET) | (n_genes >= NEARLY_ALL * n_measured)] = 0
    return found


def match_hashes(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(n,) row of the reference that is the same measurement as each cell of the query, -1 for none."""
    votes: list[dict[int, int]] = [{} for _ in range(len(query))]
    for i in range(query.shape[1]):
        place = {int(mark): row for row, mark in enumerate(reference[:, i]) if mark}
        for row, mark in enumerate(query[:, i]):
            if mark and (other := place.get(int(mark))) is not None:
                votes[row][other] = votes[row].get(other, 0) + 1
    n_marks = (query != 0).sum(axis=1)
    found = np.full(len(query), -1)
    for row, of_row in enumerate(votes):
        if of_row and n_marks[row] >= 2:
            best = max(of_row, key=lambda other: of_row[other])
            if of_row[best] >= max(2, SHARED * min(n_marks[row], (reference[best] != 0).sum())):
                found[row] = best
    return found
