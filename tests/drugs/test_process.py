"""Gaussian process on an incomplete grid: the same as the plain one, which makes the covariance of all pairs."""

import numpy as np
import pytest
import torch

from scellm.nn import apply_parts, line_kernel, solve_grid, unexplained, whitener


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def covariance(rng: np.random.Generator, n: int) -> torch.Tensor:
    factor = rng.normal(size=(n, n))
    return torch.from_numpy(factor @ factor.T / n + 0.1 * np.eye(n))


def test_grid_is_solved_as_the_dense_process(rng):
    n_lines, n_drugs, noise = 7, 5, 0.3
    parts = [(covariance(rng, n_lines), covariance(rng, n_drugs)) for _ in range(2)]
    values = torch.from_numpy(rng.normal(size=(n_lines, n_drugs)))
    measured = torch.from_numpy(rng.random((n_lines, n_drugs)) < 0.7)
    weights = solve_grid(values, measured, parts, noise=noise, tolerance=1e-10)

    dense = sum(torch.kron(a, b) for a, b in parts)  # of all pairs, line by line
    at = measured.ravel()
    inner = dense[at][:, at] + noise * torch.eye(int(at.sum()), dtype=torch.float64)
    predicted = dense[:, at] @ torch.linalg.solve(inner, values.ravel()[at])
    torch.testing.assert_close(apply_parts(parts, weights).ravel(), predicted, rtol=1e-6, atol=1e-8)
    assert (weights[~measured] == 0).all()


def test_values_that_were_not_measured_do_not_matter(rng):
    parts = [(covariance(rng, 4), covariance(rng, 3))]
    values = torch.from_numpy(rng.normal(size=(4, 3)))
    measured = torch.ones(4, 3, dtype=torch.bool)
    measured[0, 0] = False
    first = solve_grid(values, measured, parts, noise=0.5)
    values[0, 0] = torch.nan
    torch.testing.assert_close(solve_grid(values, measured, parts, noise=0.5), first)


def test_too_few_steps_are_an_error(rng):
    parts = [(covariance(rng, 9), covariance(rng, 8))]
    values, measured = torch.from_numpy(rng.normal(size=(9, 8))), torch.ones(9, 8, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="not solved in 1 steps"):
        solve_grid(values, measured, parts, noise=1e-6, max_steps=1)


def test_unexplained_is_the_posterior_variance(rng):
    vectors = rng.normal(size=(6, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kernel = line_kernel(torch.from_numpy(vectors @ vectors.T))
    known, new = kernel[:4, :4], kernel[4:, :4]
    left = unexplained(whitener(known, 0.2), new)
    inner = known + 0.2 * torch.eye(4, dtype=torch.float64)
    expected = 1 - (new @ torch.linalg.inv(inner) * new).sum(1)
    torch.testing.assert_close(left, expected)
    assert ((left > 0) & (left < 1)).all()


def test_a_line_like_the_known_ones_leaves_less_unexplained():
    kernel = line_kernel(torch.eye(3, dtype=torch.float64))
    near = line_kernel(torch.tensor([[0.9, 0.0, 0.0]], dtype=torch.float64))
    far = line_kernel(torch.tensor([[-0.5, -0.5, -0.5]], dtype=torch.float64))
    white = whitener(kernel, 0.5)
    assert unexplained(white, near) < unexplained(white, far)
