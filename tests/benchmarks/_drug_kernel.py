"""Forms of the kernel of cell lines, on lines of the training part of the first fold, left out in turn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from _drug_rivals import expression_similarity, gaussian_process, ridge_per_drug
from _drug_splits import Problem, score, splits

from scellm.drugs import DrugResponseConfig
from scellm.drugs._process import COMMON

BEFORE = DrugResponseConfig(line_kernel=0.3, pair_self=0.2)
"""Weights of the model before this one."""


def inner_folds(data: Path, n: int = 2) -> list[Problem]:
    """`n` of four folds of the training lines of the first fold of *unseen lines*."""
    _, (task, *_) = next(splits(data))
    lines = np.flatnonzero(task.measured.any(1))
    fold = np.random.default_rng(1).permutation(len(lines)) % 4
    return [_leave_out(task, lines[fold == k]) for k in range(n)]


def _leave_out(task: Problem, out: np.ndarray) -> Problem:
    """The problem whose test pairs are those of some training lines."""
    is_out = np.isin(np.arange(len(task.measured)), out)[:, None] & task.measured
    rows, columns = np.nonzero(is_out)
    kept = task.measured & ~is_out
    return dataclasses.replace(
        task,
        values=np.where(kept, task.values, 0),
        measured=kept,
        rows=rows,
        columns=columns,
        truth=task.values[is_out],
    )


def exponential(similarity: np.ndarray) -> np.ndarray:
    """Similarity whose kernel is exp(cosine - 1)."""
    length = np.sqrt(np.maximum(similarity.diagonal(), 1e-12))
    cosine = np.clip(similarity / length / length[:, None], -1, 1)
    return (np.exp(cosine - 1) - COMMON) / (1 - COMMON)


def measure(data: Path) -> list[dict[str, float | str]]:
    """Pearson per drug of each form."""
    tasks = inner_folds(data)
    similar = {rank: [expression_similarity(task, rank) for task in tasks] for rank in (128, 256, 384)}
    forms = {
        "exp(s - 1), 128 components": ([exponential(s) for s in similar[128]], BEFORE),
        "linear, 256 components": (similar[256], BEFORE),
        "linear, 256 components, weights that ship": (similar[256], DrugResponseConfig()),
        "linear, 384 components, weights that ship": (similar[384], DrugResponseConfig()),
    }
    found = {"ridge per drug": [ridge_per_drug(task) for task in tasks]}
    for name, (of_tasks, config) in forms.items():
        found[name] = [gaussian_process(t, s, config=config) for t, s in zip(tasks, of_tasks, strict=True)]
    rows = [{"kernel": name} | score(tasks, guess) for name, guess in found.items()]
    return pd.DataFrame(rows)[["kernel", "per drug", "Pearson"]].to_dict("records")
