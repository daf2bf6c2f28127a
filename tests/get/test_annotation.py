"""get.annotation: a row per group, with shares that add up and markers that are really there."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scellm


@pytest.fixture
def cells():
    """Ten cells: six B cells in cluster a, two T cells and two refusals in cluster b."""
    import anndata as ad

    X = np.zeros((10, 4), dtype=np.float32)
    X[:6, 0] = 3  # MS4A1 in all B cells
    X[0, 1] = 1  # CD79A in one of six
    X[6:, 2] = 1  # CD3D
    adata = ad.AnnData(sp.csr_matrix(X))
    adata.var_names = ["MS4A1", "CD79A", "CD3D", "INS"]
    labels = ["B cell"] * 6 + ["T cell"] * 2 + ["novel", "unassigned"]
    adata.obs["scellm_cell_type"] = pd.Categorical(labels)
    adata.obs["scellm_cell_type_coarse"] = pd.Categorical(["lymphocyte"] * 8 + ["novel", "unassigned"])
    adata.obs["scellm_cell_type_confidence"] = np.linspace(0.1, 1, 10, dtype=np.float32)
    adata.obs["cluster"] = pd.Categorical(["a"] * 6 + ["b"] * 4)
    adata.obsm["scellm_cell_type_probabilities"] = np.tile(np.array([[0.6, 0.1, 0.3]], np.float32), (10, 1))
    adata.uns["scellm_cell_type"] = {
        "classes": np.array(["naive B cell", "memory B cell", "T cell"], dtype=object),
        "nodes": np.array(["B cell", "naive B cell", "memory B cell", "T cell"], dtype=object),
        "paths": np.array(
            ["B cell", "B cell > naive B cell", "B cell > memory B cell", "T cell"], dtype=object
        ),
        "markers": np.array(["MS4A1, CD79A, PAX5, INS", "", "", "CD3D"], dtype=object),
    }
    return adata


def test_by_cluster(cells):
    table = scellm.get.annotation(cells, groupby="cluster").set_index("group")
    assert table.loc["a", ["n_cells", "label", "share", "lineage"]].tolist() == [
        6,
        "B cell",
        1.0,
        "lymphocyte",
    ]
    assert table.loc["a", "confidence"] == pytest.approx(np.linspace(0.1, 1, 10)[:6].mean(), abs=1e-6)
    assert table.loc["b", ["label", "share", "unassigned", "novel"]].tolist() == ["T cell", 0.5, 0.25, 0.25]


def test_markers_that_are_expressed_lacking_or_not_measured(cells):
    table = scellm.get.annotation(cells, groupby="cluster").set_index("group")
    assert table.loc["a", "markers_expressed"] == "MS4A1, CD79A"  # CD79A in a sixth
    assert table.loc["a", "markers_lacking"] == "INS"  # PAX5 is not in the data
    cells.X[0, 1] = 0
    cells.X.eliminate_zeros()
    again = scellm.get.annotation(cells, groupby="cluster").set_index("group")
    assert again.loc["a", "markers_lacking"] == "CD79A, INS"


def test_by_type_the_runner_up_is_another_type(cells):
    table = scellm.get.annotation(cells).set_index("group")
    assert table.loc["B cell", "runner_up"] == "T cell"  # not the naive B cells, which are B cells
    assert table.loc["T cell", "runner_up"] == "naive B cell"
    assert table["n_cells"].is_monotonic_decreasing


def test_symbols_in_a_column(cells):
    cells.var["symbol"], cells.var_names = cells.var_names.to_numpy(), ["e1", "e2", "e3", "e4"]
    assert scellm.get.annotation(cells)["markers_expressed"].eq("").all()
    assert scellm.get.annotation(cells, gene_key="symbol")["markers_expressed"].iloc[0] == "MS4A1, CD79A"


def test_labels_of_another_tool_are_refused(cells):
    with pytest.raises(KeyError, match=r"There are no labels of tl.annotate under 'leiden'"):
        scellm.get.annotation(cells, key="leiden")
