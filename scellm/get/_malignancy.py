"""malignancy: calls of malignant cells as tables."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._containers import takes_cells
from .._keys import MALIGNANT
from .._obs import read_groups


@takes_cells
def malignancy(
    adata: AnnData,
    *,
    key: str = MALIGNANT,
    groupby: str | None = None,
    what: Literal["cells", "arms"] = "cells",
) -> pd.DataFrame:
    """Malignant cells by sample or group, or gains and losses of chromosome arms by clone.

    Parameters
    ----------
    adata
        Cells that `tl.malignancy` has called.
    key
        Key of the results.
    groupby
        Column of `adata.obs`, such as clusters; `None` takes the samples, with the verdict on each.
    what
        "cells", or "arms" for one row per clone and arm.

    Returns
    -------
    By sample the columns `sample`, `n_cells`, `n_malignant`, `n_normal`, `n_undecided`, `n_clones`, `reference`,
    `n_reference`, `verdict`; by group its name, `n_cells`, `n_malignant`, `n_normal`, `n_undecided`, `share_malignant`,
    and the means of `probability`, `expression` and `copy_number`; of arms `sample`, `clone`, `arm`, `log_ratio`,
    `standard_error`, `state`.

    Raises
    ------
    KeyError
        No results under `key`, or no such column.
    TypeError
        `adata` is not an AnnData.
    ValueError
        `what` is unknown, or `groupby` with arms.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(24, n_vars=1950)
    >>> scellm.tl.malignancy(adata, sample_key="donor")
    >>> int(scellm.get.malignancy(adata)["n_cells"].sum())
    24
    """
    check_anndata(adata)
    record = adata.uns.get(key)
    if not isinstance(record, dict) or "samples" not in record:
        added = "" if key == MALIGNANT else f", key_added={key!r}"
        msg = f"There are no calls of malignant cells under {key!r}. Run scellm.tl.malignancy(adata{added}) first."
        raise KeyError(msg)
    if what not in ("cells", "arms"):
        msg = f"what={what!r} is unknown; choose 'cells' or 'arms'."
        raise ValueError(msg)
    if what == "arms" and groupby is not None:
        msg = "Arms are by clone: leave groupby= out, or take what='cells'."
        raise ValueError(msg)
    if groupby is None:
        table = record["samples" if what == "cells" else "arms"]
        return pd.DataFrame({name: np.asarray(values) for name, values in table.items()})
    groups = read_groups(adata, groupby)
    cells = pd.DataFrame(
        {
            groupby: groups,
            "call": adata.obs[f"{key}_call"].astype(str).to_numpy(),
            "probability": adata.obs[key].to_numpy(float),
            "expression": adata.obs[f"{key}_expression"].to_numpy(float),
            "copy_number": adata.obs[f"{key}_copy_number"].to_numpy(float),
        }
    )
    by = cells.groupby(groupby, observed=True)
    table = pd.DataFrame({"n_cells": by.size()})
    for name in ("malignant", "normal", "undecided"):
        table[f"n_{name}"] = by["call"].agg(lambda calls, name=name: int((calls == name).sum()))
    table["share_malignant"] = table["n_malignant"] / table["n_cells"]
    table = table.join(by[["probability", "expression", "copy_number"]].mean())
    return table.reset_index()
