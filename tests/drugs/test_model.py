"""Drug models: saved and loaded the same, damaged ones refused, predictions of known and new compounds."""

import dataclasses

import numpy as np
import pytest

import scellm
from scellm.drugs import fit_drug_response, load_drug_model, save_drug_model


@pytest.fixture(scope="module")
def model():
    return fit_drug_response(
        *scellm.datasets.toy_drug_screen(), config=scellm.drugs.DrugResponseConfig(folds=4)
    )


def read(model, n=6):
    log2_tpm = scellm.datasets.toy_drug_screen()[0][model.vocabulary.symbols].to_numpy()
    return model.projector().project((np.exp2(log2_tpm[:n]) - 1) * 1e6)[0]


def test_saved_and_loaded_it_predicts_the_same(model, tmp_path):
    again = load_drug_model(save_drug_model(model, tmp_path / "mine"))
    panel = model.panel(np.arange(8))
    for a, b in zip(
        model.predict(read(model), panel), again.predict(read(again), again.panel(np.arange(8))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert again.settings == model.settings
    assert again.drugs["name"].tolist() == model.drugs["name"].tolist()
    assert again.sha256


def test_an_altered_file_is_refused(model, tmp_path):
    folder = save_drug_model(model, tmp_path / "mine")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"noise": 1.0', '"noise": 2.0'))
    with pytest.raises(ValueError, match="not the file the manifest describes"):
        load_drug_model(folder)


def test_models_of_cells_and_of_drugs_are_not_confused(model, tmp_path):
    with pytest.raises(ValueError, match="is a model of cells, not of drug response"):
        load_drug_model("scellm-small")
    folder = save_drug_model(model, tmp_path / "mine")
    with pytest.raises(ValueError, match="holds a drug model.*load_drug_model"):
        scellm.models.load(folder)


def test_unknown_names_and_existing_folders_are_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no drug model 'nothing'"):
        load_drug_model("nothing")
    save_drug_model(model, tmp_path / "mine")
    with pytest.raises(FileExistsError):
        save_drug_model(model, tmp_path / "mine")


def test_what_is_not_finite_is_not_saved(model, tmp_path):
    broken = dataclasses.replace(model, tensors=model.tensors | {"mean": np.full(8, np.nan, np.float32)})
    with pytest.raises(ValueError, match="mean of the drug model .* not saved"):
        save_drug_model(broken, tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_was_not_read_has_no_prediction(model):
    similarity = read(model)
    similarity[2] = np.nan
    mean, std = model.predict(similarity, model.panel(np.arange(8))), model.uncertainty(similarity)
    assert np.isnan(mean).all(1).tolist() == [False, False, True, False, False, False]
    assert (std[np.isfinite(std)] > 0).all()


def test_far_cells_get_the_mean_of_a_drug_and_more_doubt(model):
    model = dataclasses.replace(model, settings=model.settings | {"variance_slope": 0.5})
    panel = model.panel(np.arange(8))
    near, far = read(model, 1), np.zeros((1, len(model.lines)), dtype=np.float32)
    near_mean, far_mean = model.predict(near, panel), model.predict(far, panel)
    assert np.abs(far_mean - panel.mean).mean() < np.abs(near_mean - panel.mean).mean()
    assert (model.uncertainty(far) > model.uncertainty(near)).all()


def test_a_known_structure_given_as_new_is_close_to_the_drug(model):
    smiles = model.drugs["smiles"].iloc[0]
    new = model.compounds(["again"], [smiles])
    similarity = read(model, 40)
    known = model.predict(similarity, model.panel(np.array([0])))
    guess = model.predict(similarity, new)
    assert np.corrcoef(known[:, 0], guess[:, 0])[0, 1] > 0.8
    assert new.extra[0] > 0


def test_a_new_compound_is_predicted_as_in_the_screen_of_the_panel(model):
    panel = np.arange(8) < 4
    drugs = model.drugs.assign(panel=panel, screen=np.where(panel, "one", "other"))
    settings = model.settings | {"between_screens": 0.0, "drug_structure": 0.0}
    changed = dataclasses.replace(model, drugs=drugs, settings=settings)
    general = settings["line_kernel"] * model.tensors["dual"][:, :4].sum(1)
    np.testing.assert_allclose(changed.compounds(["new"], ["CCO"]).response[:, 0], general, atol=1e-6)


def test_the_shipped_model_is_small_and_knows_textbook_drugs():
    model = load_drug_model()
    folder = scellm.drugs._files.shipped_folder() / "scellm-drug"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 15e6
    targets = model.drugs.set_index("name")["target"]
    assert "BRAF" in targets["Dabrafenib"]
    assert "EGFR" in targets["Erlotinib"]
    assert model.drugs["panel"].sum() > 150
    assert (model.drugs.loc[model.drugs["panel"], "screen"] == "GDSC2").all()
    assert "not" in model.provenance["what it is not"].lower()


def test_the_shipped_model_is_listed():
    assert "scellm-drug" in scellm.models.list_models()["name"].tolist()


@pytest.mark.parametrize("change", ["genes", "drugs", "nan", "missing"])
def test_files_that_are_not_of_one_model_are_refused(model, tmp_path, change, monkeypatch):
    """As a folder looks whose files were put together by hand, checksums made anew."""
    tensors = dict(model.tensors)
    if change == "genes":
        some = model.vocabulary.subset(model.vocabulary.symbols[:100])
        broken, text = (
            dataclasses.replace(model, vocabulary=some),
            r"'mean_fraction' has shape \(200,\), but 100 genes",
        )
    elif change == "drugs":
        broken, text = dataclasses.replace(model, drugs=model.drugs.iloc[:5]), "'mean' has shape"
    elif change == "nan":
        tensors["scale"] = np.full(8, np.inf, dtype=np.float32)
        monkeypatch.setattr(np, "isfinite", lambda array: np.ones(np.shape(array), dtype=bool))
        broken, text = dataclasses.replace(model, tensors=tensors), "holds NaN or infinite numbers"
    else:
        del tensors["dual"]
        broken, text = dataclasses.replace(model, tensors=tensors), "'dual' has shape None"
    folder = save_drug_model(broken, tmp_path / "mine")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"{text}.*Save the model again"):
        load_drug_model(folder)
