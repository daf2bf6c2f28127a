"""gene_importance: which genes drive the model's embedding of each cell type."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from .._checks import check_choice, check_free, check_key
from .._containers import takes_cells
from .._keys import GENE_IMPORTANCE
from .._obs import read_text
from .._records import ImportanceRecord
from ..annotation._annotator import unit
from ..data import Expression, ReadOptions, Tokens
from ..models import CellLM, load
from ..models._encode import choose_device, encode
from ._deletion import deletion
from ._embed import PROGRESS_FROM, in_eval
from ._integrated_gradients import integrated_gradients

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

FEWEST_CELLS = 4
"""Cells a type needs: two to find its genes in, two to try them on."""


@dataclass(frozen=True, eq=False)
class Trial:
    """How types are explained."""

    n_steps: int
    n_deleted: int
    device: torch.device
    rng: np.random.Generator


@takes_cells
def gene_importance(
    adata: AnnData,
    groupby: str,
    *,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    groups: Sequence[str] | None = None,
    n_cells: int = 100,
    n_steps: int = 16,
    n_deleted: int = 20,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    key_added: str = GENE_IMPORTANCE,
    show_progress: bool | None = None,
    rng: np.random.Generator | int = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Rank genes by how far they move cells of a type towards it in the embedding.

    The direction of a type is its mean unit embedding less the mean of the other types'. For cells of the type,
    integrated gradients :cite:p:`Sundararajan2017` divide the distance that the cell goes in that direction, from a
    cell that expresses nothing, among its genes. The importance of a gene is the mean over the cells, with 0 for those
    that do not express it. It says what the *model* looks at; that is not what is differentially expressed, nor a cause.

    The result is tried, too: the `n_deleted` most important genes, found in one half of the cells, are taken out of the
    other half, and so are random genes of equal mean expression, twenty times. If the important ones do not lower the
    score more than chance, do not believe the ranking.

    Needs the extra `explain` (captum), and a model that reads expression as a number (`expression="continuous"`).

    Parameters
    ----------
    adata
        Cells.
    groupby
        Column of `adata.obs` with types, known or predicted. Cells without one, and types of fewer than four cells, are
        left out.
    model
        As in `tl.embed`; for types of a fine-tuned model, that model.
    groups
        Types to explain; `None` explains all. The others still count as "the others".
    n_cells
        Most cells per type, drawn at random.
    n_steps
        Steps of the integral; more make `completeness_error` smaller.
    n_deleted
        Genes taken out in the trial.
    layer
        Layer with expression; `None` reads `adata.X`.
    use_raw
        Read `adata.raw.X`; `None` is `False`.
    gene_key
        Column of `var` with gene names, as in `tl.embed`.
    min_overlap
        Fraction of the model's genes the data must hold.
    device
        `"auto"` takes CUDA, then MPS, then the CPU.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 2,000 cells.
    rng
        Seed or generator of the draws.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.uns[key_added]` : dict
        `groups`, `genes` (names of the columns, those of one gene together) and `importance`, (genes, groups) float32;
        `expression`, mean ln(1 + counts per target sum) of the same shape; `n_cells` and `completeness_error` by
        group: mean distance between the attributions' sum and what they divide, as a share of it; `deletion`, a dict
        by group of the mean `score` of whole cells (cosine with the direction), its `drop` without the important
        genes, `random_drop` and its standard deviation over draws, and `n_deleted`; `model`, `groupby` and options.
        `get.gene_importance` makes a table of it.

    Raises
    ------
    KeyError
        `groupby`, `layer` or `gene_key` is not there.
    TypeError
        `adata` is not an AnnData.
    ValueError
        Fewer than two types, unknown `groups`, a model that reads expression in bins, a number that must be positive
        and is not; whatever `tl.embed` refuses; a key that files cannot hold, or that holds something else.
    ImportError
        captum is not installed.
    """
    check_key(key_added)
    for name, value in {"n_cells": n_cells, "n_steps": n_steps, "n_deleted": n_deleted}.items():
        if not value >= (FEWEST_CELLS if name == "n_cells" else 1):
            msg = f"{name}={value!r} must be at least {FEWEST_CELLS if name == 'n_cells' else 1}."
            raise ValueError(msg)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    check_choice(adata, layer, use_raw)
    check_free(adata, key_added, of="tl.gene_importance", field="importance")
    rng = np.random.default_rng(rng)
    rows_of = _draw(adata, groupby, n_cells, rng)
    explained = _chosen(groups, rows_of, groupby)
    model = model if isinstance(model, CellLM) else load(model)
    if model.config.expression != "continuous":
        msg = (
            f"{model.name!r} reads expression in bins, which has no gradient; gene_importance needs a model with "
            'expression="continuous", such as "scellm-small".'
        )
        raise ValueError(msg)
    rows = np.concatenate(list(rows_of.values()))
    with Expression.open(adata, model.vocabulary, source) as cells:
        tokens = cells.tokens_of(rows, model.tokens)
    trial = Trial(n_steps, n_deleted, choose_device(device), rng)
    results = _explain_all(model, tokens, rows_of, explained, trial, show_progress=show_progress)
    columns, ids = _columns(cells.match.ids, results)
    record = ImportanceRecord(
        model=model.name,
        sha256=model.sha256,
        groupby=groupby,
        matrix=cells.where,
        groups=explained,
        genes=[str(name) for name in cells.var.index[columns]],
        importance=np.stack([results[group]["importance"][ids] for group in explained], axis=1),
        expression=np.stack([results[group]["expression"][ids] for group in explained], axis=1),
        n_cells=np.array([len(rows_of[group]) for group in explained]),
        completeness_error=np.array([results[group]["completeness_error"] for group in explained]),
        deletion={
            name: np.array([results[group]["deletion"][name] for group in explained])
            for name in ("score", "drop", "random_drop", "random_drop_sd", "n_deleted")
        },
        n_steps=n_steps,
    )
    adata = adata.copy() if copy else adata
    adata.uns[key_added] = record.to_uns()
    return adata if copy else None


def _draw(adata: AnnData, groupby: str, n_cells: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Up to `n_cells` rows of each type, in random order."""
    text = read_text(adata, groupby)
    found, counts = np.unique(text[text != ""].astype(str), return_counts=True)
    sizes = dict(zip(found.tolist(), counts.tolist(), strict=True))
    names = [name for name in sizes if sizes[name] >= FEWEST_CELLS]
    if len(names) < 2:
        msg = (
            f"`adata.obs[{groupby!r}]` has {len(names)} types of at least {FEWEST_CELLS} cells ({sizes}); need "
            "two, as a type is explained against the others."
        )
        raise ValueError(msg)
    return {name: rng.permutation(np.flatnonzero(text == name))[:n_cells] for name in sorted(names)}


def _chosen(groups: Sequence[str] | None, rows_of: dict[str, np.ndarray], groupby: str) -> list[str]:
    """The types to explain."""
    if groups is None:
        return list(rows_of)
    wanted = [groups] if isinstance(groups, str) else [str(group) for group in groups]
    unknown = [group for group in wanted if group not in rows_of]
    if unknown or not wanted:
        msg = (
            f"groups={unknown} are not types of at least {FEWEST_CELLS} cells in `adata.obs[{groupby!r}]`, which has "
            f"{list(rows_of)}."
        )
        raise ValueError(msg)
    return wanted


def _places(rows_of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where the cells of each type are among all that were drawn."""
    ends = np.cumsum([len(rows) for rows in rows_of.values()])
    return {
        name: np.arange(end - len(rows), end) for (name, rows), end in zip(rows_of.items(), ends, strict=True)
    }


def _directions(embedding: np.ndarray, rows_of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mean unit embedding of each type less the mean of the others', of length 1, (D,)."""
    vectors = unit(embedding)
    means = np.stack([np.nanmean(vectors[place], axis=0) for place in _places(rows_of).values()])
    rest = (means.sum(0) - means) / (len(means) - 1)
    return dict(zip(rows_of, unit(means - rest), strict=True))


def _explain_all(
    model: CellLM,
    tokens: Tokens,
    rows_of: dict[str, np.ndarray],
    explained: list[str],
    trial: Trial,
    *,
    show_progress: bool | None,
) -> dict[str, dict[str, Any]]:
    """Importance and its trial for each type that is to be explained; `tokens` are of all types, one after the other."""
    model = in_eval(model, trial.device, own=True)
    n_explained = sum(len(rows_of[group]) for group in explained)
    show = n_explained >= PROGRESS_FROM if show_progress is None else show_progress
    directions = _directions(encode(model, tokens, device=trial.device), rows_of)
    with tqdm(total=n_explained, desc="gene importance", unit="cell", disable=not show) as progress:
        return {
            group: _explain(group, model, tokens[place], directions[group], trial, progress)
            for group, place in _places(rows_of).items()
            if group in explained
        }


def _explain(
    name: str, model: CellLM, tokens: Tokens, direction: np.ndarray, trial: Trial, progress: tqdm
) -> dict[str, Any]:
    """Importance by vocabulary id and the trial of it, for the cells of one type."""
    n_genes = len(model.vocabulary)
    tokens = tokens[np.flatnonzero(tokens.lengths > 0)]
    if len(tokens) < FEWEST_CELLS:
        msg = f"Of the cells of {name!r} only {len(tokens)} express genes of the model; need {FEWEST_CELLS}."
        raise ValueError(msg)
    towards = np.broadcast_to(direction, (len(tokens), len(direction))).astype(np.float32)
    attributions, errors = integrated_gradients(model, tokens, towards, trial.n_steps, trial.device, progress)

    def score(cells: Tokens) -> np.ndarray:
        return unit(encode(model, cells, device=trial.device)) @ direction

    def mean(values: np.ndarray, indptr: np.ndarray, n: int) -> np.ndarray:
        part = slice(indptr[0], indptr[-1])
        return np.bincount(tokens.gene_ids[part], weights=values[part], minlength=n_genes) / n

    half = len(tokens) // 2
    first, others = tokens.indptr[: half + 1], tokens[np.arange(half, len(tokens))]
    divided = np.add.reduceat(attributions, tokens.indptr[:-1])
    return {
        "importance": mean(attributions, tokens.indptr, len(tokens)).astype(np.float32),
        "expression": mean(tokens.values, tokens.indptr, len(tokens)).astype(np.float32),
        "completeness_error": float(np.mean(np.abs(errors)) / max(np.mean(np.abs(divided)), 1e-12)),
        "deletion": deletion(score, others, mean(attributions, first, half), trial.n_deleted, trial.rng),
    }


def _columns(gene_ids: np.ndarray, results: dict[str, dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The first column of each gene that any cell expressed, and its vocabulary id."""
    ids, columns = np.unique(gene_ids, return_index=True)
    is_seen = np.any([result["expression"] > 0 for result in results.values()], axis=0)
    kept = (ids >= 0) & is_seen[ids]
    order = np.argsort(columns[kept])
    return columns[kept][order], ids[kept][order]
