"""Gaussian process over cell lines and drugs: kernels, the incomplete grid of measurements, what is left uncertain.

The response of cell line l to drug d, in units of the drug's spread around its mean, is modelled as

    f(l, d) = m(l) + g(l, d),    Cov[f(l, d), f(l', d')] = M(l, l') + G(l, l') D(d, d')

m is what makes a cell line sensitive to everything, g what makes it sensitive to this drug and drugs like it. M and G are
mixtures of the identity (a cell line is itself) and of the kernel of expression; D mixes identity, structure and targets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse.linalg import LinearOperator, cg

COMMON = 0.15
"""Share of the kernel that all cell lines have in common, whatever their expression."""


def cell_line_kernel(similarity: np.ndarray) -> np.ndarray:
    """0.15 + 0.85 s of similarities s of expression, any shape: 1 for the same profile.

    Linear, so that the prediction for the mean of what a cell may be is the mean of the predictions.

    Parameters
    ----------
    similarity
        Cosines, or inner products of vectors no longer than 1.

    Returns
    -------
    The kernel, of the same shape and type.
    """
    return COMMON + (1 - COMMON) * similarity


def kron_cg(
    values: np.ndarray,
    measured: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
    *,
    noise: float,
    near: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = 1e-5,
    max_steps: int = 2000,
) -> np.ndarray:
    """Solve a Gaussian process on an incomplete grid by conjugate gradients.

    Solves (sum of A W B over `parts` + noise W) = values on the measured pairs: the covariance of all pairs is a sum of
    Kronecker products, which are never made.

    Parameters
    ----------
    values
        (L, D) what was measured; anything elsewhere.
    measured
        (L, D) bool.
    parts
        Pairs (A, B) of covariances of cell lines (L, L) and drugs (D, D), both symmetric.
    noise
        Variance of a measurement.
    near
        One such pair whose product is near the sum of all: its inverse on the whole grid, by eigenvalues, is the
        preconditioner, with which a tenth of the steps is enough.
    tolerance
        Relative residual at which to stop.
    max_steps
        Steps after which to stop in any case.

    Returns
    -------
    The weights W, (L, D), zero where nothing was measured.

    Raises
    ------
    RuntimeError
        `max_steps` were not enough.
    """

    def covariance(weights: np.ndarray) -> np.ndarray:
        return kron_matvec(parts, _on_grid(weights, measured))[measured] + noise * weights.ravel()

    wanted = values[measured].astype(np.float64)
    shape = (len(wanted), len(wanted))
    system = LinearOperator(shape, matvec=covariance, dtype=np.float64)
    inverse = None
    if near is not None:
        solve = _inverse_on_grid(*near, noise)
        inverse = LinearOperator(
            shape, matvec=lambda weights: solve(_on_grid(weights, measured))[measured], dtype=np.float64
        )
    weights, failed = cg(system, wanted, rtol=tolerance, maxiter=max_steps, M=inverse)
    if failed:
        residual = np.linalg.norm(wanted - covariance(weights)) / np.linalg.norm(wanted)
        msg = f"The Gaussian process was not solved in {max_steps} steps (relative residual {residual:.2g})."
        raise RuntimeError(msg)
    return _on_grid(weights, measured)


def _inverse_on_grid(
    lines: np.ndarray, drugs: np.ndarray, noise: float
) -> Callable[[np.ndarray], np.ndarray]:
    """(A x B + noise I)^-1 on a grid without gaps."""
    (of_lines, left), (of_drugs, right) = np.linalg.eigh(lines), np.linalg.eigh(drugs)
    scale = 1 / (np.maximum(np.outer(of_lines, of_drugs), 0) + noise)
    return lambda grid: left @ ((left.T @ grid @ right) * scale) @ right.T


def _on_grid(weights: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Weights of the measured pairs on the grid, (L, D), zero elsewhere."""
    grid = np.zeros(measured.shape)
    grid[measured] = weights.ravel()
    return grid


def kron_matvec(parts: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> np.ndarray:
    """Sum of A W B: a sum of Kronecker products times a vector, on the grid.

    Parameters
    ----------
    parts
        Pairs (A, B), (L, L) and (D, D).
    weights
        W, (L, D).

    Returns
    -------
    The sum, (L, D).
    """
    return np.sum([left @ weights @ right for left, right in parts], axis=0)


def inv_cholesky(kernel: np.ndarray, noise: float) -> np.ndarray:
    """Inverse of the Cholesky factor of K + noise I, for `posterior_variance`.

    Parameters
    ----------
    kernel
        (L, L) kernel K of the known cell lines.
    noise
        Variance of a measurement.

    Returns
    -------
    The lower triangle, (L, L).
    """
    eye = np.eye(len(kernel), dtype=kernel.dtype)
    return solve_triangular(np.linalg.cholesky(kernel + noise * eye), eye, lower=True)


def posterior_variance(inv_cholesky: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Share of the prior variance of a new cell line that the known ones leave, (B,) in [0, 1].

    1 - c (K + noise I)^-1 c' for the cross kernel c of a cell whose own kernel is 1: the posterior variance if every
    cell line had been measured once.

    Parameters
    ----------
    inv_cholesky
        (L, L) of `inv_cholesky`.
    cross
        (B, L) kernel of new cell lines with the known ones.

    Returns
    -------
    The shares, (B,).
    """
    return np.clip(1 - np.square(cross @ inv_cholesky.T).sum(1), 0, 1)
