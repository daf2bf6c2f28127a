import numpy as np
import pytest

import scellm


def test_rows_are_cells_with_names():
    adata = scellm.datasets.toy_cells(5)
    adata.obsm["X_scellm"] = np.arange(20, dtype=np.float32).reshape(5, 4)
    table = scellm.get.embedding(adata)
    assert table.index.equals(adata.obs_names)
    assert table.columns.tolist() == ["X_scellm_0", "X_scellm_1", "X_scellm_2", "X_scellm_3"]
    np.testing.assert_array_equal(table, adata.obsm["X_scellm"])
    table.iloc[0, 0] = -1
    assert adata.obsm["X_scellm"][0, 0] == 0  # a copy


def test_empty_cells_can_be_left_out():
    adata = scellm.datasets.toy_cells(4)
    adata.obsm["X_other"] = np.array([[1.0], [np.nan], [2.0], [3.0]])
    assert len(scellm.get.embedding(adata, key="X_other")) == 4
    assert scellm.get.embedding(adata, key="X_other", drop_empty=True)["X_other_0"].tolist() == [
        1.0,
        2.0,
        3.0,
    ]


def test_before_embed_it_says_what_to_run():
    adata = scellm.datasets.toy_cells(4)
    with pytest.raises(
        KeyError, match=r"'X_scellm' is not in `adata.obsm`.*Run scellm.tl.embed\(adata\) first"
    ):
        scellm.get.embedding(adata)
    with pytest.raises(KeyError, match=r"scellm.tl.embed\(adata, key_added='X_mine'\)"):
        scellm.get.embedding(adata, key="X_mine")


@pytest.mark.parametrize("name", scellm.get.__all__)
@pytest.mark.parametrize("given", [None, "cells.h5ad", np.ones((3, 2)), [1]], ids=lambda x: type(x).__name__)
def test_what_is_not_an_anndata_is_named(name, given):
    with pytest.raises((TypeError, FileNotFoundError), match=r"Need an AnnData object, found"):
        getattr(scellm.get, name)(given)
