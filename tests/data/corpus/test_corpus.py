"""Datasets seen as one: names, labels, vocabulary, fingerprint."""

import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.data import Corpus, GeneVocabulary, pack
from scellm.data.corpus import _corpus as module


def cells(n_obs=24, rng=0):
    adata = scellm.datasets.toy_cells(n_obs, n_vars=2500, rng=rng)
    adata.uns["paper"] = f"Somebody et al. 20{rng}0"
    return adata


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["b", "a"]):
        adata = cells(12 + i, i)
        adata.obs["tissue"] = (["blood", "marrow"] * 7)[: 12 + i]
        adata.obs["malignant"] = ["True"] * 3 + ["False"] * 8 + ["NA"] * (1 + i)
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    return tmp_path


# -- what is given ------------------------------------------------------------------------------------------------


def test_a_folder(folder):
    corpus = Corpus.build(folder)
    assert corpus.names == ("a", "b")
    assert corpus.sizes.tolist() == [13, 12]
    assert corpus.n_cells == 25
    assert len(corpus) == 2
    assert repr(corpus) == f"Corpus(2 datasets, 25 cells, {len(GeneVocabulary.default())} genes)"
    assert corpus.vocabulary == GeneVocabulary.default()
    assert corpus.about["b"] == {
        "cells": 12,
        "values": "counts",
        "vocabulary_genes": 2500,
        "paper": "Somebody et al. 2000",
        "tissue": "blood, marrow",
        "cancer": 3,
        "normal": 8,
    }
    assert set(corpus.about) == {"a", "b"}


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (lambda f: cells(), ("adata",)),
        (lambda f: [cells(), cells()], ("adata0", "adata1")),
        (lambda f: f / "a.h5ad", ("a",)),
        (lambda f: str(f), ("a", "b")),
        (lambda f: [f / "b.h5ad", cells()], ("adata1", "b")),
        (lambda f: {"x": cells(), "y": f / "a.h5ad"}, ("x", "y")),
        (lambda f: {"x": f}, ("x/a", "x/b")),
        (lambda f: {"x": [f / "a.h5ad"], "y": [f / "a.h5ad", cells()]}, ("x", "y/1", "y/a")),
        (lambda f: pack(f, f / "p.h5"), ("a", "b")),
        (lambda f: {"x": pack(f, f / "p.h5")}, ("x/a", "x/b")),
        (lambda f: {"x": pack(f / "a.h5ad", f / "p.h5")}, ("x",)),
        (lambda f: iter([f]), ("a", "b")),
    ],
    ids="adata list file folder mixed mapping names nested packed packed-named packed-one iterator".split(),
)
def test_what_may_be_given(folder, data, names):
    assert Corpus.build(data(folder)).names == names


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (lambda f: 3, TypeError, "made of int. Give an AnnData, a path .*, or a mapping from names"),
        (lambda f: cells().X, TypeError, "made of csr_matrix"),
        (lambda f: pd.DataFrame({"a": [1]}), TypeError, "made of DataFrame"),
        (lambda f: {3: f}, TypeError, "the mapping has the name 3"),
        (lambda f: [], ValueError, "There are no cells: the data is empty"),
        (lambda f: cells()[:0].copy(), ValueError, "Dataset 'adata': `adata.X` has 0 cells"),
        (lambda f: [f, f], ValueError, r"Two datasets are called 'a': .*a.h5ad and .*a.h5ad. Rename"),
        (lambda f: f / "no.h5ad", FileNotFoundError, "There is no file or folder"),
        (lambda f: (f / "empty").mkdir() or f / "empty", FileNotFoundError, "No .h5ad file in .*empty"),
        (lambda f: (f / "t.csv").write_text("x") and f / "t.csv", ValueError, "neither an .h5ad file nor"),
    ],
    ids="number matrix frame name nothing no-cell twice absent empty-folder csv".split(),
)
def test_what_cannot_be_read_is_named(folder, data, error, text):
    with pytest.raises(error, match=text):
        Corpus.build(data(folder))


def test_another_vocabulary(folder):
    vocabulary = GeneVocabulary.default().subset(cells().var_names[:300])
    corpus = Corpus.build(folder, vocabulary)
    full = Corpus.build(folder)
    ids = full.vocabulary.match(vocabulary.symbols).ids
    np.testing.assert_array_equal(
        corpus.counts(0, [2, 1]).toarray(), full.counts(0, [2, 1]).toarray()[:, ids]
    )
    with pytest.raises(TypeError, match="vocabulary must be a GeneVocabulary, found list"):
        Corpus.build(folder, ["CD3D"])


def test_packed_files_bring_their_vocabulary(folder):
    vocabulary = GeneVocabulary.default().subset(cells().var_names[:300])
    packed = pack(folder / "a.h5ad", folder / "p.h5", vocabulary=vocabulary)
    assert Corpus.build([packed, folder / "b.h5ad"]).vocabulary == vocabulary
    with pytest.raises(ValueError, match=r"p.h5 was packed over another vocabulary .*300 genes"):
        Corpus.build(packed, GeneVocabulary.default())


def test_small_files_are_loaded_as_long_as_they_fit_together(folder, monkeypatch):
    assert Corpus.build(folder).block_sizes.tolist() == [1, 1]
    assert Corpus.build(folder, in_memory=False).block_sizes.tolist() == [16, 16]
    n_bytes = Corpus.build(folder / "a.h5ad", in_memory=False)._datasets[0].n_bytes
    monkeypatch.setattr(module, "IN_MEMORY", n_bytes)
    assert Corpus.build(folder).block_sizes.tolist() == [16, 1]
    monkeypatch.setattr(module, "IN_MEMORY", 10 * n_bytes)
    monkeypatch.setattr(module, "IN_MEMORY_TOGETHER", 1.5 * n_bytes)
    assert Corpus.build(folder).block_sizes.tolist() == [1, 16]
    assert Corpus.build(folder, in_memory=True).block_sizes.tolist() == [1, 1]
    with pytest.raises(ValueError, match="in_memory='yes'; need True, False or 'auto'"):
        Corpus.build(folder, in_memory="yes")


# -- labels -------------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    adata = cells(6)
    adata.obs["text"] = ["x", "NA", "nan", "unknown", "", "y"]
    adata.obs["category"] = pd.Categorical(["x", None, "Unknown", "y", "y", "x"])
    adata.obs["flag"] = [True, False, True, True, False, False]
    adata.obs["number"] = [1, 2, 2, 3, 1, 1]
    adata.obs["nothing"] = np.nan
    adata.obs["measured"] = [0.5, 1, 2, 3, 4, 5]
    return adata


@pytest.mark.parametrize("where", ["memory", "h5ad", "packed"])
def test_labels_are_text(labelled, tmp_path, where):
    data = {"one": labelled}
    if where == "h5ad":
        labelled.write_h5ad(tmp_path / "one.h5ad")
        data = tmp_path / "one.h5ad"
    elif where == "packed":
        keys = ["text", "category", "flag", "number", "nothing", "cell_type", "donor"]
        data = pack(data, tmp_path / "p.h5", label_keys=keys)
    corpus = Corpus.build(data, in_memory=False)
    expected = {
        "text": ["x", "", "", "", "", "y"],
        "category": ["x", "", "", "y", "y", "x"],
        "flag": ["True", "False", "True", "True", "False", "False"],
        "number": ["1", "2", "2", "3", "1", "1"],
        "nothing": [""] * 6,
    }
    for key, texts in expected.items():
        (column,) = corpus.labels(key)
        assert column.tolist() == texts, key
        assert column.dtype == object
    assert {"category", "cell_type", "donor", "flag", "text"} <= set(corpus.label_keys)
    assert "measured" not in corpus.label_keys
    if where != "packed":
        with pytest.raises(TypeError, match=r"obs\['measured'\] holds float64 numbers, not labels"):
            corpus.labels("measured")


def test_a_column_that_only_some_datasets_have(folder):
    adata = cells(5)
    corpus = Corpus.build([folder, adata])
    assert corpus.names == ("a", "adata1", "b")
    a, other, _ = corpus.labels("malignant")
    assert a.tolist() == ["True"] * 3 + ["False"] * 8 + ["", ""]
    assert other.tolist() == [""] * 5
    with pytest.raises(
        KeyError, match=r"No dataset has the column 'nope'. There are \['cell_type', 'donor', 'malig"
    ):
        corpus.labels("nope")


# -- fingerprint --------------------------------------------------------------------------------------------------


def test_fingerprint_is_of_the_cells_not_of_where_they_are(tmp_path):
    adata = cells(30)
    adata.write_h5ad(tmp_path / "x.h5ad")
    packed = pack(tmp_path / "x.h5ad", tmp_path / "p.h5")
    corpora = [
        Corpus.build({"x": adata}),
        Corpus.build(tmp_path / "x.h5ad", in_memory=False),
        Corpus.build(tmp_path / "x.h5ad", in_memory=True),
        Corpus.build(packed, in_memory=False),
        Corpus.build(packed, in_memory=True),
    ]
    assert len({corpus.fingerprint for corpus in corpora}) == 1


@pytest.mark.parametrize("change", ["count", "order", "name", "size", "vocabulary", "gene"])
def test_fingerprint_of_other_data_differs(change):
    adata = cells(30)
    before = Corpus.build({"x": adata}).fingerprint
    vocabulary, name = None, "x"
    if change == "count":
        adata.X[7, int(adata.X[[7]].indices[3])] += 1
    elif change == "order":
        adata = adata[::-1].copy()
    elif change == "size":
        adata = adata[:29].copy()
    elif change == "gene":
        adata.var_names = [*adata.var_names[:-2], adata.var_names[-1], adata.var_names[-2]]
    elif change == "vocabulary":
        vocabulary = GeneVocabulary.default().subset(GeneVocabulary.default().symbols[:-1])
    else:
        name = "y"
    assert Corpus.build({name: adata}, vocabulary).fingerprint != before


def test_fingerprint_of_a_large_dataset_is_of_some_cells(monkeypatch):
    sampled = module._sampled_cells(10_000)
    assert len(sampled) == 1024
    assert sampled[[0, -1]].tolist() == [0, 9999]
    assert (np.diff(np.flatnonzero(np.diff(sampled) > 1)) == 16).all()
    np.testing.assert_array_equal(module._sampled_cells(1024), np.arange(1024))
    assert len(module._sampled_cells(1025)) <= 1024
