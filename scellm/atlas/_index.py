"""An index of embeddings: a folder with the vectors in half precision by region, columns of cells, and a manifest with hashes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._files import read_json, replacing
from .._version import __version__

if TYPE_CHECKING:
    import faiss

FORMAT = 1
VECTORS, MANIFEST = "vectors.faiss", "manifest.json"
FEW = 20_000
"""Cells up to which all are compared with; more are split into regions."""
TRAINED_ON = 64
"""Cells for each region from which the regions are learned."""
SEARCHED = 16
"""Regions of the index that are searched for a cell (ours; `docs/benchmarks/search.md` has the recall)."""
SELF_CELLS, SELF_NEIGHBORS = 2_000, 15
"""Cells of the index whose own distances say what is usual, and to which neighbor."""
REMEDY = "Build the index again with scellm.tl.index."


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
            similarity, found = self.vectors.search(_unit(vectors[known]), k)
            rows[known] = found
            distances[known] = np.where(found < 0, np.nan, np.clip(1 - similarity, 0, 2))
        return rows, distances

    def stored(self) -> np.ndarray:
        """(n_cells, dim) float16, all embeddings at length one; NaN where a cell had none."""
        faiss = _faiss()
        index = faiss.read_index(str(self.folder / VECTORS))
        if hasattr(index, "id_map"):
            ids = faiss.vector_to_array(index.id_map)
        else:
            lists = index.invlists
            ids = np.concatenate(
                [faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(index.nlist)]
            )
            index.set_direct_map_type(faiss.DirectMap.Hashtable)
        found = np.full((self.n_cells, index.d), np.nan, np.float16)
        for start in range(0, len(ids), FEW):
            some = np.ascontiguousarray(ids[start : start + FEW])
            found[some] = index.reconstruct_batch(some)
        return found

    def unusual(self, distances: np.ndarray) -> np.ndarray:
        """(n,) share of the index's own cells whose 15th neighbor is nearer than that of these cells.

        Parameters
        ----------
        distances
            (n, k) as from `search`; with another k than 15 its last one stands for the 15th.
        """
        last = distances[:, min(SELF_NEIGHBORS, distances.shape[1]) - 1]
        share = np.searchsorted(np.asarray(self.manifest["usual"]), last) / 100
        return np.where(np.isnan(last), np.nan, np.minimum(share, 1)).astype(np.float32)


def build_index(
    parts: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Any] | pd.Series],
    folder: Path,
    *,
    about: Mapping[str, Any],
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
    index = _trained(faiss, parts, n_cells, dim, rng)
    start = 0
    for part in parts:
        known = np.flatnonzero(np.isfinite(part).all(1))
        index.add_with_ids(_unit(part[known]), start + known)
        start += len(part)
    manifest = {
        "format": FORMAT,
        "scellm_version": __version__,
        **about,
        "dim": dim,
        "n_cells": n_cells,
        "usual": _usual(index, parts, rng),
        "columns": [
            {"name": str(name), "categories": [str(x) for x in values.categories]}
            for name, values in tables.items()
        ],
    }
    with replacing(folder) as new:
        new.mkdir()
        faiss.write_index(index, str(new / VECTORS))
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
        msg = f"There is no index in {folder}: {MANIFEST} is missing. {REMEDY}"
        raise FileNotFoundError(msg)
    manifest = read_json(folder / MANIFEST, REMEDY)
    problem = _problem(folder, manifest, check=check)
    if problem:
        msg = f"The index {folder} cannot be used: {problem}. {REMEDY}"
        raise ValueError(msg)
    faiss = _faiss()
    vectors = faiss.read_index(str(folder / VECTORS), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    if vectors.d != manifest["dim"]:
        msg = f"The index {folder} cannot be used: its vectors have {vectors.d} numbers, its manifest says {manifest['dim']}. {REMEDY}"
        raise ValueError(msg)
    return AtlasIndex(folder, manifest, vectors)


def _problem(folder: Path, manifest: Mapping[str, Any], *, check: bool) -> str:
    """What is wrong with an index, before anything but its manifest is read; "" if nothing."""
    needed = {
        "format": int,
        "n_cells": int,
        "dim": int,
        "usual": list,
        "columns": list,
        "files": dict,
        "sha256": str,
    }
    for name, kind in needed.items():
        if not isinstance(manifest.get(name), kind):
            return f"{MANIFEST} has no {name!r}, or another kind of value there"
    if manifest["format"] > FORMAT:
        return f"it has format {manifest['format']}, this version of scellm reads {FORMAT}"
    names = {VECTORS, *(f"column-{i}.npy" for i in range(len(manifest["columns"])))}
    if set(manifest["files"]) != names:
        return f"{MANIFEST} names other files than {sorted(names)}"
    for name in sorted(names):
        path = folder / name
        if not path.is_file() or path.is_symlink():
            return f"{name} is missing, or a link"
        if check and _sha256(path) != manifest["files"][name]:
            return f"{name} is not what was written (its hash differs)"
    return ""


def _trained(faiss: Any, parts: Sequence[np.ndarray], n_cells: int, dim: int, rng: int) -> faiss.Index:
    """An empty index: of all cells at once where they are few, else by regions learned from some of them."""
    metric = faiss.METRIC_INNER_PRODUCT
    if n_cells <= FEW:
        index = faiss.index_factory(dim, "IDMap2,SQfp16", metric)
        index.train(
            _unit(_sampled(parts, FEW, rng))
        )  # half precision learns nothing, but faiss wants to be told
        return index
    n_regions = 2 ** round(math.log2(4 * math.sqrt(n_cells)))
    index = faiss.index_factory(dim, f"IVF{n_regions},SQfp16", metric)
    index.cp.seed, index.cp.niter = rng + 1, 8
    index.train(_unit(_sampled(parts, TRAINED_ON * n_regions, rng)))
    index.nprobe = min(SEARCHED, n_regions)
    return index


def _sampled(parts: Sequence[np.ndarray], n: int, rng: int) -> np.ndarray:
    """Some rows of all parts, those of NaN left out."""
    total = sum(map(len, parts))
    chosen = np.sort(np.random.default_rng(rng).choice(total, min(n, total), replace=False))
    starts = np.cumsum([0, *map(len, parts)])
    rows = [
        part[chosen[(chosen >= a) & (chosen < a + len(part))] - a]
        for part, a in zip(parts, starts, strict=False)
    ]
    found = np.concatenate(rows).astype(np.float32)
    return found[np.isfinite(found).all(1)]


def _usual(index: faiss.Index, parts: Sequence[np.ndarray], rng: int) -> list[float]:
    """Quantiles of the distance of indexed cells to their 15th neighbor, themselves left out."""
    some = _sampled(parts, SELF_CELLS, rng)
    if not len(some):
        return [0.0] * 101
    similarity, rows = index.search(_unit(some), SELF_NEIGHBORS + 1)
    last = np.where(rows < 0, np.nan, 1 - similarity)
    distances = np.nanmax(last, axis=1)
    return [round(float(max(x, 0)), 6) for x in np.quantile(distances, np.linspace(0, 1, 101))]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float32 and contiguous, as faiss needs them."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


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
