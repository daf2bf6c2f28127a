"""find_leakage: cells of the test data that the reference has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from ._cell_hashes import cell_hashes, match_hashes

if TYPE_CHECKING:
    from anndata import AnnData

NEAR = 0.98
"""Correlation of log values over shared genes from which two cells are near duplicates (ours)."""
ROWS_AT_ONCE, LEAST_GENES = 1_000, 50


@dataclass(frozen=True)
class Leakage:
    """Result of `find_leakage`.

    Parameters
    ----------
    same
        (n_obs,) row of the reference that is the same measurement as each cell, -1 for none.
    near
        (n_obs,) row of the reference that is a near duplicate, -1 for none; of those without the same measurement.
    n_same, n_near
        Their numbers.
    shared_barcodes
        Share of the names of cells that the reference has, too; suffixes after the last hyphen do not count.
    shared_samples
        Entries that columns of one name have in both objects, such as donors.
    message
        What was found, in words.
    """

    same: np.ndarray
    near: np.ndarray
    n_same: int
    n_near: int
    shared_barcodes: float
    shared_samples: dict[str, list[str]]
    message: str


def find_leakage(
    adata: AnnData,
    reference: AnnData,
    *,
    layer: str | None = None,
    reference_layer: str | None = None,
    sample_keys: tuple[str, ...] = ("donor", "donor_id", "patient", "sample", "sample_id", "batch"),
    find_near: bool = True,
) -> Leakage:
    """Find cells that are in the reference, too: a score on them says nothing about new cells.

    Three signs, from sure to weak. *Same measurement*: which genes a cell expresses and how their values are ordered agree
    in at least half of twelve random parts of the genes; normalization, logarithms and missing genes do not hide it.
    *Near duplicates*: the log values of shared genes correlate by 0.98 or more. *Names*: barcodes and samples in common; other
    studies may use the same ones.

    Parameters
    ----------
    adata
        Cells to test on.
    reference
        Cells that were learned from.
    layer, reference_layer
        Layers with expression; `None` reads `X`.
    sample_keys
        Columns of `obs` whose entries are compared where both have them.
    find_near
        Look for near duplicates, which takes long for large objects.

    Returns
    -------
    What was found, as a `Leakage`.

    Raises
    ------
    KeyError
        A layer is not there.
    ValueError
        Fewer than 50 genes in common.

    Examples
    --------
    >>> cells = scellm.datasets.toy_cells(60, n_vars=1950)
    >>> found = scellm.metrics.find_leakage(cells[20:].copy(), cells[:40].copy())
    >>> found.n_same
    20
    """
    X, Y = _matrix(adata, layer, "adata"), _matrix(reference, reference_layer, "reference")
    genes = adata.var_names.intersection(reference.var_names)
    if len(genes) < LEAST_GENES:
        msg = f"The two have {len(genes)} genes in common; at least {LEAST_GENES} are needed. Give both the same kind of gene names."
        raise ValueError(msg)
    X = X[:, adata.var_names.get_indexer(genes)]
    Y = Y[:, reference.var_names.get_indexer(genes)]
    same = match_hashes(cell_hashes(X, list(genes)), cell_hashes(Y, list(genes)))
    near = _near(X, Y) if find_near else np.full(len(same), -1)
    near[same >= 0] = -1
    names = [{str(name).rpartition("-")[0] or str(name) for name in x.obs_names} for x in (adata, reference)]
    barcodes = len(names[0] & names[1]) / max(len(names[0]), 1)
    samples = {}
    for key in sample_keys:
        if key in adata.obs and key in reference.obs:
            both = set(adata.obs[key].dropna().astype(str)) & set(reference.obs[key].dropna().astype(str))
            if both:
                samples[key] = sorted(both)
    n_same, n_near = int((same >= 0).sum()), int((near >= 0).sum())
    return Leakage(
        same, near, n_same, n_near, barcodes, samples, _words(len(same), n_same, n_near, barcodes, samples)
    )


def _words(n: int, n_same: int, n_near: int, barcodes: float, samples: dict[str, list[str]]) -> str:
    parts = [f"{n_same} of {n} cells are the same measurement as one of the reference"]
    parts += [f"{n_near} are near duplicates"] if n_near else []
    parts += [f"{barcodes:.0%} of the cell names are in both"] if barcodes else []
    parts += [
        f"{key} has {len(found)} entries in both ({', '.join(found[:3])})" for key, found in samples.items()
    ]
    return "; ".join(parts) + "."


def _matrix(adata: AnnData, layer: str | None, name: str) -> sp.csr_array:
    """Expression as CSR."""
    if layer is not None and layer not in adata.layers:
        msg = f"{layer!r} is not in `{name}.layers`, which has {list(adata.layers)}."
        raise KeyError(msg)
    X = adata.X if layer is None else adata.layers[layer]
    if not isinstance(X, np.ndarray) and not sp.issparse(X):
        X = X[:]
    return sp.csr_array(X)


def _near(X: sp.csr_array, Y: sp.csr_array) -> np.ndarray:
    """(n,) most correlated row of Y for each of X, -1 below `NEAR`."""
    A, B = _standard(X), _standard(Y)
    found = np.full(A.shape[0], -1)
    for start in range(0, A.shape[0], ROWS_AT_ONCE):
        values = A[start : start + ROWS_AT_ONCE] @ B.T
        best = values.argmax(axis=1)
        is_near = values[np.arange(len(best)), best] >= NEAR
        found[start : start + ROWS_AT_ONCE] = np.where(is_near, best, -1)
    return found


def _standard(X: sp.csr_array, most: int = 2_000) -> np.ndarray:
    """Rows of log values over at most 2,000 genes, mean 0 and length 1."""
    columns = np.sort(np.random.default_rng(0).permutation(X.shape[1])[:most])
    values = X[:, columns].toarray().astype(np.float32)
    if values.size and values.max() > 30:  # counts
        values = np.log1p(values / np.maximum(values.sum(axis=1, keepdims=True), 1) * 1e4)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
