"""Where cells come from: linear expression over the vocabulary, for any rows of one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp

from ..cells._expression import Expression, Harmonizer, ReadOptions, naming
from ..cells._rows import open_matrix, open_zarr
from ..genes._vocabulary import GeneVocabulary
from ._labels import Labels, StoredLabels, TableLabels
from ._stored import StoredMatrix, open_hdf5

if TYPE_CHECKING:
    from anndata import AnnData

DISK_BLOCK, ZARR_BLOCK = 16, 64
"""Neighboring cells that are read together from HDF5 and from zarr, whose chunks are larger."""
CELLS_AT_ONCE = 1024
"""Cells that are read at once where all are."""


class CellSource(Protocol):
    """Cells of one dataset."""

    n_cells: int
    block_size: int
    """Neighboring cells that should be read together; 1 where single ones cost nothing."""

    def counts(self, rows: np.ndarray) -> sp.csr_array:
        """Linear expression of some cells.

        Parameters
        ----------
        rows
            (B,) cell numbers in any order, repeated or not.

        Returns
        -------
        (B, n_genes) float32 CSR over the vocabulary, sorted, without stored zeros; row i is `rows[i]`.
        """


class Dataset(CellSource, Protocol):
    """A source with its labels and where it comes from."""

    labels: Labels
    about: dict[str, Any]


class MemorySource:
    """Cells in memory, harmonized already.

    Parameters
    ----------
    counts
        (n_cells, n_genes) linear expression, as `CellSource.counts` gives it.
    labels, about
        Of the dataset.
    """

    block_size = 1

    def __init__(self, counts: sp.csr_array, labels: Labels, about: dict[str, Any]) -> None:
        self.n_cells = counts.shape[0]
        self.labels, self.about = labels, about
        self._counts = counts

    @classmethod
    def from_anndata(
        cls, dataset: str, adata: AnnData, vocabulary: GeneVocabulary, options: ReadOptions
    ) -> MemorySource:
        """Harmonize the cells of an AnnData; later changes of it are not seen."""
        with Expression.open(adata, vocabulary, options, dataset=dataset) as cells:
            blocks = [counts for _, counts in cells.counts()]
        labels = TableLabels(adata.obs)
        uns = {key: adata.uns[key] for key in ORIGIN if key in adata.uns}
        return cls(_stack(blocks), labels, about_dataset(adata.n_obs, cells.harmonizer, uns, labels))

    @classmethod
    def load(cls, source: Dataset) -> MemorySource:
        """The cells of another source, read once."""
        starts = range(0, source.n_cells, CELLS_AT_ONCE)
        blocks = [
            source.counts(np.arange(start, min(start + CELLS_AT_ONCE, source.n_cells))) for start in starts
        ]
        return cls(_stack(blocks), source.labels, source.about)

    def counts(self, rows: np.ndarray) -> sp.csr_array:
        """See `CellSource`."""
        return self._counts[check_rows(rows, self.n_cells)]


class StoredSource:
    """Cells on the disk.

    Parameters
    ----------
    matrices
        One below the other.
    harmonizer
        From stored rows to expression over the vocabulary.
    block_size, labels, about
        Of the dataset.
    """

    def __init__(
        self,
        matrices: Sequence[StoredMatrix],
        harmonizer: Harmonizer,
        *,
        block_size: int,
        labels: Labels,
        about: dict[str, Any],
    ) -> None:
        self.block_size, self.labels, self.about = block_size, labels, about
        self._matrices, self._harmonizer = tuple(matrices), harmonizer
        self._offsets = np.cumsum([0, *(matrix.shape[0] for matrix in matrices)])
        self.n_cells = int(self._offsets[-1])

    @property
    def n_bytes(self) -> int:
        """Memory the cells would take."""
        return sum(matrix.n_bytes for matrix in self._matrices)

    def counts(self, rows: np.ndarray) -> sp.csr_array:
        """See `CellSource`. Neighboring cells are one read, wherever they stand in `rows`."""
        cells, where = np.unique(check_rows(rows, self.n_cells), return_inverse=True)
        try:
            bounds = np.searchsorted(cells, self._offsets)
            parts = [
                matrix.read(cells[first:last] - offset)
                for matrix, offset, first, last in zip(
                    self._matrices, self._offsets[:-1], bounds[:-1], bounds[1:], strict=True
                )
                if last > first or len(self._matrices) == 1
            ] or [self._matrices[0].read(cells)]
        except (OSError, ValueError) as error:
            msg = f"Dataset {self._harmonizer.dataset!r}: {error}"
            raise type(error)(msg) from error
        stored = parts[0] if len(parts) == 1 else _stack(parts)
        counts = self._harmonizer.counts(stored, cells)
        return counts if np.array_equal(where, np.arange(len(cells))) else counts[where]


def open_anndata_file(
    dataset: str, path: Path, vocabulary: GeneVocabulary, options: ReadOptions
) -> StoredSource:
    """The cells of an h5ad file or of a zarr folder, left on the disk."""
    is_zarr = path.suffix == ".zarr"
    opener = open_zarr if is_zarr else open_hdf5
    with naming(dataset):
        try:
            with open_matrix(path, options.layer, options.use_raw) as found:
                var, raw_var = found.var, found.raw_var
            matrix = StoredMatrix(path, options.slot, opener)
        except FileNotFoundError:
            raise
        except OSError as error:
            msg = f"{path} cannot be opened ({error}). If it is cut off or damaged, copy or write it again."
            raise OSError(msg) from error
    harmonizer = Harmonizer.learn(dataset, matrix, var, vocabulary, options, raw_var)
    labels = StoredLabels(path, opener, {"obs": matrix.shape[0]})
    about = about_dataset(matrix.shape[0], harmonizer, read_origin(opener(path)), labels)
    block_size = ZARR_BLOCK if is_zarr else DISK_BLOCK
    return StoredSource([matrix], harmonizer, block_size=block_size, labels=labels, about=about)


ORIGIN = ("paper", "provenance", "licence")
"""Keys of `uns` that say where cells come from."""


def read_origin(store: Any) -> dict[str, Any]:
    """`ORIGIN` from the `uns` of an open file, as far as it is there."""
    from anndata.io import read_elem

    return {key: read_elem(store["uns"][key]) for key in ORIGIN if "uns" in store and key in store["uns"]}


def about_dataset(
    n_cells: int, harmonizer: Harmonizer, uns: dict[str, Any], labels: Labels
) -> dict[str, Any]:
    """Where cells come from and what they are, for model cards and logs."""
    ids = harmonizer.gene_ids
    about = {
        "cells": n_cells,
        "values": harmonizer.values.kind,
        "vocabulary_genes": len(np.unique(ids[ids >= 0])),
    }
    about |= {key: str(uns[key]) for key in ORIGIN if uns.get(key)}
    for key in ("tissue", "organism"):
        if key in labels.keys and (names := sorted(set(labels.get(key)) - {""})):
            about[key] = ", ".join(names)
    if "malignant" in labels.keys:
        is_cancer = labels.get("malignant")
        about |= {"cancer": int((is_cancer == "True").sum()), "normal": int((is_cancer == "False").sum())}
    return about


def check_rows(rows: np.ndarray, n_cells: int) -> np.ndarray:
    """Cell numbers, or an error that says what is wrong with them."""
    rows = np.asarray(rows)
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
        msg = f"Cells are asked for by their numbers, a vector of whole ones; found {rows.dtype} of shape {rows.shape}."
        raise TypeError(msg)
    if rows.size and (rows.min() < 0 or rows.max() >= n_cells):
        msg = f"Cell {rows.min() if rows.min() < 0 else rows.max()} was asked for; the dataset has the cells 0 to {n_cells - 1}."
        raise IndexError(msg)
    return rows.astype(np.int64, copy=False)


def _stack(blocks: list[sp.csr_array]) -> sp.csr_array:
    return sp.csr_array(sp.vstack(blocks, format="csr"))
