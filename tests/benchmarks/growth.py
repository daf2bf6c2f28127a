"""How time and memory grow with the number of cells: python tests/benchmarks/growth.py DATA [--sizes 10000 100000] [--cluster].

DATA is the folder with `corpus` in it. Its blood cells are drawn again with binomially thinned counts and written to an h5ad file of
each size, block by block. Every step runs in a process of its own on the file: seconds are of the processor, so that other
programs do not change them, and memory is the peak of the process. `--cluster` also embeds in one process and on a dask cluster of two.
Results of a size stay in `--cache`, so that a larger one can be added later. Writes `docs/benchmarks/growth.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SETS = ("kang_ifnb_pbmc", "pbmc_10studies_tidytx", "zheng_pbmc_donorA")
BLOCK = 10_000
STEPS = {
    "embed": "embed",
    "annotate": "annotate (embeds)",
    "tenx": "annotate of 10x output (converts, embeds)",
    "malignancy": "malignancy (embeds)",
    "drugs": "drug response by group",
    "index": "index of the embedding",
    "search": "search, 15 neighbors",
    "search_two": "search, two processes at once",
    "scanpy": "scanpy: PCA and neighbors",
}
CLUSTER_CELLS = 300_000
"""More than some 10 s of work."""
CHUNK = 5 * 2048
"""Rows of a part on the cluster: a multiple of what is read at once, so that all parts are equal."""
FASTER, BUSY = 1.7, 3.0
"""The target of two workers, and the load from which two cores have no room for them."""
LARGEST = 1_000_000
QUERIES = 5_000
"""The target of search."""
READY = "ready"
"""What a process says that waits for another one."""
MOST_QUERIES = 100_000
"""In an index of more cells, so many others are looked up."""
SMALL_ONLY, SMALL = ("scanpy", "tenx"), 100_000
"""Steps up to this size: scanpy needs all cells in memory, and the 10x file takes disk."""


def write_cells(data: Path, path: Path, n_cells: int) -> None:
    """Real cells with half to all of their counts, in an h5ad file that is never in memory."""
    import anndata as ad
    import h5py
    import scipy.sparse as sp
    from anndata.io import write_elem

    rng = np.random.default_rng(0)
    parts = [ad.read_h5ad(data / "corpus" / f"{name}.h5ad") for name in SETS]
    whole = ad.concat(parts, join="inner", index_unique="-", label="study", keys=SETS)
    X = sp.csr_matrix(whole.X).astype(np.int64)
    chosen = rng.integers(0, whole.n_obs, n_cells)
    obs = whole.obs.iloc[chosen][["study"]].reset_index(drop=True)
    obs.index = [f"cell-{i}" for i in range(n_cells)]
    obs["group"] = pd.Categorical([f"group {i}" for i in rng.integers(0, 20, n_cells)])
    obs["sample"] = pd.Categorical([f"sample {i // 2500}" for i in range(n_cells)])
    ad.AnnData(sp.csr_matrix((n_cells, X.shape[1]), dtype=np.float32), obs=obs, var=whole.var[[]]).write_h5ad(
        path
    )
    with h5py.File(path, "r+") as file:
        del file["X"]
        write_elem(file, "X", sp.csr_matrix((0, X.shape[1]), dtype=np.float32))
        group, ends = file["X"], [np.zeros(1, np.int64)]
        for name in ("data", "indices", "indptr"):
            kind = group[name].dtype if name != "indptr" else np.int64
            del group[name]
            group.create_dataset(name, (0,), maxshape=(None,), chunks=(2**17,), dtype=kind)
        for start in range(0, n_cells, BLOCK):
            rows = X[chosen[start : start + BLOCK]]
            keep = np.repeat(rng.uniform(0.5, 1.0, rows.shape[0]), np.diff(rows.indptr))
            rows.data = rng.binomial(rows.data, keep)
            rows.eliminate_zeros()
            at = group["data"].shape[0]
            for name, values in (("data", rows.data), ("indices", rows.indices)):
                group[name].resize((at + rows.nnz,))
                group[name][at:] = values
            ends.append(at + rows.indptr[1:].astype(np.int64))
        group["indptr"].resize((n_cells + 1,))
        group["indptr"][:] = np.concatenate(ends)
        group.attrs["shape"] = [n_cells, X.shape[1]]


def cells_of(data: Path, cache: Path, size: int) -> Path:
    """The file of this many cells, written if it is not there."""
    path = cache / f"cells-{size}.h5ad"
    if not path.exists():
        write_cells(data, path.with_suffix(".part"), size)
        path.with_suffix(".part").rename(path)
    return path


def as_10x(path: Path) -> Path:
    """The same cells as Cell Ranger writes them, some million values at a time."""
    import h5py

    target = path.with_suffix(".h5")
    if target.exists():
        return target
    with h5py.File(path) as source, h5py.File(target, "w") as file:
        X, group = source["X"], file.create_group("matrix")
        names = source["var"][source["var"].attrs["_index"]].asstr()[:]
        cells = source["obs"][source["obs"].attrs["_index"]].asstr()[:]
        for name, kind in (("data", np.int32), ("indices", np.int64), ("indptr", np.int64)):
            stored = group.create_dataset(
                name, X[name].shape, kind, chunks=(2**13,), compression="gzip", compression_opts=1
            )
            for start in range(0, len(stored), 2**22):
                stored[start : start + 2**22] = X[name][start : start + 2**22].astype(kind)
        group["shape"], group["barcodes"] = np.array([len(names), len(cells)], np.int32), cells.astype("S")
        for name in ("id", "name", "feature_type", "genome"):
            values = (
                names
                if name in ("id", "name")
                else np.full(len(names), {"genome": "GRCh38"}.get(name, "Gene Expression"))
            )
            group[f"features/{name}"] = values.astype("S")
    return target


def waits() -> list[float]:
    """Seconds that the encoder waits for rows, put in as they are read."""
    from scellm.data.cells import _expression

    seconds: list[float] = []
    plain = _expression.row_blocks

    def timed(*args: Any) -> Any:
        blocks = plain(*args)
        while True:
            start = time.perf_counter()
            found = next(blocks, None)
            seconds.append(time.perf_counter() - start)
            if found is None:
                return
            yield found

    _expression.row_blocks = timed
    return seconds


def two_searches(path: Path) -> dict[str, float]:
    """The same search in two processes that start together: lookups of both, by the clock until the second is through."""
    words = [sys.executable, __file__, str(path), "--step", "search", "--wait"]
    both = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for one in both:
        while next(iter(one.stdout or ())).strip() != READY:
            pass
    clock = time.perf_counter()
    for one in both:
        print(file=one.stdin, flush=True)
    results = [json.loads(one.communicate()[0].strip().splitlines()[-1]) for one in both]
    return {
        "processor": sum(found["processor"] for found in results),
        "clock": time.perf_counter() - clock,
        "reading": max(found["reading"] for found in results),
        "peak": max(found["peak"] for found in results),
        "worked_on": sum(found["worked_on"] for found in results),
        "load": os.getloadavg()[0],
    }


def step(name: str, path: Path, *, waits_for_word: bool = False) -> dict[str, float]:
    """One step on one file, in this process."""
    if name == "search_two":
        return two_searches(path)
    import anndata as ad

    import scellm

    warnings.simplefilter("ignore")
    folder = path.parent
    seconds = waits()
    source = path
    if name == "search" and int(path.stem.split("-")[1]) > MOST_QUERIES:
        source = path.with_name(f"cells-{MOST_QUERIES}.h5ad")
    adata = ad.read_h5ad(source, backed=None if name == "scanpy" else "r")
    if name in (
        "index",
        "search",
    ):  # a large embedding lies in a file that is mapped, as the command line has it
        adata.obsm["X_scellm"] = np.load(folder / f"{source.stem}.npy", mmap_mode="r")
        adata.uns["X_scellm"] = json.loads((folder / f"{source.stem}.json").read_text())
    scellm.tl.embed(scellm.datasets.toy_cells(4, n_vars=1950))  # whatever happens once
    tenx = path.with_suffix(".h5")
    if waits_for_word:
        print(READY, flush=True)
        sys.stdin.readline()
    before, start, clock = len(seconds), time.process_time(), time.perf_counter()
    if name == "embed":
        scellm.tl.embed(adata, show_progress=False)
    elif name == "annotate":
        scellm.tl.annotate(adata)
    elif name == "tenx":
        from scellm import _containers

        _containers.LARGE = 0  # the smaller file is converted, too
        with _containers.opened(tenx) as cells:
            scellm.tl.annotate(cells)
    elif name == "malignancy":
        scellm.tl.malignancy(adata, sample_key="sample", show_progress=False)
    elif name == "drugs":
        scellm.tl.drug_response(adata, groupby="group", show_progress=False)
    elif name == "index":
        scellm.tl.index(
            adata, folder / f"{path.stem}-index", columns="group", overwrite=True, show_progress=False
        )
    elif name == "search":
        scellm.tl.search(adata, folder / f"{path.stem}-index", show_progress=False)
    else:
        import scanpy as sc

        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
        sc.pp.pca(adata, n_comps=50)
        sc.pp.neighbors(adata)
    found = {
        "processor": time.process_time() - start,
        "clock": time.perf_counter() - clock,
        "reading": float(sum(seconds[before:])),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "worked_on": adata.n_obs,
        "load": os.getloadavg()[0],
    }
    if name == "search":
        about = json.loads((folder / f"{path.stem}-index" / "manifest.json").read_text())
        found |= {"searched": about["searched"], "recall": about["recall"]}
    if name == "embed":
        np.save(folder / f"{path.stem}.npy", adata.obsm["X_scellm"])
        record = {k: v for k, v in adata.uns["X_scellm"].items() if isinstance(v, str | int | float)}
        (folder / f"{path.stem}.json").write_text(json.dumps(record))
    return found


def on_cluster(path: Path, rounds: int = 3) -> pd.DataFrame:
    """Embedding of one file from the disk, in this process and on two workers, alternately."""
    import anndata as ad
    import h5py
    from anndata.experimental import read_elem_lazy
    from dask.distributed import Client, LocalCluster

    import scellm

    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        h5py.File(path) as file,
    ):
        _warm()
        client.run(_warm)
        for _ in range(rounds):
            alone = ad.read_h5ad(path, backed="r")
            start, clock = time.process_time(), time.perf_counter()
            scellm.tl.embed(alone, show_progress=False)
            one = time.process_time() - start, time.perf_counter() - clock
            X = read_elem_lazy(file["X"], chunks=(CHUNK, alone.n_vars))
            spread = ad.AnnData(X, obs=alone.obs, var=alone.var)
            before = client.run(time.process_time)
            start, clock = time.process_time(), time.perf_counter()
            scellm.tl.embed(spread, show_progress=False)
            driver, seconds = time.process_time() - start, time.perf_counter() - clock
            after = client.run(time.process_time)
            busiest = max(after[name] - before[name] for name in after)
            assert np.allclose(alone.obsm["X_scellm"], spread.obsm["X_scellm"], atol=1e-4)
            rows.append(
                {
                    "run": str(len(rows) + 1),
                    "cells": f"{alone.n_obs:,}",
                    "one process: processor s": one[0],
                    "one process: clock s": one[1],
                    "two workers: busiest, processor s": busiest,
                    "driver, processor s": driver,
                    "two workers: clock s": seconds,
                    "processor, one / (busiest + driver)": one[0] / (busiest + driver),
                    "clock, one / two": one[1] / seconds,
                    "load of the machine": os.getloadavg()[0],
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def cluster_text(found: pd.DataFrame) -> str:
    """What the runs on two workers say."""
    clock, processor = found["clock, one / two"], found["processor, one / (busiest + driver)"]
    text = (
        f"Two workers of a dask cluster embedded {found['cells'].iloc[0]} cells {clock.median():.2f} times as fast as one process by the "
        f"clock ({clock.min():.2f} to {clock.max():.2f} in {len(found)} runs, at a load of {found['load of the machine'].min():.1f} to "
        f"{found['load of the machine'].max():.1f} on two cores), {processor.median():.2f} times by seconds of the processor: those of one "
        "process over those of the busiest worker and the driver together. Both read the file from the disk; chunks are equal. "
    )
    if clock.median() >= FASTER:
        return f"{text}The target of {FASTER} is met."
    text += f"The target of {FASTER} is missed by the clock"
    return (
        f"{text}, with more programs than cores."
        if found["load of the machine"].median() > BUSY
        else f"{text}."
    )


def _warm() -> int:
    """Load what a worker needs."""
    import scellm

    cells = scellm.datasets.toy_cells(4, n_vars=1950)
    scellm.tl.embed(cells)
    return len(cells)


def steps_of(cache: Path) -> tuple[dict[str, pd.DataFrame], str, list[int]]:
    """Tables of the steps that are in the cache, what they say, and the sizes."""
    found = [json.loads(file.read_text()) for file in sorted(cache.glob("*-*.result.json"))]
    if not found:
        return {}, "", []
    table = pd.DataFrame(found)
    table["order"] = table["step"].map({name: i for i, name in enumerate(STEPS)})
    table = table.sort_values(["order", "cells"], ignore_index=True)
    is_old = table.get("is_old", pd.Series(0, table.index)).fillna(0).astype(bool)
    worked_on = table.get("worked_on", table["cells"]).fillna(table["cells"])
    shown = pd.DataFrame(
        {
            "step": table["step"].map(STEPS) + np.where(is_old, " (earlier)", ""),
            "cells": table["cells"].map("{:,}".format),
            "processor s": table["processor"],
            "clock s": table["clock"],
            "microseconds a cell": 1e6 * table["processor"] / worked_on,
            "peak GiB": table["peak"],
            "share of the clock spent reading": table["reading"] / table["clock"],
        }
    )
    slopes = []
    for name, rows in table[worked_on == table["cells"]].groupby("step", sort=False):
        if len(rows) > 1:
            x, y = np.log(rows["cells"]), np.log(rows["processor"])
            slopes.append({"step": STEPS[str(name)], "exponent": float(np.polyfit(x, y, 1)[0])})
    text = (
        "Cells of blood, drawn again with thinned counts, read from an h5ad file on the disk; one thread. An exponent of 1 is growth in proportion; below, what "
        "happens once weighs in. Seconds are of the processor: where the clock shows many more, other programs ran beside this. "
        "Target: 1,000,000 cells in 5 minutes of two cores and 1.5 GB (1.40 GiB), linear within 10 %, 20 % of the time waiting.\n\n"
    )
    for name, what in (("annotate", "Embedding and naming the types of"), ("embed", "Embedding")):
        rows = table[table["step"] == name].sort_values("cells")
        if len(rows):
            at = rows.iloc[-1]
            text += (
                f"{what} {at['cells']:,} cells takes **{at['processor']:.0f} s of one processor and {at['peak']:.2f} GiB at most**, waiting for rows "
                f"{at['reading'] / at['clock']:.0%} of the clock, in a file that the system may still hold in memory. "
            )
    text += search_text(table, worked_on)
    if is_old.any():
        text += "\n\nRows marked as earlier were measured before the latest changes of memory and index, on the same day."
    sizes = sorted({int(x) for x in table["cells"]})
    if max(sizes) < LARGEST:
        text += f"\n\n{LARGEST:,} cells were not run: {max(sizes):,} is the largest size here."
    tables = {"Time and memory": shown}
    return ({**tables, "Growth": pd.DataFrame(slopes)} if slopes else tables), text, sizes


def recall_text(found: pd.DataFrame) -> str:
    """In how many regions what was found, by size."""
    found = found[found.get("searched", pd.Series(0, found.index)).fillna(0) > 0]
    parts = [
        f"{row.recall:.3f} in {row.searched:.0f} regions ({row.cells:,} cells)" for row in found.itertuples()
    ]
    return (
        f"Neighbors of its own cells that an index finds, in the regions it searches: {', '.join(parts)}. Cells that are drawn again have each other as "
        "neighbors, more so the more there are, so that few regions suffice; a real atlas of a million may need more, and answer more slowly."
    )


def search_text(table: pd.DataFrame, worked_on: pd.Series) -> str:
    """How fast the largest index is searched, and what it took to build."""
    text = ""
    found = table[table["step"] == "index"].sort_values("cells")
    if len(found):
        at = found.iloc[-1]
        text += (
            f"\n\nAn index of {at['cells']:,} embedded cells is built in {at['processor']:.0f} s of one processor with {at['peak']:.2f} GiB at most: "
            "it is learned from a sample and written region by region. "
        )
    found = table[table["step"] == "search"].sort_values("cells")
    if len(found):
        at = found.iloc[-1]
        n = int(worked_on[at.name])
        others = "of its cells" if n == at["cells"] else "other cells"
        text += (
            f"{n:,} {others} are looked up in an index of {at['cells']:,} in {at['processor']:.0f} s of one processor, {n / at['processor']:,.0f} a second, "
            f"reading them, votes and all, with {at['peak']:.2f} GiB at most, the mapped pages of the index included. "
            f"The target is {QUERIES:,} a second on two cores. {recall_text(found)}"
        )
    found = table[table["step"] == "search_two"].sort_values("cells")
    if len(found):
        at = found.iloc[-1]
        n, load = int(at["worked_on"]), at["load"]
        text += (
            f" Two processes at once that look up {n // 2:,} cells each in an index of {at['cells']:,} answer {n / at['clock']:,.0f} queries a second by "
            f"the clock, at a load of {load:.1f} on two cores, and {2 * n / at['processor']:,.0f} by the seconds of both processors."
        )
    return text


def page(cache: Path) -> Path:
    """The page, from all that is in the cache."""
    from _report import write

    tables, text, sizes = steps_of(cache)
    cluster = cache / "cluster.json"
    if cluster.exists():
        frame = pd.read_json(cluster, dtype={"run": str, "cells": str})
        tables["A cluster of two processes"] = frame
        text = f"{text}\n\n{cluster_text(frame)}"
    return write("growth", "Growth", text, tables, {"sizes": sizes})


def main() -> None:
    """Write files, run steps, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--steps", nargs="+", default=list(STEPS))
    parser.add_argument("--cache", type=Path, default=Path("growth-cache"))
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--cluster-cells", type=int, default=CLUSTER_CELLS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--wait", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.data, waits_for_word=options.wait)))
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        path = cells_of(options.data, options.cache, size)
        for order, name in enumerate(STEPS):
            kept = options.cache / f"{name}-{size}.result.json"
            if kept.exists() or name not in options.steps or (name in SMALL_ONLY and size > SMALL):
                continue
            if name == "tenx":
                as_10x(path)
            words = [sys.executable, __file__, str(path), "--step", name]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                print(name, size, done.stderr[-2000:])
                continue
            result = json.loads(done.stdout.strip().splitlines()[-1])
            kept.write_text(json.dumps({"step": name, "cells": size, "order": order, **result}))
            print(name, size, result, flush=True)
    if options.cluster:
        frame = on_cluster(cells_of(options.data, options.cache, options.cluster_cells))
        (options.cache / "cluster.json").write_text(frame.to_json(orient="records"))
    print(page(options.cache))


if __name__ == "__main__":
    main()
