"""The one door to columns of `obs`: what is a missing label, a group, a duplicate, the same in every tool.

- Missing: NaN, None, blanks and, in any case, the texts in `MISSING`.
- Blanks around a label, and more than one inside, do not count: "T  cell " is "T cell".
- Whole numbers (also as floats, which a missing value makes of them), true and false and categories are labels; numbers with a point and dates are measurements, and refused.
- A name that two columns have is refused where it is asked for, and of no concern otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

MISSING = frozenset({"", "na", "<na>", "n/a", "nan", "none", "null", "unknown"})
"""Texts, in any case, that stand for no label."""


def has_column(adata: AnnData, key: str) -> bool:
    """Whether `obs` has exactly one column of this name."""
    return int((adata.obs.columns == key).sum()) == 1


def get_column(adata: AnnData, key: str, *, name: str = "adata") -> pd.Series:
    """A column of `obs` as it is."""
    if not isinstance(key, str):
        msg = f"A column of `{name}.obs` is named by text, found {key!r} ({type(key).__name__})."
        raise TypeError(msg)
    n_found = int((adata.obs.columns == key).sum())
    if not n_found:
        msg = f"{key!r} is not in `{name}.obs`, which has {[str(column) for column in adata.obs.columns]}."
        raise KeyError(msg)
    if n_found > 1:
        msg = (
            f"`{name}.obs` has {n_found} columns named {key!r}. Keep the first of each name: "
            f"{name}.obs = {name}.obs.loc[:, ~{name}.obs.columns.duplicated()]."
        )
        raise ValueError(msg)
    return adata.obs[key]


def read_text(adata: AnnData, key: str, *, name: str = "adata") -> np.ndarray:
    """(n_obs,) labels of a column of `obs` as text, "" where one is missing. Raises as `get_column` and `as_text`."""
    return as_text(get_column(adata, key, name=name), key)


def read_groups(adata: AnnData, key: str, *, name: str = "adata") -> pd.Categorical:
    """The groups of a column of `obs` that have cells; raises as `get_column` and `as_text`."""
    return as_groups(get_column(adata, key, name=name), key)


def as_text(column: pd.Series, key: str) -> np.ndarray:
    """A column as (n_cells,) text, "" where the label is missing."""
    column = _whole(column)
    if column.dtype.kind in "fcmM":
        if column.isna().all():
            return np.full(len(column), "", dtype=object)
        msg = (
            f"obs[{key!r}] holds {column.dtype} numbers, not labels or groups. Name a column of labels, or make it text first: "
            f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)."
        )
        raise TypeError(msg)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, values = pd.factorize(column.astype(object))
    return np.array([*map(_clean, values), ""], dtype=object)[
        codes
    ]  # a missing entry has the code -1, the last


def as_groups(column: pd.Series, key: str) -> pd.Categorical:
    """A column as categories of text: in their own order where it has one, else sorted; without those of no cell."""
    column = _whole(column)
    texts = as_text(column, key)
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.cat.categories
    elif column.dtype.kind in "iu":
        values = sorted(column.dropna().unique())
    else:
        values = sorted({text for text in texts if text})
    found = set(texts) - {""}
    names = [name for name in dict.fromkeys(map(_clean, values)) if name in found]
    return pd.Categorical([text or None for text in texts], categories=names)


def _whole(column: pd.Series) -> pd.Series:
    """Whole numbers that a missing one made floats, as after a concat, as integers again."""
    if column.dtype.kind != "f" or column.isna().all():
        return column
    found = column.dropna().to_numpy(dtype=float)
    return column.astype("Int64") if np.isfinite(found).all() and (found == np.floor(found)).all() else column


def _clean(value: object) -> str:
    """One label, "" if it is missing."""
    text = " ".join(str(value).split())
    return "" if text.lower() in MISSING else text
