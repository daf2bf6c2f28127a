"""What the model's own reference says of cells for `tl.malignancy`: types, normal cells, lineages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from .._keys import CELL_TYPE
from .._obs import has_column, read_text
from .._room import row_slices
from ..annotation._align import find_shift
from ..annotation._annotator import Annotator
from ..annotation._decide import Thresholds, decide, empty_cells
from ..annotation._gene_head import GeneScores
from ..models import CellLM
from ..tumors import LINEAGES, lineage_probabilities, normal_types
from ._annotate_sources import of_model, read_cells
from ._vectors import cell_vectors

CONFIDENT = 0.5
"""Confidence from which a cell's type makes it a normal reference cell."""


@dataclass(eq=False)
class OwnTypes:
    """What a model's reference says of n cells, whatever ran on them before."""

    names: np.ndarray
    """(n,) most probable type, "" where none is known."""
    is_normal: np.ndarray
    """(n,) cells that are surely immune, stromal or endothelial."""
    lineages: np.ndarray
    """(n, L) probabilities of what tumors are called; 0 where none is known."""


def read_with_types(
    adata: AnnData, model: CellLM, query: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any], OwnTypes]:
    """The embedding, (n, dim), its record, and types by embedding and genes from the model's own reference, from one pass.

    `query` has the options of reading and encoding. Types, of which most are normal, are read without the shift of the
    study. Lineages are of malignant cells and read as they are: the reference lacks such cells, and a shift would be taken from them.
    """
    annotator = of_model(model)[0] if {"cell_type", "reference"} & set(model.parts) else None
    if annotator is None or annotator.head.genes:
        vectors, record = cell_vectors(adata, model, query)
        n = len(vectors)
        nothing = np.zeros((n, len(LINEAGES)), np.float32)
        return vectors, record, OwnTypes(np.full(n, "", dtype=object), np.zeros(n, dtype=bool), nothing)
    read = read_cells(adata, annotator, model, query)
    vectors, genes = read.vectors, read.genes
    shift = find_shift(annotator, vectors, "auto")
    result = decide(annotator, vectors, Thresholds(), is_shifted=True, move=shift, genes=genes)
    names = np.array(result.names, dtype=object)[np.maximum(result.codes, 0)]
    names[result.codes < 0] = ""
    coarse = coarse_lineages(annotator)
    is_normal = np.isin(names, list(normal_types(coarse))) & (result.confidence > CONFIDENT)
    return vectors, read.record, OwnTypes(names, is_normal, _lineages(annotator, vectors, genes, coarse))


def coarse_lineages(annotator: Annotator) -> dict[str, str]:
    """Coarse lineage of each node of a tree of types, "" for those above; empty without a tree."""
    if (tree := annotator.tree) is None:
        return {}
    return {
        name: tree.names[at] if at >= 0 else "" for name, at in zip(tree.names, tree.lineage, strict=True)
    }


def _lineages(
    annotator: Annotator, vectors: np.ndarray, genes: GeneScores | None, coarse: Mapping[str, str]
) -> np.ndarray:
    """(n, L) probabilities of lineages, some thousand cells at a time; 0 for empty cells."""
    found = np.zeros((len(vectors), len(LINEAGES)), np.float32)
    is_full = ~empty_cells(vectors)
    for part in row_slices(len(vectors), vectors):
        rows = np.arange(len(vectors))[part][is_full[part]]
        said = None if genes is None else genes[rows]
        found[rows] = lineage_probabilities(
            annotator.probabilities(vectors[rows], said), annotator.classes, coarse
        )
    return found


def default_types(adata: AnnData, types: np.ndarray) -> np.ndarray:
    """Labels of `tl.annotate` where there are any, else the model's own."""
    return read_text(adata, CELL_TYPE) if has_column(adata, CELL_TYPE) else types
