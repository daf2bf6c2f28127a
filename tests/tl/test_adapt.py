"""tl.adapt: a model with principal components of one's own cells as further coordinates."""

import dataclasses
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scellm
from scellm._cli import main
from scellm.data import Expression, ReadOptions
from scellm.models import load, save
from scellm.tl import adapt, embed
from scellm.train import bag_values

CELLS = scellm.datasets.toy_cells(240, n_vars=1950, n_donors=3)
BARON = Path(__file__).parents[3] / "shared" / "data" / "benchmarks" / "baron_h1_pancreas.h5ad"


@pytest.fixture
def adata():
    return CELLS.copy()


def vectors(cells, model):
    cells = cells.copy()
    embed(cells, model, show_progress=False)
    return cells.obsm["X_scellm"].astype(np.float64)


def spread(coordinates):
    return np.square(coordinates - coordinates.mean(0)).sum(1).mean()


def values_of(cells, model):
    """What the bag multiplies its gene embeddings with, dense."""
    with Expression.open(cells, model.vocabulary, ReadOptions()) as opened:
        counts = sp.csr_array(sp.vstack([block for _, block in opened.counts()]))
    gain = model.encoder.expression.log_gain.detach()[: model.config.n_genes].exp().numpy()
    return bag_values(counts, model.config, model.tokens.target_sum, gain).toarray()


@pytest.mark.parametrize("pooling", ["mean", "unit"])
def test_old_coordinates_stay_and_new_ones_are_principal_components(adata, make_bag_model, pooling):
    model = make_bag_model(cell_embedding=pooling)
    dim = model.config.dim
    own = adapt(adata, model, n_components=6, weight=2.0)
    old, new = vectors(adata, model), vectors(adata, own)
    assert own.config.dim == dim + 6
    assert new[:, :dim] == pytest.approx(old, abs=2e-3 * np.abs(old).max())
    assert spread(new[:, dim:]) / spread(old) == pytest.approx(4.0, rel=0.02)
    values = values_of(adata, model)
    values -= values.mean(0)
    left, size, _ = np.linalg.svd(values, full_matrices=False)
    for k in range(2):  # divided by the length of the cell, so no longer exactly
        assert abs(np.corrcoef(left[:, k] * size[k], new[:, dim + k])[0, 1]) > 0.95, k


def test_a_shipped_model_keeps_its_coordinates(adata):
    own = adapt(adata)
    old, new = vectors(adata, load("scellm-small")), vectors(adata, own)
    assert new[:, : old.shape[1]] == pytest.approx(old, abs=2e-3 * np.abs(old).max())
    assert own.name == "adapted-scellm-small"
    assert dict(own.parts) == {}
    assert own.provenance["started_from_sha256"] == load("scellm-small").sha256


def test_it_is_a_model_like_any_other(adata, bag_model, tmp_path):
    own = adapt(adata, bag_model, n_components=5)
    again = load(save(own, tmp_path / "own"))
    whole = vectors(adata, own)
    np.testing.assert_array_equal(vectors(adata, again), whole)
    one = vectors(adata[[7]].copy(), again)
    assert one[0] == pytest.approx(whole[7], abs=1e-4)
    assert "5 principal components of 240 cells" in again.card


def test_nothing_that_was_given_changes_and_it_is_repeatable(adata, bag_model):
    before = vectors(adata, bag_model)
    first, second = (adapt(adata, bag_model, n_components=4) for _ in range(2))
    np.testing.assert_array_equal(vectors(adata, first), vectors(adata, second))
    np.testing.assert_array_equal(vectors(adata, bag_model), before)
    assert list(adata.obsm) == list(adata.uns) == []
    np.testing.assert_array_equal(adata.X.toarray(), CELLS.X.toarray())


def test_components_are_those_within_batches(adata, bag_model):
    adata.obs["technology"] = np.where(np.arange(adata.n_obs) % 3 == 0, "a", "b")
    dim = bag_model.config.dim
    new = vectors(adata, adapt(adata, bag_model, n_components=3, batch_key="technology"))[:, dim:]
    values = values_of(adata, bag_model)
    within = []
    for name in ("a", "b"):
        part = values[adata.obs["technology"] == name]
        within.append((part - part.mean(0)) / np.sqrt(len(part)))  # each batch weighs the same
    axis = np.linalg.svd(np.concatenate(within), full_matrices=False)[2][0]
    assert abs(np.corrcoef(values @ axis, new[:, 0])[0, 1]) > 0.95


@pytest.mark.parametrize("kind", ["backed", "sample"])
def test_large_and_backed_data(adata, bag_model, tmp_path, kind):
    if kind == "sample":
        own = adapt(adata, bag_model, n_components=4, max_cells=60)
        assert own.provenance["n_cells"] == 60
    else:
        adata.write_h5ad(tmp_path / "a.h5ad")
        backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
        own = adapt(backed, bag_model, n_components=4)
        backed.file.close()
        np.testing.assert_array_equal(
            vectors(adata, own), vectors(adata, adapt(adata, bag_model, n_components=4))
        )


def test_few_cells_get_few_components(adata, bag_model):
    own = adapt(adata[:40].copy(), bag_model, n_components=500)
    assert own.config.dim - bag_model.config.dim <= 39
    assert np.isfinite(vectors(adata, own)).all()


def test_what_cannot_be_is_refused(adata, bag_model):
    with pytest.raises(ValueError, match=r"9 cells express genes .* need 10 or more"):
        adapt(adata[:9].copy(), bag_model)
    with pytest.raises(ValueError, match="has 1 blocks .* such as 'scellm-small'"):
        adapt(adata, "scellm-transformer")
    for option, value in (
        ("n_components", 0),
        ("n_components", 2.5),
        ("max_cells", 3),
        ("weight", 0),
        ("weight", np.nan),
    ):
        with pytest.raises(ValueError, match=option):
            adapt(adata, bag_model, **{option: value})
    with pytest.raises(KeyError, match="lab"):
        adapt(adata, bag_model, batch_key="lab")
    adata.obs["each"] = adata.obs_names
    with pytest.raises(ValueError, match="0 cells in groups of two or more"):
        adapt(adata, bag_model, batch_key="each")
    deep = dataclasses.replace(bag_model, config=dataclasses.replace(bag_model.config, cell_depth=1))
    with pytest.raises(ValueError, match="can be adapted in closed form"):
        adapt(adata, deep)


def test_the_command(adata, tmp_path, capsys):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    words = [str(tmp_path / "cells.h5ad"), "-o", str(tmp_path / "own"), "--n-components", "4"]
    assert main(["adapt", *words, "--batch-key", "donor"]) == 0
    assert "240 cells; pass it to scellm embed as --model" in capsys.readouterr().out
    assert load(tmp_path / "own").config.dim == load("scellm-small").config.dim + 4
    assert main(["adapt", *words]) == 1


@pytest.mark.skipif(not BARON.exists(), reason="needs the pancreas of Baron in ../shared")
def test_types_of_real_cells_are_told_apart_better():
    cells = ad.read_h5ad(BARON)
    cells.X = cells.X.astype(np.float32)
    labels = cells.obs["cell_type"].astype(str)
    before = scellm.metrics.neighbor_score(vectors(cells, "scellm-small"), labels).macro_f1
    after = scellm.metrics.neighbor_score(vectors(cells, adapt(cells)), labels).macro_f1
    assert after > before + 0.015
