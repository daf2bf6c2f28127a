"""From labeled cells to a model with a head: shared by `tl.fine_tune` and `tl.few_shot`."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from torch import nn

from .._calls import current_call
from .._records import FitRecord
from .._warn import warn
from ..annotation._annotator import Annotator
from ..data import Expression, ReadOptions, Tokens
from ..metrics._cell_hashes import cell_hashes, match_hashes
from ..models import CellLM
from ..models._parts import Parts
from ._read_labels import Labels


def labelled_tokens(
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
        warn(f"{n_empty} labeled cells express no vocabulary gene; they are left out.")
    lengths = np.concatenate([part.lengths for part in parts])
    packed = Tokens(
        np.concatenate([part.gene_ids for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )
    return packed, rows


def cell_marks(tokens: Tokens, model: CellLM) -> np.ndarray:
    """Marks of cells, by which the same measurement is found twice."""
    symbols = model.vocabulary.symbols
    shape = len(tokens), len(symbols)
    return cell_hashes(
        sp.csr_array((tokens.values, tokens.gene_ids, tokens.indptr), shape=shape, copy=True), symbols
    )


def warn_of_copies(marks: np.ndarray, seen: np.ndarray, held: np.ndarray) -> None:
    """Say if held-out cells are the same measurement as cells that are fitted on: scores on them are too good.

    Parameters
    ----------
    marks
        (n, number of marks) of the labeled cells.
    seen, held
        Rows that are fitted on and that are judged.
    """
    n_same = int((match_hashes(marks[held], marks[seen]) >= 0).sum())
    if n_same:
        warn(
            f"{n_same} of {len(held)} held-out cells are the same measurement as a training cell, so that the scores are too "
            "good. Remove the copies, or pass val_by= with a column that keeps them together; "
            "scellm.metrics.find_leakage(adata[held_out], adata[training]) lists them."
        )


def warn_of_twins(marks: np.ndarray, groups: np.ndarray | None) -> None:
    """The same where each cell is held out in turn: said of copies that are not in one group.

    Parameters
    ----------
    marks
        (n, number of marks).
    groups
        (n,) what is held out whole, `None` for single cells.
    """
    other = match_hashes(marks, marks)  # of several copies the last, of any other cell itself
    rows = np.arange(len(marks))
    is_apart = (other >= 0) & (other != rows)
    if groups is not None:
        is_apart &= groups[other] != groups
    n_same = len(np.union1d(rows[is_apart], other[is_apart]))
    if n_same:
        warn(
            f"{n_same} of {len(marks)} labeled cells are the same measurement as another labeled cell. Held out in turn, each is "
            "found by its copy, so that the scores are too good. Remove the copies, or pass val_by= with a column that keeps "
            "them together; scellm.metrics.find_leakage(adata[some], adata[others]) lists them."
        )


def with_head(model: CellLM, encoder: nn.Module, annotator: Annotator, record: FitRecord) -> CellLM:
    """A model of its own, never saved, with this encoder, head, and what is known of it."""
    annotator.facts = {
        "labels": record.labels,
        "trained_from": model.name,
        "strategy": record.settings["strategy"],
    }
    annotator.report |= {"summary": record.summary}
    return dataclasses.replace(
        model,
        encoder=encoder,
        name=f"{model.name or 'model'}-{record.labels}",
        sha256="",
        revision=None,
        card="",
        parts=Parts({"cell_type": annotator.to_part()}),  # others are of the old embedding
        provenance=_provenance(model, record),
    )


def _provenance(model: CellLM, record: FitRecord) -> dict[str, Any]:
    """What the model card says."""
    on_genes = record.settings.get("strategy") == "few_shot"
    base = model.name or "a model"
    what = f"A head on the genes of {base}, fitted to" if on_genes else f"{base} fine-tuned on"
    return {
        "description": (
            f"{what} {record.n_train} cells for {len(record.classes)} classes of {record.labels!r}. {record.summary}"
        ),
        "call": current_call(),
        "n_obs": 0 if record.split is None else len(record.split),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "classes": record.classes,
        "settings": {name: value for name, value in record.settings.items() if value != ""},
        "measured_on": record.evaluated_on,
        **{name: round(float(record.scores[name]), 4) for name in ("macro_f1", "accuracy", "ece")},
        "n_cells": {"train": record.n_train, "val": record.n_val, "test": record.n_test},
        "started_from": {
            "name": model.name,
            "sha256": model.sha256,
            "provenance": model.provenance.get("description", ""),
        },
    }
