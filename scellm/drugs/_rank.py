"""How much more sensitive one group of cells is predicted to be than another, over samples or cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy import stats

FEWEST_SAMPLES = 3
"""Samples a side needs for a test."""
ROWS_PER_BLOCK = 20_000
"""Cells whose predictions are added up at once."""


@dataclass(frozen=True)
class Moments:
    """Sums of predictions of D drugs over the cells of each of C cohorts; of cells that have a prediction."""

    n: np.ndarray
    """(C,) cells."""
    sums: np.ndarray
    """(C, D) of predictions less `center`."""
    squares: np.ndarray
    """(C, D)"""
    center: np.ndarray
    """(D,) near the mean, so that squares lose no digits."""

    def added(self, rows: np.ndarray) -> Moments:
        """Cohorts put together: (C', C) bool or numbers, which go into which."""
        rows = rows.astype(np.float64)
        return Moments(rows @ self.n, rows @ self.sums, rows @ self.squares, self.center)


@dataclass(frozen=True)
class Side:
    """Units (samples or cells) of one side of a comparison: how many, and mean and variance of each of D drugs."""

    n: int
    mean: np.ndarray
    variance: np.ndarray
    """(D,) unbiased; NaN for fewer than two."""

    @classmethod
    def of_samples(cls, values: np.ndarray) -> Side:
        """From the means of samples, (n, D)."""
        n, width = values.shape
        nothing = np.full(width, np.nan)
        return cls(n, values.mean(0) if n else nothing, values.var(0, ddof=1) if n > 1 else nothing)

    @classmethod
    def of_cells(cls, moments: Moments) -> Side:
        """From the sums over one cohort of cells."""
        n = moments.n[0]
        mean = moments.sums[0] / n
        left = moments.squares[0] - n * mean**2
        variance = np.maximum(left, 0) / (n - 1) if n > 1 else np.full(len(mean), np.nan)
        return cls(int(n), mean + moments.center, variance)


@dataclass(frozen=True)
class Comparison:
    """One group beside its reference, for D drugs."""

    effect: np.ndarray
    """(D,) difference of means over units."""
    mean: np.ndarray
    """(D,) mean of the group over the units that were compared."""
    low: np.ndarray
    """(D,) t interval over units; NaN if there are too few or nothing varies."""
    high: np.ndarray
    p_value: np.ndarray
    """(D,) t test over samples; NaN without samples, with too few, or where nothing varies."""
    n_units: tuple[int, int]
    """Units that were compared, of the group and of its reference."""


def moments_of(
    values: np.ndarray, codes: np.ndarray, n_cohorts: int, done: Callable[[int], object] | None = None
) -> Moments:
    """Sums over cohorts, block by block; cells without a whole prediction or without a cohort are left out.

    Parameters
    ----------
    values
        (n_cells, D) predictions.
    codes
        (n_cells,) number of each cell's cohort, below 0 for none.
    n_cohorts
        How many there are.
    done
        Called with the number of cells of each block.
    """
    width = values.shape[1]
    n, sums, squares = np.zeros(n_cohorts), np.zeros((n_cohorts, width)), np.zeros((n_cohorts, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN
        center = np.nan_to_num(np.nanmean(np.asarray(values[:1000], dtype=np.float64), axis=0))
    for start in range(0, len(values), ROWS_PER_BLOCK):
        block = np.asarray(values[start : start + ROWS_PER_BLOCK], dtype=np.float64) - center
        of_block = codes[start : start + len(block)]
        kept = np.flatnonzero((of_block >= 0) & np.isfinite(block).all(1))
        member = sp.csr_array((np.ones(len(kept)), (of_block[kept], kept)), shape=(n_cohorts, len(block)))
        block = np.where(np.isfinite(block), block, 0)
        n += np.asarray(member.sum(1)).ravel()
        sums += member @ block
        squares += member @ np.square(block)
        if done is not None:
            done(len(block))
    return Moments(n, sums, squares, center)


def compare_samples(group: Moments, other: Moments, *, level: float, with_test: bool = True) -> Comparison:
    """Compare two sides whose cohorts are the same samples in the same order, paired where three or more have both.

    Parameters
    ----------
    group, other
        The sides, (S,) samples each; those without a cell do not count.
    level
        Share of intervals that hold the truth.
    with_test
        Whether predictions vary as samples do; else there are neither intervals nor p-values.
    """
    has_group, has_other = group.n > 0, other.n > 0
    means = [side.sums / np.maximum(side.n, 1)[:, None] + side.center for side in (group, other)]
    both = has_group & has_other
    if both.sum() >= FEWEST_SAMPLES:
        one, mean = Side.of_samples(means[0][both] - means[1][both]), means[0][both].mean(0)
        found = _t_interval(one.mean, one.variance / one.n, np.float64(one.n - 1), level)
        n_units = int(both.sum()), int(both.sum())
        enough = True
    else:
        sides = Side.of_samples(means[0][has_group]), Side.of_samples(means[1][has_other])
        mean = sides[0].mean
        found, n_units = _welch(*sides, level), (sides[0].n, sides[1].n)
        enough = min(n_units) >= FEWEST_SAMPLES
    nothing = np.full(len(group.center), np.nan)
    effect, low, high, p_value = found
    if not with_test:
        return Comparison(effect, mean, nothing, nothing, nothing, n_units)
    return Comparison(effect, mean, low, high, p_value if enough else nothing, n_units)


def compare_cells(group: Moments, other: Moments, *, level: float, with_interval: bool = True) -> Comparison:
    """Compare two sides of one cohort each, every cell a unit; there is no test."""
    sides = Side.of_cells(group), Side.of_cells(other)
    effect, low, high, _ = _welch(*sides, level)
    nothing = np.full(len(effect), np.nan)
    if not with_interval:
        low = high = nothing
    return Comparison(effect, sides[0].mean, low, high, nothing, (sides[0].n, sides[1].n))


def _welch(first: Side, second: Side, level: float) -> tuple[np.ndarray, ...]:
    """Difference of means, its interval and p-value, variances not taken for equal."""
    if min(first.n, second.n) < 2:
        nothing = np.full(len(first.mean), np.nan)
        return first.mean - second.mean, nothing, nothing, nothing
    errors = first.variance / first.n, second.variance / second.n
    total = errors[0] + errors[1]
    below = errors[0] ** 2 / (first.n - 1) + errors[1] ** 2 / (second.n - 1)
    freedom = np.divide(total**2, below, out=np.ones_like(total), where=below > 0)
    return _t_interval(first.mean - second.mean, total, freedom, level)


def _t_interval(
    effect: np.ndarray, variance: np.ndarray, freedom: np.ndarray, level: float
) -> tuple[np.ndarray, ...]:
    """An effect, low and high end of its interval and the p-value of none, (D,) each; NaN where nothing varies."""
    error = np.sqrt(variance)
    varies = error > 1e-9 * np.maximum(np.abs(effect), 1e-6)
    width = np.where(varies, stats.t.ppf(0.5 + level / 2, freedom) * error, np.nan)
    ratio = np.divide(effect, error, out=np.full_like(effect, np.nan), where=varies)
    return effect, effect - width, effect + width, 2 * stats.t.sf(np.abs(ratio), freedom)


def adjust(p_values: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over the drugs that have a p-value."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known])
    return adjusted
