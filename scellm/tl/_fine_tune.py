"""fine_tune: labelled cells -> a model with a head for their classes."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_choice, check_free, check_key
from .._keys import FINE_TUNE
from .._version import __version__
from .._warn import warn
from ..data import Expression, ReadOptions, Tokens
from ..metrics._baselines import Comparison, compare_baselines
from ..metrics._calibration import softmax
from ..metrics._conformal import balance
from ..models import CellLM, choose_device, encode, load
from ..models._annotator import Annotator
from ..models._parts import Parts
from ..train._few_labels import FewLabelsConfig
from ..train._fine_tune import FineTuneConfig, FineTuned, fine_tune_encoder
from ..train._fit_annotator import MAX_EXEMPLARS, keep_exemplars
from ..train._fit_annotator import calibrate as calibrate_annotator
from ..train._split import Split, split_cells
from ._fine_tune_genes import fit_on_genes, measured
from ._read_labels import Labels, read_groups, read_labels, warn_of_groups
from ._vectors import log_expression

if TYPE_CHECKING:
    import torch

TASKS = ("cell_type", "drug_response")
STRATEGIES = ("head", "lora", "full", "genes")
DEFAULT_STRATEGY = {"drug_response": "genes"}
"""Where it is not `"lora"`: responses are known of few cells."""
MIN_CALIBRATION = 20
"""Validation cells below which calibration is mostly noise."""
logger = logging.getLogger(__name__)


def fine_tune(
    adata: AnnData,
    *,
    labels: str,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    val_by: str | None = None,
    test_by: str | None = None,
    strategy: Literal["lora", "head", "full", "genes"] | None = None,
    class_weight: Literal["balanced"] | None = "balanced",
    max_epochs: int = 30,
    patience: int = 5,
    batch_size: int = 128,
    learning_rate: float | None = None,
    lora_rank: int = 8,
    gene_dropout: float = 0.2,
    contrastive: float = 0.0,
    val_size: float = 0.1,
    test_size: float | None = None,
    min_cells: int | None = None,
    calibrate: bool = True,
    baseline: bool | Sequence[str] = True,
    task: Literal["cell_type", "drug_response"] = "cell_type",
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never", "must"] = "auto",
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    rng: int = 0,
    name: str = "",
    key_added: str = FINE_TUNE,
    show_progress: bool | None = None,
) -> CellLM:
    """Train a model on the labels of your cells, and say whether that was worth it.

    The cells are split three ways. The head, and with `strategy` the encoder, is fitted on the training cells; the
    validation cells choose the epoch and calibrate the confidence; the test cells are looked at once, at the end. With
    `val_by` whole donors or batches are held out, so that the numbers are those for new donors. For drug response a few
    labelled cells among many are enough, see below.

    Simple baselines are trained on the same split, and if one is better, the report and a warning say so: for many data
    sets logistic regression on the genes is hard to beat :cite:p:`Boiarsky2024`.

    *Few labelled cells.* `strategy="genes"`, the default for drug response, needs two labelled cells of each class, and the
    more cells without a label the better. It is logistic regression on principal components of all cells, each weighted by
    its spread once more :cite:p:`Chapelle2002`, and fitted again with what it says of the cells without a label
    :cite:p:`Nigam2000` (the combination is ours). No encoder is used: on the sets with known response an embedding beside
    the genes made it worse. There is no validation part. Each labelled cell, or with `val_by` each donor with all its
    cells, is held out once; this calibrates the confidence, and logistic regression on genes and on the embedding stand
    beside it. It takes the labelled cells for a fair sample of the classes, and all cells for one kind of cell: keep those
    that the labels are about.

    The result is a model of its own, with the head in its `parts`: `tl.annotate(other, model=result)` uses it,
    `models.save` and `models.load` keep it.

    Parameters
    ----------
    adata
        Labelled cells; cells without a label are left out, with `strategy="genes"` they help.
    labels
        Column of `adata.obs` with the classes.
    model
        Where to start: a name, a folder or a loaded model. It is not changed.
    val_by
        Column of `adata.obs` with donors or batches; whole groups are held out for validation, with `strategy="genes"` in
        turn. `None` holds out cells.
    test_by
        The same for the test cells; `None` takes `val_by`.
    strategy
        `"head"`: logistic regression on the frozen embedding, seconds. `"lora"`: from there, low-rank changes of the
        encoder's embeddings and layers too :cite:p:`Hu2022`. `"full"`: all of its weights. The frozen start is kept if
        no epoch is better on the validation cells. `"genes"`: no encoder, for few labelled cells. `None` is `"lora"` for
        cell types and `"genes"` for drug response.
    class_weight
        `"balanced"`: each class weighs the same in training. `None`: each cell does, as always with `strategy="genes"`.
    max_epochs
        Epochs at most; of `strategy="head"` and `"genes"` there are none.
    patience
        Epochs without a better validation score after which training stops.
    batch_size
        Cells per step.
    learning_rate
        Of AdamW; `None` is 1e-3 for LoRA and 3e-4 for all weights (ours).
    lora_rank
        Rank of the changes.
    gene_dropout
        Share of a cell's genes left out in training, drawn per cell between 0 and this (ours).
    contrastive
        Weight of a supervised contrastive loss between two such draws of each cell :cite:p:`Khosla2020`, by the
        divide-and-conquer step; 0 leaves it out.
    val_size, test_size
        Share of the labelled cells in each part, about; `test_size=0` makes no test part. `test_size=None` is 0.2; with
        `strategy="genes"`, which has no validation part, it is 0 unless `test_by` is given.
    min_cells
        Classes with fewer cells are set aside, with a warning. `None` is 5, and 2 with `strategy="genes"`.
    calibrate
        Fit temperature, prediction sets and novelty on the validation or held-out cells. Without, `tl.annotate` gives
        plain softmax scores and no sets.
    baseline
        Baselines to train on the same split, names of `metrics.compare_baselines`. `True` is logistic regression and
        PCA with neighbours, which take seconds. With `strategy="genes"`: `"logistic"` (all genes) and `"embedding"`.
    task
        What the classes are. `"drug_response"` takes two, sensitive and resistant, and has another default `strategy`.
    checkpoint_dir
        Folder for the state after each epoch. A call with the same cells and settings goes on from there and ends with
        the weights it would have had without the stop.
    resume
        `"auto"` goes on if there is a checkpoint, `"must"` asks for one, `"never"` begins anew.
    layer, use_raw, gene_key, min_overlap, device
        As in `tl.embed`.
    rng
        Seed of the split and of all that is drawn.
    name
        Name of the result; "" makes one from the model's and `labels`.
    key_added
        Key of the report.
    show_progress
        Show a bar with losses by epoch; `None` shows it from 2,000 cells.

    Returns
    -------
    The fine-tuned model, with its `history` for `pl.training_history`. Sets, when all is done:

    `adata.uns[key_added]` : dict
        `classes`, `settings`, `n_train`, `n_val`, `n_test`, `set_aside`; under `test` (or, without test cells, under
        `val`, which is too good, as these chose the epoch) macro-F1, accuracy, balanced accuracy, calibration error
        before and after, F1 and number of cells of each class, and coverage of the prediction sets at target errors
        `target_errors`; under `baselines` the same scores for each method in `methods`; `verdict` in words; the split
        as `split`, (n_obs,) text "train", "val", "test" or "". With `strategy="genes"` also `n_unlabelled`,
        `n_held_out`, `n_folds`, `baseline_is_better` and "unlabelled" in `split`; without test cells the scores are under
        `held_out`.

    Raises
    ------
    FileNotFoundError
        `resume="must"` without a checkpoint.
    KeyError
        A column or layer is not there.
    TypeError
        `adata` is no AnnData; labels are measurements.
    ValueError
        Fewer than two classes, or with `strategy="genes"` fewer than two cells of one; names that differ only by case; too
        few groups; a checkpoint of other cells or settings; options out of range; data that `tl.embed` would refuse;
        `task="drug_response"` with more than two classes.

    Warns
    -----
    UserWarning
        Cells or classes were left out; groups that a random split tears apart; too few cells to calibrate on; a baseline
        is better.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(200, n_vars=1950)
    >>> model = scellm.tl.fine_tune(
    ...     adata, labels="cell_type", val_by="donor", test_size=0, strategy="head", baseline=False
    ... )
    >>> new = scellm.datasets.toy_cells(12, n_vars=1950)
    >>> scellm.tl.annotate(new, model=model)
    >>> new.obs["scellm_cell_type"].tolist()[:2]
    ['B cell', 'CD4 T cell']
    """
    strategy = strategy or DEFAULT_STRATEGY.get(task, "lora")
    is_few = strategy == "genes"
    if test_size is None:
        test_size = 0.0 if is_few and test_by is None else 0.2
    min_cells = (2 if is_few else 5) if min_cells is None else min_cells
    _check(adata, layer, use_raw, key_added, val_size, test_size, min_cells, task, strategy, resume)
    config = (
        FewLabelsConfig(seed=rng)
        if is_few
        else FineTuneConfig(
            strategy=strategy,
            class_weight=class_weight,
            max_epochs=max_epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            lora_rank=lora_rank,
            gene_dropout=gene_dropout,
            contrastive=contrastive,
            seed=rng,
        )
    )
    chosen_device = choose_device(device)
    read = read_labels(adata, labels, name="adata", min_cells=max(min_cells, 2), needs_all=not is_few)
    model = model if isinstance(model, CellLM) else load(model)
    data = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, "min_overlap": min_overlap}
    tokens, rows = _labelled_tokens(adata, read, model, data)
    if isinstance(config, FewLabelsConfig):
        _check_classes(task, labels, read.classes)
        annotator, report = fit_on_genes(
            adata,
            read,
            tokens,
            rows,
            model,
            data,
            config,
            labels=labels,
            task=task,
            val_by=val_by,
            test_by=test_by or val_by,
            test_size=test_size,
            calibrated=calibrate,
            baseline=baseline,
            device=chosen_device,
        )
        result = _own(model, copy.deepcopy(model.encoder), name or f"{model.name or 'model'}-{labels}")
        _give_head(result, model, adata, annotator, report, config)
        adata.uns[key_added] = report
        logger.info(report["verdict"])
        if report["baseline_is_better"]:
            warn(report["verdict"])
        return result
    cells = _split(adata, read, rows, val_by, test_by or val_by, val_size, test_size, rng)
    _check_classes(task, labels, cells.classes)
    with tqdm(
        total=max_epochs if strategy != "head" else 0,
        desc="fine-tune",
        unit="epoch",
        disable=strategy == "head" or not (len(rows) >= 2000 if show_progress is None else show_progress),
    ) as progress:

        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"]:
                progress.n = int(row["epoch"])
                progress.set_postfix(
                    {k: f"{row[k]:.3f}" for k in ("cell_type", "val_loss", "val_macro_f1") if k in row}
                )

        tuned = fine_tune_encoder(
            model,
            tokens,
            cells.codes,
            cells.split,
            len(cells.classes),
            config,
            device=chosen_device,
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
            resume=resume,
            on_epoch=on_epoch,
        )
    result = _own(model, tuned.encoder, name or f"{model.name or 'model'}-{labels}")
    annotator, logits = _annotator(result, tokens, cells, tuned, chosen_device, calibrated=calibrate)
    methods = ("logistic", "pca_knn") if baseline is True else baseline
    comparison = _baselines(adata, rows, model, data, cells, annotator, logits, methods, rng)
    report = _report(adata, rows, read, cells, annotator, logits, tuned, config, comparison, task, labels)
    _give_head(result, model, adata, annotator, report, config)
    result.history = pd.DataFrame(tuned.history)
    adata.uns[key_added] = report
    logger.info(report["verdict"])
    if comparison is not None and "better here" in comparison.verdict:
        warn(comparison.verdict)
    return result


def _own(model: CellLM, encoder: torch.nn.Module, name: str) -> CellLM:
    """A model that was never saved, with this encoder."""
    return dataclasses.replace(model, encoder=encoder, name=name, sha256="", revision=None, card="")


def _give_head(
    result: CellLM,
    model: CellLM,
    adata: AnnData,
    annotator: Annotator,
    report: dict[str, Any],
    config: FineTuneConfig | FewLabelsConfig,
) -> None:
    """Put the head and what is known of it into the result."""
    annotator.facts = {
        "task": report["task"],
        "labels": report["labels"],
        "trained_from": model.name,
        "strategy": report["settings"]["strategy"],
    }
    annotator.report |= {"verdict": report["verdict"]}
    result.parts = Parts({"cell_type": annotator.to_part()})  # others are of the old embedding
    result.provenance = _provenance(model, adata, report["labels"], report, config)


@dataclasses.dataclass(frozen=True)
class Cells:
    """The labelled cells, and which are for what; rows count among them."""

    codes: np.ndarray
    """(n,)."""
    classes: list[str]
    split: Split
    weights: np.ndarray
    """(n_val,) of the calibration: each validation group weighs the same."""
    n_without_training: int
    """Cells held out whose class no training cell has."""


def _labelled_tokens(
    adata: AnnData, read: Labels, model: CellLM, data: dict[str, Any]
) -> tuple[Tokens, np.ndarray]:
    """Tokens of the cells that have a label and express something, and their rows in `adata`."""
    parts, rows = [], []
    with Expression.open(adata, model.vocabulary, ReadOptions(**data)) as cells:
        for start, tokens in cells.tokens(model.tokens):
            kept = np.flatnonzero((read.codes[start : start + len(tokens)] >= 0) & (tokens.lengths > 0))
            parts.append(tokens[kept])
            rows.append(start + kept)
    rows = np.concatenate(rows)
    if n_empty := int((read.codes >= 0).sum()) - len(rows):
        warn(f"{n_empty} labelled cells express no vocabulary gene; they are left out.")
    lengths = np.concatenate([part.lengths for part in parts])
    packed = Tokens(
        np.concatenate([part.gene_ids for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )
    return packed, rows


def _split(
    adata: AnnData,
    read: Labels,
    rows: np.ndarray,
    val_by: str | None,
    test_by: str | None,
    val_size: float,
    test_size: float,
    rng: int,
) -> Cells:
    """Train, validation and test; classes that no training cell has are taken out and named."""
    groups = {
        option: None if column is None else read_groups(adata, column, rows, option=option, name="adata")
        for option, column in (("val_by", val_by), ("test_by", test_by))
    }
    if val_by is None:
        warn_of_groups(adata)
    codes = read.codes[rows]
    split = split_cells(
        codes,
        val_size=val_size,
        test_size=test_size,
        val_groups=groups["val_by"],
        test_groups=groups["test_by"],
        rng=rng,
    )
    present = np.unique(codes[split.train])
    held = np.concatenate([split.val, split.test])
    lost = held[~np.isin(codes[held], present)]
    if len(lost):
        names = sorted({read.classes[code] for code in codes[lost]})
        warn(
            f"{len(names)} classes are in held-out groups alone, no training cell has them: {', '.join(map(repr, names))}. "
            f"They are not learnt, and their {len(lost)} cells are in no score."
        )
        split = Split(split.train, np.setdiff1d(split.val, lost), np.setdiff1d(split.test, lost))
    if len(present) < 2 or not len(split.val):
        what = "one class" if len(present) < 2 else "no validation cells"
        msg = f"The split leaves {what}. Pass val_by= with a column whose groups share their classes, or none to hold out cells."
        raise ValueError(msg)
    renumbered = np.searchsorted(present, codes)
    renumbered[~np.isin(codes, present)] = -1
    weights = balance(None if groups["val_by"] is None else groups["val_by"][split.val], len(split.val))
    return Cells(renumbered, [read.classes[code] for code in present], split, weights, len(lost))


def _annotator(
    model: CellLM, tokens: Tokens, cells: Cells, tuned: FineTuned, device: torch.device, *, calibrated: bool
) -> tuple[Annotator, dict[str, np.ndarray]]:
    """The head as an annotator, and the scores of the validation and test cells."""
    model.encoder.to(device)
    vectors = encode(model, tokens, device=device)
    model.encoder.to("cpu")
    head, split = tuned.head, cells.split
    annotator = Annotator(
        classes=cells.classes,
        kind="linear",
        centre=head.centre.numpy(),
        scale=head.scale.numpy(),
        weight=head.weight.detach().numpy(),
        bias=head.bias.detach().numpy(),
        exemplars=np.zeros((0, model.config.dim), np.float32),
        exemplar_labels=np.zeros(0, np.int32),
        exemplar_spread=np.zeros(0, np.float32),
    )
    keep_exemplars(annotator, vectors[split.train], cells.codes[split.train], MAX_EXEMPLARS, 0)
    logits = {part: annotator.logits(vectors[getattr(split, part)]) for part in ("val", "test")}
    if calibrated:
        if len(split.val) < MIN_CALIBRATION:
            warn(
                f"{len(split.val)} validation cells are few to calibrate on; confidence is rough. Pass a larger val_size."
            )
        annotator.report = calibrate_annotator(
            annotator,
            logits["val"],
            cells.codes[split.val],
            annotator.strangeness(vectors[split.val]),
            cells.weights,
        )
        annotator.report["held_out"] = "validation cells"
    return annotator, logits


def _baselines(
    adata: AnnData,
    rows: np.ndarray,
    model: CellLM,
    data: dict[str, Any],
    cells: Cells,
    annotator: Annotator,
    logits: dict[str, np.ndarray],
    methods: bool | Sequence[str],
    rng: int,
) -> Comparison | None:
    """Baselines on the same split; on the test cells, or without any on the validation cells."""
    if not methods:
        return None
    logged, has = log_expression(adata, model, data)
    genes = np.flatnonzero(has)
    X = logged[rows][:, genes]
    split = cells.split
    has_test = bool(len(split.test))
    judged = "test" if has_test else "val"
    names = np.array(cells.classes, dtype=object)
    used = cells.codes >= 0
    return compare_baselines(
        X,
        np.where(used, names[np.maximum(cells.codes, 0)], ""),
        train=split.train,
        test=getattr(split, judged),
        val=split.val if has_test else None,
        predictions={"scellm": softmax(logits[judged] / annotator.temperature)},
        methods=methods,
        gene_names=model.vocabulary.symbols[genes],
        rng=rng,
    )


def _report(
    adata: AnnData,
    rows: np.ndarray,
    read: Labels,
    cells: Cells,
    annotator: Annotator,
    logits: dict[str, np.ndarray],
    tuned: FineTuned,
    config: FineTuneConfig,
    comparison: Comparison | None,
    task: str,
    labels: str,
) -> dict[str, Any]:
    """What goes to `uns`: no class names as keys, so that any name survives a file."""
    split = cells.split
    judged = "test" if len(split.test) else "val"
    of_cell = np.full(adata.n_obs, "", dtype=object)
    for part in ("train", "val", "test"):
        of_cell[rows[getattr(split, part)]] = part
    settings = {
        name: value if value is not None else "" for name, value in dataclasses.asdict(config).items()
    }
    report = {
        "scellm_version": __version__,
        "task": task,
        "labels": labels,
        "classes": np.array(cells.classes, dtype=object),
        "settings": settings,
        "n_train": len(split.train),
        "n_val": len(split.val),
        "n_test": len(split.test),
        "n_unlabelled": read.n_unlabelled,
        "n_class_not_in_training": cells.n_without_training,
        "set_aside": np.array(sorted(read.set_aside), dtype=object),
        "best_epoch": int(tuned.best_epoch),
        "seconds": float(tuned.seconds),
        "judged_on": judged,
        "split": of_cell,
        judged: measured(annotator, logits[judged], cells.codes[getattr(split, judged)]),
    }
    table = {}
    if comparison is not None:
        table = {name: comparison.table[name].to_numpy(dtype=float) for name in comparison.table.columns}
        table["methods"] = np.array(comparison.table.index, dtype=object)
        table["f1_by_class"] = comparison.per_class.to_numpy(dtype=float)
    mine = report[judged]
    report["verdict"] = (
        comparison.verdict
        if comparison is not None
        else f"Macro-F1 {mine['macro_f1']:.3f} on the {judged} cells; no baseline was trained beside it."
    )
    if judged == "val":
        report["verdict"] += (
            " Measured on the validation cells, which chose the epoch: too good for new cells."
        )
    return report | ({"baselines": table} if table else {})


def _provenance(
    model: CellLM, adata: AnnData, labels: str, report: dict[str, Any], config: FineTuneConfig
) -> dict[str, Any]:
    """What the model card says."""
    judged = report["judged_on"]
    return {
        "description": (
            f"{model.name or 'A model'} fine-tuned on {report['n_train']} cells for {len(report['classes'])} classes of "
            f"{labels!r}. {report['verdict']}"
        ),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "classes": [str(name) for name in report["classes"]],
        "settings": {name: value for name, value in dataclasses.asdict(config).items() if value is not None},
        "measured_on": judged,
        **{name: round(float(report[judged][name]), 4) for name in ("macro_f1", "accuracy", "ece")},
        "n_cells": {part: report[f"n_{part}"] for part in ("train", "val", "test")},
        "started_from": {
            "name": model.name,
            "sha256": model.sha256,
            **({"provenance": model.provenance.get("description", "")}),
        },
    }


def _check(
    adata: AnnData,
    layer: str | None,
    use_raw: bool | None,
    key_added: str,
    val_size: float,
    test_size: float,
    min_cells: int,
    task: str,
    strategy: str,
    resume: str,
) -> None:
    """Refuse what makes no sense before anything is read."""
    check_choice(adata, layer, use_raw)
    check_key(key_added)
    if not (0 < val_size < 1 and 0 <= test_size < 1 and val_size + test_size < 1):
        msg = f"val_size={val_size!r} and test_size={test_size!r} are shares of the cells that leave some for training."
        raise ValueError(msg)
    if isinstance(min_cells, bool) or min_cells < 1:
        msg = f"min_cells={min_cells!r} must be a whole number of at least 1."
        raise ValueError(msg)
    if task not in TASKS:
        msg = f"task={task!r} is unknown; choose one of {list(TASKS)}."
        raise ValueError(msg)
    if strategy not in STRATEGIES:
        msg = f"strategy={strategy!r} is unknown; choose one of {list(STRATEGIES[:-1])}, or 'genes' for few labelled cells."
        raise ValueError(msg)
    if resume not in ("auto", "never", "must"):
        msg = f"resume={resume!r} is unknown; choose 'auto', 'never' or 'must'."
        raise ValueError(msg)
    check_free(adata, key_added)


def _check_classes(task: str, labels: str, classes: list[str]) -> None:
    """A response is one of two."""
    if task == "drug_response" and len(classes) != 2:
        msg = f"task='drug_response' takes two classes, sensitive and resistant; {labels!r} has {len(classes)}: {classes}."
        raise ValueError(msg)
