"""Output of Cell Ranger and loom files, written as h5ad once, some thousand cells at a time: then they are read by rows."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..._formats import names_of_10x, read_cells
from ._by_rows import place

ROWS, ENTRIES = 2_000, 2_000_000
"""Cells that are written, and entries of a text that are read, at once."""
LOOM_CELLS, LOOM_GENES = ("CellID", "obs_names"), ("Gene", "var_names")
"""Attributes of loom files with the names of cells and of genes."""
ENTRY = ("gene", "cell", "value", "more")
"""Columns of a line of a matrix; a fourth value is one too many."""
REMEDY = "It needs lines of gene, cell and count, with blanks or tabs between. Copy it again from where it was made."
Rows = Callable[[], Iterator[sp.csr_matrix]]
"""Gives consecutive rows of a matrix."""


def convert(path: Path, target: Path) -> Path:
    """Write the cells of a file as h5ad, with the same tables and values as `read_cells` gives of Cell Ranger output.

    Memory is that of some thousand cells, of 8 bytes a cell, and of the names.

    Parameters
    ----------
    path
        The .h5 file or the folder of `matrix.mtx` of Cell Ranger, or a loom file.
    target
        The .h5ad to write.
    """
    with tempfile.TemporaryDirectory(prefix="scellm-") as folder:
        if path.is_dir():
            _convert_mtx(path, target, Path(folder))
        elif path.suffix == ".loom":
            _convert_loom(path, target)
        else:
            _convert_10x(path, target, Path(folder))
    return target


def _write(target: Path, obs: pd.DataFrame, var: pd.DataFrame, matrices: dict[str, Rows]) -> None:
    """An h5ad file with matrices as CSR, float32, written as they come; `""` is X, others are layers."""
    import anndata as ad
    import h5py

    shape = (len(obs), len(var))
    empty = {name: sp.csr_matrix(shape, dtype=np.float32) for name in matrices}
    with warnings.catch_warnings():  # whoever opens the file hears of it
        warnings.filterwarnings("ignore", message=".* names are not unique")
        ad.AnnData(empty.pop("", None), obs=obs, var=var, layers=empty).write_h5ad(target)
    with h5py.File(target, "r+") as file:
        for name, rows in matrices.items():
            _write_matrix(file[f"layers/{name}" if name else "X"], rows, len(obs))


def _write_matrix(group: Any, rows: Rows, n_obs: int) -> None:
    """Replace the arrays of an empty CSR matrix in a file by those of the rows."""
    for name, kind in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
        del group[name]
        length = n_obs + 1 if name == "indptr" else 0
        group.create_dataset(name, (length,), maxshape=(None,), chunks=(2**16,), dtype=kind)
    row, end = 0, 0
    for block in rows():
        block.sort_indices()
        for name, values in (("data", block.data), ("indices", block.indices)):
            group[name].resize((end + block.nnz,))
            group[name][end:] = values
        group["indptr"][row + 1 : row + 1 + block.shape[0]] = end + block.indptr[1:].astype(np.int64)
        row, end = row + block.shape[0], end + block.nnz


def _kept(n_vars: int, kinds: np.ndarray | None, n_columns: int) -> np.ndarray | slice:
    """Columns of the genes among those of a matrix that may also have antibodies."""
    if n_vars == n_columns or kinds is None:
        return slice(None)
    return np.flatnonzero(kinds == "Gene Expression")


def _slices(
    pointer: np.ndarray, data: Any, indices: Any, n_columns: int, kept: Any
) -> Iterator[sp.csr_matrix]:
    """Rows of a matrix whose arrays are on a disk."""
    for start in range(0, len(pointer) - 1, ROWS):
        ends = np.asarray(pointer[start : start + ROWS + 1], dtype=np.int64)
        some = slice(int(ends[0]), int(ends[-1]))
        values = np.asarray(data[some], dtype=np.float32), np.asarray(indices[some]), ends - ends[0]
        yield sp.csr_matrix(values, shape=(len(ends) - 1, n_columns))[:, kept]


def _convert_10x(path: Path, target: Path, folder: Path) -> None:
    """The matrix is stored by cell already."""
    import h5py

    with h5py.File(path, "r") as file:
        name = "matrix" if "matrix" in file else next(iter(file))
        stored = file[name]
        n_columns, n_obs = (int(x) for x in stored["shape"][:])
        with h5py.File(folder / path.name, "w") as clone:  # without values, for the tables
            clone.attrs.update(file.attrs)
            group = clone.create_group(name)
            for key in stored:
                if key in ("data", "indices"):
                    group.create_dataset(key, (0,), dtype=stored[key].dtype)
                elif key == "indptr":
                    group[key] = np.zeros(n_obs + 1, stored[key].dtype)
                else:
                    file.copy(stored[key], group, key)
        tables = read_cells(folder / path.name)
        kinds = stored["features/feature_type"][:].astype(str) if "features/feature_type" in stored else None
        kept = _kept(tables.n_vars, kinds, n_columns)
        pointer = stored["indptr"][:]
        _write(
            target,
            tables.obs,
            tables.var,
            {"": lambda: _slices(pointer, stored["data"], stored["indices"], n_columns, kept)},
        )


def _open_text(path: Path) -> IO[str]:
    """A text that may be compressed."""
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open("rt")


def _convert_mtx(place_: Path, target: Path, folder: Path) -> None:
    """A text of gene, cell and count; it is read once, and turned around if it is not in the order of cells."""
    matrix, prefix = names_of_10x(place_)
    with _open_text(matrix) as text:
        lines = []
        while (line := text.readline()) and (line.startswith("%") or not line.strip()):
            lines.append(line)
        n_columns, n_obs, n_entries = (int(x) for x in line.split())
        clone = folder / "tables"
        clone.mkdir()
        for file in place_.iterdir():
            if file.name.startswith(tuple(f"{prefix}{name}" for name in ("barcodes", "features", "genes"))):
                shutil.copy(file, clone / file.name)
        opening = gzip.open if matrix.suffix == ".gz" else open
        with opening(clone / matrix.name, "wt") as empty:
            empty.writelines([*lines, f"{n_columns} {n_obs} 0\n"])
        tables = read_cells(clone)
        read = _Entries(text, (n_columns, n_obs), n_entries, folder)
    rows = read.by_cell((n_obs, n_columns), folder)
    features = [
        file for file in clone.iterdir() if file.name.startswith((f"{prefix}features", f"{prefix}genes"))
    ]
    kinds = pd.read_csv(features[0], sep="\t", header=None, dtype=str)
    kept = _kept(tables.n_vars, kinds[2].to_numpy() if kinds.shape[1] > 2 else None, n_columns)
    _write(
        target,
        tables.obs,
        tables.var,
        {"": lambda: _slices(rows.indptr, rows.data, rows.indices, n_columns, kept)},
    )


def _tables(text: IO[str]) -> Iterator[pd.DataFrame]:
    """Lines of a text as numbers, block by block; what a line has too few or too many of is NaN or refused."""
    kinds = dict(zip(ENTRY, (np.int64, np.int64, np.float32, np.float32), strict=True))
    tables = pd.read_csv(
        text,
        sep=r"\s+",
        header=None,
        names=list(ENTRY),
        dtype=kinds,
        index_col=False,
        chunksize=ENTRIES,
        comment="%",
    )
    n_read = 0
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                table = next(tables, None)
            except (ValueError, pd.errors.ParserWarning) as error:
                msg = f"the matrix cannot be read after entry {n_read:,}: {error}. {REMEDY}"
                raise ValueError(msg) from error
        if table is None or not len(table):
            return
        n_read += len(table)
        yield table


def _blocks(text: IO[str], shape: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Gene, cell (both from 0) and value of each entry of a text, block by block; other lines are refused."""
    n_read = 0
    for table in _tables(text):
        gene, cell, value, more = (table[name].to_numpy() for name in ENTRY)
        is_wrong = ~(np.isfinite(value) & np.isnan(more))
        for number, size in ((gene, shape[0]), (cell, shape[1])):
            is_wrong |= (number < 1) | (number > size)
        if is_wrong.any():
            first = int(np.argmax(is_wrong))
            found = " ".join(f"{x:.12g}" for x in table.iloc[first] if not np.isnan(x))
            msg = (
                f"entry {n_read + first + 1:,} of the matrix is {found!r}, which is none of {shape[0]:,} genes and "
                f"{shape[1]:,} cells. {REMEDY}"
            )
            raise ValueError(msg)
        n_read += len(table)
        yield (gene - 1).astype(np.int32), (cell - 1).astype(np.int32), value


class _Entries:
    """Entries of a text in files: gene, cell, and value of each, and how many a cell has.

    Parameters
    ----------
    text
        At the first entry.
    shape, n_entries
        What the text says of itself: numbers of genes and of cells, and of entries.
    folder
        For the files.
    """

    def __init__(self, text: IO[str], shape: tuple[int, int], n_entries: int, folder: Path) -> None:
        self.lengths, self.n, self.is_by_cell = np.zeros(shape[1], np.int64), 0, True
        self._folder, last = folder, 0
        with (
            (folder / "genes").open("wb") as genes,
            (folder / "cells").open("wb") as cells,
            (folder / "values").open("wb") as values,
        ):
            for gene, cell, value in _blocks(text, shape) if n_entries else ():
                self.is_by_cell &= bool(cell[0] >= last and (np.diff(cell) >= 0).all())
                last = cell[-1]
                self.lengths += np.bincount(cell, minlength=shape[1])
                self.n += len(cell)
                genes.write(gene.tobytes())
                cells.write(cell.tobytes())
                values.write(value.tobytes())
        if self.n != n_entries:
            msg = f"the text of the matrix ends after {self.n:,} of {n_entries:,} entries. Copy it again from where it was made."
            raise ValueError(msg)

    def _map(self, name: str, kind: Any) -> np.ndarray:
        return np.memmap(self._folder / name, kind, mode="r") if self.n else np.zeros(0, kind)

    def by_cell(self, shape: tuple[int, int], folder: Path) -> sp.csr_matrix:
        """CSR of cells x genes, whose arrays are files."""
        genes, cells, values = (
            self._map(name, kind)
            for name, kind in (("genes", np.int32), ("cells", np.int32), ("values", np.float32))
        )
        if self.is_by_cell:
            pointer = np.concatenate([[0], np.cumsum(self.lengths)]).astype(
                np.int32 if self.n < 2**31 else np.int64
            )
            return sp.csr_matrix((values, genes, pointer), shape=shape, copy=False)

        def entries(some: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return np.asarray(cells[some]), genes[some], values[some]

        return place(entries, self.lengths, shape, np.float32, folder)


def _convert_loom(path: Path, target: Path) -> None:
    """Stored by gene and dense: read by cells, as far as its chunks allow."""
    import h5py

    with h5py.File(path, "r") as file:
        layers = dict(file.get("layers", {}).items())
        main = {"": file["matrix"]}
        if "spliced" in layers:  # as anndata reads it
            main = {"": layers.pop("spliced"), "matrix": file["matrix"]}
        n_columns, n_obs = file["matrix"].shape
        obs = _loom_table(file["col_attrs"], LOOM_CELLS, n_obs)
        var = _loom_table(file["row_attrs"], LOOM_GENES, n_columns)
        step = max(64, min(ROWS, 2**24 // max(n_columns, 1)) // 64 * 64)

        def rows_of(stored: Any) -> Rows:
            return lambda: (
                sp.csr_matrix(np.asarray(stored[:, start : start + step], dtype=np.float32).T)
                for start in range(0, n_obs, step)
            )

        _write(target, obs, var, {name: rows_of(stored) for name, stored in (main | layers).items()})


def _loom_table(attributes: Any, names: tuple[str, ...], n: int) -> pd.DataFrame:
    """Attributes of one value for each row or column, under their names where there are such."""
    columns = {
        key: values.asstr(errors="replace")[:] if values.dtype.kind in "OS" else values[:]
        for key, values in attributes.items()
        if values.shape == (n,)
    }
    name = next((name for name in names if name in columns), None)
    index = columns.pop(name).astype(str) if name else np.arange(n).astype(str)
    return pd.DataFrame(columns, index=pd.Index(index))
