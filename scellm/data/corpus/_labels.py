"""What is known of each cell: columns of `obs` as text, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ..._obs import as_text


class Labels(Protocol):
    """Label columns of one dataset."""

    keys: tuple[str, ...]
    """Columns of text, categories or true and false."""

    def get(self, key: str) -> np.ndarray | None:
        """(n_cells,) text of a column, "" where it is missing; `None` without that column."""


class TableLabels:
    """Labels in a table in memory."""

    def __init__(self, obs: pd.DataFrame) -> None:
        self._obs = obs.loc[:, ~obs.columns.duplicated(keep=False)].copy()
        self.keys = tuple(str(name) for name, dtype in self._obs.dtypes.items() if _is_label(dtype))

    def get(self, key: str) -> np.ndarray | None:
        """See `Labels`."""
        return None if key not in self._obs.columns else as_text(self._obs[key], key)


class StoredLabels:
    """Labels in the `obs` of AnnData files, one below the other.

    Parameters
    ----------
    path, opener
        As for `StoredMatrix`.
    tables
        Path of each `obs` inside, and its number of cells.
    """

    def __init__(self, path: Path, opener: Callable[[Path], Any], tables: dict[str, int]) -> None:
        self._path, self._opener, self._tables = Path(path).absolute(), opener, tables
        store = opener(self._path)
        keys: dict[str, None] = {}
        for table in tables:
            names = [str(name) for name in store[table].attrs.get("column-order", ())]
            keys |= dict.fromkeys(name for name in names if _is_stored_label(store[table][name]))
        self.keys = tuple(keys)

    def get(self, key: str) -> np.ndarray | None:
        """See `Labels`."""
        from anndata.io import read_elem

        store = self._opener(self._path)
        has_key = {table: key in store[table].attrs.get("column-order", ()) for table in self._tables}
        if not any(has_key.values()):
            return None
        parts = [
            as_text(pd.Series(read_elem(store[table][key])), key)
            if has_key[table]
            else np.full(n_cells, "", dtype=object)
            for table, n_cells in self._tables.items()
        ]
        return np.concatenate(parts)


def _is_label(dtype: Any) -> bool:
    """Categories, text, or true and false."""
    is_text = isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype)
    return is_text or pd.api.types.is_bool_dtype(dtype)


def _is_stored_label(element: Any) -> bool:
    """`_is_label` of a column on the disk."""
    kind = str(element.attrs.get("encoding-type", ""))
    if kind == "array":
        return element.dtype.kind == "b"
    return kind in ("categorical", "string-array", "nullable-string-array", "nullable-boolean")
