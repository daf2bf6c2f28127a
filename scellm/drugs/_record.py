"""What `tl.drug_response` and `tl.rank_drugs` keep in `uns`: one dataclass per record, with read and write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .._calls import current_call
from .._version import __version__

UNITS = "ln IC50, ln uM: lower = more sensitive"
_OF_DRUGS = ("pearson", "spread", "std_unit", "std_extra")
UNKNOWN = ("", "nan", "None")
"""What stands for a text that is not known, also in files that other programs wrote."""


@dataclass(frozen=True, kw_only=True)
class DrugRecord:
    """How predictions of drug response were made, and what the D drugs are.

    Only `drugs` is needed to read one; what is missing is "" or NaN, so that predictions from elsewhere can be drawn.
    """

    drugs: list[str]
    synonyms: list[str] = field(default_factory=list)
    drug_class: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    smiles: list[str] = field(default_factory=list)
    pearson: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(D,) correlation over cell lines that were left out; NaN for new compounds."""
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(D,) spread of ln IC50 over cell lines."""
    std_unit: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(D,) what the uncertainty of a cell is multiplied by for its standard deviation."""
    std_extra: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(D,) standard deviation of the mean of a new compound; 0 for the drugs of the model."""
    columns: list[str] = field(default_factory=list)
    """Columns of `obs` with the predictions of a few drugs."""
    groupby: str = ""
    """Column of `obs` whose groups were predicted as a whole; "" for cell by cell."""
    model: str = ""
    sha256: str = ""
    matrix: str = ""
    values: str = ""
    """What the values of the matrix look like."""
    n_genes: int = 0
    median_counts: float = np.nan
    notes: str = ""
    units: str = UNITS
    scellm_version: str = __version__
    call: str = ""

    def __post_init__(self) -> None:
        n = len(self.drugs)
        for name in ("synonyms", "drug_class", "target", "smiles"):
            if not getattr(self, name):
                object.__setattr__(self, name, [""] * n)
        for name in _OF_DRUGS:
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(n, np.nan))

    def to_uns(self) -> dict[str, Any]:
        """The record as h5ad and zarr can hold it."""
        found = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        found["call"] = self.call or current_call()
        found |= {
            name: np.array(value, dtype=str) for name, value in found.items() if isinstance(value, list)
        }
        return found | {name: np.asarray(found[name], dtype=np.float32) for name in _OF_DRUGS}

    @classmethod
    def is_in(cls, uns: Any) -> bool:
        """Whether an entry of `uns` is such a record."""
        return isinstance(uns, Mapping) and "drugs" in uns and "effect" not in uns and "structure" not in uns

    @classmethod
    def from_uns(cls, uns: Mapping[str, Any]) -> DrugRecord:
        """Read a record, also from a file: one drug may have become a single text, lists arrays.

        Raises
        ------
        KeyError
            It names no drugs: see `is_in`.
        """
        kept: dict[str, Any] = {}
        for one in dataclasses.fields(cls):
            if one.name not in uns:
                continue
            value = uns[one.name]
            if one.name in _OF_DRUGS:
                value = _numbers(value)
            elif one.type == "list[str]":
                value = ["" if text in UNKNOWN else text for text in map(str, np.atleast_1d(value))]
            elif one.type == "str":
                value = str(value)
            kept[one.name] = value
        if "columns" in kept:
            kept["columns"] = [column for column in kept["columns"] if column]
        return cls(**kept)

    def std(self, uncertainty: np.ndarray) -> np.ndarray:
        """Standard deviations (n, D) of cells of this uncertainty, (n,)."""
        extra = np.nan_to_num(self.std_extra)
        return np.sqrt((np.asarray(uncertainty, dtype=np.float64)[:, None] * self.std_unit) ** 2 + extra**2)

    def table(self) -> pd.DataFrame:
        """A row for each drug, with the columns that `find_drugs` looks in."""
        texts = {"name": self.drugs, "synonyms": self.synonyms, "target": self.target}
        return pd.DataFrame({"drug": self.drugs, **texts, "drug_class": self.drug_class}, dtype=object)


def _numbers(value: Any) -> np.ndarray:
    """Numbers, NaN for what is none."""
    return pd.to_numeric(pd.Series(np.atleast_1d(value)), errors="coerce").to_numpy(np.float64)


@dataclass(frozen=True, kw_only=True)
class RankRecord:
    """Ranked drugs of G groups and D drugs."""

    groups: list[str]
    drugs: list[str]
    target: list[str]
    drug_class: list[str]
    effect: np.ndarray
    """(G, D) difference of mean ln IC50; negative is more sensitive. The other arrays have this shape too."""
    effect_sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray
    target_expressed: np.ndarray
    n_samples: np.ndarray
    """(G, 2) samples compared, of the group and its reference."""
    groupby: str = ""
    reference: str = "rest"
    sample_key: str = ""
    replicates: str = "cells"
    level: float = 0.95
    key: str = ""
    scellm_version: str = __version__
    call: str = ""

    @classmethod
    def is_in(cls, uns: Any) -> bool:
        """Whether an entry of `uns` is such a record."""
        return isinstance(uns, Mapping) and "effect" in uns and "groups" in uns

    def to_uns(self) -> dict[str, Any]:
        """The record as h5ad and zarr can hold it."""
        found = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        found["call"] = self.call or current_call()
        found |= {
            name: np.array(value, dtype=str) for name, value in found.items() if isinstance(value, list)
        }
        arrays = {name: value for name, value in found.items() if getattr(value, "dtype", None) == np.float64}
        return found | {name: value.astype(np.float32) for name, value in arrays.items()}

    @classmethod
    def from_uns(cls, uns: Mapping[str, Any]) -> RankRecord:
        """Read a record, also from a file."""
        kept: dict[str, Any] = {}
        for one in dataclasses.fields(cls):
            if one.name not in uns:
                continue
            value = uns[one.name]
            if one.type == "list[str]":
                value = [str(text) for text in np.atleast_1d(value)]
            elif one.type == "np.ndarray":
                value = np.asarray(value, dtype=None if one.name == "n_samples" else np.float64)
            elif one.type == "float":
                value = float(value)
            else:
                value = str(value)
            kept[one.name] = value
        return cls(**kept)

    def choose(self, groups: str | Iterable[str] | None) -> list[str]:
        """The groups that a caller names, in that order; all for `None`.

        Raises
        ------
        KeyError
            One was not ranked.
        ValueError
            None is named.
        """
        if groups is None:
            return self.groups
        chosen = list(dict.fromkeys(map(str, [groups] if isinstance(groups, str) else groups)))
        if unknown := [name for name in chosen if name not in self.groups]:
            msg = f"{unknown} were not ranked; there are the groups {self.groups}."
            raise KeyError(msg)
        if not chosen:
            msg = f"groups= is empty; name at least one of {self.groups}, or leave it out for all."
            raise ValueError(msg)
        return chosen

    def table(self, group: str) -> pd.DataFrame:
        """The drugs of one group, most sensitive first; those without an effect last."""
        row = self.groups.index(group)
        pairs = ("effect", "low", "high", "effect_sd", "p_value", "p_adjusted", "target_expressed")
        columns = {name: getattr(self, name)[row] for name in pairs}
        table = pd.DataFrame({"group": group, "drug": self.drugs, **columns})
        table["target"], table["drug_class"] = self.target, self.drug_class
        table["n_samples"], table["n_reference"] = self.n_samples[row].tolist()
        return table.sort_values("effect", kind="stable", ignore_index=True)
