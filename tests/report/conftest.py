import warnings

import matplotlib as mpl
import numpy as np
import pytest

import scellm

mpl.use("Agg")


@pytest.fixture(scope="session")
def done():
    """Toy cells of two donors with the results of every tool but search."""
    adata = scellm.datasets.toy_cells(60, n_vars=6000)
    reference = scellm.datasets.toy_cells(120, n_vars=6000, rng=1)
    with warnings.catch_warnings():  # toy cells fit no tissue and are no cancer
        warnings.simplefilter("ignore")
        scellm.tl.embed(adata)
        scellm.tl.annotate(adata, reference=reference, labels="cell_type", novelty_error=0.05)
        scellm.tl.malignancy(adata, sample_key="donor")
        scellm.tl.drug_response(adata, ["Erlotinib", "Dabrafenib"])
        scellm.tl.rank_drugs(adata, "cell_type", sample_key="donor")
    adata.obsm["X_umap"] = np.asarray(adata.obsm["X_scellm"])[:, :2].copy()
    return adata


@pytest.fixture
def cells(done):
    return done.copy()


@pytest.fixture(scope="session")
def page(done, tmp_path_factory):
    """The report on all of it, as text."""
    return scellm.report(done, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")
