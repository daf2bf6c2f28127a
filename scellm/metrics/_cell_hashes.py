"""Marks of a measured cell that survive normalization and loss of genes: to find the same measurement twice."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import scipy.sparse as sp

N_PARTS, N_USED = 48, 12
"""Genes fall into so many parts by their names, and a cell has a mark of each of the first ones. Losing a gene costs one mark."""
FEWEST = 6
"""Expressed genes in a part below which a mark says nothing: two cells may share it by chance (ours)."""
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
