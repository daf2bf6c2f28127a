"""Fit the axis from cancer cell lines to normal tissue, at each depth and for bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ._profiles import DEPTHS, Platform, downsample, log_fractions

PENALTY = 10.0
"""Ridge penalty, in units of the mean variance of a gene."""


def fit_normal_axis(
    log2_tpm: np.ndarray,
    normal: Sequence[np.ndarray],
    statistics: Mapping[str, np.ndarray],
    *,
    platform: Platform | None = None,
    rng: int = 0,
) -> dict[str, np.ndarray]:
    """The axis at each depth, and for bulk.

    Parameters
    ----------
    log2_tpm
        (L, G) log2(TPM + 1) of cell lines.
    normal
        (N, G) linear expression of normal tissues or cell types as bulk sees it, whatever its scale; each array weighs the
        same.
    statistics
        What `fit_projector` learned from the cell lines.
    platform
        As of `fit_projector`.
    rng
        Seed of the downsampling.

    Returns
    -------
    `normal_axis` (K, G), the weight of each gene, and `normal_shift` (K, G), how normal tissue differs from the cell lines; the
    sum of their products is 1.

    Raises
    ------
    ValueError
        A profile is negative, not finite or empty.
    """
    for profiles in normal:
        if not np.isfinite(profiles).all() or (profiles < 0).any() or not (profiles.sum(1) > 0).all():
            msg = "Profiles of normal tissue are linear expression: finite, not negative, each with an expressed gene."
            raise ValueError(msg)
    linear, n_genes = np.exp2(log2_tpm.astype(np.float64)) - 1, log2_tpm.shape[1]
    axes, shifts = [], []
    for i, depth in enumerate((*DEPTHS, None)):
        center = statistics["center"][i].astype(np.float64)
        seen = platform.factor if platform is not None and depth else np.ones(n_genes)
        lines = _logged(linear * seen, depth, rng + i) - center
        means, spreads = [], []
        for profiles in normal:
            logged = _logged(profiles * seen, depth, rng + i) - center
            means.append(logged.mean(0))
            spreads.append(logged)
        shift = np.mean(means, axis=0)
        deviations = [(rows - shift) / np.sqrt(len(rows) * len(spreads)) for rows in spreads]
        rows = np.concatenate([*deviations, lines / np.sqrt(len(lines))]) / np.sqrt(2)
        penalty = PENALTY * (rows**2).sum() / n_genes + 1e-9
        axis = _ridge(rows, penalty, shift)
        axes.append(axis / (axis @ shift))
        shifts.append(shift)
    return {
        "normal_axis": np.array(axes, dtype=np.float32),
        "normal_shift": np.array(shifts, dtype=np.float32),
    }


def _logged(linear: np.ndarray, depth: float | None, rng: int) -> np.ndarray:
    """`log_fractions` of profiles, downsampled to a depth."""
    counts = linear if depth is None else downsample(linear, depth, rng=rng)
    return log_fractions(counts, 1.0).astype(np.float64)


def _ridge(rows: np.ndarray, penalty: float, wanted: np.ndarray) -> np.ndarray:
    """(rows' rows + penalty I)^-1 wanted, (G,), through the matrix of the (n, G) rows where there are fewer rows than genes."""
    n, n_genes = rows.shape
    if n >= n_genes:
        return np.linalg.solve(rows.T @ rows + penalty * np.eye(n_genes), wanted)
    inner = rows @ rows.T + penalty * np.eye(n)
    return (wanted - rows.T @ np.linalg.solve(inner, rows @ wanted)) / penalty
