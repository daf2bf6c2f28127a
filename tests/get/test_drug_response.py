"""get.drug_response: tidy tables of cells and groups."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scellm


@pytest.fixture
def cells() -> AnnData:
    adata = AnnData(np.zeros((4, 1), dtype=np.float32))
    adata.obs["cluster"] = pd.Categorical(["a", "a", "b", None])
    adata.obsm["drug_response"] = np.arange(8, dtype=np.float32).reshape(4, 2)
    adata.obs["drug_response_uncertainty"] = np.array([1, 3, 1, 1], dtype=np.float32)
    adata.obs["drug_response_applicability"] = np.array([0.2, 0.4, 0.6, 0.8], dtype=np.float32)
    names = np.array(["x", "y"])
    adata.uns["drug_response"] = {"drugs": names, "drug_class": names, "target": names, "groupby": ""} | {
        "pearson": np.array([0.5, 0.6]),
        "std_unit": np.array([0.5, 2.0]),
        "std_extra": np.array([0.0, 1.5]),
        "mean": np.array([-1.0, 6.0]),
        "spread": np.array([1.0, 2.0]),
    }
    return adata


def test_a_row_for_each_cell_and_drug(cells):
    table = scellm.get.drug_response(cells)
    assert len(table) == 8
    assert table.loc[(table["cell"] == "2") & (table["drug"] == "y"), "ln_ic50"].item() == 5
    assert table["pearson"].tolist()[:2] == [0.5, 0.6]
    assert table["std"].tolist()[:4] == [0.5, 2.5, 1.5, np.sqrt(38.25)]


def test_groups_are_averaged_and_cells_without_one_left_out(cells):
    table = scellm.get.drug_response(cells, groupby="cluster").set_index(["cluster", "drug"])
    assert table.loc[("a", "x"), "ln_ic50"] == 1
    assert table.loc[("a", "x"), "n_cells"] == 2
    assert table.loc[("b", "y"), "applicability"] == pytest.approx(0.6)
    assert len(table) == 4


def test_top_drugs_are_those_that_hit_more_than_they_hit_cell_lines(cells):
    """x is the more potent drug, and hits these cells less than it hits cell lines; y hits them more."""
    table = scellm.get.drug_response(cells, groupby="cluster", n_drugs=1)
    assert table["drug"].tolist() == ["y", "y"]
    assert table["ln_ic50"].tolist() == [2, 5]
    assert table["z"].tolist() == [-2, -0.5]
    both = scellm.get.drug_response(cells, groupby="cluster", n_drugs=5)
    assert both["drug"].tolist() == ["y", "x", "y", "x"]
    assert both["z"].tolist() == [-2, 2, -0.5, 5]
    with pytest.raises(ValueError, match="n_drugs=0 must be a whole number of at least 1"):
        scellm.get.drug_response(cells, n_drugs=0)


def test_predictions_without_means_have_no_z_and_are_chosen_by_ic50(cells):
    del cells.uns["drug_response"]["mean"]
    assert scellm.get.drug_response(cells)["z"].isna().all()
    with pytest.warns(UserWarning, match="by the lowest ln IC50. Run scellm.tl.drug_response"):
        table = scellm.get.drug_response(cells, groupby="cluster", n_drugs=1)
    assert table["z"].isna().all()
    assert table["drug"].tolist() == ["x", "x"]


def test_the_groups_of_the_prediction_are_the_default(cells):
    cells.uns["drug_response"]["groupby"] = "cluster"
    assert "cluster" in scellm.get.drug_response(cells)


def test_what_is_missing_is_said(cells):
    with pytest.raises(KeyError, match="is not in `adata.obs`"):
        scellm.get.drug_response(cells, groupby="nothing")
    with pytest.raises(KeyError, match="key_added='other'"):
        scellm.get.drug_response(cells, key="other")
