"""What `tl.drug_response` and `tl.rank_drugs` keep in `uns`: one dataclass per record, with read and write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .._records import Record

UNITS = "ln IC50, ln uM: lower = more sensitive"
_NUMBERS = ("pearson", "mean", "spread", "std_unit", "std_extra")
_TEXTS = ("synonyms", "drug_class", "target", "smiles")
UNKNOWN = ("", "nan", "None")
"""What stands for a text that is not known, also in files that other programs wrote."""


@dataclass(frozen=True, kw_only=True)
class DrugRecord(Record):
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
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(D,) mean of ln IC50 over cell lines."""
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

    def __post_init__(self) -> None:
        n = len(self.drugs)
        found: dict[str, Any] = {"columns": [column for column in self.columns if column]}
        for name in _TEXTS:
            found[name] = ["" if text in UNKNOWN else text for text in getattr(self, name)] or [""] * n
        for name in _NUMBERS:
            values = pd.Series(np.atleast_1d(getattr(self, name)))
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
            found[name] = numbers if len(numbers) else np.full(n, np.nan)
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @classmethod
    def is_in(cls, stored: Any) -> bool:
        """Whether an entry of `uns` is such a record: those of rankings and similarities name drugs too."""
        return super().is_in(stored) and not {"effect", "structure"} & set(stored)

    def std(self, uncertainty: np.ndarray) -> np.ndarray:
        """Standard deviations (n, D) of cells of this uncertainty, (n,)."""
        extra = np.nan_to_num(self.std_extra)
        return np.sqrt((np.asarray(uncertainty, dtype=np.float64)[:, None] * self.std_unit) ** 2 + extra**2)

    def z(self, ln_ic50: np.ndarray) -> np.ndarray:
        """Differences (n, D) from the drug's mean over cell lines, in units of its spread over them: what a drug's rank is by."""
        return (ln_ic50 - self.mean) / self.spread

    def table(self) -> pd.DataFrame:
        """A row for each drug, with the columns that `find_drugs` looks in."""
        texts = {"name": self.drugs, "synonyms": self.synonyms, "target": self.target}
        return pd.DataFrame({"drug": self.drugs, **texts, "drug_class": self.drug_class}, dtype=object)


@dataclass(frozen=True, kw_only=True)
class RankRecord(Record):
    """Ranked drugs of G groups and D drugs."""

    groups: list[str]
    drugs: list[str]
    target: list[str]
    drug_class: list[str]
    effect: np.ndarray
    """(G, D) difference of mean ln IC50; negative is more sensitive. The other arrays have this shape too."""
    effect_sd: np.ndarray
    """The same in units of the drug's spread over cell lines: what drugs are ranked by."""
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray
    target_expressed: np.ndarray
    n_samples: np.ndarray
    """(G, 2) samples compared, of the group and its reference."""
    ln_ic50: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Mean of the group."""
    z: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """The same as a difference from the drug's mean over cell lines, in units of its spread."""
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(D,) spread of ln IC50 over cell lines, the unit of `effect_sd` and `z`."""
    groupby: str = ""
    reference: str = "rest"
    sample_key: str = ""
    replicates: str = "cells"
    level: float = 0.95
    key: str = ""

    def __post_init__(self) -> None:
        for name in ("ln_ic50", "z"):
            if not np.size(getattr(self, name)):  # of scellm 0.2
                object.__setattr__(self, name, np.full(np.shape(self.effect), np.nan))
        if not np.size(self.spread):
            object.__setattr__(self, "spread", np.full(len(self.drugs), np.nan))

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
        """The drugs of one group, lowest `effect_sd` first; those without one last."""
        row = self.groups.index(group)
        pairs = (
            "effect",
            "low",
            "high",
            "effect_sd",
            "ln_ic50",
            "z",
            "p_value",
            "p_adjusted",
            "target_expressed",
        )
        columns = {name: getattr(self, name)[row] for name in pairs}
        table = pd.DataFrame({"group": group, "drug": self.drugs, **columns})
        table["target"], table["drug_class"] = self.target, self.drug_class
        table["n_samples"], table["n_reference"] = self.n_samples[row].tolist()
        by = "effect_sd" if table["effect_sd"].notna().any() else "effect"
        return table.sort_values(by, kind="stable", ignore_index=True)
