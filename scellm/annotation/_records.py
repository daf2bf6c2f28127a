"""The record of `tl.annotate` in `uns`, written and read in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._records import Record

REPORTED_ERRORS = (0.05, 0.1, 0.2)
"""Target errors whose coverage is reported."""


@dataclass(frozen=True, kw_only=True)
class AnnotationRecord(Record):
    """What `tl.annotate` leaves in `uns`: text, numbers and arrays, so that any names of types survive a file."""

    classes: list[str]
    method: str = ""
    mode: str = ""
    """"reference", "fine-tuned" or "pretrained"."""
    model: str = ""
    sha256: str = ""
    embedding_reused: bool = False
    majority_vote: bool = False
    n_neighbors: int = 0
    """Cells that had a say beside each cell, at most; 0 if none had."""
    names_replaced: list[str] = field(default_factory=list)
    """Names with a bad record that gave way to those above them."""
    batch_shift: float = 0.0
    n_unassigned: int = 0
    n_novel: int = 0
    novelty_shift: float = 0.0
    n_empty: int = 0
    held_out: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    target_error: float | None = None
    min_confidence: float | None = None
    novelty_error: float | None = None
    ontology_ids: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    """Of the tree, where there is one."""
    paths: list[str] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    recall_left_out: np.ndarray | None = None
    """Of each node, where studies were left out; NaN where no second study has it."""
    precision_left_out: np.ndarray | None = None
    summary: str = ""
    tissue_guess: str = ""
    fits: bool = True
    doubts: str = ""
    seen_share: float = 0.0

    def to_uns(self) -> dict[str, Any]:
        """What is stored; empty lists are left out."""
        stored = super().to_uns()
        return {name: value for name, value in stored.items() if np.size(value)}

    def left_out_of(self, name: str) -> dict[str, float]:
        """Recall and precision of a node where studies were left out, NaN where they are not known."""
        at = self.nodes.index(name) if name in self.nodes else None
        rates = {"recall_left_out": self.recall_left_out, "precision_left_out": self.precision_left_out}
        return {
            rate: float("nan") if at is None or values is None else float(values[at])
            for rate, values in rates.items()
        }

    def markers_of(self) -> dict[str, list[str]]:
        """Genes of each node, as the reference learned them."""
        pairs = zip(self.nodes, self.markers, strict=False)
        return {name: genes.split(", ") for name, genes in pairs if genes}


def plain_report(report: dict[str, Any]) -> dict[str, Any]:
    """A report as numbers, text and arrays, without class names as keys."""
    plain = {name: value for name, value in report.items() if isinstance(value, bool | int | float | str)}
    plain |= {
        f"macro_f1_{name}": float(value) for name, value in report.get("macro_f1_by_method", {}).items()
    }
    if "coverage" in report:
        errors = [str(error) for error in REPORTED_ERRORS]
        plain["target_errors"] = np.array(REPORTED_ERRORS)
        plain["coverage"] = np.array([report["coverage"][error] for error in errors])
        plain["set_size"] = np.array([report["set_size"][error] for error in errors])
        plain["coverage_by_class"] = np.array([report["coverage_by_class"][error] for error in errors])
    return plain


def describe(report: dict[str, Any], n_classes: int, mode: str, model_name: str, method: str) -> str:
    """What was done, in a sentence or two."""
    what = {
        "reference": f"label transfer from {report.get('n_cells', 0)} reference cells",
        "fine-tuned": f"the head of the fine-tuned model {model_name!r}",
        "pretrained": f"the reference of {model_name!r}",
    }[mode]
    text = f"{n_classes} classes by {what}, method {method!r}."
    scores = report.get("macro_f1_by_method", {})
    if len(scores) > 1:
        listed = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
        text += f" It won on held-out {report['held_out']} (macro-F1: {listed})."
    elif "macro_f1" in report:
        text += f" Macro-F1 on held-out {report.get('held_out', 'cells')}: {report['macro_f1']:.3f}."
    return text
