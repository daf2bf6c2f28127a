"""What a model knows of types: its annotator, the vectors that it takes, and whether it has seen these cells."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import is_on_disk
from .._room import let_go, make_room
from .._warn import warn
from ..annotation._annotator import Annotator
from ..annotation._gene_head import GeneHead, GeneScores
from ..data import Expression
from ..metrics._cell_hashes import cell_hashes, match_hashes
from ..models import CellLM
from ._vectors import log_expression, open_cells

FEW_GENES, MANY_GENES = 0.5, 0.9
"""Share of the genes of a head on genes below which it is refused, and below which that is worth a word (ours)."""
CELLS_LOOKED_AT = 200
"""Cells that are compared with those of the shipped reference."""
logger = logging.getLogger("scellm.tl._annotate")


def of_model(model: CellLM) -> tuple[Annotator, str]:
    """The head or the reference of a model, and the mode that is."""
    for part, mode in (("cell_type", "fine-tuned"), ("reference", "pretrained")):
        if part in model.parts:
            annotator = Annotator.from_part(model.parts[part])
            if not annotator.head.genes and annotator.head.n_features != model.config.dim:
                msg = (
                    f"The {part!r} of {model.name!r} takes vectors of {annotator.head.n_features} numbers, its encoder gives "
                    f"{model.config.dim}: they do not belong together. Fine-tune again, or load the model again."
                )
                raise ValueError(msg)
            return annotator, annotator.facts.get("mode", mode)
    msg = (
        f"{model.name or 'This model'!r} knows no cell types: it has neither a fine-tuned head nor a reference. Pass "
        "reference= with labeled cells and labels= with their column, or a model from scellm.tl.fit_reference or fine_tune."
    )
    raise ValueError(msg)


def seen_before(adata: AnnData, model: CellLM, query: Mapping[str, Any]) -> float:
    """Share of some cells that are cells of the shipped reference themselves."""
    part = model.parts["reference"] if "reference" in model.parts else None
    marks = part.tensors.get("cell_hashes") if part is not None else None
    if marks is None or is_on_disk(adata):
        return 0.0
    rows = np.arange(adata.n_obs)
    if len(rows) > CELLS_LOOKED_AT:
        rows = np.sort(np.random.default_rng(0).choice(adata.n_obs, CELLS_LOOKED_AT, replace=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is to be said of these values was said when they were embedded
        logged, _ = log_expression(adata[rows], model, query)
    found = match_hashes(cell_hashes(logged, list(model.vocabulary.symbols)), marks)
    return float((found >= 0).mean()) if len(found) else 0.0


def of_genes(adata: AnnData, annotator: Annotator, model: CellLM, query: dict[str, Any]) -> np.ndarray:
    """(n_obs, F) log1p CP10k of the genes of a head; genes the data lacks are at the mean of its training cells."""
    ids = _ids_of(annotator.head.genes, model)
    logged, has = log_expression(adata, model, query, ids)
    vectors = logged.toarray()
    is_empty, is_there = ~vectors.any(axis=1), has[ids]
    if (share := float(is_there.mean())) < FEW_GENES:
        msg = (
            f"`adata` has {int(is_there.sum())} of the {len(ids)} genes of the head ({100 * share:.0f} %, need "
            f"{100 * FEW_GENES:.0f} %). Pass the data as it was before genes were selected, or fine-tune with its genes."
        )
        raise ValueError(msg)
    if share < MANY_GENES:
        warn(
            f"`adata` lacks {int((~is_there).sum())} of the {len(ids)} genes of the head; they count as average, and "
            "confidence may be too high."
        )
    vectors[:, ~is_there] = annotator.head.centre[~is_there]
    vectors[is_empty] = np.nan
    return vectors


def gene_scores(
    adata: AnnData, annotator: Annotator, model: CellLM, query: dict[str, Any]
) -> GeneScores | None:
    """What genes say beside the embedding, of all cells; `None` for an annotator that does not ask them."""
    head = annotator.gene_head
    if head is None:
        return None
    ids = _ids_of(head.genes, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is to be said of these values was said when they were embedded
        with open_cells(adata, model, query) as cells:
            found = cells.map(_scores, head, ids)
    if len(found) == 1:
        return found[0]
    return GeneScores(np.concatenate([scores.values for scores in found]), found[0].kept)


def _scores(cells: Expression, head: GeneHead, ids: np.ndarray) -> GeneScores:
    """`gene_scores` of a part, block by block, as all of its log values may not fit in memory."""
    has = cells.has_gene[ids]
    values = make_room((cells.n_obs, len(head.bias)), np.float32, on_disk=cells.is_on_disk)
    kept = 1.0
    for start, logged in cells.log1p():
        scores = head.scores(logged[:, ids], has)
        values[start : start + logged.shape[0]], kept = scores.values, scores.kept
        let_go(values)
    return GeneScores(values, kept)


def _ids_of(genes: list[str], model: CellLM) -> np.ndarray:
    """Places of genes of a head in the vocabulary."""
    ids = pd.Index(model.vocabulary.symbols).get_indexer(genes)
    if (ids < 0).any():
        msg = (
            f"{int((ids < 0).sum())} genes of the head of {model.name!r} are not in its vocabulary: they do not belong "
            "together. Fine-tune again, or load the model again."
        )
        raise ValueError(msg)
    return ids
