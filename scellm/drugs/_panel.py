"""Drugs to predict, known ones and new compounds side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Panel:
    """Drugs to predict: D columns of everything that is needed."""

    names: list[str]
    synonyms: list[str]
    drug_class: list[str]
    target: list[str]
    smiles: list[str]
    response: np.ndarray
    """(L, D) weights of the cell lines' kernel, in units of `scale`."""
    mean: np.ndarray
    """(D,) ln IC50 over cell lines."""
    scale: np.ndarray
    """(D,) spread of ln IC50 over cell lines."""
    error: np.ndarray
    """(D,) factor of the standard deviation; and what is added for a compound whose mean is not known."""
    extra: np.ndarray
    """(D,) standard deviation, in ln uM, of a mean that was predicted from the structure; 0 if it was measured."""
    pearson: np.ndarray
    """(D,) correlation over cell lines that were left out; NaN where it was not measured."""

    @property
    def std_unit(self) -> np.ndarray:
        """(D,) what the uncertainty of a cell is multiplied by."""
        return self.scale * self.error

    @classmethod
    def join(cls, parts: list[Panel]) -> Panel:
        """Several panels side by side."""
        joined = {}
        for field in ("names", "synonyms", "drug_class", "target", "smiles"):
            joined[field] = [value for part in parts for value in getattr(part, field)]
        for field in ("response", "mean", "scale", "error", "extra", "pearson"):
            joined[field] = np.concatenate([getattr(part, field) for part in parts], axis=-1)
        return cls(**joined)
