"""Vectors of cells for a classifier: the embedding, taken from `obsm` where it is this model's, or the expression of genes."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from .._keys import X_SCELLM
from ..data import check_finite, describe_values, gene_counts, log_normalize, match_genes, row_blocks
from ..models import CellLM
from ._embed import ROWS_PER_BLOCK, _check_values, _source, embedding_of

CP10K = 1e4


def cell_vectors(adata: AnnData, model: CellLM, options: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """The (n_obs, dim) embedding, NaN for empty cells, and its record.

    `adata.obsm["X_scellm"]` is taken if its record says that it was made by this model from the matrix asked for.
    """
    found, record = adata.obsm.get(X_SCELLM), adata.uns.get(X_SCELLM)
    if found is not None and _is_of(record, model, _name(options)) and found.shape[1] == model.config.dim:
        return np.asarray(found, dtype=np.float32), {**record, "reused": True}
    embedding, record = embedding_of(adata, model, **options)
    return embedding, {**record, "reused": False}


def log_expression(
    adata: AnnData, model: CellLM, options: dict[str, Any], genes: np.ndarray | None = None
) -> tuple[sp.csr_array, np.ndarray]:
    """log1p CP10k over the vocabulary genes, (n_obs, n_genes) CSR, and which of them the data has, (n_genes,) bool.

    `genes` keeps the columns of these gene ids alone, which a large object needs.
    """
    with _source(adata, options.get("layer"), options.get("use_raw")) as (X, var, where, raw_var):
        match = match_genes(
            var,
            model.vocabulary,
            options.get("gene_key"),
            min_overlap=options.get("min_overlap", 0.10),
            raw_var=raw_var,
        )
        values = describe_values(X)
        _check_values(values, where, raw_var)
        blocks = []
        for start, block in row_blocks(X, ROWS_PER_BLOCK):
            check_finite(block, start)
            counts = gene_counts(block, match.ids, len(model.vocabulary), values.linearize)
            logged = log_normalize(counts, CP10K)
            blocks.append(logged if genes is None else logged.tocsc()[:, genes].tocsr())
    has = np.zeros(len(model.vocabulary), dtype=bool)
    has[match.ids[match.ids >= 0]] = True
    return sp.csr_array(sp.vstack(blocks, format="csr")), has


def variable_genes(logged: sp.csr_array, allowed: np.ndarray, n: int = 2000) -> np.ndarray:
    """Ids of the genes that vary most for their mean, ascending; of those allowed (scanpy's default flavour)."""
    import scanpy as sc

    mean = np.asarray(logged.mean(axis=0)).ravel()
    candidates = np.flatnonzero(allowed & (mean > 0))
    if len(candidates) <= n:
        return candidates
    table = sc.pp.highly_variable_genes(
        AnnData(sp.csr_matrix(logged[:, candidates])), n_top_genes=n, inplace=False
    )
    return candidates[table["highly_variable"].to_numpy()]


def _is_of(record: Any, model: CellLM, where: str) -> bool:
    """Whether a record is of this very model and matrix; a model that was never saved has no identity."""
    if not isinstance(record, dict) or not model.sha256:
        return False
    return record.get("sha256") == model.sha256 and record.get("matrix") == where


def _name(options: dict[str, Any]) -> str:
    """What `embed` calls the matrix that is asked for."""
    if options.get("use_raw"):
        return "adata.raw.X"
    return "adata.X" if options.get("layer") is None else f"adata.layers[{options['layer']!r}]"
