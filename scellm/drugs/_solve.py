"""Solve the Gaussian process of responses on the pairs of cell lines and drugs that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._config import DrugResponseConfig
from ._grid import ResponseGrid
from ._process import cell_line_kernel, kron_cg, kron_matvec

LEARNT_LINES, LEARNT_NOISE = 0.3, 0.6
"""Weight of a covariance of cell lines that was learned from responses, and what noise is then multiplied by."""
TOLERANCE = 1e-4
"""Relative residual at which the process counts as solved."""


@dataclass(frozen=True)
class Fit:
    """A solved Gaussian process."""

    mean: np.ndarray
    """(D,) ln IC50."""
    scale: np.ndarray
    """(D,) spread of ln IC50."""
    dual: np.ndarray
    """(L, D) weights of measured pairs."""
    response: np.ndarray
    """(L, D) weights of the kernel of cell lines, for those that were not measured."""
    fitted: np.ndarray
    """(L, D) predicted ln IC50 of the known cell lines, their own measurements used."""
    structure: dict[str, Any]
    """How mean and spread follow from structure."""


def solve_response(
    similarity: np.ndarray,
    grid: ResponseGrid,
    structure: np.ndarray,
    action: np.ndarray,
    config: DrugResponseConfig,
    *,
    screens: np.ndarray | None = None,
    rounds: int = 0,
) -> Fit:
    """Solve the Gaussian process on the measured pairs.

    Drugs without any measurement get mean and spread from drugs of similar structure and action.

    Parameters
    ----------
    similarity
        (L, L) cosines of the cell lines' expression.
    grid
        What was measured.
    structure, action
        (D, D) kernels of drugs: `structure_kernel`, shared targets.
    config
        Weights.
    screens
        (D,) where each drug was measured; `None` for one screen.
    rounds
        Times the covariances of drugs and of cell lines are estimated from the responses themselves and the process solved
        again: for filling in missing pairs of known cell lines and drugs. It helps new ones little.
    """
    n_lines, n_drugs = grid.values.shape
    between = config.drug_structure * structure + config.drug_action * action
    mean, scale, learnt = drug_scale(grid, between, structure, config)
    standardised = np.where(grid.measured, (grid.values - mean) / scale, 0)
    kernel, eye = cell_line_kernel(similarity), np.eye(n_lines)
    general = _general(np.zeros(n_drugs) if screens is None else screens, config)
    drugs = between + config.drug_self * np.eye(n_drugs)
    pair = kernel + config.pair_self * eye
    parts = [(config.line_self * eye + config.line_kernel * kernel, general), (pair, drugs)]
    near = pair, drugs + config.line_kernel * general
    dual = kron_cg(standardised, grid.measured, parts, noise=config.noise, near=near, tolerance=TOLERANCE)
    fitted = kron_matvec(parts, dual)
    for _ in range(rounds):
        filled = np.where(grid.measured, standardised, fitted)
        drugs, lines = (moments / moments.diagonal().mean() for moments in (np.cov(filled.T), np.cov(filled)))
        parts = [(pair + LEARNT_LINES * lines, drugs)]
        dual = kron_cg(
            standardised,
            grid.measured,
            parts,
            noise=config.noise * LEARNT_NOISE,
            near=parts[0],
            tolerance=TOLERANCE,
        )
        fitted = kron_matvec(parts, dual)
    response = config.line_kernel * dual @ general + dual @ drugs if not rounds else dual @ drugs
    return Fit(mean, scale, dual, response, mean + scale * fitted, learnt)


def _general(screens: np.ndarray, config: DrugResponseConfig) -> np.ndarray:
    """(D, D) covariance of what cell lines are to all drugs of a screen."""
    return np.where(screens[:, None] == screens, 1.0, config.between_screens)


def drug_scale(
    grid: ResponseGrid, between: np.ndarray, structure: np.ndarray, config: DrugResponseConfig
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Mean and spread of each drug; where nothing was measured, kernel ridge over similar drugs."""
    n = grid.measured.sum(0)
    seen = n > 0
    mean = np.divide(grid.values.sum(0), n, out=np.zeros(len(n)), where=seen)
    squares = np.where(grid.measured, (grid.values - mean) ** 2, 0).sum(0)
    average = squares.sum() / n.sum()
    scale = np.sqrt((squares + config.prior_lines * average) / (n + config.prior_lines))
    learnt: dict[str, Any] = {}
    for kernel, prefix in ((structure, "structure"), (between, "between")):
        inner = kernel[np.ix_(seen, seen)] + 0.5 * np.eye(int(seen.sum()))
        for values, what in ((mean, "mean"), (np.log(scale), "scale")):
            center = float(values[seen].mean())
            weights = np.zeros(len(n))
            weights[seen] = np.linalg.solve(inner, values[seen] - center)
            learnt[f"{prefix}_{what}"] = (center, weights)
    for values, what in ((mean, "mean"), (scale, "scale")):
        center, weights = learnt[f"between_{what}"]
        new = center + between[~seen] @ weights
        values[~seen] = new if what == "mean" else np.exp(new)
    return mean, scale, learnt
