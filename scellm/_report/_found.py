"""Which results an AnnData holds, told by their records in `uns`, whatever their keys."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from .._keys import CELL_TYPE, DRUG_RESPONSE, MALIGNANT, X_SCELLM
from .._obs import has_column, read_groups
from .._records import FitRecord, ImportanceRecord, Record, SearchRecord
from ..annotation._records import AnnotationRecord
from ..drugs._record import DrugRecord, RankRecord

SAMPLE_NAMES = ("sample", "sample_id", "donor", "donor_id", "patient", "patient_id", "batch", "orig.ident")
"""Columns that are looked for where no column of samples is given."""
MOST_SAMPLES = 60
FLAT = ("X_umap", "X_tsne", "X_pacmap", "X_draw_graph_fa", "spatial")
"""Keys of two coordinates, the best first."""


@dataclass(frozen=True)
class Results:
    """Keys of results by what wrote them, in the order of `uns`."""

    embeddings: list[str]
    labels: list[str]
    malignant: list[str]
    drugs: list[str]
    ranks: list[str]
    searches: list[str]
    fits: list[str]
    importance: list[str]
    sample_key: str | None
    basis: str | None

    @property
    def keys(self) -> list[str]:
        """All of them."""
        return [key for keys in vars(self).values() if isinstance(keys, list) for key in keys]


def find_results(adata: AnnData, sample_key: str | None = None) -> Results:
    """What there is.

    Parameters
    ----------
    adata
        Cells.
    sample_key
        Column of `obs` with samples; `None` takes the one that `tl.malignancy` or `tl.rank_drugs` was given, else the first
        of well-known names that has some, but not many values, else the first that has one.
    """
    kinds: dict[str, list[str]] = {name: [] for name in list(Results.__annotations__)[:8]}
    for key, record in adata.uns.items():
        kind = _kind(adata, str(key), record)
        if kind:
            kinds[kind].append(str(key))
    for keys, first in (
        ("embeddings", X_SCELLM),
        ("labels", CELL_TYPE),
        ("malignant", MALIGNANT),
        ("drugs", DRUG_RESPONSE),
    ):
        kinds[keys].sort(key=first.__ne__)
    if sample_key is None:
        sample_key = _sample_key(adata, kinds)
    basis = next((name for name in FLAT if name in adata.obsm and np.shape(adata.obsm[name])[1] >= 2), None)
    return Results(**kinds, sample_key=sample_key, basis=basis)


def _kind(adata: AnnData, key: str, record: Any) -> str:
    """Of one entry of `uns`; "" for what is not ours or has lost its columns."""
    if not isinstance(record, Mapping):
        return ""
    has = adata.obs.columns
    if "embedding_fingerprint" in record and "samples" not in record:
        return "embeddings" if key in adata.obsm else ""
    if "samples" in record and "arms" in record:
        return "malignant" if {key, f"{key}_call"} <= set(has) else ""
    if RankRecord.is_in(record):
        return "ranks"
    if DrugRecord.is_in(record):
        return "drugs" if key in adata.obsm and f"{key}_applicability" in has else ""
    if _is(SearchRecord, record):
        return "searches" if f"{key}_unusual" in has else ""
    if _is(ImportanceRecord, record):
        return "importance"
    if "evaluated_on" in record and _is(FitRecord, record):
        return "fits"
    if _is(AnnotationRecord, record):
        return "labels" if {key, f"{key}_confidence"} <= set(has) else ""
    return ""


def _is(kind: type[Record], record: Any) -> bool:
    """Whether an entry is such a record; a damaged one is, and its section will say that it cannot be read."""
    try:
        return kind.from_uns(record) is not None
    except (TypeError, ValueError):
        return True


def _sample_key(adata: AnnData, kinds: dict[str, list[str]]) -> str | None:
    """The column of samples that a tool was given, or one that looks like it."""
    for key in [*kinds["malignant"], *kinds["ranks"]]:
        named = str(adata.uns[key].get("sample_key", ""))
        if named and has_column(adata, named):
            return named
    numbers: dict[str, int] = {}
    for name in SAMPLE_NAMES:
        if has_column(adata, name):
            with suppress(TypeError):  # measurements
                numbers[name] = len(read_groups(adata, name).categories)
    several = [name for name, n in numbers.items() if 2 <= n <= MOST_SAMPLES]
    return next(iter([*several, *(name for name, n in numbers.items() if n == 1)]), None)
