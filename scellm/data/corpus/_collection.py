"""Collections of annbatch: cells of many studies, shuffled once, in zarr."""

from __future__ import annotations

import sys
from pathlib import Path

from ..._files import check_folder
from ..cells._rows import open_zarr
from ..genes._vocabulary import GeneVocabulary
from ._labels import StoredLabels
from ._sources import ZARR_BLOCK, Harmonizer, ReadOptions, StoredSource, about_dataset, read_origin
from ._stored import StoredMatrix

ENCODING = "annbatch-preshuffled"
"""What the root of a collection says it is."""


def is_collection(path: Path) -> bool:
    """Whether a zarr folder is a collection."""
    return open_zarr(path).attrs.get("encoding-type") == ENCODING


def open_collection(
    dataset: str, path: Path, vocabulary: GeneVocabulary, options: ReadOptions
) -> StoredSource:
    """The cells of a collection as one dataset, left on the disk.

    Which cells come when is decided by scellm's sampler, so that a run can be resumed and shared between machines;
    annbatch's `Loader` decides that itself. Its `DatasetCollection` says what is in the folder and in which order.
    """
    try:
        from annbatch import DatasetCollection
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        msg = (
            f"{path.name} is a collection of annbatch, which needs Python >= 3.12 (this is {version}): "
            "pip install 'scellm[stream]' there, or pack the h5ad files it was made from: `scellm pack`."
        )
        raise ImportError(msg) from error
    from anndata.io import read_elem

    check_folder(path)
    root = open_zarr(path)
    groups = [group.path for group in DatasetCollection(root)]
    if not groups:
        msg = f"Dataset {dataset!r}: the collection {path} is empty; add cells with DatasetCollection.add_adatas."
        raise ValueError(msg)
    key = "raw/X" if options.use_raw else "X" if options.layer is None else f"layers/{options.layer}"
    if lacking := [group for group in groups if f"{group}/{key}" not in root]:
        has = sorted(root[f"{lacking[0]}/layers"]) if f"{lacking[0]}/layers" in root else []
        msg = f"Dataset {dataset!r}: {lacking[0]} of {path.name} has no {key}; its layers are {has}."
        raise KeyError(msg)
    tables = [read_elem(root[f"{group}/{'raw/var' if options.use_raw else 'var'}"]) for group in groups]
    if other := [
        group for group, var in zip(groups, tables, strict=True) if not var.index.equals(tables[0].index)
    ]:
        msg = f"Dataset {dataset!r}: {other[0]} of {path.name} has other genes than {groups[0]}; make the collection again."
        raise ValueError(msg)
    matrices = [StoredMatrix(path, f"{group}/{key}", open_zarr) for group in groups]
    harmonizer = Harmonizer.learn(dataset, matrices[0], tables[0], vocabulary, options)
    n_cells = {f"{group}/obs": matrix.shape[0] for group, matrix in zip(groups, matrices, strict=True)}
    labels = StoredLabels(path, open_zarr, n_cells)
    about = about_dataset(sum(n_cells.values()), harmonizer, read_origin(root[groups[0]]), labels)
    return StoredSource(matrices, harmonizer, block_size=ZARR_BLOCK, labels=labels, about=about)
