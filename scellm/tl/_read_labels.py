"""Labels of cells, checked: what is missing, too small, doubled or reserved is said, not guessed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from .._obs import has_column, read_text
from .._warn import warn

RESERVED = ("unassigned", "novel")
"""What `tl.annotate` writes for cells without a label; no name of a class."""
GROUP_NAMES = (
    "donor",
    "donor_id",
    "patient",
    "patient_id",
    "individual",
    "subject",
    "sample",
    "sample_id",
    "batch",
)
"""Columns that, by their name, hold groups a random split would tear apart."""


@dataclass(frozen=True)
class Labels:
    """Classes of the cells of one object."""

    codes: np.ndarray
    """(n_obs,) place in `classes`; -1 without a label, or of a class that was set aside."""
    classes: list[str]
    """Names in alphabetical order."""
    excluded_classes: dict[str, int]
    """Cells of each class that is too small."""
    n_unlabeled: int


def read_labels(adata: AnnData, key: str, *, name: str, min_cells: int, needs_all: bool = True) -> Labels:
    """The classes in a column of `obs`.

    Parameters
    ----------
    adata
        Cells.
    key
        The column.
    name
        What to call the object in messages.
    min_cells
        Classes with fewer cells are set aside, with a warning.
    needs_all
        Warn of cells without a label; otherwise they are expected.

    Raises
    ------
    KeyError
        No such column.
    TypeError
        It holds measurements.
    ValueError
        Fewer than two classes, or names that differ only by case or spaces.
    """
    texts = read_text(adata, key, name=name)
    n_unlabeled = int((texts == "").sum())
    is_reserved = np.isin(texts, RESERVED)
    if needs_all and (n_none := n_unlabeled + int(is_reserved.sum())):
        also = f" (of these {int(is_reserved.sum())} {' or '.join(RESERVED)})" if is_reserved.any() else ""
        warn(
            f"{n_none} of {len(texts)} cells in `{name}` have no label in obs[{key!r}]{also}; they are left out."
        )
    texts[is_reserved] = ""
    counts = pd.Series(texts[texts != ""], dtype=object).value_counts()
    _check_distinct([str(label) for label in counts.index], key, name)
    small = {str(label): int(n) for label, n in counts.items() if n < min_cells}
    classes = sorted(str(label) for label in counts.index if label not in small)
    if len(classes) < 2:
        found = ", ".join(f"{label!r} ({n} cells)" for label, n in counts.items()) or "no labels at all"
        msg = (
            f"{name}.obs[{key!r}] has {len(classes)} class{'' if len(classes) == 1 else 'es'} with at least {min_cells} "
            f"cells; two are needed to tell apart. It holds {found}."
        )
        raise ValueError(msg)
    if small:
        listed = ", ".join(f"{label!r} ({n})" for label, n in small.items())
        warn(
            f"{len(small)} class{'' if len(small) == 1 else 'es'} of {name}.obs[{key!r}] with fewer than {min_cells} cells "
            f"{'was' if len(small) == 1 else 'were'} set aside: {listed}."
        )
    place = {label: code for code, label in enumerate(classes)}
    codes = np.array([place.get(text, -1) for text in texts], dtype=np.int64)
    return Labels(codes, classes, small, n_unlabeled + int(is_reserved.sum()))


def read_groups(adata: AnnData, key: str, rows: np.ndarray, *, option: str, name: str) -> np.ndarray:
    """(n,) group of each of `rows`; two or more, none missing.

    Raises
    ------
    KeyError
        No such column.
    ValueError
        One group only, or cells without one.
    """
    groups = read_text(adata, key, name=name)[rows]
    if n_missing := int((groups == "").sum()):
        msg = f"{n_missing} of {len(groups)} labeled cells have no group in {name}.obs[{key!r}]; {option} needs one for each."
        raise ValueError(msg)
    found = np.unique(groups)
    if len(found) < 2:
        msg = (
            f"{option}={key!r} has one group ({found[0]!r}); two or more are needed to hold one out. Name another column, "
            f"or leave {option} out to hold out cells."
        )
        raise ValueError(msg)
    return groups


def group_columns(adata: AnnData) -> list[str]:
    """Columns that by their name hold donors or batches, and have more than one."""
    named = [str(column) for column in adata.obs.columns if str(column).lower() in GROUP_NAMES]
    return [column for column in named if has_column(adata, column) and adata.obs[column].nunique() > 1]


def warn_of_groups(adata: AnnData) -> None:
    """Say that cells of one donor or batch are on both sides of a random split."""
    if columns := group_columns(adata):
        warn(
            f"Cells are held out at random, though adata.obs has {' and '.join(map(repr, columns))}. Cells of one donor or "
            "batch are in both training and test data, so scores are optimistic for new ones. Pass "
            f"val_by={columns[0]!r}."
        )


def _check_distinct(labels: list[str], key: str, name: str) -> None:
    """Refuse names that people would read as one."""
    seen: dict[str, str] = {}
    for label in labels:
        plain = label.casefold().replace("_", " ").replace("-", " ")
        if plain in seen:
            msg = (
                f"{name}.obs[{key!r}] has the classes {seen[plain]!r} and {label!r}, which differ only by case, spaces, "
                f"hyphens or underscores. Make them one: {name}.obs[{key!r}] = {name}.obs[{key!r}].astype(str).replace("
                f"{{{label!r}: {seen[plain]!r}}})."
            )
            raise ValueError(msg)
        seen[plain] = label
