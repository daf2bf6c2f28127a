"""What `tl.fine_tune(strategy="genes")` does: few labelled cells among many, cross-validated, beside simple baselines."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from .._obs import read_text
from .._version import __version__
from .._warn import warn
from ..annotation._annotator import Annotator
from ..annotation._few_labels import BASELINES, MIN_CALIBRATION, FewLabels, FewLabelsConfig, fit_few_labels
from ..annotation._fit import draw_evenly
from ..annotation._records import REPORTED_ERRORS
from ..annotation._split import split_cells
from ..data import Tokens
from ..metrics._baselines import CLOSE, f1_by_class, scores
from ..metrics._calibration import expected_calibration_error, softmax
from ..models import CellLM, encode
from ._read_labels import Labels, read_groups, warn_of_groups
from ._vectors import log_expression

if TYPE_CHECKING:
    import torch

NAMES = {"logistic": "logistic regression on all genes", "embedding": "logistic regression on the embedding"}
"""What the baselines are called in the summary; both see the labelled cells alone."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of `adata` by what they are for."""

    train: np.ndarray
    """Labelled cells that the head is fitted on, in the order of `codes`."""
    codes: np.ndarray
    test: np.ndarray
    test_codes: np.ndarray
    unlabelled: np.ndarray
    groups: np.ndarray | None
    """(n_obs,) held out whole in the cross-validation."""
    places: np.ndarray
    """Training and test cells among the labelled ones."""


def fit_on_genes(
    adata: AnnData,
    read: Labels,
    tokens: Tokens,
    rows: np.ndarray,
    model: CellLM,
    data: dict[str, Any],
    config: FewLabelsConfig,
    *,
    labels: str,
    task: str,
    val_by: str | None,
    test_by: str | None,
    test_size: float,
    calibrated: bool,
    baseline: bool | Sequence[str],
    device: torch.device,
) -> tuple[Annotator, dict[str, Any]]:
    """The head, and the report for `uns`; `tokens` are those of the labelled `rows`."""
    begun = time.perf_counter()
    methods = _methods(baseline)
    logged, has = log_expression(adata, model, data)
    genes = np.flatnonzero(has)
    logged = logged[:, genes]
    parts = _parts(adata, read, rows, np.diff(logged.indptr) > 0, config, val_by, test_by, test_size)
    embedding = None
    if "embedding" in methods:
        model.encoder.to(device)
        embedding = encode(model, tokens[parts.places], device=device)
        model.encoder.to("cpu")
    fitted = fit_few_labels(
        logged,
        parts.train,
        parts.codes,
        read.classes,
        [str(symbol) for symbol in model.vocabulary.symbols[genes]],
        config,
        unlabelled=parts.unlabelled,
        groups=parts.groups,
        test=parts.test,
        embedding=embedding,
        methods=methods,
        calibrated=calibrated,
    )
    if calibrated and len(fitted.held_out) < MIN_CALIBRATION:
        warn(
            f"{len(fitted.held_out)} labelled cells are few to calibrate on: the confidence of the head is rough, and was "
            f"not raised. Label {MIN_CALIBRATION} or more."
        )
    report = _report(adata, read, parts, fitted, config, methods, labels=labels, task=task)
    return fitted.annotator, report | {"seconds": time.perf_counter() - begun}


def _methods(baseline: bool | Sequence[str]) -> tuple[str, ...]:
    """Baselines to fit."""
    if isinstance(baseline, bool):
        return BASELINES if baseline else ()
    if unknown := [name for name in baseline if name not in BASELINES]:
        msg = f"Unknown baselines {unknown}; with strategy='genes' choose from {list(BASELINES)}."
        raise ValueError(msg)
    return tuple(baseline)


def _parts(
    adata: AnnData,
    read: Labels,
    rows: np.ndarray,
    is_full: np.ndarray,
    config: FewLabelsConfig,
    val_by: str | None,
    test_by: str | None,
    test_size: float,
) -> Rows:
    """Labelled cells to fit on, test cells, and cells without a label; of test groups none is looked at."""
    if val_by is None:
        warn_of_groups(adata)
    else:
        read_groups(adata, val_by, rows, option="val_by", name="adata")
    codes = read.codes[rows]
    by_test = (
        read_groups(adata, test_by, rows, option="test_by", name="adata") if test_size and test_by else None
    )
    split = split_cells(codes, val_size=0, test_size=test_size, test_groups=by_test, rng=config.seed)
    train = split.train[draw_evenly(codes[split.train], config.max_cells, config.seed)]
    counts = np.bincount(codes[train], minlength=len(read.classes))
    if counts.min() < 2:
        found = ", ".join(f"{name!r} ({n} cells)" for name, n in zip(read.classes, counts, strict=True))
        msg = (
            f"At least 2 labelled cells of each class are needed; there are {found} that express something and are not for "
            "the test. Label more cells, or pass test_size=0."
        )
        raise ValueError(msg)
    is_free = is_full & (read.codes < 0)
    if by_test is not None:
        is_free &= ~np.isin(read_text(adata, test_by), np.unique(by_test[split.test]))
    return Rows(
        rows[train],
        codes[train],
        rows[split.test],
        codes[split.test],
        np.flatnonzero(is_free),
        None if val_by is None else read_text(adata, val_by),
        np.concatenate([train, split.test]),
    )


def _report(
    adata: AnnData,
    read: Labels,
    parts: Rows,
    fitted: FewLabels,
    config: FewLabelsConfig,
    methods: tuple[str, ...],
    *,
    labels: str,
    task: str,
) -> dict[str, Any]:
    """What goes to `uns`: no class names as keys, so that any name survives a file."""
    judged = "test" if len(parts.test) else "held_out"
    truth = parts.test_codes if judged == "test" else parts.codes[fitted.held_out]
    logits = fitted.test_logits if judged == "test" else fitted.logits
    of_cell = np.full(adata.n_obs, "", dtype=object)
    for name, rows in (("unlabelled", parts.unlabelled), ("train", parts.train), ("test", parts.test)):
        of_cell[rows] = name
    found = measured(fitted.annotator, logits["scellm"], truth)
    if judged == "held_out" and fitted.annotator.is_calibrated:
        found |= _by_other_folds(fitted.report)
    report = {
        "scellm_version": __version__,
        "task": task,
        "labels": labels,
        "classes": np.array(read.classes, dtype=object),
        "settings": {"strategy": "genes", **dataclasses.asdict(config)},
        "n_train": len(parts.train),
        "n_val": 0,
        "n_test": len(parts.test),
        "n_unlabelled": len(parts.unlabelled),
        "n_held_out": len(fitted.held_out),
        "n_folds": fitted.n_folds,
        "excluded_classes": np.array(sorted(read.excluded_classes), dtype=object),
        "evaluated_on": judged,
        "split": of_cell,
        judged: found,
    }
    probabilities = {name: softmax(scores_of) for name, scores_of in logits.items()}
    report["summary"], report["baseline_is_better"] = _summary(probabilities, truth, parts, fitted, judged)
    if methods:
        names = list(probabilities)
        rows = [scores(probabilities[name], truth) for name in names]
        rows[0] = {score: found[score] for score in rows[0]}  # of the calibrated head
        report["baselines"] = {
            "methods": np.array(names, dtype=object),
            **{score: np.array([row[score] for row in rows]) for score in rows[0]},
            "f1_by_class": np.stack([f1_by_class(probabilities[name], truth) for name in names]),
        }
    return report


def _by_other_folds(report: dict[str, Any]) -> dict[str, Any]:
    """Calibration error and coverage of each fold by what the others say; by itself it would look too good."""
    errors = [str(error) for error in REPORTED_ERRORS]
    return {
        "ece": report["ece_after"],
        **{
            name: np.array([report[name][error] for error in errors])
            for name in ("coverage", "set_size", "coverage_by_class")
        },
    }


def _summary(
    probabilities: dict[str, np.ndarray], truth: np.ndarray, parts: Rows, fitted: FewLabels, judged: str
) -> tuple[str, bool]:
    """Whether it was worth it, in words, and whether a baseline is better by more than chance."""
    f1 = {name: float(np.nanmean(f1_by_class(found, truth))) for name, found in probabilities.items()}
    where = "test cells" if judged == "test" else f"labelled cells, held out in {fitted.n_folds} folds"
    text = (
        f"Macro-F1 {f1['scellm']:.3f} on {len(truth)} {where}: a head on genes, fitted to {len(parts.train)} labelled cells "
        f"with {len(parts.unlabelled)} more that have no label. No encoder is used."
    )
    rivals = [name for name in f1 if name != "scellm"]
    if not rivals:
        return f"{text} No baseline was trained beside it.", False
    text += f" On the same cells: {', '.join(f'{NAMES[name]} {f1[name]:.3f}' for name in rivals)}."
    best = max(rivals, key=f1.__getitem__)
    right, theirs = (probabilities[name].argmax(axis=1) == truth for name in ("scellm", best))
    lead, n_differ = int(right.sum()) - int(theirs.sum()), int((right != theirs).sum())
    if lead**2 <= 4 * n_differ:  # a sign test: two standard errors of as many tosses of a coin
        return f"{text} These cells are too few to tell which is better.", False
    if lead > 0:
        return f"{text} That is better than {NAMES[best]} by more than chance.", False
    if f1["scellm"] >= f1[best] - CLOSE:
        return f"{text} That is about as good.", False
    way = (
        "Use it: strategy='head'."
        if best == "embedding"
        else "If there are several kinds of cells here, keep the one that the labels are about, and try again."
    )
    return f"{text} A simple baseline is better here: {NAMES[best]}. {way}", True


def measured(annotator: Annotator, logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scores, calibration and coverage on cells the head was not fitted on."""
    probabilities = softmax(logits / annotator.temperature)
    n_cells = np.bincount(truth, minlength=logits.shape[1])
    found = {
        **scores(probabilities, truth),
        "ece_before": expected_calibration_error(softmax(logits), truth),
        "temperature": float(annotator.temperature),
        "f1_by_class": f1_by_class(probabilities, truth),
        "n_by_class": n_cells,
    }
    if annotator.is_calibrated:
        covered = []
        sizes = []
        for error in REPORTED_ERRORS:
            sets = annotator.sets(probabilities, error)
            covered.append(sets[np.arange(len(truth)), truth])
            sizes.append(float(sets.sum(axis=1).mean()))
        found |= {
            "target_errors": np.array(REPORTED_ERRORS),
            "coverage": np.array([inside.mean() for inside in covered]),
            "set_size": np.array(sizes),
            "coverage_by_class": np.array(
                [
                    [inside[truth == code].mean() if n else np.nan for code, n in enumerate(n_cells)]
                    for inside in covered
                ]
            ),
        }
    return found
