"""Cells from memory and from the disk: the same rows, whatever order they are asked for in."""

import multiprocessing
import os
import pickle
import warnings

import anndata as ad
import h5py
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import scellm
from scellm.data import Corpus, GeneVocabulary
from scellm.data.corpus import _stored as stored

VOCABULARY = GeneVocabulary.default()
N_OBS = 90


@pytest.fixture
def adata():
    return scellm.datasets.toy_cells(N_OBS, n_vars=2500)


def write(adata, path):
    if path.suffix == ".zarr":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Writing zarr v2 data")
            adata.write_zarr(path)
    else:
        adata.write_h5ad(path)
    return path


def as_vocabulary(adata, X=None):
    """Dense (n_obs, n_genes), gene by gene."""
    X = (adata.X if X is None else X).toarray()
    expected = np.zeros((adata.n_obs, len(VOCABULARY)), dtype=np.float32)
    for column, symbol in enumerate(adata.var_names):
        expected[:, np.flatnonzero(VOCABULARY.symbols == symbol)[0]] += X[:, column]
    return expected


ROWS = {
    "all": np.arange(N_OBS),
    "shuffled": np.random.default_rng(0).permutation(N_OBS),
    "blocks": np.concatenate([np.arange(48, 64), np.arange(0, 16), np.arange(80, 90)]),
    "repeated": np.array([7, 3, 7, 89, 8, 3, 0]),
    "one": np.array([89]),
    "none": np.array([], dtype=np.int64),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("where", ["memory", "h5ad", "dense", "loaded", "zarr", "gzip"])
def test_rows_are_those_asked_for(adata, tmp_path, where, rows):
    expected = as_vocabulary(adata)
    data = adata
    if where == "dense":
        adata.X = adata.X.toarray()
    if where == "gzip":
        adata.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
        data = tmp_path / "cells.h5ad"
    elif where != "memory":
        data = write(adata, tmp_path / f"cells.{'zarr' if where == 'zarr' else 'h5ad'}")
    corpus = Corpus.build(data, in_memory=where == "loaded")
    block_size = {"memory": 1, "loaded": 1, "zarr": 64}.get(where, 16)
    assert corpus.block_sizes.tolist() == [block_size]
    counts = corpus.counts(0, rows)
    np.testing.assert_array_equal(counts.toarray(), expected[rows])
    assert isinstance(counts, sp.csr_array)
    assert counts.dtype == np.float32
    assert counts.has_sorted_indices
    assert (counts.data > 0).all()


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_genes_are_found_by_ensembl_id(adata, tmp_path, stream):
    expected = as_vocabulary(adata)
    adata.var_names = [f"feature {i}" for i in range(adata.n_vars)]
    adata.var = adata.var.rename(columns={"ensembl_id": "gene_ids"})
    data = write(adata, tmp_path / "cells.h5ad") if stream else adata
    corpus = Corpus.build(data, in_memory=False)
    np.testing.assert_array_equal(corpus.counts(0, np.arange(N_OBS)).toarray(), expected)
    assert corpus.about[corpus.names[0]]["vocabulary_genes"] == 2500
    with pytest.raises(
        KeyError, match=r"gene_key='nope' is not a column of `adata.var`, which has \['gene_ids'\]"
    ):
        Corpus.build(data, in_memory=False, gene_key="nope")


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_columns_of_one_gene_are_added(adata, tmp_path, stream):
    adata.var_names = ["CD3D", "CD3D-1", *adata.var_names[2:]]
    kept = [name not in {"CD3D"} or i == 0 for i, name in enumerate(adata.var_names)]
    adata = adata[:, kept].copy()
    data = write(adata, tmp_path / "cells.h5ad") if stream else adata
    counts = Corpus.build(data, in_memory=False).counts(0, np.arange(N_OBS))
    gene = int(VOCABULARY.match(["CD3D"]).ids[0])
    np.testing.assert_array_equal(counts[:, [gene]].toarray(), adata.X[:, :2].toarray().sum(1, keepdims=True))


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_log1p_is_undone(adata, tmp_path, stream):
    counts = as_vocabulary(adata)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    data = write(adata, tmp_path / "cells.h5ad") if stream else adata
    corpus = Corpus.build(data, in_memory=False)
    scaled = counts * (1e4 / counts.sum(1, keepdims=True))
    np.testing.assert_allclose(corpus.counts(0, np.arange(N_OBS)).toarray(), scaled, rtol=1e-3, atol=1e-3)
    assert corpus.about[corpus.names[0]]["values"] == "log1p"


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_layer_and_raw_can_be_read(adata, tmp_path, stream):
    expected = as_vocabulary(adata)
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata.copy()
    dense = adata.X.toarray()
    adata.X = dense - dense.mean(0)
    data = write(adata, tmp_path / "cells.h5ad") if stream else adata
    for options in ({"layer": "counts"}, {"use_raw": True}):
        corpus = Corpus.build(data, in_memory=False, **options)
        np.testing.assert_array_equal(corpus.counts(0, [4, 2]).toarray(), expected[[4, 2]])
    with pytest.raises(
        ValueError,
        match=r"Dataset '\w+': `adata.X` cannot be read as expression. Negative .*scaled.* Pass .*layer=",
    ):
        Corpus.build(data, in_memory=False)
    with pytest.raises(KeyError, match=r"Dataset '\w+': Layer 'nope' is not in"):
        Corpus.build(data, in_memory=False, layer="nope")


def test_cells_without_a_vocabulary_gene_are_empty_rows(adata, tmp_path):
    adata.X.data[adata.X.indptr[5] : adata.X.indptr[6]] = 0
    corpus = Corpus.build(write(adata, tmp_path / "cells.h5ad"), in_memory=False)
    assert np.diff(corpus.counts(0, [4, 5, 6]).indptr)[1] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -2.0], ids=str)
def test_a_bad_value_in_one_cell_is_named(adata, tmp_path, value, monkeypatch):
    monkeypatch.setattr(
        "scellm.data.cells._expression.describe_values",
        lambda X, **facts: scellm.data.describe_values(X, max_rows=10, **facts),
    )
    row = adata.X[[33]]
    column = int(row.indices[0])
    adata.X[33, column] = value
    corpus = Corpus.build(write(adata, tmp_path / "cells.h5ad"), in_memory=False)
    corpus.counts(0, [32, 34])
    expected = rf"Dataset 'cells': cell 33 \(counted from 0\) has the value {value} in column {column}\."
    with pytest.raises(ValueError, match=expected):
        corpus.counts(0, [60, 33, 32])
    with pytest.raises(ValueError, match=expected):
        Corpus.build(tmp_path / "cells.h5ad")  # loads it
    with pytest.raises(
        ValueError, match=r"Dataset 'adata': (cell 33 .* column |.*Negative values|.* in cell 33, gene )"
    ):
        Corpus.build(adata)


def test_too_few_genes_name_the_dataset(adata, tmp_path):
    few = adata[:, :200].copy()
    write(adata, tmp_path / "fine.h5ad")
    write(few, tmp_path / "few.h5ad")
    text = r"Dataset 'few': `adata.var_names` holds 200 of the \d+ vocabulary genes \(1.0 %, need 10 %\)"
    with pytest.raises(ValueError, match=text):
        Corpus.build(tmp_path)
    assert Corpus.build(tmp_path, min_overlap=0.01).names == ("few", "fine")


def test_column_wise_files_are_refused(adata, tmp_path):
    adata.layers["c"] = adata.X.tocsc()
    path = write(adata, tmp_path / "cells.h5ad")
    with pytest.raises(
        ValueError, match=r"'cells': cells.h5ad: layers/c is stored column by column .*tocsr\(\)"
    ):
        Corpus.build(path, layer="c", in_memory=False)


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([N_OBS], IndexError, "Cell 90 was asked for; the dataset has the cells 0 to 89"),
        ([-1], IndexError, "Cell -1 was asked for"),
        ([0.5], TypeError, "found float64 of shape"),
        ([[1]], TypeError, r"of shape \(1, 1\)"),
    ],
    ids=["above", "negative", "fraction", "matrix"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["memory", "stream"])
def test_cells_that_are_not_there(adata, tmp_path, stream, rows, error, text):
    corpus = Corpus.build(write(adata, tmp_path / "cells.h5ad") if stream else adata, in_memory=False)
    with pytest.raises(error, match=text):
        corpus.counts(0, rows)


def in_another_process(corpus, queue):
    queue.put(corpus.counts(0, np.array([8, 3])).toarray().sum(1).tolist())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_files_are_opened_again_in_other_processes(adata, tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    corpus = Corpus.build(write(adata, tmp_path / "cells.h5ad"), in_memory=False)
    expected = corpus.counts(0, [8, 3]).toarray().sum(1).tolist()
    if method == "spawn":  # what spawn does with its arguments
        copy = pickle.loads(pickle.dumps(corpus))
        assert copy.counts(0, [8, 3]).toarray().sum(1).tolist() == expected
        return
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=in_another_process, args=(corpus, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()
    assert corpus.counts(0, [8, 3]).toarray().sum(1).tolist() == expected


def test_a_file_written_to_since_is_noticed(adata, tmp_path):
    path = write(adata, tmp_path / "cells.h5ad")
    copy = pickle.dumps(Corpus.build(path, in_memory=False))
    os.utime(path, ns=(0, 0))
    with pytest.raises(
        OSError, match=r"Dataset 'cells': .*cells.h5ad was written to after the corpus was built; build"
    ):
        pickle.loads(copy).counts(0, [0])


def test_many_files_are_not_all_open(adata, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "OPEN_AT_ONCE", 2)
    monkeypatch.setattr(stored, "_opened", type(stored._opened)())
    for name in "abcde":
        write(adata, tmp_path / f"{name}.h5ad")
    corpus = Corpus.build(tmp_path, in_memory=False)
    for _ in range(2):
        for dataset in range(5):
            assert corpus.counts(dataset, [1]).nnz
        is_open = [source._matrices[0]._element is not None for source in corpus._datasets]
        assert sum(is_open) == 2


@pytest.mark.parametrize("damage", ["truncated", "columns", "pointer"])
def test_damaged_h5ad_files_are_refused(adata, tmp_path, damage):
    path = write(adata, tmp_path / "cells.h5ad")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "r+") as file:
            if damage == "columns":
                file["X/indices"][1000:1010] = 99_999
            else:
                file["X/indptr"][4] = 0
    text = {
        "truncated": "is cut off: .* MB are there",
        "columns": "values? outside its 2500 columns",
        "pointer": "row pointer",
    }
    with pytest.raises((OSError, ValueError), match=rf"Dataset 'cells': .*{text[damage]}"):
        Corpus.build(path)


def test_an_anndata_changed_later_is_not_seen(adata):
    corpus = Corpus.build(adata)
    before = corpus.counts(0, [0]).toarray()
    adata.X.data[:] = 1
    adata.obs["cell_type"] = "other"
    np.testing.assert_array_equal(corpus.counts(0, [0]).toarray(), before)
    assert corpus.labels("cell_type")[0][0] == "B cell"


def test_control_float64_and_half_precision_are_read(adata, tmp_path):
    expected = as_vocabulary(adata)
    for dtype in (np.float64, np.int32, np.uint16):
        adata.X = adata.X.astype(dtype)
        corpus = Corpus.build(write(adata, tmp_path / f"{np.dtype(dtype)}.h5ad"), in_memory=False)
        np.testing.assert_array_equal(corpus.counts(0, [3, 1]).toarray(), expected[[3, 1]])
    dense = ad.AnnData(adata.X.toarray().astype(np.float16), var=adata.var)
    corpus = Corpus.build(write(dense, tmp_path / "half.h5ad"), in_memory=False)
    np.testing.assert_array_equal(corpus.counts(0, [3, 1]).toarray(), expected[[3, 1]])


@pytest.mark.parametrize("where", ["memory", "h5ad", "zarr"])
def test_cells_of_another_species_are_empty_and_reported(adata, tmp_path, where):
    mouse = adata.copy()
    mouse.var_names = [f"mm10___{name.capitalize()}" for name in adata.var_names]
    adata.var_names = [f"GRCh38_{name}" for name in adata.var_names]
    both = ad.concat([adata, mouse], axis="obs", join="outer", fill_value=0, index_unique="-")
    data = both if where == "memory" else write(both, tmp_path / f"both.{where}")

    def counts_of_all():
        return Corpus.build({"both": data}, in_memory=False).counts(0, np.arange(both.n_obs))

    with pytest.warns(UserWarning, match="counts in .*columns of another species"):
        counts = counts_of_all()
    n_genes = np.diff(counts.indptr)
    assert (n_genes[:N_OBS] > 0).all()
    assert (n_genes[N_OBS:] == 0).all()
