"""rank_drugs: which drugs hit one group of cells more than another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy import stats

from .._checks import check_free, check_key, get_matrix
from .._keys import DRUG_RESPONSE, RANK_DRUGS
from .._obs import read_groups, read_text
from .._version import __version__
from .._warn import warn
from ..data import GeneVocabulary, gene_names

FEWEST_SAMPLES = 3
"""Samples a side needs for a test."""


def rank_drugs(
    adata: AnnData,
    groupby: str,
    *,
    reference: str = "rest",
    sample_key: str | None = None,
    key: str = DRUG_RESPONSE,
    n_bootstraps: int = 1000,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    key_added: str = RANK_DRUGS,
    rng: np.random.Generator | int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Rank drugs by how much more sensitive a group of cells is predicted to be than another.

    The effect is the difference of mean predicted ln IC50, so -1 means that 2.7 times less drug is needed, if the
    prediction is right: the error of the model itself is larger than most differences, and is not part of the interval.

    Cells of one donor are no independent evidence. With `sample_key` each donor's cells count as one value: the
    interval comes from resampling donors, and the p-value from a t test over them (paired where at least three donors
    have both kinds of cells, and of those alone), corrected over drugs :cite:p:`Benjamini1995`. Without, all cells of a side
    count alike and there is no p-value. Predictions that were made by groups are no replicates, unless each is of one
    sample: only effects are given then.

    Parameters
    ----------
    adata
        Cells with results of `tl.drug_response`, best cell by cell or by a column that no group and sample share.
    groupby
        Column of `obs` with the groups.
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
        No results under `key`, no such column, or `reference` is no group.
    TypeError
        `groupby` of measurements.
    ValueError
        Fewer than two groups, a group without any prediction, no cell with a sample, or `n_bootstraps` below 1.

    Warns
    -----
    UserWarning
        No `sample_key`, cells without a sample, too few donors for a test, or predictions that were made by groups.

    Examples
    --------
    >>> import warnings
    >>> adata = scellm.datasets.toy_cells(40, n_vars=19315, n_donors=4)
    >>> with warnings.catch_warnings():  # toy cells are no cancer
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.drug_response(adata)
    >>> scellm.tl.rank_drugs(adata, "cell_type", sample_key="donor", n_bootstraps=20)
    >>> scellm.get.rank_drugs(adata, group="B cell").columns[:3].tolist()
    ['group', 'drug', 'effect']
    """
    check_key(key_added)
    if n_bootstraps < 1:
        msg = f"n_bootstraps={n_bootstraps!r} must be at least 1; an interval of some worth needs hundreds."
        raise ValueError(msg)
    values, record = read_response(adata, key)
    check_free(adata, key_added, of="tl.rank_drugs", field="effect")
    groups = read_groups(adata, groupby)
    samples = None if sample_key is None else read_groups(adata, sample_key)
    names = [name for name in groups.categories.tolist() if name != reference]
    if len(groups.categories) < 2:
        msg = f"`adata.obs[{groupby!r}]` has {len(groups.categories)} groups with cells; need at least two to compare."
        raise ValueError(msg)
    if reference != "rest" and reference not in groups.categories.tolist():
        msg = f"reference={reference!r} is no group of `adata.obs[{groupby!r}]`, which has {groups.categories.tolist()}."
        raise KeyError(msg)
    known = np.isfinite(values).all(1)
    if samples is not None:
        _check_samples(samples, known & (groups.codes >= 0), str(sample_key))
    rng = np.random.default_rng(rng)
    rows: dict[str, list[Any]] = {name: [] for name in ("effect", "low", "high", "p_value", "n_samples")}
    for name in names:
        inside = (groups == name) & known
        other = (groups != name) & (groups.codes >= 0) if reference == "rest" else groups == reference
        other = other & known
        for side, what in ((inside, name), (other, reference)):
            if not side.any():
                msg = f"No cell of {what!r} in `adata.obs[{groupby!r}]` has a prediction; nothing can be compared."
                raise ValueError(msg)
        sides = [_units(values, side, samples) for side in (inside, other)]
        effect, low, high, p_value = _compare(*sides, n_bootstraps=n_bootstraps, rng=rng)
        if samples is None:
            p_value = np.full_like(p_value, np.nan)
        n_shared = len(sides[0].keys() & sides[1].keys())
        n_units = [n_shared] * 2 if n_shared >= FEWEST_SAMPLES else [len(side) for side in sides]
        for field, value in zip(rows, (effect, low, high, p_value, n_units), strict=True):
            rows[field].append(value)
    result = {field: np.array(value) for field, value in rows.items()}
    if not _are_replicates(adata, record, samples):
        for field in ("low", "high", "p_value"):
            result[field] = np.full_like(result[field], np.nan)
        warn(
            f"The predictions were made by {record['groupby']!r}: every cell of a group has the same one, so that nothing is "
            "known of its spread, and there are neither p-values nor intervals. Run tl.drug_response cell by cell, or by a "
            "column of group and sample together."
        )
    else:
        _report(result, sample_key)
    spread = np.asarray(record["spread"], dtype=np.float64)
    expressed = _targets_expressed(adata, groups, names, record["target"], layer, use_raw, gene_key)
    adata = adata.copy() if copy else adata
    adata.uns[key_added] = {
        "scellm_version": __version__,
        "groups": np.array([str(name) for name in names]),
        "drugs": np.asarray(record["drugs"]),
        "target": np.asarray(record["target"]),
        "drug_class": np.asarray(record["drug_class"]),
        **{field: value.astype(np.float32) for field, value in result.items() if field != "n_samples"},
        "n_samples": result["n_samples"],
        "effect_sd": (result["effect"] / spread).astype(np.float32),
        "p_adjusted": np.array([_adjust(row) for row in result["p_value"]], dtype=np.float32),
        "target_expressed": expressed,
        "groupby": groupby,
        "reference": reference,
        "sample_key": sample_key or "",
        "resampled": "cells" if samples is None else "samples",
        "key": key,
    }
    return adata if copy else None


def read_response(adata: AnnData, key: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Predictions (n_obs, n_drugs) float64 and record of `tl.drug_response`.

    Raises
    ------
    KeyError
        There are none under `key`.
    TypeError
        `adata` is no AnnData.
    """
    if not isinstance(adata, AnnData):
        msg = f"Need an AnnData object, found {type(adata).__name__}."
        raise TypeError(msg)
    record = adata.uns.get(key)
    if key not in adata.obsm or not isinstance(record, dict) or "drugs" not in record:
        added = "" if key == DRUG_RESPONSE else f", key_added={key!r}"
        msg = f"There are no drug responses under {key!r}. Run scellm.tl.drug_response(adata{added}) first."
        raise KeyError(msg)
    return np.asarray(adata.obsm[key], dtype=np.float64), record


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


def _are_replicates(adata: AnnData, record: dict[str, Any], samples: pd.Categorical | None) -> bool:
    """Whether predictions vary as cells or samples do: made cell by cell, or by groups of one sample each."""
    groupby = record.get("groupby", "")
    if not groupby:
        return True
    if samples is None or groupby not in adata.obs:
        return False
    predicted_by = read_text(adata, groupby)
    return bool((pd.Series(samples.codes).groupby(predicted_by).nunique() <= 1).all())


def _units(values: np.ndarray, inside: np.ndarray, samples: pd.Categorical | None) -> dict[Any, np.ndarray]:
    """Mean prediction (n_drugs,) of each sample's cells of a side; without samples each cell by itself."""
    if samples is None:
        return dict(zip(np.flatnonzero(inside).tolist(), values[inside], strict=True))
    codes = samples.codes
    return {
        code: values[inside & (codes == code)].mean(0)
        for code in np.unique(codes[inside]).tolist()
        if code >= 0
    }


def _compare(
    group: dict[Any, np.ndarray], other: dict[Any, np.ndarray], *, n_bootstraps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Difference of means over units, its 95 % interval and a t test, each (n_drugs,); NaN with too few units."""
    shared = [unit for unit in group if unit in other]
    nothing = np.full(len(next(iter((group or other).values()))), np.nan)
    if not group or not other:
        return nothing, nothing, nothing, nothing
    if len(shared) >= FEWEST_SAMPLES:
        a, b = (np.array([side[unit] for unit in shared]) for side in (group, other))
        effect, sides = (a - b).mean(0), [a - b]
        p_value = stats.ttest_1samp(a - b, 0, axis=0).pvalue
    else:
        a, b = np.array(list(group.values())), np.array(list(other.values()))
        effect, sides = a.mean(0) - b.mean(0), [a, -b]
        enough = min(len(a), len(b)) >= FEWEST_SAMPLES
        p_value = stats.ttest_ind(a, b, axis=0, equal_var=False).pvalue if enough else nothing
    if min(map(len, sides)) < 2:
        return effect, nothing, nothing, p_value
    drawn = np.zeros((n_bootstraps, len(effect)))
    for i in range(n_bootstraps):
        for side in sides:
            weights = np.bincount(rng.integers(len(side), size=len(side)), minlength=len(side))
            drawn[i] += weights @ side / len(side)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return effect, low, high, p_value


def _adjust(p_values: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over the drugs that have a p-value."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known])
    return adjusted


def _targets_expressed(
    adata: AnnData,
    groups: pd.Categorical,
    names: list[Any],
    targets: np.ndarray,
    layer: str | None,
    use_raw: bool | None,
    gene_key: str | None,
) -> np.ndarray:
    """Largest share of cells of each group that express a target, (n_groups, n_drugs)."""
    X, var, _ = get_matrix(adata, layer, use_raw)
    vocabulary = GeneVocabulary.default()
    columns, _ = gene_names(var, gene_key)
    ids = vocabulary.match([str(name) for name in columns]).ids
    column_of = {gene: i for i, gene in reversed(list(enumerate(ids.tolist()))) if gene >= 0}
    wanted = [[text.strip() for text in target.split(",")] for target in map(str, targets)]
    known = sorted({name for drug in wanted for name in drug if name})
    gene_of = dict(zip(known, vocabulary.match(known, organism="human").ids.tolist(), strict=True))
    used = sorted({column_of[gene] for gene in gene_of.values() if gene in column_of})
    shares = np.zeros((len(names), len(used)), dtype=np.float32)
    for i, name in enumerate(names):
        rows = np.flatnonzero(groups == name)
        part = X[rows][:, used] if used else np.zeros((len(rows), 0))
        part = part.toarray() if sp.issparse(part) else np.asarray(part)
        shares[i] = (part > 0).mean(0)
    place = {column: i for i, column in enumerate(used)}
    result = np.full((len(names), len(wanted)), np.nan, dtype=np.float32)
    for drug, texts in enumerate(wanted):
        found = [place[column_of[gene_of[text]]] for text in texts if gene_of.get(text) in column_of]
        if found:
            result[:, drug] = shares[:, found].max(1)
    return result


def _report(result: dict[str, np.ndarray], sample_key: str | None) -> None:
    """Say what is missing for a test."""
    if sample_key is None:
        warn(
            "Without sample_key= there are no p-values, and the intervals only say how much cells vary: cells of one donor "
            "are no independent evidence."
        )
    elif np.isnan(result["p_value"]).all(1).any():
        n = int(np.isnan(result["p_value"]).all(1).sum())
        warn(
            f"{n} groups have no p-value: fewer than {FEWEST_SAMPLES} samples of `adata.obs[{sample_key!r}]` on a side."
        )
