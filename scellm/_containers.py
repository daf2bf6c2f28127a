"""The one door for MuData and SpatialData: the AnnData with gene expression is found in them, and results land in it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

from anndata import AnnData

from ._calls import called
from ._files import check_room
from ._formats import (
    GROWS,
    LARGE,
    check_exists,
    expand,
    is_streamed,
    read_cells,
    sample_name,
    size_in_memory,
    whole_of,
)
from ._warn import warn

P = ParamSpec("P")
R = TypeVar("R")
RNA = (
    "rna",
    "gex",
    "geneexpression",
    "mrna",
    "scrna",
    "snrna",
    "rnaseq",
    "scrnaseq",
    "snrnaseq",
    "transcriptome",
    "transcriptomics",
)
"""Names of modalities with gene expression, in small letters and without blanks and punctuation."""
TABLE = ("table",)
"""Name that SpatialData gives its table."""


def takes_cells(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of AnnData take MuData and SpatialData, wherever one is given, and note how it was called."""

    @wraps(function)
    def door(*args: P.args, **kwargs: P.kwargs) -> R:
        plain = [cells_of(value) for value in args]
        named = {name: cells_of(value) for name, value in kwargs.items()}
        with called(function, args, kwargs):
            return function(*plain, **named)

    return door


def cells_of(thing: Any) -> Any:
    """The AnnData with gene expression of a MuData or SpatialData; anything else as it is.

    Raises
    ------
    TypeError
        No part holds gene expression, or several do.
    """
    for slot, names, holder in (("mod", RNA, "mdata"), ("tables", TABLE, "sdata")):
        parts = getattr(thing, slot, None)
        if not isinstance(thing, AnnData | type) and isinstance(parts, Mapping):
            return _choose(thing, parts, names, f"{holder}.{slot}")
    return thing


def read_any(path: str | os.PathLike[str]) -> AnnData:
    """As `read_cells`, and the modality with gene expression of an `.h5mu` file, for which mudata is not needed."""
    path = expand(path)
    if path.suffix.lower() != ".h5mu":
        return read_cells(path)
    import h5py
    from anndata.io import read_elem

    check_exists(path)
    with h5py.File(path, "r") as file:
        return read_elem(file["mod"][_modality(file)])


def _modality(file: Any) -> str:
    """Name of the modality with gene expression of an open h5mu file, by its name or its genes."""
    from anndata.io import read_elem

    found = file.get("mod", {})
    named = [name for name in found if _plain(name) in RNA]
    if len(named) == 1:  # what the others hold does not matter
        return str(named[0])
    parts = {name: AnnData(var=read_elem(part["var"])) for name, part in found.items()}
    chosen = cells_of(SimpleNamespace(mod=parts))
    return next(name for name, part in parts.items() if part is chosen)


def _copy_modality(path: Path, target: Path) -> Path:
    """That modality as an h5ad file; nothing of it is in memory."""
    import h5py

    with h5py.File(path, "r") as file, h5py.File(target, "w") as copy:
        part = file["mod"][_modality(file)]
        copy.attrs.update(part.attrs)
        for name in part:
            part.copy(name, copy)
    return target


def _size_of_modality(path: Path) -> int:
    """Bytes on the disk of that modality."""
    import h5py

    sizes: list[int] = []

    def add(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            sizes.append(node.id.get_storage_size())

    with h5py.File(path, "r") as file:
        file["mod"][_modality(file)].visititems(add)
    return sum(sizes)


@contextmanager
def streamed(path: str | os.PathLike[str]) -> Iterator[Path | None]:
    """A file or folder that is read by rows: this one, or a copy of other large ones in the folder for temporary files.

    `None` for what is small and of another format, and read as a whole.
    """
    path = expand(path)
    whole = whole_of(path)
    if is_streamed(path):
        yield path
        return
    if whole is None or (size := size_in_memory(whole)) < LARGE:
        yield None
        return
    if is_multi := whole.suffix.lower() == ".h5mu":
        size = _size_of_modality(whole)
        if GROWS * size < LARGE:
            yield None
            return
    from .data.cells._convert import convert

    with tempfile.TemporaryDirectory(prefix="scellm-") as folder:
        check_room(Path(folder), size, shutil.disk_usage(folder).free)
        warn(
            f"{path} is large and cannot be read by cells as it is. It is written as .h5ad once, in {folder}, some {size / 1e6:,.0f} MB, "
            "and that is deleted afterwards. To have that done for good, write results with -o, or the object with adata.write_h5ad."
        )
        target = Path(folder) / f"{sample_name(path)}.h5ad"
        yield _copy_modality(whole, target) if is_multi else convert(whole, target)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[AnnData]:
    """Cells of any file that `read_any` reads; matrices of large ones stay on the disk, as those of h5ad and zarr do."""
    with streamed(path) as source:
        if source is None:
            yield read_any(path)
            return
        from .data import open_cells

        with open_cells(source) as cells:
            yield cells


def obs_columns(thing: AnnData | str | os.PathLike[str]) -> list[str]:
    """Names of the columns of `obs`, of any file that `read_any` reads; nothing else of it is read."""
    if isinstance(thing, AnnData):
        return [str(name) for name in thing.obs.columns]
    path = expand(thing)
    whole = whole_of(path)
    if whole is None:
        from .data import open_store

        with open_store(path, "r") as store:
            return [str(name) for name in store["obs"].attrs.get("column-order", ())]
    if whole.suffix.lower() not in (".loom", ".h5mu"):
        return []  # Cell Ranger writes names of cells alone
    import h5py

    with h5py.File(whole, "r") as file:
        if whole.suffix.lower() == ".loom":
            return list(file.get("col_attrs", ()))
        obs = file["mod"][_modality(file)]["obs"]
        return [str(name) for name in obs.attrs.get("column-order", ())]


def _plain(name: str) -> str:
    """A name in small letters, without blanks and punctuation."""
    return re.sub(r"[\W_]+", "", name).lower()


def _choose(thing: Any, parts: Mapping[Any, Any], names: tuple[str, ...], where: str) -> AnnData:
    """The part by its name, else the only one, else the only one whose columns are genes."""
    cells = {str(name): part for name, part in parts.items() if isinstance(part, AnnData)}
    named = [name for name in cells if _plain(name) in names]
    if len(named) == 1:
        return cells[named[0]]
    found = named or (list(cells) if len(cells) == 1 else [name for name in cells if _has_genes(cells[name])])
    if len(found) == 1:
        return cells[found[0]]
    kind = type(thing).__name__.replace("SimpleNamespace", "MuData")
    listed = [str(name) for name in parts]
    shown = f"{where}[{(found or list(cells) or listed or ['rna'])[0]!r}]"
    what = "none is known to hold" if not found else f"{found} hold"
    msg = f"{kind} has the parts {listed}, of which {what} gene expression. Pass the one you mean, for instance {shown}."
    raise TypeError(msg)


def _has_genes(cells: AnnData) -> bool:
    """Whether the columns say that they are genes, or are enough of the genes that models know."""
    from .data import GeneVocabulary
    from .data.genes._feature_types import feature_types
    from .data.genes._match import MIN_OVERLAP, best_match

    types = feature_types(cells.var)
    if types.only or not cells.n_vars:
        return False
    match = best_match(cells.var, GeneVocabulary.default(), None, holder="adata", organism=None)
    return bool(match.coverage >= MIN_OVERLAP)
