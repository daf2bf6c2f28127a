"""Gaussian process over cell lines and drugs: kernels, the incomplete grid of measurements, what is left uncertain.

The response of line l to drug d, in units of the drug's spread around its mean, is modelled as

    f(l, d) = m(l) + g(l, d),    Cov[f(l, d), f(l', d')] = M(l, l') + G(l, l') D(d, d')

m is what makes a line sensitive to everything, g what makes it sensitive to this drug and drugs like it. M and G are
mixtures of the identity (a line is itself) and of the kernel of expression; D mixes identity, structure and targets.
"""

from __future__ import annotations

import torch
from torch import Tensor


def line_kernel(similarity: Tensor) -> Tensor:
    """exp(s - 1) of cosine similarities s of expression, any shape: 1 for the same profile."""
    return torch.exp(similarity - 1)


def solve_grid(
    values: Tensor,
    measured: Tensor,
    parts: list[tuple[Tensor, Tensor]],
    *,
    noise: float,
    tolerance: float = 1e-5,
    max_steps: int = 400,
) -> Tensor:
    """Weights W of a Gaussian process on an incomplete grid, (L, D), zero where nothing was measured.

    Solves (sum of A W B over `parts` + noise W) = values on the measured pairs by conjugate gradients: the
    covariance of all pairs is a sum of Kronecker products, which are never made.

    Parameters
    ----------
    values
        (L, D) what was measured; anything elsewhere.
    measured
        (L, D) bool.
    parts
        Pairs (A, B) of covariances of lines (L, L) and drugs (D, D), both symmetric.
    noise
        Variance of a measurement.
    tolerance
        Relative residual at which to stop.
    max_steps
        Steps after which to stop in any case.

    Raises
    ------
    RuntimeError
        `max_steps` were not enough.
    """
    mask = measured.to(values.dtype)
    residual = torch.where(measured, values, 0)
    weights, direction = torch.zeros_like(residual), residual.clone()
    squared = start = (residual * residual).sum()
    for _ in range(max_steps):
        if squared <= tolerance**2 * start:
            return weights
        image = (apply_parts(parts, direction) + noise * direction) * mask
        step = squared / (direction * image).sum()
        weights += step * direction
        residual -= step * image
        before, squared = squared, (residual * residual).sum()
        direction = residual + squared / before * direction
    msg = f"The Gaussian process was not solved in {max_steps} steps (relative residual {(squared / start) ** 0.5:.2g})."
    raise RuntimeError(msg)


def apply_parts(parts: list[tuple[Tensor, Tensor]], weights: Tensor) -> Tensor:
    """Sum of A W B, (L, D)."""
    return sum(left @ weights @ right for left, right in parts)


def whitener(kernel: Tensor, noise: float) -> Tensor:
    """Inverse of the Cholesky factor of K + noise I, (L, L), for `unexplained`.

    Parameters
    ----------
    kernel
        (L, L) kernel K of the known lines.
    noise
        Variance of a measurement.
    """
    eye = torch.eye(len(kernel), dtype=kernel.dtype)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(kernel + noise * eye), eye, upper=False)


def unexplained(whitener: Tensor, cross: Tensor) -> Tensor:
    """Share of the prior variance of a new line that the known lines leave, (B,) in [0, 1].

    1 - c (K + noise I)^-1 c' for the cross kernel c of a cell whose own kernel is 1: the posterior variance if every
    line had been measured once.

    Parameters
    ----------
    whitener
        (L, L) of `whitener`.
    cross
        (B, L) kernel of new lines with the known ones.
    """
    return (1 - (cross @ whitener.T).square().sum(1)).clamp(0, 1)
