"""Scores, and the baselines they stand beside. Arrays in, numbers out."""

from ._baselines import Comparison, compare_baselines
from ._calibration import expected_calibration_error
from ._neighbors import NeighborScore, neighbor_score
from ._uniformity import alignment, anisotropy, uniformity

__all__ = [
    "Comparison",
    "NeighborScore",
    "alignment",
    "anisotropy",
    "compare_baselines",
    "expected_calibration_error",
    "neighbor_score",
    "uniformity",
]
