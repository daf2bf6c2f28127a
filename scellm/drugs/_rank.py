"""How much more sensitive one group of cells is predicted to be than another, over samples or cells."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST_SAMPLES = 3
"""Samples a side needs for a test."""

Units = dict[Hashable, np.ndarray]
"""Mean prediction (D,) of each sample of a side, or the prediction of each cell."""


@dataclass(frozen=True)
class Comparison:
    """One group beside its reference, for D drugs."""

    effect: np.ndarray
    """(D,) difference of means over units."""
    low: np.ndarray
    """(D,) 95 % interval by resampling units; NaN if there are too few."""
    high: np.ndarray
    p_value: np.ndarray
    """(D,) t test over samples; NaN without samples, with too few, or where nothing varies."""
    n_units: tuple[int, int]
    """Units that were compared, of the group and of its reference."""


def units_of(values: np.ndarray, inside: np.ndarray, samples: np.ndarray | None) -> Units:
    """Mean prediction of each sample's cells on a side; without samples each cell by itself.

    Parameters
    ----------
    values
        (n_cells, D) predictions.
    inside
        (n_cells,) bool, which cells are of the side.
    samples
        (n_cells,) number of each cell's sample, below 0 for none.
    """
    if samples is None:
        return dict(zip(np.flatnonzero(inside).tolist(), values[inside], strict=True))
    codes = np.unique(samples[inside]).tolist()
    return {code: values[inside & (samples == code)].mean(0) for code in codes if code >= 0}


def compare(
    group: Units, other: Units, *, n_bootstraps: int, with_test: bool, rng: np.random.Generator
) -> Comparison:
    """Compare two sides, paired where at least three samples are on both.

    Parameters
    ----------
    group, other
        The sides.
    n_bootstraps
        Resamplings for the interval; 0 for units that are no replicates, which have neither interval nor test.
    with_test
        Whether units are samples, so that there is a test.
    rng
        Generator of the resampling.
    """
    nothing = np.full(len(next(iter((group or other).values()))), np.nan)
    shared = [unit for unit in group if unit in other]
    is_paired = len(shared) >= FEWEST_SAMPLES
    n_units = (len(shared),) * 2 if is_paired else (len(group), len(other))
    if not group or not other:
        return Comparison(nothing, nothing, nothing, nothing, n_units)
    if is_paired:
        a, b = (np.array([side[unit] for unit in shared]) for side in (group, other))
        effect, sides = (a - b).mean(0), [a - b]
    else:
        a, b = np.array(list(group.values())), np.array(list(other.values()))
        effect, sides = a.mean(0) - b.mean(0), [a, -b]
    if not n_bootstraps:
        return Comparison(effect, nothing, nothing, nothing, n_units)
    p_value = _p_value(sides) if with_test and min(map(len, (a, b))) >= FEWEST_SAMPLES else nothing
    if min(map(len, sides)) < 2:
        return Comparison(effect, nothing, nothing, p_value, n_units)
    return Comparison(effect, *_interval(sides, n_bootstraps, rng), p_value, n_units)


def _p_value(sides: list[np.ndarray]) -> np.ndarray:
    """A t test that the sum of the sides' means is 0, (D,); NaN where nothing varies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of drugs whose predictions do not vary: NaN below
        if len(sides) == 1:
            found = stats.ttest_1samp(sides[0], 0, axis=0).pvalue
        else:
            found = stats.ttest_ind(sides[0], -sides[1], axis=0, equal_var=False).pvalue
    varies = np.any([np.ptp(side, axis=0) > 1e-9 * np.abs(side).max(0) for side in sides], axis=0)
    return np.where(varies, found, np.nan)


def _interval(
    sides: list[np.ndarray], n_bootstraps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % quantile, (D,) each, of the sum of the sides' means over resampled units."""
    drawn = np.zeros((n_bootstraps, sides[0].shape[1]))
    for i in range(n_bootstraps):
        for side in sides:
            weights = np.bincount(rng.integers(len(side), size=len(side)), minlength=len(side))
            drawn[i] += weights @ side / len(side)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def adjust(p_values: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over the drugs that have a p-value."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known])
    return adjusted
