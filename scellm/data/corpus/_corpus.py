"""Corpus: cells of many studies seen over one vocabulary, in memory or on the disk."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from ..genes._match import MIN_OVERLAP
from ..genes._vocabulary import GeneVocabulary
from ._collection import is_collection, open_collection
from ._packed import is_packed, open_packed
from ._sources import Dataset, MemorySource, ReadOptions, StoredSource, open_anndata_file

IN_MEMORY, IN_MEMORY_TOGETHER = 256 * 2**20, 2 * 2**30
"""Bytes up to which `in_memory="auto"` loads one dataset, and all that it loads together."""
SAMPLED_STRETCHES, STRETCH = 64, 16
"""Stretches of neighboring cells, and their length, of which the fingerprint of a dataset is made."""
MAY_BE_GIVEN = (
    "an AnnData, a path (.h5ad file, folder of .h5ad files, packed .h5 file, .zarr folder of AnnData or annbatch), "
    "a list of those, or a mapping from names to those"
)


@dataclass(frozen=True)
class _Input:
    """One thing to open."""

    name: str
    value: Any
    """AnnData or path."""
    kind: Literal["adata", "file", "packed", "collection"]


class Corpus:
    """Datasets over one gene vocabulary; made by `Corpus.build`.

    Cells are known by the number of their dataset and their row in it. A corpus can be pickled and used after a
    fork: files are opened again.

    Attributes
    ----------
    vocabulary
        Genes of the columns.
    names
        Names of the datasets, sorted.
    sizes
        Cells of each dataset, int64, shape (n_datasets,).
    block_sizes
        Neighboring cells of each dataset that should be read together, 1 in memory. Shape (n_datasets,).
    about
        By dataset, where it comes from and what it holds: `cells`, `values` as `describe_values` names them,
        `vocabulary_genes` measured; as far as known, `paper`, `provenance`, `licence`, `tissue`, `organism`, and the
        numbers of `cancer` and `normal` cells.
    """

    def __init__(self, datasets: Mapping[str, Dataset], vocabulary: GeneVocabulary) -> None:
        datasets = dict(sorted(datasets.items()))
        self.vocabulary = vocabulary
        self.names = tuple(datasets)
        self.sizes = np.array([dataset.n_cells for dataset in datasets.values()], dtype=np.int64)
        self.block_sizes = np.array([dataset.block_size for dataset in datasets.values()], dtype=np.int64)
        self.about: dict[str, dict[str, Any]] = {name: dict(d.about) for name, d in datasets.items()}
        self._datasets = tuple(datasets.values())

    @classmethod
    def build(
        cls,
        data: Any,
        vocabulary: GeneVocabulary | None = None,
        *,
        layer: str | None = None,
        use_raw: bool | None = None,
        gene_key: str | None = None,
        min_overlap: float = MIN_OVERLAP,
        in_memory: bool | Literal["auto"] = "auto",
    ) -> Corpus:
        """Open datasets and match their genes.

        Parameters
        ----------
        data
            An AnnData, a path, a list of those, or a mapping from names to those. A path is an `.h5ad` file, a folder
            of them, a file that `pack` wrote, or a `.zarr` folder: an AnnData or a collection of annbatch (extra
            `stream`). Files are named by their stem.
        vocabulary
            Genes of the columns; `None` takes that of the packed files among the data, else the packaged one.
        layer, use_raw, gene_key
            Which matrix and which names of genes, as in `tl.embed`, the same for all datasets. Packed files have one.
        min_overlap
            Fraction of the vocabulary that each dataset must have measured.
        in_memory
            Load cells, or read them from the disk when they are asked for. "auto" loads a dataset that takes less
            than 256 MB, as long as all together take less than 2 GB. An AnnData stays in memory in any case.

        Returns
        -------
        The corpus.

        Raises
        ------
        FileNotFoundError
            Nothing there, or a folder without `.h5ad` files.
        ImportError
            A package that the data needs is not installed.
        KeyError
            No such layer or column.
        TypeError
            `data` is something else.
        ValueError
            No dataset, two of one name, packed files of another vocabulary, too few vocabulary genes, or values that
            are not expression: which dataset, and what to do.

        Examples
        --------
        >>> import scellm
        >>> corpus = scellm.data.Corpus.build(scellm.datasets.toy_cells(100))
        >>> corpus
        Corpus(1 dataset, 100 cells, 19315 genes)
        >>> corpus.counts(0, [5, 3]).shape
        (2, 19315)
        """
        if in_memory not in (True, False, "auto"):
            msg = f"in_memory={in_memory!r}; need True, False or 'auto'."
            raise ValueError(msg)
        options = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
        inputs = list(_inputs(data))
        if not inputs:
            msg = f"There are no cells: the data is empty. Give {MAY_BE_GIVEN}."
            raise ValueError(msg)
        packed = {each.value: open_packed(each.value) for each in inputs if each.kind == "packed"}
        vocabulary = _common_vocabulary({path: p.vocabulary for path, p in packed.items()}, vocabulary)

        datasets: dict[str, Dataset] = {}
        came_from: dict[str, Any] = {}
        loaded = 0
        for each in inputs:
            if each.kind == "packed":
                found = _named_inside(each.name, packed[each.value].datasets)
            elif each.kind == "adata":
                found = {each.name: MemorySource.from_anndata(each.name, each.value, vocabulary, options)}
            else:
                opener = open_collection if each.kind == "collection" else open_anndata_file
                found = {each.name: opener(each.name, each.value, vocabulary, options)}
            for name, dataset in found.items():
                if name in datasets:
                    msg = (
                        f"Two datasets are called {name!r}: {_place(came_from[name])} and {_place(each.value)}. Rename a "
                        "file, or pass a mapping from names to data."
                    )
                    raise ValueError(msg)
                if isinstance(dataset, StoredSource) and _loads(dataset.n_bytes, loaded, in_memory):
                    loaded += dataset.n_bytes
                    dataset = MemorySource.load(dataset)
                datasets[name], came_from[name] = dataset, each.value
        return cls(datasets, vocabulary)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        datasets = "1 dataset" if len(self) == 1 else f"{len(self)} datasets"
        return f"Corpus({datasets}, {self.n_cells} cells, {len(self.vocabulary)} genes)"

    @property
    def n_cells(self) -> int:
        """Cells of all datasets."""
        return int(self.sizes.sum())

    @property
    def label_keys(self) -> tuple[str, ...]:
        """Columns of text, categories, or true and false that some dataset has, sorted."""
        return tuple(sorted({key for dataset in self._datasets for key in dataset.labels.keys}))

    def counts(self, dataset: int, rows: np.ndarray | Sequence[int]) -> sp.csr_array:
        """Linear expression of some cells of one dataset.

        Parameters
        ----------
        dataset
            Number of the dataset, its place in `names`.
        rows
            Cells in any order, repeated or not. Shape (B,).

        Returns
        -------
        (B, n_genes) float32 CSR over the vocabulary, sorted, without stored zeros; row i is `rows[i]`. Whole numbers
        where the dataset has counts.

        Raises
        ------
        IndexError
            No such cell.
        OSError
            The file cannot be read, or was written to since.
        ValueError
            A NaN, infinite or negative value: in which dataset, cell and column.
        """
        return self._datasets[dataset].counts(np.asarray(rows))

    def labels(self, key: str) -> list[np.ndarray]:
        """A column of `obs` as text.

        Parameters
        ----------
        key
            Name of the column.

        Returns
        -------
        For each dataset an array of shape (n_cells,), dtype object: "" where the column or the entry is missing, or
        says "NA", "nan", "unknown" or the like.

        Raises
        ------
        KeyError
            No dataset has the column.
        TypeError
            It holds measurements.
        """
        found = [dataset.labels.get(key) for dataset in self._datasets]
        if all(column is None for column in found):
            msg = f"No dataset has the column {key!r}. There are {list(self.label_keys)}."
            raise KeyError(msg)
        return [
            np.full(size, "", dtype=object) if column is None else column
            for column, size in zip(found, self.sizes, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary, of the names and sizes of the datasets, and of expression.

        Of a dataset of up to 1,024 cells all count, of a larger one 64 stretches of 16 neighboring cells. The same for
        the same cells in memory, in a file, or packed.
        """
        digest = hashlib.sha256()
        for names in (self.vocabulary.symbols, self.vocabulary.ensembl_ids, self.names):
            digest.update("\n".join([*names, ""]).encode())
        digest.update(self.sizes.astype("<i8"))
        for dataset, size in enumerate(self.sizes.tolist()):
            cells = _sampled_cells(size)
            for start in range(0, len(cells), 256):
                counts = self.counts(dataset, cells[start : start + 256])
                for values, dtype in ((counts.indptr, "<i8"), (counts.indices, "<i4"), (counts.data, "<f4")):
                    digest.update(np.ascontiguousarray(values, dtype=dtype))
        return digest.hexdigest()


def _inputs(data: Any, name: str | None = None) -> Iterator[_Input]:
    """The things to open, each with a name; folders, lists and mappings taken apart."""
    if _is_anndata(data):
        yield _Input(name or "adata", data, "adata")
    elif isinstance(data, str | os.PathLike):
        yield from _files(Path(data).expanduser(), name)
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if not isinstance(key, str) or not key:
                msg = f"Datasets are named by text; the mapping has the name {key!r}."
                raise TypeError(msg)
            yield from _inputs(value, key if name is None else f"{name}/{key}")
    elif isinstance(data, list | tuple | set | frozenset | Iterator):
        items = list(data)
        for number, item in enumerate(items):
            own = name
            if len(items) > 1 and _is_anndata(item):
                own = f"adata{number}" if name is None else f"{name}/{number}"
            elif len(items) > 1 and name is not None and isinstance(item, str | os.PathLike):
                own = f"{name}/{Path(item).stem}"
            yield from _inputs(item, own)
    else:
        msg = f"A corpus cannot be made of {type(data).__name__}. Give {MAY_BE_GIVEN}."
        raise TypeError(msg)


def _files(path: Path, name: str | None) -> Iterator[_Input]:
    """The files that a path stands for."""
    if not path.exists():
        msg = f"There is no file or folder {path}."
        raise FileNotFoundError(msg)
    if path.is_dir():
        if path.suffix == ".zarr" or any((path / mark).exists() for mark in ("zarr.json", ".zgroup")):
            yield _Input(name or path.stem, path, "collection" if is_collection(path) else "file")
            return
        files = sorted(path.glob("*.h5ad"))
        if not files:
            msg = f"No .h5ad file in {path}."
            raise FileNotFoundError(msg)
        for file in files:
            own = file.stem if name is None else name if len(files) == 1 else f"{name}/{file.stem}"
            yield _Input(own, file, "file")
    elif path.suffix == ".h5ad":
        yield _Input(name or path.stem, path, "file")
    elif is_packed(path):
        yield _Input(name or "", path, "packed")
    else:
        msg = f"{path} is neither an .h5ad file nor one that `scellm pack` wrote, or it is damaged. Give {MAY_BE_GIVEN}."
        raise ValueError(msg)


def _named_inside(name: str, datasets: dict[str, StoredSource]) -> dict[str, StoredSource]:
    """The datasets of a packed file under the name it was given, or their own."""
    if not name:
        return datasets
    if len(datasets) == 1:
        return dict(zip([name], datasets.values(), strict=True))
    return {f"{name}/{own}": dataset for own, dataset in datasets.items()}


def _common_vocabulary(
    packed: dict[Path, GeneVocabulary], vocabulary: GeneVocabulary | None
) -> GeneVocabulary:
    """The given vocabulary, else that of the packed files, else the packaged one."""
    if vocabulary is not None and not isinstance(vocabulary, GeneVocabulary):
        msg = f"vocabulary must be a GeneVocabulary, found {type(vocabulary).__name__}."
        raise TypeError(msg)
    chosen = vocabulary if vocabulary is not None else next(iter(packed.values()), None)
    for path, other in packed.items():
        if other != chosen:
            msg = (
                f"{path} was packed over another vocabulary ({other!r}) than the one asked for ({chosen!r}). Pack the "
                "data again over that one, or leave vocabulary= out and give files of one vocabulary."
            )
            raise ValueError(msg)
    return chosen if chosen is not None else GeneVocabulary.default()


def _loads(n_bytes: int, loaded: int, in_memory: bool | Literal["auto"]) -> bool:
    """Whether a dataset is loaded, beside `loaded` bytes of others."""
    if in_memory == "auto":
        return n_bytes < IN_MEMORY and loaded + n_bytes < IN_MEMORY_TOGETHER
    return in_memory


def _sampled_cells(n_cells: int) -> np.ndarray:
    """Cells that the fingerprint looks at: all, or stretches at even distances."""
    if n_cells <= SAMPLED_STRETCHES * STRETCH:
        return np.arange(n_cells)
    starts = np.linspace(0, n_cells - STRETCH, SAMPLED_STRETCHES).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(STRETCH))


def _is_anndata(value: Any) -> bool:
    """Whether it is an AnnData; where anndata was not imported nothing is."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(value, anndata.AnnData)


def _place(value: Any) -> str:
    return str(value) if isinstance(value, Path) else "an AnnData"
