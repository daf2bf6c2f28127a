"""rank_drugs: which drugs hit one group of cells more than another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_free, check_key
from .._keys import DRUG_RESPONSE, RANK_DRUGS
from .._obs import has_column, read_groups, read_text
from .._warn import warn
from ..data import Expression, GeneVocabulary, ReadOptions
from ..drugs._rank import FEWEST_SAMPLES, adjust, compare, units_of
from ..drugs._record import DrugRecord, RankRecord
from ._drug_results import read_response

FIELDS = ("effect", "low", "high", "p_value")
"""What a comparison says of each drug."""
PROGRESS_FROM = 5_000
"""Cells from which a progress bar is shown by default."""


def rank_drugs(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Sequence[str] | None = None,
    reference: str = "rest",
    sample_key: str | None = None,
    key: str = DRUG_RESPONSE,
    n_bootstraps: int = 1000,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    key_added: str = RANK_DRUGS,
    show_progress: bool | None = None,
    rng: np.random.Generator | int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Rank drugs by how much more sensitive a group of cells is predicted to be than another.

    The effect is the difference of mean predicted ln IC50, so -1 means that 2.7 times less drug is needed, if the
    prediction is right: the error of the model itself is larger than most differences, and is not part of the interval.

    Cells of one donor are not independent replicates. With `sample_key` each donor's cells count as one value: the
    interval comes from resampling donors, and the p-value from a t test over them (paired where at least three donors
    have both kinds of cells, and of those alone), corrected over drugs :cite:p:`Benjamini1995`. Without, all cells of a side
    count alike and there is no p-value. Predictions that were made by groups are no replicates, unless each is of one
    sample: only effects are given then, and nothing is resampled.

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
    n_bootstraps
        Resamplings for the 95 % interval.
    layer, use_raw, gene_key
        Where to look whether targets are expressed, as in `tl.drug_response`.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 5,000 cells.
    rng
        Seed or generator of the resampling.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`; `get.rank_drugs` makes a table. Sets:

    `adata.uns[key_added]` : dict
        `groups`, `drugs`, `target`, `drug_class`; arrays of shape (n_groups, n_drugs): `effect` (ln uM, negative =
        more sensitive), `effect_sd` (in units of the drug's spread over cell lines), `low` and `high` (95 %
        interval), `p_value` and `p_adjusted` (NaN without donors), `target_expressed` (largest share of the group's
        cells that express a target; NaN if no target is a gene of the data); `n_samples` (n_groups, 2) that were
        compared, of the group and its reference; `groupby`, `reference`, `sample_key`, `resampled` ("samples" or "cells"), `scellm_version`.

    Raises
    ------
    KeyError
        No results under `key`, no such column, or `reference` or one of `groups` is no group.
    TypeError
        `groupby` of measurements.
    ValueError
        Fewer than two groups, no group named, `reference` among `groups`, a group without any prediction, no cell with a sample,
        `n_bootstraps` below 1, or values or genes that cannot be read, as in `tl.drug_response`; one known gene is enough.

    Warns
    -----
    UserWarning
        No `sample_key`, cells without a sample, too few donors for a test, predictions that were made by groups, or
        values whose scale had to be guessed.

    Examples
    --------
    >>> import warnings
    >>> adata = scellm.datasets.toy_cells(40, n_vars=19315, n_donors=4)
    >>> with warnings.catch_warnings():  # toy cells are no cancer
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.drug_response(adata)
    >>> scellm.tl.rank_drugs(adata, "cell_type", sample_key="donor", n_bootstraps=20)
    >>> scellm.get.rank_drugs(adata, groups="B cell").columns[:3].tolist()
    ['group', 'drug', 'effect']
    """
    check_key(key_added)
    if n_bootstraps < 1:
        msg = f"n_bootstraps={n_bootstraps!r} must be at least 1; an interval of some worth needs hundreds."
        raise ValueError(msg)
    values, record = read_response(adata, key)
    check_free(adata, key_added, of="tl.rank_drugs", field="effect")
    labels = read_groups(adata, groupby)
    samples = None if sample_key is None else read_groups(adata, sample_key)
    names = _ranked(labels, groups, reference, groupby)
    known = np.isfinite(values).all(1)
    if samples is not None:
        _check_samples(samples, known & (labels.codes >= 0), str(sample_key))
    are_replicates = _are_replicates(adata, record, samples)
    # before the long part, which a matrix that cannot be read would waste; one gene of the vocabulary is enough
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=0)
    expressed = _targets_expressed(adata, labels, names, record.target, source)
    options = {
        "n_bootstraps": n_bootstraps if are_replicates else 0,
        "with_test": samples is not None,
        "rng": np.random.default_rng(rng),
    }
    of_cells = None if samples is None else samples.codes
    show = adata.n_obs >= PROGRESS_FROM if show_progress is None else show_progress
    found = []
    for name in tqdm(names, desc="rank drugs", unit="group", disable=not show):
        sides = _sides(labels, known, name, reference, groupby)
        found.append(compare(*(units_of(values, side, of_cells) for side in sides), **options))
    rows = {field: np.array([getattr(one, field) for one in found]) for field in FIELDS}
    _report(rows["p_value"], record, sample_key, are_replicates=are_replicates)
    ranked = RankRecord(
        groups=names,
        drugs=record.drugs,
        target=record.target,
        drug_class=record.drug_class,
        **rows,
        n_samples=np.array([one.n_units for one in found]),
        effect_sd=rows["effect"] / record.spread,
        p_adjusted=np.array([adjust(row) for row in rows["p_value"]]),
        target_expressed=expressed,
        groupby=groupby,
        reference=reference,
        sample_key=sample_key or "",
        resampled="cells" if samples is None else "samples",
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


def _sides(
    labels: pd.Categorical, known: np.ndarray, name: str, reference: str, groupby: str
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a group and of its reference that have a prediction, (n_obs,) bool each.

    Raises
    ------
    ValueError
        There are none.
    """
    other = (labels != name) & (labels.codes >= 0) if reference == "rest" else labels == reference
    sides = (labels == name) & known, other & known
    for side, what in zip(sides, (name, reference), strict=True):
        if not side.any():
            msg = (
                f"No cell of {what!r} in `adata.obs[{groupby!r}]` has a prediction; nothing can be compared."
            )
            raise ValueError(msg)
    return sides


def _check_samples(samples: pd.Categorical, used: np.ndarray, sample_key: str) -> None:
    """Count the cells, of those `used`, that have no sample.

    Raises
    ------
    ValueError
        None has one.
    """
    missing = int((used & (samples.codes < 0)).sum())
    if missing and missing == used.sum():
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
    wanted = [[text.strip() for text in target.split(",")] for target in targets]
    known = sorted({name for drug in wanted for name in drug if name})
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
