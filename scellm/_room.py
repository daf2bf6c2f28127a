"""Room for results that are larger than memory should hold: arrays in a temporary file, which the system may put aside."""

from __future__ import annotations

import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

SMALL = 2**27
"""Bytes up to which results are simply in memory."""
ROWS_AT_ONCE = 8192
"""Rows that are worked on before their pages are given back."""
DRAWN_AT_ONCE = 32
"""The same for rows that lie apart."""


def make_room(shape: tuple[int, ...], dtype: Any, *, on_disk: bool) -> np.ndarray:
    """An array of zeros, (n, ...): in memory, or if it is large and wanted, in a temporary file that goes with it.

    Without enough free space in the folder for temporary files it is in memory.

    Parameters
    ----------
    shape, dtype
        As in numpy.
    on_disk
        The cells stay on the disk, so that their results should not fill the memory either.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not on_disk or size <= SMALL or shutil.disk_usage(tempfile.gettempdir()).free < 2 * size:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="scellm-") as file:
        file.truncate(size)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            pages = mmap.mmap(file.fileno(), size)
        except OSError:
            return np.zeros(shape, dtype)
    return np.frombuffer(pages, dtype).reshape(shape)


def stays_on_disk(X: Any) -> bool:
    """Whether the rows of a matrix are read from a file."""
    is_here = X is None or sp.issparse(X) or isinstance(X, np.ndarray)
    return not is_here and not hasattr(X, "dask")


def let_go(array: np.ndarray) -> None:
    """Give the pages of such an array back; its values stay in the file, and are read again when they are looked at."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and sys.platform.startswith("linux"):
        base.madvise(mmap.MADV_DONTNEED)


def take_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, a few at a time: the system reads the pages around each, too, and would keep them."""
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), DRAWN_AT_ONCE):
        some = slice(start, start + DRAWN_AT_ONCE)
        found[some] = array[rows[some]]
        let_go(array)
    return found


def row_slices(n_rows: int, *arrays: np.ndarray) -> Iterator[slice]:
    """Consecutive rows, some thousand at a time; after each the pages of these arrays are given back."""
    for start in range(0, n_rows, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, n_rows))
        for array in arrays:
            let_go(array)
