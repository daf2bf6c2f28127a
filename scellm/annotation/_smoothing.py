"""How what a cell's neighbors say is weighed against what it says itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..metrics._calibration import softmax


@dataclass(frozen=True, eq=False, kw_only=True)
class Smoothing:
    """How much the neighbors of a cell have a say."""

    n_neighbors: int
    """Cells whose mean probability is taken."""
    weight: float
    """Of the logarithm of that mean; the rest is the cell's own."""
    temperature: float
    """The weighed sum is divided by it."""
    path_errors: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """As `Calibration.path_errors`, with neighbors."""

    def __post_init__(self) -> None:
        if self.n_neighbors < 1 or not 0 <= self.weight <= 1 or not self.temperature > 0:
            msg = (
                f"Neighbors count at least 1, weigh 0 to 1, at a temperature above 0; found {self.to_meta()}."
            )
            raise ValueError(msg)

    def mix(self, own: np.ndarray, around: np.ndarray) -> np.ndarray:
        """(n, K) probabilities from those of cells and the mean of those around them."""
        said = self.logits(own, around) / self.temperature
        return softmax(said).astype(np.float32)

    def logits(self, own: np.ndarray, around: np.ndarray) -> np.ndarray:
        """(n, K) scores before the temperature."""
        tiny = np.float32(1e-9)
        return (1 - self.weight) * np.log(own + tiny) + self.weight * np.log(around + tiny)

    def to_meta(self) -> dict[str, Any]:
        """Its numbers, for the part of the annotator."""
        return {
            "n_neighbors": int(self.n_neighbors),
            "weight": float(self.weight),
            "temperature": float(self.temperature),
        }
