"""A fitted annotator: vectors of cells -> scores, calibrated probabilities, prediction sets, novelty.

Plain arrays and plain facts, so that it is stored as a `Part` and nothing is unpickled. Shape letters: `B` cells, `F`
features (the embedding, or genes of the baseline), `K` classes, `N` exemplars.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..metrics._calibration import softmax
from ..metrics._conformal import LEVELS, conformal_threshold, prediction_sets
from ..models._parts import Part
from ._tree import Tree

KINDS = ("linear", "knn", "prototype")
SPACES = ("embedding", "genes")
ROWS_AT_ONCE = 2048
N_NEAREST = 5
"""Exemplars a distance is averaged over."""
SHARPNESS = 30.0
"""Scores of prototypes are this times the cosine; the temperature, fitted later, has the last word."""
_ARRAYS = (
    "centre",
    "scale",
    "weight",
    "bias",
    "projection",
    "exemplars",
    "exemplar_labels",
    "exemplar_spread",
    "nonconformity",
    "novelty",
)


@dataclass(eq=False, kw_only=True)
class Annotator:
    """Classes of cells from vectors, with calibration.

    Parameters
    ----------
    classes
        (K,) names, any text.
    kind
        `"linear"`: multinomial logistic regression; `"prototype"`: cosine to the mean of each class; `"knn"`: a vote
        of the nearest exemplars.
    space
        What the vectors are: embeddings of a model, or log1p CP10k of `genes`.
    center, scale
        (F,) subtracted from and divided into the vectors, after embeddings were put onto the unit sphere.
    weight, bias
        (K, F) and (K,); of prototypes the bias is not used.
    projection
        (F, d) into the space of exemplars; empty (F, 0) where exemplars are vectors on the unit sphere themselves.
    exemplars, exemplar_labels
        (N, F or d) unit vectors of reference cells and (N,) their classes.
    temperature
        Scores are divided by it.
    nonconformity, n_calibration
        (1001,) quantiles of 1 - p(true class) over held-out cells, and their number; 0 if it is not calibrated.
    exemplar_spread
        (N,) mean cosine distance of each exemplar to its nearest ones.
    novelty
        (1001,) quantiles of `outlier_score` over held-out cells.
    n_neighbors
        Neighbors that vote.
    genes
        Genes of the vectors, for `space="genes"`.
    report
        What was measured on held-out cells.
    facts
        What it was made from.
    tree
        Over the classes; `None` for flat ones.
    path_errors
        (1001,) quantiles over held-out cells of the probability of the first wrong node on the way down the tree.
    """

    classes: list[str]
    kind: Literal["linear", "knn", "prototype"]
    centre: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    exemplars: np.ndarray
    exemplar_labels: np.ndarray
    exemplar_spread: np.ndarray
    projection: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    space: Literal["embedding", "genes"] = "embedding"
    temperature: float = 1.0
    nonconformity: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    n_calibration: int = 0
    novelty: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    n_neighbors: int = 15
    genes: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    tree: Tree | None = None
    path_errors: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.space not in SPACES:
            msg = f"An annotator has a kind of {KINDS} and a space of {SPACES}; found {self.kind!r}, {self.space!r}."
            raise ValueError(msg)
        n_classes, n_features = len(self.classes), len(self.centre)
        wanted = {
            "scale": (n_features,),
            "weight": (n_classes, n_features),
            "bias": (n_classes,),
            "exemplar_labels": (len(self.exemplars),),
            "exemplar_spread": (len(self.exemplars),),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                msg = (
                    f"The annotator does not fit together: {name} has shape {getattr(self, name).shape}, "
                    f"{n_classes} classes and {n_features} features need {shape}."
                )
                raise ValueError(msg)
        if (
            len(self.exemplar_labels)
            and not 0 <= self.exemplar_labels.min() <= self.exemplar_labels.max() < n_classes
        ):
            msg = f"The annotator does not fit together: exemplars of classes beyond its {n_classes}."
            raise ValueError(msg)

    @property
    def n_features(self) -> int:
        """F, the length of the vectors it takes."""
        return len(self.centre)

    @property
    def is_calibrated(self) -> bool:
        """Whether its probabilities were compared with held-out cells."""
        return self.n_calibration > 0

    def standardize(self, vectors: np.ndarray) -> np.ndarray:
        """(B, F) vectors as the classifier sees them."""
        if self.space == "embedding":
            vectors = unit(vectors)
        found = (vectors - self.centre) / self.scale
        return np.clip(found, -10, 10) if self.space == "genes" else found

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """(B, F or d) unit vectors to be compared with the exemplars."""
        return unit(self.standardize(vectors) @ self.projection) if self.projection.size else unit(vectors)

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """(B, K) scores before calibration."""
        if self.kind == "knn":
            return np.concatenate([self._votes(block) for block in _blocks(vectors)])
        standard = self.standardize(vectors)
        if self.kind == "linear":
            return standard @ self.weight.T + self.bias
        return SHARPNESS * unit(standard) @ self.weight.T

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """(B, K) calibrated probabilities, float32."""
        return softmax(self.logits(vectors) / self.temperature).astype(np.float32)

    def outlier_score(self, vectors: np.ndarray) -> np.ndarray:
        """(B,) cosine distance to the nearest exemplars over the square root of their own spread (ours).

        Halfway between a plain distance, which calls all cells of a loose type strange, and a local outlier factor,
        which calls strange whatever lies beside a tight one.
        """
        found = []
        for block in _blocks(vectors):
            distance, spread = nearest(self.place(block), self.exemplars, self.exemplar_spread)
            found.append(distance / np.sqrt(np.maximum(spread, 1e-4)))
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def shift(self, strange: np.ndarray) -> float:
        """How many times stranger the median of (B,) cells is than that of held-out ones; at least 1."""
        usual = max(float(self.novelty[len(self.novelty) // 2]), 1e-6)
        return max(1.0, float(np.median(strange)) / usual)

    def novelty_scores(self, strange: np.ndarray, false_alarm: float, *, shift: float = 1.0) -> np.ndarray:
        """(B,) outlier_score as a multiple of what `false_alarm` of the held-out cells exceed, after a common shift."""
        at = int(np.floor((1 - false_alarm) * (len(LEVELS) - 1) + 1e-9))
        return (strange / (shift * max(float(self.novelty[at]), 1e-6))).astype(np.float32)

    def threshold(self, target_error: float) -> float:
        """Nonconformity up to which a class belongs to the set."""
        return conformal_threshold(self.nonconformity, self.n_calibration, target_error)

    def sets(self, probabilities: np.ndarray, target_error: float) -> np.ndarray:
        """(B, K) bool, classes that cannot be excluded at this error."""
        return prediction_sets(probabilities, self.threshold(target_error))

    def least_probability(self, target_error: float) -> float:
        """What a node of the tree must reach to be named at this error."""
        return conformal_threshold(self.path_errors, self.n_calibration, target_error) + 2e-6

    def to_part(self) -> Part:
        """Arrays and facts, for a model folder; exemplars at half precision."""
        tensors = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        tensors = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in tensors.items()}
        tensors["exemplars"] = tensors["exemplars"].astype(np.float16)
        if self.tree is not None:
            tensors["path_errors"] = np.asarray(self.path_errors, dtype=np.float32)
        meta = {
            "classes": list(self.classes),
            "kind": self.kind,
            "space": self.space,
            "temperature": float(self.temperature),
            "n_calibration": int(self.n_calibration),
            "n_neighbors": int(self.n_neighbors),
            "genes": list(self.genes),
            "report": self.report,
            "facts": self.facts,
        }
        if self.tree is not None:
            meta["tree"] = self.tree.to_meta()
        return Part(tensors=tensors, meta=meta)

    @classmethod
    def from_part(cls, part: Part) -> Annotator:
        """The annotator of a part.

        Raises
        ------
        ValueError
            Something is missing or does not fit together.
        """
        meta_fields = (
            "classes",
            "kind",
            "space",
            "temperature",
            "n_calibration",
            "n_neighbors",
            "genes",
            "report",
            "facts",
        )
        missing = [name for name in _ARRAYS if name not in part.tensors]
        missing += [name for name in meta_fields if name not in part.meta]
        if missing:
            msg = f"This part is no annotator: {', '.join(missing)} missing."
            raise ValueError(msg)
        tensors = {
            name: x.astype(np.float32) if (x := part.tensors[name]).dtype.kind == "f" else x
            for name in _ARRAYS
        }
        tensors["exemplars"] = unit(tensors["exemplars"])
        found = cls(**tensors, **{name: part.meta[name] for name in meta_fields})
        if "tree" in part.meta:  # heads of before had none
            found.tree = Tree.from_meta(part.meta["tree"])
            found.path_errors = part.tensors.get("path_errors", found.path_errors)
        return found

    def _votes(self, vectors: np.ndarray) -> np.ndarray:
        """(B, K) logarithm of the share of votes; the nearer, the heavier."""
        similarity = self.place(vectors) @ self.exemplars.T
        k = min(self.n_neighbors, len(self.exemplars))
        close, nearest = largest(similarity, k)
        distance = 1 - close
        weight = 1 / np.maximum(distance, 1e-3)
        rows = np.repeat(np.arange(len(vectors)), k)
        votes = np.zeros((len(vectors), len(self.classes)))
        np.add.at(votes, (rows, self.exemplar_labels[nearest].ravel()), weight.ravel())
        votes /= votes.sum(axis=1, keepdims=True)
        return np.log(votes + 0.1 / k)  # a class nobody votes for is unlikely, not impossible


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest(
    vectors: np.ndarray, exemplars: np.ndarray, values: np.ndarray, *, skip: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine distance of unit vectors to their nearest exemplars, and the mean of those exemplars' values.

    With `skip=1` the nearest of all is left out, which for an exemplar is itself.
    """
    k = min(N_NEAREST + skip, len(exemplars))
    skip = min(skip, k - 1)
    similarity = vectors @ exemplars.T
    close, index = largest(similarity, k)
    distance = 1 - close[:, skip:].mean(axis=1)
    return np.maximum(distance, 0), values[index[:, skip:]].mean(axis=1)


def largest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) largest values of each row, falling, and their columns; by torch, which is many times faster than numpy."""
    import torch

    found, index = torch.topk(torch.from_numpy(np.ascontiguousarray(values)), k, dim=1)
    return found.numpy(), index.numpy()


def spread_of(exemplars: np.ndarray) -> np.ndarray:
    """(N,) mean cosine distance of each exemplar to its nearest others."""
    zeros = np.zeros(len(exemplars), np.float32)
    found = [nearest(block, exemplars, zeros, skip=1)[0] for block in _blocks(exemplars)]
    return np.concatenate(found).astype(np.float32)


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Rows few enough that their similarities to all exemplars fit in memory."""
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield vectors[start : start + ROWS_AT_ONCE]
