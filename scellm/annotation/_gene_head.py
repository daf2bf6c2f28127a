"""Scores of types from the expression of single genes, beside those of the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

LARGEST = 10.0
"""Standardized values beyond this are cut: a gene that few reference cells have must not decide alone."""


@dataclass(frozen=True, eq=False)
class GeneScores:
    """What genes say of n cells, to be added to the scores of the embedding."""

    values: np.ndarray
    """(n, K)"""
    kept: float
    """What the scores of the embedding are multiplied by."""

    def __getitem__(self, rows: np.ndarray | slice) -> GeneScores:
        return GeneScores(self.values[rows], self.kept)

    def add_to(self, logits: np.ndarray) -> np.ndarray:
        """(n, K) scores of the embedding and of the genes together."""
        return self.kept * logits + self.values


@dataclass(frozen=True, eq=False, kw_only=True)
class GeneHead:
    """Multinomial logistic regression on log1p CP10k of G genes, for the K classes of an annotator.

    The mean of the log-probabilities of two classifiers that err differently is better than either. The less of
    the genes a study has, the less this one counts; with none of them the embedding is alone.
    """

    genes: list[str]
    centre: np.ndarray
    """(G,) subtracted from the values."""
    scale: np.ndarray
    """(G,) they are divided by."""
    weight: np.ndarray
    """(K, G)"""
    bias: np.ndarray
    """(K,)"""
    kept: float
    """What the scores of the embedding are multiplied by where all genes are there."""

    def __post_init__(self) -> None:
        n_classes, n_genes = len(self.bias), len(self.genes)
        shapes = {"centre": (n_genes,), "scale": (n_genes,), "weight": (n_classes, n_genes)}
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                msg = (
                    f"The genes of the annotator do not fit together: {name} has shape {found}, not {shape}."
                )
                raise ValueError(msg)

    def standardize(self, logged: sp.csr_array, has: np.ndarray) -> np.ndarray:
        """(n, G) from (n, G) log values and whether each gene is measured, (G,) or (n, G); others are as the mean."""
        values = logged.toarray()
        values -= self.centre
        values /= self.scale
        np.clip(values, -LARGEST, LARGEST, out=values)
        if not has.all():
            values *= has
        return values

    def logits(self, logged: sp.csr_array, has: np.ndarray) -> np.ndarray:
        """(n, K) scores of the genes alone."""
        return self.standardize(logged, has) @ self.weight.T + self.bias

    def scores(self, logged: sp.csr_array, has: np.ndarray) -> GeneScores:
        """Scores of cells of one study, (n, G), that weigh by the square root of the share of the genes it has, (G,)."""
        weigh = float(np.sqrt(has.mean()))
        return GeneScores(weigh * self.logits(logged, has), self.kept_with(has))

    def kept_with(self, has: np.ndarray) -> float:
        """What the scores of the embedding are multiplied by in a study with some of the genes, (G,)."""
        return 1 - float(np.sqrt(has.mean())) * (1 - self.kept)

    def to_part(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and facts, for the part of the annotator; weights in half precision."""
        arrays = {name: getattr(self, name).astype(np.float32) for name in ("centre", "scale", "bias")}
        arrays["weight"] = self.weight.astype(np.float16)
        tensors = {f"gene_{name}": array for name, array in arrays.items()}
        return tensors, {"genes": list(self.genes), "kept": float(self.kept)}

    @classmethod
    def from_part(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> GeneHead:
        """The genes of a part that has some."""
        names = ("centre", "scale", "weight", "bias")
        arrays = {name: tensors[f"gene_{name}"].astype(np.float32) for name in names}
        return cls(genes=list(meta["genes"]), kept=float(meta["kept"]), **arrays)
