"""Matrices that are stored by column (CSC) on a disk, written by row once: else every block of rows would read all of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..._files import check_room
from ..._warn import warn

SMALL = 2**27
"""Bytes up to which such a matrix is turned around in memory, without a word."""
AT_ONCE = 2**23
"""Values that are sorted at once."""


@contextmanager
def by_rows(X: Any, where: str) -> Iterator[Any]:
    """A matrix whose rows can be read: itself, or of CSC on a disk a copy by row, in memory or in the folder for temporary files.

    Parameters
    ----------
    X
        Any matrix of cells x genes.
    where
        What to call it in messages.
    """
    group = stored_by_column(X)
    if group is None:
        yield X
        return
    size = group["data"].shape[0] * (group["data"].dtype.itemsize + 8)
    if size <= SMALL:
        yield X[:].tocsr()
        return
    with tempfile.TemporaryDirectory(prefix="scellm-") as folder:
        check_room(Path(folder), size, shutil.disk_usage(folder).free)
        warn(
            f"`{where}` is stored by gene (CSC). It is written by cell once, {size / 1e6:,.0f} MB in {folder}, and deleted "
            "afterwards. To have that done for good: adata.X = scipy.sparse.csr_matrix(adata.X), and write the file again."
        )
        yield _turned(group, X.shape, Path(folder))


def stored_by_column(X: Any) -> Any | None:
    """The arrays of a CSC matrix in an open file or folder; `None` for all else."""
    X = getattr(X, "stored", X)  # of a CheckedMatrix
    is_stored = not sp.issparse(X) and getattr(X, "format", "") == "csc"
    return X.group if is_stored and hasattr(X, "group") else None


def _turned(group: Any, shape: tuple[int, int], folder: Path) -> sp.csr_matrix:
    """CSR whose arrays are files; memory is that of a few million values."""
    data, indices, pointer = group["data"], group["indices"], np.asarray(group["indptr"][:])
    lengths = np.zeros(shape[0], dtype=np.int64)
    for block in _blocks(data.shape[0]):
        lengths += np.bincount(indices[block], minlength=shape[0])

    def entries(block: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        column = np.searchsorted(pointer, np.arange(block.start, block.stop), side="right") - 1
        return np.asarray(indices[block]), column, np.asarray(data[block])

    return place(entries, lengths, shape, data.dtype, folder)


def place(
    entries: Callable[[slice], tuple[np.ndarray, np.ndarray, np.ndarray]],
    lengths: np.ndarray,
    shape: tuple[int, int],
    dtype: Any,
    folder: Path,
) -> sp.csr_matrix:
    """CSR in files of entries in any order of rows.

    Parameters
    ----------
    entries
        Gives rows, columns and values of some of the entries; columns of a row are ascending over all of them.
    lengths
        (n_rows,) entries of each row.
    shape, dtype
        Of the matrix.
    folder
        For the files.
    """
    n = int(lengths.sum())
    starts = np.concatenate([[0], np.cumsum(lengths)])
    kind = np.int32 if n < 2**31 else np.int64  # what scipy would choose: another one it copies into memory
    values = np.memmap(folder / "data", dtype=dtype, mode="w+", shape=(n,))
    columns = np.memmap(folder / "indices", dtype=kind, mode="w+", shape=(n,))
    free = starts[:-1].copy()  # the next place of each row
    for block in _blocks(n):
        rows, column, value = entries(block)
        order = np.argsort(rows, kind="stable")  # columns stay in order
        counts = np.bincount(rows, minlength=shape[0])
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = free[rows[order]] + rank
        values[places], columns[places] = value[order], column[order]
        free += counts
    return sp.csr_matrix((values, columns, starts.astype(kind)), shape=shape, copy=False)


def _blocks(n: int) -> list[slice]:
    """Consecutive entries."""
    return [slice(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE)]
