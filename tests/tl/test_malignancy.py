"""tl.malignancy: both kinds of evidence, what is written, what is refused; the shipped head on real cells."""

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

import scellm
from scellm.data import GeneVocabulary, TokenConfig
from scellm.models import CellLM
from scellm.models._parts import Part
from scellm.nn import CellLMConfig, Encoder
from scellm.tumors import load_genome, load_panel

KEY = "scellm_malignant"
CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"


def head(dim=16, seed=0, **meta):
    rng = np.random.default_rng(seed)
    return Part(
        tensors={
            "weight": rng.normal(0, 5, dim).astype(np.float32),
            "bias": np.array([0.3], dtype=np.float32),
        },
        meta={"trained_on": "toys", **meta},
    )


@pytest.fixture
def model():
    vocabulary = GeneVocabulary.default()
    config = CellLMConfig.named("tiny", n_genes=len(vocabulary))
    torch.manual_seed(0)
    return CellLM(
        encoder=Encoder(config).eval(),
        config=config,
        tokens=TokenConfig(),
        vocabulary=vocabulary,
        name="tiny",
        parts={"malignancy": head()},
    )


@pytest.fixture
def adata():
    return one_sample(scellm.datasets.toy_cells(12, n_vars=2000))


def one_sample(adata):
    """Toy cells without their donors."""
    del adata.obs["donor"]
    return adata


def test_expression_is_logistic_regression_on_the_unit_embedding(adata, model):
    before = adata.copy()
    assert scellm.tl.malignancy(adata, model) is None
    found = adata.obs[f"{KEY}_expression"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(adata.obs[KEY], found)  # so few genes tell nothing of copy number
    cells = scellm.tl.embed(before, model, copy=True).obsm["X_scellm"].astype(float)
    part = model.parts["malignancy"].tensors
    for i in range(12):  # a slow loop: the formula of the docstring
        x = cells[i] / np.sqrt((cells[i] ** 2).sum())
        expected = 1 / (1 + np.exp(-(float(part["weight"] @ x) + 0.3)))
        assert found.iloc[i] == pytest.approx(expected, abs=1e-5)
    assert found.std() > 0.01  # or the loop compares constants
    record = adata.uns[KEY]
    assert record["model"] == "tiny"
    assert record["trained_on"] == "toys"
    assert (adata.X != before.X).nnz == 0
    written = [
        KEY,
        *(f"{KEY}_{name}" for name in ("call", "expression", "copy_number", "clone", "sample", "label")),
    ]
    assert list(adata.obs.columns.difference(before.obs.columns)) == sorted(written)
    pd.testing.assert_frame_equal(adata.obs[list(before.obs)], before.obs)
    del adata.uns[KEY], adata.obsm[f"{KEY}_profile"]
    assert list(adata.uns) == list(before.uns)
    assert list(adata.obsm) == list(before.obsm)


def test_copy_and_key(adata, model):
    result = scellm.tl.malignancy(adata, model, copy=True, key_added="cancer?")
    assert result.obs["cancer?"].between(0, 1).all()
    assert "cancer?" not in adata.obs
    assert "cancer?" not in adata.uns


def test_a_row_depends_on_that_cell_alone(adata, model):
    scellm.tl.malignancy(adata, model)
    order = np.random.default_rng(0).permutation(12)[:7]
    some = adata[order].copy()
    scellm.tl.malignancy(some, model, batch_size=2, method="expression")
    np.testing.assert_allclose(some.obs[KEY], adata.obs[KEY].to_numpy()[order], atol=1e-5)


def test_layers_raw_and_log1p(adata, model):
    scellm.tl.malignancy(adata, model)
    expected = adata.obs[KEY].to_numpy()
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.raw = adata
    adata.X = sc.pp.scale(adata.X.toarray(), copy=True)
    for options in ({"layer": "counts"}, {"use_raw": True}):
        scellm.tl.malignancy(adata, model, **options)
        np.testing.assert_allclose(adata.obs[KEY], expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"`adata.X` cannot be read as expression.*scaled"):
        scellm.tl.malignancy(adata, model)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_a_round_trip(adata, model, tmp_path, suffix):
    scellm.tl.malignancy(adata, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
        back = getattr(ad, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    np.testing.assert_array_equal(back.obs[KEY], adata.obs[KEY])
    for name in ("samples", "arms"):
        for column, values in adata.uns[KEY][name].items():
            np.testing.assert_array_equal(np.asarray(back.uns[KEY][name][column]), values)
    assert list(back.obs[f"{KEY}_call"]) == list(adata.obs[f"{KEY}_call"])
    scellm.tl.malignancy(back, model)  # our own results are replaced


def test_empty_cells_are_nan(adata, model):
    X = adata.X.tolil()
    X[3] = 0
    adata.X = X.tocsr()
    with pytest.warns(UserWarning, match="1 of 12 cells in `adata.X` express no vocabulary gene"):
        scellm.tl.malignancy(adata, model)
    assert np.flatnonzero(adata.obs[KEY].isna()).tolist() == [3]
    with pytest.raises(ValueError, match="sc.pp.filter_cells"):
        scellm.tl.malignancy(adata, model, on_empty="raise")


def test_extreme_logits_do_not_overflow(adata, model):
    model.parts["malignancy"] = head()
    model.parts["malignancy"].tensors["bias"] = np.array([-1e5], dtype=np.float32)
    scellm.tl.malignancy(adata, model)
    assert (adata.obs[KEY] == 0).all()


def test_the_head_is_saved_with_the_model(adata, model, tmp_path):
    scellm.tl.malignancy(adata, model)
    expected = adata.obs[KEY].to_numpy()
    scellm.models.save(model, tmp_path / "mine")
    scellm.tl.malignancy(adata, tmp_path / "mine")
    np.testing.assert_array_equal(adata.obs[KEY], expected)


# Refused


def refused(adata, model, error, text, **options):
    keys = list(adata.obs), list(adata.uns)
    with pytest.raises(error, match=text):
        scellm.tl.malignancy(adata, model, **options)
    assert (list(adata.obs), list(adata.uns)) == keys


def test_a_model_without_the_head(adata, model):
    del model.parts["malignancy"]
    refused(adata, model, ValueError, "model 'tiny' has no part 'malignancy'.*such as 'scellm-small'")
    model.parts["malignancy"] = head(dim=7)
    refused(
        adata,
        model,
        ValueError,
        r"has the arrays \{'weight': \(7,\).*needed are weight \(16,\) and bias \(1,\)",
    )
    model.parts["malignancy"] = head()
    model.parts["malignancy"].tensors["combination"] = np.ones(3, dtype=np.float32)
    refused(adata, model, ValueError, r"has a combination of shape \(3,\); needed are 4 weights")
    model.parts["malignancy"] = Part(tensors={"coef": np.ones(16)})
    refused(adata, model, ValueError, r"has the arrays \{'coef': \(16,\)\}")


def test_keys_and_input(adata, model, tmp_path):
    refused(adata, model, ValueError, "cannot be written to h5ad", key_added="a/b")
    adata.obs["mine"] = 1
    refused(adata, model, ValueError, r"`adata.obs\['mine'\]` already exists", key_added="mine")
    adata.uns["pca"] = {"params": {}}
    refused(adata, model, ValueError, r"`adata.uns\['pca'\]` already exists", key_added="pca")
    refused(adata, model, KeyError, "'raw_counts' is not in `adata.layers`", layer="raw_counts")
    refused(adata, model, ValueError, "on_empty='drop' is unknown", on_empty="drop")
    refused(adata[:0].copy(), model, ValueError, "0 cells")
    with pytest.raises(TypeError, match="Need an AnnData object, found DataFrame"):
        scellm.tl.malignancy(adata.to_df(), model)
    adata.var = pd.DataFrame(index=[f"peak-{i}" for i in range(adata.n_vars)])
    refused(adata, model, ValueError, "holds 0 of the")
    cells = one_sample(scellm.datasets.toy_cells(8, n_vars=2000))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match="backed AnnData are not supported"):
        scellm.tl.malignancy(backed, model, copy=True)
    scellm.tl.malignancy(backed, model)
    assert KEY in backed.obs
    backed.file.close()


# The shipped head


def test_the_shipped_head_calls_most_blood_cells_normal():
    """Blood is what it has seen most; a head that fails here would be broken."""
    if "malignancy" not in scellm.models.load("scellm-small").parts:
        pytest.skip("scellm-small has no head for malignancy yet")
    adata = sc.datasets.pbmc68k_reduced()
    scellm.tl.malignancy(adata, use_raw=True, min_overlap=0.03)
    assert (adata.obs[KEY] < 0.5).mean() > 0.8


# Copy number, samples and reference


@pytest.fixture
def tumor():
    """40 immune cells and 40 of a gland with three arms gained and three lost; two patients."""
    genome = load_genome(GeneVocabulary.default().ensembl_ids, GeneVocabulary.default().symbols)
    panel = load_panel(genome, GeneVocabulary.default().symbols)
    rng = np.random.default_rng(0)
    dose = np.where(np.isin(genome.arm, ["7q", "1q", "8q"]), 1.6, 1.0) * np.where(
        np.isin(genome.arm, ["10q", "3p", "6q"]), 0.4, 1.0
    )
    names = [str(name) for name in panel.names]
    immune = panel.expression[next(i for i, name in enumerate(names) if "acrophage" in name)]
    gland = panel.expression[next(i for i, name in enumerate(names) if "acinar" in name)]
    expected = np.repeat(np.stack([immune / immune.sum(), gland * dose / (gland * dose).sum()]), 40, axis=0)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(5000 * expected).astype(np.float32)))
    adata.var_names = GeneVocabulary.default().symbols[genome.ids].astype(str)
    adata.obs_names = [f"cell{i}" for i in range(80)]
    adata.obs["kind"] = pd.Categorical(["immune"] * 40 + ["gland"] * 40)
    adata.obs["patient"] = ["a", "b"] * 40
    return adata


def test_copy_number_of_a_tumor_with_cells_named_normal(tumor, model):
    scellm.tl.malignancy(
        tumor, model, sample_key="patient", reference="kind", normal="immune", method="copy_number"
    )
    is_gland = (tumor.obs["kind"] == "gland").to_numpy()
    calls = tumor.obs[f"{KEY}_call"].to_numpy()
    assert (calls[is_gland] == "malignant").mean() > 0.9
    assert (calls[~is_gland] == "normal").mean() > 0.9
    assert tumor.obs[f"{KEY}_copy_number"][is_gland].mean() == pytest.approx(1, abs=0.25)
    assert set(tumor.obs[f"{KEY}_clone"].dropna()) == {"a 1", "b 1"}
    sample = tumor.obs[f"{KEY}_sample"]
    assert (sample[calls == "malignant"] == tumor.obs["patient"][calls == "malignant"]).all()
    assert sample[calls != "malignant"].isna().all()
    assert (
        tumor.obs[f"{KEY}_label"][calls == "malignant"] == "malignant (unclear)"
    ).all()  # a model without types
    table = scellm.get.malignancy(tumor)
    assert table["sample"].tolist() == ["a", "b"]
    assert table["n_reference"].tolist() == [20, 20]
    assert table["verdict"].str.contains("20 normal cells of the sample").all()
    arms = scellm.get.malignancy(tumor, what="arms").set_index(["clone", "arm"])["state"]
    assert arms["a 1", "7q"] == arms["b 1", "1q"] == "gain"
    assert arms["a 1", "10q"] == "loss"
    by_kind = scellm.get.malignancy(tumor, groupby="kind").set_index("kind")
    assert by_kind.loc["immune", "n_normal"] + by_kind.loc["immune", "n_undecided"] == 40
    profile = tumor.obsm[f"{KEY}_profile"]
    chromosome = tumor.uns[KEY]["chromosome"]
    assert profile.shape == (80, len(chromosome))
    assert np.isfinite(profile).all()


def test_a_column_that_looks_like_samples_is_warned_of(adata, model):
    adata.obs["patient"] = ["a", "b"] * 6
    with pytest.warns(
        UserWarning, match="has 2 values, but all cells are read as one sample.*sample_key='patient'"
    ):
        scellm.tl.malignancy(adata, model)


def test_reference_values(tumor, model):
    known = r"`adata.obs\['kind'\]` has \['gland', 'immune'\]"
    options = {"sample_key": "patient"}
    refused(
        tumor,
        model,
        ValueError,
        known + r"; normal=\['T cell'\] is not there",
        reference="kind",
        normal=["T cell"],
        **options,
    )
    refused(tumor, model, ValueError, known + "; normal= is needed", reference="kind", **options)
    refused(tumor, model, ValueError, "name the column with reference=", normal="immune", **options)
    refused(tumor, model, KeyError, "'type' is not in `adata.obs`", reference="type", normal="x", **options)
    refused(tumor, model, ValueError, "method='cnv' is unknown", method="cnv", **options)
    tumor.obs.loc["cell3", "patient"] = None
    refused(tumor, model, ValueError, "1 cells have no sample", **options)


def test_labels_with_missing_values_and_few_cells(tumor, model):
    tumor.obs.loc[["cell1", "cell50"], "kind"] = np.nan
    few = tumor[[1, 2, 3, 50, 51, 52]].copy()
    scellm.tl.malignancy(few, model, sample_key="patient", reference="kind", normal="immune")
    assert few.obs[f"{KEY}_call"].notna().all()
    assert scellm.get.malignancy(few)["reference"].isin(["panel", "none"]).all()


def test_mouse_genes_have_no_place(model):
    adata = one_sample(scellm.datasets.toy_cells(12, n_vars=2000))
    adata.var_names = [name.capitalize() for name in adata.var_names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.malignancy(adata, model, min_overlap=0.05)
    assert "not human" in scellm.get.malignancy(adata)["verdict"].iloc[0]
    assert adata.obs[f"{KEY}_copy_number"].isna().all()


def test_log_values_give_the_same_calls(tumor, model):
    options = {"sample_key": "patient", "reference": "kind", "normal": "immune", "method": "copy_number"}
    scellm.tl.malignancy(tumor, model, **options)
    before = tumor.obs[f"{KEY}_call"].astype(str)
    sc.pp.normalize_total(tumor, target_sum=1e4)
    sc.pp.log1p(tumor)
    scellm.tl.malignancy(tumor, model, **options)
    assert (tumor.obs[f"{KEY}_call"].astype(str) == before).mean() > 0.9


def test_the_shipped_model_calls_a_tumor_that_comes_with_a_package():
    infercnvpy = pytest.importorskip("infercnvpy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its reading, and of counts that are not whole numbers
        adata = infercnvpy.datasets.oligodendroglioma()
        adata.obs = adata.obs[["cell_type"]]
        scellm.tl.malignancy(adata)
    truth = adata.obs["cell_type"].astype(str).str.startswith("malignant")
    calls = adata.obs[f"{KEY}_call"]
    assert (calls[truth] == "malignant").mean() > 0.95
    assert (calls[~truth] == "malignant").mean() < 0.03
    arms = scellm.get.malignancy(adata, what="arms")
    lost = arms[arms["state"] == "loss"].groupby("arm").size()
    assert lost["1p"] == lost["19q"] == arms["clone"].nunique()  # what defines the tumor


@pytest.mark.skipif(not CORPUS.exists(), reason="needs the corpus beside the repository")
@pytest.mark.parametrize(
    ("name", "lineage", "share"),
    [
        ("copykat_tnbc", "epithelial", 1.0),
        ("gbm_mgh136", "neural", 1.0),
        ("luad_kim_mini", "epithelial", 0.9),
    ],
)
def test_the_lineage_of_a_real_tumor_is_the_same_whatever_ran_before(name, lineage, share):
    """The breast cancer was "hematopoietic" and "unclear" before `tl.annotate`, and "epithelial" after it."""
    alone = ad.read_h5ad(CORPUS / f"{name}.h5ad")
    alone.obs = alone.obs[[]]
    after, restricted = alone.copy(), alone.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.annotate(after)
        scellm.tl.annotate(restricted, classes=["T cell", "macrophage"])
        for adata in (alone, after, restricted):
            scellm.tl.malignancy(adata)
    is_malignant = (alone.obs[f"{KEY}_call"] == "malignant").to_numpy()
    labels = alone.obs[f"{KEY}_label"].astype(str)[is_malignant]
    assert (labels == f"malignant ({lineage})").mean() >= share
    for adata in (after, restricted):
        assert (adata.obs[f"{KEY}_label"].astype(str)[is_malignant] == labels).all()
        np.testing.assert_array_equal(adata.obs[KEY], alone.obs[KEY])
    normal = after.obs[~is_malignant]
    assert (normal[f"{KEY}_label"].astype(str) == normal["scellm_cell_type"].astype(str)).all()


def test_counts_of_a_backed_object_are_read_sample_by_sample(tumor, model, tmp_path, monkeypatch):
    cells = tumor.copy()
    cells.write_h5ad(tmp_path / "tumor.h5ad")
    monkeypatch.setattr("scellm.tl._malignancy_samples.ROWS_AT_ONCE", 15)
    backed = ad.read_h5ad(tmp_path / "tumor.h5ad", backed="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for adata in (cells, backed):
            scellm.tl.malignancy(adata, model, sample_key="patient", reference="kind", normal="immune")
    np.testing.assert_allclose(backed.obs[KEY], cells.obs[KEY], atol=1e-5)
    np.testing.assert_allclose(
        backed.obsm[f"{KEY}_profile"], cells.obsm[f"{KEY}_profile"], atol=1e-4, equal_nan=True
    )
    backed.file.close()
