"""tl.annotate: the right type, an honest confidence, and an answer for cells that have none."""

import dataclasses
import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.annotation import _fit as fit_file
from scellm.models import load, save
from scellm.tl import _annotate_results as results_file
from scellm.tl import _vectors as vectors_file
from scellm.tl import annotate, fit_reference

KEY = "scellm_cell_type"
CELLS = scellm.datasets.toy_cells(320, n_vars=2000, n_donors=4)


@pytest.fixture
def adata():
    return CELLS[200:].copy()


@pytest.fixture
def reference():
    return CELLS[:200].copy()


@pytest.fixture
def run(bag_model):
    """Annotate with the small model and the reference's types, by way of `fit_reference` where its options are needed."""

    def annotated(adata, reference, **options):
        options = {"model": bag_model, "labels": "cell_type", **options}
        fitting = {name: options.pop(name) for name in ("method", "val_by") if name in options}
        if fitting:
            fitting |= {"min_overlap": options["min_overlap"]} if "min_overlap" in options else {}
            options["model"] = fit_reference(
                reference, options.pop("labels"), model=options["model"], **fitting
            )
            assert annotate(adata, **options) is None
        else:
            assert annotate(adata, reference=reference, **options) is None
        return adata.uns[options.get("key_added", KEY)]

    return annotated


def accuracy(adata, key=KEY):
    return (adata.obs[key].astype(str) == adata.obs["cell_type"].astype(str)).mean()


# -- the three ways -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "linear", "prototype", "knn", "logistic"])
def test_reference(adata, reference, run, method):
    record = run(adata, reference, method=method, target_error=0.1, novelty_error=0.01)
    assert accuracy(adata) > (0.9 if method in ("auto", "linear", "logistic") else 0.6)
    assert record["mode"] == "reference"
    assert record["method"] == method or method == "auto"
    n, types = adata.n_obs, adata.obs["cell_type"].cat.categories
    probabilities = adata.obsm[f"{KEY}_probabilities"]
    assert record["classes"].tolist() == sorted(types)
    assert probabilities.shape == (n, 4)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(adata.obs[f"{KEY}_confidence"], probabilities.max(1))
    assert adata.obsm[f"{KEY}_set"].sum(1).tolist() == adata.obs[f"{KEY}_set_size"].tolist()
    assert isinstance(adata.obs[KEY].dtype, pd.CategoricalDtype)
    assert adata.obs[f"{KEY}_novelty"].dtype == np.float32


def test_auto_takes_the_winner_on_held_out_cells(adata, reference, run):
    record = run(adata, reference)
    scores = {name: record["held_out"][f"macro_f1_{name}"] for name in ("linear", "prototype", "knn")}
    assert record["method"] == max(scores, key=scores.get)
    assert f"method {record['method']!r}. It won on held-out cells" in record["message"]


def test_shuffled_labels_are_not_believed(adata, reference, run):
    reference.obs["cell_type"] = np.random.default_rng(0).permutation(reference.obs["cell_type"])
    record = run(adata, reference, target_error=0.1)
    assert record["held_out"]["macro_f1"] < 0.45
    assert adata.obs[f"{KEY}_confidence"].mean() < 0.5
    assert adata.obs[f"{KEY}_set_size"].mean() > 3
    assert record["n_unassigned"] > 0.9 * adata.n_obs


def test_whole_groups_are_held_out(adata, reference, run, monkeypatch):
    seen = []
    folds = fit_file.fit_annotator.__globals__["folds"]

    def watched(codes, groups, *args):
        for train, test in folds(codes, groups, *args):
            seen.append(set(groups[train]) & set(groups[test]))
            yield train, test

    monkeypatch.setitem(fit_file.fit_annotator.__globals__, "folds", watched)
    record = run(adata, reference, val_by="donor")
    assert record["held_out"]["held_out"] == "groups"
    assert record["held_out"]["n_groups"] == 4
    assert seen == [set()] * 4


def test_pretrained_and_fine_tuned_come_from_the_parts(adata, reference, run, bag_model, tmp_path):
    run(adata, reference)
    fitted = fit_reference(reference, "cell_type", model=bag_model).parts["cell_type"]
    fitted.meta["facts"] = {}
    for part, way in (("reference", "pretrained"), ("cell_type", "fine-tuned")):
        model = dataclasses.replace(bag_model, parts={part: fitted})
        again = adata.copy()
        annotate(again, model=load(save(model, tmp_path / part)))
        assert again.uns[KEY]["mode"] == way
        assert (again.obs[KEY] == adata.obs[KEY]).all()
        np.testing.assert_allclose(
            again.obsm[f"{KEY}_probabilities"], adata.obsm[f"{KEY}_probabilities"], atol=1e-5
        )


def test_shipped_reference():
    adata = scellm.datasets.toy_cells(8, n_vars=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toys are far from everything
        annotate(adata)
    record = adata.uns[KEY]
    assert record["mode"] == "pretrained"
    assert "NK cell" in record["classes"]
    assert dict(zip(record["classes"], record["ontology_ids"], strict=True))["naive B cell"] == "CL:0000788"
    assert record["sha256"] == load("scellm-small").sha256


# -- confidence, sets, novelty --------------------------------------------------------------------------------


def test_sets_cover_new_cells(adata, reference, run):
    """A random encoder of few dimensions errs often enough that sets are put to the test."""
    for error in (0.05, 0.2):
        record = run(adata, reference, method="knn", target_error=error, novelty_error=None)
        truth = np.searchsorted(record["classes"].astype(str), adata.obs["cell_type"].astype(str))
        covered = adata.obsm[f"{KEY}_set"][np.arange(adata.n_obs), truth].mean()
        assert covered >= 1 - error - 0.08


@pytest.fixture
def doubtful(reference):
    """A reference with two types that are one, so that cells of it cannot be told apart."""
    labels = reference.obs["cell_type"].astype(str).to_numpy().copy()
    monocytes = np.flatnonzero(labels == "monocyte")
    labels[monocytes[::2]] = "monocyte/2"
    reference.obs["cell_type"] = labels
    return reference


def test_only_cells_with_one_type_left_are_named(adata, doubtful, run):
    run(adata, doubtful, target_error=0.05, novelty_error=None)
    several = adata.obs[f"{KEY}_set_size"] > 1
    assert several.any()
    assert (adata.obs.loc[several, KEY] == "unassigned").all()
    assert (adata.obs.loc[~several, KEY] != "unassigned").all()


def test_min_confidence(adata, doubtful, run):
    run(adata, doubtful, min_confidence=0.8, novelty_error=None)
    low = adata.obs[f"{KEY}_confidence"] < 0.8
    assert low[adata.obs["cell_type"] == "monocyte"].mean() > 0.5
    assert low[adata.obs["cell_type"] != "monocyte"].mean() < 0.2
    assert ((adata.obs[KEY] == "unassigned") == low).all()


def test_type_that_the_reference_lacks_is_novel_not_unassigned(adata, reference, run):
    known = reference[reference.obs["cell_type"] != "monocyte"].copy()
    record = run(adata, known, min_confidence=0.0)
    is_new = adata.obs["cell_type"] == "monocyte"
    assert (adata.obs[KEY] == "novel")[is_new].mean() > 0.8
    assert (adata.obs[KEY] == "novel")[~is_new].mean() < 0.15
    assert record["n_novel"] == (adata.obs[KEY] == "novel").sum()
    assert ((adata.obs[f"{KEY}_novelty"] > 1) == (adata.obs[KEY] == "novel")).all()
    run(adata, known, novelty_error=None)
    assert "novel" not in adata.obs[KEY].cat.categories
    assert adata.obs[f"{KEY}_novelty"].isna().all()


def test_false_alarms_are_as_asked(adata, reference, run):
    for error in (0.02, 0.2):
        run(adata, reference, novelty_error=error, align=False)
        assert abs((adata.obs[KEY] == "novel").mean() - error) < 0.08


def test_cells_that_are_all_farther_off(adata, reference, run):
    """Another protocol: a few genes lost. The shift is taken off, and said."""
    lost = np.random.default_rng(0).random(adata.n_vars) < 0.3
    adata.X = adata.X.multiply(~lost).tocsr()
    with pytest.warns(UserWarning, match=r"% of the cells are novel: .*another|Another tissue"):
        run(adata, reference, align=False)
    with_shift = adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = run(with_shift, reference)
    assert record["novelty_shift"] > 1.2
    assert (with_shift.obs[KEY] == "novel").mean() < (adata.obs[KEY] == "novel").mean() / 2


def test_shift_is_said(adata, reference, run, monkeypatch):
    monkeypatch.setattr(results_file, "LARGE_SHIFT", 0.5)
    with pytest.warns(
        UserWarning,
        match=r"The cells are .* times as far from the reference .*fit_reference\(\.\.\., val_by=\)",
    ):
        run(adata, reference)


def test_cells_without_genes_are_unassigned(adata, reference, run):
    adata.X = adata.X.multiply(np.arange(adata.n_obs)[:, None] != 3).tocsr()
    with pytest.warns(UserWarning, match="1 of 120 cells .* express no vocabulary gene"):
        record = run(adata, reference, target_error=0.1)
    assert adata.obs[KEY].iloc[3] == "unassigned"
    assert adata.obs[f"{KEY}_confidence"].iloc[3] == 0
    assert np.isnan(adata.obsm[f"{KEY}_probabilities"][3]).all()
    assert adata.obs[f"{KEY}_set_size"].iloc[3] == 4
    assert record["n_empty"] == 1


# -- votes ----------------------------------------------------------------------------------------------------


def test_clusters_get_one_label(adata, reference, run):
    adata.obs["cluster"] = adata.obs["cell_type"].astype(str).map(lambda name: f"c/{name}")
    record = run(adata, reference, method="knn", groupby="cluster", novelty_error=None)
    assert (adata.obs.groupby("cluster", observed=True)[KEY].nunique() == 1).all()
    assert accuracy(adata) == 1
    assert record["majority_vote"]
    labels = pd.Index(record["classes"]).get_indexer(adata.obs[KEY].astype(str))
    np.testing.assert_array_equal(
        adata.obs[f"{KEY}_confidence"], adata.obsm[f"{KEY}_probabilities"][np.arange(120), labels]
    )


def test_majority_vote_of_small_clusters(adata, reference, run):
    run(adata, reference, groupby="auto", novelty_error=None)
    assert adata.uns[KEY]["majority_vote"]


# -- embedding ------------------------------------------------------------------------------------------------


def test_embedding_is_reused_only_if_it_is_of_this_model_and_matrix(
    adata, reference, run, bag_model, make_bag_model, monkeypatch
):
    scellm.tl.embed(adata, bag_model)
    assert run(adata, reference)["embedding_reused"]
    adata.layers["counts"] = adata.X.copy()
    assert not run(adata, reference, layer="counts")["embedding_reused"]
    scellm.tl.embed(adata, dataclasses.replace(bag_model, sha256="1" * 64))
    assert not run(adata, reference)["embedding_reused"]
    unsaved = dataclasses.replace(bag_model, sha256="")
    scellm.tl.embed(adata, unsaved)
    assert not run(adata, reference, model=unsaved)["embedding_reused"]


def test_embedding_is_kept_and_not_computed_twice(adata, reference, run, monkeypatch):
    calls = []
    embed_cells = vectors_file.embed_cells
    monkeypatch.setattr(vectors_file, "embed_cells", lambda *a, **k: calls.append(1) or embed_cells(*a, **k))
    run(adata, reference)
    assert len(calls) == 2
    assert list(adata.obsm) == [f"{KEY}_probabilities", "X_scellm"]
    assert list(reference.obsm) == []
    assert run(adata, reference)["embedding_reused"]
    assert len(calls) == 3  # the reference's
    adata.obsm["X_scellm"] = np.zeros((adata.n_obs, 2))
    run(adata, reference)
    assert not adata.obsm["X_scellm"].any()  # another embedding is the user's


def test_layers_and_gene_names(adata, reference, run):
    run(adata, reference)
    other = adata.copy()
    other.layers["counts"], other.X = other.X.copy(), other.X * 0
    other.var["symbol"], other.var_names = other.var_names, [f"g{i}" for i in range(other.n_vars)]
    run(other, reference, layer="counts", gene_key="symbol", key_added="mine")
    assert (other.obs["mine"] == adata.obs[KEY]).all()


def test_order_and_company_do_not_matter_without_the_shift(adata, reference, run):
    run(adata, reference, align=False)
    some = adata[[5, 3, 60]].copy()
    run(some, reference, align=False)
    assert (some.obs[KEY].astype(str) == adata.obs[KEY].astype(str).iloc[[5, 3, 60]]).all()


# -- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_a_round_trip(adata, reference, run, tmp_path, suffix):
    names = {"B cell": "B/plasma", "NK cell": "NK/T", "monocyte": "β ≥ 2", "CD4 T cell": "a.b"}
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.rename_categories(names)
    run(adata, reference, target_error=0.1)
    path = tmp_path / f"cells.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        getattr(adata, f"write_{suffix}")(path)
        back = getattr(ad, f"read_{suffix}")(path)
    assert (back.obs[KEY].astype(str) == adata.obs[KEY].astype(str)).all()
    assert sorted(back.uns[KEY]["classes"]) == sorted(names.values())
    for slot in ("probabilities", "set"):
        np.testing.assert_array_equal(back.obsm[f"{KEY}_{slot}"], adata.obsm[f"{KEY}_{slot}"])
    np.testing.assert_array_equal(
        back.uns[KEY]["held_out"]["coverage_by_class"], adata.uns[KEY]["held_out"]["coverage_by_class"]
    )


def test_backed_file(adata, reference, run, tmp_path):
    run(adata, reference)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    run(backed, reference, key_added="again")
    assert (backed.obs["again"].astype(str) == adata.obs[KEY].astype(str)).all()
    with pytest.raises(ValueError, match="Copies and views of a backed AnnData"):
        run(backed, reference, copy=True)


def test_earlier_sets_do_not_linger(adata, reference, run):
    run(adata, reference, target_error=0.1)
    run(adata, reference)
    assert f"{KEY}_set" not in adata.obsm
    assert f"{KEY}_set_size" not in adata.obs


# -- labels of the reference ----------------------------------------------------------------------------------


def test_cells_without_label_are_left_out_and_counted(adata, reference, run):
    run(adata, reference)
    some = reference.obs["cell_type"].astype(object)
    some.iloc[:10], some.iloc[10:13] = np.nan, "unassigned"
    reference.obs["cell_type"] = some
    with pytest.warns(
        UserWarning, match=r"13 of 200 cells in `reference` have no label .*of these 3 unassigned"
    ):
        record = run(adata, reference)
    assert record["held_out"]["n_cells"] == 187


def test_unused_categories_are_no_classes(adata, reference, run):
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.add_categories("platelet")
    assert "platelet" not in run(adata, reference)["classes"]


def test_class_with_one_cell_is_set_aside_and_named(adata, reference, run):
    labels = reference.obs["cell_type"].astype(str)
    labels.iloc[0] = "rare/one"
    reference.obs["cell_type"] = labels
    with pytest.warns(UserWarning, match=r"1 class of .* fewer than 2 cells was set aside: 'rare/one' \(1\)"):
        record = run(adata, reference)
    assert "rare/one" not in record["classes"]


def test_class_in_one_group_alone_is_named(adata, reference, run):
    labels = reference.obs["cell_type"].astype(str)
    labels[(reference.obs["donor"] == "donor0") & (labels == "B cell")] = "only there"
    reference.obs["cell_type"] = labels
    record = run(adata, reference, val_by="donor")
    at = record["classes"].tolist().index("only there")
    assert record["held_out"]["coverage_by_class"][0, at] == -1


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        (
            {},
            {"labels": "type"},
            KeyError,
            r"'type' is not in `reference.obs`, which has \['cell_type', 'donor'\]",
        ),
        ({}, {"labels": None}, ValueError, r"needs labels= .* reference.obs has \['cell_type', 'donor'\]"),
        (
            {"one": "T"},
            {"labels": "one"},
            ValueError,
            r"has 1 class with at least 2 cells; .* 'T' \(200 cells\)",
        ),
        ({"none": np.nan}, {"labels": "none"}, ValueError, r"has 0 classes .* It holds no labels at all"),
        ({"size": 1.5}, {"labels": "size"}, TypeError, r"holds float64 numbers, not labels"),
        ({}, {"groupby": "leiden"}, KeyError, r"'leiden' is not in `adata.obs`"),
        (
            {},
            {"target_error": 0},
            ValueError,
            r"target_error=0 is a share of cells; it must be above 0 and below 1",
        ),
        ({}, {"target_error": 1.0}, ValueError, r"target_error=1.0 is a share"),
        ({}, {"novelty_error": 5}, ValueError, r"novelty_error=5 is a share"),
        ({}, {"min_confidence": 2}, ValueError, r"min_confidence=2 is a probability"),
        ({}, {"layer": "counts"}, KeyError, r"'counts' is not in `adata.layers`"),
        ({}, {"key_added": "a/b"}, ValueError, r"cannot be written to h5ad"),
        ({}, {"key_added": "cell_type"}, ValueError, r"adata.obs\['cell_type'\]` already exists"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_faulty_arguments(adata, reference, run, change, options, error, text):
    for column, value in change.items():
        reference.obs[column] = value
    before = adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=text):
            run(adata, reference, **options)
    assert list(adata.obs) == list(before.obs)
    assert list(adata.obsm) == list(adata.uns) == []


def test_names_that_differ_only_by_case(adata, reference, run):
    labels = reference.obs["cell_type"].astype(str)
    labels.iloc[:4] = "b-cell"
    reference.obs["cell_type"] = labels
    with pytest.raises(
        ValueError, match=r"the classes 'B cell' and 'b-cell', which differ only by case.*replace\("
    ):
        run(adata, reference)


def test_names_are_stripped(adata, reference, run):
    labels = reference.obs["cell_type"].astype(str)
    labels.iloc[:4] = [f" {x}  " for x in labels.iloc[:4]]
    reference.obs["cell_type"] = labels
    assert len(run(adata, reference)["classes"]) == 4


def test_reference_with_other_genes(adata, reference, run):
    reference.var_names = [f"gene{i}" for i in range(reference.n_vars)]
    reference.var = reference.var[[]]
    with pytest.raises(ValueError, match=r"vocabulary genes .*need 10 %"):
        run(adata, reference)


def test_logistic_needs_shared_genes(adata, reference, run):
    with pytest.raises(ValueError, match=r"`adata` has \d+ of the \d+ genes of the head"):
        run(adata[:, :1000].copy(), reference[:, 990:].copy(), method="logistic", min_overlap=0)


def test_mouse_reference_is_mapped(adata, reference, run):
    """Not refused: its genes are known by their human orthologs, as in embed."""
    from scellm.data import GeneVocabulary

    reference.var_names = [name.capitalize() for name in reference.var_names]
    assert GeneVocabulary.default().match(list(reference.var_names)).organism == "mouse"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(adata, reference, min_overlap=0.02, novelty_error=None)
    assert accuracy(adata) > 0.6


def test_reference_that_is_the_query(adata, run):
    with pytest.warns(UserWarning, match="The reference and the cells to annotate are the same"):
        run(adata, adata)
    with pytest.warns(UserWarning, match="are the same"):
        run(adata, adata.copy())


def test_model_without_types(adata, bag_model):
    with pytest.raises(ValueError, match=r"'bag' knows no cell types: .* Pass reference= .*fine_tune"):
        annotate(adata, model=bag_model)


def test_head_of_another_encoder(adata, reference, bag_model, make_bag_model):
    fitted = fit_reference(reference, "cell_type", model=bag_model)
    other = dataclasses.replace(make_bag_model(dim=16), parts=fitted.parts)
    with pytest.raises(ValueError, match="takes vectors of 24 numbers, its encoder gives 16"):
        annotate(adata, model=other)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda part: part.meta["classes"].append("one more"), r"weight has shape \(4, 24\), 5 classes"),
        (lambda part: part.tensors.pop("weight"), r"This part is no annotator: weight missing"),
        (lambda part: part.meta.pop("classes"), r"This part is no annotator: classes missing"),
        (lambda part: part.meta.update(kind="forest"), r"a kind of .*found 'forest'"),
        (
            lambda part: part.tensors["exemplar_labels"].__setitem__(0, 9),
            r"exemplars of classes beyond its 4",
        ),
    ],
    ids=["classes", "tensor", "field", "kind", "exemplar"],
)
def test_head_that_does_not_fit_together(adata, reference, bag_model, change, text):
    part = fit_reference(reference, "cell_type", model=bag_model, method="linear").parts["cell_type"]
    change(part)
    with pytest.raises(ValueError, match=text):
        annotate(adata, model=dataclasses.replace(bag_model, parts={"cell_type": part}))


def test_arguments_about_a_reference_that_is_not_there(adata):
    with pytest.raises(
        ValueError, match=r"labels='cell_type' is about a reference, and none is given.*fine_tune"
    ):
        annotate(adata, labels="cell_type")
    with pytest.raises(TypeError, match="The reference must be an AnnData object, found DataFrame"):
        annotate(adata, reference=adata.obs, labels="cell_type")
    with pytest.raises(TypeError, match="Need an AnnData object, found ndarray"):
        annotate(np.ones((2, 2)))


def test_message_is_logged(adata, reference, run, caplog):
    with caplog.at_level("INFO", logger="scellm"):
        record = run(adata, reference)
    assert re.search("label transfer from 200 reference cells", caplog.text)
    assert record["message"] in caplog.text
