"""Atlas search: the index as a folder, neighbors that are true, votes, and what is refused."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.atlas import build_index, open_index, vote

faiss = pytest.importorskip("faiss", reason="needs faiss (extra search)")


@pytest.fixture(scope="module")
def cells():
    return scellm.datasets.toy_cells(90, n_vars=1950)


@pytest.fixture(scope="module")
def atlas(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas") / "index"
    known = cells[:60].copy()
    known.obs["mine"] = pd.Categorical(["a", None] * 30)
    parts = {"first": known[:40].copy(), "second": known[40:].copy()}
    assert scellm.tl.index(parts, folder, columns=["cell_type", "mine"], show_progress=False) == folder
    return folder


def test_types_of_neighbors(cells, atlas):
    adata = cells[60:].copy()
    before = list(adata.obs)
    scellm.tl.search(adata, atlas, k=5)
    truth = cells.obs["cell_type"][60:].astype(str).to_numpy()
    assert (adata.obs["scellm_search_cell_type"].astype(str) == truth).mean() > 0.8
    assert list(adata.obs)[: len(before)] == before
    assert adata.obsm["scellm_search_neighbors"].shape == (30, 5)
    assert set(adata.obs["scellm_search_dataset"].unique()) <= {"first", "second"}
    assert adata.uns["scellm_search"]["n_indexed"] == 60
    table = scellm.get.search(adata, "cell_type")
    assert (table.groupby(["group", "column"])["share"].sum() <= 1 + 1e-9).all()
    first = table[(table["column"] == "cell_type")].groupby("group").head(1)
    assert (first["group"] == first["value"]).mean() > 0.6


def test_a_cell_of_the_index_finds_itself(cells, atlas):
    adata = cells[:60].copy()
    with pytest.warns(UserWarning, match="60 of 60 cells are in the index themselves.* exclude_self=True"):
        scellm.tl.search(adata, atlas, k=3, columns="cell_type", exclude_self=False)
    assert (adata.obsm["scellm_search_neighbors"][:, 0] == np.arange(60)).all()
    assert adata.obsm["scellm_search_distances"][:, 0].max() < 2e-3  # half precision
    assert "scellm_search_mine" not in adata.obs
    assert (np.diff(adata.obsm["scellm_search_distances"], axis=1) >= -1e-6).all()


def test_a_cell_of_the_index_is_no_neighbor_of_itself(cells, atlas):
    adata = cells[50:70].copy()
    counts = adata.X.copy()
    adata.X = np.log1p(
        counts.multiply(1e4 / counts.sum(1)).tocsr()
    )  # the same cells on another scale, under other names
    adata.obs_names = [f"other {i}" for i in range(20)]
    with pytest.warns(UserWarning, match="10 of 20 cells are in the index themselves.* None counts"):
        scellm.tl.search(adata, atlas, k=3)
    assert adata.obs["scellm_search_in_index"].tolist() == [True] * 10 + [False] * 10
    assert adata.uns["scellm_search"]["n_in_index"] == 10
    found, distances = (adata.obsm[f"scellm_search_{name}"] for name in ("neighbors", "distances"))
    assert (found >= 0).all()
    assert not (found[:10] == np.arange(50, 60)[:, None]).any()
    again = cells[50:70].copy()
    with pytest.warns(UserWarning, match="in the index themselves"):
        scellm.tl.search(again, atlas, k=4, exclude_self=False)
    assert (again.obsm["scellm_search_neighbors"][:10, 1:] == found[:10]).all()
    assert (again.obsm["scellm_search_neighbors"][10:, :3] == found[10:]).all()
    np.testing.assert_allclose(distances[:10], again.obsm["scellm_search_distances"][:10, 1:], atol=1e-3)


def test_all_copies_of_a_cell_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8)).astype(np.float32)
    vectors = np.concatenate([vectors, vectors[:1]])  # the first cell twice
    marks = np.array([1, 2, 3, 4, 0, 0, 1], np.uint64)
    index = build_index([vectors], {}, tmp_path / "i", about={"model": "m", "sha256": "s"}, marks=marks)
    rows, distances = index.search_others(vectors[[0, 4]], marks[[0, 4]], 5)
    assert set(rows[0]) == {1, 2, 3, 4, 5}
    assert rows[1, 0] == 4  # no mark: nothing is known of it
    assert (np.diff(distances, axis=1) >= 0).all()
    rows, distances = index.search_others(vectors[:1], marks[:1], 7)
    assert rows[0, 5:].tolist() == [-1, -1]
    assert np.isnan(distances[0, 5:]).all()


@pytest.mark.filterwarnings("ignore:.*no common sum", "ignore:.*are unlike all of them")
@pytest.mark.parametrize(("n_indexed", "n_query"), [(60, 30), (60, 5), (15, 5), (15, 1)])
def test_cells_that_express_all_genes_keep_their_neighbors(cells, tmp_path, n_indexed, n_query):
    dense = cells.copy()
    noise = np.random.default_rng(0).uniform(0.01, 0.5, size=dense.shape)  # as after imputation
    dense.X = (dense.X.toarray() + noise).astype(np.float32)
    known = dense[:n_indexed].copy()
    folder = scellm.tl.index(known, tmp_path / "i", columns="cell_type", show_progress=False)
    assert (np.asarray(open_index(folder).marks) == 0).all() == (n_indexed >= 20)
    query = dense[60 : 60 + n_query].copy()
    scellm.tl.search(query, folder, k=5, show_progress=False)
    assert (query.obsm["scellm_search_neighbors"] >= 0).all()
    assert not query.obs["scellm_search_in_index"].any()
    assert query.obs["scellm_search_unusual"].notna().all()


@pytest.mark.parametrize(("n_there", "n_asked"), [(25, 1), (1, 25)])
def test_a_mark_of_many_cells_tells_nothing(tmp_path, n_there, n_asked):
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    marks = np.arange(1, 41, dtype=np.uint64)
    marks[:n_there] = 1
    index = build_index([vectors], {}, tmp_path / "i", about={"model": "m", "sha256": "s"}, marks=marks)
    asked = np.array([1] * n_asked + [39], np.uint64)
    assert index.telling(asked).tolist() == [0] * n_asked + [39]
    some = np.concatenate([vectors[:n_asked], vectors[38:39]])
    rows, _ = index.search_others(some, index.telling(asked), 10)
    assert rows[0, 0] == 0
    assert (rows >= 0).all()
    assert 38 not in rows[-1]


def test_twenty_copies_are_left_out_and_none_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors[:20] = vectors[0]
    marks = np.arange(1, 41, dtype=np.uint64)
    marks[:20] = 1
    index = build_index([vectors], {}, tmp_path / "i", about={"model": "m", "sha256": "s"}, marks=marks)
    rows, _ = index.search_others(vectors[:1], marks[:1], 20)
    assert sorted(rows[0].tolist()) == list(range(20, 40))


def test_all_regions_are_searched_where_the_nearest_hold_too_few(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(21_000, 8)).astype(np.float32)
    index = build_index([vectors], {}, tmp_path / "i", about={"model": "m", "sha256": "s"})
    index.vectors.nprobe = 1
    rows, distances = index.search(vectors[:3], 2_000)
    assert (rows >= 0).all()
    assert all(len(set(one)) == 2_000 for one in rows.tolist())
    assert (np.diff(distances, axis=1) >= -1e-6).all()


def test_unusual_by_the_last_neighbor_that_is_there(cells, atlas):
    index = open_index(atlas)
    distances = np.full((3, 15), np.nan, np.float32)
    distances[0, :3], distances[1] = (0.1, 0.2, 1.9), 0.0
    found = index.unusual(distances)
    assert found[:2].tolist() == [1, 0]
    assert np.isnan(found[2])


def test_a_large_index_is_written_as_faiss_would(tmp_path):
    from scellm.atlas import _regions

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(21_000, 8)).astype(np.float16)
    vectors[5] = np.nan
    parts = [vectors[:100], vectors[100:]]
    _regions.write_vectors(faiss, parts, tmp_path / "ours", 0)
    index = faiss.index_factory(8, "IVF512,SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = 1, 8
    index.train(_regions.sampled(parts, _regions.TRAINED_ON * 512, 0))
    index.nprobe = _regions.SEARCHED
    known = np.flatnonzero(np.isfinite(vectors).all(1))
    index.add_with_ids(_regions.unit(vectors)[known], known)
    faiss.write_index(index, str(tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("ours", "theirs")] == []


def test_few_regions_with_cells_are_written_too(tmp_path, monkeypatch):
    from scellm.atlas import _regions

    monkeypatch.setattr(_regions, "FEW", 10)
    monkeypatch.setattr(_regions, "AT_ONCE", 7)
    few = np.eye(8, dtype=np.float32)[np.arange(60) % 3]
    _regions.write_vectors(faiss, [few], tmp_path / "i", 0)
    index = faiss.read_index(str(tmp_path / "i"))
    assert index.ntotal == 60
    assert sorted(index.search(few[:1], 20)[1][0].tolist()) == list(range(0, 60, 3))


def test_the_same_data_twice_is_said(cells, tmp_path):
    some = cells[:30].copy()
    with pytest.warns(
        UserWarning, match="'again' holds the same values as 'a': its cells are in the index twice"
    ):
        scellm.tl.index({"a": some, "again": some}, tmp_path / "i", columns="cell_type", show_progress=False)
    sources = open_index(tmp_path / "i").manifest["sources"]
    assert [(one["name"], one["n_cells"]) for one in sources] == [("a", 30), ("again", 30)]


def test_results_survive_files(cells, atlas, tmp_path):
    import anndata as ad

    adata = cells[60:].copy()
    scellm.tl.search(adata, atlas)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(scellm.get.search(again), scellm.get.search(adata))


def test_neighbors_are_those_of_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 32))
    vectors = (centers[rng.integers(40, size=24_000)] + 0.5 * rng.normal(size=(24_000, 32))).astype(
        np.float32
    )
    index = build_index(
        [vectors[:9000], vectors[9000:]], {}, tmp_path / "i", about={"model": "m", "sha256": "s"}
    )
    queries = vectors[:200] + 0.05 * rng.normal(size=(200, 32)).astype(np.float32)
    rows, distances = index.search(queries, 10)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    true = np.argsort(-(queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T, axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, true, strict=True)]) > 0.9
    inside, far = (
        index.unusual(distances),
        index.unusual(index.search(-queries * 0 + rng.normal(size=32), 15)[1]),
    )
    assert inside.mean() < 0.8
    assert far.min() > 0.95
    nan = np.full((1, 32), np.nan)
    assert index.search(nan, 3)[0].tolist() == [[-1, -1, -1]]
    assert np.isnan(index.unusual(index.search(nan, 3)[1])).all()


def test_as_many_regions_are_searched_as_the_data_needs(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(21_000, 24)).astype(np.float32)  # no clusters: neighbors are everywhere
    clear = (10 * noise[rng.integers(300, size=21_000)] + rng.normal(size=(21_000, 24))).astype(np.float32)
    searched = {}
    for name, vectors in (("noise", noise), ("clear", clear)):
        index = build_index([vectors], {}, tmp_path / name, about={"model": "m", "sha256": "s"})
        rows, _ = index.search(vectors[:200], 15)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        true = np.argsort(-unit[:200] @ unit.T, axis=1)[:, :15]
        recall = np.mean([len(set(a) & set(b)) / 15 for a, b in zip(rows, true, strict=True)])
        assert abs(recall - index.manifest["recall"]) < 0.05
        searched[name] = index.vectors.nprobe
        assert index.vectors.nprobe == index.manifest["searched"]
        assert recall > 0.95 or searched[name] == 128
    assert searched["clear"] < searched["noise"]


def test_votes_go_to_the_nearest_where_they_tie():
    labels = pd.Categorical(["a", "b", "b", None, "a"])
    result = vote(np.array([[1, 0, 4, 2], [3, 3, 0, -1], [-1, -1, -1, -1]]), labels)
    assert list(result.label[:2]) == ["b", "a"]
    assert pd.isna(result.label[2])
    np.testing.assert_allclose(result.share, [0.5, 1 / 3, np.nan], rtol=1e-6)


def test_an_index_is_not_replaced_unasked(cells, atlas, tmp_path):
    with pytest.raises(FileExistsError, match="overwrite=True"):
        scellm.tl.index(cells, atlas, columns="cell_type")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is not an index"):
        scellm.tl.index(cells, tmp_path / "mine", columns="cell_type", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    (tmp_path / "mine" / "notes.txt").rename(tmp_path / "mine" / "manifest.json")
    with pytest.raises(FileExistsError, match="is not an index"):
        scellm.tl.index(cells, tmp_path / "mine", columns="cell_type", overwrite=True)


def _damaged(atlas, tmp_path, name, change):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(atlas, folder)
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vectors.faiss", lambda x: x[:-1] + bytes([x[-1] ^ 1]), "its hash differs"),
        ("column-0.npy", lambda x: x + b" ", "its hash differs"),
        ("manifest.json", lambda x: x[:50], "not readable JSON"),
        ("manifest.json", lambda x: json.dumps(json.loads(x) | {"format": 9}).encode(), "has format 9"),
        (
            "manifest.json",
            lambda x: json.dumps({"format": 1, "n_cells": 60}).encode(),
            "has format 1, this version of scellm reads 2. .*overwrite=True",
        ),
        ("manifest.json", lambda x: json.dumps(json.loads(x) | {"dim": "x"}).encode(), "no 'dim'"),
    ],
)
def test_damaged_indices_are_refused(cells, atlas, tmp_path, name, change, message):
    folder = _damaged(atlas, tmp_path, name, change)
    with pytest.raises(ValueError, match=message):
        scellm.tl.search(cells[:5].copy(), folder)
    scellm.tl.index(cells[:30].copy(), folder, columns="cell_type", overwrite=True, show_progress=False)
    assert open_index(folder).n_cells == 30


@pytest.mark.parametrize("name", ["vectors.faiss", "manifest.json"])
def test_an_index_that_lacks_a_file_can_be_replaced(cells, atlas, tmp_path, name):
    folder = _damaged(atlas, tmp_path, name, lambda x: x)
    (folder / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="missing"):
        scellm.tl.search(cells[:5].copy(), folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        scellm.tl.index(cells[:30].copy(), folder, columns="cell_type", show_progress=False)
    scellm.tl.index(cells[:30].copy(), folder, columns="cell_type", overwrite=True, show_progress=False)
    assert open_index(folder).n_cells == 30


def test_refused(cells, atlas, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no index"):
        scellm.tl.search(cells.copy(), tmp_path)
    with pytest.raises(KeyError, match="no column 'tissue'; it has"):
        scellm.tl.search(cells.copy(), atlas, columns="tissue")
    with pytest.raises(ValueError, match="from 1 to the 60 cells"):
        scellm.tl.search(cells.copy(), atlas, k=61)
    with pytest.raises(
        KeyError, match=r"None of the data has obs\['tissue'\].*there are: 0: \['cell_type', "
    ):
        scellm.tl.index(cells, tmp_path / "new", columns="tissue", show_progress=False)
    empty = cells.copy()
    empty.obs["tissue"] = None
    with pytest.raises(KeyError, match="None of the data has values"):
        scellm.tl.index(empty, tmp_path / "new", columns="tissue", show_progress=False)
    assert not (tmp_path / "new").exists()
    with pytest.raises(KeyError, match="Run scellm.tl.search"):
        scellm.get.search(cells)


def test_another_model_is_refused(cells, atlas):
    import dataclasses

    other = dataclasses.replace(scellm.models.load("scellm-small"), sha256="0" * 64, name="other")
    with pytest.raises(ValueError, match="was made with 'scellm-small'"):
        scellm.tl.search(cells.copy(), atlas, model=other)


def test_without_faiss(cells, atlas, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'scellm\[search\]'"):
        open_index(atlas)


def test_cells_are_added_to_an_index(cells, tmp_path):
    a, b = cells[:40].copy(), cells[40:60].copy()
    b.obs["cell_type"] = b.obs["cell_type"].astype(str).replace("B cell", "a new name")
    folder = scellm.tl.index({"a": a}, tmp_path / "i", columns="cell_type", show_progress=False)
    before = open_index(folder)
    types, vectors = before.column("cell_type").astype(str), before.stored().astype(float)
    scellm.tl.index({"b": b}, folder, append=True, show_progress=False)
    after = open_index(folder)
    assert after.n_cells == 60
    assert after.columns == before.columns == ["cell_type", "dataset"]
    assert (after.column("cell_type").astype(str)[:40] == types).all()
    assert "a new name" in after.column("cell_type").astype(str)[40:]
    assert np.abs(after.stored()[:40].astype(float) - vectors).max() < 1e-3
    adata = cells[:60].copy()
    with pytest.warns(UserWarning, match="60 of 60 cells are in the index themselves"):
        scellm.tl.search(adata, folder, k=1, exclude_self=False)
    assert (adata.obsm["scellm_search_neighbors"][:, 0] == np.arange(60)).all()
    assert [one["name"] for one in after.manifest["sources"]] == ["a", "b"]
    with pytest.raises(ValueError, match=r"has the columns .*; \['donor'\] cannot be added"):
        scellm.tl.index({"b": b}, folder, columns="donor", append=True)
    with pytest.raises(FileNotFoundError, match="There is no index"):
        scellm.tl.index({"b": b}, tmp_path / "none", append=True)
    with pytest.raises(TypeError, match="columns= is needed"):
        scellm.tl.index({"b": b}, tmp_path / "none")


def test_names_of_datasets_stay_apart(cells, tmp_path):
    a, b, c = cells[:20].copy(), cells[20:40].copy(), cells[40:60].copy()
    folder = scellm.tl.index([a], tmp_path / "i", columns="cell_type", show_progress=False)
    for part, name in ((b, "0-2"), (c, "0-3")):
        with pytest.warns(
            UserWarning, match=f"The index has a dataset '0' already; this one is named '{name}'"
        ):
            scellm.tl.index([part], folder, append=True, show_progress=False)
    index = open_index(folder)
    assert index.column("dataset").tolist() == ["0"] * 20 + ["0-2"] * 20 + ["0-3"] * 20
    assert [one["name"] for one in index.manifest["sources"]] == ["0", "0-2", "0-3"]
    folder = scellm.tl.index({1: a, "1": b}, tmp_path / "j", columns="cell_type", show_progress=False)
    assert open_index(folder).column("dataset").tolist() == ["0-1"] * 20 + ["1-1"] * 20


def test_a_column_of_the_user_that_is_called_dataset(cells, atlas, tmp_path):
    adata = cells[:20].copy()
    adata.obs["dataset"] = pd.Categorical(["x", "y"] * 10)
    for more in ({"append": True}, {}):
        with pytest.raises(ValueError, match="columns has 'dataset', which the index fills") as told:
            scellm.tl.index(
                adata, atlas if more else tmp_path / "i", columns=["cell_type", "dataset"], **more
            )
    code = str(told.value).split("first: ")[1].split(", and pass ")[0]
    exec(code, {"adata": adata})
    scellm.tl.index(adata, tmp_path / "i", columns=["cell_type", "my_dataset"], show_progress=False)
    index = open_index(tmp_path / "i")
    assert index.column("my_dataset").tolist() == ["x", "y"] * 10
    assert index.column("dataset").tolist() == ["0"] * 20


def test_cells_are_added_to_an_index_without_names_of_data(cells, tmp_path):
    model = scellm.models.load("scellm-small")
    vectors = np.random.default_rng(0).normal(size=(5, model.config.dim)).astype(np.float32)
    about = {"model": model.name, "sha256": model.sha256}
    build_index([vectors], {"cell_type": ["x"] * 5}, tmp_path / "i", about=about)
    scellm.tl.index({"new": cells[:10].copy()}, tmp_path / "i", append=True, show_progress=False)
    assert open_index(tmp_path / "i").column("dataset").astype(object).tolist()[5:] == ["new"] * 10


def test_stored_vectors_of_many_cells_and_of_empty_ones(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(21_000, 8)).astype(np.float32)
    vectors[7] = np.nan
    index = build_index([vectors], {}, tmp_path / "i", about={"model": "m", "sha256": "s"})
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(index.stored().astype(np.float32), unit, atol=2e-3, equal_nan=True)


def test_the_index_that_comes_with_scellm(cells):
    folder = scellm.tl._search.SHIPPED
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5e6
    index = open_index(folder)
    assert index.manifest["sha256"] == scellm.models.load("scellm-small").sha256
    assert index.columns == ["cell_type", "tissue", "disease", "study", "paper"]
    adata = cells[60:].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toy cells are unlike all of them
        scellm.tl.search(adata)
    assert adata.uns["scellm_search"]["n_indexed"] == index.n_cells
    assert adata.obs["scellm_search_study"].notna().all()
