"""tl.fit_reference: a reference that is fitted once, saved, and used for any number of datasets."""

import numpy as np
import pytest

import scellm
from scellm.models import load, save
from scellm.tl import annotate, embed, fit_reference

KEY = "scellm_cell_type"
CELLS = scellm.datasets.toy_cells(320, n_vars=2000, n_donors=4)


@pytest.fixture
def adata():
    return CELLS[200:].copy()


@pytest.fixture
def reference():
    return CELLS[:200].copy()


def test_it_is_what_annotate_does_with_a_reference(adata, reference, bag_model):
    annotate(adata, fit_reference(reference, "cell_type", model=bag_model), key_added="fitted")
    annotate(adata, bag_model, reference=reference, labels="cell_type", key_added="at_once")
    np.testing.assert_array_equal(adata.obsm["fitted_probabilities"], adata.obsm["at_once_probabilities"])
    np.testing.assert_array_equal(adata.obs["fitted_novelty"], adata.obs["at_once_novelty"])
    for name in ("mode", "method", "message", "model", "sha256", "summary"):
        assert adata.uns["fitted"][name] == adata.uns["at_once"][name], name
    assert adata.uns["fitted"]["mode"] == "reference"


def test_nothing_of_what_was_given_changes(reference, bag_model):
    before = reference.copy()
    fitted = fit_reference(reference, "cell_type", model=bag_model)
    assert dict(bag_model.parts) == {}
    assert list(fitted.parts) == ["cell_type"]
    assert fitted.encoder is bag_model.encoder
    assert list(reference.obsm) == list(reference.uns) == []
    assert reference.obs.equals(before.obs)


def test_it_survives_a_folder_and_knows_its_own_embeddings(adata, reference, bag_model, tmp_path):
    model = load(save(bag_model, tmp_path / "plain"))
    again = load(save(fit_reference(reference, "cell_type", model=model), tmp_path / "own"))
    assert "200 cells of 4 types of 'cell_type'" in again.card
    embed(adata, model)
    annotate(adata, again)
    assert adata.uns[KEY]["mode"] == "reference"
    assert adata.uns[KEY]["embedding_reused"]
    assert (adata.obs[KEY].astype(str) == adata.obs["cell_type"].astype(str)).mean() > 0.9


def test_a_layer_is_read(adata, reference, bag_model):
    reference.layers["counts"] = reference.X.copy()
    reference.X = reference.X * 0
    fitted = fit_reference(reference, "cell_type", model=bag_model, layer="counts")
    annotate(adata, fitted)
    assert (adata.obs[KEY].astype(str) == adata.obs["cell_type"].astype(str)).mean() > 0.9


def test_genes_that_the_data_lacks_count_as_average(adata, reference, bag_model):
    fitted = fit_reference(reference, "cell_type", model=bag_model, method="logistic")
    genes = scellm.annotation._annotator.Annotator.from_part(fitted.parts["cell_type"]).head.genes
    fewer = adata[:, ~adata.var_names.isin(genes[::5])].copy()
    with pytest.warns(UserWarning, match=r"`adata` lacks \d+ of the \d+ genes of the head"):
        annotate(fewer, fitted, min_overlap=0.01)
    assert (fewer.obs[KEY].astype(str) == fewer.obs["cell_type"].astype(str)).mean() > 0.8


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "forest"}, ValueError, r"method='forest' is unknown; choose one of \['auto', 'linear'"),
        ({"val_by": "batch"}, ValueError, r"val_by='batch' has one group \('b1'\); two or more"),
        ({"val_by": "lab"}, KeyError, r"'lab' is not in `adata.obs`"),
        ({"levels": "lab"}, KeyError, r"'lab' is not in `adata.obs`"),
        ({"layer": "raw"}, KeyError, r"'raw' is not in `adata.layers`"),
        ({"labels": "batch"}, ValueError, "has 1 class with at least 2 cells"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_faulty_arguments(reference, bag_model, options, error, text):
    reference.obs["batch"] = "b1"
    with pytest.raises(error, match=text):
        fit_reference(reference, **{"labels": "cell_type", "model": bag_model, **options})


def test_what_is_no_anndata(bag_model):
    with pytest.raises(TypeError, match="Need an AnnData object, found ndarray"):
        fit_reference(np.ones((2, 2)), "cell_type", model=bag_model)
