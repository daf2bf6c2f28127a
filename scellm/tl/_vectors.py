"""Vectors of cells for a classifier: the embedding, taken from `obsm` if it is of these very cells, or the expression of genes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from .._keys import X_SCELLM
from .._room import let_go, make_room
from ..data import Expression, ReadOptions
from ..data.cells._fingerprint import fingerprint_of
from ..metrics._cell_hashes import gene_set_marks
from ..models import CellLM
from ._embed import Beside, EncodeOptions, embed_cells, join


def cell_vectors(
    adata: AnnData,
    model: CellLM,
    source: ReadOptions | Mapping[str, Any],
    encoding: EncodeOptions | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The (n_obs, dim) embedding, NaN for empty cells, and its record; `record["reused"]` says where it is from.

    `adata.obsm["X_scellm"]` is taken if the fingerprints in its record say that this model made it of these very
    values and that it has not been changed since; else the cells are embedded.

    Parameters
    ----------
    adata, model
        The cells and the model.
    source, encoding
        What is read and how it is encoded; or one mapping with both.
    """
    source, encoding = both_options(source, encoding)
    with Expression.open(adata, model.vocabulary, source) as cells:
        embedding, record, _ = vectors_of(cells, adata, model, encoding)
    return embedding, record


def vectors_of(
    cells: Expression,
    adata: AnnData,
    model: CellLM,
    encoding: EncodeOptions,
    beside: Beside | None = None,
) -> tuple[np.ndarray, dict[str, Any], np.ndarray | None]:
    """As `cell_vectors`, of cells of `adata` that are open; and what is made beside that, from the same pass."""
    found, record = adata.obsm.get(X_SCELLM), adata.uns.get(X_SCELLM)
    if encoding.on_empty == "nan" and _may_be_of(found, record, model, cells):
        more = None if beside is None else join(cells.map(made_beside, beside))
        if record.get("fingerprint") == cells.fingerprint:
            return (
                np.asarray(found, dtype=np.float32),
                {**record, "matrix": cells.where, "reused": True},
                more,
            )
    made, record = embed_cells(cells, model, encoding, beside)
    return made.embedding, {**record, "reused": False}, made.beside


def made_beside(cells: Expression, beside: Beside) -> np.ndarray:
    """What is made beside an embedding, of a part, block by block."""
    found = make_room((cells.n_obs, beside.n_columns), np.float32, on_disk=cells.is_on_disk)
    for start, logged in cells.log1p():
        found[start : start + logged.shape[0]] = beside.of(cells, logged)
        let_go(found)
    return found


def vectors_and_marks(
    adata: AnnData, model: CellLM, source: ReadOptions, encoding: EncodeOptions
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """As `cell_vectors`, and between its two (n_obs,) marks of which genes the cells express, as `gene_set_marks` has them."""
    with Expression.open(adata, model.vocabulary, source) as cells:
        vectors, record, _ = vectors_of(cells, adata, model, encoding)
        return vectors, np.concatenate(cells.map(_marks)), record


def _marks(cells: Expression) -> np.ndarray:
    """Marks of a part."""
    return np.concatenate([gene_set_marks(counts) for _, counts in cells.counts()])


def log_expression(
    adata: AnnData, model: CellLM, source: ReadOptions | Mapping[str, Any], genes: np.ndarray | None = None
) -> tuple[sp.csr_array, np.ndarray]:
    """log1p CP10k over the vocabulary genes, (n_obs, n_genes) CSR, and which of them the data has, (n_genes,) bool.

    `genes` keeps the columns of these gene ids alone, which a large object needs.
    """
    with open_cells(adata, model, source) as cells:
        parts = cells.map(_logged, genes)
    return sp.csr_array(sp.vstack(parts, format="csr")), cells.has_gene


def open_cells(
    adata: AnnData, model: CellLM, source: ReadOptions | Mapping[str, Any]
) -> AbstractContextManager[Expression]:
    """Cells as a model reads them, from options that may hold those of encoding, too."""
    return Expression.open(adata, model.vocabulary, both_options(source, None)[0])


def _logged(cells: Expression, genes: np.ndarray | None) -> sp.csr_array:
    """`log_expression` of a part."""
    blocks = [logged if genes is None else logged.tocsc()[:, genes].tocsr() for _, logged in cells.log1p()]
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def _may_be_of(found: Any, record: Any, model: CellLM, cells: Expression) -> bool:
    """Whether an embedding may be of this very model and of what was opened; a model that was never saved has no identity.

    These are the cheap signs: the fingerprint of the cells, which decides, takes a pass over them.
    """
    if not isinstance(found, np.ndarray) or not isinstance(record, dict) or not model.sha256:
        return False
    if record.get("sha256") != model.sha256 or found.shape != (cells.n_obs, model.config.dim):
        return False
    return record.get("embedding_fingerprint") == fingerprint_of(found)


def both_options(
    source: ReadOptions | Mapping[str, Any], encoding: EncodeOptions | None
) -> tuple[ReadOptions, EncodeOptions]:
    """Options as objects; a mapping holds those of both."""
    if isinstance(source, ReadOptions):
        return source, encoding or EncodeOptions()
    read, encode = (
        {field.name: source[field.name] for field in fields(kind) if field.name in source}
        for kind in (ReadOptions, EncodeOptions)
    )
    return ReadOptions(**read), encoding or EncodeOptions(**encode)
