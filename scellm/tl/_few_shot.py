"""few_shot: a few labeled cells among many -> a model with a head on genes, beside simple baselines."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from anndata import AnnData

from .._checks import check_choice, check_free, check_key
from .._containers import takes_cells
from .._keys import FINE_TUNE
from .._obs import read_text
from .._records import FitRecord
from .._warn import warn
from ..annotation._few_labels import (
    BASELINES,
    MIN_CALIBRATION,
    BaselineOptions,
    FewCells,
    FewLabels,
    FewLabelsConfig,
    fit_few_labels,
)
from ..annotation._fit import draw_evenly
from ..annotation._measure import measured
from ..annotation._records import REPORTED_ERRORS
from ..annotation._split import split_cells
from ..metrics._baselines import CLOSE
from ..metrics._calibration import softmax
from ..metrics._scores import f1_by_class, scores
from ..models import CellLM, choose_device, encode, load
from ._fine_tuned import cell_marks, labelled_tokens, warn_of_copies, warn_of_twins, with_head
from ._read_labels import Labels, read_groups, read_labels, warn_of_groups
from ._vectors import log_expression

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
NAMES = {"logistic": "logistic regression on all genes", "embedding": "logistic regression on the embedding"}
"""What the baselines are called in the summary; both see the labeled cells alone."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """How cells are held out."""

    val_by: str | None
    test_by: str | None
    test_size: float


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of `adata` by what they are for."""

    train: np.ndarray
    """Labeled cells that the head is fitted on, in the order of `codes`."""
    codes: np.ndarray
    test: np.ndarray
    test_codes: np.ndarray
    unlabelled: np.ndarray
    groups: np.ndarray | None
    """(n_obs,) held out whole in the cross-validation."""
    places: np.ndarray
    """Training and test cells among the labeled ones."""


@takes_cells
def few_shot(
    adata: AnnData,
    labels: str,
    *,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    val_by: str | None = None,
    test_by: str | None = None,
    test_size: float | None = None,
    calibrate: bool = True,
    baseline: bool | Sequence[Literal["logistic", "embedding"]] = True,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    rng: int = 0,
    key_added: str = FINE_TUNE,
) -> CellLM:
    """Learn classes from a few labeled cells among many without a label, such as responders to a drug.

    Needs two labeled cells of each class, and the more cells without a label the better. It is logistic regression on
    principal components of all cells, each weighted by its spread once more :cite:p:`Chapelle2002`, and fitted again with
    what it says of the cells without a label :cite:p:`Nigam2000` (the combination is ours). No encoder is used: on
    four sets around drug response, none of which measures sensitivity itself, an embedding beside the genes made it
    worse. There is no validation part. Each labeled cell, or with `val_by` each donor with all its cells, is held out
    once; this calibrates the confidence, and logistic regression on genes and on the embedding stand beside it. It takes
    the labeled cells for a fair sample of the classes, and all cells for one kind of cell: keep those that the labels
    are about.

    The result is a model of its own, with the head in its `parts`: `tl.annotate(other, result)` uses it, `models.save` and
    `models.load` keep it.

    Parameters
    ----------
    adata
        Cells, a few of them with a label.
    labels
        Column of `adata.obs` with the classes, missing where they are not known.
    model
        Whose genes are used, and whose embedding the baseline `"embedding"`: a name, a folder or a loaded model.
    val_by
        Column of `adata.obs` with donors or batches; whole groups are held out in turn. `None` holds out cells.
    test_by
        The same for the test cells; `None` takes `val_by`.
    test_size
        Share of the labeled cells that nothing is fitted on; `None` is 0.2 if `test_by` is given, else 0.
    calibrate
        Fit temperature, prediction sets and novelty on the held-out cells.
    baseline
        Baselines beside it: `"logistic"` (all genes) and `"embedding"`; `True` is both.
    layer, use_raw, gene_key, min_overlap, device
        As in `tl.embed`.
    rng
        Seed of folds and of all that is drawn.
    key_added
        Key of the report.

    Returns
    -------
    The model with the head. Sets:

    `adata.uns[key_added]` : dict
        `classes`, `settings`, `n_train`, `n_test`, `n_unlabeled`, `n_held_out`, `n_folds`, `excluded_classes`; under
        `test` or, without test cells, `held_out` scores as `tl.fine_tune` writes; `baselines`, `baseline_is_better`,
        `summary` in words; `split`, (n_obs,) text "train", "test", "unlabeled" or "".

    Raises
    ------
    KeyError
        A column or layer is not there.
    TypeError
        `adata` is not an AnnData; labels are measurements.
    ValueError
        Fewer than two classes, or fewer than two cells of one; names that differ only by case; too few groups; `test_by`
        with `test_size=0`; unknown baselines; data that `tl.embed` would refuse.

    Warns
    -----
    UserWarning
        Classes were left out; too few cells to calibrate on; a baseline is better.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(120, n_vars=1950)
    >>> adata.obs["known"] = adata.obs["cell_type"].where([i % 3 == 0 for i in range(120)])
    >>> model = scellm.tl.few_shot(adata, "known", val_by="donor", baseline=False)
    >>> new = scellm.datasets.toy_cells(12, n_vars=1950)
    >>> scellm.tl.annotate(new, model)
    >>> new.obs["scellm_cell_type"].tolist()[:2]
    ['B cell', 'CD4 T cell']
    """
    check_choice(adata, layer, use_raw)
    check_key(key_added)
    held_out = _held_out(val_by, test_by, test_size)
    methods = _methods(baseline)
    check_free(adata, key_added)
    config = FewLabelsConfig(seed=rng)
    chosen_device = choose_device(device)
    read = read_labels(adata, labels, name="adata", min_cells=2, needs_all=False)
    model = model if isinstance(model, CellLM) else load(model)
    data = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, "min_overlap": min_overlap}
    begun = time.perf_counter()
    tokens, rows = labelled_tokens(adata, read, model, data)
    logged, has = log_expression(adata, model, data)
    genes = np.flatnonzero(has)
    logged = logged[:, genes]
    parts = _parts(adata, read, rows, np.diff(logged.indptr) > 0, config, held_out)
    _warn_of_copies(cell_marks(tokens[parts.places], model), parts)
    embedding = None
    if "embedding" in methods:
        model.encoder.to(chosen_device)
        embedding = encode(model, tokens[parts.places], device=chosen_device)
        model.encoder.to("cpu")
    cells = FewCells(
        logged=logged,
        genes=[str(symbol) for symbol in model.vocabulary.symbols[genes]],
        labelled=parts.train,
        codes=parts.codes,
        classes=read.classes,
        unlabelled=parts.unlabelled,
        groups=parts.groups,
        test=parts.test,
    )
    beside = BaselineOptions(methods=methods, embedding=embedding)
    fitted = fit_few_labels(cells, config, baselines=beside, calibrated=calibrate)
    if calibrate and len(fitted.held_out) < MIN_CALIBRATION:
        warn(
            f"{len(fitted.held_out)} labeled cells are few to calibrate on: the confidence of the head is rough, and was "
            f"not raised. Label {MIN_CALIBRATION} or more."
        )
    found = _report(adata.n_obs, read, parts, fitted, config, methods)
    record = FitRecord(labels=labels, seconds=time.perf_counter() - begun, **found)
    result = with_head(model, copy.deepcopy(model.encoder), fitted.annotator, record)
    adata.uns[key_added] = record.to_uns()
    logger.info(record.summary)
    if record.baseline_is_better:
        warn(record.summary)
    return result


def _held_out(val_by: str | None, test_by: str | None, test_size: float | None) -> HeldOut:
    """What is held out, checked."""
    if test_size is None:
        test_size = 0.0 if test_by is None else 0.2
    if not 0 <= test_size < 1:
        msg = f"test_size={test_size!r} is a share of the labeled cells that leaves some to fit on."
        raise ValueError(msg)
    if test_by is not None and not test_size:
        msg = f"test_by={test_by!r} has no effect with test_size=0; leave one of them out."
        raise ValueError(msg)
    return HeldOut(val_by, test_by or val_by, test_size)


def _methods(baseline: bool | Sequence[str]) -> tuple[str, ...]:
    """Baselines to fit."""
    if isinstance(baseline, bool):
        return BASELINES if baseline else ()
    if unknown := [name for name in baseline if name not in BASELINES]:
        msg = f"Unknown baselines {unknown}; choose from {list(BASELINES)}."
        raise ValueError(msg)
    return tuple(baseline)


def _parts(
    adata: AnnData,
    read: Labels,
    rows: np.ndarray,
    is_full: np.ndarray,
    config: FewLabelsConfig,
    held_out: HeldOut,
) -> Rows:
    """Labeled cells to fit on, test cells, and cells without a label; of test groups none is looked at."""
    val_by, test_by, test_size = held_out.val_by, held_out.test_by, held_out.test_size
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
            f"At least 2 labeled cells of each class are needed; there are {found} that express something and are not for "
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


def _warn_of_copies(marks: np.ndarray, parts: Rows) -> None:
    """Say if cells that are judged are copies of cells that are fitted on; `marks` are of the places."""
    n, groups = len(parts.train), parts.groups
    if len(parts.test):
        warn_of_copies(marks, np.arange(n), np.arange(n, len(marks)))
    else:
        warn_of_twins(marks, None if groups is None else groups[parts.train])


def _report(
    n_obs: int,
    read: Labels,
    parts: Rows,
    fitted: FewLabels,
    config: FewLabelsConfig,
    methods: tuple[str, ...],
) -> dict[str, Any]:
    """Fields of the record that come of the cells and the scores."""
    judged = "test" if len(parts.test) else "held_out"
    truth = parts.test_codes if judged == "test" else parts.codes[fitted.held_out]
    logits = fitted.test_logits if judged == "test" else fitted.logits
    of_cell = np.full(n_obs, "", dtype=object)
    for name, rows in (("unlabeled", parts.unlabelled), ("train", parts.train), ("test", parts.test)):
        of_cell[rows] = name
    found = measured(fitted.annotator, logits["scellm"], truth)
    if judged == "held_out" and fitted.annotator.is_calibrated:
        found |= _by_other_folds(fitted.report)
    report = {
        "classes": read.classes,
        "settings": {"strategy": "few_shot", **dataclasses.asdict(config)},
        "n_train": len(parts.train),
        "n_val": 0,
        "n_test": len(parts.test),
        "n_unlabeled": len(parts.unlabelled),
        "n_held_out": len(fitted.held_out),
        "n_folds": fitted.n_folds,
        "excluded_classes": sorted(read.excluded_classes),
        "evaluated_on": judged,
        "split": of_cell,
        "scores": found,
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
    where = "test cells" if judged == "test" else f"labeled cells, held out in {fitted.n_folds} folds"
    text = (
        f"Macro-F1 {f1['scellm']:.3f} on {len(truth)} {where}: a head on genes, fitted to {len(parts.train)} labeled cells "
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
        "Use it: scellm.tl.fine_tune(adata, labels, strategy='head')."
        if best == "embedding"
        else "If there are several kinds of cells here, keep the one that the labels are about, and try again."
    )
    return f"{text} A simple baseline is better here: {NAMES[best]}. {way}", True
