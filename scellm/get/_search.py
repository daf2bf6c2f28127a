"""search: what the groups of cells look most like in an index, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._containers import takes_cells
from .._keys import SEARCH
from .._obs import read_groups
from .._records import SearchRecord

_GROUP = "scellm group"
UNLIKE = 0.99
"""Cells above this are unlike all of the index, see `tl.search`."""


@takes_cells
def search(adata: AnnData, groupby: str | None = None, *, key: str = SEARCH) -> pd.DataFrame:
    """What cells look most like, by group.

    Parameters
    ----------
    adata
        Cells that `tl.search` has looked up.
    groupby
        Column of `adata.obs` with groups, such as clusters; `None` takes all cells as one.
    key
        Key of the results.

    Returns
    -------
    A row for each group, column and value: `group`, `column`, `value`, `n_cells`, `share` (of the group's cells whose most
    frequent neighbor has this value), `agreement` (mean share of the neighbors that have it), `unlike` (share of the group's
    cells that are unlike all of the index), the largest share first.

    Raises
    ------
    KeyError
        There are no results under this key, or no such column.
    TypeError
        `adata` is not an AnnData.
    """
    check_anndata(adata)
    record = SearchRecord.from_uns(adata.uns.get(key))
    if record is None:
        msg = f"There are no results of tl.search under {key!r}. Run scellm.tl.search(adata, index) first."
        raise KeyError(msg)
    groups = "all" if groupby is None else np.asarray(read_groups(adata, groupby).astype(object))
    rows = []
    for group, cells in adata.obs.assign(**{_GROUP: groups}).groupby(_GROUP, observed=True):
        unlike = float((cells[f"{key}_unusual"] > UNLIKE).mean())
        for column in record.columns:
            for value, some in cells.groupby(f"{key}_{column}", observed=True):
                rows.append(
                    {
                        "group": group,
                        "column": column,
                        "value": value,
                        "n_cells": len(some),
                        "share": len(some) / len(cells),
                        "agreement": float(some[f"{key}_{column}_share"].mean()),
                        "unlike": unlike,
                    }
                )
    names = ["group", "column", "value", "n_cells", "share", "agreement", "unlike"]
    table = pd.DataFrame(rows, columns=names)
    return table.sort_values(["group", "column", "share"], ascending=[True, True, False], ignore_index=True)
