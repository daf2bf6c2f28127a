"""Collections of annbatch: the cells that went in, in the order of the collection."""

import importlib.util
import sys

import anndata as ad
import numpy as np
import pytest
import zarr

import scellm
from scellm.data import Corpus, pack

needs_annbatch = pytest.mark.skipif(
    importlib.util.find_spec("annbatch") is None, reason="needs annbatch (extra stream, Python >= 3.12)"
)
N_OBS = 150


@pytest.fixture
def adatas():
    adatas = [scellm.datasets.toy_cells(N_OBS, rng=rng) for rng in range(2)]
    for name, adata in zip("ab", adatas, strict=True):
        adata.obs_names = [f"{name}{i}" for i in range(N_OBS)]
        adata.obs["cell"] = adata.obs_names.to_numpy()
        adata.layers["half"] = adata.X * 0.5
    return adatas


@pytest.fixture
def path(adatas, tmp_path):
    """A few parts of up to 75 cells."""
    from annbatch import DatasetCollection

    paths = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    for adata, path in zip(adatas, paths, strict=True):
        adata.write_h5ad(path)
    DatasetCollection(zarr.open_group(tmp_path / "many.zarr", mode="w")).add_adatas(
        paths, dataset_size=75, shuffle_chunk_size=10, n_obs_per_chunk=16, rng=np.random.default_rng(0)
    )
    return tmp_path / "many.zarr"


@needs_annbatch
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_cells_of_a_collection(adatas, path, tmp_path):
    corpus = Corpus.build(path, in_memory=False)
    assert corpus.names == ("many",)
    assert corpus.sizes.tolist() == [2 * N_OBS]
    assert corpus.block_sizes.tolist() == [64]
    ends = corpus._datasets[0]._offsets[1:-1]
    assert len(ends) >= 3

    together = ad.concat(adatas)
    (names,) = corpus.labels("cell")
    assert sorted(names) == sorted(together.obs_names)
    assert names.tolist() != together.obs_names.tolist()  # it was shuffled
    expected = Corpus.build(together[names].copy())
    for rows in (
        np.arange(300),
        np.random.default_rng(1).permutation(300),
        np.concatenate([ends, ends - 1, ends, [299, 0]]),
        np.array([], dtype=int),
    ):
        np.testing.assert_array_equal(corpus.counts(0, rows).toarray(), expected.counts(0, rows).toarray())
    assert corpus.labels("cell_type")[0].tolist() == together.obs["cell_type"][names].tolist()
    assert corpus.about["many"]["vocabulary_genes"] == 3000

    half = Corpus.build(path, layer="half", in_memory=False)
    np.testing.assert_allclose(half.counts(0, [7, 3]).toarray(), expected.counts(0, [7, 3]).toarray() / 2)
    with pytest.raises(KeyError, match=r"dataset_0 of many.zarr has no layers/no; its layers are \['half'\]"):
        Corpus.build(path, layer="no")

    loaded = Corpus.build(path)
    assert loaded.block_sizes.tolist() == [1]
    packed = Corpus.build(pack(path, tmp_path / "p.h5"))
    assert corpus.fingerprint == loaded.fingerprint == packed.fingerprint


@needs_annbatch
def test_an_empty_collection(tmp_path):
    root = zarr.open_group(tmp_path / "empty.zarr", mode="w")
    root.attrs["encoding-type"] = "annbatch-preshuffled"
    with pytest.raises(ValueError, match=r"Dataset 'empty': the collection .*empty.zarr is empty; add cells"):
        Corpus.build(tmp_path / "empty.zarr")


def test_without_annbatch_the_extra_is_named(tmp_path, monkeypatch):
    root = zarr.open_group(tmp_path / "many.zarr", mode="w")
    root.attrs["encoding-type"] = "annbatch-preshuffled"
    monkeypatch.setitem(sys.modules, "annbatch", None)
    text = r"collection of annbatch, which needs Python >= 3.12 \(this is 3.\d+\): pip install 'scellm\[stream\]'"
    with pytest.raises(ImportError, match=text):
        Corpus.build(tmp_path / "many.zarr")


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "many.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(
        ImportError, match=r"Reading many.zarr needs the package zarr: pip install 'scellm\[zarr\]'"
    ):
        Corpus.build(tmp_path / "many.zarr")
