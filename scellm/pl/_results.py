"""What `tl.annotate` wrote, read and checked for the figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._keys import CELL_TYPE
from .._obs import read_groups
from ..annotation._records import AnnotationRecord

REFUSALS = ("unassigned", "novel")
"""Categories that are not cell types."""


def read_labels(adata: AnnData, key: str) -> pd.Series:
    """The predicted types, categorical text."""
    check_anndata(adata)
    if key not in adata.obs:
        added = "" if key == CELL_TYPE else f", key_added={key!r}"
        msg = (
            f"{key!r} is not in `adata.obs`, which has {list(adata.obs)}. "
            f"Run scellm.tl.annotate(adata{added}) first, or pass key= with the column of its labels."
        )
        raise KeyError(msg)
    return as_categories(adata, key)


def read_truth(adata: AnnData, truth: str) -> pd.Series:
    """The types taken as true, categorical text; missing ones stay missing."""
    check_anndata(adata)
    if truth not in adata.obs:
        msg = f"{truth!r} is not in `adata.obs`, which has {list(adata.obs)}. Pass the column of the known types."
        raise KeyError(msg)
    return as_categories(adata, truth)


def read_confidence(adata: AnnData, key: str) -> np.ndarray:
    """Calibrated probability of each cell's label, (n_obs,); NaN where there is none."""
    name = f"{key}_confidence"
    if name not in adata.obs:
        msg = (
            f"{name!r} is not in `adata.obs`, which has {list(adata.obs)}. scellm.tl.annotate writes it beside the "
            "labels; labels of another tool have no confidence to draw."
        )
        raise KeyError(msg)
    return adata.obs[name].to_numpy(dtype=float)


def names_of(labels: pd.Series) -> list[str]:
    """The categories, those that are not cell types last."""
    names = list(labels.cat.categories)
    return [name for name in names if name not in REFUSALS] + [name for name in REFUSALS if name in names]


def as_categories(adata: AnnData, key: str) -> pd.Series:
    """A column as categorical of text, its categories in their order, those without cells left out."""
    return pd.Series(read_groups(adata, key), index=adata.obs_names)


def reference_markers(adata: AnnData, key: str) -> dict[str, list[str]]:
    """Genes of each node, as the reference learned them; nothing for labels without."""
    record = AnnotationRecord.from_uns(adata.uns.get(key))
    return {} if record is None else record.markers_of()


def renamed(known: pd.Series, truth: str, mapping: Mapping[str, str] | None) -> pd.Series:
    """The known types under the names of the annotation."""
    if mapping is None:
        return known
    if unknown := [name for name in mapping if name not in known.cat.categories]:
        msg = f"mapping has {unknown}, which are no types of `adata.obs[{truth!r}]`; it has {list(known.cat.categories)}."
        raise ValueError(msg)
    return (
        known.astype(object).map(lambda name: mapping.get(name, name), na_action="ignore").astype("category")
    )
