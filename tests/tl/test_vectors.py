"""A stored embedding is taken only if it is of this model and of these very values."""

import concurrent.futures
import dataclasses
import warnings

import anndata as ad
import numpy as np
import pytest

import scellm
from scellm.data import ReadOptions
from scellm.tl._embed import EncodeOptions
from scellm.tl._vectors import cell_vectors, log_expression

KEY = "X_scellm"


@pytest.fixture
def adata(bag_model):
    cells = scellm.datasets.toy_cells(50, n_vars=2500)
    scellm.tl.embed(cells, bag_model)
    return cells


def vectors(adata, model, **options):
    found, record = cell_vectors(adata, model, ReadOptions(**options))
    return found, record["reused"]


def test_an_embedding_of_these_values_is_taken(adata, bag_model):
    found, reused = vectors(adata, bag_model)
    assert reused
    np.testing.assert_array_equal(found, adata.obsm[KEY])
    adata.obs_names = [f"cell {i}" for i in range(50)]
    assert vectors(adata, bag_model)[1]
    assert cell_vectors(adata, bag_model, {"layer": None, "batch_size": 8})[1][
        "reused"
    ]  # options in one mapping


def reorder(adata):
    adata.X = adata.X[::-1]


def edit(adata):
    adata.X.data[5] += 1


def rename(adata):
    adata.var_names = adata.var_names[::-1]


def correct(adata):
    adata.obsm[KEY] = adata.obsm[KEY] + 1


def shuffle_result(adata):
    adata.obsm[KEY] = adata.obsm[KEY][::-1]


@pytest.mark.parametrize(
    "change", [reorder, edit, rename, correct, shuffle_result], ids=lambda change: change.__name__
)
def test_an_embedding_of_other_values_is_not(adata, bag_model, change):
    change(adata)
    found, reused = vectors(adata, bag_model)
    assert not reused
    np.testing.assert_array_equal(found, scellm.tl.embed(adata, bag_model, copy=True).obsm[KEY])


def test_after_subsetting_and_concat_cells_are_embedded_again(adata, bag_model):
    some = adata[10:30].copy()
    found, reused = vectors(some, bag_model)
    assert not reused
    np.testing.assert_allclose(found, adata.obsm[KEY][10:30], atol=1e-6)
    both = ad.concat([adata, adata[:5]], index_unique="-", uns_merge="first")
    found, reused = vectors(both, bag_model)
    assert not reused
    assert len(found) == 55


def test_another_model_matrix_or_gene_column(adata, bag_model):
    assert not vectors(adata, dataclasses.replace(bag_model, sha256="1" * 64))[1]
    assert not vectors(adata, bag_model, gene_key="ensembl_id")[1]
    adata.layers["counts"] = adata.X.copy()
    assert not vectors(adata, bag_model, layer="counts")[1]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_an_embedding_that_went_through_a_file(adata, bag_model, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    plain = adata.copy()
    del plain.obsm[KEY], plain.uns[KEY]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        getattr(plain, f"write_{suffix}")(path)
        scellm.tl.embed(path, bag_model)
        back = getattr(ad, f"read_{suffix}")(path)
    assert vectors(back, bag_model)[1]
    assert back.uns[KEY]["fingerprint"] == adata.uns[KEY]["fingerprint"]


def test_empty_cells_are_refused_also_where_there_is_an_embedding(adata, bag_model):
    adata.X.data[adata.X.indptr[3] : adata.X.indptr[4]] = 0
    with pytest.warns(UserWarning, match="express no vocabulary gene"):
        scellm.tl.embed(adata, bag_model)
    assert vectors(adata, bag_model)[1]
    with pytest.raises(ValueError, match="express no vocabulary gene"):
        cell_vectors(adata, bag_model, ReadOptions(), EncodeOptions(on_empty="raise"))


def test_malignancy_says_that_it_took_the_embedding(adata):
    scellm.tl.malignancy(adata, sample_key="donor")
    assert not adata.uns["scellm_malignant"]["reused"]
    expected = adata.obs["scellm_malignant"].to_numpy()
    scellm.tl.embed(adata)
    scellm.tl.malignancy(adata, sample_key="donor")
    assert adata.uns["scellm_malignant"]["reused"]
    np.testing.assert_array_equal(adata.obs["scellm_malignant"], expected)


def test_log_expression_of_some_genes(adata, bag_model):
    logged, has = log_expression(adata, bag_model, ReadOptions())
    genes = np.flatnonzero(has)[[4, 1]]
    some, _ = log_expression(adata, bag_model, ReadOptions(), genes)
    np.testing.assert_array_equal(some.toarray(), logged.toarray()[:, genes])
    np.testing.assert_allclose(np.expm1(logged.toarray()).sum(1), 1e4, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_threads_may_share_a_model(adata, make_bag_model, training):
    model = make_bag_model(dropout=0.5) if training else make_bag_model()
    expected = scellm.tl.embed(adata, model, copy=True).obsm[KEY]
    model.encoder.train(training)
    parts = [adata.copy() for _ in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda part: scellm.tl.embed(part, model, batch_size=4), parts))
    for part in parts:
        np.testing.assert_allclose(part.obsm[KEY], expected, atol=1e-6)
    assert model.encoder.training == training
