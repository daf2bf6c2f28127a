"""Atlas search at size: python tests/benchmarks/search.py CORPUS [--cells 1000000].

CORPUS is a packed file of real cells (`training_corpus.py`). Its cells are drawn again and again with binomially thinned counts and
a part of their genes left out, embedded with `scellm-small`, indexed, and looked up by other draws. Truth is brute force. Writes
`docs/benchmarks/search.md`. Seconds are of processor time: other programs do not change them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _report import write

import scellm
from scellm.atlas import AtlasIndex, build_index, open_index
from scellm.data import Corpus
from scellm.models import CellLM
from scellm.models._encode import BatchSize, encode
from scellm.train import ViewConfig
from scellm.train._views import draw_view

BLOCK, N_QUERIES, K = 5_000, 4_000, 15
VIEWS = ViewConfig(keep_counts=(0.5, 1.0), drop_genes=(0.1, 0.4), max_genes=700)


def drawn(corpus: Corpus, model: CellLM, n_cells: int, seed: int) -> np.ndarray:
    """(n_cells, dim) embeddings of cells drawn from the corpus, half precision."""
    rng = np.random.default_rng(seed)
    found, n = [], 0
    while n < n_cells:
        for dataset, size in enumerate(corpus.sizes):
            rows = np.sort(rng.permutation(int(size))[:BLOCK])
            tokens = draw_view(corpus.counts(dataset, rows), VIEWS, rng)
            vectors = encode(
                model, tokens, device=torch.device("cpu"), dtype=torch.float32, batches=BatchSize("auto")
            )
            found.append(vectors.astype(np.float16))
            n += len(rows)
            if n >= n_cells:
                break
    return np.concatenate(found)[:n_cells]


def truth(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(n, K) rows of the nearest by cosine, of half-precision vectors, block by block."""
    q = queries.astype(np.float32)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    best = np.full((len(q), K), -np.inf, np.float32)
    rows = np.full((len(q), K), -1)
    for start in range(0, len(vectors), 50_000):
        x = vectors[start : start + 50_000].astype(np.float32)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        similarity = np.concatenate([best, q @ x.T], axis=1)
        numbers = np.concatenate(
            [rows, np.broadcast_to(np.arange(start, start + len(x)), (len(q), len(x)))], 1
        )
        kept = np.argpartition(-similarity, K, axis=1)[:, :K]
        best, rows = np.take_along_axis(similarity, kept, 1), np.take_along_axis(numbers, kept, 1)
    return rows


def measured(index: AtlasIndex, queries: np.ndarray, true: np.ndarray, regions: int) -> dict[str, float]:
    """Recall and speed with this many regions searched."""
    index.vectors.nprobe = regions
    start = time.process_time()
    rows, _ = index.search(queries, K)
    seconds = time.process_time() - start
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows, true, strict=True)])
    return {
        "regions searched": str(regions),
        "recall of 15": recall,
        "queries/s of one core": len(queries) / seconds,
    }


def main() -> None:
    """Draw, build, search, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000)
    options = parser.parse_args()
    model = scellm.models.load("scellm-small")
    corpus = Corpus.build([options.corpus], min_overlap=0.05)
    vectors = drawn(corpus, model, options.cells, 0)
    queries = drawn(corpus, model, N_QUERIES * 10, 1)[::10]
    queries = queries[np.isfinite(queries).all(1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        start = time.process_time()
        build_index([vectors], {}, path, about={"model": model.name, "sha256": model.sha256})
        seconds = time.process_time() - start
        size = sum(file.stat().st_size for file in path.iterdir())
        start = time.process_time()
        index = open_index(path)
        opened = time.process_time() - start
        true = truth(vectors, queries)
        default = index.vectors.nprobe if hasattr(index.vectors, "nprobe") else 0
        table = pd.DataFrame([measured(index, queries, true, n) for n in (4, 8, 16, 32)])
    at = table[table["regions searched"] == str(default)].iloc[0]
    text = (
        f"{len(vectors):,} cells (real cells drawn again with thinned counts), {vectors.shape[1]} numbers each, half precision. "
        f"With the {default} regions that `tl.search` takes: **recall of the 15 nearest {at['recall of 15']:.3f} and "
        f"{at['queries/s of one core']:,.0f} queries a second of one core**. Building took {seconds:.0f} s of one core, the folder has "
        f"{size / 1e6:,.0f} MB ({size / len(vectors):.0f} bytes a cell), opening and checking it {opened:.1f} s. Peak memory of the "
        f"process, the embeddings and the truth included: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB. "
        f"Targets for 1,000,000 cells: recall 0.95, 5,000 queries a second on two cores, 5 minutes, 600 MB."
    )
    facts = {"n_cells": len(vectors), "build_seconds": seconds, "bytes": size}
    print(write("search", "Atlas search", text, {"Recall and speed": table}, facts))


if __name__ == "__main__":
    main()
