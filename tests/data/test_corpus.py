import anndata as ad
import numpy as np
import pytest
import scanpy as sc

import scellm
from scellm.data import GeneVocabulary, read_corpus


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["b", "a"]):
        adata = scellm.datasets.toy_cells(12, n_vars=200, rng=i)
        adata.uns["paper"] = f"Somebody et al. 20{i}0"
        adata.obs["tissue"] = ["blood", "marrow"] * 6
        adata.obs["malignant"] = ["True"] * 3 + ["False"] * 8 + ["NA"]
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    return tmp_path


def test_datasets_are_read_onto_the_vocabulary(folder):
    vocabulary = GeneVocabulary.default()
    corpus = read_corpus([folder], vocabulary)
    assert list(corpus) == ["a", "b"]
    adata = ad.read_h5ad(folder / "b.h5ad")
    np.testing.assert_array_equal(
        corpus["b"].counts[:, vocabulary.match(adata.var_names).ids].toarray(), adata.X.toarray()
    )
    assert corpus["b"].counts.shape == (12, len(vocabulary))
    assert (corpus["b"].values, corpus["b"].n_matched) == ("counts", 200)
    assert corpus["b"].about == {
        "paper": "Somebody et al. 2000",
        "tissue": "blood, marrow",
        "cancer": "3",
        "normal": "8",
    }


def test_log1p_is_undone(folder):
    adata = ad.read_h5ad(folder / "a.h5ad")
    expected = read_corpus([folder], GeneVocabulary.default())["a"].counts.toarray()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.write_h5ad(folder / "a.h5ad")
    dataset = read_corpus([folder], GeneVocabulary.default())["a"]
    assert dataset.values == "log1p"
    scaled = expected * (1e4 / expected.sum(1, keepdims=True))
    np.testing.assert_allclose(dataset.counts.toarray(), scaled, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="Two files of the corpus are called a.h5ad"):
        read_corpus([folder, folder], GeneVocabulary.default())
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No .h5ad file in .*empty"):
        read_corpus([tmp_path / "empty"], GeneVocabulary.default())
    adata = ad.read_h5ad(folder / "a.h5ad")
    adata.X = sc.pp.scale(adata.X.toarray().astype(np.float32))
    adata.write_h5ad(folder / "a.h5ad")
    with pytest.raises(ValueError, match=r"a.h5ad: .*scaled"):
        read_corpus([folder], GeneVocabulary.default())
