"""Scores, and the baselines they stand beside. Arrays in, numbers out."""

from ._baselines import Comparison, compare_baselines
from ._calibration import expected_calibration_error
from ._leakage import Leakage, find_leakage
from ._neighbors import NeighborScore, neighbor_score
from ._uniformity import alignment, anisotropy, uniformity

__all__ = [
    "Comparison",
    "Leakage",
    "NeighborScore",
    "alignment",
    "anisotropy",
    "compare_baselines",
    "expected_calibration_error",
    "find_leakage",
    "neighbor_score",
    "uniformity",
]
