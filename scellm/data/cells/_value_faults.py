"""Values that are not what they seem: two scales in one matrix, blocks of NaN, offsets, no zeros, one value per cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ._value_scales import BASES, LARGEST_LOG, SAME_SUM, base_name, facts_of, verdict, whole

FEW = 3
"""Cells, and 1 in 100 of all, from which another scale is more than an accident."""
MANY_GENES = 200
"""With so many genes a matrix without zeros is not a panel of markers."""
MOST_ROWS = 600
"""Cells of which the scale of each is looked at."""
ENOUGH = 10
"""Values of a cell from which its scale can be told."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the values, and what to do; kind `None` where they can be read all the same."""

    kind: str | None
    message: str
    way_out: str = ""


# -- two scales ---------------------------------------------------------------------------------------------------


def two_scales(rows: sp.csr_array, cells: np.ndarray, obs: pd.DataFrame | None) -> Fault | None:
    """Cells of one scale beside cells of another, as after joining studies that were processed differently.

    Parameters
    ----------
    rows
        (B, n_vars) float64, without stored zeros.
    cells
        (B,) numbers of the rows.
    obs
        Table of all cells, to find the column that tells them apart.
    """
    if len(cells) > MOST_ROWS:
        step = -(-len(cells) // MOST_ROWS)
        rows, cells = rows[::step], cells[::step]
    enough = np.diff(rows.indptr) >= ENOUGH
    is_negative = bool(rows.nnz) and rows.data.min() < 0
    tests = (_negative_or_not,) if is_negative else (_whole_or_not, _too_large_for_a_log, _different_sums)
    split = next(filter(None, (test(rows, enough) for test in tests)), None)
    if split is None:
        return None
    words, masks = zip(*split, strict=True)
    first = [int(cells[np.argmax(mask)]) for mask in masks]
    parts = ", ".join(
        f"{int(mask.sum())} {word} (such as cell {cell})"
        for word, mask, cell in zip(words, masks, first, strict=True)
    )
    column, way = _separated(obs, cells, masks)
    text = f"Two kinds of values are mixed: of the {len(cells)} cells examined, {parts}.{column}"
    is_linear = not any(word.startswith(("log1p", "scaled")) for word in words)
    if is_linear:
        return Fault(None, f"{text} Both are linear, and every cell is normalized on its own.")
    way = way or "Join the raw counts of all studies instead, or give each scale an object of its own."
    return Fault("mixed", text, way)


Split = list[tuple[str, np.ndarray]]


def _matters(mask: np.ndarray, enough: np.ndarray) -> bool:
    return int(mask.sum()) >= max(FEW, 0.01 * enough.sum())


def _negative_or_not(rows: sp.csr_array, enough: np.ndarray) -> Split | None:
    """Scaled cells have negative values, all of them."""
    smallest = rows.min(axis=1).toarray().ravel()
    negative = enough & (smallest < -1e-6)
    other = enough & (smallest >= 0)
    if not negative.any() or not _matters(negative, enough) or not _matters(other, enough):
        return None
    return [("scaled, with negative values", negative), (_scale(rows, other), other)]


def _whole_or_not(rows: sp.csr_array, enough: np.ndarray) -> Split | None:
    """Counts beside values of which most are not whole."""
    lengths = np.diff(rows.indptr)
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    n_off = np.bincount(row_of, weights=~whole(rows.data), minlength=len(lengths))
    largest = rows.max(axis=1).toarray().ravel()
    counts = enough & (n_off == 0) & (largest >= 2)
    others = enough & (n_off > 0.5 * lengths)
    if not _matters(counts, enough) or not _matters(others, enough):
        return None
    if (counts | others).sum() < 0.9 * enough.sum():  # corrected counts: whole more or less
        return None
    found = _verdict(rows, others)
    if found["kind"] not in ("log1p", "normalized") and found.get("is_certain", True):
        return None
    return [("counts", counts), (_words(found), others)]


def _too_large_for_a_log(rows: sp.csr_array, enough: np.ndarray) -> Split | None:
    """Linear values beside those that only a logarithm explains."""
    largest = rows.max(axis=1).toarray().ravel()
    linear, small = enough & (largest > LARGEST_LOG), enough & (largest <= LARGEST_LOG)
    if not _matters(linear, enough) or not _matters(small, enough):
        return None
    found = _verdict(rows, small)
    is_log = found["kind"] == "log1p" and found.get("is_certain", True)
    if not is_log or np.mean(whole(rows[np.flatnonzero(linear)].data)) > 0.5:
        return None
    return [("linear", linear), (_words(found), small)]


def _different_sums(rows: sp.csr_array, enough: np.ndarray) -> Split | None:
    """Cells that keep one sum under one base beside cells that keep one under another."""
    lengths = np.diff(rows.indptr)
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    largest = rows.data.max(initial=0)
    left, found = enough.copy(), []
    if largest >= LARGEST_LOG:
        return None
    sums = {base: np.bincount(row_of, np.expm1(rows.data * np.log(base)), len(lengths)) for base in BASES}
    sums[None] = np.bincount(row_of, rows.data, len(lengths))
    for _ in range(2):
        masks = {base: _same(values, left) for base, values in sums.items()}
        best = max(masks, key=lambda base: int(masks[base].sum()))
        if not _matters(masks[best], enough) or (masks[best].sum() < 0.7 * left.sum() and found):
            return None
        found.append((best, masks[best]))
        left = left & ~masks[best]
        del sums[best]
    if left.sum() > 0.1 * enough.sum():
        return None
    return [(f"log1p (base {base_name(base)})" if base else "linear", mask) for base, mask in found]


def _same(sums: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The largest set of rows whose sums agree, as a mask."""
    at = np.flatnonzero(among & (sums > 0))
    order = at[np.argsort(sums[at])]
    if not len(order):
        return np.zeros(len(sums), dtype=bool)
    ordered = sums[order]
    ends = np.searchsorted(ordered, ordered * (1 + SAME_SUM), side="right")
    start = int(np.argmax(ends - np.arange(len(ends))))
    mask = np.zeros(len(sums), dtype=bool)
    mask[order[start : ends[start]]] = True
    return mask


def _verdict(rows: sp.csr_array, mask: np.ndarray) -> dict[str, Any]:
    part = rows[np.flatnonzero(mask)]
    return verdict(part, facts_of(part), is_all=False)


def _scale(rows: sp.csr_array, mask: np.ndarray) -> str:
    return _words(_verdict(rows, mask))


def _words(found: dict[str, Any]) -> str:
    """A scale in two or three words."""
    if found["kind"] == "log1p":
        return f"log1p (base {base_name(found['base'])})"
    return {"counts": "counts", "normalized": "normalized"}.get(found["kind"], "not whole")


def _separated(obs: pd.DataFrame | None, cells: np.ndarray, masks: tuple[np.ndarray, ...]) -> tuple[str, str]:
    """A sentence with the column of `obs` that tells two groups of cells apart, and how to take one of them."""
    found = separating_column(obs, cells[masks[0]], cells[masks[1]])
    if found is None:
        return "", ""
    column, values = found
    one = values[0].item() if hasattr(values[0], "item") else values[0]
    return (
        f" `adata.obs[{column!r}]` tells them apart.",
        f"Give each scale an object of its own, such as adata[adata.obs[{column!r}] == {one!r}].copy(), or join the raw "
        "counts of all studies.",
    )


def separating_column(
    obs: pd.DataFrame | None, first: np.ndarray, second: np.ndarray
) -> tuple[str, list[Any]] | None:
    """The column of groups of which no group has cells of both, and its groups of the first; the coarsest one.

    Parameters
    ----------
    obs
        Table of all cells.
    first, second
        Numbers of the cells of each.
    """
    best = None
    for at, column in enumerate(obs.columns if obs is not None else ()):
        values = obs.iloc[:, at]
        if values.dtype.kind == "f" or not isinstance(column, str):
            continue
        one, two = values.iloc[first], values.iloc[second]
        if one.isna().any() or two.isna().any():
            continue
        groups = one.unique().tolist()
        others = set(two.unique().tolist())
        n = len(groups) + len(others)
        if (
            others.isdisjoint(groups)
            and n <= 0.5 * (len(first) + len(second))
            and (best is None or n < best[2])
        ):
            best = (column, groups, n)
    return None if best is None else best[:2]


# -- NaN --------------------------------------------------------------------------------------------------------


def missing_blocks(rows: Any, cells: np.ndarray, obs: pd.DataFrame | None) -> Fault | None:
    """NaN in whole blocks: genes that some studies lack, after `anndata.concat(join="outer")` of dense matrices."""
    dense = rows.toarray() if sp.issparse(rows) else np.asarray(rows)
    if dense.dtype.kind != "f":
        return None
    mask = np.isnan(dense)
    if mask.all(axis=0).any() and not (mask & ~mask.all(axis=0)).any():
        n = int(mask.all(axis=0).sum())
        way = "Leave these genes out: adata[:, ~np.isnan(adata.X).all(axis=0)].copy()."
        return Fault("invalid", f"{n} genes are NaN in all cells.", way)
    if mask.all(axis=1).any() and not (mask & ~mask.all(axis=1)[:, None]).any():
        n = int(mask.all(axis=1).sum())
        way = "Leave these cells out: adata[~np.isnan(adata.X).all(axis=1)].copy()."
        return Fault("invalid", f"{n} of {len(mask)} cells are NaN in all genes.", way)
    lacking = np.flatnonzero(mask.any(axis=1))
    patterns: dict[bytes, list[int]] = {}
    for row in lacking.tolist():
        patterns.setdefault(np.packbits(mask[row]).tobytes(), []).append(row)
    sizes = [int(mask[found[0]].sum()) for found in patterns.values()]
    if not patterns or len(patterns) > 0.5 * len(lacking) or min(sizes) < max(2, 0.001 * mask.shape[1]):
        return None
    largest = max(patterns.values(), key=len)
    others = np.flatnonzero(mask[:, np.argmax(mask[largest[0]])] == 0)
    column = separating_column(obs, cells[largest], cells[others]) if len(others) else None
    named = "" if column is None else f" (`adata.obs[{column[0]!r}]`: {', '.join(map(str, column[1][:3]))})"
    shared = int((~mask.any(axis=0)).sum())
    text = (
        f"{len(largest)} of the {len(mask)} cells examined, such as cell {cells[largest[0]]}{named}, are NaN in the same "
        f"{int(mask[largest[0]].sum())} genes: anndata.concat(join='outer') fills genes that a study lacks with NaN."
    )
    filled = "join with fill_value=0, which reads a missing gene as not expressed."
    if not shared:
        return Fault("invalid", text, f"No gene is in all cells: {filled}")
    way = (
        f"Keep the {shared} genes that all cells have: join='inner' in concat, or here "
        f"adata[:, ~np.isnan(adata.X).any(axis=0)].copy(); or {filled}"
    )
    return Fault("invalid", text, way)


# -- no zeros, one value ----------------------------------------------------------------------------------------


def offset(rows: sp.csr_array) -> Fault | None:
    """A number added to all values: the smallest is not 0 and by far the most frequent, where 0 should be."""
    n_all = rows.shape[0] * rows.shape[1]
    smallest = float(rows.data.min()) if rows.nnz else 0.0
    if rows.shape[1] < MANY_GENES or (rows.nnz < n_all and smallest >= 0):
        return None
    width = 1e-6 * max(1.0, abs(smallest))
    share = np.sum(np.abs(rows.data - smallest) <= width) / n_all
    if not 0.3 < share < 1:
        return None
    text = f"{100 * share:.0f} % of the values are {smallest:.6g}, the smallest, where 0 should be"
    # also of logarithms: log(x + c) - log(c) is log(1 + x / c)
    dense = rows[:: max(1, rows.shape[0] // 200)].toarray() - smallest
    plain = sp.csr_array(np.where(dense <= width, 0, dense))
    found = verdict(plain, facts_of(plain), is_all=False)
    is_plain = found["kind"] in ("counts", "log1p", "normalized") and found.get("is_certain", True)
    way = (
        "Take it out: adata.X = adata.X - adata.X.min()."
        if is_plain
        else "Take the values from before that step."
    )
    return Fault("offset", f"{text}: a number was added to all values.", way)


def no_zeros(rows: sp.csr_array) -> str:
    """A sentence where hardly a value is 0, though cells do not express all genes; "" elsewhere."""
    n, genes = rows.shape
    if genes < MANY_GENES or n < FEW or rows.nnz < 0.99 * n * genes or np.mean(whole(rows.data)) > 0.5:
        return ""
    return "Hardly a value is 0: denoised or imputed values, or bulk profiles; raw counts say more of single cells."


def constant_rows(rows: sp.csr_array) -> dict[str, Any] | None:
    """Fields of the report where each cell has one value beside 0: counts made binary, then normalized."""
    lengths = np.diff(rows.indptr)
    long = np.flatnonzero(lengths >= 50)
    if len(long) < FEW or len(long) < 0.5 * (lengths > 0).sum():
        return None
    starts = rows.indptr[long]
    if np.any(np.abs(rows.data[starts] - rows.data[starts + 1]) > 1e-5 * rows.data[starts]):
        return None  # most matrices end here
    spread = [np.ptp(rows.data[rows.indptr[row] : rows.indptr[row + 1]]) for row in long.tolist()]
    if np.any(np.array(spread) > 1e-5 * rows.data[starts]) or np.all(rows.data == 1):
        return None
    text = "Every cell has one value beside 0: counts that were made binary, then scaled."
    return {"kind": "normalized", "message": text, "is_certain": False}
