"""A fitted annotator: vectors of cells -> scores, calibrated probabilities, prediction sets, novelty.

Plain arrays and plain facts, so that it is stored as a `Part` and nothing is unpickled. Shape letters: `B` cells, `F`
features (the embedding, or genes of the baseline), `K` classes, `N` exemplars.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from ..metrics._calibration import softmax
from ..metrics._conformal import LEVELS, conformal_threshold, prediction_sets, score_quantiles
from ..models._parts import Part
from ._gene_head import GeneHead, GeneScores
from ._nearest import largest, nearest, nearest_by
from ._smoothing import Smoothing
from ._tree import Tree

Kind = Literal["linear", "prototype", "knn"]
KINDS = get_args(Kind)
ROWS_AT_ONCE = 2048
SHARPNESS = 30.0
"""Scores of prototypes are this times the cosine; the temperature, fitted later, has the last word."""
N_VOTES = 15
"""Exemplars that vote for `"knn"`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Head:
    """What scores a cell: K classes by F features.

    `kind` is `"linear"` (multinomial logistic regression), `"prototype"` (cosine to the mean of each class) or
    `"knn"` (a vote of the nearest exemplars).
    """

    kind: Kind
    centre: np.ndarray
    """(F,) subtracted from the vectors, after embeddings were put onto the unit sphere."""
    scale: np.ndarray
    """(F,) the vectors are divided by."""
    weight: np.ndarray
    """(K, F)"""
    bias: np.ndarray
    """(K,), not used by prototypes."""
    genes: list[str] = field(default_factory=list)
    """Genes whose log1p CP10k the vectors are; empty for the embedding of a model."""

    @property
    def n_features(self) -> int:
        """F, the length of the vectors it takes."""
        return len(self.centre)

    def standardize(self, vectors: np.ndarray) -> np.ndarray:
        """(B, F) vectors as the classifier sees them."""
        if self.genes:
            return np.clip((vectors - self.centre) / self.scale, -10, 10)
        return (unit(vectors) - self.centre) / self.scale


@dataclass(frozen=True, eq=False, kw_only=True)
class Exemplars:
    """Reference cells that distances are measured to."""

    cells: np.ndarray
    """(N, F or d) unit vectors."""
    labels: np.ndarray
    """(N,) their classes."""
    spread: np.ndarray
    """(N,) mean cosine distance of each to its nearest others."""
    projection: np.ndarray
    """(F, d) from standardized vectors to their space; empty where cells are vectors on the unit sphere themselves."""

    @classmethod
    def none(cls, n_features: int, projection: np.ndarray | None = None) -> Exemplars:
        """No cells yet."""
        return cls(
            cells=np.zeros((0, n_features), np.float32),
            labels=np.zeros(0, np.int32),
            spread=np.zeros(0, np.float32),
            projection=np.zeros((0, 0), np.float32) if projection is None else projection,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """What held-out cells say of the scores; each table has 1001 quantiles."""

    temperature: float = 1.0
    """Scores are divided by it."""
    n_cells: int = 0
    """Number of held-out cells; 0 if it is not calibrated."""
    nonconformity: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """Of 1 - p(true class)."""
    novelty: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """Of `outlier_score`."""
    path_errors: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """Of the score of the first wrong node on the way down the tree."""

    @classmethod
    def of(cls, temperature: float, weights: np.ndarray, **scores: np.ndarray) -> Calibration:
        """Quantiles of scores of held-out cells, (n,) each, with weights that sum to n."""
        tables = {name: score_quantiles(x, weights).astype(np.float32) for name, x in scores.items()}
        return cls(temperature=temperature, n_cells=len(weights), **tables)


@dataclass(eq=False, kw_only=True)
class Annotator:
    """Classes of cells from vectors, with calibration.

    Parameters
    ----------
    classes
        (K,) names, any text.
    head
        What scores them.
    exemplars
        Cells that distances are measured to.
    calibration
        What held-out cells say.
    tree
        Over the classes; `None` for flat ones.
    gene_head
        What genes say beside the embedding; `None` where the embedding is alone.
    smoothing
        What neighbors among the cells asked about say; `None` where it is not calibrated for them.
    report
        What was measured on held-out cells.
    facts
        What it was made from.
    """

    classes: list[str]
    head: Head
    exemplars: Exemplars
    calibration: Calibration = field(default_factory=Calibration)
    tree: Tree | None = None
    gene_head: GeneHead | None = None
    smoothing: Smoothing | None = None
    report: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        head, exemplars = self.head, self.exemplars
        if head.kind not in KINDS:
            msg = f"An annotator has a kind of {KINDS}; found {head.kind!r}."
            raise ValueError(msg)
        n_classes, n_features, n_exemplars = len(self.classes), head.n_features, len(exemplars.cells)
        for name, array, shape in (
            ("scale", head.scale, (n_features,)),
            ("weight", head.weight, (n_classes, n_features)),
            ("bias", head.bias, (n_classes,)),
            ("exemplar_labels", exemplars.labels, (n_exemplars,)),
            ("exemplar_spread", exemplars.spread, (n_exemplars,)),
        ):
            if array.shape != shape:
                msg = (
                    f"The annotator does not fit together: {name} has shape {array.shape}, "
                    f"{n_classes} classes and {n_features} features need {shape}."
                )
                raise ValueError(msg)
        if self.gene_head is not None and len(self.gene_head.bias) != n_classes:
            msg = f"The annotator does not fit together: its genes score {len(self.gene_head.bias)} classes of {n_classes}."
            raise ValueError(msg)
        if n_exemplars and not 0 <= exemplars.labels.min() <= exemplars.labels.max() < n_classes:
            msg = f"The annotator does not fit together: exemplars of classes beyond its {n_classes}."
            raise ValueError(msg)

    @property
    def is_calibrated(self) -> bool:
        """Whether its probabilities were compared with held-out cells."""
        return self.calibration.n_cells > 0

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """(B, F or d) unit vectors to be compared with the exemplars."""
        projection = self.exemplars.projection
        return unit(self.head.standardize(vectors) @ projection) if projection.size else unit(vectors)

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """(B, K) scores before calibration."""
        head = self.head
        if head.kind == "knn":
            return np.concatenate([self._votes(block) for block in _blocks(vectors)])
        standard = head.standardize(vectors)
        if head.kind == "linear":
            return standard @ head.weight.T + head.bias
        return SHARPNESS * unit(standard) @ head.weight.T

    def probabilities(self, vectors: np.ndarray, genes: GeneScores | None = None) -> np.ndarray:
        """(B, K) calibrated probabilities, float32, with what the genes of the cells say if that is known."""
        logits = self.logits(vectors)
        if genes is not None:
            logits = genes.add_to(logits)
        return softmax(logits / self.calibration.temperature).astype(np.float32)

    def outlier_score(self, vectors: np.ndarray) -> np.ndarray:
        """(B,) cosine distance to the nearest exemplars over the square root of their own spread (ours).

        Halfway between a plain distance, which calls all cells of a loose type strange, and a local outlier factor,
        which calls strange whatever lies beside a tight one.
        """
        found = []
        for block in _blocks(vectors):
            found.append(self.outlier_score_by(self.place(block) @ self.exemplars.cells.T, 1.0))
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def outlier_score_by(self, products: np.ndarray, lengths: np.ndarray | float) -> np.ndarray:
        """(B,) as `outlier_score`, from (B, N) products of vectors of (B,) lengths with the exemplars."""
        distance, spread = nearest_by(products, self.exemplars.spread, lengths)
        return distance / np.sqrt(np.maximum(spread, 1e-4))

    @property
    def usual_distance(self) -> float:
        """Median outlier score of held-out cells."""
        novelty = self.calibration.novelty
        return max(float(novelty[len(novelty) // 2]), 1e-6)

    def shift(self, strange: np.ndarray) -> float:
        """How many times stranger the median of (B,) cells is than that of held-out ones; at least 1."""
        return max(1.0, float(np.median(strange)) / self.usual_distance)

    def novelty_scores(self, strange: np.ndarray, false_alarm: float, *, shift: float = 1.0) -> np.ndarray:
        """(B,) outlier_score as a multiple of what `false_alarm` of the held-out cells exceed, after a common shift."""
        at = int(np.floor((1 - false_alarm) * (len(LEVELS) - 1) + 1e-9))
        return (strange / (shift * max(float(self.calibration.novelty[at]), 1e-6))).astype(np.float32)

    def threshold(self, target_error: float) -> float:
        """Nonconformity up to which a class belongs to the set."""
        return conformal_threshold(self.calibration.nonconformity, self.calibration.n_cells, target_error)

    def sets(self, probabilities: np.ndarray, target_error: float) -> np.ndarray:
        """(B, K) bool, classes that cannot be excluded at this error."""
        return prediction_sets(probabilities, self.threshold(target_error))

    def least_score(self, target_error: float, *, is_smooth: bool = False) -> float:
        """What the score of a node of the tree must reach for it to be named at this error; `is_smooth` if neighbors had a say."""
        errors = self.calibration.path_errors
        if is_smooth and self.smoothing is not None:
            errors = self.smoothing.path_errors
        return conformal_threshold(errors, self.calibration.n_cells, target_error) + 2e-6

    def to_part(self) -> Part:
        """Arrays and facts, for a model folder."""
        tensors = {
            name: np.asarray(getattr(getattr(self, of), where)) for name, (of, where) in _STORED.items()
        }
        meta = {
            "classes": list(self.classes),
            "kind": self.head.kind,
            "genes": list(self.head.genes),
            "temperature": float(self.calibration.temperature),
            "n_calibration": int(self.calibration.n_cells),
            "report": self.report,
            "facts": self.facts,
        }
        if self.tree is not None:
            meta["tree"] = self.tree.to_meta()
        stored = {name: _float32(x) for name, x in tensors.items()}
        if self.gene_head is not None:
            more, meta["gene_head"] = self.gene_head.to_part()
            stored |= more
        if self.smoothing is not None:
            meta["neighbors"] = self.smoothing.to_meta()
            stored["neighbor_path_errors"] = _float32(self.smoothing.path_errors)
        return Part(tensors=stored, meta=meta)

    @classmethod
    def from_part(cls, part: Part) -> Annotator:
        """The annotator of a part.

        Raises
        ------
        ValueError
            Something is missing or does not fit together.
        """
        needed = ("classes", "kind", "genes", "temperature", "n_calibration", "report", "facts")
        missing = [name for name in _STORED if name not in part.tensors and name != "path_errors"]
        missing += [name for name in needed if name not in part.meta]
        if missing:
            msg = f"This part is no annotator: {', '.join(missing)} missing."
            raise ValueError(msg)
        meta = part.meta
        arrays: dict[str, dict[str, Any]] = {"head": {}, "exemplars": {}, "calibration": {}}
        for name, (of, where) in _STORED.items():
            if name in part.tensors:
                arrays[of][where] = _float32(part.tensors[name])
        arrays["exemplars"]["cells"] = unit(arrays["exemplars"]["cells"])
        return cls(
            classes=meta["classes"],
            head=Head(kind=meta["kind"], genes=meta["genes"], **arrays["head"]),
            exemplars=Exemplars(**arrays["exemplars"]),
            calibration=Calibration(
                temperature=meta["temperature"], n_cells=meta["n_calibration"], **arrays["calibration"]
            ),
            tree=Tree.from_meta(meta["tree"]) if "tree" in meta else None,
            gene_head=GeneHead.from_part(part.tensors, meta["gene_head"]) if "gene_head" in meta else None,
            smoothing=Smoothing(
                **meta["neighbors"], path_errors=_float32(part.tensors["neighbor_path_errors"])
            )
            if "neighbors" in meta
            else None,
            report=meta["report"],
            facts=meta["facts"],
        )

    def _votes(self, vectors: np.ndarray) -> np.ndarray:
        """(B, K) logarithm of the share of votes; the nearer, the heavier."""
        similarity = self.place(vectors) @ self.exemplars.cells.T
        k = min(N_VOTES, len(self.exemplars.cells))
        close, nearest = largest(similarity, k)
        distance = 1 - close
        weight = 1 / np.maximum(distance, 1e-3)
        rows = np.repeat(np.arange(len(vectors)), k)
        votes = np.zeros((len(vectors), len(self.classes)))
        np.add.at(votes, (rows, self.exemplars.labels[nearest].ravel()), weight.ravel())
        votes /= votes.sum(axis=1, keepdims=True)
        return np.log(votes + 0.1 / k)  # a class nobody votes for is unlikely, not impossible


_STORED = {
    **{name: ("head", name) for name in ("centre", "scale", "weight", "bias")},
    "projection": ("exemplars", "projection"),
    "exemplars": ("exemplars", "cells"),
    "exemplar_labels": ("exemplars", "labels"),
    "exemplar_spread": ("exemplars", "spread"),
    **{name: ("calibration", name) for name in ("nonconformity", "novelty", "path_errors")},
}
"""Arrays of a part, and where they are in an annotator."""


def _float32(array: np.ndarray) -> np.ndarray:
    """Floats in single precision; other types as they are."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def spread_of(exemplars: np.ndarray) -> np.ndarray:
    """(N,) mean cosine distance of each exemplar to its nearest others."""
    zeros = np.zeros(len(exemplars), np.float32)
    found = [nearest(block, exemplars, zeros, skip=1)[0] for block in _blocks(exemplars)]
    return np.concatenate(found).astype(np.float32)


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Rows few enough that their similarities to all exemplars fit in memory."""
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield vectors[start : start + ROWS_AT_ONCE]
