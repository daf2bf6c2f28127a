"""Work on a dask cluster: functions go where the rows of a matrix are, and only what they return comes back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

_loaded: dict[Any, Any] = {}
_lock = threading.Lock()
TRIM = "MALLOC_TRIM_THRESHOLD_"
"""How dask tells the allocator of a worker to give all memory back at once."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Their numbers in the C library."""
M_TOP_PAD = -2
KEPT, LARGE, HEAP = 2**30, 2**25, 2**26
"""Bytes that stay with a worker between tasks, size of arrays that do not, and what threads ask of the system at once."""
MUCH = 0.4
"""Share of its memory limit from which on a worker gives back what is free after each task."""


@dataclass(frozen=True)
class Weights:
    """A model as it travels: workers load it themselves, once, and compare its hash."""

    load: Callable[..., Any]
    """Function of a name or path, and of `options`."""
    source: str
    sha256: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.source or not self.sha256:
            msg = (
                f"The model {self.name!r} is in memory alone, and workers of a cluster load models themselves. Save it with "
                "scellm.models.save in a folder that all workers see, load it from there, and pass what was loaded."
            )
            raise ValueError(msg)

    def get(self) -> Any:
        """The model, on a worker."""
        with _lock:
            if self not in _loaded:
                _loaded.clear()  # one model at a time
                _loaded[self] = self._read()
            return _loaded[self]

    def _read(self) -> Any:
        try:
            model = self.load(self.source, **dict(self.options))
        except FileNotFoundError as error:
            msg = f"The worker {_address()} has no model {self.source!r}. Put the folder where all workers see it."
            raise FileNotFoundError(msg) from error
        if model.sha256 != self.sha256:
            msg = (
                f"The worker {_address()} has other weights of {self.source!r}: sha256 {model.sha256[:8]}, needed "
                f"{self.sha256[:8]}. Install the same version of scellm on all workers, or give them the same model folder."
            )
            raise ValueError(msg)
        return model


def client_of(X: Any) -> Any | None:
    """The client of the cluster that computes a dask array; `None` for other matrices and without one."""
    if "distributed" not in sys.modules or not hasattr(X, "to_delayed"):
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def check_workers(client: Any) -> None:
    """That there are workers, and that all have scellm.

    Raises
    ------
    ImportError
        Some have not: which.
    RuntimeError
        There is none.
    """
    # of the standard library: a worker without scellm could not read a function of ours
    has = client.run(find_spec, "scellm", on_error="return") if client.nthreads() else {}
    if not has:
        msg = f"The cluster {client.scheduler.address} has no worker. Start some, or wait: client.wait_for_workers(1)."
        raise RuntimeError(msg)
    without = sorted(str(name) for name, found in has.items() if not isinstance(found, ModuleSpec))
    if without:
        msg = (
            f"{len(without)} of {len(has)} workers have no scellm: {', '.join(without[:5])}. Install it in the environment "
            "they run in."
        )
        raise ImportError(msg)


def map_rows(
    client: Any, X: Any, multiple: int, function: Callable[..., Any], *shared: Any
) -> Iterator[tuple[int, Any]]:
    """Yield `(start, function(rows, start, *shared))` for consecutive rows of a dask array, as they are done.

    A part has about the rows of a chunk. Where a worker is lost, dask computes its parts again.

    Parameters
    ----------
    client
        Of the cluster.
    X
        Cells x genes, in chunks that are numpy arrays or scipy sparse.
    multiple
        Parts begin at multiples of this row.
    function
        Of a module that workers can import.
    shared
        What all parts need; goes to a worker once.
    """
    check_workers(client)
    from dask import delayed
    from distributed import KilledWorker, as_completed

    common = [delayed(one, traverse=False) for one in shared]
    task = delayed(_on_rows, pure=False)
    edges = list(_edges(X.chunks[0], multiple))
    rows = [X[a:b] for a, b in edges]
    grids = [some.to_delayed().tolist() for some in rows]
    if _are_apart(rows):
        grids = [_Unread(grid) for grid in grids]
    parts = [(a, task(function, grid, a, *common)) for (a, _), grid in zip(edges, grids, strict=True)]
    futures = client.compute([part for _, part in parts])
    starts = {future.key: a for future, (a, _) in zip(futures, parts, strict=True)}
    try:
        for future in as_completed(futures):
            yield starts[future.key], client.gather(future, direct=_has_scheduler(client) or None)
            future.release()
    except KilledWorker as error:
        msg = (
            f"Workers died {error.allowed_failures + 1} times over the same cells, most likely because they ran out of memory. "
            f"Give them more, or make chunks smaller: adata.X = adata.X.rechunk(({max(multiple, X.chunksize[0] // 4)}, -1))."
        )
        raise RuntimeError(msg) from error
    finally:
        with suppress(Exception):  # what ended the loop is told, not that the cluster is gone
            if client.status == "running":
                client.cancel([future for future in futures if not future.done()])
                client.run(_give_back_soon, on_error="ignore", wait=False)


def _edges(chunks: tuple[int, ...], multiple: int) -> Iterator[tuple[int, int]]:
    """First and last row of the parts: chunks, rounded to the multiple."""
    import numpy as np

    ends = np.cumsum(chunks)
    rounded = np.minimum(-(-ends // multiple) * multiple, ends[-1])
    edges = np.unique([0, *rounded])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _has_scheduler(client: Any) -> bool:
    """Whether the scheduler is in this process, so that what it would fetch from workers can be fetched without it."""
    from distributed import Scheduler

    return isinstance(getattr(client.cluster, "scheduler", None), Scheduler)


class _Unread:
    """Pieces of chunks that are computed within the task that needs them.

    As tasks of their own dask may read them on one worker and send them to another, which takes longer than reading.
    """

    def __init__(self, grid: list[list[Any]]) -> None:
        self.grid = grid

    def read(self) -> list[list[Any]]:
        """The pieces, on a worker."""
        from dask import compute

        return compute(self.grid, scheduler="synchronous")[0]


def _are_apart(parts: list[Any]) -> bool:
    """Whether nothing is needed by two parts, and nothing is in the memory of a worker already."""
    from dask.core import flatten
    from distributed import futures_of

    if futures_of(parts):
        return False
    needed: set[Any] = set()
    for part in parts:
        graph = dict(part.__dask_graph__().cull(set(flatten(part.__dask_keys__()))))
        # futures among what a task needs are no keys of the graph
        if needed & graph.keys() or any(
            set(getattr(task, "dependencies", ())) - graph.keys() for task in graph.values()
        ):
            return False
        needed |= graph.keys()
    return True


def _on_rows(
    function: Callable[..., Any], pieces: list[list[Any]] | _Unread, start: int, *shared: Any
) -> Any:
    """On a worker: join the pieces of chunks and call the function."""
    import numpy as np
    import scipy.sparse as sp

    _keep_memory()
    if isinstance(pieces, _Unread):
        pieces = pieces.read()
    is_sparse = sp.issparse(pieces[0][0])
    if len(pieces) == len(pieces[0]) == 1:
        rows = pieces[0][0]
    elif is_sparse:
        rows = sp.vstack([sp.hstack(row, format="csr") for row in pieces], format="csr")
    else:
        rows = np.block(pieces)
    try:
        return function(rows, start, *shared)
    finally:
        _relieve()


def _keep_memory() -> None:
    """On a worker: use memory again for the next task instead of giving it back after every array.

    Asking for the same pages over and over takes a third of the time of a worker of dask.
    """
    _set_allocator(KEPT, LARGE, HEAP)


def _relieve() -> None:
    """On a worker, after a task: give back what is free if much is held, as dask pauses workers at 80 % of their limit."""
    import psutil
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # not on a worker
        return
    if limit and psutil.Process().memory_info().rss > MUCH * limit:
        _give_back()


def _give_back() -> None:
    """On a worker: what dask asks of the allocator, and all that is free goes back to the system."""
    library = _set_allocator(int(os.environ.get(TRIM, 0)), 2**17, 2**17)
    if library is not None:
        library.malloc_trim(0)


async def _give_back_soon() -> None:
    """The same for who does not wait, which dask has for coroutines alone."""
    _give_back()


def _set_allocator(trim: int, large: int, pad: int) -> Any | None:
    """Set the allocator of the C library, if it is that of GNU and dask has changed it. Returns the library."""
    if TRIM not in os.environ or not sys.platform.startswith("linux"):
        return None
    import ctypes

    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        return None
    for option, value in ((M_TRIM_THRESHOLD, trim), (M_MMAP_THRESHOLD, large), (M_TOP_PAD, pad)):
        library.mallopt(option, value)
    return library


def _address() -> str:
    """What a worker is called."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return "here"
