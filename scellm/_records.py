"""What tools leave in `uns`, one dataclass per record, with write and read: plain values that any file can hold.

Those of drugs and of annotation lie in their wings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

import numpy as np
import pandas as pd

from ._calls import current_call
from ._version import __version__


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of the records: lists of text are stored as arrays; what is `None` is left out."""

    scellm_version: str = __version__
    call: str = ""
    """What the user called; see `_calls.py`."""

    def to_uns(self) -> dict[str, Any]:
        """What is stored."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        found["call"] = self.call or current_call()
        return {
            name: np.array(value, dtype=object) if isinstance(value, list) else value
            for name, value in found.items()
            if value is not None
        }

    @classmethod
    def needed(cls) -> set[str]:
        """Fields without a default."""
        return {one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING}

    @classmethod
    def is_in(cls, stored: Any) -> bool:
        """Whether an entry of `uns` is such a record."""
        return isinstance(stored, Mapping) and cls.needed() <= set(stored)

    @classmethod
    def from_uns(cls, stored: Any) -> Self | None:
        """The record, also from a file, where one text may stand for a list of one; `None` where something else is stored."""
        if not cls.is_in(stored):
            return None
        values: dict[str, Any] = {
            one.name: _plain(stored[one.name], str(one.type)) for one in fields(cls) if one.name in stored
        }
        return cls(**values)

    @classmethod
    def known(cls, uns: Mapping[str, Any], key: str) -> Self:
        """A record that is known to be there."""
        record = cls.from_uns(uns[key])
        if record is None:
            raise KeyError(key)
        return record


def _plain(value: Any, kind: str) -> Any:
    """A value as a field of this type has it: files give arrays for lists, and numbers and text of numpy."""
    if kind.startswith("list"):
        return [str(text) for text in np.atleast_1d(value)]
    cast = {"str": str, "int": int, "float": float, "bool": bool}.get(kind)
    return cast(value) if cast is not None else value


@dataclass(frozen=True, kw_only=True)
class FitRecord(Record):
    """Of `tl.fine_tune` and `tl.few_shot`: no class names as keys, so that any name survives a file."""

    classes: list[str]
    labels: str = ""
    """Column of `obs`."""
    settings: dict[str, Any] = field(default_factory=dict)
    evaluated_on: str = "test"
    """"test", "val" or "held_out"; `scores` are stored under this name."""
    scores: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    split: np.ndarray | None = None
    """(n_obs,) text, the part of each cell."""
    n_train: int = 0
    n_val: int = 0
    n_test: int = 0
    n_unlabeled: int = 0
    excluded_classes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    baselines: dict[str, Any] | None = None
    best_epoch: int | None = None
    n_class_not_in_training: int | None = None
    n_held_out: int | None = None
    n_folds: int | None = None
    baseline_is_better: bool | None = None

    def to_uns(self) -> dict[str, Any]:
        """What is stored."""
        stored = super().to_uns()
        return stored | {self.evaluated_on: stored.pop("scores")}

    @classmethod
    def from_uns(cls, stored: Any) -> FitRecord | None:
        """The record; `None` where something else is stored."""
        if not isinstance(stored, Mapping):
            return None
        return super().from_uns({**stored, "scores": stored.get(str(stored.get("evaluated_on", "test")), {})})

    def tables(self, scores: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame | None] | None:
        """Scores by method, and F1 by method and class if it is whole; `None` without baselines."""
        if not self.baselines:
            return None
        methods = [str(name) for name in self.baselines["methods"]]
        table = {name: self.baselines[name] for name in scores if name in self.baselines}
        found = self.baselines.get("f1_by_class")
        is_whole = found is not None and np.shape(found) == (len(methods), len(self.classes))
        per_class = pd.DataFrame(found, index=methods, columns=self.classes) if is_whole else None
        return pd.DataFrame(table, index=methods), per_class


@dataclass(frozen=True, kw_only=True)
class ImportanceRecord(Record):
    """Of `tl.gene_importance`: G explained types and N genes."""

    groups: list[str]
    genes: list[str]
    importance: np.ndarray
    """(N, G) share of the cosine with the type's direction; `expression` has this shape too."""
    expression: np.ndarray
    model: str = ""
    sha256: str = ""
    groupby: str = ""
    matrix: str = ""
    n_cells: np.ndarray | None = None
    completeness_error: np.ndarray | None = None
    deletion: dict[str, np.ndarray] | None = None
    n_steps: int | None = None

    def table(self, group: str) -> pd.DataFrame:
        """The genes that cells of a type express, most important first."""
        at = self.groups.index(group)
        columns = {"importance": self.importance[:, at], "expression": self.expression[:, at]}
        table = pd.DataFrame({"group": group, "gene": self.genes, **columns})
        table = table[table["expression"] > 0].sort_values("importance", ascending=False, kind="stable")
        table.insert(2, "rank", range(1, len(table) + 1))
        return table


@dataclass(frozen=True, kw_only=True)
class SearchRecord(Record):
    """Of `tl.search`."""

    columns: list[str]
    """Columns of the index that were voted on."""
    n_indexed: int
    index: str = ""
    model: str = ""
    sha256: str = ""
    k: int = 0
    n_in_index: int = 0
    """Cells that are in the index themselves."""
    message: str = ""
