"""Fit an annotator to labeled vectors and calibrate it on held-out ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from ..metrics._calibration import expected_calibration_error, fit_temperature, softmax
from ..metrics._conformal import (
    balance,
    conformal_threshold,
    nonconformity,
    prediction_sets,
    score_quantiles,
)
from ..metrics._logistic import logistic_regression
from ._annotator import Annotator, Calibration, Exemplars, Head, Kind, spread_of, unit
from ._records import REPORTED_ERRORS
from ._tree import Tree

Method = Literal["auto", "linear", "prototype", "knn"]
METHODS = ("linear", "prototype", "knn")
"""What `"auto"` chooses among; the first wins ties."""
MARGIN = 0.02
"""Macro-F1 by which another method must be better than the first to be chosen (ours): less is within what held-out cells
can tell, and probabilities of the first are calibrated best."""
MAX_CELLS = 10_000
"""Cells a classifier is fitted on, drawn evenly over classes: more change little and take long (ours)."""
N_FOLDS = 5
"""Folds of the cross-validation, fewer where there are fewer groups."""
PROGRESS_FROM = 3_000
"""Cells from which fitting is shown."""
MAX_EXEMPLARS = 5_000
"""Cells kept to measure distances to."""


def fit_annotator(
    vectors: np.ndarray,
    codes: np.ndarray,
    classes: list[str],
    *,
    method: Method = "auto",
    groups: np.ndarray | None = None,
    genes: list[str] | None = None,
    tree: Tree | None = None,
    rng: int = 0,
) -> Annotator:
    """Fit, choose and calibrate by cross-validation, then fit on all cells.

    Parameters
    ----------
    vectors
        (n, F) finite vectors.
    codes
        (n,) class of each, all K of them present.
    classes
        K names.
    method
        Classifier; `"auto"` takes the one with the best macro-F1 on held-out cells, but `"linear"` unless another is
        better by more than `MARGIN`.
    groups
        (n,) donors or studies; whole groups are held out, and each weighs the same in the calibration. `None` holds out
        cells.
    genes, tree
        As in `Annotator`; with `genes` the vectors are their expression.
    rng
        Seed of the folds and of what is drawn.

    Returns
    -------
    The annotator, its `report` with what was measured on held-out cells.

    Raises
    ------
    ValueError
        Fewer than two groups, or every class is in one group alone.
    """
    drawn = draw_evenly(codes, MAX_CELLS, rng)
    n_given, group_names = len(codes), groups
    vectors, codes = vectors[drawn], codes[drawn]
    groups = None if groups is None else np.asarray(groups)[drawn]
    candidates = METHODS if method == "auto" else (method,)
    held_out = {name: np.full((len(codes), len(classes)), -np.inf) for name in candidates}
    strange, fold_of = np.zeros(len(codes)), np.full(len(codes), -1)
    is_known = np.zeros(len(codes), dtype=bool)
    splits = tqdm(
        list(folds(codes, groups, N_FOLDS, rng)),
        desc="fit",
        unit="fold",
        disable=len(codes) < PROGRESS_FROM or None,
    )
    for number, (train, test) in enumerate(splits):
        known = np.isin(codes[test], codes[train])
        is_known[test], fold_of[test] = known, number
        fitted = None
        for name in candidates:
            fitted = fit_one(name, vectors[train], codes[train], classes, genes=genes, like=fitted)
            held_out[name][test] = fitted.logits(vectors[test])
        if fitted is not None:
            strange[test] = fitted.outlier_score(vectors[test])
    if not is_known.any():
        msg = "Every class is in one group alone, so none can be held out: leave val_by out, or name a finer column."
        raise ValueError(msg)
    scores = {
        name: macro_f1(codes[is_known], logits[is_known].argmax(axis=1), len(classes))
        for name, logits in held_out.items()
    }
    best = max(candidates, key=lambda name: scores[name] - (MARGIN if name != candidates[0] else 0))
    kept = np.flatnonzero(is_known)
    weights = balance(None if groups is None else groups[kept], len(kept))
    annotator = fit_one(best, vectors, codes, classes, rng=rng, genes=genes)
    annotator.tree = tree
    report = calibrate(
        annotator, held_out[best][kept], codes[kept], strange[kept], weights, parts=fold_of[kept]
    )
    tested = np.unique(codes[kept])
    annotator.report = {
        **report,
        "method": best,
        "macro_f1_by_method": scores,
        "held_out": "cells" if groups is None else "groups",
        "n_groups": 0 if group_names is None else len(np.unique(np.asarray(group_names))),
        "n_cells": n_given,
        "n_fitted": len(codes),
        "never_held_out": [name for code, name in enumerate(classes) if code not in tested],
    }
    return annotator


def calibrate(
    annotator: Annotator,
    logits: np.ndarray,
    codes: np.ndarray,
    strange: np.ndarray,
    weights: np.ndarray,
    *,
    parts: np.ndarray | None = None,
    least_temperature: float = 0.0,
) -> dict[str, Any]:
    """Set temperature, quantiles of nonconformity and of novelty from held-out cells.

    Parameters
    ----------
    annotator
        Changed in place.
    logits
        (n, K) scores of cells it was not fitted on.
    codes
        (n,) their classes.
    strange
        (n,) their outlier_score.
    weights
        (n,) weights that sum to n.
    parts
        (n,) folds; each is judged by what was fitted on the others. `None` judges nothing.
    least_temperature
        The temperature is not lower: 1 never makes the annotator more confident than it was.

    Returns
    -------
    What was measured on held-out cells.
    """
    tree, temperature = annotator.tree, max(least_temperature, fit_temperature(logits, codes, weights))
    probabilities = softmax(logits / temperature)
    wrong = (
        {} if tree is None else {"path_errors": tree.first_wrong(probabilities, tree.node_of_class[codes])}
    )
    annotator.calibration = Calibration.of(
        temperature, weights, nonconformity=nonconformity(probabilities, codes), novelty=strange, **wrong
    )
    report: dict[str, Any] = {
        "accuracy": float((logits.argmax(axis=1) == codes).mean()),
        "macro_f1": macro_f1(codes, logits.argmax(axis=1), logits.shape[1]),
        "temperature": temperature,
        "ece_before": expected_calibration_error(softmax(logits), codes),
        "n_held_out": len(codes),
    }
    return report if parts is None else report | _judge(logits, codes, weights, parts, annotator.classes)


def _judge(
    logits: np.ndarray, codes: np.ndarray, weights: np.ndarray, parts: np.ndarray, classes: list[str]
) -> dict[str, Any]:
    """Calibration error and coverage of each fold by what the other folds say."""
    probabilities = np.zeros_like(logits)
    covered = {error: np.zeros(len(codes), dtype=bool) for error in REPORTED_ERRORS}
    sizes = {error: np.zeros(len(codes)) for error in REPORTED_ERRORS}
    for part in np.unique(parts):
        here, others = parts == part, parts != part
        if not others.any():  # only one fold could be held out
            others = here
        temperature = fit_temperature(logits[others], codes[others], weights[others])
        probabilities[here] = softmax(logits[here] / temperature)
        seen = nonconformity(softmax(logits[others] / temperature), codes[others])
        quantiles = score_quantiles(seen, weights[others])
        for error in REPORTED_ERRORS:
            sets = prediction_sets(
                probabilities[here], conformal_threshold(quantiles, int(others.sum()), error)
            )
            covered[error][here] = sets[np.arange(len(sets)), codes[here]]
            sizes[error][here] = sets.sum(axis=1)
    return {
        "ece_after": expected_calibration_error(probabilities, codes),
        "coverage": {str(error): float(inside.mean()) for error, inside in covered.items()},
        "set_size": {str(error): float(size.mean()) for error, size in sizes.items()},
        "coverage_by_class": {
            str(error): [
                float(inside[codes == code].mean()) if (codes == code).any() else -1.0
                for code in range(len(classes))
            ]
            for error, inside in covered.items()
        },
    }


def fit_one(
    kind: Kind,
    vectors: np.ndarray,
    codes: np.ndarray,
    classes: list[str],
    *,
    genes: list[str] | None = None,
    max_exemplars: int = MAX_EXEMPLARS,
    rng: int = 0,
    like: Annotator | None = None,
) -> Annotator:
    """One classifier, not calibrated. Classes without cells have the score -inf (linear, prototype).

    `like` is one of another kind that was fitted to the same cells: its exemplars are taken.
    """
    n_classes, n_features = len(classes), vectors.shape[1]
    plain = vectors if genes else unit(vectors)
    head = Head(
        kind=kind,
        centre=plain.mean(axis=0),
        scale=np.maximum(plain.std(axis=0), 1e-3 if genes else 1e-6),
        weight=np.zeros((n_classes, n_features), np.float32),
        bias=np.zeros(n_classes, np.float32),
        genes=list(genes or []),
    )
    standard = head.standardize(vectors)
    if kind == "linear":
        weight, bias = logistic_regression(standard, codes, n_classes)
        head = replace(head, weight=weight, bias=bias)
    elif kind == "prototype":
        head = replace(head, weight=_prototypes(standard, codes, n_classes))
    if like is not None:
        return Annotator(classes=list(classes), head=head, exemplars=like.exemplars)
    projection = _principal_axes(standard, rng) if genes else None
    annotator = Annotator(classes=list(classes), head=head, exemplars=Exemplars.none(n_features, projection))
    keep_exemplars(annotator, vectors, codes, max_exemplars, rng)
    return annotator


def keep_exemplars(annotator: Annotator, vectors: np.ndarray, codes: np.ndarray, n: int, rng: int) -> None:
    """Give an annotator the cells that distances are measured to, drawn evenly over classes."""
    drawn = draw_evenly(codes, n, rng)
    cells = annotator.place(vectors[drawn])
    annotator.exemplars = replace(
        annotator.exemplars, cells=cells, labels=codes[drawn].astype(np.int32), spread=spread_of(cells)
    )


def _prototypes(vectors: np.ndarray, codes: np.ndarray, n_classes: int) -> np.ndarray:
    """(K, F) unit mean of the unit vectors of each class; zeros without cells."""
    sphere = unit(vectors)
    means = [
        sphere[codes == code].mean(axis=0) if (codes == code).any() else np.zeros(vectors.shape[1])
        for code in range(n_classes)
    ]
    return unit(np.stack(means))


def _principal_axes(vectors: np.ndarray, rng: int, n: int = 50) -> np.ndarray:
    """(F, d) first principal axes."""
    from sklearn.decomposition import PCA

    n = min(n, *vectors.shape)
    return PCA(n, random_state=rng).fit(vectors).components_.T.astype(np.float32)


def folds(
    codes: np.ndarray, groups: np.ndarray | None, n_folds: int, rng: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows of each fold, classes spread evenly, groups kept whole."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = np.arange(len(codes))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        if groups is None:
            n_folds = max(2, min(n_folds, int(np.bincount(codes).max())))
            yield from StratifiedKFold(n_folds, shuffle=True, random_state=rng).split(rows, codes)
            return
        n_groups = len(np.unique(groups))
        if n_groups < 2:
            msg = "There is one group; two or more are needed to hold one out."
            raise ValueError(msg)
        splitter = StratifiedGroupKFold(min(n_folds, n_groups), shuffle=True, random_state=rng)
        for train, test in splitter.split(rows, codes, groups):
            if len(test) and len(train):
                yield train, test


def draw_evenly(codes: np.ndarray, n: int, rng: int) -> np.ndarray:
    """Rows, ascending, at most `n`: as many of every class as it has, up to one number for all."""
    if len(codes) <= n:
        return np.arange(len(codes))
    counts = np.bincount(codes)
    limit, most = 1, int(counts.max())
    while limit < most:  # the largest limit that keeps no more than n
        middle = (limit + most + 1) // 2
        limit, most = (middle, most) if np.minimum(counts, middle).sum() <= n else (limit, middle - 1)
    generator = np.random.default_rng(rng)
    order = generator.permutation(len(codes))
    ranks = np.empty(len(codes), dtype=int)
    for code in np.unique(codes):
        rows = order[codes[order] == code]
        ranks[rows] = np.arange(len(rows))
    return np.flatnonzero(ranks < limit)


def macro_f1(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean F1 over the classes that are in the truth."""
    from sklearn.metrics import f1_score

    present = np.unique(truth)
    return float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0))
