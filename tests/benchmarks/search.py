"""Atlas search at size: python tests/benchmarks/search.py CORPUS [--cells 1000000], or --others VECTORS.npy.

CORPUS is a packed file of real cells (`training_corpus.py`). Its cells are drawn again and again with binomially thinned counts and
a part of their genes left out, embedded with `scellm-small`, indexed, and looked up by other draws. Truth is brute force. Writes
`docs/benchmarks/search.md`. Seconds are of processor time: other programs do not change them.

`--others` compares libraries on (n, dim) embeddings in a file, of which 2,000 are queries, and adds a section to that page:
faiss as we use it, and of usearch, hnswlib and pynndescent those that are installed.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from _report import DOCS, machine, write

import scellm
from scellm.atlas import AtlasIndex, build_index, open_index
from scellm.data import Corpus
from scellm.models import CellLM
from scellm.models._encode import BatchSize, encode
from scellm.train import ViewConfig
from scellm.train._views import draw_view

BLOCK, N_QUERIES, K = 5_000, 4_000, 15
N_OTHERS = 2_000
LIBRARIES = "Libraries side by side"
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


class Library(NamedTuple):
    """Another library: what builds an index, searches it, and saves it."""

    license: str
    build: Callable[[np.ndarray], Any]
    search: Callable[[Any, np.ndarray], np.ndarray]
    save: Callable[[Any, Path], object]
    settings: str


def libraries() -> dict[str, Library]:
    """Those that are installed, on one thread, with settings that reach a recall like ours."""
    found = {}
    with suppress(ImportError):
        from usearch.index import Index

        def usearch(x: np.ndarray) -> Any:
            index = Index(ndim=x.shape[1], metric="cos", dtype="f16", connectivity=16, expansion_add=128)
            index.add(np.arange(len(x)), x, threads=1)
            return index

        found["usearch"] = Library(
            "Apache-2.0",
            usearch,
            lambda index, q: index.search(q, K, threads=1).keys,
            lambda index, path: index.save(str(path)),
            "half precision, 16 links, 128 looked at to build",
        )
    with suppress(ImportError):
        import hnswlib

        def hnsw(x: np.ndarray) -> Any:
            index = hnswlib.Index(space="cosine", dim=x.shape[1])
            index.init_index(len(x), ef_construction=128, M=16)
            index.set_num_threads(1)
            index.add_items(x)
            index.set_ef(64)
            return index

        found["hnswlib"] = Library(
            "Apache-2.0",
            hnsw,
            lambda index, q: index.knn_query(q, K, num_threads=1)[0],
            lambda index, path: index.save_index(str(path)),
            "single precision, 16 links, 128 looked at to build, 64 to search",
        )
    with suppress(ImportError):
        from pynndescent import NNDescent

        def descent(x: np.ndarray) -> Any:
            index = NNDescent(x, metric="cosine", n_neighbors=30, n_jobs=1, random_state=0)
            index.prepare()
            return index

        found["pynndescent"] = Library(
            "BSD-2-Clause",
            descent,
            lambda index, q: index.query(q, K)[0],
            lambda index, path: path.write_bytes(pickle.dumps(index)),
            "single precision, 30 neighbors; its only file is a pickle, which can run code",
        )
    return found


def others(path: Path) -> pd.DataFrame:
    """Libraries on the same vectors."""
    vectors = np.load(path).astype(np.float16)
    vectors = vectors[np.isfinite(vectors).all(1)]
    x, queries = vectors[N_OTHERS:], vectors[:N_OTHERS]
    true, rows = truth(x, queries), []

    def row(
        name: str, license_: str, found: np.ndarray, size: int, times: tuple[float, float], how: str
    ) -> None:
        recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, true, strict=True)]))
        rows.append(
            {
                "library": name,
                "recall of 15": recall,
                "queries/s of one core": len(queries) / times[1],
                "build, s": times[0],
                "bytes a cell": size / len(x),
                "license": license_,
                "settings": how,
            }
        )
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        build_index([x], {}, Path(folder) / "ours", about={"model": "", "sha256": "0" * 64})
        built = time.process_time() - start
        index = open_index(Path(folder) / "ours")
        size = sum(file.stat().st_size for file in (Path(folder) / "ours").iterdir())
        start = time.process_time()
        found = index.search(queries, K)[0]
        searched = time.process_time() - start
        regions = getattr(index.vectors, "nprobe", 0)
        how = f"half precision, {regions} regions searched" if regions else "half precision, all looked at"
        row("faiss, as in tl.index", "MIT", found, size, (built, searched), how)
        for name, one in libraries().items():
            single, q = x.astype(np.float32), queries.astype(np.float32)
            if name == "pynndescent":
                one.search(one.build(single[:2000]), q[:10])  # compiles
            start = time.process_time()
            index = one.build(single)
            built = time.process_time() - start
            start = time.process_time()
            found = one.search(index, q)
            searched = time.process_time() - start
            one.save(index, Path(folder) / name)
            row(
                name,
                one.license,
                found,
                (Path(folder) / name).stat().st_size,
                (built, searched),
                one.settings,
            )
    return pd.DataFrame(rows)


def add_libraries(table: pd.DataFrame, n_cells: int) -> None:
    """Put the comparison into the page and its numbers."""
    where = ", ".join(f"{k} {v}" for k, v in machine().items() if k in ("date", "cpu", "threads"))
    versions = ", ".join(f"{x} {version(x)}" for x in ("faiss-cpu", *libraries()))
    page = DOCS / "search.md"
    text = page.read_text(encoding="utf-8")
    text = re.sub(rf"\n## {LIBRARIES}\n.*?(?=\nMade by )", "\n", text, flags=re.DOTALL)
    before, made, foot = text.rpartition("\nMade by ")
    section = (
        f"\n## {LIBRARIES}\n\n{n_cells:,} cells, {N_OTHERS:,} others as queries, one thread, seconds of the processor. The others search a "
        f"graph in memory, faiss reads regions of its file.\n\n"
        f"{table.to_markdown(index=False, floatfmt='.3f', disable_numparse=[0])}\n\nMeasured by `search.py --others` on: {where}; {versions}.\n"
    )
    page.write_text(before.rstrip("\n") + "\n" + section + made + foot, encoding="utf-8")
    file = DOCS / "search.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["tables"][LIBRARIES] = table.to_dict(orient="records")
    record["facts"]["n_cells_libraries"] = n_cells
    file.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")


def main() -> None:
    """Draw, build, search, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--others", type=Path, metavar="VECTORS")
    parser.add_argument(
        "--vectors", type=Path, help="embeddings to index, in a .npy, as growth.py leaves them"
    )
    parser.add_argument("--queries", type=Path, help="embeddings of other cells, with --vectors")
    options = parser.parse_args()
    if options.others:
        table = others(options.others)
        add_libraries(table, len(np.load(options.others, mmap_mode="r")) - N_OTHERS)
        return
    model = scellm.models.load("scellm-small")
    if options.vectors:
        vectors = np.load(options.vectors, mmap_mode="r")[: options.cells]
        stored = np.load(options.queries, mmap_mode="r")
        queries = np.array(stored[:: len(stored) // N_QUERIES])
    else:
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
        table = pd.DataFrame(
            [measured(index, queries, true, n) for n in sorted({4, 8, 16, 32, default} - {0})]
        )
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
    before = json.loads((DOCS / "search.json").read_text(encoding="utf-8"))
    print(write("search", "Atlas search", text, {"Recall and speed": table}, facts))
    if LIBRARIES in before["tables"]:
        add_libraries(pd.DataFrame(before["tables"][LIBRARIES]), before["facts"]["n_cells_libraries"])


if __name__ == "__main__":
    main()
