"""The scale of values without a fault: counts, or which hypothesis undoes them best; see `_values`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

BASES = (np.e, 2.0, 10.0)
LARGEST_TOTAL = 1e9
"""More per cell than any assay counts: a base that gives this is not the base."""
LARGEST_LOG = 30.0
"""No log1p value reaches this: it would be 1e9 counts to base 2 and 1e13 to base e."""
SAME_SUM = 2e-3
"""Relative deviation up to which cells have "the same" sum; float32 and 3 to 4 printed digits stay below."""
NEARLY_ALIKE = 0.15
"""Spread (sd / mean) of cells' sums up to which a base is believed; log2 TPM of 5,000 to 12,000 genes has 0.04-0.15."""
ENOUGH_GENES = 5000
"""Genes from which on those sums say something about the base."""
LARGEST_LN, LARGEST_LOG2 = 14.0, 20.0
"""log1p of a million; a larger value without further evidence is not a logarithm to this base."""
DEEP_BINARY = 50
"""Expressed genes per cell from which counts that are never 2 are no accident."""


def verdict(rows: sp.csr_array, facts: dict[str, Any], *, is_all: bool) -> dict[str, Any]:
    """Fields of the report on rows (B, n_vars) float64 that are not negative and not all zero."""
    return linear_counts(facts) or scaled(rows, is_all=is_all) or hypotheses(rows, facts)


def facts_of(rows: sp.csr_array) -> dict[str, float]:
    """Numbers that a verdict rests on."""
    return {
        "max": float(rows.data.max(initial=0)),
        "share_off_integer": float(np.mean(~whole(rows.data))) if rows.nnz else 0.0,
        "values_per_cell": rows.nnz / max(1, rows.shape[0]),
    }


def whole(values: np.ndarray, tolerance: float = 1e-6, *, relative: bool = True) -> np.ndarray:
    """Which values are whole numbers up to rounding."""
    return np.abs(values - np.round(values)) <= tolerance * (np.maximum(1, np.abs(values)) if relative else 1)


def linear_counts(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Whole numbers."""
    if facts["share_off_integer"] > 0:
        return None
    text = f"Raw counts: whole numbers up to {facts['max']:.0f}."
    if facts["max"] != 1:
        return {"kind": "counts", "message": text, "holds_counts": True}
    text = "Only 0 and 1: counts that were made binary, or very shallow ones."
    is_certain = facts["values_per_cell"] < DEEP_BINARY
    return {"kind": "counts", "message": text, "holds_counts": True, "is_certain": is_certain}


def scaled(rows: sp.csr_array, *, is_all: bool) -> dict[str, Any] | None:
    """Scaled without centering, clipped, or squeezed to 0..1 gene by gene: not negative, but not linear in cells."""
    n = rows.shape[0]
    maxima = rows.max(axis=0).toarray().ravel()
    largest = maxima.max()
    if largest == 1 and np.mean(maxima[maxima > 0] == 1) > 0.9 and n >= 10:
        return {
            "kind": "scaled",
            "message": "Almost every gene's largest value is exactly 1: scaled to 0..1 per gene.",
        }
    used = np.bincount(rows.indices, minlength=rows.shape[1]) >= 10
    if used.sum() < 10:
        return None
    mean = np.asarray(rows.mean(axis=0)).ravel()
    deviation = np.sqrt(np.maximum(np.asarray(rows.power(2).mean(axis=0)).ravel() - mean**2, 0) * n / (n - 1))
    if np.mean(np.abs(deviation[used] - 1) < (0.01 if is_all else 0.1)) > 0.9:
        return {
            "kind": "scaled",
            "message": "Almost every gene has standard deviation 1: scaled without centering.",
        }
    if (
        largest == round(largest)
        and np.sum(maxima == largest) >= max(3, 0.02 * used.sum())
        and largest <= 100
    ):
        text = f"{np.sum(maxima == largest)} genes reach exactly {largest:g} and none exceeds it: scaled and clipped."
        return {"kind": "scaled", "message": text}
    return None


def hypotheses(rows: sp.csr_array, facts: dict[str, Any]) -> dict[str, Any]:
    """Linear or log1p, to which base and target sum; the most telling evidence first."""
    undone = {
        base: _undo(rows, base)
        for base in BASES
        if facts["max"] < min(LARGEST_LOG, np.log(LARGEST_TOTAL) / np.log(base))
    }
    for base, linear in undone.items():
        if _are_counts(linear.data):
            text = f"log1p (base {base_name(base)}) of raw counts: whole numbers after undoing it."
            return {"kind": "log1p", "base": float(base), "holds_counts": True, "message": text}
    if _are_counts(rows.data**2):
        text = "Square roots of whole numbers: take the raw counts, `adata.X**2`."
        return {"kind": "scaled", "message": text}
    return (
        _with_common_sum(rows, undone)
        or _nearly_whole(rows, facts)
        or _with_repeated_values(rows, undone)
        or _by_size(rows, undone, facts)
    )


def _with_common_sum(rows: sp.csr_array, undone: dict[float, sp.csr_array]) -> dict[str, Any] | None:
    """The hypothesis under which the cells' sums agree best, if they agree at all."""
    sums = {base: _common_sum(linear) for base, linear in ({None: rows} | undone).items()}
    found = {base: answer for base, answer in sums.items() if answer}
    if not found:
        return None
    base = min(found, key=lambda base: found[base][1])
    total = found[base][0]
    if base is None:
        text = f"Normalized, not logged: every cell sums to {total:g}."
        return {"kind": "normalized", "target_sum": total, "message": text}
    text = f"log1p (base {base_name(base)}) of values normalized to {total:g} per cell."
    return {"kind": "log1p", "base": float(base), "target_sum": total, "message": text}


def _nearly_whole(rows: sp.csr_array, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Linear values of which most, but not all, are whole."""
    is_near = (np.abs(rows.data - np.round(rows.data)) < 0.01) & (rows.data > 0.5)
    if np.mean(is_near) < 0.5:
        return None
    text = (
        f"Counts that are not whole ({100 * facts['share_off_integer']:.1f} % of the values are off, such as "
        f"{rows.data[~whole(rows.data)][0]:.6g}): ambient-corrected or estimated counts."
    )
    return {"kind": "non_integer_counts", "message": text}


def _with_repeated_values(rows: sp.csr_array, undone: dict[float, sp.csr_array]) -> dict[str, Any] | None:
    """The hypothesis under which values are whole multiples of one value per cell, if there is one."""
    multiples = {base: _multiples(linear) for base, linear in ({None: rows} | undone).items()}
    best = max(multiples, key=lambda base: multiples[base][0])
    share, units = multiples[best]
    if share < 0.7:
        return None
    missing = "The cells have no common sum (genes are missing), so the target sum is not known."
    if best is not None:
        text = f"log1p (base {base_name(best)}) of normalized counts: whole multiples of one value per cell after undoing it."
        return {"kind": "log1p", "base": float(best), "message": f"{text} {missing}"}
    if units.std() < 0.01 * units.mean():
        text = f"Counts that are not whole: in every cell whole multiples of {np.median(units):.6g}."
        return {"kind": "non_integer_counts", "message": text}
    return {
        "kind": "normalized",
        "message": f"Normalized, not logged: whole multiples of one value per cell. {missing}",
    }


def _by_size(rows: sp.csr_array, undone: dict[float, sp.csr_array], facts: dict[str, Any]) -> dict[str, Any]:
    """Without a trace of counts: the base under which the cells' sums are nearly alike, else judged by size.

    Normalized cells keep nearly one sum even with some genes missing. Where that does not decide, small values
    are log1p to base e, scanpy's default; larger ones to base 2 if they are all large, else linear.
    """
    spread = {None: np.inf}
    for base, linear in undone.items():
        sums = np.asarray(linear.sum(axis=1)).ravel()
        sums = sums[sums > 0]
        spread[base] = float(sums.std() / sums.mean()) if len(sums) >= 3 else np.inf
    best = min(spread, key=lambda base: spread[base])
    is_clear = spread[best] < NEARLY_ALIKE and rows.shape[1] >= ENOUGH_GENES
    is_clear = is_clear and (best == np.e or spread[best] < 0.8 * spread.get(np.e, np.inf))
    base, reason = np.e, "assumed: no base fits better"
    if is_clear:
        base, reason = best, "with it the cells' sums are nearly alike"
    elif LARGEST_LN < facts["max"] < LARGEST_LOG2 and np.median(rows.data) > 2:
        base, reason = 2.0, "assumed: the values are too large for base e"
    elif facts["max"] > LARGEST_LN:
        text = f"Linear, not whole, no common sum (largest {facts['max']:.4g}): estimated counts, or TPM of some genes."
        return {"kind": "non_integer_counts", "message": text, "is_certain": not undone}
    text = f"log1p-like, base {base_name(base)} ({reason}); genes were removed or values changed after normalization."
    return {"kind": "log1p", "base": float(base), "is_certain": False, "message": text}


def _undo(rows: sp.csr_array, base: float) -> sp.csr_array:
    return sp.csr_array((np.expm1(rows.data * np.log(base)), rows.indices, rows.indptr), shape=rows.shape)


def base_name(base: float) -> str:
    """How the base of a logarithm is called."""
    return "e" if base == np.e else f"{base:g}"


def _are_counts(linear: np.ndarray) -> bool:
    """At least three different small values, and all but a few of them whole.

    Only where logarithms printed to four digits still resolve whole numbers.
    """
    small = linear[(linear < 100) & (linear > 0.5)]
    if small.size < max(10, 0.05 * linear.size) or np.mean(whole(small, 1e-2, relative=False)) < 0.99:
        return False
    return len(np.unique(np.round(small))) >= 3


def _common_sum(rows: sp.csr_array) -> tuple[float, float] | None:
    """The sum that 95 % of the non-empty cells share, and how well; one or two cells must have a round one."""
    sums = np.asarray(rows.sum(axis=1)).ravel()
    sums = sums[sums > 0]
    total = float(np.median(sums))
    deviation = float(np.quantile(np.abs(sums / total - 1), 0.95))
    if not deviation < SAME_SUM:
        return None
    for digits in range(1, 8):
        rounded = float(f"{total:.{digits}g}")
        if abs(total / rounded - 1) < 2e-5:
            break
    return (rounded, deviation) if digits == 1 or len(sums) >= 3 else None


def _multiples(rows: sp.csr_array, n_cells: int = 200) -> tuple[float, np.ndarray]:
    """Share of values that are whole multiples of their cell's most frequent value, and those values.

    Of the values 1.05 to 20.5 times the most frequent one, at most one in five is a multiple by chance. 0 where
    too few values repeat, as in full-length data.
    """
    near, seen, units = 0, 0, []
    for row in np.linspace(0, rows.shape[0] - 1, min(n_cells, rows.shape[0])).astype(int):
        values = rows.data[rows.indptr[row] : rows.indptr[row + 1]]
        if len(values) < 5:
            continue
        unique, counts = np.unique(np.round(values, 6), return_counts=True)
        unit = unique[np.argmax(counts)]
        if counts.max() < 3 or unit == 0:
            continue
        ratio = values / unit
        ratio = ratio[(ratio > 1.05) & (ratio < 20.5)]
        near += int(np.sum(np.abs(ratio - np.round(ratio)) < np.minimum(0.02 * ratio, 0.1)))
        seen += len(ratio)
        units.append(unit)
    return (near / seen if seen >= 20 else 0.0), np.array(units)
