"""A linear head over a tree of types: labels of any depth to fit, held-out cells to calibrate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..metrics._calibration import TEMPERATURES, softmax
from ..metrics._conformal import conformal_threshold, score_quantiles
from ._annotator import Annotator, Calibration
from ._fit import fit_one, keep_exemplars
from ._records import REPORTED_ERRORS
from ._softmax import fit_softmax
from ._tree import Tree

PENALTY = 0.02
"""C of the logistic regression on the tree, less than on flat types (ours: chosen on studies of the corpus left out)."""
FEWEST = 20
"""Labels of fewer cells weigh as if they had so many, each cell of them more than that is noise (ours)."""


def allowed_classes(tree: Tree, nodes: np.ndarray) -> np.ndarray:
    """(n, K) classes that a cell known as (n,) nodes may be: its own class where the node is one, else all below."""
    allowed = tree.holds[:, nodes].T.copy()
    class_of_node = np.full(len(tree.names), -1)
    class_of_node[tree.node_of_class] = np.arange(len(tree.node_of_class))
    own = class_of_node[nodes]
    rows = np.flatnonzero(own >= 0)
    allowed[rows] = False
    allowed[rows, own[rows]] = True
    return allowed


def balanced(nodes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) weights with mean 1: each label the same, but for rare ones, and within a label each study the same."""
    _, codes, sizes = np.unique(nodes, return_inverse=True, return_counts=True)
    _, study = np.unique(groups, return_inverse=True)
    pairs, pair, pair_sizes = np.unique(
        codes * (study.max() + 1) + study, return_inverse=True, return_counts=True
    )
    n_studies = np.bincount(pairs // (study.max() + 1))
    weights = sizes[codes] / np.maximum(sizes, FEWEST)[codes] / (n_studies[codes] * pair_sizes[pair])
    return weights / weights.mean()


def fit_on_tree(
    vectors: np.ndarray,
    nodes: np.ndarray,
    tree: Tree,
    *,
    groups: np.ndarray,
    max_exemplars: int,
    rng: int = 0,
) -> Annotator:
    """A linear annotator, not calibrated; exemplars are cells that are known down to a class.

    Parameters
    ----------
    vectors
        (n, F) embeddings.
    nodes
        (n,) node each cell is known as, at any depth.
    tree
        Its classes are what probabilities are for.
    groups
        (n,) studies, which weigh the same within a label.
    max_exemplars, rng
        As in `fit_one`.
    """
    allowed = allowed_classes(tree, nodes)
    classes = [tree.names[node] for node in tree.node_of_class]
    known = allowed.sum(axis=1) == 1
    codes = allowed.argmax(axis=1)
    annotator = fit_one("prototype", vectors, codes, classes, max_exemplars=1)
    standard = annotator.head.standardize(vectors)
    weight, bias = fit_softmax(standard, allowed, balanced(nodes, groups), PENALTY)
    annotator.head, annotator.tree = replace(annotator.head, kind="linear", weight=weight, bias=bias), tree
    keep_exemplars(annotator, vectors[known], codes[known], max_exemplars, rng)
    return annotator


def fit_temperature(logits: np.ndarray, allowed: np.ndarray, weights: np.ndarray) -> float:
    """The T for which the allowed classes are likeliest."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        inside = (softmax(logits / np.exp(log_temperature)) * allowed).sum(axis=1)
        return -float(np.average(np.log(np.maximum(inside, 1e-12)), weights=weights))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))


def calibrate_on_tree(
    annotator: Annotator,
    logits: np.ndarray,
    nodes: np.ndarray,
    strange: np.ndarray,
    weights: np.ndarray,
    parts: np.ndarray,
) -> dict[str, Any]:
    """Set temperature and quantiles from held-out cells; what is reported of a part comes from the others.

    Parameters
    ----------
    annotator
        Changed in place.
    logits
        (n, K) of cells it was not fitted on.
    nodes
        (n,) true nodes.
    strange
        (n,) outlier scores.
    weights
        (n,) that sum to n.
    parts
        (n,) studies or folds.
    """
    tree = annotator.tree
    if tree is None:
        raise AssertionError
    allowed = allowed_classes(tree, nodes)
    temperature = fit_temperature(logits, allowed, weights)
    held_out = softmax(logits / temperature)
    annotator.calibration = Calibration.of(
        temperature,
        weights,
        nonconformity=1 - (held_out * allowed).sum(axis=1),
        path_errors=tree.first_wrong(held_out, nodes),
        novelty=strange,
    )
    probabilities = np.zeros_like(logits)
    named = {error: np.full(len(nodes), -1) for error in REPORTED_ERRORS}
    for part in np.unique(parts):
        here, others = parts == part, parts != part
        others = others if others.any() else here
        temperature = fit_temperature(logits[others], allowed[others], weights[others])
        probabilities[here] = softmax(logits[here] / temperature)
        quantiles = score_quantiles(
            tree.first_wrong(softmax(logits[others] / temperature), nodes[others]), weights[others]
        )
        for error in REPORTED_ERRORS:
            least = conformal_threshold(quantiles, int(others.sum()), error) + 2e-6
            named[error][here] = tree.deepest(probabilities[here], least_score=least)
    report: dict[str, Any] = {
        "temperature": annotator.calibration.temperature,
        "n_held_out": len(nodes),
        **{name: float(x) for name, x in tree_scores(tree, probabilities, nodes, weights).items()},
    }
    for error, found in named.items():
        has = found >= 0
        right = has & tree.agrees(found, nodes)
        report[f"named_{error}"] = float(np.average(has, weights=weights))
        report[f"right_{error}"] = float(np.average(right[has], weights=weights[has])) if has.any() else 1.0
    return report


def confidence_at(tree: Tree, probabilities: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) confidence at the level of the true nodes, and whether the way down the tree passes them."""
    chain, values = tree.chains(probabilities)
    depth = tree.above.sum(axis=1)[nodes] - 1
    level = np.minimum(depth, (chain >= 0).sum(axis=1) - 1)
    return values[np.arange(len(values)), level], (chain == nodes[:, None]).any(axis=1)


def calibration_error(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Mean gap between confidence and share that is right, over 15 bins."""
    bins = np.clip((confidence * 15).astype(int), 0, 14)
    gaps = np.bincount(bins, weights=(right - confidence) * weights, minlength=15)
    return float(np.abs(gaps).sum() / weights.sum())


def tree_scores(
    tree: Tree, probabilities: np.ndarray, nodes: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
    """Accuracy at the depth of the label, at the lineage, and the calibration error of the label's level."""
    chain, lineage = tree.chains(probabilities)[0], tree.lineage
    confidence, right = confidence_at(tree, probabilities, nodes)
    has = lineage[nodes] >= 0
    coarse = (chain[has] == lineage[nodes[has], None]).any(axis=1)
    return {
        "accuracy": float(np.average(right, weights=weights)),
        "coarse_accuracy": float(np.average(coarse, weights=weights[has])) if has.any() else float("nan"),
        "ece_after": calibration_error(confidence, right, weights),
    }
