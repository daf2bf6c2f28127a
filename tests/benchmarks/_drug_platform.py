"""How single-cell sequencing sees genes differently from bulk, from cell lines that were measured both ways."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from scellm.drugs._profiles import fractions, log_fractions

PRIOR_STUDIES = 1.0
"""Studies without any difference that are counted in."""


PRIOR_SPREAD = 3.0
"""Studies with the mean variance of all genes that are counted in."""


def study(name: str) -> str:
    """Sets of one study share what comes before the first underscore."""
    return name.split("_")[0]


def differences(
    found: Iterable[tuple[str, str, np.ndarray, np.ndarray]], log2_tpm: pd.DataFrame
) -> pd.DataFrame:
    """log2 fractions of summed single cells less those of bulk, (set and line) x genes; NaN where not measured.

    Parameters
    ----------
    found
        Set, line, present columns of `log2_tpm`, and linear expression of cells.
    log2_tpm
        log2(TPM + 1), lines x genes.
    """
    linear = np.exp2(log2_tpm) - 1
    mean = fractions(linear.to_numpy()).mean(0)
    rows, index = [], []
    for name, line, present, cells in found:
        if line in log2_tpm.index:
            share = mean[present].sum()
            sums, bulk = (
                cells.sum(0, keepdims=True, dtype=np.float64),
                linear.loc[[line]].to_numpy()[:, present],
            )
            row = np.full(log2_tpm.shape[1], np.nan)
            row[present] = (log_fractions(sums, share) - log_fractions(bulk, share))[0]
            rows.append(row)
            index.append((study(name), line))
    return pd.DataFrame(
        rows, index=pd.MultiIndex.from_tuples(index, names=["study", "line"]), columns=log2_tpm.columns
    )


def platform(table: pd.DataFrame, *, but_lines: Collection[str] = (), but_study: str = "") -> pd.DataFrame:
    """`factor` and `spread` of each gene, each study weighing the same; of `differences` without some lines, and one study."""
    names = table.index
    kept = ~names.get_level_values("line").isin(but_lines) & (names.get_level_values("study") != but_study)
    by_study = table[kept].groupby(level="study").mean()
    shift = by_study.sum() / (by_study.notna().sum() + PRIOR_STUDIES)
    squares = ((table[kept] - shift) ** 2).groupby(level="study").mean()
    variance = (squares.sum() + PRIOR_SPREAD * np.nanmean(squares)) / (squares.notna().sum() + PRIOR_SPREAD)
    return pd.DataFrame({"factor": np.exp2(shift), "spread": np.sqrt(variance)})
