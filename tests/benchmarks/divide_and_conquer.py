"""Memory and time of the divide-and-conquer step and of its loss, beside one graph and beside other packages.

    python tests/benchmarks/divide_and_conquer.py [--quick] [--tables 1,4] [--page]

Memory is measured in a process of its own for each row; times of what is compared are taken in turn, round after
round, as machines are noisy. GradCache 0.0.1 and sentence-transformers 6.2.0 are run where they are installed, else
their schemes as written anew in `_schemes.py`. `--tables` measures some parts again and keeps the others, `--page`
only writes the page. Writes `docs/benchmarks/divide_and_conquer.md`, `.json` and `.png`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _schemes as schemes
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from _report import DOCS, write
from _schemes import SCHEMES, Cells, Keeping, contrast, in_turn, label, memory_and_time, new_encoder

from scellm.train import DivideAndConquer, World, _info_nce, info_nce
from scellm.train._divide_and_conquer import TOKENS_PER_CHUNK
from scellm.train._info_nce import CPU_COLUMNS, CPU_ROWS, STRIPE_BYTES

NAME = "divide_and_conquer"
MIB = 1 << 20
DROPOUT = 0.1
MICRO_BATCH = 256
"""Rows that peers encode at once: as many tokens as our chunks have on a CPU."""
PRODUCT = 4096
"""Size of the square matrices whose product gives the rate to compare with."""
MOST_MEMORY, MOST_SECONDS = 12 << 30, 400
"""No row is measured that is expected to take more."""
THREADS = {"OMP_WAIT_POLICY": "passive"}
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
RETURNING = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(MIB),
    "MALLOC_TRIM_THRESHOLD_": str(MIB),
}
IDLE, PATIENCE = 0.35, 60.0
"""Cores that others may use when a measurement begins, and seconds we wait for that over a whole table."""


# in the child: one measurement each, numbers that go into the JSON


def step_memory(scheme: str, n: int, options: dict[str, Any], dropout: float = DROPOUT) -> dict[str, Any]:
    """Peak memory and seconds of one step, after two of 64 cells."""
    encoder, take = new_encoder(dropout), SCHEMES[scheme]
    for _ in range(2):
        take(encoder, Cells(64), **options)()
    cells = Cells(n)
    n_bytes, seconds = memory_and_time(take(encoder, cells, **options))
    return {"bytes": n_bytes, "seconds": seconds}


def same_gradients(n: int, runs: list[tuple[str, dict[str, Any]]]) -> list[float]:
    """Relative differences of gradients from those of one graph."""
    encoder, cells = new_encoder(DROPOUT), Cells(n)

    def gradient() -> torch.Tensor:
        found = torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])
        encoder.zero_grad()
        return found

    SCHEMES["plain"](encoder, cells)()
    expected, found = gradient(), []
    for scheme, options in runs:
        SCHEMES[scheme](encoder, cells, **options)()
        found.append(float((gradient() - expected).norm() / expected.norm()))
    return found


def overhead(n: int, shares: list[float], dropout: float, rounds: int) -> dict[str, Any]:
    """Seconds of one graph, of ours with shares of graphs kept, and of a chunk forward and there and back."""
    encoder, cells = new_encoder(dropout), Cells(n)
    runs = {"plain": schemes.plain(encoder, cells, loss=contrast)}
    n_tokens = len(cells) * schemes.GENES_PER_CELL // 20
    for share in shares:
        step = Keeping(
            lambda batch: encoder(**batch).cells,
            contrast,
            modules=[encoder],
            memory_budget="1TB",
            tokens_per_chunk=n_tokens,
        )
        step.share = share
        runs[str(share)] = lambda step=step: step(cells)
    seconds = in_turn(runs, rounds)
    chunk = cells.part(0, n_tokens // schemes.GENES_PER_CELL)

    def forward() -> None:
        with torch.no_grad():
            encoder(**chunk)

    parts = in_turn(
        {"forward": forward, "both": lambda: encoder(**chunk).cells.sum().backward()}, 5 * rounds, warm_up=3
    )
    return {
        "seconds": seconds,
        "f": float(np.median(parts["forward"]) / np.median(parts["both"])),
        "chunk": n_tokens,
    }


def compare(n: int, runs: list[tuple[str, str, dict[str, Any]]], rounds: int) -> dict[str, list[float]]:
    """Seconds of schemes, in turn."""
    encoder, cells = new_encoder(DROPOUT), Cells(n)
    return in_turn(
        {name: SCHEMES[scheme](encoder, cells, **options) for name, scheme, options in runs}, rounds
    )


def kept_share(n: int, budget: str) -> float:
    """Share of chunks whose graphs a budget keeps."""
    encoder = new_encoder(DROPOUT)
    step = DivideAndConquer(
        lambda batch: encoder(**batch).cells, contrast, modules=[encoder], memory_budget=budget
    )
    report = step(Cells(n))
    return report.n_kept / report.n_chunks


def one_loss(method: str, n: int, dim: int, repeats: int, rows: int | None, product: int) -> dict[str, Any]:
    """Memory and time of one direction of the loss with gradients, and the rate of a matrix product beside it."""
    before = schemes.gemm_rate(product)

    def run(n: int) -> Callable[[], object]:
        generator = torch.Generator().manual_seed(0)
        first = torch.randn(n, dim, generator=generator)
        second = (first + torch.randn(n, dim, generator=generator)).requires_grad_()
        first.requires_grad_()
        return lambda: LOSSES[method](first, second)

    run(256)()
    step = run(n)
    if rows is None:
        n_bytes, seconds = memory_and_time(step)
        seconds = min([seconds] + [memory_and_time(step)[1] for _ in range(repeats - 1)])
    else:
        with schemes.only_rows(rows):
            n_bytes, seconds = memory_and_time(step)[0], None
    return {"bytes": n_bytes, "seconds": seconds, "gemm": (before + schemes.gemm_rate(product)) / 2}


def _linear_cross_entropy(first: torch.Tensor, second: torch.Tensor) -> None:
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    options = torch.nn.LinearCrossEntropyOptions()
    F.linear_cross_entropy(
        first / schemes.TEMPERATURE, second, torch.arange(len(first)), options=options
    ).backward()


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "torch cross_entropy, one graph": lambda a, b: schemes.cross_entropy(a, b, symmetric=False).backward(),
    "torch cross_entropy, 256 rows at a time": lambda a, b: schemes.backward_by_rows(
        a, b, 256, symmetric=False
    ),
    "torch linear_cross_entropy, chunked": _linear_cross_entropy,
    "ours": lambda a, b: info_nce(a, b, temperature=schemes.TEMPERATURE, symmetric=False).backward(),
}


def precision(n: int, dim: int, levels: list[float]) -> list[dict[str, float]]:
    """Error of gradients in single against double precision, for views as far apart as gives each loss."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(n, dim, generator=generator)
    noise = torch.randn(n, dim, generator=generator)
    t, found = 0.05, []

    def double(scale: float) -> tuple[float, torch.Tensor]:
        leaf = first.double().requires_grad_()
        loss = schemes.cross_entropy(leaf, (first + scale * noise).double(), symmetric=False, t=t)
        loss.backward()
        return float(loss.detach()), leaf.grad

    for level in levels:
        low, high = 0.0, 8.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if double(middle)[0] < level else (low, middle)
        loss, expected = double(high)
        row = {"loss": loss}
        for name, function in (
            ("ours", lambda a, b: info_nce(a, b, temperature=t, symmetric=False)),
            ("torch", lambda a, b: schemes.cross_entropy(a, b, symmetric=False, t=t)),
        ):
            leaf = first.clone().requires_grad_()
            function(leaf, first + high * noise).backward()
            row[name] = float((leaf.grad.double() - expected).norm() / expected.norm())
        found.append(row)
    return found


def chunk_sizes(tokens: list[int], rounds: int) -> dict[str, list[float]]:
    """Seconds for the same cells, forward and backward, in chunks of so many tokens."""
    encoder, cells = new_encoder(DROPOUT), Cells(max(tokens) // schemes.GENES_PER_CELL)

    def run(n_tokens: int) -> None:
        size = n_tokens // schemes.GENES_PER_CELL
        for start in range(0, len(cells), size):
            encoder(**cells.part(start, start + size)).cells.sum().backward()

    return in_turn({str(size): lambda size=size: run(size) for size in tokens}, rounds)


def stripes(n: int, rows: int, dim: int, settings: list[list[int]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the loss of some rows against all keys for (stripe bytes, tile rows, tile columns)."""
    first, second = (torch.randn(n, dim, requires_grad=True) for _ in range(2))

    def run(stripe_bytes: int, tile_rows: int, tile_columns: int) -> None:
        _info_nce.CPU_ROWS, _info_nce.CPU_COLUMNS = tile_rows, tile_columns
        with schemes.only_rows(rows):
            info_nce(first, second, symmetric=False, stripe_bytes=stripe_bytes).backward()

    runs = {str(i): lambda setting=setting: run(*setting) for i, setting in enumerate(settings)}
    return in_turn(runs, rounds)


def two_processes(n: int, rounds: int) -> dict[str, Any]:
    """Seconds of one process with one thread, the other at rest, and of both; and that the gradients are the same."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_worker, (n, rounds, folder), nprocs=2)
        return json.loads((Path(folder) / "result").read_text())


def _worker(rank: int, n: int, rounds: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    encoder, world = new_encoder(DROPOUT), World.current()
    cells, own = Cells(n), Cells(n, own=slice(rank * n // 2, (rank + 1) * n // 2))

    def run(rows: Cells, world: World) -> None:
        encoder.zero_grad()
        step = DivideAndConquer(
            lambda batch: encoder(**batch).cells,
            lambda r: contrast(r, world=world),
            modules=[encoder],
            memory_budget="256MiB",
        )
        step(rows)
        world.sum_gradients(encoder.parameters())

    def gradient() -> torch.Tensor:
        return torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in encoder.parameters()]
        )

    found: dict[str, list[float]] = {"one": [], "two": []}
    worked: dict[str, list[float]] = {"one": [], "two": []}
    for i in range(rounds + 1):
        for name in found:
            torch.distributed.barrier()
            start, start_work = time.perf_counter(), time.process_time()
            if name == "two":
                run(own, world)
            elif rank == 0:
                run(cells, World())
                expected = gradient()
            work = torch.tensor(time.process_time() - start_work)
            torch.distributed.all_reduce(work, torch.distributed.ReduceOp.MAX)  # and a barrier
            if i:
                found[name].append(time.perf_counter() - start)
                worked[name].append(float(work))
    if rank == 0:
        difference = float((gradient() - expected).norm() / expected.norm())
        (Path(folder) / "result").write_text(
            json.dumps({**found, "worked": worked, "difference": difference})
        )
    torch.distributed.destroy_process_group()


def on_gpu(n: int, genes: int) -> dict[str, Any]:
    """Tokens per second of the published size in bf16 on a GPU, and the share of the rate of a product there."""
    from torch.utils.flop_counter import FlopCounterMode

    from scellm.nn import CellLMConfig, Encoder

    encoder = Encoder(CellLMConfig.named("base", n_genes=schemes.N_GENES)).cuda().train()
    cells = Cells(n, genes=genes).to("cuda")

    def encode(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return encoder(**batch).cells

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = min(memory_and_time(lambda: a @ b)[1] for _ in range(5))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encode(cells.part(0, 4))
    flops = 3 * counter.get_total_flops() / 4 * len(cells)  # forward and backward of the model, once
    step = DivideAndConquer(encode, contrast, modules=[encoder])
    step(Cells(256, genes=genes).to("cuda"))
    n_bytes, seconds = memory_and_time(lambda: step(cells))
    rate = 2 * 8192**3 / product
    return {
        "n": n,
        "genes": genes,
        "bytes": n_bytes,
        "seconds": seconds,
        "utilisation": flops / seconds / rate,
        "rate": rate,
    }


CHILDREN = {
    f.__name__: f
    for f in (
        step_memory,
        same_gradients,
        overhead,
        compare,
        kept_share,
        one_loss,
        precision,
        chunk_sizes,
        stripes,
        two_processes,
        on_gpu,
    )
}


# in the parent: one function per table, which lists the children


class Runner:
    """Starts the children, waits for a quiet machine before each, and notes how quiet it was."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.others: list[float] = []
        self.patience = 0.0 if quick else PATIENCE

    def __call__(
        self, function: Callable[..., Any], environment: dict[str, str] | None = None, **spec: Any
    ) -> Any:
        """Result of a function of this file in a process of its own; where others got in the way the better of two."""
        self._wait()
        result, others = self._start(function, environment or {}, spec)
        if others > IDLE and self.patience > 0:
            self._wait()
            result, others = min(
                (result, others), self._start(function, environment or {}, spec), key=lambda x: x[1]
            )
        self.others.append(others)
        return result

    def _start(
        self, function: Callable[..., Any], environment: dict[str, str], spec: Any
    ) -> tuple[Any, float]:
        """Result of a child, and how many cores others used meanwhile."""
        environment = {**os.environ, **THREADS, **environment}
        command = [sys.executable, __file__, "--child", json.dumps([function.__name__, spec])]
        start, busy, own = time.perf_counter(), _busy_seconds(), _child_seconds()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stderr)
        others = max(0.0, _busy_seconds() - busy - (_child_seconds() - own)) / seconds
        result = json.loads(done.stdout.splitlines()[-1])
        print(f"{seconds:6.1f} s, others {others:.2f}: {function.__name__} {spec}", flush=True)
        print(f"         {str(result)[:300]}", flush=True)
        return result, others

    def _wait(self) -> None:
        while self.patience > 0:
            start, busy = time.perf_counter(), _busy_seconds()
            time.sleep(1.0)
            if (_busy_seconds() - busy) / (time.perf_counter() - start) < IDLE:
                return
            self.patience -= 1.0


def _busy_seconds() -> float:
    """Seconds that all cores together have worked; 0 where the system does not say."""
    try:
        numbers = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0.0
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_memory(run: Runner) -> dict[str, Any]:
    """Table 1."""
    sizes = [64, 256, 1024] if run.quick else [256, 1024, 4096, 16384, 65536]
    micro = {"micro_batch": MICRO_BATCH}
    plan: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
        ("plain", "plain", {}, {}),
        ("ours, 256 MiB", "ours", {"budget": "256MiB"}, {}),
        ("ours, 1 GiB", "ours", {"budget": "1GiB"}, {}),
        ("ours, 256 MiB, freed memory given back", "ours", {"budget": "256MiB"}, RETURNING),
        *((label(peer), peer, micro, {}) for peer in PEERS),
    ]
    rows = []
    for name, scheme, options, environment in plan:
        done: list[dict[str, Any]] = []
        for n in sizes:
            row = {"run": name, "n": n}
            expected = _expected(done, GROWTH[scheme])
            if expected["bytes"] > MOST_MEMORY or expected["seconds"] > MOST_SECONDS:
                row |= {
                    "expected": expected,
                    "reason": "memory" if expected["bytes"] > MOST_MEMORY else "time",
                }
                expected = None
            else:
                row |= run(step_memory, environment, scheme=scheme, n=n, options=options)
            done.append(row)
            rows.append(row)
            if expected is None:
                break
    runs = [("ours", {"budget": "40MiB"}), *((peer, {"micro_batch": 60}) for peer in PEERS)]
    names = ["ours", *(label(peer) for peer in PEERS)]
    differences = run(same_gradients, n=256, runs=runs)
    return {"rows": rows, "same": dict(zip(names, differences, strict=True))}


GROWTH = {
    "plain": (4, 4),
    "ours": (1, 4),
    "GradCache": (16, 4),
    "sentence-transformers": (4, 4),
    "open_clip": (16, 64),
}
"""By what memory beyond a constant, and time, will grow at least as N grows by 4."""


def _expected(done: list[dict[str, Any]], growth: tuple[int, int]) -> dict[str, float]:
    """What the next size will take: memory by its known growth, time as it grew last or by its known growth."""
    if len(done) < 2:
        return {"bytes": 0.0, "seconds": 0.0}
    before, last = done[-2:]
    return {
        "bytes": last["bytes"] + growth[0] * max(0, last["bytes"] - before["bytes"]),
        "seconds": last["seconds"] * max(growth[1], last["seconds"] / before["seconds"]),
    }


def measure_overhead(run: Runner) -> dict[str, Any]:
    """Table 2."""
    n, rounds = (160, 3) if run.quick else (1280, 9)
    shares = [0.0, 0.25, 0.5, 0.7, 0.75, 1.0]
    return {
        "n": n,
        "shares": shares,
        "rounds": rounds,
        **{
            str(dropout): run(overhead, KEEPING, n=n, shares=shares, dropout=dropout, rounds=rounds)
            for dropout in (0.0, 0.1)
        },
    }


def measure_equal_memory(run: Runner) -> dict[str, Any]:
    """Table 3: the largest micro-batch with which a peer takes no more than ours, then all in turn."""
    n, rounds = (256, 3) if run.quick else (2048, 7)
    budgets = ["100MiB"] if run.quick else ["512MiB", "1GiB"]
    rows = []
    for budget in budgets:
        own = run(step_memory, scheme="ours", n=n, options={"budget": budget})["bytes"]
        share = run(kept_share, n=n, budget=budget)
        found = {"ours": own}
        plan = [("ours", "ours", {"budget": budget})]
        for peer in ("GradCache", "sentence-transformers"):
            size, n_bytes = _largest_micro_batch(run, peer, n, own)
            name = f"{label(peer)}, micro-batch {size}"
            found[name] = n_bytes
            plan.append((name, peer, {"micro_batch": size}))
            if size != MICRO_BATCH:
                name = f"{label(peer)}, micro-batch {MICRO_BATCH}"
                options = {"micro_batch": MICRO_BATCH}
                found[name] = run(step_memory, scheme=peer, n=n, options=options)["bytes"]
                plan.append((name, peer, options))
        seconds = run(compare, n=n, runs=plan, rounds=rounds)
        rows.append({"budget": budget, "share": share, "bytes": found, "seconds": seconds})
    return {"n": n, "rounds": rounds, "rows": rows}


def _largest_micro_batch(run: Runner, peer: str, n: int, limit: int) -> tuple[int, int]:
    """By halving among some sizes."""
    sizes = [x for x in (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048) if x <= n]
    low, best = 0, (sizes[0], 0)
    high = len(sizes) - 1
    while low <= high:
        middle = (low + high) // 2
        options = {"micro_batch": sizes[middle]}
        n_bytes = run(step_memory, scheme=peer, n=n, options=options)["bytes"]
        if n_bytes <= limit:
            best, low = (sizes[middle], n_bytes), middle + 1
        else:
            high = middle - 1
    return best


def measure_loss(run: Runner) -> dict[str, Any]:
    """Table 4."""
    dim, product = 128, 1024 if run.quick else PRODUCT
    sizes = [256, 1024, 2048] if run.quick else [1024, 4096, 16384, 65536]
    rows = []
    for method in LOSSES:
        if "linear" in method and not hasattr(F, "linear_cross_entropy"):
            continue
        for n in sizes:
            if "one graph" in method and 3 * n * n * 4 > MOST_MEMORY:
                continue
            repeats = 3 if n <= 16384 else 1
            found = run(one_loss, method=method, n=n, dim=dim, repeats=repeats, rows=None, product=product)
            rows.append({"run": method, "n": n, **found})
    n = 4 * sizes[-1]
    found = run(one_loss, method="ours", n=n, dim=dim, repeats=1, rows=1024, product=product)
    rows.append({"run": "ours, first 1,024 queries against all keys", "n": n, **found})
    errors = run(precision, n=256 if run.quick else 1024, dim=dim, levels=[1e-4, 1e-2, 1.0])
    return {"dim": dim, "rows": rows, "precision": errors}


def measure_sizes(run: Runner) -> dict[str, Any]:
    """Table 5."""
    tokens = [2048, 4096, 8192, 16384, 32768]
    rounds = 3 if run.quick else 9
    found = {
        name: run(chunk_sizes, environment, tokens=tokens, rounds=rounds)
        for name, environment in (("system's allocator", {}), ("freed memory kept", KEEPING))
    }
    wide, narrow = (4096, 4096) if run.quick else (65536, 16384)
    rows = 512 if run.quick else 2048
    bytes_plan = [[x * MIB, CPU_ROWS, CPU_COLUMNS] for x in (16, 32, 64, 128)]
    tile_plan = [
        [STRIPE_BYTES, tile_rows, columns]
        for tile_rows, columns in (
            (256, 4096),
            (512, 1024),
            (512, 4096),
            (512, 16384),
            (1024, 4096),
            (1024, 16384),
        )
    ]
    loss = [
        {
            "n": n,
            "rows": n_rows,
            "plan": plan,
            "seconds": run(stripes, n=n, rows=n_rows, dim=128, settings=plan, rounds=rounds),
        }
        for n, n_rows, plan in ((wide, rows, bytes_plan), (narrow, 2 * rows, tile_plan))
    ]
    return {"tokens": tokens, "chunks": found, "loss": loss}


def measure_two_processes(run: Runner) -> dict[str, Any]:
    """Table 6."""
    n = 256 if run.quick else 2048
    found = run(two_processes, n=n, rounds=3 if run.quick else 7)
    return {"n": n, "others": run.others[-1], **found}


def measure_gpu(run: Runner) -> dict[str, Any]:
    """Table 7."""
    if not torch.cuda.is_available():
        return {}
    return run(on_gpu, n=1024 if run.quick else 65536, genes=512)


PEERS = ("GradCache", "sentence-transformers", "open_clip")
MEASURES = {
    "1": measure_memory,
    "2": measure_overhead,
    "3": measure_equal_memory,
    "4": measure_loss,
    "5": measure_sizes,
    "6": measure_two_processes,
    "7": measure_gpu,
}
PARTS = {
    "1": "memory",
    "2": "time over one graph",
    "3": "equal memory",
    "4": "loss",
    "5": "chunks and stripes",
    "6": "two processes",
    "7": "GPU",
}


# the page


def thousands(x: float) -> str:
    return f"{x:,.0f}"


def power(x: float) -> str:
    """Such as 3.1 · 10⁻⁶."""
    exponent = int(np.floor(np.log10(x))) if x > 0 else 0
    return (
        f"{x / 10.0**exponent:.1f} · 10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    )


def verdict(goal: str, value: float, limit: float, shown: str, *, at_most: bool) -> dict[str, Any]:
    """One row of the table of targets."""
    is_met = value <= limit if at_most else value >= limit
    by = abs(value / limit - 1)
    return {"target": goal, "measured": shown, "verdict": "met" if is_met else f"**missed by {by:.0%}**"}


def arrays(n: int) -> int:
    """Bytes of what any method must hold per batch: six (2 N, D) arrays in single precision."""
    return 6 * 2 * n * schemes.DIM * 4


def growth(rows: list[dict[str, Any]], name: str) -> tuple[int, int, float]:
    """Batch sizes and growth of the peak beyond the arrays, from the second size on."""
    found = [row for row in rows if row["run"] == name and "bytes" in row]
    first, last = found[1], found[-1]
    return (
        first["n"],
        last["n"],
        (last["bytes"] - arrays(last["n"])) / (first["bytes"] - arrays(first["n"])) - 1,
    )


def table_memory(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    rows, sizes = found["rows"], sorted({row["n"] for row in found["rows"]})
    tables = {}
    for heading, field, scale, unit in (
        ("Peak memory of a step (MiB)", "bytes", MIB, "MiB"),
        ("Time of that step (one step)", "seconds", 1, "s"),
    ):
        lines = {}
        for row in rows:
            cell = lines.setdefault(row["run"], dict.fromkeys(map(thousands, sizes), "–"))
            if field in row:
                digits = 0 if scale > 1 else 1
                cell[thousands(row["n"])] = f"{row[field] / scale:,.{digits}f}{'' if scale > 1 else ' s'}"
            elif row["reason"] == "memory" and field == "bytes":
                cell[thousands(row["n"])] = (
                    f"does not fit (extrapolated: {row['expected'][field] / scale:,.0f})"
                )
            elif row["reason"] == "memory":
                cell[thousands(row["n"])] = "does not fit"
            else:
                cell[thousands(row["n"])] = (
                    "not run"
                    if field == "bytes"
                    else f"not run (extrapolated: {row['expected'][field]:,.0f} {unit})"
                )
        table = pd.DataFrame([{"run": name, **cells} for name, cells in lines.items()])
        tables[heading] = table if field == "bytes" else table[~table["run"].str.contains("given back")]
    tables["The same gradients (256 cells, dropout 0.1)"] = pd.DataFrame(
        [{"run": name, "relative difference from one graph": power(x)} for name, x in found["same"].items()]
    )
    return tables


def ratios(found: dict[str, Any], dropout: str, share: float) -> np.ndarray:
    """Time over that of one graph, round by round."""
    seconds = found[dropout]["seconds"]
    return np.array(seconds[str(share)]) / np.array(seconds["plain"])


def table_overhead(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    rows = []
    for dropout in ("0.0", "0.1"):
        for share in found["shares"]:
            quartiles = np.percentile(ratios(found, dropout, share), (25, 50, 75))
            rows.append(
                {
                    "dropout": float(dropout),
                    "graphs kept": f"{share:.0%}",
                    "time over one graph": quartiles[1],
                    "quartiles": f"{quartiles[0]:.2f} to {quartiles[2]:.2f}",
                    "1 + f (1 - k)": 1 + found[dropout]["f"] * (1 - share),
                    "f": found[dropout]["f"],
                }
            )
    return {f"Time over one graph ({found['n']:,} cells)": pd.DataFrame(rows)}


def all_kept(found: dict[str, Any] | None) -> str:
    """What chunks alone do to the time, in words."""
    if not found:
        return ""
    values = [float(np.median(ratios(found, dropout, 1.0))) for dropout in ("0.0", "0.1")]
    return (
        f"The law counts passes only: in chunks, with all graphs kept, a step takes {values[0]:.2f} (dropout 0.1: "
        f"{values[1]:.2f}) of the time of one graph, whose tensors do not fit the cache."
    )


def table_equal_memory(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    rows = []
    for row in found["rows"]:
        own = np.array(row["seconds"]["ours"])
        for name, seconds in row["seconds"].items():
            shown = f"ours, {row['budget']} ({row['share']:.0%} kept)" if name == "ours" else name
            rows.append(
                {
                    "run": shown,
                    "peak (MiB)": round(row["bytes"][name] / MIB),
                    "seconds": float(np.median(seconds)),
                    "time over ours": float(np.median(np.array(seconds) / own)),
                }
            )
    return {f"At equal memory ({found['n']:,} cells)": pd.DataFrame(rows)}


def over_ours(row: dict[str, Any]) -> dict[str, float]:
    """Time of each peer over ours, with its fastest micro-batch that takes no more memory."""
    own, found = np.array(row["seconds"]["ours"]), {}
    for name, seconds in row["seconds"].items():
        if name != "ours" and row["bytes"][name] <= row["bytes"]["ours"]:
            peer, ratio = name.partition(",")[0], float(np.median(np.array(seconds) / own))
            found[peer] = min(ratio, found.get(peer, np.inf))
    return found


def rate(row: dict[str, Any], dim: int) -> float:
    return 6 * row["n"] ** 2 * dim / row["seconds"]


def table_loss(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    rows = []
    for row in found["rows"]:
        is_timed = row["seconds"] is not None
        rows.append(
            {
                "run": row["run"],
                "N": thousands(row["n"]),
                "seconds": f"{row['seconds']:,.3f} s" if is_timed else "–",
                "GF/s": thousands(rate(row, found["dim"]) / 1e9) + " GF/s" if is_timed else "–",
                "of the product's rate": f"{rate(row, found['dim']) / row['gemm']:.0%}" if is_timed else "–",
                "peak (MiB)": thousands(row["bytes"] / MIB),
            }
        )
    errors = pd.DataFrame(
        [
            {"loss": power(row["loss"]), "ours": power(row["ours"]), "torch": power(row["torch"])}
            for row in found["precision"]
        ]
    )
    return {
        f"The loss alone (one direction, d = {found['dim']})": pd.DataFrame(rows),
        "Error of the gradient in single precision, against double": errors,
    }


def table_sizes(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    total = 2 * (max(found["tokens"]) // schemes.GENES_PER_CELL) * schemes.GENES_PER_CELL
    chunks = [
        {
            "tokens at once": thousands(size),
            **{
                f"tokens/s, {name}": thousands(total / np.median(seconds[str(size)]))
                for name, seconds in found["chunks"].items()
            },
        }
        for size in found["tokens"]
    ]
    loss = []
    for part in found["loss"]:
        for i, (stripe, tile_rows, columns) in enumerate(part["plan"]):
            n_rows = min(tile_rows, stripe // (4 * part["n"]))
            used = part["plan"].index([STRIPE_BYTES, CPU_ROWS, CPU_COLUMNS])
            ratio = np.array(part["seconds"][str(i)]) / np.array(part["seconds"][str(used)])
            loss.append(
                {
                    "keys": thousands(part["n"]),
                    "stripe (MiB)": stripe // MIB,
                    "tile": f"{n_rows:,} x {min(columns, part['n']):,}",
                    "seconds": float(np.median(part["seconds"][str(i)])),
                    "time over what is in use": float(np.median(ratio)),
                }
            )
    return {
        "Tokens encoded at once": pd.DataFrame(chunks),
        "Stripes and tiles of the loss": pd.DataFrame(loss),
    }


def speed_ups(found: dict[str, Any]) -> tuple[float, float]:
    """By the clock, and by the processor time of the process that worked longest."""
    by_clock, by_work = (
        float(np.median(np.array(x["one"]) / np.array(x["two"]))) for x in (found, found["worked"])
    )
    return by_clock, by_work


def table_two_processes(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    rows = [
        {
            "run": run,
            "seconds": float(np.median(found[name])),
            "processor seconds": float(np.median(found["worked"][name])),
        }
        for name, run in (("one", "one process, one thread"), ("two", "two processes, one thread each"))
    ]
    by_clock, by_work = speed_ups(found)
    rows.append({"run": "speed-up", "seconds": by_clock, "processor seconds": by_work})
    return {f"Two processes ({found['n']:,} cells)": pd.DataFrame(rows)}


def table_gpu(found: dict[str, Any]) -> dict[str, pd.DataFrame]:
    if not found:
        return {}
    row = {
        "cells": thousands(found["n"]),
        "genes a cell": found["genes"],
        "seconds": found["seconds"],
        "tokens/s": thousands(2 * found["n"] * found["genes"] / found["seconds"]),
        "model FLOP utilisation": f"{found['utilisation']:.0%}",
        "peak (MiB)": thousands(found["bytes"] / MIB),
    }
    return {"On a GPU (base, bf16)": pd.DataFrame([row])}


BUILDERS = {
    "1": table_memory,
    "2": table_overhead,
    "3": table_equal_memory,
    "4": table_loss,
    "5": table_sizes,
    "6": table_two_processes,
    "7": table_gpu,
}


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at and what came out."""
    found = []
    if "1" in results:
        for name in ("ours, 256 MiB", "ours, 256 MiB, freed memory given back"):
            first, last, value = growth(results["1"]["rows"], name)
            is_met = value <= 0.1
            found.append(
                {
                    "target": f"Peak memory grows by at most 10 % from {first:,} to {last:,} cells ({name})",
                    "measured": f"{value:+.0%}",
                    "verdict": "met" if is_met else f"**missed by {100 * (value - 0.1):.0f} points**",
                }
            )
    if "2" in results:
        for dropout, share, limit in (
            ("0.0", 0.0, 1.33),
            ("0.1", 0.0, 1.4),
            ("0.0", 0.7, 1.1),
            ("0.1", 0.7, 1.1),
        ):
            value = float(np.median(ratios(results["2"], dropout, share)))
            goal = f"{share:.0%} of graphs kept, dropout {float(dropout):g}: at most {limit} times the time of one graph"
            found.append(verdict(goal, value, limit, f"{value:.2f}x", at_most=True))
    for row in results.get("3", {}).get("rows", ()):
        for peer, value in over_ours(row).items():
            goal = f"At least 1.2 times as fast as {peer} in the same memory ({row['budget']}, {row['share']:.0%} kept)"
            found.append(verdict(goal, value, 1.2, f"{value:.2f}x", at_most=False))
    if "4" in results:
        timed = [x for x in results["4"]["rows"] if x["run"] == "ours"]
        row = timed[-1]
        share = rate(row, results["4"]["dim"]) / row["gemm"]
        goal = f"Loss at N = {row['n']:,}: at most 256 MiB"
        found.append(
            verdict(goal, row["bytes"] / MIB, 256, f"{thousands(row['bytes'] / MIB)} MiB", at_most=True)
        )
        goal = f"Loss at N = {row['n']:,}: at least 60 % of the rate of a matrix product"
        found.append(verdict(goal, share, 0.6, f"{share:.0%}", at_most=False))
        worst = max(x["ours"] for x in results["4"]["precision"])
        goal = "Gradient in single precision within 1e-5 of double, at every loss"
        found.append(verdict(goal, worst, 1e-5, power(worst), at_most=True))
    if "6" in results:
        value, by_work = speed_ups(results["6"])
        busy = results["6"]["others"]
        shown = f"{value:.2f}x; {by_work:.2f}x by processor time (others used {busy:.1f} of {os.cpu_count()} cores meanwhile)"
        found.append(
            verdict("Two processes at least 1.6 times as fast as one", value, 1.6, shown, at_most=False)
        )
    return found


TEXT = """
One step fills the gradients of a contrastive batch of two views of random cells with {genes} genes each. The encoder
is `scellm.nn.Encoder` (dim {dim}, depth 2, 4 heads of 16, softmax attention; dropout 0.1 with keys unless said
otherwise), on two threads. Gradients are those of one graph in every row.

![Peak memory and time against batch size; time over one graph against the share of graphs kept; memory and time of the loss]({name}.png)

How it was measured:

- **Peak memory** is the highest resident memory during one step above that just before it (weights and cells are
  there by then), in a process of its own, after two steps of 64 cells. The system's allocator keeps and scatters what
  is freed; *freed memory given back* is the same step with `MALLOC_ARENA_MAX=1` and thresholds of 1 MiB, so that what
  is counted is what is in use. Growth is that of the peak less 6 x 2N x D x 4 bytes: the representations, the copy at
  which the loss is differentiated, the unit vectors, the gradients at these as kept and as scaled, and the gradients
  at the representations.
- **One graph** (`plain`) is the encoder and `cross_entropy` over all N x N similarities. Where a row was expected to
  take more than {most_memory} GiB or {most_seconds} s it was not run, and the expected figure is given as extrapolated
  from the two sizes before: memory by the part that grows (x4, or x16 where N x N similarities are held), time as it
  grew last (x64 for open_clip, which takes the whole loss once for every chunk).
- **Peers**: {peers}. Their micro-batch is {micro} rows, the tokens of our chunks, unless said otherwise. A rewritten
  scheme is our own code after the package's description; open_clip's is part of its training script, not of its library.
- **Time over one graph** is the median over {rounds} rounds of the ratio within a round, with the same loss on both
  sides, in a process whose allocator keeps freed memory, as those of GPUs do: with the system's, the large tensors of one
  graph pay for fresh pages at every step and ours looks better than it is. f is the time of a forward pass over that
  of forward and backward, of one chunk, measured in the same process. {all_kept}
- **At equal memory** a peer has the largest micro-batch (of a few sizes) with which its measured peak is no higher
  than ours. Larger micro-batches are slower on a CPU, so its row at {micro} is shown too, and the target counts the
  faster of the two.
- **The loss alone**: time of loss and gradients, rate 6 N² d / t, beside the rate of a product of 4096 x 4096 matrices just before
  and after, in the same process. Its peak includes the gradients of both inputs. {linear}
- **Chunks and stripes** are those in use: {chunk:,} tokens on a CPU, stripes of {stripe} MiB, tiles of
  {tile_rows} x {tile_columns:,}; the last part of the stripe table contrasts some rows against all keys.
- **Two processes** share the batch, each with one thread; one process alone has one thread too, and the other sleeps
  meanwhile. Where others keep the cores busy the clock tells more of them than of us, so the processor time of the
  process that worked longest stands beside it.
- All threads wait asleep (`OMP_WAIT_POLICY=passive`), because the machine was shared. Other processes used, of {cores}
  cores and in the median over the measurements of each part: {others}. Where that is not near 0 ratios hold, and
  absolute times are upper bounds.
- {gpu}
"""


def page(results: dict[str, Any]) -> Path:
    """Write tables, targets and figure."""
    summary = targets(results)
    tables = {"Targets": pd.DataFrame(summary)} if summary else {}
    for number in MEASURES:
        if number in results:
            tables |= BUILDERS[number](results[number])
    others = [
        f"{PARTS[number]} {np.median(part):.1f}" for number, part in sorted(results["others"].items()) if part
    ]
    text = TEXT.format(
        name=NAME,
        genes=schemes.GENES_PER_CELL,
        dim=schemes.DIM,
        most_memory=MOST_MEMORY >> 30,
        most_seconds=MOST_SECONDS,
        peers=", ".join(results["peers"]),
        micro=MICRO_BATCH,
        rounds=results.get("2", {}).get("rounds", 0),
        all_kept=all_kept(results.get("2")),
        chunk=TOKENS_PER_CHUNK["cpu"],
        stripe=STRIPE_BYTES // MIB,
        tile_rows=CPU_ROWS,
        tile_columns=CPU_COLUMNS,
        linear="" if hasattr(F, "linear_cross_entropy") else "This torch has no `linear_cross_entropy`.",
        others=", ".join(others),
        cores=os.cpu_count(),
        gpu="No GPU was at hand."
        if not results.get("7")
        else f"On the GPU a product of 8192 x 8192 matrices in bf16 ran at {results['7']['rate'] / 1e12:,.0f} TF/s.",
    )
    draw(results, DOCS / f"{NAME}.png")
    facts = {"targets": summary, "results": results}
    return write(NAME, "Divide and conquer: memory and time", text, tables, facts)


COLOURS = ("#555555", "#0072B2", "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7")


LOSS_COLOURS = dict(zip(LOSSES, ("#555555", "#E69F00", "#009E73", "#0072B2"), strict=True))


def draw(results: dict[str, Any], path: Path) -> None:
    """Panels of memory and time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 11), layout="constrained")
    panels = figure.subplots(3, 2).ravel()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#EEEEEE")
    if "1" in results:
        rows = results["1"]["rows"]
        colours = dict(zip(dict.fromkeys(row["run"] for row in rows), COLOURS, strict=True))
        for axes, field, scale, title in (
            (panels[0], "bytes", MIB, "Peak memory of a step (MiB; hollow: extrapolated)"),
            (panels[1], "seconds", 1, "Time of a step (s)"),
        ):
            names = [
                x
                for x in dict.fromkeys(row["run"] for row in rows)
                if field == "bytes" or "given back" not in x
            ]
            for name in names:
                _line(axes, [x for x in rows if x["run"] == name], field, scale, name, colours[name])
            axes.set(xlabel="cells in the batch", title=title)
    if "2" in results:
        axes, found = panels[2], results["2"]
        for dropout, colour in (("0.0", COLOURS[1]), ("0.1", COLOURS[4])):
            quartiles = np.array(
                [np.percentile(ratios(found, dropout, share), (25, 50, 75)) for share in found["shares"]]
            ).T
            kept = 100 * np.array(found["shares"])
            bars = np.abs(quartiles[[0, 2]] - quartiles[1])
            axes.errorbar(
                kept,
                quartiles[1],
                yerr=bars,
                fmt="o",
                capsize=3,
                color=colour,
                label=f"dropout {float(dropout):g}",
            )
            law = 1 + found[dropout]["f"] * (1 - kept / 100)
            axes.plot(kept, law, "--", color=colour, label=f"1 + f (1 - k), f = {found[dropout]['f']:.2f}")
        axes.axhline(1, color="#999999", linewidth=1)
        axes.set(
            xlabel="graphs kept (%)", title="Time over one graph (median and quartiles)", ylim=(0.85, None)
        )
        axes.legend(frameon=False, fontsize=8)
    if "3" in results:
        axes = panels[3]
        names, values = [], []
        for row in reversed(results["3"]["rows"]):
            own = np.array(row["seconds"]["ours"])
            for name, seconds in reversed(row["seconds"].items()):
                if name != "ours":
                    names.append(
                        f"{name.replace(', micro', ',' + chr(10) + 'micro')} ({row['bytes'][name] / MIB:,.0f} MiB)"
                    )
                    values.append(float(np.median(np.array(seconds) / own)))
            names.append(f"ours, {row['budget']}\n({row['bytes']['ours'] / MIB:,.0f} MiB)")
            values.append(1.0)
        colours = [COLOURS[1] if name.startswith("ours") else "#BBBBBB" for name in names]
        axes.set_axisbelow(True)
        bars = axes.barh(range(len(names)), values, color=colours)
        axes.set_yticks(range(len(names)), names)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axes.tick_params(axis="y", labelsize=7)
        axes.axvline(1, color="#555555", linewidth=1)
        axes.set(title="Time over ours at about equal memory", xlim=(0, max(values) * 1.12))
    if "4" in results:
        rows = results["4"]["rows"]
        for axes, field, scale, title in (
            (panels[4], "bytes", MIB, "Peak memory of the loss (MiB)"),
            (panels[5], "seconds", 1, "Time of the loss (s)"),
        ):
            for name in dict.fromkeys(row["run"] for row in rows):
                if name.startswith("ours,"):
                    continue
                own = [
                    x
                    for x in rows
                    if x["run"] == name
                    or (name == "ours" and x["run"].startswith("ours,") and field == "bytes")
                ]
                _line(axes, own, field, scale, name, LOSS_COLOURS[name])
            axes.set(xlabel="N", title=title)
    figure.savefig(path, dpi=130)


def _line(axes: Any, rows: Iterable[dict[str, Any]], field: str, scale: int, name: str, colour: str) -> None:
    """One run on logarithmic axes; what was only extrapolated is hollow."""
    rows = list(rows)
    measured = [row for row in rows if row.get(field)]
    short = name.replace(" accumulation", "").replace(", cached loss", "")
    (line,) = axes.plot(
        [x["n"] for x in measured],
        [x[field] / scale for x in measured],
        "o-",
        label=short,
        color=colour,
        ms=4,
    )
    if "given back" in name:
        line.set_linestyle(":")
    for row in rows:
        if row.get("reason") == "memory" and field == "bytes":
            axes.scatter(
                [row["n"]],
                [row["expected"][field] / scale],
                facecolors="none",
                edgecolors=colour,
                s=30,
                zorder=3,
            )
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda x, _: f"{x:,g}")
    axes.yaxis.set_minor_formatter("")
    axes.legend(frameon=False, fontsize=7)


def main() -> None:
    """Measure what was asked for, keep the rest, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    parser.add_argument(
        "--tables", default=",".join(MEASURES), help="parts to measure, of 1 to 7; the others are kept"
    )
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page again")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.child:
        name, spec = json.loads(options.child)
        print(json.dumps(CHILDREN[name](**spec)))
        return
    path = DOCS / f"{NAME}.json"
    results: dict[str, Any] = json.loads(path.read_text())["facts"]["results"] if path.exists() else {}
    if not results or (results["quick"] != options.quick and not options.page):
        results = {"quick": options.quick, "others": {}, "dates": {}}
    if options.page:
        print(page(results))
        return
    for number in options.tables.split(","):
        run = Runner(quick=options.quick)
        results[number] = MEASURES[number](run)
        results["others"][number] = run.others
        results["dates"][number] = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        if number in ("1", "3") or "peers" not in results:
            results["peers"] = [label(peer) for peer in PEERS]
        page(results)  # after each part, so that none is lost
    print(page(results))


if __name__ == "__main__":
    main()
