"""Fit a head to a few labeled cells, with the help of the many that have no label.

Logistic regression on principal components of genes. Three things come from the cells without a label: which genes vary,
the components, and how the classes lie among them:

1. *Components* of all cells, each multiplied by its own spread once more: what many cells share counts for more than what
   five labeled cells happen to differ in. In terms of kernels, the eigenvalues are squared :cite:p:`Chapelle2002`.
2. *Expectation-maximization* :cite:p:`Dempster1977,Nigam2000`: the head says what the other cells may be, and is fitted again with them; all together
   they weigh as much as one labeled cell, and the classes have among them the shares they have among the labeled.

The head is linear in the genes. Shape letters: `n` cells, `F` genes, `d` components, `K` classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..metrics._calibration import softmax
from ..metrics._conformal import balance, score_quantiles
from ..metrics._logistic import logistic_regression
from ._annotator import ROWS_AT_ONCE, Annotator, Exemplars, Head
from ._fit import (
    MAX_EXEMPLARS,
    calibrate,
    fit_one,
    folds,
    keep_exemplars,
)
from ._nearest import nearest

BASELINES = ("logistic", "embedding")
"""Logistic regression on the log expression of all genes, and on the frozen embedding, both on labeled cells alone."""
BASELINE_PENALTY = 100.0
"""C of that on genes: the best of three for it on the labeled sets of drug response (ours)."""
MIN_CALIBRATION = 20
"""Held-out cells below which no temperature sharpens the head: a few right answers prove little (ours)."""
N_AXES = 50
"""Components in which distances between cells are measured."""


@dataclass(frozen=True, kw_only=True)
class FewLabelsConfig:
    """How the head is fitted; all defaults ours, chosen on draws of four labeled sets that no table shows.

    Parameters
    ----------
    n_genes
        Genes with the largest variance of log expression.
    n_components
        Principal components.
    penalty
        C of the logistic regression, on cells with a mean square of 1.
    unlabelled_weight
        What all cells without a label weigh together, in labeled cells.
    n_rounds
        Rounds of expectation-maximization.
    n_folds
        Folds of the cross-validation.
    max_cells
        Cells without a label that are looked at, and labeled cells, drawn evenly over classes.
    seed
        Of all that is drawn.
    """

    n_genes: int = 2000
    n_components: int = 100
    penalty: float = 1000.0
    unlabelled_weight: float = 1.0
    n_rounds: int = 10
    n_folds: int = 5
    max_cells: int = 5000
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class FewCells:
    """Expression of all cells, and which of them are labeled, unlabeled, or for the test."""

    logged: sp.csr_array
    """(n, F) log1p CP10k."""
    genes: list[str]
    """F names."""
    labelled: np.ndarray
    """(L,) rows with a label that may be used."""
    codes: np.ndarray
    """(L,) their classes."""
    classes: list[str]
    """K names."""
    unlabelled: np.ndarray
    """Rows without a label that may be used."""
    groups: np.ndarray | None = None
    """(n,) donors; whole ones are held out, with their cells that have no label. `None` holds out cells."""
    test: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Rows that nothing is fitted on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BaselineOptions:
    """What is fitted on the same labeled cells, to compare with."""

    methods: tuple[str, ...] = ()
    """Of `BASELINES`."""
    embedding: np.ndarray | None = None
    """(L + number of test rows, D) of labeled and test cells, for the baseline of this name."""


@dataclass(frozen=True)
class FewLabels:
    """What was fitted, and what it said of cells it was not fitted on."""

    annotator: Annotator
    held_out: np.ndarray
    """(m,) places in `labelled` whose class was known while they were held out."""
    logits: dict[str, np.ndarray]
    """Method -> (m, K) scores of those cells; "scellm" is the head."""
    test_logits: dict[str, np.ndarray]
    """The same for the test cells."""
    n_folds: int
    report: dict[str, Any]


def fit_few_labels(
    cells: FewCells,
    config: FewLabelsConfig,
    *,
    baselines: BaselineOptions | None = None,
    calibrated: bool = True,
) -> FewLabels:
    """Fit on all labeled cells, and on those of all folds but one to see what that is worth.

    Parameters
    ----------
    cells
        Expression, labels, and what each cell is for.
    config
        How.
    baselines
        What to fit beside it; `None` is nothing.
    calibrated
        Fit temperature, sets and novelty on held-out cells.

    Raises
    ------
    ValueError
        No cell can be held out such that two classes, its own among them, remain.
    """
    baselines = baselines or BaselineOptions()
    logged, labelled, codes, classes = cells.logged, cells.labelled, cells.codes, cells.classes
    unlabelled, groups, test, methods = cells.unlabelled, cells.groups, cells.test, baselines.methods
    of_groups = None if groups is None else groups[labelled]
    logits = {name: np.full((len(labelled), len(classes)), -np.inf) for name in ("scellm", *methods)}
    fold_of = np.full(len(labelled), -1)
    vectors = {"logistic": logged[np.concatenate([labelled, test])], "embedding": baselines.embedding}
    space = None if groups is not None else _Components(logged, labelled, unlabelled, config)
    for number, (train, held) in enumerate(folds(codes, of_groups, config.n_folds, config.seed)):
        if len(np.unique(codes[train])) < 2:
            continue
        mine = space
        if groups is not None:
            others = unlabelled[~np.isin(groups[unlabelled], np.unique(of_groups[held]))]
            mine = _Components(logged, labelled[train], others, config)
        known = held[np.isin(codes[held], codes[train])]
        fold_of[known] = number
        weight, bias = _fit_head(mine, logged, labelled[train], codes[train], len(classes), config)
        logits["scellm"][known] = mine.place(logged[labelled[known]]) @ weight.T + bias
        for name in methods:
            logits[name][known] = _baseline(name, vectors[name], codes, train, known, classes)
    kept = np.flatnonzero(fold_of >= 0)
    if not len(kept):
        msg = (
            "No cell can be held out: without its group there is one class left, or not its own. Leave val_by out, name "
            "a column whose groups share their classes, or label more cells."
        )
        raise ValueError(msg)
    space = space or _Components(logged, labelled, unlabelled, config)
    annotator = _annotator(space, cells, config)
    logits = {name: found[kept] for name, found in logits.items()}
    report = {}
    if calibrated:
        report = calibrate(
            annotator,
            logits["scellm"],
            codes[kept],
            np.zeros(len(kept)),
            balance(None if of_groups is None else of_groups[kept], len(kept)),
            parts=fold_of[kept],
            least_temperature=1.0 if len(kept) < MIN_CALIBRATION else 0.0,
        )
        strange = _own_outlier_scores(annotator)
        novelty = score_quantiles(strange, np.ones(len(strange))).astype(np.float32)
        annotator.calibration = replace(annotator.calibration, novelty=novelty)
        report["held_out"] = "cells" if groups is None else "groups"
    annotator.report = report
    every, places = np.arange(len(labelled)), np.arange(len(labelled), len(labelled) + len(test))
    test_logits = {"scellm": annotator.logits(logged[test][:, space.genes].toarray())}
    for name in methods:
        test_logits[name] = _baseline(name, vectors[name], codes, every, places, classes)
    return FewLabels(annotator, kept, logits, test_logits, len(np.unique(fold_of[kept])), report)


class _Components:
    """Principal components of the genes that vary, weighted by their spread; fitted on cells with and without label."""

    def __init__(
        self, logged: sp.csr_array, labelled: np.ndarray, unlabelled: np.ndarray, config: FewLabelsConfig
    ) -> None:
        from sklearn.decomposition import PCA

        generator = np.random.default_rng(config.seed)
        if len(unlabelled) > config.max_cells:
            unlabelled = np.sort(generator.choice(unlabelled, config.max_cells, replace=False))
        self.rows = np.union1d(labelled, unlabelled)
        cells = logged[self.rows]
        mean = np.asarray(cells.mean(axis=0)).ravel()
        variance = np.asarray(cells.multiply(cells).mean(axis=0)).ravel() - mean**2
        ranked = np.argsort(-variance, kind="stable")[: config.n_genes]
        self.genes = np.sort(ranked[variance[ranked] > 1e-12])
        if not len(self.genes):
            msg = "No gene varies between these cells; there is nothing to tell them apart by."
            raise ValueError(msg)
        dense = cells[:, self.genes].toarray()
        n = min(config.n_components, len(dense) - 1, len(self.genes))
        # the exact solver for few cells: a random one would need more rounds than it saves
        pca = PCA(n, svd_solver="full" if len(dense) <= 500 else "randomized", random_state=config.seed)
        placed = pca.fit_transform(dense)
        spread = placed.std(axis=0)
        self.centre = pca.mean_.astype(np.float32)
        self.plain = pca.components_.T.astype(np.float32)  # (F, d)
        weighted = placed * spread
        size = np.sqrt((weighted**2).sum(axis=1).mean())
        self.axes = (self.plain * (spread / max(size, 1e-12))).astype(np.float32)

    def place(self, logged: sp.csr_array) -> np.ndarray:
        """(m, d) weighted components of cells."""
        return (logged[:, self.genes].toarray() - self.centre) @ self.axes


def _fit_head(
    space: _Components,
    logged: sp.csr_array,
    labelled: np.ndarray,
    codes: np.ndarray,
    n_classes: int,
    config: FewLabelsConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """(K, d) weights and (K,) biases, -inf for classes without cells; the other rows of `space` have no label."""
    present, codes = np.unique(codes, return_inverse=True)
    counts, n = np.bincount(codes), len(present)
    share = (counts + 1) / (
        counts.sum() + n
    )  # one cell more of each class: of five cells a share is a rumour
    cells = space.place(logged[labelled])
    others = space.place(logged[np.setdiff1d(space.rows, labelled)])
    known = share[codes] / counts[codes] * counts.sum()
    weight, bias = logistic_regression(cells, codes, n, config.penalty)
    for _ in range(config.n_rounds if len(others) else 1):
        guess = softmax(others @ weight.T + bias)  # (m, K)
        guess *= share * config.unlabelled_weight / np.maximum(guess.sum(axis=0), 1e-12)
        weight, bias = logistic_regression(
            np.concatenate([cells, *[others] * n]),
            np.concatenate([codes, np.repeat(np.arange(n), len(others))]),
            n,
            config.penalty,
            weights=np.concatenate([known, guess.T.ravel()]),
        )
    wide = np.zeros((n_classes, weight.shape[1]), np.float32), np.full(n_classes, -np.inf, np.float32)
    wide[0][present], wide[1][present] = weight, bias
    return wide


def _annotator(space: _Components, cells: FewCells, config: FewLabelsConfig) -> Annotator:
    """The head on all labeled cells, written out in genes; distances are to all cells, with label or without."""
    logged, labelled, codes = cells.logged, cells.labelled, cells.codes
    weight, bias = _fit_head(space, logged, labelled, codes, len(cells.classes), config)
    annotator = Annotator(
        classes=list(cells.classes),
        head=Head(
            kind="linear",
            genes=[cells.genes[i] for i in space.genes],
            centre=space.centre,
            scale=np.ones_like(space.centre),
            weight=weight @ space.axes.T,
            bias=bias,
        ),
        exemplars=Exemplars.none(0, space.plain[:, :N_AXES]),
    )
    vectors = logged[space.rows][:, space.genes].toarray()
    of_row = annotator.logits(vectors).argmax(axis=1)
    of_row[np.searchsorted(space.rows, labelled)] = codes
    keep_exemplars(annotator, vectors, of_row, MAX_EXEMPLARS, config.seed)
    return annotator


def _own_outlier_scores(annotator: Annotator) -> np.ndarray:
    """(N,) outlier_score of each exemplar among the others."""
    cells, spread = annotator.exemplars.cells, annotator.exemplars.spread
    found = []
    for start in range(0, len(cells), ROWS_AT_ONCE):
        distance, usual = nearest(cells[start : start + ROWS_AT_ONCE], cells, spread, skip=1)
        found.append(distance / np.sqrt(np.maximum(usual, 1e-4)))
    return np.concatenate(found)


def _baseline(
    name: str,
    vectors: Any,
    codes: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    classes: list[str],
) -> np.ndarray:
    """(m, K) scores of the held rows by a baseline of this name, fitted on labeled cells alone."""
    if not len(held):
        return np.zeros((0, len(classes)))
    if name == "embedding":
        return fit_one("linear", vectors[train], codes[train], classes).logits(vectors[held])
    weight, bias = logistic_regression(vectors[train], codes[train], len(classes), BASELINE_PENALTY)
    return vectors[held] @ weight.T + bias
