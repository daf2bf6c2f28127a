"""The embeddings that `embedding.py` compares: ours, untrained, and what a scanpy user has without scellm."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch

import scellm
from scellm.models import CellLM
from scellm.nn import Encoder

N_HVG, N_COMPONENTS, N_LATENT = 2000, 50, 10
SCVI_EPOCHS, SCVI_STEPS, SCVI_BATCH = 400, 500, 128
"""Epochs that scvi-tools takes by default for sets of up to 20,000 cells, steps after which we stop, cells of a step."""


def logged(adata: ad.AnnData) -> ad.AnnData:
    """Log-normalized genes that at least three cells express."""
    adata = ad.AnnData(sp.csr_matrix(adata.X, dtype=np.float32), var=pd.DataFrame(index=adata.var_names))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.filter_genes(adata, min_cells=3)
    return adata


def pca(adata: ad.AnnData) -> np.ndarray:
    """PCA-50 of log-normalized highly variable genes, (n_obs, 50)."""
    adata = logged(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=N_HVG)
    return sc.pp.pca(adata[:, adata.var["highly_variable"]].X, n_comps=N_COMPONENTS, random_state=0)


def log_genes(adata: ad.AnnData) -> np.ndarray:
    """All log-normalized genes, (n_obs, n_genes)."""
    return logged(adata).X.toarray()


def scellm_of(adata: ad.AnnData, model: CellLM) -> np.ndarray:
    """`tl.embed`, (n_obs, dim)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sets' own: names that are not unique, few genes
        scellm.tl.embed(adata, model, show_progress=False)
    return adata.obsm["X_scellm"]


def random_like(model: CellLM, seed: int) -> CellLM:
    """The same model with untrained weights."""
    torch.manual_seed(seed)
    return CellLM(
        encoder=Encoder(model.config).eval(),
        config=model.config,
        tokens=model.tokens,
        vocabulary=model.vocabulary,
        name=f"random {seed}",
    )


def scvi(adata: ad.AnnData, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """scVI :cite:p:`Lopez2018` with its defaults, trained on the set itself; latents (n_obs, 10) and how long it took.

    Raises
    ------
    ImportError
        scvi-tools is not installed.
    """
    try:
        import scvi as tools
    except ImportError as error:
        msg = "scVI needs scvi-tools: pip install 'scellm[benchmark]'."
        raise ImportError(msg) from error
    genes = logged(adata)
    sc.pp.highly_variable_genes(genes, n_top_genes=N_HVG)
    counts = adata[:, genes.var_names[genes.var["highly_variable"]]]
    counts = ad.AnnData(sp.csr_matrix(counts.X, dtype=np.float32))
    tools.settings.seed = seed
    tools.model.SCVI.setup_anndata(counts)
    network = tools.model.SCVI(counts, n_latent=N_LATENT)
    began = time.process_time()
    epochs = min(SCVI_EPOCHS, math.ceil(SCVI_STEPS / math.ceil(0.9 * counts.n_obs / SCVI_BATCH)))
    network.train(
        max_epochs=epochs, batch_size=SCVI_BATCH, accelerator="cpu", enable_progress_bar=False, logger=False
    )
    facts = {"epochs": epochs, "seconds": time.process_time() - began}
    return network.get_latent_representation(), facts
