"""The record of `tl.annotate` in `uns`, written and read in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .._version import __version__

REPORTED_ERRORS = (0.05, 0.1, 0.2)
"""Target errors whose coverage is reported."""


LISTS = ("ontology_ids", "nodes", "paths", "markers")
"""Fields with one text per class or node."""


@dataclass(frozen=True, kw_only=True)
class AnnotationRecord:
    """What `tl.annotate` leaves in `uns`: text, numbers and arrays, so that any names of types survive a file."""

    mode: str
    """"reference", "fine-tuned" or "pretrained"."""
    method: str
    classes: list[str]
    model: str
    sha256: str
    embedding_reused: bool
    majority_vote: bool
    batch_shift: float
    n_unassigned: int
    n_novel: int
    novelty_shift: float
    n_empty: int
    held_out: dict[str, Any]
    message: str
    target_error: float | None = None
    min_confidence: float | None = None
    novelty_error: float | None = None
    ontology_ids: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    """Of the tree, where there is one."""
    paths: list[str] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    summary: str = ""
    tissue_guess: str = ""
    fits: bool = True
    doubts: str = ""
    seen_share: float = 0.0
    scellm_version: str = __version__

    def to_uns(self) -> dict[str, Any]:
        """What is stored; fields without a value are left out."""
        stored = {x.name: getattr(self, x.name) for x in fields(self)}
        stored["classes"] = np.array(self.classes, dtype=object)
        for name in LISTS:
            listed = getattr(self, name)
            stored[name] = np.array(listed, dtype=object) if listed else None
        return {name: value for name, value in stored.items() if value is not None}

    @classmethod
    def from_uns(cls, stored: Any) -> AnnotationRecord | None:
        """The record, or `None` if this is none of `tl.annotate`, such as labels of another tool."""
        needed = {"mode", "method", "classes", "scellm_version"}
        if not isinstance(stored, Mapping) or not needed <= set(stored):
            return None
        known = {x.name for x in fields(cls)}
        found = {name: value for name, value in stored.items() if name in known}
        for name in ("classes", *LISTS):
            found[name] = [str(value) for value in stored.get(name, ())]
        return cls(**found)


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
