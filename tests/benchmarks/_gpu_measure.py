"""What a device does: its ceilings, encoders in several precisions, and memory against the size of the batch."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _operations import operations

import scellm
from scellm.nn import CellLMConfig, Encoder
from scellm.train import DivideAndConquer, info_nce
from scellm.train._log import peak_gib

PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}
"""Dense bf16 operations per second by the data sheets, by a part of the name, the longer one first."""
N_GENES = 19_379
LONG, SHORT = {"cuda": 1024, "cpu": 128}, 64
"""Genes of a cell where speed is measured, and where it is memory against the batch."""
BATCHES = {"cuda": (1_024, 4_096, 16_384, 65_536), "cpu": (64, 128, 256)}
BUDGETS = {"cuda": "8GiB", "cpu": "64MiB"}


class SyntheticCells:
    """Two views of random cells, kept on the host; each chunk is taken to the device as it is asked for."""

    def __init__(self, n_cells: int, genes: int, n_genes: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.gene_ids = torch.randint(n_genes, (2 * n_cells, genes), generator=generator, dtype=torch.int32)
        self.values = torch.rand(2 * n_cells, genes, generator=generator) * 5
        self.lengths = np.full(2 * n_cells, genes)
        self.device = device

    def __len__(self) -> int:
        return len(self.gene_ids)

    def __getitem__(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        gene_ids = self.gene_ids[rows].long().to(self.device)
        is_gene = torch.ones_like(gene_ids, dtype=torch.bool)
        return {"gene_ids": gene_ids, "values": self.values[rows].to(self.device), "is_gene": is_gene}


class Measurements:
    """Numbers written as they come, until the time is over."""

    def __init__(self, path: Path, until: float, device: torch.device) -> None:
        self.path, self.until, self.device = path, until, device
        self.found: dict[str, Any] = {
            "facts": facts(device),
            "ceilings": {},
            "encoders": [],
            "batches": [],
            "left_out": [],
        }

    @property
    def seconds(self) -> float:
        """What is left."""
        return self.until - time.time()

    def write(self) -> None:
        """Write what there is."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)  # noqa: PTH105

    def leave_out(self, what: str, why: object) -> None:
        """Say what was not measured."""
        self.found["left_out"].append(f"{what}: {why}")
        self.write()


def facts(device: torch.device) -> dict[str, Any]:
    """Machine, versions and date."""
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "h5py")}
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if "model name" in x]
        cpu = names[0] if names else cpu
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "gpu": gpu,
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "scellm": scellm.__version__,
        **packages,
    }


def measure(path: Path, until: float, architecture: CellLMConfig, device: torch.device) -> None:
    """Write all measurements for which there is time, the most important first.

    Parameters
    ----------
    path
        JSON file.
    until
        End, seconds since 1970.
    architecture
        Of the recipe that is trained.
    device
        Where.
    """
    torch.manual_seed(0)
    run = Measurements(path, until - 2, device)
    run.write()
    run.found["ceilings"] = ceilings(device)
    run.write()
    # the published size takes a CPU minutes a step: a rehearsal there measures the smallest encoder instead
    name = "base" if device.type == "cuda" else "tiny"
    config = CellLMConfig.named(name, n_genes=N_GENES)
    for label, own, precision, is_compiled in (
        (name, config, "bf16", False),
        ("recipe", architecture, "bf16", False),
        (name, config, "fp32", False),
        ("recipe", architecture, "fp32", False),
    ):
        encoder_speed(run, label, own, precision, is_compiled=is_compiled)
    memory_against_batch(run, name, config)
    if device.type == "cuda":  # takes a minute by itself
        encoder_speed(run, "recipe", architecture, "bf16", is_compiled=True)
        encoder_speed(run, name, config, "bf16", is_compiled=True)


def ceilings(device: torch.device) -> dict[str, float | str]:
    """What a copy and matrix products reach here; the data sheet's bf16 peak where the name is known."""
    size, n = (8192, 1 << 31) if device.type == "cuda" else (512, 1 << 24)
    found: dict[str, float | str] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        found[f"{name} product (operations/s)"] = 2 * size**3 / _seconds(lambda a=a, b=b: a @ b, device)
        del a, b
    source = torch.randint(0, 100, (n,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found["copy (bytes/s, read and written)"] = 2 * n / _seconds(lambda: target.copy_(source), device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    sheet = next((peak for part, peak in PEAKS.items() if part.lower() in name.lower()), None)
    found["bf16 peak (operations/s)"] = sheet or found["bf16 product (operations/s)"]
    found["peak from"] = "data sheet" if sheet else "the measured product"
    return found


def encoder_speed(
    run: Measurements, label: str, config: CellLMConfig, precision: str, *, is_compiled: bool
) -> None:
    """Tokens a second, forwards and backwards, and the share of the peak."""
    name = f"{label}, {precision}{', compiled' if is_compiled else ''}"
    if run.seconds < (90 if is_compiled else 3):
        run.leave_out(name, "no time left")
        return
    n_cells = 64 if run.device.type == "cuda" else 4
    genes = LONG[run.device.type]
    try:
        encoder = Encoder(config).to(run.device).train()
        cells = SyntheticCells(n_cells // 2, genes, config.n_genes, run.device)[np.arange(n_cells)]
        encode = torch.compile(encoder) if is_compiled else encoder

        def step() -> None:
            with torch.autocast(run.device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = encode(**cells).cells.float().square().mean()
            loss.backward()
            encoder.zero_grad(set_to_none=True)

        seconds = _seconds(
            step, run.device, at_most=min(8.0 if run.device.type == "cuda" else 0.3, run.seconds / 3)
        )
    except Exception as error:  # noqa: BLE001 - a device that cannot do one thing may do the next
        run.leave_out(name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return
    done = 3 * n_cells * operations(config, genes)
    run.found["encoders"].append(
        {
            "encoder": name,
            "parameters (M)": sum(p.numel() for p in encoder.parameters()) / 1e6,
            "genes": genes,
            "tokens/s": n_cells * genes / seconds,
            "operations/s": done / seconds,
            "of the bf16 peak": done / seconds / run.found["ceilings"]["bf16 peak (operations/s)"],
            "memory (GiB)": peak_gib(run.device),
        }
    )
    run.write()


def memory_against_batch(run: Measurements, label: str, config: CellLMConfig) -> None:
    """Peak memory and tokens a second of the divide-and-conquer step, larger and larger batches at one budget."""
    encoder = Encoder(config).to(run.device).train()
    budget, last = BUDGETS[run.device.type], 0.0
    for n_cells in BATCHES[run.device.type]:
        name = f"{label}, batch of {n_cells:,}"
        if run.seconds < 2 + 6 * last:  # four times the batch, and the step before the one that is timed
            run.leave_out(name, "no time left")
            continue
        rows = SyntheticCells(n_cells, SHORT, config.n_genes, run.device)
        step = DivideAndConquer(
            _in_bf16(encoder, run.device), _contrast(n_cells), modules=[encoder], memory_budget=budget
        )
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(run.device)
        began = time.perf_counter()
        report = step(rows)
        _wait(run.device)
        last = time.perf_counter() - began
        encoder.zero_grad(set_to_none=True)
        run.found["batches"].append(
            {
                "encoder": label,
                "batch": n_cells,
                "genes": SHORT,
                "budget for graphs": budget,
                "peak memory (GiB)": peak_gib(run.device),
                "seconds": last,
                "tokens/s": 2 * n_cells * SHORT / last,
                "chunks": report.n_chunks,
                "kept": report.n_kept,
            }
        )
        run.write()


def _in_bf16(encoder: Encoder, device: torch.device) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    def encode(cells: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return encoder(**cells).cells.float()

    return encode


def _contrast(n_cells: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda r: info_nce(r[:n_cells], r[n_cells:])


def _seconds(call: Callable[[], object], device: torch.device, at_most: float = 1.0) -> float:
    """Median seconds of a call after two that are not counted."""
    for _ in range(2):
        call()
    _wait(device)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (len(times) < 50 and time.perf_counter() - began < at_most):
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
