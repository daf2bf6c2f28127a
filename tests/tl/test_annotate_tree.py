"""tl.annotate on a tree of types: coarse to fine, restricted by tissue and type, and honest about what does not fit."""

import warnings

import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.annotation._annotator import Annotator
from scellm.annotation._gene_head import GeneHead
from scellm.annotation._looks import Looks
from scellm.annotation._restrict import class_mask, guess_tissue
from scellm.data import Expression
from scellm.metrics._calibration import softmax
from scellm.models import load
from scellm.tl import annotate, fit_reference
from scellm.tl._annotate_sources import read_cells
from scellm.tl._vectors import log_expression

KEY = "scellm_cell_type"
CELLS = scellm.datasets.toy_cells(320, n_vars=2000, n_donors=4)
BROAD = {"B cell": "lymphocyte", "CD4 T cell": "lymphocyte", "NK cell": "lymphocyte", "monocyte": "myeloid"}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def adata():
    return CELLS[200:].copy()


@pytest.fixture
def reference():
    found = CELLS[:200].copy()
    found.obs["broad"] = found.obs["cell_type"].astype(str).map(lambda x: BROAD.get(x, "lymphocyte"))
    return found


@pytest.fixture(scope="module")
def shipped():
    return Annotator.from_part(load("scellm-small").parts["reference"])


def run(adata, reference, model, **options):
    """Annotate with a reference of one's own, by way of `fit_reference` where it has levels."""
    if "levels" in options:
        fitted = fit_reference(reference, "cell_type", model=model, levels=options.pop("levels"))
        annotate(adata, fitted, novelty_error=None, **options)
    else:
        annotate(adata, model, reference=reference, labels="cell_type", novelty_error=None, **options)
    return adata.uns[KEY]


def test_frequent_names_that_were_mostly_wrong_are_told(capsys, shipped):
    """The record of each name in studies left out is in `uns` and in the table."""
    adata = CELLS[:120].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toys
        annotate(adata)
        assert "memory CD4 T cell" not in set(adata.obs[KEY])
        capsys.readouterr()
        annotate(adata, min_confidence=0.5)
    record, table = adata.uns[KEY], scellm.get.annotation(adata)
    place = list(record["nodes"]).index("memory CD4 T cell")
    assert record["precision_left_out"][place] < 0.5 < record["recall_left_out"][place]
    row = table.set_index("label").loc["memory CD4 T cell"]
    assert row["precision_left_out"] == record["precision_left_out"][place]
    assert "'memory CD4 T cell'" in capsys.readouterr().err
    unknown = [name for name in shipped.tree.names if "photoreceptor" in name]
    assert np.isnan(
        [record["precision_left_out"][list(record["nodes"]).index(name)] for name in unknown]
    ).all()


# -- levels of one's own ----------------------------------------------------------------------------------------


def test_levels_of_columns(adata, reference, bag_model):
    record = run(adata, reference, bag_model, levels="broad", min_confidence=None)
    fine = adata.obs[KEY].astype(str)
    assert set(adata.obs[f"{KEY}_coarse"].astype(str)) <= {"lymphocyte", "myeloid"}
    paths = dict(zip(record["nodes"], record["paths"], strict=True))
    assert all(paths[x].split(" > ")[0] == y for x, y in zip(fine, adata.obs[f"{KEY}_coarse"], strict=True))
    assert f"{KEY}_ontology_id" not in adata.obs
    flat = CELLS[200:].copy()
    run(flat, reference, bag_model)
    assert (flat.obs[KEY].astype(str) == fine).mean() > 0.95
    assert f"{KEY}_coarse" not in flat.obs
    assert "nodes" not in flat.uns[KEY]


def test_a_cell_between_two_types_gets_the_broader_one(adata, reference, bag_model):
    """Two types that are one cannot be told apart; what they have in common can."""
    labels = reference.obs["cell_type"].astype(str).to_numpy().copy()
    monocytes = np.flatnonzero(labels == "monocyte")
    labels[monocytes[::2]] = "monocyte/2"
    reference.obs["cell_type"] = labels
    reference.obs["broad"] = np.where(
        np.char.startswith(labels.astype(str), "monocyte"), "myeloid", "lymphocyte"
    )
    is_one = (adata.obs["cell_type"] == "monocyte").to_numpy()
    run(adata, reference, bag_model, levels="broad", min_confidence=0.9)
    assert (adata.obs[KEY] == "myeloid")[is_one].mean() > 0.5
    assert (adata.obs[KEY] == "unassigned").mean() < 0.1
    run(adata, reference, bag_model, levels="broad", target_error=0.02)
    assert (adata.obs[KEY] == "myeloid")[is_one].mean() > 0.2
    sets = adata.obsm[f"{KEY}_set"]
    assert (sets[(adata.obs[KEY] == "myeloid").to_numpy()].sum(1) == 2).all()
    assert adata.obs[f"{KEY}_set_size"].max() <= 5


def test_levels_of_ontology_ids(adata, reference, bag_model):
    ids = {
        "B cell": "CL:0000236",
        "CD4 T cell": "CL:0000624",
        "NK cell": "CL:0000623",
        "monocyte": "CL:0000576",
    }
    names = reference.obs["cell_type"].astype(str)
    ids |= {name: "CL:0000625" for name in names.unique() if name not in ids}
    reference.obs["term"] = names.map(ids)
    run(adata, reference, bag_model, levels="term", min_confidence=None)
    right = adata.obs["cell_type"].astype(str).map(ids)
    assert (adata.obs[f"{KEY}_ontology_id"].astype(str) == right).mean() > 0.9
    reference.obs.loc[reference.obs_names[0], "term"] = "CL:0000182"
    with pytest.raises(ValueError, match=r"has CL:.*CL:.* for .*; one id of the Cell Ontology per type"):
        run(adata, reference, bag_model, levels="term")


# -- restriction --------------------------------------------------------------------------------------------------


def test_restriction_of_flat_labels(adata, reference, bag_model):
    kept = ["B cell", "CD4 T cell", "NK cell"]
    kept = [name for name in kept if name in set(reference.obs["cell_type"])]
    with pytest.warns(
        UserWarning, match=r"% of the cells look most like a type that .* left out \(monocyte\)"
    ):
        run(adata, reference, bag_model, classes=kept)
    assert set(adata.obs[KEY]) <= set(kept)
    np.testing.assert_allclose(adata.obsm[f"{KEY}_probabilities"].sum(1), 1, rtol=1e-5)
    assert adata.obsm[f"{KEY}_probabilities"][:, list(adata.uns[KEY]["classes"]).index("monocyte")].max() == 0
    with pytest.raises(ValueError, match=r"exclude= names 'monocite', .* The nearest: 'monocyte'"):
        run(adata, reference, bag_model, exclude="monocite")
    with pytest.raises(ValueError, match="leave 'monocyte' alone; two are needed"):
        run(adata, reference, bag_model, classes="monocyte")
    with pytest.raises(ValueError, match="this reference does not say"):
        run(adata, reference, bag_model, tissue="blood")


def test_tissue_keeps_its_types_and_those_of_all_tissues(shipped):
    mask = class_mask(shipped, tissue="pancreas", classes=None, exclude=None)
    kept = {name for name, x in zip(shipped.classes, mask, strict=True) if x}
    assert {"beta cell", "acinar cell", "fibroblast", "macrophage", "naive B cell"} <= kept
    assert not {"rod photoreceptor", "hepatocyte", "microglia", "sperm"} & kept
    by_id = class_mask(shipped, tissue="UBERON:0001264", classes=None, exclude=None)
    np.testing.assert_array_equal(mask, by_id)
    blood = class_mask(shipped, tissue="blood", classes=None, exclude=None)
    assert "fibroblast" not in {name for name, x in zip(shipped.classes, blood, strict=True) if x}
    both = class_mask(shipped, tissue=["blood", "pancreas"], classes=None, exclude=None)
    np.testing.assert_array_equal(both, mask | blood)
    with pytest.raises(ValueError, match="tissue='pancras' is unknown. The nearest: 'pancreas'"):
        class_mask(shipped, tissue="pancras", classes=None, exclude=None)


def test_types_are_known_by_name_synonym_and_id(shipped):
    masks = [
        class_mask(shipped, tissue=None, classes=[name, "NK cell"], exclude=None)
        for name in ("beta cell", "type B pancreatic cell", "CL:0000169", "Beta Cell")
    ]
    assert all((mask == masks[0]).all() for mask in masks)
    lymphocytes = class_mask(shipped, tissue=None, classes="lymphocyte", exclude="NK cell")
    kept = {name for name, x in zip(shipped.classes, lymphocytes, strict=True) if x}
    assert "regulatory T cell" in kept
    assert not {"NK cell", "decidual NK cell", "beta cell"} & kept
    with pytest.raises(ValueError, match=r"classes= names 'beta cel'.*'beta cell'"):
        class_mask(shipped, tissue=None, classes="beta cel", exclude=None)


def test_dendritic_cells_are_called_as_their_sources_call_them(shipped):
    """The ontology has DC2 for plasmacytoid cells; the labels that the reference learned from mean cDC2."""
    for name, meant in (("DC1", "cDC1"), ("DC2", "cDC2")):
        mask = class_mask(shipped, tissue=None, classes=[name, "mast cell"], exclude=None)
        assert {shipped.classes[k] for k in np.flatnonzero(mask)} == {meant, "mast cell"}


def test_tissue_is_guessed_from_types_of_few_tissues(shipped):
    def cells(**shares):
        p = np.zeros((1, len(shipped.classes)))
        for name, share in shares.items():
            p[0, shipped.classes.index(name.replace("_", " "))] = share
        return Looks.of([p], p.shape[1])

    assert guess_tissue(shipped, cells(beta_cell=0.3, fibroblast=0.3, NK_cell=0.4)) == "pancreas"
    assert guess_tissue(shipped, cells(NK_cell=0.5, classical_monocyte=0.5)) == "blood"
    assert guess_tissue(shipped, cells(NK_cell=0.5, erythroblast=0.5)) == "bone marrow"
    assert guess_tissue(shipped, cells(fibroblast=0.6, NK_cell=0.4)) == ""


# -- the shipped reference ------------------------------------------------------------------------------------------


def test_shipped_reference_has_names_of_labs_and_a_tree(shipped):
    tree, types = shipped.tree, shipped.facts["types"]
    assert len(types) == len(tree.names)
    assert dict(zip(tree.names, tree.ids, strict=True))["beta cell"] == "CL:0000169"
    assert tree.path(tree.names.index("regulatory T cell")) == [
        "blood cell",
        "lymphocyte",
        "T or NK cell",
        "T cell",
        "CD4 T cell",
        "regulatory T cell",
    ]
    beta = types[tree.names.index("beta cell")]
    assert "type B pancreatic cell" in beta["synonyms"]
    assert beta["tissues"] == ["pancreas"]
    assert "INS" in beta["markers"]
    assert beta["n_measured"] > 0
    assert (tree.lineage[tree.node_of_class] >= 0).all()


def test_cells_that_do_not_fit_the_shipped_reference_are_told():
    adata = scellm.datasets.toy_cells(60, n_vars=2000)
    adata.var_names = adata.var_names[np.random.default_rng(0).permutation(adata.n_vars)]
    with pytest.warns(UserWarning, match="These cells do not fit the shipped reference: .*get.annotation"):
        annotate(adata)
    record = adata.uns[KEY]
    assert not record["fits"]
    assert record["doubts"]
    assert record["summary"].startswith("60 cells: ")
    table = scellm.get.annotation(adata, groupby="cell_type")
    assert table["n_cells"].sum() == 60
    assert table["share"].between(0, 1).all()


def test_results_of_a_tree_survive_files(adata, reference, bag_model, tmp_path):
    import anndata as ad

    run(adata, reference, bag_model, levels="broad", target_error=0.1)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    assert again.uns[KEY]["paths"].tolist() == adata.uns[KEY]["paths"].tolist()


def test_a_second_call_takes_away_what_the_first_left(adata, reference, bag_model):
    run(adata, reference, bag_model, levels="broad", target_error=0.1)
    run(adata, reference, bag_model)
    assert not {f"{KEY}_coarse", f"{KEY}_set_size"} & set(adata.obs)


def test_cells_of_the_shipped_reference_are_recognized(monkeypatch):
    import dataclasses

    from scellm.metrics._cell_hashes import cell_hashes
    from scellm.models._parts import Part
    from scellm.tl._vectors import log_expression

    adata = scellm.datasets.toy_cells(40, n_vars=4000)
    model = load("scellm-small")
    logged, _ = log_expression(adata[:10].copy(), model, {})
    part = model.parts["reference"]
    marks = cell_hashes(logged, list(model.vocabulary.symbols))
    seen = dataclasses.replace(
        model, parts={"reference": Part(tensors={**part.tensors, "cell_hashes": marks}, meta=part.meta)}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        annotate(adata, seen)
    assert any(
        "25 % of the cells looked at are in the shipped reference itself" in str(x.message) for x in caught
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        annotate(adata, model)
    assert not any("in the shipped reference itself" in str(x.message) for x in caught)


# -- genes beside the embedding ---------------------------------------------------------------------------------


def test_genes_have_their_say(adata, reference, bag_model, rng):
    fitted = fit_reference(reference, "cell_type", model=bag_model)
    annotator = Annotator.from_part(fitted.parts["cell_type"])
    known = np.flatnonzero(np.isin(fitted.vocabulary.symbols, adata.var_names))
    ids, n_classes = rng.permutation(known)[:50], len(annotator.classes)
    annotator.gene_head = head = GeneHead(
        genes=[str(x) for x in fitted.vocabulary.symbols[ids]],
        centre=np.zeros(50, np.float32),
        scale=np.ones(50, np.float32),
        weight=rng.normal(size=(n_classes, 50)).astype(np.float16).astype(np.float32),
        bias=np.zeros(n_classes, np.float32),
        kept=0.5,
    )
    fitted.parts["cell_type"] = annotator.to_part()
    adata.X = adata.X.multiply(np.arange(adata.n_obs)[:, None] != 3).tocsr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the empty cell
        annotate(adata, fitted, novelty_error=None, align=False)
    found = adata.obsm[f"{KEY}_probabilities"]
    full = np.arange(adata.n_obs) != 3
    assert np.isnan(found[3]).all()
    logged, has = log_expression(adata, fitted, {}, ids)
    logits = 0.5 * annotator.logits(adata.obsm["X_scellm"][full]) + head.logits(logged[full], has[ids])
    expected = softmax(logits / annotator.calibration.temperature)
    np.testing.assert_allclose(found[full], expected, atol=1e-5)
    few = adata[:, ~np.isin(adata.var_names, head.genes)].copy()
    with pytest.warns(UserWarning, match="express no vocabulary gene"):
        scores = read_cells(few, annotator, fitted, {}).genes
    assert scores.kept == 1
    assert not scores.values.any()


def test_rows_are_scaled_once_for_the_embedding_and_for_genes(adata, reference, bag_model, rng, monkeypatch):
    fitted = fit_reference(reference, "cell_type", model=bag_model)
    annotator = Annotator.from_part(fitted.parts["cell_type"])
    ids = np.flatnonzero(np.isin(fitted.vocabulary.symbols, adata.var_names))[:20]
    annotator.gene_head = GeneHead(
        genes=[str(x) for x in fitted.vocabulary.symbols[ids]],
        centre=np.zeros(20, np.float32),
        scale=np.ones(20, np.float32),
        weight=rng.normal(size=(len(annotator.classes), 20)).astype(np.float32),
        bias=np.zeros(len(annotator.classes), np.float32),
        kept=0.5,
    )
    scaled, linear = [], Expression.linear

    def counted(self, block):
        scaled.append(block.shape[0])
        return linear(self, block)

    monkeypatch.setattr(Expression, "linear", counted)
    found = read_cells(adata, annotator, fitted, {})
    assert sum(scaled) == adata.n_obs
    logged, has = log_expression(adata, fitted, {}, ids)
    np.testing.assert_allclose(
        found.genes.values, annotator.gene_head.scores(logged, has[ids]).values, rtol=1e-4, atol=1e-5
    )
