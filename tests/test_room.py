"""Large results of cells on a disk are in a file that the system may put aside, and are the same."""

import mmap
import sys
import warnings

import anndata as ad
import numpy as np
import pytest

import scellm
from scellm import _room


def base_of(array):
    while isinstance(array, np.ndarray | memoryview):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return array


def test_only_large_results_that_may_are_in_a_file(monkeypatch):
    monkeypatch.setattr(_room, "SMALL", 1000)
    large = _room.make_room((500, 2), np.float32, on_disk=True)
    assert isinstance(base_of(large), mmap.mmap)
    assert large.flags.writeable
    assert not large.any()
    for shape, on_disk in (((500, 2), False), ((100, 2), True)):
        assert base_of(_room.make_room(shape, np.float32, on_disk=on_disk)) is None


def test_without_free_space_results_are_in_memory(monkeypatch):
    monkeypatch.setattr(_room, "SMALL", 1000)
    monkeypatch.setattr(_room.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5000})())
    assert base_of(_room.make_room((500, 2), np.float32, on_disk=True)) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are given back on Linux only")
def test_pages_are_given_back_and_values_stay(monkeypatch):
    asked = []

    class Pages(mmap.mmap):
        def madvise(self, *args):
            asked.append(args)

    _room.let_go(np.frombuffer(Pages(-1, 4000), np.float32)[10:].reshape(-1, 2))
    assert asked == [(mmap.MADV_DONTNEED,)]
    monkeypatch.setattr(_room, "SMALL", 1000)
    array = _room.make_room((1_000_000,), np.float32, on_disk=True)
    array[:] = 3
    _room.let_go(array)
    assert array.min() == array.max() == 3


def test_types_are_the_same_in_blocks_and_in_a_file(tmp_path, monkeypatch):
    cells = scellm.datasets.toy_cells(70, n_vars=1950)
    cells.X = cells.X.multiply(np.arange(70)[:, None] != 3).tocsr().astype(np.float32)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.annotate(cells, target_error=0.2, groupby="donor")
        monkeypatch.setattr(_room, "SMALL", 1000)
        monkeypatch.setattr(_room, "ROWS_AT_ONCE", 9)
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        scellm.tl.annotate(backed, target_error=0.2, groupby="donor")
    key = "scellm_cell_type"
    for name in ("X_scellm", f"{key}_probabilities", f"{key}_set"):
        assert isinstance(base_of(backed.obsm[name]), mmap.mmap)
        np.testing.assert_allclose(backed.obsm[name], cells.obsm[name], rtol=1e-5, atol=1e-6)
    for name in (key, f"{key}_coarse", f"{key}_ontology_id", f"{key}_set_size"):
        assert backed.obs[name].equals(cells.obs[name])
    np.testing.assert_allclose(backed.obs[f"{key}_confidence"], cells.obs[f"{key}_confidence"], rtol=1e-5)
    assert np.isnan(backed.obsm["X_scellm"][3]).all()
    assert backed.uns[key]["summary"] == cells.uns[key]["summary"]
    assert backed.uns["X_scellm"]["embedding_fingerprint"] == cells.uns["X_scellm"]["embedding_fingerprint"]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_large_results_are_written_in_pieces(tmp_path, monkeypatch, kind):
    from scellm.data import write_results

    path = tmp_path / f"cells.{kind}"
    cells = scellm.datasets.toy_cells(30, n_vars=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr on its format
        getattr(cells, f"write_{kind}")(path)
    monkeypatch.setattr(_room, "SMALL", 100)
    monkeypatch.setattr(_room, "ROWS_AT_ONCE", 7)
    values = np.arange(90, dtype=np.float32).reshape(30, 3)
    write_results(path, path, {"obsm": {"X_large": values}, "uns": {"x": "y"}})
    found = getattr(ad.io, f"read_{kind}")(path)
    np.testing.assert_array_equal(found.obsm["X_large"], values)
    assert found.obsm["X_large"].dtype == np.float32
    assert found.uns["x"] == "y"
