"""Gaussian process on an incomplete grid: the same as the plain one, which makes the covariance of all pairs."""

import numpy as np
import pytest

from scellm.drugs import cell_line_kernel, inv_cholesky, kron_cg, kron_matvec, posterior_variance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def covariance(rng: np.random.Generator, n: int) -> np.ndarray:
    factor = rng.normal(size=(n, n))
    return factor @ factor.T / n + 0.1 * np.eye(n)


def test_grid_is_solved_as_the_dense_process(rng):
    n_lines, n_drugs, noise = 7, 5, 0.3
    parts = [(covariance(rng, n_lines), covariance(rng, n_drugs)) for _ in range(2)]
    values = rng.normal(size=(n_lines, n_drugs))
    measured = rng.random((n_lines, n_drugs)) < 0.7
    weights = kron_cg(values, measured, parts, noise=noise, tolerance=1e-10)

    dense = sum(np.kron(a, b) for a, b in parts)  # of all pairs, line by line
    at = measured.ravel()
    inner = dense[at][:, at] + noise * np.eye(int(at.sum()))
    predicted = dense[:, at] @ np.linalg.solve(inner, values.ravel()[at])
    np.testing.assert_allclose(kron_matvec(parts, weights).ravel(), predicted, rtol=1e-6, atol=1e-8)
    assert (weights[~measured] == 0).all()


def test_a_preconditioner_gives_the_same_weights_in_fewer_steps(rng):
    parts = [(covariance(rng, 30), 20 * np.ones((12, 12))), (covariance(rng, 30), covariance(rng, 12))]
    near = parts[1][0], parts[0][1] + parts[1][1]
    measured = rng.random((30, 12)) < 0.8
    values = rng.normal(size=(30, 12))
    plain = kron_cg(values, measured, parts, noise=1.0, tolerance=1e-9)
    found = kron_cg(values, measured, parts, noise=1.0, near=near, tolerance=1e-9)
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="not solved in 100 steps"):
        kron_cg(values, measured, parts, noise=1.0, tolerance=1e-9, max_steps=100)
    kron_cg(values, measured, parts, noise=1.0, near=near, tolerance=1e-9, max_steps=100)


def test_values_that_were_not_measured_do_not_matter(rng):
    parts = [(covariance(rng, 4), covariance(rng, 3))]
    values = rng.normal(size=(4, 3))
    measured = np.ones((4, 3), dtype=bool)
    measured[0, 0] = False
    first = kron_cg(values, measured, parts, noise=0.5)
    values[0, 0] = np.nan
    np.testing.assert_allclose(kron_cg(values, measured, parts, noise=0.5), first)


def test_too_few_steps_are_an_error(rng):
    parts = [(covariance(rng, 9), covariance(rng, 8))]
    values, measured = (rng.normal(size=(9, 8))), np.ones((9, 8), dtype=bool)
    with pytest.raises(RuntimeError, match="not solved in 1 steps"):
        kron_cg(values, measured, parts, noise=1e-6, max_steps=1)


def test_the_kernel_of_what_a_cell_may_be_is_the_mean_kernel(rng):
    similarity = rng.uniform(-1, 1, size=(5, 4))
    np.testing.assert_allclose(cell_line_kernel(similarity).mean(0), cell_line_kernel(similarity.mean(0)))
    assert cell_line_kernel(np.ones(1)) == pytest.approx(1)


def test_what_is_left_is_the_posterior_variance(rng):
    vectors = rng.normal(size=(6, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kernel = cell_line_kernel(vectors @ vectors.T)
    known, new = kernel[:4, :4], kernel[4:, :4]
    left = posterior_variance(inv_cholesky(known, 0.2), new)
    inner = known + 0.2 * np.eye(4)
    expected = 1 - (new @ np.linalg.inv(inner) * new).sum(1)
    np.testing.assert_allclose(left, expected)
    assert ((left > 0) & (left < 1)).all()


def test_a_line_like_the_known_ones_leaves_less_posterior_variance():
    kernel = cell_line_kernel(np.eye(3))
    near = cell_line_kernel(np.array([[0.9, 0.0, 0.0]]))
    far = cell_line_kernel(np.array([[-0.5, -0.5, -0.5]]))
    white = inv_cholesky(kernel, 0.5)
    assert posterior_variance(white, near) < posterior_variance(white, far)
