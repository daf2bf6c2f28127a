"""embedding: obsm -> a table with names."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._containers import takes_cells
from .._keys import X_SCELLM


@takes_cells
def embedding(adata: AnnData, *, key: str = X_SCELLM, drop_empty: bool = False) -> pd.DataFrame:
    """The embedding as a table with cell names, to save, join or hand to other tools.

    Parameters
    ----------
    adata
        Cells that `tl.embed` has seen.
    key
        Key of the embedding in `adata.obsm`.
    drop_empty
        Leave out cells whose row is NaN because they express no vocabulary gene.

    Returns
    -------
    Table of shape (n_obs, dim), float32: rows are `adata.obs_names`, columns `X_scellm_0`, `X_scellm_1`, ...
    A copy; changing it leaves `adata` alone.

    Raises
    ------
    KeyError
        `key` is not in `adata.obsm`.
    TypeError
        `adata` is not an AnnData.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(24, n_vars=1950)
    >>> scellm.tl.embed(adata)
    >>> scellm.get.embedding(adata).columns[0]
    'X_scellm_0'
    """
    check_anndata(adata)
    if key not in adata.obsm:
        msg = (
            f"{key!r} is not in `adata.obsm`, which has {list(adata.obsm)}. "
            f"Run scellm.tl.embed(adata{'' if key == X_SCELLM else f', key_added={key!r}'}) first."
        )
        raise KeyError(msg)
    vectors = np.array(adata.obsm[key])
    table = pd.DataFrame(
        vectors, index=adata.obs_names.copy(), columns=[f"{key}_{i}" for i in range(vectors.shape[1])]
    )
    return table.dropna() if drop_empty else table
