"""tl.drug_similarity: structures and responses."""

import dataclasses
import warnings

import numpy as np
import pytest

import scellm


@pytest.fixture
def cells():
    adata = scellm.datasets.toy_cells(8, n_vars=19315)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toy cells are no cancer
        scellm.tl.drug_response(
            adata, drugs=["Erlotinib", "Gefitinib", "Dabrafenib", "PLX-4720"], smiles={"ethanol": "CCO"}
        )
    return adata


def test_drugs_of_one_target_are_alike(cells):
    scellm.tl.drug_similarity(cells)
    result = cells.uns["drug_similarity"]
    assert result["drugs"].tolist() == ["Erlotinib", "Gefitinib", "Dabrafenib", "PLX-4720", "ethanol"]
    response = result["response"]
    assert response[0, 1] > response[0, 2]
    assert response[2, 3] > response[1, 3]
    np.testing.assert_allclose(np.diag(result["structure"]), 1)
    assert result["structure"][0, 1] > result["structure"][0, 4]
    assert np.isnan(response[4]).all()  # no line was ever given ethanol


def test_what_to_run_first_is_said(cells):
    del cells.obsm["drug_response"]
    with pytest.raises(KeyError, match="Run scellm.tl.drug_response"):
        scellm.tl.drug_similarity(cells)


def test_another_model_than_the_one_that_predicted_is_said(cells):
    model = scellm.drugs.load_drug_model("scellm-drug")
    for other in ({"name": "mine"}, {"sha256": "0" * 64}):
        with pytest.warns(UserWarning, match="Pass model= with the one that made them"):
            scellm.tl.drug_similarity(cells, model=dataclasses.replace(model, **other))


def test_what_is_not_ours_is_not_overwritten(cells):
    cells.uns["drug_similarity"] = "mine"
    with pytest.raises(ValueError, match="not written by tl.drug_similarity"):
        scellm.tl.drug_similarity(cells)
