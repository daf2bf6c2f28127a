"""Scores, and the baselines they stand beside. Arrays in, numbers out."""

from ._neighbors import NeighborScore, neighbor_score

__all__ = ["NeighborScore", "neighbor_score"]
