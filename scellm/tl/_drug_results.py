"""Where predicted drug responses stand in an AnnData: checked, written, read."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from .._checks import check_anndata, check_free
from .._keys import DRUG_RESPONSE
from ..drugs._choose import column_text
from ..drugs._predict import Prediction
from ..drugs._record import DrugRecord

FEW_DRUGS = 8
"""Drugs up to which each gets a column of `obs`, if it was asked for; more are kept at half precision."""


def column_name(key: str, drug: str) -> str:
    """Name of a drug's column in `obs`."""
    return f"{key}:{column_text(drug)}"


def check_places(adata: AnnData, key: str) -> None:
    """That the places of the results hold nothing else; raises ValueError."""
    places = [("obsm", key), ("obs", f"{key}_uncertainty"), ("obs", f"{key}_applicability")]
    check_free(adata, key, *places, of="tl.drug_response", field="drugs")


def check_columns(adata: AnnData, key: str, columns: list[str]) -> None:
    """Refuse columns of drugs that an earlier call has not written.

    Raises
    ------
    ValueError
        One is there and is not ours.
    """
    known = _written(adata, key)
    if key not in adata.uns:  # as after anndata.concat, which drops uns
        there = [column for column in columns if column in adata.obs]
        known += [column for column in there if adata.obs[column].dtype == np.float32]
    if taken := [column for column in columns if column in adata.obs and column not in known]:
        msg = (
            f"`adata.obs[{taken[0]!r}]` already exists and was not written by tl.drug_response. Pass "
            "key_added= with another key, or delete it."
        )
        raise ValueError(msg)


def write_response(
    adata: AnnData, key: str, found: Prediction, record: DrugRecord, codes: np.ndarray | None
) -> None:
    """Write predictions, those of groups to each of their cells, and replace what an earlier call wrote.

    `codes` (n_obs,) are the group of each cell, -1 for none; `None` if predictions are of cells.
    """
    for column in _written(adata, key):
        if column in adata.obs:
            del adata.obs[column]
    few = len(record.drugs) <= FEW_DRUGS
    adata.obsm[key] = _of_cells(found.mean, codes).astype(np.float32 if few else np.float16)
    adata.obsm.pop(f"{key}_std", None)  # of an earlier version
    adata.obs[f"{key}_uncertainty"] = _of_cells(found.uncertainty, codes)
    adata.obs[f"{key}_applicability"] = _of_cells(found.distance, codes)
    for i, column in enumerate(record.columns):
        adata.obs[column] = adata.obsm[key][:, i]
    adata.uns[key] = record.to_uns()


def read_response(adata: AnnData, key: str) -> tuple[np.ndarray, DrugRecord]:
    """Predictions (n_obs, n_drugs), as they are stored, and their record.

    Raises
    ------
    KeyError
        There are none under `key`.
    TypeError
        `adata` is no AnnData.
    """
    check_anndata(adata)
    record = DrugRecord.from_uns(adata.uns.get(key))
    if key not in adata.obsm or record is None:
        added = "" if key == DRUG_RESPONSE else f", key_added={key!r}"
        msg = f"There are no drug responses under {key!r}. Run scellm.tl.drug_response(adata{added}) first."
        raise KeyError(msg)
    return np.asarray(adata.obsm[key]), record


def _of_cells(values: np.ndarray, codes: np.ndarray | None) -> np.ndarray:
    """Rows of groups for their cells; NaN for a code of -1."""
    if codes is None:
        return values
    taken = values[codes]
    taken[codes < 0] = np.nan
    return taken


def _written(adata: AnnData, key: str) -> list[str]:
    """Columns of drugs in `obs` that an earlier call wrote."""
    record = DrugRecord.from_uns(adata.uns.get(key))
    return [] if record is None else record.columns
