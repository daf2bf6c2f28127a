"""Options of a fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DrugResponseConfig:
    """Weights of the covariances, and what else the fit needs; chosen on left-out cell lines.

    Parameters
    ----------
    noise
        Variance of a measurement, in units of a drug's variance over cell lines.
    line_self, line_kernel
        General sensitivity: of the cell line itself, and shared with cell lines of similar expression.
    pair_self
        Sensitivity to a drug: of the cell line itself, beside 1 for what is shared with similar ones.
    drug_self, drug_structure, drug_action
        Covariance of drugs: own, of similar structure (`structure_kernel`), of shared targets and class.
    between_screens
        Correlation of a cell line's general sensitivity in two screens, whose assays and doses differ.
    prior_lines
        Lines' worth of the average spread that a drug's own spread is shrunk with.
    folds
        Parts the cell lines, and the drugs, are divided into for the calibration.
    coverage
        Share of left-out measurements that mean ± 1.645 standard deviations must hold.
    """

    noise: float = 1.0
    line_self: float = 0.3
    line_kernel: float = 1.0
    pair_self: float = 0.5
    drug_self: float = 0.5
    drug_structure: float = 1.0
    drug_action: float = 0.5
    between_screens: float = 0.5
    prior_lines: float = 5.0
    folds: int = 5
    coverage: float = 0.9
