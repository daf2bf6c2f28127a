"""Is a matrix what it says it is? Looked at before anything is computed from it: scipy reads where pointers point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..._files import is_full

MOST_COMPRESSION = 2000
"""Times that stored numbers may be smaller than what they stand for; gzip reaches 1032."""
SMALL = 64 * 2**20
"""Bytes below which the compression of an array does not matter."""
LARGEST_CHUNK = 2**31
"""Bytes of the largest chunk; all of it is in memory at once."""
AT_ONCE = 2**22
"""Indices looked at at once."""
COPY_AGAIN = "The file is damaged: copy it again from where it came from, or write it again."
REBUILD = "Build it again from its rows, columns and values, or take a copy that was not damaged."
ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
    ZeroDivisionError,
    NotImplementedError,
)
"""What h5py, zarr, anndata and numpy raise over damaged contents."""


@contextmanager
def blamed(path: Path, what: str, remedy: str = COPY_AGAIN) -> Iterator[None]:
    """`ERRORS` over what is read inside the block become a ValueError that names the file.

    A file that others hold or that may not be read is not damaged.
    """
    try:
        yield
    except (PermissionError, BlockingIOError):
        raise
    except ERRORS as error:
        if is_full(error) or (isinstance(error, ValueError) and str(path) in str(error)):
            raise
        text = " ".join(str(error.args[0] if error.args else error).split())[:200]
        msg = f"{path}: {what} cannot be read ({type(error).__name__}: {text}). {remedy}"
        raise ValueError(msg) from error


def check_structure(X: Any, n_obs: int, n_vars: int, name: str) -> None:
    """That a matrix in memory has the shape it should have, and a sparse one pointers that lead into its arrays.

    Other kinds (dense, dask, on the disk) are compared by shape alone.

    Parameters
    ----------
    X
        Cells x genes.
    n_obs, n_vars
        What obs and var have.
    name
        What to call it.

    Raises
    ------
    ValueError
        It is another matrix.
    """
    if tuple(X.shape) != (n_obs, n_vars):
        msg = f"`{name}` has the shape {tuple(X.shape)}, obs has {n_obs} rows and var {n_vars}. {REBUILD}"
        raise ValueError(msg)
    if not sp.issparse(X):
        return
    if X.format in ("csr", "csc"):
        shape, what = (X.shape, "columns") if X.format == "csr" else (X.shape[::-1], "rows")
        check_pointer(X.indptr, (shape[0], np.inf), len(X.data), len(X.indices), name, REBUILD)  # may repeat
        # slices of scipy drop them without a word
        check_columns(X.indices, shape[1], name, REBUILD, what=what)
    elif X.format == "coo":
        for indices, limit, what in zip((X.row, X.col), X.shape, ("rows", "columns"), strict=True):
            check_columns(indices, limit, name, REBUILD, what=what)


def check_pointer(
    pointer: np.ndarray, shape: tuple[int, float], n_values: int, n_indices: int, name: str, remedy: str
) -> None:
    """That a pointer into rows (or columns) starts at 0, never goes back, ends with the values, and fits `shape`."""
    if (
        pointer.ndim != 1
        or pointer.dtype.kind not in "iu"
        or len(pointer) != shape[0] + 1
        or pointer[0] != 0
        or (pointer[1:] < pointer[:-1]).any()
        or not pointer[-1] == n_values == n_indices
    ):
        end = pointer[-1] if pointer.ndim == 1 and len(pointer) else "nothing"
        msg = (
            f"{name} is damaged: its row pointer has {len(pointer)} entries for {shape[0]} rows (or columns) and ends "
            f"at {end}, for {n_values} values and {n_indices} indices, or it goes back. {remedy}"
        )
        raise ValueError(msg)
    if (longest := int(np.diff(pointer).max(initial=0))) > shape[1]:
        msg = f"{name} is damaged: a row (or column) has {longest} values for {shape[1]} places. {remedy}"
        raise ValueError(msg)


def check_columns(indices: np.ndarray, n_columns: int, name: str, remedy: str, what: str = "columns") -> None:
    """That no index is negative, which numpy counts from the end, or too large."""
    if not len(indices):
        return
    low, high = indices.min(), indices.max()
    if low < 0 or high >= n_columns:
        wrong = low if low < 0 else high
        msg = f"{name} is damaged: it has a value outside its {n_columns} {what}, at {wrong}. {remedy}"
        raise ValueError(msg)


# -- files ------------------------------------------------------------------------------------------------------


class CheckedMatrix:
    """A matrix in an open file, whose rows are checked as they are read.

    Parameters
    ----------
    X
        Backed sparse dataset, or h5py or zarr array.
    path, key
        Where it is, for messages.
    """

    def __init__(self, X: Any, path: Path, key: str) -> None:
        self.stored, self._path, self._key = X, path, key
        self.shape, self.dtype, self.ndim = tuple(X.shape), X.dtype, 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        with blamed(self._path, self._key):
            block = self.stored[rows]
        if sp.issparse(block) and block.format == "csr":
            check_columns(block.indices, self.shape[1], f"{self._path}: {self._key}", COPY_AGAIN)
        return block


def check_stored(element: Any, n_obs: int, n_vars: int, path: Path, key: str) -> None:
    """That a matrix in a file has the shape of obs and var, and pointers and indices that lead into its arrays.

    Of CSR the columns are not looked at: `CheckedMatrix` does, as they are read. Of CSC all rows are, once.
    """
    name = f"{path}: {key}"
    kind = str(element.attrs.get("encoding-type", ""))
    if hasattr(element, "keys"):
        if kind not in ("csr_matrix", "csc_matrix"):
            msg = f"{name} is not a matrix but {kind!r}; scellm reads dense, CSR and CSC. {COPY_AGAIN}"
            raise ValueError(msg)
        shape = tuple(int(n) for n in element.attrs["shape"])
    else:
        shape = tuple(element.shape)
    if shape != (n_obs, n_vars):
        msg = f"{name} has the shape {shape}, but obs has {n_obs} rows and var has {n_vars}. {COPY_AGAIN}"
        raise ValueError(msg)
    if not hasattr(element, "keys"):
        check_chunks(element, name)
        return
    data, indices, pointer = (element[part] for part in ("data", "indices", "indptr"))
    for array in (data, indices, pointer):
        check_chunks(array, name)
        if len(array.shape) != 1:
            msg = f"{name} is damaged: one of its arrays has the shape {array.shape}. {COPY_AGAIN}"
            raise ValueError(msg)
    if indices.dtype.kind not in "iu":
        msg = f"{name} is damaged: its column indices are {indices.dtype}. {COPY_AGAIN}"
        raise ValueError(msg)
    check_size(pointer, path, name)
    places = shape if kind == "csr_matrix" else shape[::-1]
    check_pointer(pointer[:], places, data.shape[0], indices.shape[0], name, COPY_AGAIN)
    if kind == "csc_matrix":
        for start in range(0, indices.shape[0], AT_ONCE):
            check_columns(indices[start : start + AT_ONCE], n_obs, name, COPY_AGAIN, what="rows")


def check_size(array: Any, path: Path, name: str) -> None:
    """That an array that will be read whole is not far larger than its file can hold."""
    claimed = int(np.prod(array.shape, dtype=object) or 0) * array.dtype.itemsize
    if claimed <= SMALL:
        return
    stored = array.id.get_storage_size() if hasattr(array, "id") else _folder_size(path)
    if claimed > MOST_COMPRESSION * stored:
        msg = f"{name} claims {claimed / 1e9:,.1f} GB, of which {stored / 1e6:,.1f} MB are in the file. {COPY_AGAIN}"
        raise ValueError(msg)


def check_chunks(array: Any, name: str) -> None:
    """That a chunk of an array fits in memory."""
    chunk = int(np.prod(array.chunks or (0,), dtype=object)) * array.dtype.itemsize
    if chunk > LARGEST_CHUNK:
        msg = f"{name} is stored in chunks of {chunk / 1e9:,.1f} GB, which no memory holds. {COPY_AGAIN}"
        raise ValueError(msg)


def check_tables(store: Any, path: Path) -> dict[str, int]:
    """Rows of obs, var and raw/var; all columns of a table have as many, and none claims more than the file holds."""
    return {
        table: _n_rows(store[table], path, table) for table in ("obs", "var", "raw/var") if table in store
    }


def _n_rows(table: Any, path: Path, name: str) -> int:
    """Rows of a stored table, each of whose columns must have as many."""
    index = str(table.attrs["_index"])
    lengths = {}
    for column in [index, *(str(column) for column in table.attrs.get("column-order", ()))]:
        lengths[column] = _length(table[column], path, f"{path}: {name}[{column!r}]")
    other = {column: n for column, n in lengths.items() if n != lengths[index]}
    if other:
        column, n = next(iter(other.items()))
        msg = f"{path}: {name} is damaged: it has {lengths[index]} names and {n} entries in {column!r}. {COPY_AGAIN}"
        raise ValueError(msg)
    return lengths[index]


def _length(column: Any, path: Path, name: str) -> int:
    """Entries of a stored column: an array, or a group of codes and categories or of values and mask."""
    arrays = (
        [column[part] for part in ("codes", "values", "mask", "categories") if part in column]
        if hasattr(column, "keys")
        else [column]
    )
    for array in arrays:
        if not hasattr(array, "keys"):
            check_size(array, path, name)
            check_chunks(array, name)
    return int(arrays[0].shape[0])


def check_links(store: Any, path: Path) -> None:
    """That nothing in an HDF5 file lies in another file: external links, external storage, virtual datasets."""
    import h5py

    seen, groups = set(), [store]
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            where = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise _leads_out(path, where, f"a link to {link.path!r} in the file {link.filename}")
            if not isinstance(link, h5py.HardLink):
                continue  # a soft link stays inside the file
            element = group[name]
            if isinstance(element, h5py.Dataset):
                if element.external or element.is_virtual:
                    raise _leads_out(path, where, "an array whose numbers lie in other files")
            elif isinstance(element, h5py.Group) and (at := h5py.h5o.get_info(element.id).addr) not in seen:
                seen.add(at)
                groups.append(element)


def _leads_out(path: Path, where: str, what: str) -> ValueError:
    return ValueError(
        f"{path}: {where} is {what}, which scellm does not follow. If the file is yours, write it with all that "
        f"belongs to it in one: anndata.read_h5ad(...).write_h5ad(...); otherwise do not trust it."
    )


def _folder_size(path: Path) -> int:
    from ..._files import check_folder

    return check_folder(path) if path.is_dir() else path.stat().st_size
