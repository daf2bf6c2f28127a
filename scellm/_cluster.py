"""Work on a dask cluster: functions go where the rows of a matrix are, and only what they return comes back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
KEPT, LARGE = 2**30, 2**25
"""Bytes that stay with a worker within a task, and size of arrays that do not."""


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
    parts = [
        (a, task(function, X[a:b].to_delayed().tolist(), a, *common))
        for a, b in _edges(X.chunks[0], multiple)
    ]
    futures = client.compute([part for _, part in parts])
    starts = {future.key: a for future, (a, _) in zip(futures, parts, strict=True)}
    try:
        for future, result in as_completed(futures, with_results=True):
            yield starts[future.key], result
            future.release()
    except KilledWorker as error:
        msg = (
            f"Workers died {error.allowed_failures + 1} times over the same cells, most likely because they ran out of memory. "
            f"Give them more, or make chunks smaller: adata.X = adata.X.rechunk(({max(multiple, X.chunksize[0] // 4)}, -1))."
        )
        raise RuntimeError(msg) from error
    finally:
        client.cancel([future for future in futures if not future.done()])


def _edges(chunks: tuple[int, ...], multiple: int) -> Iterator[tuple[int, int]]:
    """First and last row of the parts: chunks, rounded to the multiple."""
    import numpy as np

    ends = np.cumsum(chunks)
    rounded = np.minimum(-(-ends // multiple) * multiple, ends[-1])
    edges = np.unique([0, *rounded])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _on_rows(function: Callable[..., Any], pieces: list[list[Any]], start: int, *shared: Any) -> Any:
    """On a worker: join the pieces of chunks and call the function."""
    import numpy as np
    import scipy.sparse as sp

    is_sparse = sp.issparse(pieces[0][0])
    if len(pieces) == len(pieces[0]) == 1:
        rows = pieces[0][0]
    elif is_sparse:
        rows = sp.vstack([sp.hstack(row, format="csr") for row in pieces], format="csr")
    else:
        rows = np.block(pieces)
    with _keeping_memory():
        return function(rows, start, *shared)


@contextmanager
def _keeping_memory() -> Iterator[None]:
    """Within a task, use memory again instead of giving it back after every array; give it back at the end.

    Asking for the same pages over and over takes nearly half of the time of a worker of dask.
    """
    if TRIM not in os.environ or not sys.platform.startswith("linux"):
        yield
        return
    import ctypes

    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):  # not glibc
        yield
        return
    library.mallopt(M_TRIM_THRESHOLD, KEPT)
    library.mallopt(M_MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, 2**17)
        library.mallopt(M_TRIM_THRESHOLD, int(os.environ[TRIM]))
        library.malloc_trim(0)


def _address() -> str:
    """What a worker is called."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return "here"
