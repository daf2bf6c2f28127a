"""drug_response, rank_drugs: results about drugs as tidy tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._containers import takes_cells
from .._keys import DRUG_RESPONSE, RANK_DRUGS
from .._obs import read_groups
from .._warn import warn
from ..drugs._record import DrugRecord, RankRecord
from ..drugs._targets import target_genes


@takes_cells
def drug_response(
    adata: AnnData, *, key: str = DRUG_RESPONSE, groupby: str | None = None, n_drugs: int | None = None
) -> pd.DataFrame:
    """Predicted responses as a tidy table: one row per cell (or group) and drug.

    `z` is the difference from the drug's mean over the cell lines of the model, in units of its spread over them. The lowest ln IC50 are
    those of drugs that kill every cell line; the lowest `z` are of drugs that are predicted to hit these cells more than usual.

    Parameters
    ----------
    adata
        Cells that `tl.drug_response` has seen.
    key
        Key of the results.
    groupby
        Column of `obs` to average the cells by; `None` takes the groups that the predictions were made by, or without
        any gives each cell.
    n_drugs
        Drugs of each cell or group: those with the lowest `z`, lowest first. `None` gives all, in the order of the predictions.

    Returns
    -------
    Table with the columns `cell` or the name of the column of groups, `drug`, `ln_ic50` (ln uM), `z` (NaN in predictions of scellm 0.2), `std` (mean of the
    cells' standard deviations), `applicability` (mean), `drug_class`, `target`, `target_genes` (approved symbols, "" for mechanisms without a gene), `pearson`, and of groups `n_cells`.

    Raises
    ------
    KeyError
        No results under `key`, or no such column.
    TypeError
        `adata` is not an AnnData; `groupby` of measurements.
    ValueError
        Two columns have the name `groupby`, or `n_drugs` is below 1.

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
    check_anndata(adata)
    if n_drugs is not None and (not isinstance(n_drugs, int | np.integer) or n_drugs < 1):
        msg = f"n_drugs={n_drugs!r} must be a whole number of at least 1."
        raise ValueError(msg)
    record = DrugRecord.from_uns(adata.uns.get(key))
    if key not in adata.obsm or record is None:
        added = "" if key == DRUG_RESPONSE else f", key_added={key!r}"
        msg = f"There are no drug responses under {key!r}. Run scellm.tl.drug_response(adata{added}) first."
        raise KeyError(msg)
    groupby = groupby or record.groupby or None
    mean = np.asarray(adata.obsm[key], dtype=np.float64)
    std = record.std(adata.obs[f"{key}_uncertainty"].to_numpy())
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
    n, width = mean.shape
    table = {
        what: np.repeat(names, width),
        "drug": np.tile(record.drugs, n),
        "ln_ic50": mean.ravel(),
        "z": record.z(mean).ravel(),
        "std": std.ravel(),
        "applicability": np.repeat(applicability, width),
        "drug_class": np.tile(record.drug_class, n),
        "target": np.tile(record.target, n),
        "target_genes": np.tile([", ".join(target_genes(text)) for text in record.target], n),
        "pearson": np.tile(record.pearson, n),
    }
    if counts is not None:
        table["n_cells"] = np.repeat(counts, width)
    rows = pd.DataFrame(table)
    if n_drugs is None:
        return rows
    row, by = np.repeat(np.arange(n), width), "z"
    if rows["z"].isna().all():
        by = "ln_ic50"
        warn(
            f"These predictions under {key!r} are of an older scellm, which stored no means over cell lines: drugs are chosen by the lowest ln "
            "IC50. Run scellm.tl.drug_response(adata) again."
        )
    order = np.lexsort((rows[by].to_numpy(), row)).reshape(n, width)[:, :n_drugs]
    return rows.iloc[order.ravel()].reset_index(drop=True)


@takes_cells
def rank_drugs(
    adata: AnnData,
    *,
    groups: str | Sequence[str] | None = None,
    key: str = RANK_DRUGS,
    max_p_adjusted: float | None = None,
) -> pd.DataFrame:
    """Ranked drugs as a tidy table: one row per group and drug, most sensitive first.

    Parameters
    ----------
    adata
        Cells that `tl.rank_drugs` has seen.
    groups
        Groups to list, in this order; `None` lists all.
    key
        Key of the results.
    max_p_adjusted
        Only drugs with an adjusted p-value up to this; those without one go.

    Returns
    -------
    Table with the columns `group`, `drug`, `effect` (ln uM), `low`, `high`, `effect_sd` (in units of the drug's spread over cell
    lines: what drugs are ranked by), `ln_ic50`, `z`, `p_value`, `p_adjusted`,
    `target_expressed`, `target`, `drug_class`, `n_samples`, `n_reference`.

    Raises
    ------
    KeyError
        No results under `key`, or a group was not ranked.
    TypeError
        `adata` is not an AnnData.
    ValueError
        No group is named.
    """
    check_anndata(adata)
    record = RankRecord.from_uns(adata.uns.get(key))
    if record is None:
        msg = f"There are no ranked drugs under {key!r}. Run scellm.tl.rank_drugs(adata, groupby) first."
        raise KeyError(msg)
    table = pd.concat([record.table(group) for group in record.choose(groups)], ignore_index=True)
    if max_p_adjusted is not None:
        table = table[table["p_adjusted"] <= max_p_adjusted].reset_index(drop=True)
    return table
