import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import scellm
from scellm.data import GeneVocabulary, TokenConfig, Tokens
from scellm.models import CellLM
from scellm.nn import CellLMConfig, Encoder
from scellm.tl._deletion import deletion, matched, without
from scellm.tl._integrated_gradients import integrated_gradients

KEY = "scellm_gene_importance"


@pytest.fixture(scope="module")
def models():
    """A bag of genes and an encoder with attention, random weights."""
    vocabulary = GeneVocabulary.default()
    found = {}
    for name, depth in (("bag", 0), ("attention", 1)):
        config = CellLMConfig(
            n_genes=len(vocabulary),
            dim=8,
            depth=depth,
            heads=2,
            dim_head=4,
            attention="softmax",
            expression="continuous",
            cell_embedding="mean",
        )
        torch.manual_seed(0)
        encoder = Encoder(config).eval()
        torch.nn.init.normal_(encoder.gene_embedding.weight, std=1.0)
        found[name] = CellLM(
            encoder=encoder, config=config, tokens=TokenConfig(), vocabulary=vocabulary, name=name
        )
    return found


@pytest.fixture(scope="module")
def explained():
    """Toy cells explained by the shipped model."""
    adata = scellm.datasets.toy_cells(48)
    scellm.tl.gene_importance(adata, "cell_type", n_cells=12, n_steps=4, n_deleted=8)
    return adata


class Nothing:
    def update(self, n):
        pass


def some_tokens(rng, lengths=(5, 3, 7)):
    ids = np.concatenate([np.sort(rng.choice(1000, n, replace=False)) for n in lengths]).astype(np.int32)
    return Tokens(
        ids, rng.uniform(0.5, 3, len(ids)).astype(np.float32), np.concatenate([[0], np.cumsum(lengths)])
    )


@pytest.mark.parametrize("name", ["bag", "attention"])
def test_attributions_are_those_of_a_slow_loop(models, name):
    """Riemann sum of the plain encoder's gradients, cell by cell."""
    rng = np.random.default_rng(0)
    model, tokens = models[name], some_tokens(rng)
    directions = rng.normal(0, 1, (3, 8)).astype(np.float32)
    found, errors = integrated_gradients(model, tokens, directions, 32, torch.device("cpu"), Nothing())
    n_steps = 100
    for i in range(3):
        part = slice(tokens.indptr[i], tokens.indptr[i + 1])
        ids = torch.from_numpy(tokens.gene_ids[part].astype(np.int64))[None]
        total = torch.zeros(ids.shape)
        for step in range(n_steps):
            values = torch.from_numpy(tokens.values[part] * (step + 0.5) / n_steps)[None].requires_grad_()
            cell = model.encoder(ids, values, torch.ones_like(ids, dtype=torch.bool)).cells
            cosine = torch.nn.functional.normalize(cell) @ torch.from_numpy(directions[i])
            total += torch.autograd.grad(cosine.sum(), values)[0] / n_steps
        expected = total[0].numpy() * tokens.values[part]
        assert np.allclose(found[part], expected, atol=1e-3, rtol=2e-2)
    assert np.abs(errors).max() < 1e-3
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_textbook_markers_are_found(explained):
    """What toy cells differ in is known; housekeeping genes, ten times as high, must not be named."""
    table = scellm.get.gene_importance(explained, n_genes=6)
    tops = {group: set(part["gene"]) for group, part in table.groupby("group")}
    assert len(tops["B cell"] & {"MS4A1", "CD79A", "CD79B", "CD19", "BANK1", "TCL1A"}) >= 3
    assert len(tops["monocyte"] & {"CD14", "LYZ", "S100A8", "S100A9", "FCN1", "VCAN", "CSF3R", "CST3"}) >= 3
    assert len(tops["NK cell"] & {"NKG7", "GNLY", "KLRD1", "KLRF1", "PRF1", "GZMB", "FCGR3A", "CTSW"}) >= 3


def test_important_genes_matter_more_than_random_ones_of_equal_expression(explained):
    record = explained.uns[KEY]["deletion"]
    assert (record["drop"] > record["random_drop"] + 5 * record["random_drop_sd"]).all()
    assert (record["drop"] > 3 * np.abs(record["random_drop"])).all()


def test_control_unimportant_genes_do_not_pass_the_trial():
    rng = np.random.default_rng(0)
    tokens = some_tokens(rng, lengths=[60] * 40)

    def score(cells):  # only gene ids below 100 count
        owner = np.repeat(np.arange(len(cells)), cells.lengths)
        return np.bincount(owner, weights=(cells.gene_ids < 100) * cells.values, minlength=len(cells))

    truth = np.where(np.arange(1000) < 100, 1.0, 0.0)
    right = deletion(score, tokens, truth, 30, np.random.default_rng(0))
    wrong = deletion(score, tokens, np.roll(truth, 200), 30, np.random.default_rng(0))
    assert right["drop"] > right["random_drop"] + 5 * right["random_drop_sd"]
    assert wrong["drop"] == 0 <= wrong["random_drop"]


def test_random_genes_are_other_genes_of_equal_expression():
    rng = np.random.default_rng(0)
    expression = rng.lognormal(0, 2, 2000)
    expression[:500] = 0
    genes = rng.choice(np.arange(500, 2000), 50, replace=False)
    drawn = matched(genes, expression, rng)
    assert len(set(drawn)) == 50
    assert not set(drawn) & set(genes)
    assert (expression[drawn] > 0).all()
    assert np.abs(np.log(expression[drawn] / expression[genes])).max() < 0.6
    assert len(matched(np.arange(3), np.ones(4), rng)) == 1  # there is but one other gene


def test_deleted_genes_are_gone_and_others_stay():
    tokens = some_tokens(np.random.default_rng(0))
    gone = without(tokens, tokens.gene_ids[[0, 6, 7]])
    assert gone.lengths.tolist() == [4, 1, 7]
    assert np.array_equal(gone.gene_ids[:4], tokens.gene_ids[1:5])
    assert np.array_equal(gone.values[-7:], tokens.values[-7:])


def test_result_survives_files(explained, tmp_path):
    explained.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(scellm.get.gene_importance(back), scellm.get.gene_importance(explained))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        explained.write_zarr(tmp_path / "a.zarr")
        back = ad.read_zarr(tmp_path / "a.zarr")
    pd.testing.assert_frame_equal(
        scellm.get.gene_importance(back, group="B cell"),
        scellm.get.gene_importance(explained, group="B cell"),
    )


def test_storage_and_seed_do_what_they_should(models):
    adata = scellm.datasets.toy_cells(24, n_vars=2200)
    options = {"groupby": "donor", "model": models["bag"], "n_steps": 4, "n_cells": 5}

    def importance(cells, **more):
        return scellm.tl.gene_importance(cells, **options | more, copy=True).uns[KEY]["importance"]

    expected = importance(adata)
    assert np.array_equal(importance(adata), expected)
    dense = adata.copy()
    dense.X = dense.X.toarray()
    assert np.allclose(importance(dense), expected, atol=1e-6)
    other = importance(adata, rng=1)
    assert other.shape != expected.shape or not np.allclose(other, expected)
    assert KEY not in adata.uns


def test_types_can_be_chosen_and_rare_ones_are_left_out(models):
    adata = scellm.datasets.toy_cells(24)
    adata.obs["type"] = pd.Categorical(["a", "b"] * 10 + ["rare"] * 3 + [None])
    scellm.tl.gene_importance(adata, "type", model=models["bag"], groups="b", n_steps=2)
    record = adata.uns[KEY]
    assert record["groups"].tolist() == ["b"]
    assert record["n_cells"].tolist() == [10]
    scellm.tl.gene_importance(adata, "type", model=models["bag"], n_steps=2)
    assert adata.uns[KEY]["groups"].tolist() == ["a", "b"]


def test_bad_input_is_named(models, monkeypatch):
    adata = scellm.datasets.toy_cells(24)
    with pytest.raises(KeyError, match="'leiden' is not in `adata.obs`, which has"):
        scellm.tl.gene_importance(adata, "leiden")
    with pytest.raises(ValueError, match=r"groups=\['platelet'\] are not types of at least 4 cells"):
        scellm.tl.gene_importance(adata, "cell_type", groups=["platelet"])
    with pytest.raises(ValueError, match="n_cells=3 must be at least 4"):
        scellm.tl.gene_importance(adata, "cell_type", n_cells=3)
    adata.obs["one"] = "same"
    with pytest.raises(ValueError, match="has 1 types of at least 4 cells"):
        scellm.tl.gene_importance(adata, "one")
    adata.uns["mine"] = 1
    with pytest.raises(ValueError, match="already exists and was not written by tl.gene_importance"):
        scellm.tl.gene_importance(adata, "cell_type", key_added="mine")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"needs captum: pip install 'scellm\[explain\]'"):
        scellm.tl.gene_importance(adata, "cell_type", model=models["bag"])


def test_bins_have_no_gradient():
    vocabulary = GeneVocabulary.default()
    config = CellLMConfig.named("base", n_genes=len(vocabulary))
    assert config.expression == "bins"
    model = CellLM(encoder=None, config=config, tokens=TokenConfig(), vocabulary=vocabulary, name="published")
    with pytest.raises(ValueError, match="'published' reads expression in bins, which has no gradient"):
        scellm.tl.gene_importance(scellm.datasets.toy_cells(24), "cell_type", model=model)


def test_table_names_what_is_missing(explained):
    with pytest.raises(KeyError, match=r"Run scellm.tl.gene_importance\(adata, groupby\) first"):
        scellm.get.gene_importance(scellm.datasets.toy_cells(4))
    with pytest.raises(KeyError, match="group='platelet' is not among the types that were explained"):
        scellm.get.gene_importance(explained, group="platelet")
    table = scellm.get.gene_importance(explained, n_genes=3)
    assert table["rank"].tolist() == [1, 2, 3] * 4
    assert list(table.columns) == ["group", "gene", "rank", "importance", "expression"]
