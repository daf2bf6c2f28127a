"""The one logistic regression: baseline of the metrics, and head of the annotators."""

from __future__ import annotations

import warnings

import numpy as np

PENALTY = 0.1
"""C of logistic regression on standardized features (ours: chosen on labeled sets of the training corpus)."""


def logistic_regression(
    vectors: np.ndarray,
    codes: np.ndarray,
    n_classes: int,
    penalty: float = PENALTY,
    *,
    balanced: bool = True,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression: (K, F) weights and (K,) biases, -inf for classes without cells.

    With `weights` of the rows classes are not balanced.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight = np.zeros((n_classes, vectors.shape[1]), np.float32)
    bias = np.full(n_classes, -np.inf, np.float32)
    present = np.unique(codes)
    if len(present) == 1:
        bias[present] = 0
        return weight, bias
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits are noise
        fitted = LogisticRegression(
            C=penalty,
            class_weight="balanced" if balanced and weights is None else None,
            max_iter=200,
            tol=1e-3,
        )
        fitted.fit(vectors, codes, sample_weight=weights)
    if len(present) == 2:  # scikit-learn keeps one row; a class against the other
        weight[present[1]], bias[present] = fitted.coef_[0], [0, fitted.intercept_[0]]
    else:
        weight[present], bias[present] = fitted.coef_, fitted.intercept_
    return weight, bias
