"""Checks of arguments and AnnData that all public functions share."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ._formats import wrong_kind
from ._keys import CELL_TYPE, DRUG_RESPONSE, GENE_IMPORTANCE, MALIGNANT, X_SCELLM
from ._room import stays_on_disk
from ._warn import warn

OURS = (X_SCELLM, CELL_TYPE, MALIGNANT, DRUG_RESPONSE, GENE_IMPORTANCE)
"""Default keys: what stands under them was most likely written by scellm."""


def get_matrix(
    adata: AnnData, layer: str | None = None, use_raw: bool | None = None
) -> tuple[Any, pd.DataFrame, str]:
    """The expression matrix a caller means.

    Parameters
    ----------
    adata
        At least one cell and one gene.
    layer
        Layer to read; `None` reads `X`.
    use_raw
        Read `adata.raw.X` instead; `None` is `False`.

    Returns
    -------
    The matrix as stored (n_obs, n_vars), the table of its columns, and what to call it in messages.
    """
    check_choice(adata, layer, use_raw)
    if layer is not None:
        matrix, var, where = adata.layers[layer], adata.var, f"adata.layers[{layer!r}]"
    elif use_raw:
        matrix, var, where = adata.raw.X, adata.raw.var, "adata.raw.X"
    else:
        matrix, var, where = adata.X, adata.var, "adata.X"
    if matrix is None:
        msg = f"`{where}` is None. {_other_matrices(adata)}"
        raise ValueError(msg)
    if not adata.n_obs or not len(var):
        msg = f"`{where}` has {adata.n_obs} cells and {len(var)} genes; need at least one of each."
        raise ValueError(msg)
    return matrix, var, where


def check_anndata(adata: AnnData) -> None:
    """That this is an AnnData."""
    if not isinstance(adata, AnnData):
        raise wrong_kind(adata)


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers; from anndata 0.13 on `layers` also lists `X`, under `None`."""
    return [layer for layer in adata.layers if layer is not None]


def check_choice(adata: AnnData, layer: str | None, use_raw: bool | None) -> None:
    """That `layer` and `use_raw` name one matrix that there is; raises as `get_matrix` does."""
    check_anndata(adata)
    if layer is not None and use_raw:
        msg = f"layer={layer!r} and use_raw=True name two matrices; give one of them."
        raise ValueError(msg)
    if layer is not None and layer not in adata.layers:
        msg = f"Layer {layer!r} is not in `adata.layers`, which has {layer_names(adata)}."
        raise KeyError(msg)
    if use_raw and adata.raw is None:
        msg = f"use_raw=True, but `adata.raw` is None. {_other_matrices(adata)}"
        raise ValueError(msg)


def _other_matrices(adata: AnnData) -> str:
    """What to type instead, from what the object holds."""
    ways = [f"layer={layer!r}" for layer in layer_names(adata)]
    ways += ["use_raw=True"] if adata.raw is not None else []
    if ways:
        return f"Pass {' or '.join(ways)}."
    return (
        "There is no other matrix: neither layers nor raw."
        if adata.X is None
        else "Leave use_raw out to read `adata.X`."
    )


def is_on_disk(adata: AnnData) -> bool:
    """Whether the matrix stays in its file: backed h5ad, or zarr that was opened with its matrices left there."""
    return bool(adata.isbacked) or (not adata.is_view and stays_on_disk(adata.X))


def check_backed(adata: AnnData, *, copy: bool) -> None:
    """That results can be written to an AnnData whose matrix is on the disk."""
    if (adata.isbacked and adata.is_view) or (copy and is_on_disk(adata)):
        msg = "Copies and views of a backed AnnData are not supported; take it whole, or load it: adata.to_memory()."
        raise ValueError(msg)


def check_free(
    adata: AnnData, key: str, *places: tuple[str, str], of: str = "scellm", field: str = "scellm_version"
) -> None:
    """That no place to be written to holds something else.

    Parameters
    ----------
    adata
        The object.
    key
        Key in `uns` of the record of an earlier call, whose results may be replaced.
    places
        Slot and key of each result; `uns` and `key` itself are looked at after them.
    of
        What writes there, for the message.
    field
        Field that tells its records from others of scellm.
    """
    found = adata.uns.get(key)
    if isinstance(found, dict) and "scellm_version" in found and field in found:
        return
    if found is None and (left := _left_over(adata, key, places)):
        names = ", ".join(f"`adata.{slot}[{name!r}]`" for slot, name in left)
        warn(
            f"{names} has no record in `adata.uns[{key!r}]`, as after anndata.concat, which drops uns; it is replaced."
        )
        places = tuple(place for place in places if place not in left)
    for slot, name in (*places, ("uns", key)):
        if name in getattr(adata, slot):
            msg = (
                f"`adata.{slot}[{name!r}]` already exists and was not written by {of}. Choose another "
                "key_added=, or delete it."
            )
            raise ValueError(msg)


def _left_over(adata: AnnData, key: str, places: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Results under a default key of ours, in the form that we write, whose record was lost."""
    if key not in OURS:
        return []
    return [
        (slot, name)
        for slot, name in places
        if name in getattr(adata, slot) and (slot == "obs" or _was_float32(adata.obsm[name]))
    ]


def _was_float32(values: Any) -> bool:
    """Whether numbers are float32, or were before an outer join made them float64 with rows of NaN."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float64:
        return getattr(values, "dtype", None) == np.float32
    is_exact = np.array_equal(values, values.astype(np.float32), equal_nan=True)
    return bool(is_exact and np.isnan(values).all(axis=-1).any())


def check_key(key: str) -> str:
    """That results can be stored under a name: text, not empty, `.` or `..`, no control characters, no `/`."""
    if not isinstance(key, str):
        msg = f"A key must be text, found {key!r} ({type(key).__name__})."
        raise TypeError(msg)
    is_control = [unicodedata.category(character) in ("Cc", "Cs") for character in key]
    if not key or key in (".", "..") or "/" in key or any(is_control):
        plain = "".join(
            " " if control else character for character, control in zip(key, is_control, strict=True)
        )
        better = "_".join(plain.strip(" /.").replace("/", " ").split()) or "X_scellm"
        reason = "it is empty, '.' or '..', or holds '/' or a control character"
        msg = f"The key {key!r} cannot be written to h5ad: {reason}. Use for instance {better!r}."
        raise ValueError(msg)
    return key
