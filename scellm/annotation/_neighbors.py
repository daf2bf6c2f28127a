"""What the nearest cells of the same data say of a cell's type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._annotator import ROWS_AT_ONCE, unit
from ._nearest import largest, means_of
from ._smoothing import Smoothing

MOST_CELLS = 10_000
"""Neighbors are looked for among no more cells, drawn at random from all."""
MOST_AXES = 32
"""Principal components of the embedding in which neighbors are looked for, for speed (ours)."""
AT_ONCE = 256
"""Cells whose distances to all others stay in the cache."""
LEAST_SHARE = 0.1
"""Neighbors are no more than this share of the cells, or few cells would all be each other's (ours)."""


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """Cells of the data, drawn at random if there are many, among which neighbors are looked for."""

    smoothing: Smoothing
    rows: np.ndarray
    """(m,) their places in the data, rising."""
    centre: np.ndarray
    """(F,) subtracted from unit vectors."""
    axes: np.ndarray
    """(F, d)"""
    points: np.ndarray
    """(m, d + 1), the last column half of their squared length, below 0."""
    probabilities: np.ndarray
    """(m, K)"""

    @classmethod
    def of(
        cls,
        vectors: np.ndarray,
        is_full: np.ndarray,
        smoothing: Smoothing,
        probabilities_of: Callable[[np.ndarray], np.ndarray],
    ) -> Neighborhood | None:
        """Of (n, F) embeddings; `None` where there are too few cells for any to be a neighbor.

        Parameters
        ----------
        vectors, is_full
            Embeddings, and (n,) which of them are of cells with genes.
        smoothing
            How many neighbors, at most.
        probabilities_of
            From (m,) rows to their (m, K) probabilities.
        """
        rows = np.flatnonzero(is_full)
        if len(rows) > MOST_CELLS:
            rows = np.sort(np.random.default_rng(0).choice(rows, MOST_CELLS, replace=False))
        if int(len(rows) * LEAST_SHARE) < 1:
            return None
        some = unit(vectors[rows])
        centre = some.mean(axis=0)
        some -= centre
        axes = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :MOST_AXES].astype(np.float32)
        found = np.concatenate(
            [probabilities_of(rows[i : i + ROWS_AT_ONCE]) for i in range(0, len(rows), ROWS_AT_ONCE)]
        )
        points = some @ axes
        points = np.column_stack([points, -0.5 * (points**2).sum(axis=1)])
        return cls(smoothing, rows, centre, axes, points, found)

    @property
    def n_neighbors(self) -> int:
        """How many of the cells are neighbors of one."""
        return min(self.smoothing.n_neighbors, int(len(self.rows) * LEAST_SHARE))

    def own(self, rows: np.ndarray, probabilities_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(b, K) probabilities of rows of the data, those known already where all are."""
        at = np.searchsorted(self.rows, rows)
        is_known = (self.rows[np.minimum(at, len(self.rows) - 1)] == rows).all()
        return self.probabilities[at] if is_known else probabilities_of(rows)

    def around(self, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(b, K) mean probability of the neighbors of (b, F) cells, which are the given (b,) rows of the data."""
        return np.concatenate(
            [
                self._around(vectors[i : i + AT_ONCE], rows[i : i + AT_ONCE])
                for i in range(0, len(rows), AT_ONCE)
            ]
            or [np.zeros((0, self.probabilities.shape[1]), np.float32)]
        )

    def _around(self, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        placed = (unit(vectors) - self.centre) @ self.axes
        nearness = np.column_stack([placed, np.ones(len(placed), np.float32)]) @ self.points.T
        at = np.searchsorted(self.rows, rows)
        is_one = self.rows[np.minimum(at, len(self.rows) - 1)] == rows
        nearness[np.flatnonzero(is_one), at[is_one]] = -np.inf
        _, places = largest(nearness, self.n_neighbors)
        return means_of(self.probabilities, places)

    def smooth(self, own: np.ndarray, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(b, K) probabilities of cells from their own and those of their neighbors."""
        return self.smoothing.mix(own, self.around(vectors, rows))
