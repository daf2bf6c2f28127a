"""Steps of `tl.fine_tune`: split, head, baselines, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from .._warn import warn
from ..annotation._annotator import Annotator, Exemplars, Head
from ..annotation._fit import MAX_EXEMPLARS, keep_exemplars
from ..annotation._fit import calibrate as calibrate_annotator
from ..annotation._split import Split, split_cells
from ..data import Tokens
from ..metrics._baselines import Comparison, compare_baselines
from ..metrics._conformal import balance
from ..models import CellLM, encode
from ..train._fine_tune import FineTuned
from ._read_labels import Labels, read_groups, warn_of_groups
from ._vectors import log_expression

if TYPE_CHECKING:
    import torch

MIN_CALIBRATION = 20
"""Validation cells below which calibration is mostly noise."""


@dataclass(frozen=True)
class Parts:
    """How cells are held out."""

    val_by: str | None
    test_by: str | None
    val_size: float
    test_size: float
    rng: int

    def __post_init__(self) -> None:
        val, test = self.val_size, self.test_size
        if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
            msg = f"val_size={val!r} and test_size={test!r} are shares of the cells that leave some for training."
            raise ValueError(msg)


@dataclass(frozen=True)
class Cells:
    """The labeled cells, and which are for what; rows count among them."""

    codes: np.ndarray
    """(n,)."""
    classes: list[str]
    split: Split
    weights: np.ndarray
    """(n_val,) of the calibration: each validation group weighs the same."""
    n_without_training: int
    """Cells held out whose class no training cell has."""


def split_labelled(adata: AnnData, read: Labels, rows: np.ndarray, parts: Parts) -> Cells:
    """Train, validation and test; classes that no training cell has are taken out and named."""
    groups = {
        option: None if column is None else read_groups(adata, column, rows, option=option, name="adata")
        for option, column in (("val_by", parts.val_by), ("test_by", parts.test_by))
    }
    if parts.val_by is None:
        warn_of_groups(adata)
    codes = read.codes[rows]
    split = split_cells(
        codes,
        val_size=parts.val_size,
        test_size=parts.test_size,
        val_groups=groups["val_by"],
        test_groups=groups["test_by"],
        rng=parts.rng,
    )
    present = np.unique(codes[split.train])
    held = split.held_out
    lost = held[~np.isin(codes[held], present)]
    if len(lost):
        names = sorted({read.classes[code] for code in codes[lost]})
        warn(
            f"{len(names)} classes are in held-out groups alone, no training cell has them: {', '.join(map(repr, names))}. "
            f"They are not learned, and their {len(lost)} cells are in no score."
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


def annotator_of(
    model: CellLM, tokens: Tokens, cells: Cells, tuned: FineTuned, device: torch.device, *, calibrated: bool
) -> tuple[Annotator, dict[str, np.ndarray]]:
    """The head as an annotator, and the scores of the validation and test cells."""
    model.encoder.to(device)
    vectors = encode(model, tokens, device=device)
    model.encoder.to("cpu")
    head, split = tuned.head, cells.split
    annotator = Annotator(
        classes=cells.classes,
        head=Head(
            kind="linear",
            centre=head.centre.numpy(),
            scale=head.scale.numpy(),
            weight=head.weight.detach().numpy(),
            bias=head.bias.detach().numpy(),
        ),
        exemplars=Exemplars.none(model.config.dim),
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
            annotator.outlier_score(vectors[split.val]),
            cells.weights,
        )
        annotator.report["held_out"] = "validation cells"
    return annotator, logits


def compare(
    adata: AnnData,
    rows: np.ndarray,
    model: CellLM,
    data: dict[str, Any],
    cells: Cells,
    predicted: np.ndarray,
    methods: Sequence[str],
    rng: int,
) -> Comparison:
    """Baselines on the same split; on the test cells, or without any on the validation cells; `predicted` are ours."""
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
        predictions={"scellm": predicted},
        methods=methods,
        gene_names=model.vocabulary.symbols[genes],
        rng=rng,
    )


def report_of(
    n_obs: int, rows: np.ndarray, cells: Cells, found: dict[str, Any], comparison: Comparison | None
) -> dict[str, Any]:
    """Fields of the record that come of the split and the scores."""
    split = cells.split
    judged = "test" if len(split.test) else "val"
    of_cell = np.full(n_obs, "", dtype=object)
    for part in ("train", "val", "test"):
        of_cell[rows[getattr(split, part)]] = part
    table = {}
    if comparison is not None:
        table = {name: comparison.table[name].to_numpy(dtype=float) for name in comparison.table.columns}
        table["methods"] = np.array(comparison.table.index, dtype=object)
        table["f1_by_class"] = comparison.per_class.to_numpy(dtype=float)
    summary = (
        comparison.summary
        if comparison is not None
        else f"Macro-F1 {found['macro_f1']:.3f} on the {judged} cells; no baseline was trained beside it."
    )
    if judged == "val":
        summary += " Measured on the validation cells, which chose the epoch: too good for new cells."
    return {
        "classes": cells.classes,
        "n_train": len(split.train),
        "n_val": len(split.val),
        "n_test": len(split.test),
        "n_class_not_in_training": cells.n_without_training,
        "evaluated_on": judged,
        "split": of_cell,
        "scores": found,
        "summary": summary,
        "baselines": table or None,
    }
