"""A cluster of two processes gives what one process gives, also when a worker dies; unfit workers are refused."""

import os
import signal
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import scellm
from scellm import _cluster

pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

CHUNK = 700
"""Rows of a chunk: no multiple of the rows that are read at once."""


@pytest.fixture(scope="module", autouse=True)
def _importable():
    """Workers import this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        yield


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as made:
            yield made


@pytest.fixture
def client(cluster):
    from distributed import Client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of asyncio and of ports
        with Client(cluster) as made:
            made.wait_for_workers(2, timeout=60)
            yield made


@pytest.fixture(scope="module")
def cells():
    return scellm.datasets.toy_cells(5000, n_vars=1950)


def in_chunks(cells):
    found = cells.copy()
    X = cells.X
    blocks = [
        da.from_delayed(_delayed(X[a : a + CHUNK]), (min(CHUNK, X.shape[0] - a), X.shape[1]), meta=X[:0])
        for a in range(0, X.shape[0], CHUNK)
    ]
    found.X = da.concatenate(blocks)
    return found


def _delayed(block):
    from dask import delayed

    return delayed(block, pure=True)


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(*args, **options)


def test_embedding_on_a_cluster_is_that_of_one_process(client, cells):
    alone, spread = cells.copy(), in_chunks(cells)
    scellm.tl.embed(alone, show_progress=False)
    scellm.tl.embed(spread, show_progress=False)
    assert np.allclose(alone.obsm["X_scellm"], spread.obsm["X_scellm"], atol=1e-5)
    assert alone.uns["X_scellm"]["fingerprint"] == spread.uns["X_scellm"]["fingerprint"]
    assert np.array_equal(alone.X[:50].toarray(), spread.X[:50].compute().toarray())


def test_only_results_come_back(client, cells, monkeypatch):
    spread = in_chunks(cells)
    monkeypatch.setattr("scellm.data.cells._expression.row_blocks", pytest.fail)
    scellm.tl.embed(spread, show_progress=False)
    n_loaded = client.run(_n_loaded)
    assert set(n_loaded.values()) == {1}  # weights once on each worker


def _n_loaded():
    return len(_cluster._loaded)


def test_chunks_are_read_in_the_task_that_needs_them(client, cells):
    aligned, cut = (da.ones((3072, 5), chunks=(rows, 5)) for rows in (1024, 700))
    for X, n_chunks in ((aligned, 3), (cut, 5)):
        found = dict(_cluster.map_rows(client, X, 512, _sum))
        assert sum(found.values()) == 3072 * 5
        assert len(X.chunks[0]) == n_chunks
    assert _cluster._are_apart([aligned[:1024], aligned[1024:]])
    assert not _cluster._are_apart([cut[:512], cut[512:]])  # both need the first chunk
    kept = aligned.persist()
    assert not _cluster._are_apart([kept[:1024], kept[1024:]])  # where it is already
    csr = da.from_array(cells.X[:2048], chunks=(1024, -1), asarray=False)
    assert not _cluster._are_apart([csr[:1024], csr[1024:]])  # one matrix that would go with each part
    assert sum(n for _, n in _cluster.map_rows(client, csr, 512, _sum)) == pytest.approx(cells.X[:2048].sum())


def _sum(rows, start):
    return float(rows.sum())


def test_types_on_a_cluster_are_those_of_one_process(client, cells):
    alone, spread = cells[:3000].copy(), in_chunks(cells[:3000])
    quiet(scellm.tl.annotate, alone)
    quiet(scellm.tl.annotate, spread)
    key = "scellm_cell_type"
    assert (alone.obs[key].astype(str) == spread.obs[key].astype(str)).mean() > 0.999
    assert alone.uns[key]["seen_share"] == spread.uns[key]["seen_share"]


def test_malignancy_on_a_cluster_is_that_of_one_process(client, cells):
    alone, spread = cells[:3000].copy(), in_chunks(cells[:3000])
    quiet(scellm.tl.malignancy, alone, sample_key="donor")
    quiet(scellm.tl.malignancy, spread, sample_key="donor")
    a, b = (x.obs["scellm_malignant"].to_numpy() for x in (alone, spread))
    assert np.allclose(a, b, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("groupby", [None, "cell_type"], ids=["cells", "groups"])
def test_drug_response_on_a_cluster_is_that_of_one_process(client, groupby):
    cells = scellm.datasets.toy_cells(1500, n_vars=19315)
    alone, spread = cells.copy(), in_chunks(cells)
    for adata in (alone, spread):
        quiet(scellm.tl.drug_response, adata, ["Erlotinib", "Dabrafenib"], groupby=groupby)
    assert np.allclose(alone.obsm["drug_response"], spread.obsm["drug_response"], atol=1e-3)


def test_a_lost_worker_costs_nothing_but_time(client, cells):
    expected, spread = cells.copy(), in_chunks(cells)
    scellm.tl.embed(expected, show_progress=False)
    pids = client.run(os.getpid)
    starts, n_rows = [], 0
    for start, shape in _cluster.map_rows(client, spread.X, 512, _slow):
        if not starts:
            os.kill(next(iter(pids.values())), signal.SIGKILL)
        starts.append(start)
        n_rows += shape[0]
    assert len(starts) == len(set(starts)) == 7
    assert n_rows == 5000
    scellm.tl.embed(spread, show_progress=False)  # the cluster goes on with a new worker
    assert np.allclose(expected.obsm["X_scellm"], spread.obsm["X_scellm"], atol=1e-5)


def _slow(rows, start):
    time.sleep(0.3)
    return rows.shape


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
def test_workers_use_memory_again_and_give_it_back_at_the_end(cells):
    from distributed import Client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # new processes: what other tests have left free would be used before any page is asked for
        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made:
            pages = 80 * 2 * 2**20 // 4096
            before = made.run(_resident)
            assert all(n > 0.9 * pages for n in made.run(_faults).values())  # as dask has it
            found = [n for _, n in _cluster.map_rows(made, in_chunks(cells).X, 512, _faults)]
            assert sorted(found)[len(found) // 2] < 0.2 * pages  # all but the first of each worker
            after = made.run(_resident)
            assert all(after[name] < before[name] + 80 for name in before)  # MB: what is free is given back


def _faults(*_):
    """Pages asked of the system for 80 arrays of 2 MB at once; for larger ones numpy asks for huge pages."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [np.ones(2**18) for _ in range(80)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident():
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def test_a_worker_of_little_memory_is_not_paused(cells):
    from distributed import Client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Client(
            n_workers=1, threads_per_worker=1, memory_limit="800MB", dashboard_address=None, silence_logs=50
        ) as made:
            limit = 800e6 / 2**20
            for _, resident in _cluster.map_rows(made, in_chunks(cells).X, 512, _much):
                assert resident < 0.6 * limit  # MB before the task, of which it takes half the limit


def _much(*_):
    """MB of the worker, which then takes and frees 400."""
    before = _resident()
    held = [np.ones(2**17) for _ in range(400)]
    del held
    return before


def test_futures_that_a_chunk_needs_are_found(client):
    base = da.zeros((3 * CHUNK, 4), chunks=(CHUNK, 4))
    X = base.map_blocks(lambda block, more: block + more, client.submit(int, 3), dtype=float)
    found = dict(_cluster.map_rows(client, X, 1, _sum))
    assert found == {i * CHUNK: 3.0 * 4 * CHUNK for i in range(3)}


def _sum(rows, start):
    return float(rows.sum())


def test_what_ends_the_loop_is_told_where_the_cluster_is_gone(client, cells, monkeypatch):
    parts = _cluster.map_rows(client, in_chunks(cells).X, 512, _slow)
    next(parts)

    def gone(*_, **__):
        raise OSError

    for name in ("cancel", "run"):
        monkeypatch.setattr(client, name, gone)
    with pytest.raises(KeyboardInterrupt):
        parts.throw(KeyboardInterrupt)


def test_other_weights_on_a_worker_are_refused(client, cells, tmp_path):
    from dataclasses import replace

    model = scellm.models.load("scellm-small")
    with pytest.raises(ValueError, match=r"The worker tcp://.* has other weights of 'scellm-small': sha256"):
        scellm.tl.embed(in_chunks(cells[:800]), replace(model, sha256="0" * 64), show_progress=False)
    gone = replace(model, source=str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="Put the folder where all workers see it"):
        scellm.tl.embed(in_chunks(cells[:800]), gone, show_progress=False)
    with pytest.raises(ValueError, match=r"Save it with scellm\.models\.save"):
        scellm.tl.embed(in_chunks(cells[:800]), replace(model, source=""), show_progress=False)


def test_a_worker_without_scellm_is_refused(client, cells, monkeypatch):
    _cluster.check_workers(client)
    found = client.run(find_spec, "scellm_of_nowhere")
    monkeypatch.setattr(client, "run", lambda *_, **__: found)
    worker = min(found)
    with pytest.raises(ImportError, match=rf"2 of 2 workers have no scellm: {worker}"):
        scellm.tl.embed(in_chunks(cells[:800]), show_progress=False)
