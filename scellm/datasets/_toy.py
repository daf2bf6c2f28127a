"""Small seeded cells for documentation and tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ..data import GeneVocabulary

MARKERS = {
    "B cell": ("MS4A1", "CD79A", "CD79B", "CD19", "BANK1", "TCL1A", "CD74", "HLA-DRA"),
    "CD4 T cell": ("CD3D", "CD3E", "CD3G", "CD4", "IL7R", "TCF7", "LEF1", "CCR7"),
    "NK cell": ("NKG7", "GNLY", "KLRD1", "KLRF1", "PRF1", "GZMB", "FCGR3A", "CTSW"),
    "monocyte": ("CD14", "LYZ", "S100A8", "S100A9", "FCN1", "VCAN", "CSF3R", "CST3"),
}
"""Textbook markers of four blood cell types."""
HOUSEKEEPING = ("ACTB", "B2M", "EEF1A1", "GAPDH", "RPL13A", "RPLP0", "RPS27A", "TMSB4X")
"""Genes that every cell expresses highly."""


def toy_cells(
    n_obs: int = 120, *, n_vars: int = 3000, n_donors: int = 2, rng: np.random.Generator | int = 0
) -> AnnData:
    """Draw small blood-like cells of four types, with raw counts over real gene symbols.

    B cells, CD4 T cells, NK cells and monocytes in turn, so that each `n_obs` of at least 4 has all of them.
    Each type expresses its textbook markers on top of a background all share; donors shift every gene a little.
    Counts are gamma-Poisson around that, about 2,000 in a median cell. The structure is far simpler than that
    of real cells: good for trying functions, useless for judging a model.

    Parameters
    ----------
    n_obs
        Number of cells.
    n_vars
        Number of genes: the 40 named ones and others spread evenly over the vocabulary of scellm.
    n_donors
        Number of donors, in turn.
    rng
        Seed or generator; the same seed gives the same cells.

    Returns
    -------
    `AnnData` with

    `adata.X` : CSR matrix of shape (n_obs, n_vars), float32
        Raw counts.
    `adata.var_names` : approved gene symbols
        `adata.var["ensembl_id"]` has the Ensembl ids.
    `adata.obs["cell_type"]`, `adata.obs["donor"]` : categorical
        Known by construction.

    Raises
    ------
    ValueError
        `n_obs` or `n_donors` is below 1, or `n_vars` is below 40 or above the number of vocabulary genes.

    Examples
    --------
    >>> import scellm
    >>> adata = scellm.datasets.toy_cells(8)
    >>> adata.shape
    (8, 3000)
    >>> adata.obs["cell_type"].tolist()[:4]
    ['B cell', 'CD4 T cell', 'NK cell', 'monocyte']
    """
    vocabulary = GeneVocabulary.default()
    named = sorted({gene for genes in MARKERS.values() for gene in genes} | set(HOUSEKEEPING))
    if n_obs < 1 or n_donors < 1:
        msg = f"n_obs is {n_obs} and n_donors is {n_donors}; both must be at least 1."
        raise ValueError(msg)
    if not len(named) <= n_vars <= len(vocabulary):
        msg = f"n_vars is {n_vars}; toy_cells has {len(named)} to {len(vocabulary)} genes."
        raise ValueError(msg)

    rng = np.random.default_rng(rng)
    gene_ids = _spread_genes(vocabulary, named, n_vars)
    symbols = vocabulary.symbols[gene_ids]
    types = np.array(list(MARKERS))[np.arange(n_obs) % len(MARKERS)]
    donors = np.arange(n_obs) // len(MARKERS) % n_donors

    background = rng.lognormal(0, 1, n_vars)
    background[np.isin(symbols, HOUSEKEEPING)] = 150
    profiles = np.tile(background, (n_obs, 1))  # (n_obs, n_vars)
    for cell_type, genes in MARKERS.items():
        is_marker = np.isin(symbols, genes)
        profiles[:, is_marker] = 0.3
        profiles[np.ix_(types == cell_type, is_marker)] = 60
    profiles *= rng.lognormal(0, 0.2, (n_donors, n_vars))[donors]
    depth = rng.lognormal(np.log(2000), 0.3, (n_obs, 1))
    mean = depth * profiles / profiles.sum(axis=1, keepdims=True)
    shape = 2.0  # of the gamma: variance mean + mean**2 / 2
    counts = rng.poisson(rng.gamma(shape, mean / shape))

    return AnnData(
        sp.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame(
            {
                "cell_type": pd.Categorical(types, list(MARKERS)),
                "donor": pd.Categorical([f"donor{d}" for d in donors]),
            },
            index=[f"cell{i}" for i in range(n_obs)],
        ),
        var=pd.DataFrame({"ensembl_id": vocabulary.ensembl_ids[gene_ids]}, index=symbols.astype(object)),
    )


def _spread_genes(vocabulary: GeneVocabulary, named: list[str], n_vars: int) -> np.ndarray:
    """Ids of the named genes and of others at even distances, sorted, shape (n_vars,)."""
    is_named = np.isin(vocabulary.symbols, named)
    others = np.flatnonzero(~is_named)
    n_others = n_vars - is_named.sum()
    spread = others[np.arange(n_others) * len(others) // max(n_others, 1)]
    return np.sort(np.concatenate([np.flatnonzero(is_named), spread]))
