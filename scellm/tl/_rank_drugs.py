"""rank_drugs: which drugs hit one group of cells more than another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_free, check_key
from .._containers import takes_cells
from .._keys import DRUG_RESPONSE, RANK_DRUGS
from .._obs import has_column, read_groups, read_text
from .._warn import warn
from ..data import Expression, GeneVocabulary, ReadOptions
from ..drugs._rank import (
    FEWEST_SAMPLES,
    Comparison,
    Moments,
    adjust,
    compare_cells,
    compare_samples,
    moments_of,
)
from ..drugs._record import DrugRecord, RankRecord
from ..drugs._targets import target_genes
from ._drug_results import read_response

FIELDS = ("effect", "low", "high", "p_value")
"""What a comparison says of each drug."""
PROGRESS_FROM = 5_000
"""Cells from which a progress bar is shown by default."""


@takes_cells
def rank_drugs(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Sequence[str] | None = None,
    reference: str = "rest",
    sample_key: str | None = None,
    key: str = DRUG_RESPONSE,
    level: float = 0.95,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    key_added: str = RANK_DRUGS,
    show_progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Rank drugs by how much more sensitive a group of cells is predicted to be than another.

    Drugs are ranked by the difference of mean predicted ln IC50, in units of the drug's spread over the cell lines of the model
    (`effect_sd`): by how unusual the difference is for that drug, so that none ranks high for being potent, or for doses that
    differ widely between cell lines. The difference itself is `effect`: -1 means that 2.7 times less drug is needed, if the prediction is
    right. The error of the model is larger than most differences, and is not part of the interval.

    Cells of one donor are not independent replicates. With `sample_key` each donor's cells count as one value: interval and
    p-value are those of a t test over donors (paired where at least three donors have both kinds of cells, and of those
    alone), p-values corrected over the drugs of a group :cite:p:`Benjamini1995`. Without, all cells of a side count alike and
    there is no p-value. Predictions that were made by groups are no replicates, unless each is of one sample: only effects
    are given then.

    Parameters
    ----------
    adata
        Cells with results of `tl.drug_response`, best cell by cell or by a column that no group and sample share.
    groupby
        Column of `obs` with the groups.
    groups
        Groups to rank, in this order; `None` ranks all.
    reference
        Group to compare with; `"rest"` is all other cells that have a group.
    sample_key
        Column of `obs` with donors or samples.
    key
        Key of `tl.drug_response`.
    level
        Share of intervals that hold the difference between donors like these.
    layer, use_raw, gene_key
        Where to look whether targets are expressed, as in `tl.drug_response`.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 5,000 cells.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`; `get.rank_drugs` makes a table. Sets:

    `adata.uns[key_added]` : dict
        `groups`, `drugs`, `target`, `drug_class`; arrays of shape (n_groups, n_drugs): `effect` (ln uM, negative =
        more sensitive), `effect_sd` (in units of the drug's spread over cell lines), `ln_ic50` (mean of the group), `z` (the
        same less the drug's mean over cell lines, in units of its spread), `low` and `high` (t
        interval of `level`), `p_value` and `p_adjusted` (NaN without donors), `target_expressed` (largest share of the group's
        cells that express a target; NaN if no target is a gene of the data); `n_samples` (n_groups, 2) that were
        compared, of the group and its reference; `spread` (n_drugs,), the unit of `effect_sd`; `groupby`, `reference`, `sample_key`, `replicates` ("samples" or "cells"), `level`, `scellm_version`.

    Raises
    ------
    KeyError
        No results under `key`, no such column, or `reference` or one of `groups` is no group.
    TypeError
        `groupby` of measurements.
    ValueError
        Fewer than two groups, no group named, `reference` among `groups`, a group without any prediction, no cell with a sample,
        `level` not between 0 and 1, or values or genes that cannot be read, as in `tl.drug_response`; one known gene is enough.

    Warns
    -----
    UserWarning
        No `sample_key`, cells without a sample, too few donors for a test, predictions that were made by groups, groups outside of
        what the model has seen, or values whose scale had to be guessed.

    Examples
    --------
    >>> import warnings
    >>> adata = scellm.datasets.toy_cells(40, n_vars=19315, n_donors=4)
    >>> with warnings.catch_warnings():  # toy cells are no cancer
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.drug_response(adata)
    >>> scellm.tl.rank_drugs(adata, "cell_type", sample_key="donor")
    >>> scellm.get.rank_drugs(adata, groups="B cell").columns[:3].tolist()
    ['group', 'drug', 'effect']
    """
    check_key(key_added)
    if not 0 < level < 1:
        msg = f"level={level!r} must lie between 0 and 1; 0.95 is common."
        raise ValueError(msg)
    values, record = read_response(adata, key)
    check_free(adata, key_added, of="tl.rank_drugs", field="effect")
    labels = read_groups(adata, groupby)
    samples = None if sample_key is None else read_groups(adata, sample_key)
    names = _ranked(labels, groups, reference, groupby)
    are_replicates = _are_replicates(adata, record, samples)
    # before the long part, which a matrix that cannot be read would waste; one gene of the vocabulary is enough
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=0)
    expressed = _targets_expressed(adata, labels, names, record.target, source)
    show = adata.n_obs >= PROGRESS_FROM if show_progress is None else show_progress
    with tqdm(total=adata.n_obs, desc="rank drugs", unit="cell", disable=not show) as progress:
        cohorts = _Cohorts.of(values, labels, samples, progress.update)
    if samples is not None:
        _check_samples(cohorts, str(sample_key))
    found = [cohorts.compare(name, reference, level, are_replicates=are_replicates) for name in names]
    rows = {field: np.array([getattr(one, field) for one in found]) for field in FIELDS}
    means = np.array([one.mean for one in found])
    _report(rows["p_value"], record, sample_key, are_replicates=are_replicates)
    _report_outside(adata, labels, names, key)
    ranked = RankRecord(
        groups=names,
        drugs=record.drugs,
        target=record.target,
        drug_class=record.drug_class,
        **rows,
        n_samples=np.array([one.n_units for one in found]),
        effect_sd=rows["effect"] / record.spread,
        ln_ic50=means,
        z=record.z(means),
        spread=record.spread,
        p_adjusted=np.array([adjust(row) for row in rows["p_value"]]),
        target_expressed=expressed,
        groupby=groupby,
        reference=reference,
        sample_key=sample_key or "",
        replicates="cells" if samples is None else "samples",
        level=level,
        key=key,
    )
    adata = adata.copy() if copy else adata
    adata.uns[key_added] = ranked.to_uns()
    return adata if copy else None


def _ranked(
    labels: pd.Categorical, groups: str | Sequence[str] | None, reference: str, groupby: str
) -> list[str]:
    """The groups to rank; raises as `rank_drugs` does."""
    there = labels.categories.tolist()
    if len(there) < 2:
        msg = f"`adata.obs[{groupby!r}]` has {len(there)} groups with cells; need at least two to compare."
        raise ValueError(msg)
    if reference != "rest" and reference not in there:
        msg = f"reference={reference!r} is no group of `adata.obs[{groupby!r}]`, which has {there}."
        raise KeyError(msg)
    if groups is None:
        return [name for name in there if name != reference]
    wanted = list(dict.fromkeys(map(str, [groups] if isinstance(groups, str) else groups)))
    if unknown := [name for name in wanted if name not in there]:
        msg = f"{unknown} of groups= are no groups of `adata.obs[{groupby!r}]`, which has {there}."
        raise KeyError(msg)
    if not wanted:
        msg = f"groups= is empty; name at least one of {there}, or leave it out for all."
        raise ValueError(msg)
    if reference in wanted:
        msg = f"groups= holds the reference {reference!r}, which would be compared with itself; leave it out of groups=."
        raise ValueError(msg)
    return wanted


@dataclass(frozen=True)
class _Cohorts:
    """Sums of predictions over the cells of each group and sample; without samples over those of each group."""

    moments: Moments
    """(groups x (samples + 1)) cohorts, the last of each group its cells without a sample."""
    labels: pd.Categorical
    n_samples: int
    has_samples: bool

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        labels: pd.Categorical,
        samples: pd.Categorical | None,
        done: Callable[[int], object],
    ) -> _Cohorts:
        """Read all predictions once."""
        n = 0 if samples is None else len(samples.categories)
        of_sample = (
            np.full(len(labels), n) if samples is None else np.where(samples.codes < 0, n, samples.codes)
        )
        codes = np.where(labels.codes < 0, -1, labels.codes.astype(np.int64) * (n + 1) + of_sample)
        moments = moments_of(values, codes, len(labels.categories) * (n + 1), done)
        return cls(moments, labels, n, samples is not None)

    def without_sample(self) -> tuple[int, int]:
        """Cells with a group and a prediction: those without a sample, and all."""
        counts = self.moments.n.reshape(len(self.labels.categories), -1)
        return int(counts[:, -1].sum()), int(counts.sum())

    def compare(self, name: str, reference: str, level: float, *, are_replicates: bool) -> Comparison:
        """A group beside its reference.

        Raises
        ------
        ValueError
            A side has no cell with a prediction.
        """
        there = np.asarray(self.labels.categories)
        group = there == name
        sides = group, ~group if reference == "rest" else there == reference
        for side, what in zip(sides, (name, reference), strict=True):
            if not self.moments.n.reshape(len(there), -1)[side].sum():
                msg = f"No cell of {what!r} has a prediction; nothing can be compared."
                raise ValueError(msg)
        if not self.has_samples:
            first, second = (self.moments.added(side[None]) for side in sides)
            return compare_cells(first, second, level=level, with_interval=are_replicates)
        of_samples = np.eye(self.n_samples, self.n_samples + 1)
        first, second = (self.moments.added(np.kron(side[None], of_samples)) for side in sides)
        return compare_samples(first, second, level=level, with_test=are_replicates)


def _check_samples(cohorts: _Cohorts, sample_key: str) -> None:
    """Count the cells that have no sample.

    Raises
    ------
    ValueError
        None has one.
    """
    missing, used = cohorts.without_sample()
    if missing and missing == used:
        msg = f"sample_key={sample_key!r}: no cell with a group and a prediction has a sample there; all are missing."
        raise ValueError(msg)
    if missing:
        warn(f"{missing} cells have no sample in `adata.obs[{sample_key!r}]`; they are left out.")


def _are_replicates(adata: AnnData, record: DrugRecord, samples: pd.Categorical | None) -> bool:
    """Whether predictions vary as cells or samples do: made cell by cell, or by groups of one sample each."""
    if not record.groupby:
        return True
    if samples is None or not has_column(adata, record.groupby):
        return False
    predicted_by = read_text(adata, record.groupby)
    return bool((pd.Series(samples.codes).groupby(predicted_by).nunique() <= 1).all())


def _targets_expressed(
    adata: AnnData, labels: pd.Categorical, names: list[str], targets: list[str], source: ReadOptions
) -> np.ndarray:
    """Largest share of cells of each group that express a target, (n_groups, n_drugs)."""
    vocabulary = GeneVocabulary.default()
    wanted = [target_genes(target) for target in targets]
    known = sorted({name for drug in wanted for name in drug})
    ids = vocabulary.match(known, organism="human").ids.tolist()
    n_cells = np.array([int((labels == name).sum()) for name in names])
    with Expression.open(adata, vocabulary, source) as cells:
        has_gene = cells.has_gene
        used = sorted({gene for gene in ids if gene >= 0 and has_gene[gene]})
        n_expressing = np.zeros((len(names), len(used)), dtype=np.int64)
        for start, counts in cells.counts() if used else ():
            is_expressed = counts[:, used] > 0
            here = labels[start : start + counts.shape[0]]
            for group, name in enumerate(names):
                n_expressing[group] += is_expressed[np.flatnonzero(here == name)].sum(axis=0)
    shares = (n_expressing / n_cells[:, None]).astype(np.float32)
    place = {gene: at for at, gene in enumerate(used)}
    place_of = {text: place[gene] for text, gene in zip(known, ids, strict=True) if gene in place}
    result = np.full((len(names), len(wanted)), np.nan, dtype=np.float32)
    for drug, texts in enumerate(wanted):
        found = [place_of[text] for text in texts if text in place_of]
        if found:
            result[:, drug] = shares[:, found].max(1)
    return result


def _report(p_value: np.ndarray, record: DrugRecord, sample_key: str | None, *, are_replicates: bool) -> None:
    """Say what is missing for a test."""
    untested = int(np.isnan(p_value).all(1).sum())
    if not are_replicates:
        warn(
            f"The predictions were made by {record.groupby!r}: every cell of a group has the same one, so that nothing is "
            "known of its spread, and there are neither p-values nor intervals. Run tl.drug_response cell by cell, or by a "
            "column of group and sample together."
        )
    elif sample_key is None:
        warn(
            "Without sample_key= there are no p-values, and the intervals only say how much cells vary: cells of one donor "
            "are not independent replicates."
        )
    elif untested:
        warn(
            f"{untested} groups have no p-value: fewer than {FEWEST_SAMPLES} samples of `adata.obs[{sample_key!r}]` on a side."
        )


def _report_outside(adata: AnnData, labels: pd.Categorical, names: list[str], key: str) -> None:
    """Say which of the ranked groups lie outside of what the model has seen."""
    if f"{key}_applicability" not in adata.obs:
        return
    distance = adata.obs[f"{key}_applicability"].to_numpy(np.float64)
    middle = pd.Series(distance).groupby(np.asarray(labels.codes)).median()
    there = labels.categories.tolist()
    outside = [name for name in names if middle.get(there.index(name), np.nan) > 1]
    if outside:
        shown = ", ".join(outside[:5]) + (", ..." if len(outside) > 5 else "")
        warn(
            f"{len(outside)} of {len(names)} groups ({shown}) are unlike any cancer cell line the model has seen (median applicability "
            "above 1): differences from and between them mean little. Name groups inside with groups= and reference=."
        )
