"""Results into a copy of an h5ad file or zarr folder, which takes the place of the target when it is complete."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ... import _room
from ..._files import check_folder, check_room, replacing, tidy
from ._rows import open_store

SLACK = 2**20
"""Bytes of tables and names that results take beside their numbers."""
_OF_ANNDATA = {
    *("X", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns", "raw"),
    *("zarr.json", ".zgroup", ".zattrs", ".zmetadata"),
}
"""What an AnnData in zarr has in its folder."""


def check_target(source: Path, target: Path, disk_usage: Callable[[Path], Any] = shutil.disk_usage) -> None:
    """Refuse a place the results could not be written to, before anything is computed; tidy up after killed runs.

    Parameters
    ----------
    source
        File that is read.
    target
        File to write, a copy of it with results; may be the same.
    disk_usage
        Says how much room a disk has.

    Raises
    ------
    FileExistsError
        Something that is not an AnnData is there.
    FileNotFoundError
        No folder for it, or no source.
    OSError
        The disk is too full.
    ValueError
        Another kind of file than the source.
    """
    if target.suffix != source.suffix:
        msg = f"output={str(target)!r} must end in {source.suffix!r}, like the input: the file is copied, not converted."
        raise ValueError(msg)
    if not target.parent.is_dir():
        msg = f"There is no folder {target.parent} to write {target.name} to."
        raise FileNotFoundError(msg)
    for path in dict.fromkeys((source, target)):
        tidy(path)
    if not source.exists():
        return  # the reader says so
    if target != source:
        _check_replaceable(target)
    size = check_folder(source) if source.is_dir() else source.stat().st_size
    check_room(target, size + SLACK, disk_usage(target.parent).free)


def write_results(source: Path, target: Path, results: dict[str, dict[str, Any]]) -> None:
    """Copy a file, add results to the copy, and move it into place.

    Parameters
    ----------
    source, target
        As in `check_target`.
    results
        By slot (`obs`, `obsm`, `uns`) and key; columns of `obs` as Series.

    Raises
    ------
    ValueError
        A slot leads somewhere else.
    OSError
        It could not be written; `target` is as it was.
    """
    n_bytes = sum(getattr(value, "nbytes", 0) for slot in results.values() for value in slot.values())

    def check(path: Path) -> None:
        if path != source:
            _check_replaceable(path)

    with replacing(target, check) as part:
        if source.is_dir():
            check_folder(source)
            shutil.copytree(source, part, symlinks=True)
        else:
            shutil.copy(source, part)  # with its permissions
        mode = part.stat().st_mode
        part.chmod(mode | stat.S_IWUSR)
        # before HDF5 opens it: on a full disk it can take the process with it
        check_room(target, 2 * n_bytes + SLACK, shutil.disk_usage(part.parent).free)
        with open_store(part, "r+", name=source) as store:
            for slot, values in results.items():
                _write_slot(store, slot, values, source)
        part.chmod(mode)


def _write_slot(store: Any, slot: str, values: dict[str, Any], path: Path) -> None:
    from anndata.io import write_elem

    if _is_soft_link(store, slot):
        msg = f"{path}: {slot} is a link to something else; nothing is written through it. {_REWRITE}"
        raise ValueError(msg)
    if slot not in store:
        write_elem(store, slot, {})
    if not hasattr(store[slot], "keys"):
        msg = f"{path}: {slot} is not a group but an array; results cannot be put into it. {_REWRITE}"
        raise ValueError(msg)
    for key, value in values.items():
        if key in store[slot] or _is_soft_link(store[slot], key):
            del store[slot][key]
        if isinstance(value, np.ndarray) and value.nbytes > _room.SMALL:
            _write_by_rows(store[slot], key, value)
        else:
            write_elem(store[slot], key, _column(value) if slot == "obs" else value)
    if slot == "obs":
        order = [str(name) for name in store[slot].attrs["column-order"]]
        store[slot].attrs["column-order"] = [*order, *(key for key in values if key not in order)]


def _write_by_rows(group: Any, key: str, values: np.ndarray) -> None:
    """Write an array that may be larger than memory should hold."""
    import h5py
    from anndata.io import write_elem

    rest = values.shape[1:]
    options: dict[str, Any] = {"chunks": (min(_room.ROWS_AT_ONCE, len(values)), *rest)}
    if isinstance(group, h5py.Group):
        options["maxshape"] = (None, *rest)
    write_elem(group, key, values[:0], dataset_kwargs=options)
    group[key].resize(values.shape)
    stored = group[key]
    for rows in _room.row_slices(len(values), values):
        stored[rows] = values[rows]


def _column(values: Any) -> Any:
    """A column of a table as anndata writes it: categories and nullable values as they are, others as an array."""
    return values.to_numpy() if isinstance(values.dtype, np.dtype) else values.array


_REWRITE = "Write the file again: anndata.read_h5ad(...).write_h5ad(...)."


def _is_soft_link(group: Any, name: str) -> bool:
    """Whether a name in an HDF5 group is a link, even one that leads nowhere."""
    import h5py

    return isinstance(group, h5py.Group) and isinstance(
        group.get(name, getlink=True, default=None), h5py.SoftLink | h5py.ExternalLink
    )


def _check_replaceable(target: Path) -> None:
    """Refuse to replace what is not an AnnData."""
    if not target.exists() and not target.is_symlink():
        return
    if target.suffix == ".zarr" and target.is_dir():
        names = {path.name for path in target.iterdir()}
        if not names:
            return
        if {"obs", "var"} <= names and not (names - _OF_ANNDATA):
            return
        others = sorted(names - _OF_ANNDATA) or sorted(names)
        found = f"a folder that is not an AnnData, or holds other things than one ({', '.join(others[:5])})"
    elif target.is_dir():
        found = "a folder"
    elif not target.is_file() or not _is_h5ad(target):
        found = "something else than an AnnData file"
    else:
        return
    msg = f"output={str(target)!r} is {found}; it is not replaced. Choose another name."
    raise FileExistsError(msg)


def _is_h5ad(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {"obs", "var"} <= set(file)
    except OSError:
        return False
