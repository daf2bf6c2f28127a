"""What a model knows of types: its annotator, the vectors that it takes, and whether it has seen these cells."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .._checks import is_on_disk
from .._warn import warn
from ..annotation._annotator import Annotator
from ..annotation._gene_head import GeneHead, GeneScores
from ..data import Expression, log_normalize
from ..data.cells._expression import CP10K
from ..metrics._cell_hashes import cell_hashes, match_hashes
from ..models import CellLM
from ._vectors import both_options, log_expression, vectors_of

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


@dataclass
class Read:
    """What was read of the cells."""

    vectors: np.ndarray
    """(n_obs, F)"""
    record: dict[str, Any]
    """Of the embedding; empty where the vectors are genes."""
    genes: GeneScores | None = None
    seen_share: float = 0.0
    """Share of some cells that are cells of the shipped reference themselves."""


@dataclass(frozen=True)
class GeneReader:
    """Scores of a head on genes, made of the rows as they pass."""

    head: GeneHead
    ids: np.ndarray
    """(G,) places of its genes in the vocabulary."""

    @property
    def n_columns(self) -> int:
        """K, the number of classes."""
        return len(self.head.bias)

    def of(self, cells: Expression, logged: sp.csr_array) -> np.ndarray:
        """(B, K) scores."""
        return self.head.scores(logged[:, self.ids], cells.has_gene[self.ids]).values

    def scores(self, cells: Expression, values: np.ndarray) -> GeneScores:
        """What was made of all rows, (n_obs, K), with what the genes that are there weigh."""
        return GeneScores(values, self.head.kept_with(cells.has_gene[self.ids]))


def read_cells(
    adata: AnnData, annotator: Annotator, model: CellLM, query: dict[str, Any], *, of_reference: bool = False
) -> Read:
    """What an annotator needs of cells, from one pass over them.

    Parameters
    ----------
    adata, annotator, model
        The cells, what names them, and the model it is of.
    query
        Options of reading and encoding.
    of_reference
        Whether to look for cells of the shipped reference among them.
    """
    if annotator.head.genes:
        return Read(of_genes(adata, annotator, model, query), {})
    head = annotator.gene_head
    beside = None if head is None else GeneReader(head, _ids_of(head.genes, model))
    source, encoding = both_options(query, None)
    with Expression.open(adata, model.vocabulary, source) as cells:
        vectors, record, values = vectors_of(cells, adata, model, encoding, beside)
        genes = None
        if beside is not None and values is not None:
            genes = beside.scores(cells, values)
        seen = _seen_before(cells, model) if of_reference and not is_on_disk(adata) else 0.0
    return Read(vectors, record, genes, seen)


def _seen_before(cells: Expression, model: CellLM) -> float:
    """Share of some cells that are cells of the shipped reference themselves."""
    part = model.parts["reference"] if "reference" in model.parts else None
    marks = part.tensors.get("cell_hashes") if part is not None else None
    if marks is None or not cells.n_obs:
        return 0.0
    rows = np.arange(cells.n_obs)
    if len(rows) > CELLS_LOOKED_AT:
        rows = np.sort(np.random.default_rng(0).choice(cells.n_obs, CELLS_LOOKED_AT, replace=False))
    logged = log_normalize(cells.counts_of(rows), CP10K)
    found = match_hashes(cell_hashes(logged, list(model.vocabulary.symbols)), marks)
    return float((found >= 0).mean())


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
