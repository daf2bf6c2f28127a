"""Cells: what a matrix is, its values judged, its rows read, as tokens, counts or log values."""
