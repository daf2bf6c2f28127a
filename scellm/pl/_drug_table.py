"""What `tl.drug_response` wrote, read and summarized for figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._obs import read_groups
from .._warn import warn
from ..drugs._names import find_drugs
from ..drugs._record import DrugRecord


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Predictions of some drugs for all cells."""

    table: pd.DataFrame
    """A row for each drug, as `DrugRecord.table` makes it."""
    values: np.ndarray
    """(n_obs, n_drugs) ln IC50, NaN where not predictable."""
    std: np.ndarray
    """(n_obs, n_drugs); NaN where it is not known."""
    applicability: np.ndarray
    """(n_obs,) distance to the training cell lines, above 1 outside; NaN where it is not known."""
    groupby: str | None
    """Column of `obs` that the predictions were made by; `None` if cell by cell."""
    center: np.ndarray
    """(n_drugs,) mean over cell lines; NaN where it is not known."""
    spread: np.ndarray
    """(n_drugs,) over cell lines; NaN where it is not known."""

    @property
    def drugs(self) -> list[str]:
        """Their names."""
        return self.table["name"].tolist()

    @property
    def classes(self) -> list[str]:
        """Class of each drug, "" where it is not known."""
        return self.table["drug_class"].tolist()

    def __getitem__(self, columns: np.ndarray) -> Responses:
        """Some of the drugs."""
        return replace(
            self,
            table=self.table.iloc[columns],
            values=self.values[:, columns],
            std=self.std[:, columns],
            center=self.center[columns],
            spread=self.spread[columns],
        )

    @property
    def has_z(self) -> bool:
        """Whether mean and spread over cell lines are known of all drugs."""
        return bool(np.isfinite(self.center).all() and np.isfinite(self.spread).all())

    def relative(self) -> Responses:
        """With z in place of ln IC50; less the mean over cells where mean and spread over cell lines are not known."""
        center, spread = (self.center, self.spread) if self.has_z else (mean(self.values), np.ones(1))
        return replace(self, values=(self.values - center) / spread, std=self.std / spread)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Predictions of some drugs for groups of cells, or for single cells."""

    rows: list[str]
    n_cells: np.ndarray
    """(n_rows,)"""
    drugs: list[str]
    classes: list[str]
    values: np.ndarray
    """(n_rows, n_drugs) mean over the cells of a group for which there is a prediction."""
    std: np.ndarray
    """(n_rows, n_drugs) mean standard deviation of a cell's prediction."""
    outside: np.ndarray
    """(n_rows,) fraction of the cells that lie outside of the training cell lines; NaN where it is not known."""
    applicability: np.ndarray
    """(n_rows,) mean distance to the training cell lines."""
    as_one: bool
    """Whether the cells of a group were predicted together."""

    def ordered(self, rows: np.ndarray, columns: np.ndarray) -> Summary:
        """The same in another order."""
        return Summary(
            rows=[self.rows[i] for i in rows],
            n_cells=self.n_cells[rows],
            drugs=[self.drugs[i] for i in columns],
            classes=[self.classes[i] for i in columns],
            values=self.values[np.ix_(rows, columns)],
            std=self.std[np.ix_(rows, columns)],
            outside=self.outside[rows],
            applicability=self.applicability[rows],
            as_one=self.as_one,
        )


def read_responses(adata: AnnData, key: str) -> Responses:
    """All drugs of a key.

    Raises
    ------
    TypeError
        `adata` is no AnnData.
    KeyError
        Nothing of `tl.drug_response` is under `key`.
    ValueError
        Names and predictions differ in number.
    """
    check_anndata(adata)
    record = DrugRecord.from_uns(adata.uns.get(key))
    if key not in adata.obsm or record is None:
        others = [name for name, value in adata.uns.items() if DrugRecord.is_in(value) and name in adata.obsm]
        found = f" There are responses under {others}: pass key=." if others else ""
        msg = f"There are no drug responses under {key!r}. Run scellm.tl.drug_response(adata) first.{found}"
        raise KeyError(msg)
    values = np.asarray(adata.obsm[key], dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(record.drugs):
        msg = (
            f"`adata.uns[{key!r}]` names {len(record.drugs)} drugs, `adata.obsm[{key!r}]` has the shape {values.shape}. "
            "Run scellm.tl.drug_response(adata) again."
        )
        raise ValueError(msg)
    unknown = np.full(adata.n_obs, np.nan)
    applicability = adata.obs.get(f"{key}_applicability", np.full(adata.n_obs, np.nan))
    std = record.std(np.asarray(adata.obs.get(f"{key}_uncertainty", unknown)))
    return Responses(
        table=record.table(),
        values=values,
        std=np.where(np.isfinite(values), std, np.nan),
        applicability=np.asarray(applicability, dtype=np.float64),
        groupby=record.groupby or None,
        center=record.mean,
        spread=record.spread,
    )


def choose_drugs(responses: Responses, drugs: str | Iterable[str]) -> np.ndarray:
    """Columns of what `tl.drug_response` takes too: names, synonyms, targets or classes, in the order asked for.

    Raises
    ------
    KeyError
        Nothing that was predicted is called so.
    TypeError
        A name is no text.
    ValueError
        No drug is named.
    """
    remedy = "for others run scellm.tl.drug_response(adata, drugs) with them"
    return find_drugs(responses.table, drugs, known="There are predictions of", remedy=remedy)


def group_codes(adata: AnnData, groupby: str | None) -> tuple[np.ndarray, list[str]]:
    """(n_obs,) number of each cell's group, -1 for none, and the names of the groups; without `groupby` one group.

    Raises
    ------
    KeyError
        No such column.
    TypeError
        The column holds measurements.
    ValueError
        No cell has a group.
    """
    if groupby is None:
        return np.zeros(adata.n_obs, dtype=int), ["all cells"]
    groups = read_groups(adata, groupby)
    if not len(groups.categories):
        msg = f"No cell has a value in obs[{groupby!r}]."
        raise ValueError(msg)
    n_missing = int((groups.codes < 0).sum())
    if n_missing:
        warn(f"{n_missing} of {adata.n_obs} cells have no value in obs[{groupby!r}] and are not drawn.")
    return np.asarray(groups.codes), [str(name) for name in groups.categories]


def only_groups(
    codes: np.ndarray, names: list[str], wanted: str | Iterable[str] | None
) -> tuple[np.ndarray, list[str]]:
    """Numbers and names of the groups that are wanted, in that order; all for `None`.

    Raises
    ------
    KeyError
        One is no group.
    ValueError
        None is named.
    """
    if wanted is None:
        return codes, names
    chosen = list(dict.fromkeys(map(str, [wanted] if isinstance(wanted, str) else wanted)))
    if unknown := [name for name in chosen if name not in names]:
        msg = f"{unknown} of groups= are no groups of the cells, which have {names}."
        raise KeyError(msg)
    if not chosen:
        msg = f"groups= is empty; name at least one of {names}, or leave it out for all."
        raise ValueError(msg)
    place = np.full(len(names) + 1, -1)
    for new, name in enumerate(chosen):
        place[names.index(name)] = new
    return place[codes], chosen


def label(name: str, n_cells: int, *more: str) -> str:
    """What a group is called beside its row."""
    from ._figure import short

    return f"{short(name)} ({', '.join([f'n = {n_cells:,}', *more])})"


def summarise(responses: Responses, codes: np.ndarray, groups: list[str], *, as_one: bool = False) -> Summary:
    """Means over the cells of each group; `as_one` if each was predicted as a whole."""
    cells = [codes == i for i in range(len(groups))]
    return Summary(
        rows=groups,
        n_cells=np.array([int(rows.sum()) for rows in cells]),
        drugs=responses.drugs,
        classes=responses.classes,
        values=np.array([mean(responses.values[rows]) for rows in cells]),
        std=np.array([mean(responses.std[rows]) for rows in cells]),
        outside=np.array([fraction_outside(responses.applicability[rows]) for rows in cells]),
        applicability=np.array([mean(responses.applicability[rows]) for rows in cells]),
        as_one=as_one,
    )


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over rows without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)


def centred(values: np.ndarray) -> np.ndarray:
    """Differences from the mean of each column."""
    return values - mean(values)


def fraction_outside(applicability: np.ndarray) -> float:
    """Fraction of cells beyond 1, among those whose distance is known."""
    known = applicability[np.isfinite(applicability)]
    return float((known > 1).mean()) if len(known) else np.nan


def judged(summary: Summary) -> tuple[np.ndarray, str]:
    """Rows between which differences mean most, bool, and what to call them, "" for all.

    Those that mostly lie inside of what the model has seen, or where fewer than two do, the two most like cell lines.
    """
    inside = ~(summary.outside > 0.5)
    if inside.sum() > 1:
        return inside, "" if inside.all() else "inside the applicability"
    if len(inside) < 3 or not np.isfinite(summary.applicability).all():
        return np.ones(len(inside), dtype=bool), ""
    nearest = np.argsort(summary.applicability, kind="stable")[:2]
    return np.isin(np.arange(len(inside)), nearest), "most like cell lines"


def most_different(summary: Summary, n: int) -> np.ndarray:
    """Columns, in their order, of the `n` drugs whose response differs most between rows.

    Only the rows of `judged` count.
    """
    values = summary.values[judged(summary)[0]]
    spread = np.nan_to_num(mean(centred(values) ** 2), nan=-1.0)
    return np.sort(np.argsort(-spread, kind="stable")[:n])


def lowest(summary: Summary, n: int) -> np.ndarray:
    """Columns of the `n` drugs with the lowest mean over rows, lowest first; those without one last."""
    return np.argsort(mean(summary.values), kind="stable")[:n]


def similar_together(values: np.ndarray) -> np.ndarray:
    """An order of rows that puts similar ones side by side: average linkage, leaves ordered; NaN stands for the mean."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    filled = np.where(np.isfinite(values), values, np.nan_to_num(mean(values)))
    if len(filled) < 3:
        return np.arange(len(filled))
    if len(filled) > 1_000:  # linkage is quadratic: along the first principal axis instead
        around = centred(filled)
        _, axes = np.linalg.eigh(around.T @ around)
        return np.argsort(around @ axes[:, -1], kind="stable")
    return leaves_list(linkage(filled, method="average", optimal_ordering=True))
