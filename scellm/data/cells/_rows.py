"""Rows of any expression matrix, block by block, and of a file without loading it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..._files import check_folder, restore
from ..._formats import check_readable
from ..._room import make_room, row_slices
from ._structure import (
    REBUILD,
    CheckedMatrix,
    blamed,
    check_columns,
    check_links,
    check_stored,
    check_structure,
    check_tables,
)

if TYPE_CHECKING:
    from anndata import AnnData


def row_blocks(X: Any, n_rows: int) -> Iterator[tuple[int, sp.csr_array]]:
    """Consecutive rows of a matrix as CSR, with the number of the first.

    Parameters
    ----------
    X
        Cells x genes: scipy sparse in any format, numpy, h5py or zarr, a backed sparse dataset, dask.
    n_rows
        Rows per block.
    """
    n_obs, n_vars = X.shape
    check_structure(X, n_obs, n_vars, "the matrix")
    in_memory = sp.issparse(X)
    if in_memory and X.format != "csr":
        X = X.tocsr()  # once, rather than searching every column for each block
    for start in range(0, X.shape[0], n_rows):
        block = X[start : start + n_rows]
        if hasattr(block, "compute"):  # dask
            block = block.compute()
        if sp.issparse(block) and block.format == "csr" and not in_memory:  # the whole of X was checked above
            check_columns(block.indices, X.shape[1], "the matrix", REBUILD)
        block = to_csr(block)
        yield start, block


def to_csr(block: Any) -> sp.csr_array:
    """Rows in memory, sparse or dense, as CSR with sorted indices, each once, in a number type scipy knows."""
    if not sp.issparse(block):
        block = np.asarray(block)
    native = block.dtype.newbyteorder("=")  # scipy knows neither half precision nor foreign byte order
    block = sp.csr_array(block.astype(np.float32 if native == np.float16 else native, copy=False))
    if not block.has_canonical_format:
        block = block.copy()
        block.sum_duplicates()
    return block


def check_finite(block: sp.csr_array, first_row: int | np.ndarray, *, dataset: str | None = None) -> None:
    """Refuse NaN, infinite and negative values, naming the first cell.

    Parameters
    ----------
    block
        (B, n_vars) expression as stored.
    first_row
        Number of the first row, or (B,) the number of each.
    dataset
        Name of the dataset the rows are of, for the message.

    Raises
    ------
    ValueError
        Such a value is there.
    """
    bad = ~(np.isfinite(block.data) & (block.data >= 0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        row = int(np.searchsorted(block.indptr, at, side="right")) - 1
        cell = first_row + row if np.ndim(first_row) == 0 else first_row[row]
        cell = f"Cell {cell}" if dataset is None else f"Dataset {dataset!r}: cell {cell}"
        msg = (
            f"{cell} (counted from 0) has the value {block.data[at]} in column {block.indices[at]}. "
            "Expression must be finite and not negative: pass raw counts or log1p values with layer= or use_raw=."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class FileMatrix:
    """An expression matrix in a file that is open; nothing of it is in memory."""

    X: Any
    """Backed sparse dataset, or h5py or zarr array, (n_obs, n_vars)."""
    var: pd.DataFrame
    """Its columns."""
    where: str
    """What to call it in messages."""
    raw_var: pd.DataFrame | None
    """Columns of `raw`, if the file has it."""


@contextmanager
def open_matrix(path: Path, layer: str | None = None, use_raw: bool | None = None) -> Iterator[FileMatrix]:
    """Open the expression matrix of an h5ad or zarr file.

    Parameters
    ----------
    path
        `.h5ad` file or `.zarr` folder.
    layer, use_raw
        Which matrix, as in `tl.embed`.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    KeyError
        No such layer.
    ValueError
        Neither h5ad nor zarr, `layer` and `use_raw` together, or a matrix that is not there or has no rows.
    """
    with open_store(path, "r") as store:
        if layer is not None and use_raw:
            msg = f"layer={layer!r} and use_raw=True name two matrices; give one of them."
            raise ValueError(msg)
        _check_tables_are_there(store, path)
        with blamed(path, "obs, var or the list of layers"):
            check_encoding(store, path)
            n_rows = check_tables(store, path)
            layers = sorted(store["layers"]) if "layers" in store else []
        has_raw = "raw/var" in store
        if layer is not None and layer not in layers:
            msg = f"Layer {layer!r} is not in {path.name}, which has {layers}."
            raise KeyError(msg)
        key = f"layers/{layer}" if layer is not None else "raw/X" if use_raw else "X"
        if key not in store or store[key].attrs.get("encoding-type") == "null":
            ways = [f"layer={name!r}" for name in layers] + (["use_raw=True"] if has_raw else [])
            msg = f"{path.name} has no {key}. {f'Pass {ways}.' if ways else 'It holds no other matrix.'}"
            raise ValueError(msg)
        table = "raw/var" if use_raw else "var"
        X = _open_element(store[key], (n_rows["obs"], n_rows[table]), path, key)
        with blamed(path, table):
            var, raw_var = (
                _read_table(store, name) if name in n_rows else None for name in (table, "raw/var")
            )
        yield FileMatrix(X, var, f"{path.name}: {key}", raw_var)


@contextmanager
def open_cells(path: Path) -> Iterator[AnnData]:
    """The tables and results of an h5ad file or zarr folder in memory, and its matrices left on the disk.

    Parameters
    ----------
    path
        `.h5ad` file or `.zarr` folder.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    ValueError
        Neither h5ad nor zarr, or damaged.
    """
    from anndata import AnnData
    from anndata.io import read_elem

    with open_store(path, "r") as store:
        check_encoding(store, path)
        with blamed(path, "obs, var or the list of layers"):
            check_tables(store, path)
        raw = None
        if "raw/X" in store:
            raw = {"X": _on_disk(store["raw/X"]), "var": read_elem(store["raw/var"])}
        with blamed(path, "its tables and results"):
            tables = {name: read_elem(store[name]) for name in ("obs", "var")}
            others = {
                name: read_elem(store[name]) for name in ("varm", "obsp", "varp", "uns") if name in store
            }
            others["obsm"] = {name: _in_room(store["obsm"][name]) for name in store.get("obsm", {})}
        yield AnnData(
            X=_on_disk(store["X"]) if "X" in store else None,
            layers={name: _on_disk(store["layers"][name]) for name in store.get("layers", {})},
            raw=raw,
            **tables,
            **others,
        )


def _in_room(element: Any) -> Any:
    """An entry of obsm; a large embedding goes to a temporary file that the system may put aside."""
    from anndata.io import read_elem

    if _kind(element) != "array" or element.ndim != 2:
        return read_elem(element)
    found = make_room(element.shape, element.dtype, on_disk=True)
    for rows in row_slices(len(found), found):
        found[rows] = element[rows]
    return found


def _on_disk(element: Any) -> Any:
    """A matrix that is read as far as it is looked at; `None` where the file says there is none."""
    from anndata.io import sparse_dataset

    kind = _kind(element)
    if kind == "null":
        return None
    return sparse_dataset(element) if kind in ("csr_matrix", "csc_matrix") else element


def _open_element(element: Any, shape: tuple[int, int], path: Path, key: str) -> CheckedMatrix:
    """A matrix in an open file, checked as far as that is possible without reading it."""
    from anndata.io import sparse_dataset

    if not all(shape):
        msg = f"{key} of {path.name} has {shape[0]} cells and {shape[1]} genes; need at least one of each."
        raise ValueError(msg)
    with blamed(path, key):
        check_stored(element, *shape, path, key)
        return CheckedMatrix(sparse_dataset(element) if hasattr(element, "keys") else element, path, key)


def _read_table(store: Any, name: str) -> pd.DataFrame:
    from anndata.io import read_elem

    return read_elem(store[name])


def _check_tables_are_there(store: Any, path: Path) -> None:
    """Refuse files that are not AnnData."""
    if "obs" not in store or "var" not in store:
        msg = f"{path.name} holds no AnnData: it has {sorted(store)}."
        raise ValueError(msg)


def check_encoding(store: Any, path: Path) -> None:
    """Refuse files that are not AnnData, or of the days before elements said what they are."""
    _check_tables_are_there(store, path)
    tables = [name for name in ("obs", "var", "raw/var") if name in store]
    matrices = [name for name in ("X", "raw/X") if name in store]
    if any(not _kind(store[name]) for name in [*tables, *matrices]) or "raw.X" in store:
        msg = (
            f"{path.name} was written by an old version of anndata. Read and write it again: "
            f"anndata.read_h5ad({path.name!r}).write_h5ad({path.name!r})."
        )
        raise ValueError(msg)


@contextmanager
def open_store(path: Path, mode: str, *, name: Path | None = None) -> Iterator[Any]:
    """Open an h5ad file or a zarr folder as a group; nothing in it may lead out of it.

    Parameters
    ----------
    path
        File or folder.
    mode
        `"r"` or `"r+"`.
    name
        What to call it in messages, if that is not `path`.

    Raises
    ------
    ValueError
        It cannot be opened, or holds links to other files.
    FileNotFoundError
        Nothing there.
    ValueError
        Neither h5ad nor zarr.
    """
    restore(path)
    path = check_readable(path)
    name = name or path
    if path.suffix == ".zarr" and path.is_dir():
        with blamed(name, "the zarr folder"):
            check_folder(path)
            group = open_zarr(path, mode)
        yield group
        if mode != "r":
            _consolidate(path)
        return
    import h5py

    if path.suffix not in (".h5ad", ".h5") or not path.is_file() or not h5py.is_hdf5(path):
        msg = f"{path} is neither an .h5ad file nor a .zarr folder; write one with adata.write_h5ad."
        raise ValueError(msg)
    with blamed(name, "the file"):
        file = h5py.File(path, mode)
    with file:
        with blamed(name, "its list of contents"):
            check_links(file, name)
        yield file


def open_zarr(path: Path, mode: str = "r") -> Any:
    """A zarr folder as a group."""
    try:
        import zarr
    except ImportError as error:
        msg = f"Reading {path.name} needs the package zarr: pip install 'scellm[zarr]'."
        raise ImportError(msg) from error
    newer = {"use_consolidated": False} if int(zarr.__version__.split(".")[0]) >= 3 else {}
    return zarr.open_group(str(path), mode=mode, **newer)


def _consolidate(path: Path) -> None:
    """Bring the summary of a zarr folder up to date: readers look there first."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns that format 3 does not specify it yet
        zarr.consolidate_metadata(str(path))


def _kind(element: Any) -> str:
    return str(element.attrs.get("encoding-type", ""))
