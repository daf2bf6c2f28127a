"""What many cells look like together, gathered block by block from probabilities before any class is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

UNSURE = 0.3
"""A cell without any type that reaches this looks like none."""


@dataclass
class Looks:
    """Sums over cells; made by `of`."""

    n_cells: int
    mean: np.ndarray
    """(K,) mean probability."""
    unsure: float
    """Share of cells without any type that reaches `UNSURE`."""
    most: np.ndarray
    """(K,) number of cells that look most like each class."""

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray], n_classes: int) -> Looks:
        """Of (b, K) probabilities."""
        n, n_unsure = 0, 0
        total, most = np.zeros(n_classes), np.zeros(n_classes, dtype=int)
        for block in blocks:
            n += len(block)
            n_unsure += int((block.max(axis=1, initial=0) < UNSURE).sum())
            total += block.sum(axis=0, dtype=np.float64)
            most += np.bincount(block.argmax(axis=1), minlength=n_classes)
        return cls(n, total / max(n, 1), n_unsure / max(n, 1), most)
