"""The file of a large index, written region by region: neither all embeddings nor all codes are in memory at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._room import let_go

if TYPE_CHECKING:
    import faiss

FEW = 20_000
"""Cells up to which all are compared with; more are split into regions."""
TRAINED_ON = 64
"""Cells for each region from which the regions are learned."""
SEARCHED = 16
"""Regions that are searched for a cell unless `n_searched` has found another number."""
TRIED = (4, 8, 16, 32, 64, 128)
"""Numbers of regions that are tried."""
FOUND, TRUE_CELLS, NEAREST = 0.97, 200, 15
"""Share of the true neighbors that must be found, of how many cells and how many neighbors (ours)."""
AT_ONCE = 50_000
"""Cells that are added at once."""


def write_vectors(faiss: Any, parts: Sequence[np.ndarray], path: Path, rng: int) -> None:
    """Write the embeddings of all parts, one after the other, as an index that faiss reads; rows of NaN are left out."""
    n_cells, dim = sum(map(len, parts)), parts[0].shape[1]
    if n_cells <= FEW:
        index = faiss.index_factory(dim, "IDMap2,SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.train(sampled(parts, FEW, rng))  # half precision learns nothing, but faiss wants to be told
        for start, vectors in unit_blocks(parts):
            _add(index, start, vectors)
        faiss.write_index(index, str(path))
        return
    n_regions = 2 ** round(math.log2(4 * math.sqrt(n_cells)))
    index = faiss.index_factory(dim, f"IVF{n_regions},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = rng + 1, 8
    index.train(sampled(parts, TRAINED_ON * n_regions, rng))
    index.nprobe = min(SEARCHED, n_regions)
    spool, sizes = path.with_name("spool"), []
    with spool.open("wb") as file:
        for start, vectors in unit_blocks(parts):
            _add(index, start, vectors)
            sizes.append(_move_out(faiss, index, file))
    _join(faiss, index, np.array(sizes), spool, path)
    spool.unlink()


def n_searched(index: Any, parts: Sequence[np.ndarray], rng: int) -> tuple[int, float]:
    """How many regions must be searched to find 97 % of the nearest neighbors, and the share that is found then.

    Some of the cells are compared with all others for that.
    """
    some = sampled(parts, TRUE_CELLS, rng + 1)
    similarity = np.full((len(some), NEAREST), -np.inf, np.float32)
    true = np.full((len(some), NEAREST), -1)
    for first, vectors in unit_blocks(parts):
        for start in range(0, len(vectors), AT_ONCE // 5):
            found = np.nan_to_num(some @ vectors[start : start + AT_ONCE // 5].T, nan=-np.inf)
            rows = np.broadcast_to(first + start + np.arange(found.shape[1]), found.shape)
            similarity, true = (np.concatenate(pair, axis=1) for pair in ((similarity, found), (true, rows)))
            kept = np.argpartition(-similarity, NEAREST, axis=1)[:, :NEAREST]
            similarity, true = (np.take_along_axis(x, kept, axis=1) for x in (similarity, true))
    share, n = 0.0, 1
    for n in (n for n in TRIED if n <= index.nlist):
        index.nprobe = n
        _, near = index.search(some, NEAREST)
        share = float(np.mean([np.isin(one, other) for one, other in zip(true, near, strict=True)]))
        if share >= FOUND:
            break
    return n, share


def unit_blocks(parts: Sequence[np.ndarray]) -> Any:
    """Yield `(number of the first row, rows at length one)` of all parts, some thousand rows at a time."""
    first = 0
    for part in parts:
        for start in range(0, len(part), AT_ONCE):
            yield first + start, unit(part[start : start + AT_ONCE])
            let_go(part)
        first += len(part)


def sampled(parts: Sequence[np.ndarray], n: int, rng: int) -> np.ndarray:
    """Some rows of all parts at length one, those of NaN left out."""
    total = sum(map(len, parts))
    chosen = np.sort(np.random.default_rng(rng).choice(total, min(n, total), replace=False))
    found = np.empty((len(chosen), parts[0].shape[1]), np.float32)
    first, filled = 0, 0
    for part in parts:
        for start in range(0, len(part), AT_ONCE):
            low, high = np.searchsorted(chosen, [first + start, first + min(start + AT_ONCE, len(part))])
            found[filled : filled + high - low] = part[chosen[low:high] - first]
            filled += high - low
            let_go(part)
        first += len(part)
    is_known = np.isfinite(found).all(1)
    return _shorten(found if is_known.all() else found[is_known])


def unit(vectors: np.ndarray) -> np.ndarray:
    """A copy with rows of length one, float32 and contiguous, as faiss needs them."""
    return _shorten(np.array(vectors, dtype=np.float32, order="C"))


def _shorten(vectors: np.ndarray) -> np.ndarray:
    """Give rows length one, in place, some thousand at a time."""
    for start in range(0, len(vectors), AT_ONCE):
        rows = vectors[start : start + AT_ONCE]
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return vectors


def _add(index: faiss.Index, first: int, vectors: np.ndarray) -> None:
    """Add rows under their numbers, but for those of NaN."""
    known = np.flatnonzero(np.isfinite(vectors).all(1))
    index.add_with_ids(vectors[known], first + known)


def _move_out(faiss: Any, index: faiss.IndexIVF, file: Any) -> list[int]:
    """Append codes and ids of an index to a file, region by region, and empty it. Returns the sizes of the regions."""
    lists: Any = index.invlists
    sizes = [lists.list_size(i) for i in range(index.nlist)]
    for i, size in enumerate(sizes):
        if size:
            file.write(faiss.rev_swig_ptr(lists.get_codes(i), size * index.code_size).tobytes())
            file.write(faiss.rev_swig_ptr(lists.get_ids(i), size).tobytes())
    index.reset()
    return sizes


def _join(faiss: Any, index: faiss.IndexIVF, sizes: np.ndarray, spool: Path, path: Path) -> None:
    """Write the index with the regions (n_blocks, n_regions) of all blocks, as `faiss.write_index` would."""
    index.ntotal = int(sizes.sum())
    head = faiss.serialize_index(index).tobytes()
    head = head[: head.rindex(b"ilar")]
    width, totals = index.code_size + 8, sizes.sum(axis=0)
    starts = np.cumsum(np.concatenate([[0], sizes.ravel()])).reshape(-1)[:-1].reshape(sizes.shape) * width
    filled = np.flatnonzero(totals)
    if len(filled) > index.nlist // 2:
        kind, listed = b"full", totals
    else:
        kind, listed = b"sprs", np.stack([filled, totals[filled]], axis=1).ravel()
    stored = np.memmap(spool, dtype=np.uint8, mode="r")
    with path.open("wb") as file:
        file.write(head + b"ilar" + np.array([index.nlist, index.code_size], "<u8").tobytes() + kind)
        file.write(np.array([len(listed), *listed], "<u8").tobytes())
        for region in filled:
            pieces = [
                (stored[start : start + size * width], size * index.code_size)
                for start, size in zip(starts[:, region], sizes[:, region], strict=True)
            ]
            for piece, codes in pieces:
                file.write(piece[:codes].tobytes())
            for piece, codes in pieces:
                file.write(piece[codes:].tobytes())
            if region % 64 == 0:
                let_go(stored)
