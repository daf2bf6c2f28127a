"""Multinomial logistic regression that takes labels of any depth: a cell known as a T cell is one of the T cells."""

from __future__ import annotations

import numpy as np

from ..metrics._logistic import PENALTY

ITERATIONS = 200
TOLERANCE = 1e-3


def fit_softmax(
    vectors: np.ndarray,
    allowed: np.ndarray,
    weights: np.ndarray,
    penalty: float = PENALTY,
    iterations: int = ITERATIONS,
) -> tuple[np.ndarray, np.ndarray]:
    r"""(K, F) weights and (K,) biases that make the allowed classes of each cell likely.

    The loss of a cell is :math:`-\log \sum_{k \in A_i} p_{ik}`, with :math:`A_i` the classes its label allows, the
    marginal likelihood of a partial label :cite:p:`Jin2002`; with one class allowed it is that of logistic regression.
    Classes that no cell allows have the bias -inf.

    Parameters
    ----------
    vectors
        (n, F) standardized.
    allowed
        (n, K) bool.
    weights
        (n,) of the cells, mean 1.
    penalty
        C of logistic regression.
    iterations
        Steps of L-BFGS, at most.
    """
    from scipy.optimize import minimize

    present = np.flatnonzero(allowed.any(axis=0))
    n, n_features = vectors.shape
    X = np.hstack([vectors, np.ones((n, 1))]).astype(np.float32)
    A = allowed[:, present]
    w = weights.astype(np.float32)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W = flat.reshape(len(present), n_features + 1).astype(np.float32)
        scores = X @ W.T
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=1)
        inside = np.where(A, scores, 0)
        part = np.maximum(inside.sum(axis=1), 1e-30)
        value = float((w * (np.log(total) - np.log(part))).sum(dtype=np.float64))
        scores /= total[:, None]
        inside /= part[:, None]
        scores -= inside
        scores *= w[:, None]
        gradient = (scores.T @ X).astype(np.float64)
        gradient[:, :-1] += W[:, :-1] / penalty
        return value + float((W[:, :-1].astype(np.float64) ** 2).sum()) / (2 * penalty), gradient.ravel()

    found = minimize(
        loss,
        np.zeros(len(present) * (n_features + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "gtol": TOLERANCE * n / len(present), "maxls": 30},
    )
    W = found.x.reshape(len(present), n_features + 1).astype(np.float32)
    weight = np.zeros((allowed.shape[1], n_features), np.float32)
    bias = np.full(allowed.shape[1], -np.inf, np.float32)
    weight[present], bias[present] = W[:, :-1], W[:, -1]
    return weight, bias
