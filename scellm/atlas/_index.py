"""An index of embeddings: a folder with the vectors in half precision by region, columns of cells, and a manifest with hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._files import read_json, replacing
from .._room import let_go, make_room
from .._version import __version__
from ._regions import AT_ONCE, n_searched, sampled, unit, write_vectors

if TYPE_CHECKING:
    import faiss

FORMAT = 2
VECTORS, MARKS, MANIFEST = "vectors.faiss", "marks.npy", "manifest.json"
SELF_CELLS, SELF_NEIGHBORS = 2_000, 15
"""Cells of the index whose own distances say what is usual, and to which neighbor."""
SELF_AT_ONCE = 100
"""Of these, how many are searched at once."""
MOST_SAME, FEW_CELLS = 20, 4
"""Cells with one mark beyond which it tells nothing, as they are no copies of a cell; fewer cells than so many may all be copies (ours)."""
REMEDY = "Build the index again with scellm.tl.index and overwrite=True."


@dataclass
class AtlasIndex:
    """An open index.

    Parameters
    ----------
    folder
        Where it is.
    manifest
        What it is of: `model`, `sha256`, `dim`, `n_cells`, `columns`, `usual` (101 quantiles of the distance of its own
        cells to their 15th neighbor).
    vectors
        The faiss index, read from the disk as it is searched.
    """

    folder: Path
    manifest: dict[str, Any]
    vectors: faiss.Index

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.manifest["n_cells"])

    @property
    def columns(self) -> list[str]:
        """Columns of cells."""
        return [str(column["name"]) for column in self.manifest["columns"]]

    def column(self, name: str) -> pd.Categorical:
        """(n_cells,) a column of the cells.

        Raises
        ------
        KeyError
            The index has no such column.
        """
        for i, column in enumerate(self.manifest["columns"]):
            if column["name"] == name:
                codes = np.load(self.folder / f"column-{i}.npy", mmap_mode="r", allow_pickle=False)
                return pd.Categorical.from_codes(np.asarray(codes), categories=column["categories"])
        msg = f"The index {self.folder} has no column {name!r}; it has {self.columns}."
        raise KeyError(msg)

    @property
    def marks(self) -> np.ndarray:
        """(n_cells,) uint64, what tells the cells from others; 0 where nothing is known."""
        return np.load(self.folder / MARKS, mmap_mode="r", allow_pickle=False)

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest cells of the index by cosine.

        Parameters
        ----------
        vectors
            (n, dim) embeddings; rows of NaN have no neighbors.
        k
            How many.

        Returns
        -------
        Rows of the index (n, k), -1 where there is none, and distances (n, k): 1 - cosine, NaN where there is none.
        """
        rows = np.full((len(vectors), k), -1, np.int64)
        distances = np.full((len(vectors), k), np.nan, np.float32)
        known = np.flatnonzero(np.isfinite(vectors).all(1))
        if len(known):
            similarity, found = self._found(unit(vectors[known]), k)
            rows[known] = found
            distances[known] = np.where(found < 0, np.nan, np.clip(1 - similarity, 0, 2))
        return rows, distances

    def _found(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and rows (n, k); where the nearest regions hold fewer cells than k, all regions are searched."""
        index: Any = self.vectors
        similarity, rows = index.search(vectors, k)
        few = np.flatnonzero((rows >= 0).sum(axis=1) < min(k, index.ntotal))
        if len(few) and self.manifest["searched"]:
            everywhere = _faiss().SearchParametersIVF(nprobe=index.nlist)
            similarity[few], rows[few] = index.search(vectors[few], k, params=everywhere)
        return similarity, rows

    @cached_property
    def _copies(self) -> tuple[np.ndarray, np.ndarray]:
        """Marks that several indexed cells have, ascending, and how many have each."""
        values, counts = np.unique(self.marks, return_counts=True)
        several = (counts > 1) & (values != 0)
        return values[several], counts[several]

    def _n_copies(self, marks: np.ndarray) -> np.ndarray:
        """(n,) how many indexed cells have each of these marks; 1 stands for none, too."""
        values, counts = self._copies
        if not len(values):
            return np.ones(len(marks), np.int64)
        place = np.minimum(np.searchsorted(values, marks), len(values) - 1)
        return np.where(values[place] == marks, counts[place], 1)

    def telling(self, marks: np.ndarray) -> np.ndarray:
        """(n,) marks with 0 for those that tell no cell from others.

        Such marks are those of more than 20 of these cells or of the indexed ones, or, of four cells and more, of over half.

        Parameters
        ----------
        marks
            (n,) marks of all cells of a query.
        """
        _, place, counts = np.unique(marks, return_inverse=True, return_counts=True)
        is_shared = _is_shared(counts[place.reshape(-1)], len(marks))
        is_shared |= _is_shared(self._n_copies(marks), self.n_cells)
        return np.where(is_shared, 0, marks).astype(np.uint64)

    def search_others(self, vectors: np.ndarray, marks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, leaving out of each cell's neighbors the cells with its own mark.

        Parameters
        ----------
        vectors, marks
            (n, dim) embeddings and (n,) marks of the cells as from `telling`; a mark of 0 is like no other.
        k
            How many.
        """
        there, n_same = self.marks, self._n_copies(marks)
        marks = np.where(_is_shared(n_same, self.n_cells), 0, marks)
        wanted = min(k + int(n_same[marks != 0].max(initial=0)), self.n_cells)
        rows, distances = self.search(vectors, wanted)
        is_same = (there[rows] == marks[:, None]) & (marks[:, None] != 0) & (rows >= 0)
        order = np.argsort(is_same, axis=1, kind="stable")
        rows = np.where(is_same, -1, rows)
        distances = np.where(is_same, np.float32(np.nan), distances)
        rows, distances = (np.take_along_axis(x, order, axis=1)[:, :k] for x in (rows, distances))
        missing = k - rows.shape[1]
        fill = ((0, 0), (0, missing))
        return np.pad(rows, fill, constant_values=-1), np.pad(distances, fill, constant_values=np.nan)

    def stored(self) -> np.ndarray:
        """(n_cells, dim) float16, all embeddings at length one; NaN where a cell had none. A large one is in a temporary file."""
        faiss = _faiss()
        index: Any = _read(self.folder / VECTORS)
        if hasattr(index, "id_map"):
            ids = faiss.vector_to_array(index.id_map)
        else:
            lists = index.invlists
            ids = np.concatenate(
                [faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(index.nlist)]
            )
            index.set_direct_map_type(faiss.DirectMap.Hashtable)
        found = make_room((self.n_cells, index.d), np.float16, on_disk=True)
        for start in range(0, len(found), AT_ONCE):
            found[start : start + AT_ONCE] = np.nan
            let_go(found)
        for start in range(0, len(ids), AT_ONCE):
            some = np.ascontiguousarray(ids[start : start + AT_ONCE])
            found[some] = index.reconstruct_batch(some)
            let_go(found)
        return found

    def unusual(self, distances: np.ndarray) -> np.ndarray:
        """(n,) share of the index's own cells whose 15th neighbor is nearer than that of these cells.

        Parameters
        ----------
        distances
            (n, k) as from `search`; where there is no 15th, the last one stands for it.
        """
        first = distances[:, :SELF_NEIGHBORS]
        is_there = np.isfinite(first)
        last = np.where(is_there, first, -np.inf).max(axis=1, initial=-np.inf)
        last = np.where(is_there.any(axis=1), last, np.nan)
        share = np.searchsorted(np.asarray(self.manifest["usual"]), last) / 100
        return np.where(np.isnan(last), np.nan, np.minimum(share, 1)).astype(np.float32)


def build_index(
    parts: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Any] | pd.Series],
    folder: Path,
    *,
    about: Mapping[str, Any],
    marks: np.ndarray | None = None,
    rng: int = 0,
) -> AtlasIndex:
    """Write an index of some embeddings and open it.

    Parameters
    ----------
    parts
        Embeddings (n_i, dim), one after the other; rows of NaN are kept, and never found.
    columns
        Columns of all cells, by name; missing values stay missing.
    folder
        Folder to write; replaced when the new one is complete.
    about
        `model` and `sha256` of the model, and what else to keep.
    marks
        (n_cells,) uint64 that tell the cells from others, as from `metrics.gene_set_marks`; `None` knows none.
    rng
        Seed of the regions.

    Raises
    ------
    ImportError
        faiss is missing.
    ValueError
        No cell, or columns of another length.
    """
    faiss = _faiss()
    n_cells, dim = sum(map(len, parts)), parts[0].shape[1] if len(parts) else 0
    if not n_cells:
        msg = "There is no cell to index."
        raise ValueError(msg)
    tables = {name: pd.Categorical(values) for name, values in columns.items()}
    for name, values in tables.items():
        if len(values) != n_cells:
            msg = (
                f"Column {name!r} has {len(values)} values, there are {n_cells} cells; both must be the same."
            )
            raise ValueError(msg)
    marks = np.zeros(n_cells, np.uint64) if marks is None else np.asarray(marks, np.uint64)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "scellm_version": __version__,
        **about,
        "dim": dim,
        "n_cells": n_cells,
        "columns": [
            {"name": str(name), "categories": [str(x) for x in values.categories]}
            for name, values in tables.items()
        ],
    }
    with replacing(folder) as new:
        new.mkdir()
        write_vectors(faiss, parts, new / VECTORS, rng)
        manifest |= _tuned(new / VECTORS, parts, rng)
        np.save(new / MARKS, marks, allow_pickle=False)
        for i, values in enumerate(tables.values()):
            np.save(new / f"column-{i}.npy", values.codes.astype(np.int32), allow_pickle=False)
        manifest["files"] = {path.name: _sha256(path) for path in sorted(new.iterdir())}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return open_index(folder)


def open_index(folder: Path, *, check: bool = True) -> AtlasIndex:
    """Open an index for reading; the vectors stay on the disk until they are searched.

    Parameters
    ----------
    folder
        What `build_index` wrote.
    check
        Compare all files with the hashes in the manifest first.

    Raises
    ------
    FileNotFoundError
        There is no index.
    ImportError
        faiss is missing.
    ValueError
        A damaged index, or one of a newer format.
    """
    if not (folder / MANIFEST).is_file():
        msg = f"There is no index in {folder}: {MANIFEST} is missing. Build one with scellm.tl.index."
        raise FileNotFoundError(msg)
    manifest = read_json(folder / MANIFEST, REMEDY)
    problem = _problem(folder, manifest, check=check)
    if problem:
        msg = f"The index {folder} cannot be used: {problem}. {REMEDY}"
        raise ValueError(msg)
    vectors = _read(folder / VECTORS, manifest["searched"])
    if vectors.d != manifest["dim"]:
        msg = f"The index {folder} cannot be used: its vectors have {vectors.d} numbers, its manifest says {manifest['dim']}. {REMEDY}"
        raise ValueError(msg)
    return AtlasIndex(folder, manifest, vectors)


def _problem(folder: Path, manifest: Mapping[str, Any], *, check: bool) -> str:
    """What is wrong with an index, before anything but its manifest is read; "" if nothing."""
    if isinstance(manifest.get("format"), int) and manifest["format"] != FORMAT:
        return f"it has format {manifest['format']}, this version of scellm reads {FORMAT}"
    needed = {
        "format": int,
        "n_cells": int,
        "dim": int,
        "usual": list,
        "searched": int,
        "columns": list,
        "files": dict,
        "sha256": str,
    }
    for name, kind in needed.items():
        if not isinstance(manifest.get(name), kind):
            return f"{MANIFEST} has no {name!r}, or another kind of value there"
    names = {VECTORS, MARKS, *(f"column-{i}.npy" for i in range(len(manifest["columns"])))}
    if set(manifest["files"]) != names:
        return f"{MANIFEST} names other files than {sorted(names)}"
    for name in sorted(names):
        path = folder / name
        if not path.is_file() or path.is_symlink():
            return f"{name} is missing, or a link"
        if check and _sha256(path) != manifest["files"][name]:
            return f"{name} is not what was written (its hash differs)"
    return ""


def _is_shared(counts: np.ndarray, n: int) -> np.ndarray:
    """Whether marks that so many of n cells have tell nothing."""
    return (counts > MOST_SAME) | ((n >= FEW_CELLS) & (2 * counts > n))


def _tuned(path: Path, parts: Sequence[np.ndarray], rng: int) -> dict[str, Any]:
    """What is measured with the index itself: regions to search, neighbors that are found then, and what is usual."""
    index, searched, recall = _read(path), 0, 1.0
    if hasattr(index, "nprobe"):
        searched, recall = n_searched(index, parts, rng)
    del index  # gives the pages of the file back
    return {"searched": searched, "recall": round(recall, 4), "usual": _usual(path, parts, searched, rng)}


def _usual(path: Path, parts: Sequence[np.ndarray], searched: int, rng: int) -> list[float]:
    """Quantiles of the distance of indexed cells to their 15th neighbor, themselves left out."""
    some = sampled(parts, SELF_CELLS, rng)
    if not len(some):
        return [0.0] * 101
    index = _read(path, searched)
    if hasattr(index, "quantizer"):  # by region: cells that are searched together look into the same ones
        some = some[np.argsort(index.quantizer.search(some, 1)[1][:, 0], kind="stable")]
    last = []
    for start in range(0, len(some), SELF_AT_ONCE):
        similarity, rows = index.search(some[start : start + SELF_AT_ONCE], SELF_NEIGHBORS + 1)
        last.append(np.nanmax(np.where(rows < 0, np.nan, 1 - similarity), axis=1))
        index = _read(path, searched)  # gives the pages of the file back
    distances = np.concatenate(last)
    return [round(float(max(x, 0)), 6) for x in np.quantile(distances, np.linspace(0, 1, 101))]


def _read(path: Path, searched: int = 0) -> faiss.Index:
    """An index whose vectors stay on the disk until they are searched, in so many regions."""
    faiss = _faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    if searched:
        index.nprobe = searched
    return index


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _faiss() -> Any:
    """The library, or how to get it."""
    try:
        import faiss
    except ImportError as error:
        msg = "Atlas search needs faiss. Install it with: pip install 'scellm[search]'"
        raise ImportError(msg) from error
    return faiss
