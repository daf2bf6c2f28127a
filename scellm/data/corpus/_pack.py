"""pack: write a corpus into one file that h5py alone can read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from ..._files import replacing
from ..genes._match import MIN_OVERLAP
from ..genes._vocabulary import GeneVocabulary
from ._corpus import Corpus
from ._packed import FORMAT, VERSION, create_array, is_packed, write_array, write_json
from ._sources import CELLS_AT_ONCE

PROGRESS_FROM = 5000
"""Cells from which on a progress bar is shown."""


def pack(
    data: Any,
    path: str | os.PathLike[str],
    *,
    vocabulary: GeneVocabulary | None = None,
    label_keys: Sequence[str] | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = MIN_OVERLAP,
    overwrite: bool = False,
    show_progress: bool | None = None,
) -> Path:
    """Write datasets into one file, harmonized onto a vocabulary.

    The file can be read without anndata, checks itself against damage, and is a fraction of the size of the data.
    All cells are read twice, a thousand at a time: once to see what the numbers are, once to write them.

    Parameters
    ----------
    data
        A `Corpus`, or anything `Corpus.build` takes.
    path
        File to write, `.h5`; by custom `corpus.scellm.h5`.
    vocabulary
        Genes of the columns; `None` as in `Corpus.build`.
    label_keys
        Columns of `obs` to write; `None` takes all of text, categories, or true and false.
    layer, use_raw, gene_key, min_overlap
        As in `Corpus.build`.
    overwrite
        Replace a file that is there.
    show_progress
        Show a bar; `None` shows it from 5,000 cells on.

    Returns
    -------
    The path.

    Raises
    ------
    FileExistsError
        The file is there and `overwrite` is `False`.
    FileNotFoundError
        The folder of `path` is not there, or as `Corpus.build`.
    KeyError
        No dataset has one of the `label_keys`, or as `Corpus.build`.
    TypeError, ValueError
        `path` does not end in `.h5`, `label_keys` is one text, options beside a `Corpus`, or as `Corpus.build`.

    Examples
    --------
    >>> import scellm, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = scellm.data.pack({"toy": scellm.datasets.toy_cells(100)}, f"{folder}/corpus.scellm.h5")
    >>> scellm.data.Corpus.build(path).names
    ('toy',)
    """
    path = Path(path)
    _check_output(path, overwrite=overwrite)
    if isinstance(label_keys, str):
        msg = f"label_keys is a list of names; found the text {label_keys!r}. Use [{label_keys!r}]."
        raise TypeError(msg)
    options = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, "min_overlap": min_overlap}
    if isinstance(data, Corpus):
        defaults = {"layer": None, "use_raw": None, "gene_key": None, "min_overlap": MIN_OVERLAP}
        if options != defaults or vocabulary not in (None, data.vocabulary):
            msg = "vocabulary=, layer=, use_raw=, gene_key= and min_overlap= are chosen in Corpus.build; leave them out here."
            raise ValueError(msg)
        corpus = data
    else:
        corpus = Corpus.build(data, vocabulary, in_memory=False, **options)
    keys = list(corpus.label_keys) if label_keys is None else list(dict.fromkeys(label_keys))
    labels = {key: corpus.labels(key) for key in keys}

    show = corpus.n_cells >= PROGRESS_FROM if show_progress is None else show_progress
    with (
        replacing(path, lambda _: _check_output(path, overwrite=overwrite)) as part,
        tqdm(total=2 * corpus.n_cells, desc="pack", unit="cell", disable=not show) as progress,
    ):
        _write(corpus, labels, part, progress)
    return path


def _check_output(path: Path, *, overwrite: bool) -> None:
    if path.suffix != ".h5":
        msg = f"A packed file must end in '.h5', for instance {path.stem + '.scellm.h5'!r}; found {path.name!r}."
        raise ValueError(msg)
    if path.is_dir() or (path.exists() and not overwrite):
        msg = f"{path} is there already; pass overwrite=True (--overwrite) to replace it, or another name."
        raise FileExistsError(msg)
    if path.exists() and not _is_ours(path):
        msg = f"{path} is not a packed file; it is not replaced. Choose another name."
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f"There is no folder {path.parent} to write {path.name} into."
        raise FileNotFoundError(msg)


def _is_ours(path: Path) -> bool:
    """Whether a file was packed by scellm, be it damaged."""
    try:
        return path.is_file() and is_packed(path)
    except ValueError:  # damaged
        return True


@dataclass
class _Survey:
    """What has to be known of a dataset before it is written."""

    indptr: np.ndarray
    """(n_cells + 1,) int64."""
    largest: float
    is_whole: bool

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds all values as they are."""
        if self.is_whole and self.largest < 2**24:  # float32 counts no further
            return np.min_scalar_type(int(self.largest))
        return np.dtype(np.float32)


def _write(corpus: Corpus, labels: dict[str, list[np.ndarray]], path: Path, progress: tqdm) -> None:
    """Write the whole file."""
    import h5py

    vocabulary = corpus.vocabulary
    # one dataset after the other: a damaged cell in the last is found before anything large is written
    surveys = [_survey(corpus, number, progress) for number in range(len(corpus))]
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION})
        fields = {"symbols": vocabulary.symbols.tolist(), "ensembl_ids": vocabulary.ensembl_ids.tolist()}
        write_json(file, "vocabulary", fields | {"source": vocabulary.source})
        for number, (name, survey) in enumerate(zip(corpus.names, surveys, strict=True)):
            group = file.create_group(f"datasets/{number}")
            shape = (len(survey.indptr) - 1, len(vocabulary))
            group.attrs.update({"name": name, "encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            group.attrs["shape"] = shape
            write_json(group, "about", corpus.about[name])
            _write_counts(group, corpus, number, survey, progress)
            group.create_group("labels")
            for at, (key, columns) in enumerate(labels.items()):
                _write_label(group.create_group(f"labels/{at}"), key, columns[number])


def _survey(corpus: Corpus, dataset: int, progress: tqdm) -> _Survey:
    """Read all cells once."""
    lengths, largest, is_whole = [np.zeros(1, dtype=np.int64)], 0.0, True
    for block in _blocks(corpus, dataset, progress):
        lengths.append(np.diff(block.indptr).astype(np.int64))
        largest = max(largest, float(block.data.max(initial=0)))
        is_whole = is_whole and bool((block.data == np.floor(block.data)).all())
    return _Survey(np.cumsum(np.concatenate(lengths)), largest, is_whole)


def _write_counts(group: Any, corpus: Corpus, dataset: int, survey: _Survey, progress: tqdm) -> None:
    """Read all cells again, and write them."""
    n_values, n_genes = int(survey.indptr[-1]), len(corpus.vocabulary)
    arrays = {
        "data": create_array(group, "data", n_values, survey.dtype),
        "indices": create_array(group, "indices", n_values, np.uint16 if n_genes <= 2**16 else np.uint32),
    }
    digests = {name: hashlib.sha256() for name in arrays}
    at = 0
    for block in _blocks(corpus, dataset, progress):
        for name, array in arrays.items():
            values = np.ascontiguousarray(getattr(block, name), dtype=array.dtype)
            digests[name].update(values)
            if len(values):
                array[at : at + len(values)] = values
        at += block.nnz
    for name, array in arrays.items():
        array.attrs["sha256"] = digests[name].hexdigest()
    write_array(group, "indptr", survey.indptr)


def _blocks(corpus: Corpus, dataset: int, progress: tqdm) -> Iterator[sp.csr_array]:
    """All cells of a dataset, block by block."""
    size = int(corpus.sizes[dataset])
    for start in range(0, size, CELLS_AT_ONCE):
        cells = np.arange(start, min(start + CELLS_AT_ONCE, size))
        yield corpus.counts(dataset, cells)
        progress.update(len(cells))


def _write_label(group: Any, key: str, column: np.ndarray) -> None:
    """A column as its categories and the code of each cell among them."""
    categories, codes = np.unique(column.astype(str), return_inverse=True)
    group.attrs["key"] = key
    write_json(group, "categories", categories.tolist())
    write_array(group, "codes", codes.astype(np.min_scalar_type(max(len(categories) - 1, 0))))
