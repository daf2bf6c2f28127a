"""drug_response, rank_drugs: results about drugs as tidy tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from .._keys import DRUG_RESPONSE, RANK_DRUGS
from .._obs import read_groups


def drug_response(adata: AnnData, *, key: str = DRUG_RESPONSE, groupby: str | None = None) -> pd.DataFrame:
    """Predicted responses as a tidy table: one row per cell (or group) and drug.

    Parameters
    ----------
    adata
        Cells that `tl.drug_response` has seen.
    key
        Key of the results.
    groupby
        Column of `obs` to average the cells by; `None` takes the groups that the predictions were made by, or without
        any gives each cell.

    Returns
    -------
    Table with the columns `cell` or the name of the column of groups, `drug`, `ln_ic50` (ln uM), `std` (mean of the
    cells' standard deviations), `applicability` (mean), `drug_class`, `target`, `pearson`, and of groups `n_cells`.

    Raises
    ------
    KeyError
        No results under `key`, or no such column.

    Examples
    --------
    >>> import warnings
    >>> adata = scellm.datasets.toy_cells(24, n_vars=19315)
    >>> with warnings.catch_warnings():  # toy cells are no cancer
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.drug_response(adata, drugs="EGFR", groupby="cell_type")
    >>> scellm.get.drug_response(adata)["cell_type"].nunique()
    4
    """
    record = adata.uns.get(key)
    if key not in adata.obsm or not isinstance(record, dict) or "drugs" not in record:
        added = "" if key == DRUG_RESPONSE else f", key_added={key!r}"
        msg = f"There are no drug responses under {key!r}. Run scellm.tl.drug_response(adata{added}) first."
        raise KeyError(msg)
    groupby = groupby or record["groupby"] or None
    mean, std = (np.asarray(adata.obsm[name], dtype=np.float64) for name in (key, f"{key}_std"))
    applicability = adata.obs[f"{key}_applicability"].to_numpy(np.float64)
    names, what, counts = adata.obs_names.to_numpy(), "cell", None
    if groupby is not None:
        groups = read_groups(adata, groupby)
        counts = np.bincount(groups.codes[groups.codes >= 0], minlength=len(groups.categories))
        by = pd.Series(groups.codes)
        mean, std, applicability = (
            pd.DataFrame(values).groupby(by).mean().drop(index=-1, errors="ignore").to_numpy()
            for values in (mean, std, applicability)
        )
        names, what, applicability = np.asarray(groups.categories), groupby, applicability[:, 0]
    n, n_drugs = mean.shape
    drugs = {name: np.tile(np.asarray(record[field]), n) for name, field in _PER_DRUG.items()}
    table = {
        what: np.repeat(names, n_drugs),
        "drug": drugs.pop("drug"),
        "ln_ic50": mean.ravel(),
        "std": std.ravel(),
        "applicability": np.repeat(applicability, n_drugs),
        **drugs,
    }
    if counts is not None:
        table["n_cells"] = np.repeat(counts, n_drugs)
    return pd.DataFrame(table)


_PER_DRUG = {"drug": "drugs", "drug_class": "drug_class", "target": "target", "pearson": "pearson"}


def rank_drugs(
    adata: AnnData, *, group: str | None = None, key: str = RANK_DRUGS, max_p_adjusted: float | None = None
) -> pd.DataFrame:
    """Ranked drugs as a tidy table: one row per group and drug, most sensitive first.

    Parameters
    ----------
    adata
        Cells that `tl.rank_drugs` has seen.
    group
        One group only.
    key
        Key of the results.
    max_p_adjusted
        Only drugs with an adjusted p-value up to this; those without one go.

    Returns
    -------
    Table with the columns `group`, `drug`, `effect`, `low`, `high`, `effect_sd`, `p_value`, `p_adjusted`,
    `target_expressed`, `target`, `drug_class`, `n_samples`, `n_reference`.

    Raises
    ------
    KeyError
        No results under `key`, or no such group.
    """
    record = adata.uns.get(key)
    if not isinstance(record, dict) or "effect" not in record:
        msg = f"There are no ranked drugs under {key!r}. Run scellm.tl.rank_drugs(adata, groupby) first."
        raise KeyError(msg)
    groups = [str(name) for name in np.atleast_1d(record["groups"])]
    if group is not None and group not in groups:
        msg = f"group={group!r} was not ranked; there are {groups}."
        raise KeyError(msg)
    tables = []
    for i, name in enumerate(groups):
        if group is not None and name != group:
            continue
        columns = {field: np.asarray(record[field])[i] for field in _PER_PAIR}
        table = pd.DataFrame(
            {"group": name, "drug": np.asarray(record["drugs"]), **columns}
            | {"target": np.asarray(record["target"]), "drug_class": np.asarray(record["drug_class"])}
        )
        table["n_samples"], table["n_reference"] = np.asarray(record["n_samples"])[i].tolist()
        tables.append(table.sort_values("effect", kind="stable"))
    table = pd.concat(tables, ignore_index=True)
    if max_p_adjusted is not None:
        table = table[table["p_adjusted"] <= max_p_adjusted].reset_index(drop=True)
    return table


_PER_PAIR = ("effect", "low", "high", "effect_sd", "p_value", "p_adjusted", "target_expressed")
