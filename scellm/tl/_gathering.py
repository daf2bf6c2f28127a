"""Cells of many data on their way into an index: embedded one after the other, and kept in a temporary file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import union_categoricals

from .._containers import cells_of, obs_columns, opened
from .._obs import read_text
from .._room import row_slices
from .._warn import warn
from ..atlas import AtlasIndex, build_index, open_index
from ..data import ReadOptions
from ..models import CellLM
from ._embed import EncodeOptions
from ._vectors import vectors_and_marks

if TYPE_CHECKING:
    import torch

DATASET = "dataset"
"""Column with the names of the data."""
_OF_AN_INDEX = re.compile(r"manifest\.json|vectors\.faiss|marks\.npy|column-\d+\.npy")
MOST_CATEGORIES = 10_000
"""Different values of a column beyond which it is no label."""

MOST_SHOWN = 5
"""Data whose columns are listed."""


class Gathering:
    """Data are added one by one; one that is refused leaves nothing behind. What was added is then written at once.

    Memory is that of the columns and of some thousand cells; embeddings wait in the folder for temporary files, in half precision.

    Parameters
    ----------
    target, columns, device, append, overwrite
        As in `tl.index`.
    model
        That of the index.
    source
        How the data are read.
    """

    def __init__(
        self,
        target: Path,
        model: CellLM,
        columns: str | Sequence[str] | None,
        source: ReadOptions,
        *,
        device: torch.device | str = "auto",
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        if not model.sha256:
            msg = "The model was never saved, so a search could not tell it from others. Save it with scellm.models.save and load it."
            raise ValueError(msg)
        self.target, self.model = target, model
        self._old = _old(target, model, columns) if append else None
        if self._old is None:
            _check_target(target, overwrite=overwrite)
        self.columns = _names(columns, self._old)
        """Columns that are kept, without that of the datasets."""
        self._source, self._encoding = source, EncodeOptions(device=device, show_progress=False)
        self._tables: list[dict[str, pd.Categorical]] = []
        self._marks: list[np.ndarray] = []
        self._known: list[str] = []
        self.sources: list[dict[str, Any]] = []
        """What was added: `name`, `n_cells`, `fingerprint`, and what the caller notes."""

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile(prefix="scellm-")
        if self._old is not None:
            self.sources += self._old.manifest.get("sources", [])
            self._append(self._old.stored())
            self._marks.append(np.asarray(self._old.marks))
            unnamed = {
                DATASET: pd.Categorical([None] * self._old.n_cells)
            }  # an index that was made otherwise
            self._tables.append(unnamed | {name: self._old.column(name) for name in self._old.columns})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def check_columns(self, data: Mapping[str, Any]) -> dict[str, list[str]]:
        """Refuse a column that none of the data has, before any cell is read. Returns the columns that each lacks, if any.

        Data that cannot be read are passed over: they are refused when they are added.
        """
        found: dict[str, list[str]] = {}
        for name, part in data.items():
            with suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):
                found[name] = obs_columns(cells_of(part))
        for column in self.columns if found and self._old is None else ():
            if not any(column in names for names in found.values()):
                shown = "; ".join(f"{name}: {names}" for name, names in list(found.items())[:MOST_SHOWN])
                more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
                msg = f"None of the data has obs[{column!r}], so nothing was read. Columns there are: {shown}{more}."
                raise KeyError(msg)
        lacking = {name: [x for x in self.columns if x not in names] for name, names in found.items()}
        return {name: columns for name, columns in lacking.items() if columns}

    def add(self, name: str, part: Any, **note: Any) -> int:
        """Embed the cells of one AnnData or file, under another name if there are data of this one. Returns their number."""
        part = cells_of(part)
        given, name = name, self._free(name)
        with nullcontext(part) if isinstance(part, AnnData) else opened(part) as adata:
            table = _table(adata, self.columns, name)
            vectors, marks, record = vectors_and_marks(adata, self.model, self._source, self._encoding)
            self._known = sorted(map(str, adata.obs.columns))
        same = [one["name"] for one in self.sources if one["fingerprint"] == record["fingerprint"]]
        if same:
            warn(f"{name!r} holds the same values as {same[0]!r}: its cells are in the index twice.")
        if name != given:
            warn(f"The index has a dataset {given!r} already; this one is named {name!r} in it.")
        self._append(vectors)
        self._marks.append(marks)
        self._tables.append(table)
        self.sources.append(
            {"name": name, "n_cells": len(marks), "fingerprint": record["fingerprint"], **note}
        )
        return len(marks)

    def write(self, rng: int) -> AtlasIndex:
        """Write the index of all that was added."""
        columns = {
            name: _joined([table[name] for table in self._tables]) for name in (*self.columns, DATASET)
        }
        for name, values in columns.items():
            if (values.codes < 0).all():
                msg = f"None of the data has values in obs[{name!r}]. Its columns: {self._known}."
                raise KeyError(msg)
        dim = self.model.config.dim
        self._file.flush()
        is_empty = not self._file.seek(0, 2)
        vectors = np.empty(0, np.float16) if is_empty else np.memmap(self._file, np.float16, mode="r")
        about = {"model": self.model.name, "revision": self.model.revision or "", "sha256": self.model.sha256}
        about |= {"sources": self.sources}
        marks = np.concatenate([np.zeros(0, np.uint64), *self._marks])
        return build_index(
            [vectors.reshape(-1, dim)], columns, self.target, about=about, marks=marks, rng=rng
        )

    def _free(self, name: str) -> str:
        """The name, with a number behind it where there are data of that name."""
        taken = {str(one["name"]) for one in self.sources}
        if self._old is not None and DATASET in self._old.columns:
            taken |= set(self._old.column(DATASET).categories)
        found, i = name, 2
        while found in taken:
            found, i = f"{name}-{i}", i + 1
        return found

    def _append(self, vectors: np.ndarray) -> None:
        """Append rows to the file; all, or none."""
        end = self._file.seek(0, 2)
        try:
            for rows in row_slices(len(vectors), vectors):
                self._file.write(vectors[rows].astype(np.float16).tobytes())
        except BaseException:
            self._file.truncate(end)
            raise


def _names(columns: str | Sequence[str] | None, old: AtlasIndex | None) -> list[str]:
    """Columns to keep, without that of the datasets."""
    if DATASET in ([columns] if isinstance(columns, str) else columns or ()):
        msg = (
            f"columns has {DATASET!r}, which the index fills with the names of the data. Leave it out of columns; to keep a column "
            f"of yours, rename it first: adata.obs['my_dataset'] = adata.obs.pop('{DATASET}'), and pass 'my_dataset'."
        )
        raise ValueError(msg)
    if old is not None:
        return [name for name in old.columns if name != DATASET]
    if columns is None or not len(columns):
        msg = "columns= is needed: columns of obs to keep with the cells, for instance columns=['cell_type', 'tissue']."
        raise TypeError(msg)
    return [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))


def _old(target: Path, model: CellLM, columns: str | Sequence[str] | None) -> AtlasIndex:
    """The index to append to."""
    old = open_index(target)
    if old.manifest["sha256"] != model.sha256:
        msg = (
            f"The index {target} was made with {old.manifest.get('model')!r} (sha256 {old.manifest['sha256'][:8]}), this is "
            f"{model.name!r} (sha256 {model.sha256[:8]}). Pass the same model=, or build another index."
        )
        raise ValueError(msg)
    wanted = set() if columns is None else {columns} if isinstance(columns, str) else set(columns)
    if wanted - set(old.columns):
        msg = f"The index {target} has the columns {old.columns}; {sorted(wanted - set(old.columns))} cannot be added."
        raise ValueError(msg)
    return old


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but an index, and that only if asked to."""
    if not target.exists():
        return
    is_index = (target / "manifest.json").is_file() and (target / "vectors.faiss").is_file()
    if not is_index and target.is_dir():  # one that lacks a file
        names = {path.name for path in target.iterdir()}
        is_index = bool({"vectors.faiss", "marks.npy"} & names) and all(map(_OF_AN_INDEX.fullmatch, names))
    if not is_index:
        msg = f"{target} is there already and is not an index. Choose another name."
        raise FileExistsError(msg)
    if not overwrite:
        msg = f"There is an index in {target} already. Pass append=True to add to it, or overwrite=True to replace it."
        raise FileExistsError(msg)


def _table(adata: AnnData, names: list[str], dataset: str) -> dict[str, pd.Categorical]:
    """The columns of one dataset as text, with its name."""
    columns: dict[str, pd.Categorical] = {}
    for name in names:
        values = read_text(adata, name) if name in adata.obs else np.full(adata.n_obs, "", dtype=object)
        if len(set(values)) > MOST_CATEGORIES:
            msg = f"obs[{name!r}] has {len(set(values)):,} different values: names of cells, not labels. Leave it out of columns."
            raise TypeError(msg)
        columns[name] = pd.Categorical(np.where(values == "", None, values))
    return {**columns, DATASET: pd.Categorical.from_codes(np.zeros(adata.n_obs, np.int8), [dataset])}


def _joined(parts: list[pd.Categorical]) -> pd.Categorical:
    """One column of all parts; those without any value have no type of their own."""
    return union_categoricals(
        [part.set_categories(part.categories.astype(object)) for part in parts], sort_categories=True
    )
