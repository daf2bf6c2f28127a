"""tl.drug_response: what is written, what does not matter, what is refused and warned of."""

import dataclasses
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scellm
from scellm.drugs import DrugResponseConfig, fit_drug_response
from scellm.drugs._profiles import downsample

KEY = "drug_response"
NAMES = ["BRAF-inhibitor a", "EGFR-inhibitor b"]


@pytest.fixture(scope="module")
def screen():
    return scellm.datasets.toy_drug_screen(40)


@pytest.fixture(scope="module")
def model(screen):
    model = fit_drug_response(*screen, config=DrugResponseConfig(folds=4), name="toy")
    return dataclasses.replace(model, drugs=model.drugs.assign(panel=np.arange(8) < 6))


@pytest.fixture
def cells(screen) -> ad.AnnData:
    """Four cells of each of ten lines, with counts."""
    log2_tpm = screen[0].iloc[:10]
    counts = downsample(np.exp2(log2_tpm.to_numpy()) - 1, 3_000, repeats=4, rng=3)
    obs = pd.DataFrame({"line": pd.Categorical(log2_tpm.index.tolist() * 4), "donor": np.arange(40) // 10})
    obs.index = [f"cell{i}" for i in range(40)]
    return ad.AnnData(
        sp.csr_matrix(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=log2_tpm.columns)
    )


def respond(adata, model, **options):
    """Predictions, without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scellm.tl.drug_response(adata, model=model, **options)
    return adata.obsm[options.get("key_added", KEY)]


def test_what_is_written(cells, model):
    values = respond(cells, model)
    record = cells.uns[KEY]
    assert values.shape == (40, 6)
    assert values.dtype == np.float32
    assert (cells.obs[f"{KEY}_uncertainty"] > 0).all()
    assert (record["std_unit"] > 0).all()
    assert record["drugs"].tolist() == model.drugs["name"].tolist()[:6]
    assert record["groupby"] == ""
    assert record["model"] == "toy"
    assert record["target"][0] == "EGFR"
    assert cells.obs[f"{KEY}_applicability"].dtype == np.float32
    assert not [column for column in cells.obs if ":" in column]


def test_sensitive_kinds_are_predicted_to_be_sensitive(cells, model):
    respond(cells, model, drugs=NAMES)
    kind = cells.obs["line"].str.removeprefix("line").astype(int).to_numpy() % 4
    braf = cells.obs[f"{KEY}:BRAF-inhibitor a"].to_numpy()
    assert braf[kind == 1].mean() < braf[kind != 1].mean() - 0.5


def test_groups_get_the_prediction_of_their_sum(cells, model):
    respond(cells, model, groupby="line")
    sums = pd.DataFrame(cells.X.toarray(), index=cells.obs["line"]).groupby(level=0, observed=True).sum()
    bulk = ad.AnnData(
        sums.to_numpy(np.float32), var=cells.var, obs=pd.DataFrame(index=sums.index.astype(str))
    )
    expected = pd.DataFrame(respond(bulk, model), index=sums.index)
    np.testing.assert_allclose(cells.obsm[KEY], expected.loc[cells.obs["line"]].to_numpy(), atol=1e-4)
    assert cells.uns[KEY]["groupby"] == "line"


@pytest.mark.parametrize("form", ["csc", "dense", "log1p", "ensembl", "shuffled genes"])
def test_the_form_of_the_input_does_not_matter(cells, model, form):
    expected = respond(cells.copy(), model)
    if form == "csc":
        cells.X = cells.X.tocsc()
    elif form == "dense":
        cells.X = cells.X.toarray()
    elif form == "log1p":
        total = np.asarray(cells.X.sum(1))
        cells.X = sp.csr_matrix(np.log1p(cells.X.toarray() / total * 1e4))
    elif form == "ensembl":
        vocabulary = scellm.data.GeneVocabulary.default()
        cells.var_names = vocabulary.ensembl_ids[vocabulary.match(cells.var_names).ids]
    else:
        cells = cells[:, np.random.default_rng(0).permutation(cells.n_vars)].copy()
    np.testing.assert_allclose(respond(cells, model), expected, atol=2e-2 if form == "log1p" else 1e-4)


def test_a_cell_does_not_depend_on_its_company(cells, model):
    alone = respond(cells[7:8].copy(), model)
    np.testing.assert_allclose(respond(cells, model)[7:8], alone, atol=1e-4)


def test_drugs_by_target_and_class_and_smiles(cells, model):
    respond(cells, model, drugs=["TUBB", "DNA replication"], smiles={"new / one": "CCOc1ccccc1"})
    assert cells.uns[KEY]["drugs"].tolist()[-1] == "new / one"
    assert len(cells.uns[KEY]["drugs"]) == 5
    assert f"{KEY}:new | one" in cells.obs
    assert cells.uns[KEY]["std_extra"][-1] > 0
    assert (cells.uns[KEY]["std_extra"][:-1] == 0).all()
    assert np.isnan(cells.uns[KEY]["pearson"][-1])


def test_a_list_of_smiles_alone_leaves_the_panel_out(cells, model):
    respond(cells, model, smiles=["CCO", "CCN"])
    assert cells.uns[KEY]["drugs"].tolist() == ["CCO", "CCN"]


def test_results_survive_files(cells, model, tmp_path):
    respond(cells, model, drugs=NAMES, smiles={"a/b": "CCO"})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.obsm[KEY], cells.obsm[KEY])
    assert again.uns[KEY]["drugs"].tolist() == cells.uns[KEY]["drugs"].tolist()
    pytest.importorskip("zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_zarr(tmp_path / "cells.zarr")
        again = ad.read_zarr(tmp_path / "cells.zarr")
    np.testing.assert_array_equal(again.obsm[KEY], cells.obsm[KEY])
    assert again.uns[KEY]["groupby"] == ""


def test_asking_again_replaces_the_columns_of_before(cells, model):
    respond(cells, model, drugs=NAMES)
    respond(cells, model, drugs="TUBB")
    assert [c for c in cells.obs if ":" in c] == [f"{KEY}:TUBB-inhibitor a", f"{KEY}:TUBB-inhibitor b"]


def test_two_keys_live_side_by_side(cells, model):
    respond(cells, model)
    respond(cells, model, key_added="mine", drugs=NAMES)
    assert cells.obsm[KEY].shape == (40, 6)
    assert cells.obsm["mine"].shape == (40, 2)


# -- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"drugs": "EGFR-inhibitr a"}, KeyError, "Did you mean 'EGFR-inhibitor a'"),
        ({"smiles": "C1CC"}, ValueError, "no valid SMILES.*unclosed ring"),
        ({"smiles": []}, ValueError, "smiles= is empty"),
        ({"smiles": 3}, TypeError, "smiles= takes SMILES"),
        ({"smiles": {" ": "CCO"}}, ValueError, "empty name"),
        ({"smiles": {"x/y": "CCO", "x|y": "CCN"}}, ValueError, "two columns"),
        ({"smiles": pd.Series(["CCO", "CCN"], ["x", "x"])}, ValueError, "two columns"),
        ({"drugs": 3}, TypeError, "drugs= takes a name or several"),
        ({"groupby": ["line", "donor"]}, TypeError, "is named by text"),
        ({"drugs": NAMES, "smiles": {NAMES[0]: "CCO"}}, ValueError, "two columns"),
        ({"groupby": "nothing"}, KeyError, "is not in `adata.obs`"),
        ({"layer": "nothing"}, KeyError, "not in `adata.layers`"),
        ({"key_added": "a/b"}, ValueError, "cannot be written"),
        ({"min_overlap": 2}, ValueError, "is a fraction of the model's genes"),
    ],
    ids=[
        *(
            "name",
            "smiles",
            "no smiles",
            "number for smiles",
            "no name",
            "one column",
            "names twice",
            "number",
        ),
        *("two groupby", "twice", "groupby", "layer", "key", "overlap"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(cells, model, options, error, text):
    before = cells.copy()
    with pytest.raises(error, match=text):
        scellm.tl.drug_response(cells, model=model, **options)
    assert list(cells.obsm) == list(before.obsm)
    assert list(cells.obs) == list(before.obs)
    assert list(cells.uns) == list(before.uns)


def test_scaled_values_are_refused(cells, model):
    cells.X = cells.X.toarray() - cells.X.toarray().mean(0)
    with pytest.raises(ValueError, match="cannot be read as expression.*Negative values"):
        scellm.tl.drug_response(cells, model=model)


def test_too_few_genes_are_refused(cells, model):
    with pytest.raises(ValueError, match="vocabulary genes"):
        scellm.tl.drug_response(cells[:, :20].copy(), model=model)


def test_mouse_genes_are_refused(cells, model):
    cells.var_names = [name.capitalize() for name in cells.var_names]
    with pytest.raises(ValueError, match="mouse genes"):
        scellm.tl.drug_response(cells, model=model)


def test_all_groups_missing_is_refused(cells, model):
    cells.obs["cluster"] = pd.Categorical([None] * 40, ["a"])
    with pytest.raises(ValueError, match="No cell has a group"):
        scellm.tl.drug_response(cells, model=model, groupby="cluster")


def test_what_is_not_ours_is_not_overwritten(cells, model):
    cells.obsm[KEY] = np.ones((40, 2))
    with pytest.raises(ValueError, match="not written by tl.drug_response"):
        scellm.tl.drug_response(cells, model=model)


def test_results_whose_record_concat_dropped_are_replaced(cells, model):
    respond(cells, model, drugs=NAMES)
    both = ad.concat([cells, cells], index_unique="-")
    with pytest.warns(UserWarning, match="has no record .*concat.*it is replaced"):
        scellm.tl.drug_response(both, model=model, drugs=NAMES)
    np.testing.assert_allclose(both.obsm[KEY][:40], cells.obsm[KEY], rtol=1e-5)


def test_a_column_of_a_drug_that_is_not_ours_is_not_overwritten(cells, model):
    cells.obs[f"{KEY}:{NAMES[0]}"] = "measured"
    with pytest.raises(ValueError, match=r"already exists and was not written by tl.drug_response"):
        scellm.tl.drug_response(cells, model=model, drugs=NAMES)
    assert (cells.obs[f"{KEY}:{NAMES[0]}"] == "measured").all()
    assert KEY not in cells.obsm
    scellm.tl.drug_response(cells, model=model)  # no columns are written
    assert (cells.obs[f"{KEY}:{NAMES[0]}"] == "measured").all()


@pytest.mark.parametrize("file", [False, True], ids=["memory", "h5ad"])
def test_a_column_that_no_call_wrote_is_not_deleted(cells, model, tmp_path, file):
    respond(cells, model)  # the panel writes no columns
    cells.obs[f"{KEY}:{NAMES[0]}"] = 1.0
    if file:
        cells.write_h5ad(tmp_path / "cells.h5ad")
        cells = ad.read_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match=r"already exists and was not written by tl.drug_response"):
        scellm.tl.drug_response(cells, model=model, drugs=NAMES)
    respond(cells, model)
    assert (cells.obs[f"{KEY}:{NAMES[0]}"] == 1).all()


def test_columns_are_known_again_after_a_file(cells, model, tmp_path):
    respond(cells, model, drugs=NAMES, smiles={"a/b": "CCO"})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    respond(again, model)
    assert not [column for column in again.obs if ":" in column]


@pytest.mark.parametrize("index", [["n", "m"], [3, 7]], ids=["names", "row numbers"])
def test_names_of_a_series_of_smiles_are_kept(cells, model, index):
    respond(cells, model, smiles=pd.Series(["CCO", "CCN"], index))
    expected = ["n", "m"] if index[0] == "n" else ["CCO", "CCN"]
    assert cells.uns[KEY]["drugs"].tolist() == expected


def test_measurements_are_no_groups(cells, model):
    cells.obs["size"] = np.linspace(0, 1, cells.n_obs)
    with pytest.raises(TypeError, match=r"holds float64 numbers, not labels or groups"):
        scellm.tl.drug_response(cells, model=model, groupby="size")


@pytest.mark.parametrize("overlap", [-0.1, 5])
def test_an_overlap_is_a_fraction(cells, model, overlap):
    with pytest.raises(ValueError, match="is a fraction of the model's genes"):
        scellm.tl.drug_response(cells, model=model, min_overlap=overlap)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_groups_and_compounds_of_odd_names_survive_files(cells, model, tmp_path, suffix):
    cells.obs["g/x"] = pd.Categorical(np.array(["T cell/CD4+", "a:b", "ü"])[np.arange(cells.n_obs) % 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mixtures of kinds are unlike all lines
        scellm.tl.drug_response(cells, model=model, drugs=NAMES, groupby="g/x")
    del cells.obs["g/x"]  # files take a name with / for folders; values may hold anything
    cells.obs["g"] = pd.Categorical(np.array(["T cell/CD4+", "a:b", "ü"])[np.arange(cells.n_obs) % 3])
    cells.uns[KEY]["groupby"] = "g"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        getattr(cells, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
        back = getattr(ad, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    table, again = scellm.get.drug_response(cells), scellm.get.drug_response(back)
    pd.testing.assert_frame_equal(table, again, check_dtype=False)
    assert set(again["g"]) == {"T cell/CD4+", "a:b", "ü"}


def test_a_model_of_cells_is_refused(cells):
    with pytest.raises(ValueError, match="model of cells"):
        scellm.tl.drug_response(cells, model="scellm-small")


# -- warned of ----------------------------------------------------------------------------------------------------


def test_missing_and_empty_groups_are_said(cells, model):
    labels = ["a"] * 20 + ["b"] * 19 + [None]
    cells.obs["cluster"] = pd.Categorical(labels, ["a", "b", "nobody"])
    with pytest.warns(UserWarning, match="group") as said:
        scellm.tl.drug_response(cells, model=model, groupby="cluster")
    texts = " ".join(str(warning.message) for warning in said)
    assert "1 groups" in texts
    assert "nobody" in texts
    assert "1 cells have no group" in texts
    assert np.isnan(cells.obsm[KEY]).all(1).tolist() == [False] * 39 + [True]


def test_cells_without_counts_are_nan_and_said(cells, model):
    cells.X = sp.csr_matrix(cells.X.multiply((np.arange(40) != 3)[:, None]))
    with pytest.warns(UserWarning, match="1 of 40 cells express none"):
        scellm.tl.drug_response(cells, model=model)
    assert np.flatnonzero(np.isnan(cells.obsm[KEY]).any(1)).tolist() == [3]


def test_shallow_cells_are_said(screen, cells, model):
    counts = downsample(np.exp2(screen[0].to_numpy()[:10]) - 1, 60, repeats=4, rng=3)
    cells.X = sp.csr_matrix(counts, dtype=np.float32)
    with pytest.warns(UserWarning, match="Pass groupby="):
        scellm.tl.drug_response(cells, model=model)


def test_cells_unlike_all_lines_are_said(cells, model):
    cells.X = cells.X[:, np.random.default_rng(0).permutation(200)]
    far = dataclasses.replace(
        model, tensors=model.tensors | {"edge": np.full_like(model.tensors["edge"], 0.9)}
    )
    with pytest.warns(UserWarning, match="unlike any cancer cell line"):
        scellm.tl.drug_response(cells, model=far, groupby="line")
    assert (cells.obs[f"{KEY}_applicability"] > 1).mean() > 0.5


def test_a_single_group_outside_is_named(cells, model, monkeypatch):
    monkeypatch.setattr(
        "scellm.drugs._projection.NEAREST", 1.0
    )  # toy lines are nearer to each other than real ones
    shuffled = cells.X[:, np.random.default_rng(0).permutation(200)].toarray()
    odd = (cells.obs["line"] == "line3").to_numpy()
    cells.X = sp.csr_matrix(np.where(odd[:, None], shuffled, cells.X.toarray()))
    with pytest.warns(UserWarning, match=r"1 of 10 groups \(line3\) are unlike any cancer cell line"):
        scellm.tl.drug_response(cells, model=model, groupby="line")


def test_hardly_predictable_drugs_are_said_when_asked_for(cells, model):
    weak = dataclasses.replace(model, drugs=model.drugs.assign(pearson=0.05))
    with pytest.warns(UserWarning, match=r"Hardly predictable .*EGFR-inhibitor b"):
        scellm.tl.drug_response(cells, model=weak, drugs=NAMES)


def test_salts_are_said(cells, model):
    with pytest.warns(UserWarning, match="2 parts; the largest was used"):
        scellm.tl.drug_response(cells, model=model, smiles={"salt": "CCN.Cl"})
    assert "the largest was used" in cells.uns[KEY]["notes"]


@pytest.mark.parametrize("size", ["groups", "cells"])
def test_progress_is_shown_when_asked(cells, model, capsys, size):
    respond(cells, model, show_progress=True, groupby="line" if size == "groups" else None)
    assert "drug response" in capsys.readouterr().err


def test_groups_of_normalised_cells_add_up_like_their_counts(cells, model):
    """Each cell weighs by its counts, whatever form they have."""
    counts = cells.X.toarray()
    counts[::2] *= 5  # half of the cells are deeper
    counts[:, 0] = 1  # what one count became can be seen in every cell
    found = []
    for X in (counts, np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)):
        cells.X = X.astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what became of the cells is like no line
            scellm.tl.drug_response(cells, model=model, groupby="donor")
        found.append(cells.obsm[KEY].copy())
    np.testing.assert_allclose(found[1], found[0], atol=2e-3)


def test_sums_of_cells_are_not_read_as_bulk_and_sums_of_bulk_are(screen, model, monkeypatch):
    from scellm.drugs._profiles import DEEP
    from scellm.drugs._projection import CellLineProjector

    passed = []
    original = CellLineProjector.project

    def project(self, values, is_bulk=None):
        passed.append(is_bulk)
        return original(self, values, is_bulk)

    monkeypatch.setattr(CellLineProjector, "project", project)
    log2_tpm = screen[0].iloc[[0] * 60]
    deep = np.exp2(log2_tpm.to_numpy()) - 1
    deep *= 2 * DEEP / deep.sum(1, keepdims=True)
    deep[:, 0] = 1.0
    for profiles in (downsample(deep, 50_000, rng=0), deep.round()):
        obs = pd.DataFrame({"g": "all"}, index=[f"cell{i}" for i in range(60)])
        adata = ad.AnnData(profiles.astype(np.float32), obs=obs, var=pd.DataFrame(index=log2_tpm.columns))
        assert adata.X.sum() > DEEP
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scellm.tl.drug_response(adata, model=model, groupby="g")
    assert [is_bulk.tolist() for is_bulk in passed] == [[False], [True]]


def test_drugs_come_second(cells, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scellm.tl.drug_response(cells, "BRAF", model=model)
    assert cells.uns[KEY]["drugs"].tolist() == ["BRAF-inhibitor a", "BRAF-inhibitor b"]


@pytest.mark.parametrize(
    "wanted", ["EGFR", ["EGFR"], "toy 0", "egfr inhibitor-A", ["Mitosis", "BRAF"]], ids=str
)
def test_what_the_tool_takes_the_figure_takes(cells, model, wanted):
    respond(cells, model, key_added="all")
    respond(cells, model, key_added="some", drugs=wanted)
    ax = scellm.pl.drug_response(cells, wanted, key="all", groupby="line", sort=False, show=False)
    drawn = [text.get_text() for text in ax.get_xticklabels()]
    drugs = cells.uns["some"]["drugs"].tolist()
    assert drawn[: len(drugs)] == drugs


@pytest.mark.filterwarnings("ignore:.*unlike any cancer")
def test_texts_for_no_group_are_gaps_and_blanks_do_not_count(cells, model):
    cells.obs["g"] = np.array(["nan", "Unknown", "tumor", "tumor ", "stroma"], dtype=object)[
        np.arange(40) % 5
    ]
    with pytest.warns(UserWarning, match="16 cells have no group"):
        scellm.tl.drug_response(cells, model=model, groupby="g")
    assert np.isfinite(cells.obsm[KEY][:, 0]).sum() == 24
    assert len(np.unique(cells.obsm[KEY][np.isfinite(cells.obsm[KEY][:, 0]), 0])) == 2
    assert set(scellm.get.drug_response(cells)["g"]) == {"tumor", "stroma"}
