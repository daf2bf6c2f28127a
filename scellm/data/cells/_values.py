"""What the values of an expression matrix are: counts, log1p, normalized, scaled, or something broken.

Every hypothesis (linear, or log1p to base e, 2, 10) is undone, and the linear values are asked three things
that only the right hypothesis answers well: are they integers, do all cells sum to one number, and are they
whole multiples of the cell's most frequent value (one count, in molecule-counting data)?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ._value_faults import Fault, constant_rows, missing_blocks, no_zeros, offset, two_scales
from ._value_scales import facts_of, verdict

ValueKind = Literal[
    "counts", "non_integer_counts", "log1p", "normalized", "scaled", "mixed", "offset", "empty", "invalid"
]
TINY = 1e-6
"""Negative values above minus this share of the largest value (of 1 at least) are rounding."""

MAX_ROWS = 2000
"""Cells that are examined closely."""
BLOCKS = 10
"""Consecutive stretches those cells come from, so that files are read in few pieces."""
SCAN_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class ValueReport:
    """What `describe_values` found.

    Attributes
    ----------
    kind
        "counts": whole numbers. "non_integer_counts": linear, not whole, no common sum (ambient-corrected or
        estimated counts, TPM of some of the genes). "log1p": log(1 + x) to `base`. "normalized": linear with
        a common scale. "scaled": centered or z-scored. "mixed": two scales, of which one would be misread. "offset":
        a number was added to all values. "empty": no value but 0. "invalid": NaN, infinite or masked.
    message
        One or two sentences for people: what was found and what it rests on.
    base
        Base of the logarithm, for "log1p".
    target_sum
        Sum that all cells were scaled to, over the genes present; `None` where it cannot be recovered.
    is_certain
        `False` where there was no proof: the base, or that the values are linear, is only the likelier reading.
    holds_counts
        Whether the linear values are whole numbers.
    n_rows
        Cells examined closely.
    share_nonzero, min, max
        Of the examined values; `min` and `max` over stored values.
    share_off_integer
        Share of the non-zero values that are not whole numbers.
    n_bad, first_bad
        Number of NaN, infinite or masked entries, and (cell, gene) of the first, counted from 0.
    n_tiny_negative
        Number of negative values that are rounding errors; they are read as 0.
    way_out
        What to do about a fault, "" where nothing special is known; part of `message`.
    """

    kind: ValueKind
    message: str
    base: float | None = None
    target_sum: float | None = None
    is_certain: bool = True
    holds_counts: bool = False
    n_rows: int = 0
    share_nonzero: float = 0.0
    min: float = 0.0
    max: float = 0.0
    share_off_integer: float = 0.0
    n_bad: int = 0
    first_bad: tuple[int, int] | None = None
    n_tiny_negative: int = 0
    way_out: str = ""

    @property
    def usable(self) -> bool:
        """Whether linear values can be had: of one scale, not scaled, not empty, not invalid."""
        return self.kind in ("counts", "non_integer_counts", "log1p", "normalized")

    def linearize(self, data: np.ndarray) -> np.ndarray:
        """Linear values: `base**x - 1` for log1p, unchanged otherwise; zero stays zero.

        Raises
        ------
        ValueError
            The values are not `usable`.
        """
        if not self.usable:
            msg = f"There are no linear values behind this: {self.message}"
            raise ValueError(msg)
        if self.n_tiny_negative:
            data = np.maximum(data, 0)
        if self.kind != "log1p":
            return data
        data = np.asarray(data)
        return np.expm1(data * np.log(self.base).astype(data.dtype if data.dtype.kind == "f" else np.float64))

    def clean(self, rows: sp.csr_array) -> sp.csr_array:
        """Rows in which negative values that are rounding errors are 0; the rows themselves where there are none."""
        if not self.n_tiny_negative or not len(rows.data) or rows.data.min() >= 0:
            return rows
        tiny = -TINY * max(1.0, self.max)
        data = np.where((rows.data < 0) & (rows.data >= tiny), 0, rows.data).astype(rows.dtype)
        return sp.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def describe_values(X: Any, *, max_rows: int = MAX_ROWS, obs: pd.DataFrame | None = None) -> ValueReport:
    """Say what the values of an expression matrix are.

    Parameters
    ----------
    X
        Cells x genes: numpy array, scipy sparse matrix or array, or a backed or dask matrix.
    max_rows
        Cells examined closely, taken evenly. NaN, infinity and negative values are looked for in all cells
        if `X` is in memory, else in these.
    obs
        Table of the cells, to name the column that tells two scales apart.

    Returns
    -------
    The report.

    Examples
    --------
    >>> import numpy as np
    >>> from scellm.data import describe_values
    >>> counts = np.random.default_rng(0).poisson(1.0, (50, 40))
    >>> describe_values(counts).kind
    'counts'
    >>> describe_values(np.log1p(counts)).message
    'log1p (base e) of raw counts: whole numbers after undoing it.'
    """
    if not X.shape[0] or not X.shape[1]:
        return ValueReport("empty", f"There are no values: {X.shape[0]} cells x {X.shape[1]} genes.")
    if np.dtype(X.dtype).kind not in "buif":
        return _no_numbers(X)
    if isinstance(X, np.ma.MaskedArray):
        if np.ma.getmaskarray(X).any():
            return _masked(X)
        X = X.data
    X = X.tocsr() if sp.issparse(X) and X.format not in ("csr", "csc") else X
    rows, first_rows = _sample(X, max_rows)
    is_in_memory = isinstance(X, np.ndarray) or sp.issparse(X)
    scanned = X if is_in_memory else rows
    n_bad, first_bad, smallest = _scan(scanned)
    if n_bad:
        at = first_bad if is_in_memory else (int(first_rows[first_bad[0]]), first_bad[1])
        return _not_finite(rows, first_rows, n_bad, at, obs)

    rows = sp.csr_array(rows, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    facts = {
        "n_rows": rows.shape[0],
        "share_nonzero": rows.nnz / (rows.shape[0] * rows.shape[1]),
        "min": float(smallest),
        **{name: value for name, value in facts_of(rows).items() if name != "values_per_cell"},
    }
    if smallest < 0 and smallest < -TINY * max(1.0, facts["max"]):
        return _from_fault(_negative(rows, smallest, first_rows, obs), facts)
    if smallest < 0:
        facts["n_tiny_negative"] = _n_negative(scanned)
        rows.data = np.maximum(rows.data, 0)
        rows.eliminate_zeros()
    if not rows.nnz:
        return ValueReport("empty", "All values are 0.", **facts)
    return _judge(rows, facts, smallest, first_rows, obs, is_all=rows.shape[0] == X.shape[0])


def _judge(
    rows: sp.csr_array,
    facts: dict[str, Any],
    smallest: float,
    cells: np.ndarray,
    obs: pd.DataFrame | None,
    *,
    is_all: bool,
) -> ValueReport:
    """The report on rows without negative values."""
    fault = offset(rows) or two_scales(rows, cells, obs)
    if fault is not None and fault.kind is not None:
        return _from_fault(fault, facts)
    found = constant_rows(rows) or verdict(rows, facts_of(rows), is_all=is_all)
    notes = [found["message"]]
    if fault is not None:
        notes.append(fault.message)
    if text := no_zeros(rows):
        notes.append(text)
    if n := facts.get("n_tiny_negative", 0):
        notes.append(f"{n} values are negative by rounding (smallest {smallest:.2g}) and are read as 0.")
    doubt = {"is_certain": False} if len(notes) > 1 else {}
    return ValueReport(**(facts | found | doubt | {"message": " ".join(notes)}))


def _from_fault(fault: Fault, facts: dict[str, Any]) -> ValueReport:
    message = f"{fault.message} {fault.way_out}".strip()
    return ValueReport(fault.kind, message, way_out=fault.way_out, **facts)


def _negative(rows: sp.csr_array, smallest: float, cells: np.ndarray, obs: pd.DataFrame | None) -> Fault:
    """Scaled values, or what only looks like them."""
    shifted = offset(rows)
    if shifted is not None:
        return shifted
    mixed = two_scales(rows, cells, obs)
    if mixed is not None and mixed.kind is not None:
        return mixed
    return Fault("scaled", f"Negative values (smallest {smallest:.3g}): scaled, centered or z-scored.")


def _n_negative(X: Any) -> int:
    return int(((X.data if sp.issparse(X) else X) < 0).sum())


def _no_numbers(X: Any) -> ValueReport:
    text, way = f"Values are of type {X.dtype}, not numbers.", ""
    try:
        np.asarray(X[:5], dtype=np.float64)
        way = "They can be made numbers: adata.X = adata.X.astype('float32')."
    except (TypeError, ValueError):
        pass  # text, or a container of them
    return ValueReport("invalid", f"{text} {way}".strip(), way_out=way)


def _masked(X: np.ma.MaskedArray) -> ValueReport:
    """What is masked is not there, and what stands behind the mask must not be read."""
    mask = np.ma.getmaskarray(X)
    first = divmod(int(np.argmax(mask)), X.shape[1])
    way = "Fill them, for instance with 0, which reads a missing gene as not expressed: adata.X = adata.X.filled(0)."
    text = (
        f"{int(mask.sum())} values are masked, the first in cell {first[0]}, gene {first[1]} (from 0). {way}"
    )
    return ValueReport("invalid", text, n_rows=len(X), n_bad=int(mask.sum()), first_bad=first, way_out=way)


def _not_finite(
    rows: Any, cells: np.ndarray, n_bad: int, first_bad: tuple[int, int], obs: pd.DataFrame | None
) -> ValueReport:
    text = f"{n_bad} NaN or infinite values, the first in cell {first_bad[0]}, gene {first_bad[1]} (from 0)."
    fault = missing_blocks(rows, cells, obs)
    way = "" if fault is None else fault.way_out
    text = text if fault is None else f"{text} {fault.message} {way}"
    return ValueReport("invalid", text, n_rows=rows.shape[0], n_bad=n_bad, first_bad=first_bad, way_out=way)


def _sample(X: Any, max_rows: int) -> tuple[Any, np.ndarray]:
    """Up to `max_rows` rows in a few consecutive stretches, in memory, and their positions."""
    n = X.shape[0]
    if n <= max_rows:
        starts, length = [0], n
    else:
        blocks = min(BLOCKS, max_rows)
        length = max_rows // blocks
        starts = np.linspace(0, n - length, blocks).astype(int).tolist()
    blocks = [X[start : start + length] for start in starts]
    if hasattr(X, "to_delayed"):  # all at once: stretches may be of one chunk
        from dask import compute

        blocks = list(compute(*blocks))
    where = np.concatenate([np.arange(start, start + length) for start in starts])
    if sp.issparse(blocks[0]):
        return (sp.vstack(blocks, format="csr") if len(blocks) > 1 else blocks[0]), where
    return np.concatenate([np.asarray(block) for block in blocks]), where


def _scan(X: Any) -> tuple[int, tuple[int, int] | None, float]:
    """Number of non-finite entries, (row, column) of the first, and the smallest finite value (0 at most)."""
    if X.dtype.kind in "bu":
        return 0, None, 0.0
    data = X.data if sp.issparse(X) else X.reshape(-1)  # a copy only for dense arrays in odd memory order
    n_bad, first, smallest = 0, None, 0.0
    for start in range(0, len(data), SCAN_AT_ONCE):
        part = data[start : start + SCAN_AT_ONCE]
        if part.dtype.kind == "f":
            finite = np.isfinite(part)
            if not finite.all():
                n_bad += int((~finite).sum())
                first = start + int(np.argmin(finite)) if first is None else first
                part = part[finite]
        smallest = min(smallest, float(part.min(initial=0)))
    if first is None:
        return n_bad, None, smallest
    if not sp.issparse(X):
        return n_bad, divmod(first, X.shape[1]), smallest
    major = int(np.searchsorted(X.indptr, first, side="right")) - 1
    minor = int(X.indices[first])
    return n_bad, (major, minor) if X.format == "csr" else (minor, major), smallest
