"""Scores of a head on cells that it was not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metrics._calibration import expected_calibration_error, softmax
from ..metrics._scores import f1_by_class, scores
from ._annotator import Annotator
from ._records import REPORTED_ERRORS


def measured(annotator: Annotator, logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scores, calibration and coverage on cells the head was not fitted on."""
    probabilities = softmax(logits / annotator.calibration.temperature)
    n_cells = np.bincount(truth, minlength=logits.shape[1])
    found = {
        **scores(probabilities, truth),
        "ece_before": expected_calibration_error(softmax(logits), truth),
        "temperature": float(annotator.calibration.temperature),
        "f1_by_class": f1_by_class(probabilities, truth),
        "n_by_class": n_cells,
    }
    if annotator.is_calibrated:
        covered = []
        sizes = []
        for error in REPORTED_ERRORS:
            sets = annotator.sets(probabilities, error)
            covered.append(sets[np.arange(len(truth)), truth])
            sizes.append(float(sets.sum(axis=1).mean()))
        found |= {
            "target_errors": np.array(REPORTED_ERRORS),
            "coverage": np.array([inside.mean() for inside in covered]),
            "set_size": np.array(sizes),
            "coverage_by_class": np.array(
                [
                    [inside[truth == code].mean() if n else np.nan for code, n in enumerate(n_cells)]
                    for inside in covered
                ]
            ),
        }
    return found
