"""The packed file: the same cells, small, checked, and read without anndata."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import scellm
from scellm.data import Corpus, GeneVocabulary, pack
from scellm.data.corpus import _packed as packed_module

N_OBS = 40


def cells(rng=0):
    return scellm.datasets.toy_cells(N_OBS, n_vars=2500, rng=rng)


@pytest.fixture
def data():
    log = cells(1)
    log.X = log.X.log1p()
    log.X.data *= 1.01  # linear, not whole
    return {"counts": cells(), "log/p": log}


@pytest.fixture
def path(data, tmp_path):
    return pack(data, tmp_path / "corpus.scellm.h5")


@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
def test_the_same_cells_come_back(data, path, in_memory):
    expected = Corpus.build(data)
    corpus = Corpus.build(path, in_memory=in_memory)
    assert corpus.names == expected.names == ("counts", "log/p")
    assert corpus.vocabulary == expected.vocabulary
    assert corpus.vocabulary.source == expected.vocabulary.source
    assert corpus.about == expected.about
    assert corpus.label_keys == expected.label_keys
    assert corpus.block_sizes.tolist() == [1 if in_memory else 16] * 2
    assert corpus.fingerprint == expected.fingerprint
    rows = np.array([39, 2, 2, 17, 18, 0])
    for dataset in range(2):
        counts, plain = corpus.counts(dataset, rows), expected.counts(dataset, rows)
        assert (counts.dtype, counts.shape) == (np.float32, plain.shape)
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(counts, part), getattr(plain, part))
    for key in expected.label_keys:
        for column, plain in zip(corpus.labels(key), expected.labels(key), strict=True):
            np.testing.assert_array_equal(column, plain)


def test_numbers_are_stored_small(data, tmp_path):
    data["counts"].X.data = data["counts"].X.data.clip(max=255)
    path = pack(data, tmp_path / "p.h5")
    with h5py.File(path) as file:
        assert file.attrs["format"] == "scellm-packed"
        types = {file[f"datasets/{i}"].attrs["name"]: file[f"datasets/{i}/data"].dtype for i in range(2)}
        assert types == {"counts": np.uint8, "log/p": np.float32}
        assert file["datasets/0/indices"].dtype == np.uint16


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, "u1"), (256, "u2"), (65_536, "u4"), (2**24, "f4")],
    ids=["byte", "two-bytes", "four-bytes", "beyond-float32"],
)
def test_large_counts_are_kept_exactly(tmp_path, largest, dtype):
    adata = cells()
    adata.X.data = adata.X.data.clip(max=200)
    adata.X.data[5] = largest
    expected = Corpus.build(adata).counts(0, np.arange(N_OBS)).toarray()
    path = pack(adata, tmp_path / "p.h5")
    with h5py.File(path) as file:
        assert file["datasets/0/data"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(Corpus.build(path).counts(0, np.arange(N_OBS)).toarray(), expected)


def test_anndata_reads_the_matrices(data, path):
    from anndata.io import read_elem

    with h5py.File(path) as file:
        X = read_elem(file["datasets/0"])
    np.testing.assert_array_equal(X.toarray(), Corpus.build(data).counts(0, np.arange(N_OBS)).toarray())


def test_many_blocks_are_written(data, tmp_path, monkeypatch, path):
    monkeypatch.setattr("scellm.data.corpus._pack.CELLS_AT_ONCE", 7)
    other = pack(data, tmp_path / "other.h5")
    assert Corpus.build(other, in_memory=False).fingerprint == Corpus.build(path).fingerprint
    with h5py.File(path) as one, h5py.File(other) as two:
        for name in ("data", "indices", "indptr"):
            one_sum, two_sum = (file[f"datasets/1/{name}"].attrs["sha256"] for file in (one, two))
            assert one_sum == two_sum


def test_chosen_labels(data, tmp_path):
    data["counts"].obs["number"] = np.arange(N_OBS)
    path = pack(data, tmp_path / "p.h5", label_keys=["number", "donor"])
    corpus = Corpus.build(path)
    assert corpus.label_keys == ("donor", "number")
    assert corpus.labels("number")[0].tolist() == [str(i) for i in range(N_OBS)]
    assert corpus.labels("number")[1].tolist() == [""] * N_OBS
    assert Corpus.build(pack(data, tmp_path / "q.h5", label_keys=[])).label_keys == ()
    with pytest.raises(KeyError, match="No dataset has the column 'nope'"):
        pack(data, tmp_path / "r.h5", label_keys=["nope"])
    with pytest.raises(TypeError, match=r"found the text 'donor'. Use \['donor'\]"):
        pack(data, tmp_path / "r.h5", label_keys="donor")


def test_a_corpus_and_packed_files_can_be_packed_again(data, path, tmp_path):
    again = pack([path, *({"new": cells(2)},)], tmp_path / "more.h5")
    assert Corpus.build(again).names == ("counts", "log/p", "new")
    corpus = Corpus.build(data)
    assert Corpus.build(pack(corpus, tmp_path / "c.h5")).fingerprint == corpus.fingerprint
    with pytest.raises(ValueError, match="are chosen in Corpus.build; leave them out here"):
        pack(corpus, tmp_path / "d.h5", layer="counts")
    with pytest.raises(ValueError, match="are chosen in Corpus.build"):
        pack(corpus, tmp_path / "d.h5", vocabulary=GeneVocabulary.default().subset(["CD3D"]))


# -- where it is written ------------------------------------------------------------------------------------------


def test_what_is_there_is_kept(data, path, tmp_path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"is there already; pass overwrite=True \(--overwrite\)"):
        pack(data, path)
    bad = cells()
    bad.X.data[3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        pack(bad, path, overwrite=True)
    assert path.read_bytes() == before
    pack({"one": data["counts"]}, path, overwrite=True)
    assert Corpus.build(path).names == ("one",)
    with pytest.raises(
        ValueError, match=r"must end in '.h5', for instance 'corpus.scellm.h5'; found 'corpus.csv'"
    ):
        pack(data, tmp_path / "corpus.csv")
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere to write p.h5 into"):
        pack(data, tmp_path / "nowhere" / "p.h5")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failure_on_the_way_leaves_nothing(data, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("scellm.data.corpus._pack._write_label", fail)
    with pytest.raises(KeyboardInterrupt):
        pack(data, tmp_path / "p.h5")
    assert list(tmp_path.iterdir()) == []


# -- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError, match=r"corpus.scellm.h5: the file cannot be read .*copy it again, or pack it again"
    ):
        Corpus.build(path)


def flip(path, array, at=0):
    """Change bits in the middle of the first chunk of an array."""
    with h5py.File(path) as file:
        chunk = file[array].id.get_chunk_info(0)
        offset = chunk.byte_offset + chunk.size // 2
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("array", ["data", "indices", "indptr", "about"])
def test_a_flipped_bit_is_found_when_the_file_is_opened(path, array):
    flip(path, f"datasets/1/{array}")
    with pytest.raises(ValueError, match=r"corpus.scellm.h5: dataset 'log/p' cannot be read .*pack it again"):
        Corpus.build(path, in_memory=False)


def test_a_flipped_bit_in_a_large_file_is_found_when_it_is_read(path, monkeypatch):
    monkeypatch.setattr(packed_module, "CHECK_BELOW", 0)
    flip(path, "datasets/1/data")
    corpus = Corpus.build(path, in_memory=False)
    corpus.counts(0, [0])
    with pytest.raises(
        OSError, match=r"Dataset 'log/p': .*corpus.scellm.h5: cells 0 to 0 .*cannot be read .*damaged"
    ):
        corpus.counts(1, [0])


def test_a_flipped_bit_in_a_label_is_found_when_it_is_asked_for(path):
    flip(path, "datasets/0/labels/0/codes")
    corpus = Corpus.build(path)
    with pytest.raises(
        ValueError, match=r"corpus.scellm.h5: label 'cell_type' cannot be read .*pack it again"
    ):
        corpus.labels("cell_type")


def test_a_flipped_bit_in_the_vocabulary_is_found(path):
    flip(path, "vocabulary")
    with pytest.raises(
        ValueError, match=r"corpus.scellm.h5: the vocabulary or the list of datasets cannot be read"
    ):
        Corpus.build(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda f: f.attrs.modify("version", 9),
            "is a packed file of version 9; this scellm reads version 1",
        ),
        (
            lambda f: f["datasets/0"].attrs.modify("shape", (N_OBS, 7)),
            "dataset 'counts' .*values for 7 places",
        ),
        (
            lambda f: f["datasets/0"].attrs.modify("shape", (9, 19)),
            "dataset 'counts' .*row pointer has 41 entries for 9",
        ),
        (
            lambda f: f["datasets/0/data"].write_direct(np.ones(5, "u1"), dest_sel=np.s_[:5]),
            "its SHA-256 differs",
        ),
        (lambda f: f["datasets/0"].pop("indices"), "dataset 'counts' cannot be read"),
        (lambda f: f.pop("vocabulary"), "the vocabulary or the list"),
        (lambda f: f["datasets"].move("0", "5"), "the vocabulary or the list"),
    ],
    ids="version columns rows values no-indices no-vocabulary no-dataset".split(),
)
def test_a_file_that_was_changed_is_refused(path, change, text):
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=text):
        Corpus.build(path)


def test_control_an_hdf5_file_of_another_kind(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(
        ValueError, match="other.h5 is neither an .h5ad file nor one that `scellm pack` wrote"
    ):
        Corpus.build(tmp_path / "other.h5")


def test_a_dataset_without_any_value(tmp_path, monkeypatch):
    adata = cells()
    corpus = Corpus.build({"full": adata, "empty": adata})
    empty = sp.csr_array((N_OBS, len(corpus.vocabulary)), dtype=np.float32)
    monkeypatch.setattr(corpus._datasets[0], "_counts", empty)
    path = pack(corpus, tmp_path / "p.h5")
    for in_memory in (False, True):
        assert Corpus.build(path, in_memory=in_memory).counts(0, [3, 4]).nnz == 0


# -- a bare machine -----------------------------------------------------------------------------------------------


def test_packed_files_are_read_without_anndata(path):
    code = f"""
import sys
for name in ("anndata", "scanpy", "zarr", "annbatch", "torch", "sklearn", "matplotlib", "huggingface_hub"):
    sys.modules[name] = None
from scellm.data import Corpus, Sampler
for in_memory in (False, True):
    corpus = Corpus.build({str(path)!r}, in_memory=in_memory)
    sampler = Sampler(corpus.sizes, corpus.block_sizes, batch_size=32)
    batch = sampler.next()
    counts = corpus.counts(0, batch.row[batch.dataset == 0])
    assert counts.nnz and corpus.labels("cell_type")[1].shape == ({N_OBS},)
    print(corpus.fingerprint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert set(done.stdout.split()) == {Corpus.build(path).fingerprint}
