"""Tables that a drug model is fitted on, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ._names import DRUG_COLUMNS
from ._profiles import Platform
from ._structures import parse_smiles


def check_tables(
    log2_tpm: pd.DataFrame, responses: pd.DataFrame, drugs: pd.DataFrame, lines: pd.DataFrame | None
) -> None:
    """That tables are tables, with the columns, names and values that a fit needs; raises as `fit_drug_response` does."""
    needed = {
        "log2_tpm": (),
        "responses": ("line", "drug", "ln_ic50"),
        "drugs": DRUG_COLUMNS,
        "lines": ("line",),
    }
    tables = {"log2_tpm": log2_tpm, "responses": responses, "drugs": drugs, "lines": lines}
    for what, table in tables.items():
        if table is None and what == "lines":
            continue
        if not isinstance(table, pd.DataFrame):
            msg = f"{what}= must be a DataFrame, found {type(table).__name__}."
            raise TypeError(msg)
        if missing := [column for column in needed[what] if column not in table]:
            msg = f"The table of {what} lacks the columns {missing}."
            raise KeyError(msg)
    known = [("line", "log2_tpm", log2_tpm.index), ("drug", "drugs", pd.Index(drugs["drug"]))]
    for what, where, names in (
        known if lines is None else [*known, ("line", "lines", pd.Index(lines["line"]))]
    ):
        if names.has_duplicates:
            msg = f"The {what} {names[names.duplicated()][0]!r} is twice in {where}=; each needs a name of its own."
            raise ValueError(msg)
    if lines is not None and len(unknown := log2_tpm.index.difference(lines["line"], sort=False)):
        msg = f"The line {unknown[0]!r} of log2_tpm= is not in lines=."
        raise KeyError(msg)
    if text := [column for column in log2_tpm if not pd.api.types.is_numeric_dtype(log2_tpm[column].dtype)]:
        msg = f"log2_tpm= must hold numbers; {text[0]!r} holds {log2_tpm[text[0]].dtype}."
        raise TypeError(msg)
    if not pd.api.types.is_numeric_dtype(responses["ln_ic50"].dtype):
        msg = f"responses['ln_ic50'] must hold numbers (ln uM), found {responses['ln_ic50'].dtype}."
        raise TypeError(msg)
    wrong = ~(np.isfinite(values := log2_tpm.to_numpy(np.float64)) & (values >= 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = (
            f"log2_tpm= holds {values[row, column]} for the gene {log2_tpm.columns[column]!r} of the cell line "
            f"{log2_tpm.index[row]!r}; log2(TPM + 1) is finite and not negative."
        )
        raise ValueError(msg)
    for column in ("drug", "name", "synonyms", "target", "drug_class", "smiles"):
        for drug, text in zip(drugs["drug"], drugs[column], strict=True):
            if not isinstance(text, str):
                msg = f'The {column} of the drug {drug!r} must be text, "" where nothing is known; found {text!r}.'
                raise TypeError(msg)
    for drug, text in zip(drugs["drug"], drugs["smiles"], strict=True):
        if text and (parsed := parse_smiles(text))[0] is None:
            msg = f"The drug {drug!r} has no valid SMILES, {text!r}: {parsed[1]}"
            raise ValueError(msg)


def read_platform(table: pd.DataFrame, symbols: Sequence[str]) -> Platform:
    """Factor and spread of each gene."""
    if missing := [column for column in ("factor", "spread") if column not in table]:
        msg = f"platform= lacks the columns {missing}."
        raise KeyError(msg)
    found = table.reindex(symbols)
    factor = found["factor"].fillna(1.0).to_numpy(np.float64)
    spread = found["spread"].fillna(table["spread"].median()).to_numpy(np.float64)
    if not (np.isfinite(factor) & (factor > 0) & np.isfinite(spread) & (spread >= 0)).all():
        msg = "platform= holds factors that are finite and positive, and spreads that are finite and not negative."
        raise ValueError(msg)
    return Platform(factor, spread)
