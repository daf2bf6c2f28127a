"""What `tl.malignancy` wrote, read and checked for the figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData

from .._checks import check_anndata
from .._keys import MALIGNANT

CALL_COLOURS = {"malignant": "#D55E00", "normal": "#0072B2", "undecided": "#C8C8C8"}


def read_malignancy(adata: Any, key: str) -> dict[str, Any]:
    """The record in `uns`, once its columns are there."""
    check_anndata(adata)
    record = adata.uns.get(key)
    columns = (key, *(f"{key}_{name}" for name in ("call", "expression", "copy_number", "clone", "label")))
    missing = [name for name in columns if name not in adata.obs]
    if not isinstance(record, dict) or "samples" not in record or missing:
        added = "" if key == MALIGNANT else f", key_added={key!r}"
        msg = f"There are no calls of malignant cells under {key!r}. Run scellm.tl.malignancy(adata{added}) first."
        raise KeyError(msg)
    return record


def read_profile(adata: AnnData, key: str) -> np.ndarray:
    """(n_obs, n_windows) profile along the genome.

    Raises
    ------
    ValueError
        Copy number was read in no cell.
    """
    name = f"{key}_profile"
    if name not in adata.obsm:
        msg = f"{name!r} is not in `adata.obsm`, which has {list(adata.obsm)}. Run scellm.tl.malignancy(adata) again."
        raise KeyError(msg)
    profile = np.asarray(adata.obsm[name])
    if not profile.shape[1] or np.isnan(profile).all():
        msg = (
            "Copy number was not read in these cells, so there is nothing to draw. The reason is in "
            f"scellm.get.malignancy(adata, key={key!r})['verdict']."
        )
        raise ValueError(msg)
    return profile
