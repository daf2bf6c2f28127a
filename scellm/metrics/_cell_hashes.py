"""Marks of a measured cell that survive normalization and loss of genes: to find the same measurement twice."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
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
    codes = _codes_of(tuple(map(str, genes)))
    part = codes % N_PARTS
    kept = np.flatnonzero(part < N_USED)
    kept = kept[np.lexsort((codes[kept], part[kept]))]
    taken = sp.csr_array(X.tocsc()[:, kept])
    taken.sort_indices()
    codes, part = codes[kept], part[kept]
    values = taken.data.astype(np.float32)
    is_there = values > 0
    values, columns = values[is_there], taken.indices[is_there]
    rows = np.repeat(np.arange(X.shape[0]), np.diff(taken.indptr))[is_there]
    place = rows * N_USED + part[columns]  # rising, as columns are sorted by part
    ranks = _dense_ranks(values, place)
    codes = codes[columns]
    edges = np.searchsorted(place, np.arange(X.shape[0] * N_USED + 1))
    found = np.zeros(X.shape[0] * N_USED, dtype=np.int64)
    for i in np.flatnonzero(np.diff(edges) >= FEWEST):
        low, high = edges[i], edges[i + 1]
        text = codes[low:high].tobytes() + ranks[low:high].tobytes()
        found[i] = int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)
    return found.reshape(X.shape[0], N_USED)


@lru_cache(2)
def _codes_of(genes: tuple[str, ...]) -> np.ndarray:
    """(n_genes,) numbers of symbols, the same everywhere."""
    return np.array([zlib.crc32(gene.encode()) for gene in genes], dtype=np.int64)


def _dense_ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) int16, how many other values of its group are smaller; equal ones count once. Groups rise."""
    order = np.lexsort((values, groups))
    is_first = np.diff(groups[order], prepend=-1) > 0
    is_new = is_first | (np.diff(values[order], prepend=-np.inf) > 0)
    number = np.cumsum(is_new)
    ranks = np.empty(len(values), np.int16)
    ranks[order] = number - number[is_first][np.cumsum(is_first) - 1]
    return ranks


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
    found, hits = np.full(len(query), -1), np.full(query.shape, -1)
    if not len(reference):
        return found
    for i in range(query.shape[1]):
        order = np.argsort(reference[:, i], kind="stable")
        at = order[np.searchsorted(reference[order, i], query[:, i], side="right") - 1]
        is_same = (query[:, i] != 0) & (reference[at, i] == query[:, i])
        hits[is_same, i] = at[is_same]
    n_marks = (query != 0).sum(axis=1)
    for row in np.flatnonzero(((hits >= 0).sum(axis=1) >= 2) & (n_marks >= 2)):
        number = Counter(hits[row, hits[row] >= 0].tolist())
        best, n = number.most_common(1)[0]
        if n >= max(2, SHARED * min(n_marks[row], (reference[best] != 0).sum())):
            found[row] = best
    return found
