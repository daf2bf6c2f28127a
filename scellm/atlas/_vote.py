"""What the neighbors of a cell are: the label most of them have, and how many have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Vote:
    """The outcome for a column."""

    label: pd.Categorical
    """(n,) the most frequent label; missing without a neighbor with one."""
    share: np.ndarray
    """(n,) float32, share of all neighbors with this label; NaN without neighbors."""


def vote(rows: np.ndarray, labels: pd.Categorical) -> Vote:
    """The most frequent label among neighbors; of equally frequent ones that of the nearest.

    Parameters
    ----------
    rows
        (n, k) rows of the index, nearest first, -1 for none.
    labels
        (n_cells,) labels of the index.
    """
    codes = np.where(rows >= 0, np.asarray(labels.codes)[rows], -1)  # (n, k)
    n, k = codes.shape
    best, count = np.full(n, -1), np.zeros(n, int)
    for i in range(k):  # from the nearest on, so that ties go to it
        found = ((codes == codes[:, i, None]) & (codes[:, i, None] >= 0)).sum(1)
        better = found > count
        best[better], count[better] = codes[better, i], found[better]
    n_neighbors = (rows >= 0).sum(1)
    share = np.divide(count, n_neighbors, out=np.full(n, np.nan), where=n_neighbors > 0)
    return Vote(pd.Categorical.from_codes(best, categories=labels.categories), share.astype(np.float32))
