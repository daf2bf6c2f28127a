"""The packed file: cells of several datasets over one vocabulary, checked as they are read.

One HDF5 file, read with h5py alone. At its root the attributes `format` and `version`, and

- `vocabulary`: symbols, Ensembl ids and source, as JSON
- `datasets/0`, `datasets/1`, ...: attribute `name`; `data`, `indices`, `indptr` as AnnData stores CSR; `about` as JSON
- `datasets/0/labels/0`, ...: attribute `key`; `categories` as JSON, and `codes` of the cells among them

Each array has its SHA-256 in the attribute `sha256`. It is compared whenever the whole array is read: tables when
the file is opened, labels when they are asked for, expression when the file is opened if that is small
(`CHECK_BELOW`). Each chunk of an array has a Fletcher-32 sum, which HDF5 compares at every read.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cells._structure import ERRORS, MOST_COMPRESSION, SMALL, blamed, check_chunks, check_links
from ..cells._values import ValueReport
from ..genes._vocabulary import GeneVocabulary
from ._sources import DISK_BLOCK, Harmonizer, StoredSource
from ._stored import StoredMatrix, open_hdf5

FORMAT, VERSION = "scellm-packed", 1
CHECK_BELOW = 256 * 2**20
"""Bytes of a file up to which all expression is compared with its SHA-256 when the file is opened."""
AT_ONCE = 2**22
"""Values that are compared at once."""
PACK_AGAIN = "The file is damaged or was cut off: copy it again, or pack it again."


@dataclass(frozen=True)
class PackedFile:
    """An opened packed file."""

    vocabulary: GeneVocabulary
    datasets: dict[str, StoredSource]


def is_packed(path: Path) -> bool:
    """Whether a file says that it is packed."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with blamed(path, "the file", PACK_AGAIN), h5py.File(path, "r") as file:
        return file.attrs.get("format") == FORMAT


def open_packed(path: Path) -> PackedFile:
    """Open a packed file, cells left on the disk."""
    import h5py

    path = Path(path).absolute()
    with h5py.File(path, "r") as file:
        check_links(file, path)
        if (version := file.attrs.get("version")) != VERSION:
            msg = (
                f"{path} is a packed file of version {version}; this scellm reads version {VERSION}. "
                "Use the scellm that wrote it, or pack the data again."
            )
            raise ValueError(msg)
        with blamed(path, "the vocabulary or the list of datasets", PACK_AGAIN):
            fields = read_json(file["vocabulary"])
            vocabulary = GeneVocabulary(fields["ensembl_ids"], fields["symbols"], fields["source"])
            keys = [f"datasets/{number}" for number in range(len(file["datasets"]))]
            names = [str(file[key].attrs["name"]) for key in keys]
        datasets = {}
        for name, key in zip(names, keys, strict=True):
            try:
                datasets[name] = _open_dataset(path, file[key], name, len(vocabulary))
            except ERRORS as error:
                msg = f"{path}: dataset {name!r} cannot be read ({error}). {PACK_AGAIN}"
                raise ValueError(msg) from error
    return PackedFile(vocabulary, datasets)


def _open_dataset(path: Path, group: Any, name: str, n_genes: int) -> StoredSource:
    check = os.path.getsize(path) <= CHECK_BELOW  # noqa: PTH202
    for part in ("indptr", *(("data", "indices") if check else ())):
        check_array(group[part])
    matrix = StoredMatrix(path, group.name, open_hdf5)
    if matrix.shape[1] != n_genes:
        msg = f"it has {matrix.shape[1]} columns, the vocabulary {n_genes} genes"
        raise ValueError(msg)
    as_packed = Harmonizer(name, np.arange(n_genes), n_genes, ValueReport("counts", "linear, as packed"))
    labels = PackedLabels(path, group.name, matrix.shape[0])
    return StoredSource(
        [matrix], as_packed, block_size=DISK_BLOCK, labels=labels, about=read_json(group["about"])
    )


class PackedLabels:
    """Labels of a packed dataset."""

    def __init__(self, path: Path, key: str, n_cells: int) -> None:
        self._path, self._key = path, f"{key}/labels"
        with open_hdf5(path) as file:
            groups = file[self._key]
            self._groups = {str(groups[number].attrs["key"]): number for number in groups}
            for key_, number in self._groups.items():
                if groups[number]["codes"].shape != (n_cells,):
                    msg = f"label {key_!r} has {groups[number]['codes'].shape[0]} entries for {n_cells} cells"
                    raise ValueError(msg)
        self.keys = tuple(self._groups)

    def get(self, key: str) -> np.ndarray | None:
        """See `Labels`."""
        if key not in self._groups:
            return None
        with blamed(self._path, f"label {key!r}", PACK_AGAIN), open_hdf5(self._path) as file:
            group = file[self._key][self._groups[key]]
            categories = np.array(read_json(group["categories"]), dtype=object)
            check_array(group["codes"])
            return categories[group["codes"][:]]


def check_array(array: Any) -> None:
    """Compare a stored array with its SHA-256."""
    claimed, stored = array.shape[0] * array.dtype.itemsize, array.id.get_storage_size()
    if claimed > max(SMALL, MOST_COMPRESSION * stored):
        msg = f"{array.name} claims {claimed / 1e9:,.1f} GB, of which {stored / 1e6:,.3f} MB are in the file"
        raise ValueError(msg)
    check_chunks(array, array.name)
    digest = hashlib.sha256()
    for start in range(0, array.shape[0], AT_ONCE):
        digest.update(np.ascontiguousarray(array[start : start + AT_ONCE]))
    if digest.hexdigest() != array.attrs["sha256"]:
        msg = f"{array.name} is not what was written: its SHA-256 differs"
        raise ValueError(msg)


def read_json(array: Any) -> Any:
    """The value of a stored JSON text."""
    check_array(array)
    try:
        return json.loads(array[:].tobytes().decode())
    except RecursionError as error:
        msg = f"{array.name} is nested too deep"
        raise ValueError(msg) from error


def write_array(group: Any, name: str, values: np.ndarray) -> None:
    """Store an array with its SHA-256."""
    array = create_array(group, name, len(values), values.dtype)
    array[:] = values
    array.attrs["sha256"] = hashlib.sha256(np.ascontiguousarray(values)).hexdigest()


def write_json(group: Any, name: str, value: Any) -> None:
    """Store a value as JSON text."""
    write_array(group, name, np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8))


def create_array(group: Any, name: str, length: int, dtype: np.dtype) -> Any:
    """An empty stored array, compressed and with a sum per chunk; little-endian, as the digests are."""
    # lzf: read 1.4 times as fast as gzip, a quarter larger; every h5py has it. 16384: about 16 cells.
    options = (
        {"chunks": (min(length, 16384),), "compression": "lzf", "shuffle": True, "fletcher32": True}
        if length
        else {}
    )
    return group.create_dataset(name, shape=(length,), dtype=np.dtype(dtype).newbyteorder("<"), **options)
