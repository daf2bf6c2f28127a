"""Errors of cell lines and of drugs that were left out, and standard deviations that fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ._config import DrugResponseConfig
from ._fit_projection import fit_projector
from ._grid import ResponseGrid
from ._process import cell_line_kernel, inv_cholesky, posterior_variance
from ._profiles import Platform, downsample
from ._projection import CellLineProjector
from ._solve import drug_scale, solve_response

DEPTHS = (None, 10_000, 3_000, 1_000, 300)
"""Counts over the genes at which left-out cell lines are projected for the calibration; `None` as measured."""


def calibrate(
    expression: np.ndarray,
    grid: ResponseGrid,
    structure: np.ndarray,
    action: np.ndarray,
    config: DrugResponseConfig,
    *,
    screens: np.ndarray | None = None,
    platform: Platform | None = None,
    rng: int = 0,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Errors of cell lines that were left out, at several depths, and standard deviations that fit them.

    The expected squared error is base + slope * (share of variance the known cell lines leave), both fitted to all depths,
    times a factor per drug; all factors are then multiplied so that mean ± 1.645 standard deviations hold
    `coverage` of the left-out measurements at full depth (split conformal, :cite:p:`Lei2018`).

    Returns
    -------
    Settings; factor per drug (D,); correlation per drug over left-out cell lines (D,), NaN with fewer than 10.
    """
    left_out = _predict_left_out(
        expression, grid, structure, action, config, screens=screens, platform=platform, rng=rng
    )
    measured = grid.measured
    errors = {
        depth: np.where(measured, (grid.values - mean) / left_out.scales, np.nan)
        for depth, mean in left_out.mean.items()
    }
    shares = {
        depth: np.broadcast_to(share[:, None], measured.shape) for depth, share in left_out.share.items()
    }
    every = np.concatenate([errors[depth][measured] ** 2 for depth in DEPTHS])
    share = np.concatenate([shares[depth][measured] for depth in DEPTHS])
    (base, slope), _ = nnls(np.stack([np.ones_like(share), share], axis=1), every)
    variance = np.maximum(base + slope * shares[None], 1e-4)
    ratio = errors[None] ** 2 / variance
    factor = np.sqrt((np.nansum(ratio, 0) + config.prior_lines) / (measured.sum(0) + config.prior_lines))
    held = np.abs(errors[None]) / (factor * np.sqrt(variance))
    error = factor * np.nanquantile(held, config.coverage) / 1.645
    correlations = {depth: _pearson_by_drug(grid, left_out.mean[depth]) for depth in DEPTHS}
    settings = {
        "variance_base": float(base),
        "variance_slope": float(slope),
        "error": float(np.median(error)),
        "depths": [0 if depth is None else depth for depth in DEPTHS],
        "pearson_at_depth": [float(np.nanmean(correlations[depth])) for depth in DEPTHS],
    }
    return settings, error, correlations[None]


@dataclass(frozen=True)
class _LeftOut:
    """Predictions of cell lines by models that have not seen them."""

    mean: dict[int | None, np.ndarray]
    """(L, D) ln IC50 at each depth."""
    share: dict[int | None, np.ndarray]
    """(L,) share of variance that the other cell lines leave, at each depth."""
    scales: np.ndarray
    """(L, D) spread of each drug, as the model of that fold has it."""


def _predict_left_out(
    expression: np.ndarray,
    grid: ResponseGrid,
    structure: np.ndarray,
    action: np.ndarray,
    config: DrugResponseConfig,
    *,
    screens: np.ndarray | None,
    platform: Platform | None,
    rng: int,
) -> _LeftOut:
    """Leave out each fold of cell lines and predict it from the others, at each depth."""
    fold_of = np.random.default_rng(rng).permutation(len(expression)) % config.folds
    mean = {depth: np.full(grid.values.shape, np.nan) for depth in DEPTHS}
    share = {depth: np.full(len(expression), np.nan) for depth in DEPTHS}
    scales = np.zeros(grid.values.shape)
    for fold in range(config.folds):
        test, train = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        projector = CellLineProjector(fit_projector(expression[train], platform=platform, rng=rng))
        known = ResponseGrid(grid.values[train], grid.measured[train])
        fit = solve_response(projector.kernel_similarity, known, structure, action, config, screens=screens)
        inverse = inv_cholesky(cell_line_kernel(projector.kernel_similarity), config.noise)
        scales[test] = fit.scale
        linear, generator = np.exp2(expression[test]) - 1, np.random.default_rng((rng, fold))
        for depth in DEPTHS:
            profiles = _at_depth(linear, depth, platform, generator)
            similarity, _, _ = projector.project(profiles, np.full(len(test), depth is None))
            cross = cell_line_kernel(np.nan_to_num(similarity)).astype(np.float64)
            mean[depth][test] = fit.mean + fit.scale * (cross @ fit.response)
            share[depth][test] = posterior_variance(inverse, cross)
    return _LeftOut(mean, share, scales)


def _at_depth(
    linear: np.ndarray, depth: int | None, platform: Platform | None, generator: np.random.Generator
) -> np.ndarray:
    """Profiles as bulk sequencing shows them, or as single-cell sequencing does at a depth."""
    if depth is None:
        return linear
    seen = linear if platform is None else platform.simulate(linear, rng=generator)
    return downsample(seen, depth, rng=generator)


def compound_error(
    grid: ResponseGrid,
    structure: np.ndarray,
    config: DrugResponseConfig,
    has_structure: np.ndarray,
    *,
    rng: int,
) -> float:
    """Error in ln uM of the mean of a compound that is known by structure only, from drugs that were left out.

    The 90 % quantile over drugs, divided by 1.645.
    """
    fold_of = np.random.default_rng(rng).permutation(grid.values.shape[1]) % config.folds
    missed = []
    for fold in range(config.folds):
        test = (fold_of == fold) & has_structure & grid.measured.any(0)
        if not test.any():
            continue
        _, _, learnt = drug_scale(grid.masked(fold_of != fold), structure, structure, config)
        center, weights = learnt["structure_mean"]
        truth = grid.values[:, test].sum(0) / grid.measured[:, test].sum(0)
        missed.append(np.abs(truth - center - structure[test] @ weights))
    return float(np.quantile(np.concatenate(missed), config.coverage) / 1.645)


def _pearson_by_drug(grid: ResponseGrid, predicted: np.ndarray) -> np.ndarray:
    """(D,) correlation over cell lines, NaN with fewer than 10 or without spread."""
    found = np.full(grid.values.shape[1], np.nan)
    for drug in range(len(found)):
        rows = grid.measured[:, drug]
        truth, guess = grid.values[rows, drug], predicted[rows, drug]
        if rows.sum() >= 10 and truth.std() > 0 and guess.std() > 0:
            found[drug] = np.corrcoef(truth, guess)[0, 1]
    return found
