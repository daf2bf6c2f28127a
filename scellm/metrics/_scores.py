"""Scores of probabilities of classes."""

from __future__ import annotations

import numpy as np

from ._calibration import expected_calibration_error


def scores(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Macro-F1 over the classes in the truth, accuracy, balanced accuracy and calibration error."""
    f1 = f1_by_class(probabilities, truth)
    predicted = probabilities.argmax(axis=1)
    recall = [(predicted[truth == code] == code).mean() for code in np.unique(truth)]
    return {
        "macro_f1": float(np.nanmean(f1)),
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float(np.mean(recall)),
        "ece": expected_calibration_error(probabilities, truth),
    }


def f1_by_class(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(K,) F1 of each class; NaN for those not in the truth."""
    from sklearn.metrics import f1_score

    predicted = probabilities.argmax(axis=1)
    present = np.unique(truth[truth >= 0])
    f1 = np.full(probabilities.shape[1], np.nan)
    f1[present] = f1_score(truth, predicted, labels=present, average=None, zero_division=0)
    return f1
