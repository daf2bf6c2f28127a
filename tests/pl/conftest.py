import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import scellm

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def annotate_by_hand(adata, names, rng, key="scellm_cell_type"):
    """Cells with the results of `tl.annotate`, made of chance: three of four labels are right."""
    n = adata.n_obs
    truth = np.arange(n) % len(names)
    logits = rng.normal(0, 1, (n, len(names)))
    logits[np.arange(n), truth] += 2.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence = probabilities.max(1)
    labels = np.array(names, dtype=object)[probabilities.argmax(1)]
    labels[confidence < 0.4] = "unassigned"
    labels[:3] = "novel"
    adata.obs["truth"] = pd.Categorical(np.array(names, dtype=object)[truth])
    adata.obs[key] = pd.Categorical(labels)
    adata.obs[f"{key}_confidence"] = confidence.astype(np.float32)
    adata.obsm[f"{key}_probabilities"] = probabilities.astype(np.float32)
    adata.uns[key] = {
        "scellm_version": "0",
        "method": "reference",
        "classes": np.array(names, dtype=object),
        "min_confidence": 0.4,
    }
    adata.obsm["X_umap"] = rng.normal(0, 1, (n, 2)) + 5 * rng.normal(0, 1, (len(names), 2))[truth]
    return adata


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def cells(rng):
    """400 toy cells of four types with labels, confidence, probabilities and a UMAP."""
    return annotate_by_hand(
        scellm.datasets.toy_cells(400, n_vars=200), ["B cell", "CD4 T cell", "NK cell", "mono/cyte"], rng
    )


@pytest.fixture
def many(rng):
    """40 types."""
    return annotate_by_hand(
        scellm.datasets.toy_cells(2000, n_vars=40), [f"type number {i}" for i in range(40)], rng
    )
