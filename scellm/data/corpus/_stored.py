"""Rows of an expression matrix on the disk, read in contiguous runs; the file is opened again where needed."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..cells._rows import to_csr
from ..cells._structure import COPY_AGAIN, check_chunks, check_columns, check_pointer, check_size

OPEN_AT_ONCE = 256
"""Matrices that are open at once; systems allow a process about a thousand files."""
_opened: deque[weakref.ref[StoredMatrix]] = deque()
"""Open matrices, the oldest first."""


class StoredMatrix:
    """A CSR or dense matrix in a file; only the row pointer of a sparse one is in memory.

    It can be pickled and used after a fork: it remembers the path and opens the file again.

    Parameters
    ----------
    path
        File or folder.
    key
        Path of the matrix inside it.
    opener
        Opens `path` for reading: `open_hdf5` or `_rows.open_zarr`.
    """

    def __init__(self, path: Path, key: str, opener: Callable[[Path], Any]) -> None:
        self.path, self.key = Path(path).absolute(), key
        self._opener = opener
        self._stamp = _stamp(self.path)
        self._element, self._process = None, None
        element = self._open()
        self.is_sparse = hasattr(element, "keys")
        self.indptr = self._row_pointer(element) if self.is_sparse else None
        self.shape: tuple[int, int] = tuple(
            int(n) for n in (element.attrs["shape"] if self.is_sparse else element.shape)
        )
        self.dtype: np.dtype = element["data"].dtype if self.is_sparse else element.dtype
        if self.is_sparse:
            n_values, n_indices = (element[name].shape[0] for name in ("data", "indices"))
            name = f"{self.path}: {self.key}"
            check_pointer(self.indptr, self.shape, n_values, n_indices, name, COPY_AGAIN)
        else:
            check_chunks(element, f"{self.path}: {self.key}")

    @property
    def n_bytes(self) -> int:
        """Memory the matrix takes as CSR in float32; an upper bound where it is stored dense."""
        return 8 * (int(self.indptr[-1]) if self.is_sparse else self.shape[0] * self.shape[1])

    def __getitem__(self, rows: slice) -> sp.csr_array:
        return self.read(np.arange(*rows.indices(self.shape[0])))

    def read(self, rows: np.ndarray) -> sp.csr_array:
        """Some rows as stored.

        Parameters
        ----------
        rows
            (B,) ascending and different.
        """
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts = rows[np.concatenate([[0], breaks])] if len(rows) else rows
        stops = rows[np.concatenate([breaks, [len(rows)]]) - 1] + 1 if len(rows) else rows
        if self._process != os.getpid() and self.path.exists() and _stamp(self.path) != self._stamp:
            msg = f"{self.path} was written to after the corpus was built; build the corpus again."
            raise OSError(msg)
        try:
            element = self._open()
            if not self.is_sparse:
                runs = [element[start:stop] for start, stop in zip(starts, stops, strict=True)]
                return to_csr(np.concatenate([np.zeros((0, self.shape[1]), self.dtype), *runs]))
            data, indices, indptr = self._runs(element, rows, starts, stops)
        except (OSError, RuntimeError) as error:
            where = f"cells {rows[0]} to {rows[-1]} of {self.key}" if len(rows) else self.key
            msg = f"{self.path}: {where} cannot be read ({error}). If the file is where it was, it is damaged: copy or write it again."
            raise OSError(msg) from error
        # scipy does not look, and reads outside its arrays
        check_columns(indices, self.shape[1], f"{self.path}: {self.key}", COPY_AGAIN)
        indices = indices.astype(np.int32 if self.shape[1] <= 2**31 else np.int64, copy=False)
        return to_csr(sp.csr_array((data, indices, indptr), shape=(len(rows), self.shape[1])))

    def _runs(
        self, element: Any, rows: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, columns and row pointer of the rows of some runs, one read of each array per run."""
        indptr = np.concatenate([[0], np.cumsum(self.indptr[rows + 1] - self.indptr[rows])])
        data = np.empty(indptr[-1], dtype=element["data"].dtype)
        indices = np.empty(indptr[-1], dtype=element["indices"].dtype)
        stored_data, stored_indices = element["data"], element["indices"]
        at = 0
        for start, stop in zip(self.indptr[starts].tolist(), self.indptr[stops].tolist(), strict=True):
            if stop > start:
                data[at : at + stop - start] = stored_data[start:stop]
                indices[at : at + stop - start] = stored_indices[start:stop]
                at += stop - start
        return data, indices, indptr

    def _open(self) -> Any:
        """The matrix in the open file, of this process."""
        element = self._element
        if element is None or self._process != os.getpid():
            if len(_opened) >= OPEN_AT_ONCE and (oldest := _opened.popleft()()) is not None:
                oldest._element = oldest._process = None  # closes the file, once nothing reads it
            _opened.append(weakref.ref(self))
            element = self._element = self._opener(self.path)[self.key]
            self._process = os.getpid()
        return element

    def _row_pointer(self, element: Any) -> np.ndarray:
        """(n_rows + 1,) int64."""
        if element.attrs.get("encoding-type") == "csc_matrix":
            kind = "zarr" if self.path.is_dir() else "h5ad"
            inside = f"layers[{self.key.rpartition('/')[2]!r}]" if "layers/" in self.key else "X"
            msg = (
                f"{self.path.name}: {self.key} is stored column by column (CSC), so that single cells cannot be read. "
                f"Write it row by row: adata = anndata.read_{kind}({self.path.name!r}); "
                f"adata.{inside} = adata.{inside}.tocsr(); adata.write_{kind}({self.path.name!r})."
            )
            raise ValueError(msg)
        for part in ("data", "indices", "indptr"):
            check_chunks(element[part], f"{self.path}: {self.key}")
        check_size(element["indptr"], self.path, f"{self.path}: {self.key}")
        return np.asarray(element["indptr"][:], dtype=np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_element": None, "_process": None}


def open_hdf5(path: Path) -> Any:
    """An HDF5 file, for reading."""
    import h5py

    return h5py.File(path, "r")


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file: another one means other contents. `None` for folders."""
    if path.is_dir():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns
