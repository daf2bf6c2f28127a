"""What pretraining on millions of cells would cost, on paper: rates measured here, GPUs from their data sheet.

    python tests/benchmarks/scaling.py CORPUS.h5     # measures loader and step, takes a minute or two
    python tests/benchmarks/scaling.py --page        # only writes the page

CORPUS.h5 is what `training_corpus.py` packs. The rate of the loss and what an encoder does per second on a CPU are taken from
`divide_and_conquer.json` and `speed.json`, quality from `ablation.json`. Writes `docs/benchmarks/scaling.md`, `.json` and `.png`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _ablation_page import TRAINED, collect
from _operations import operations
from _report import DOCS, write

from scellm.data import Corpus, GeneVocabulary
from scellm.nn import CellLMConfig, Encoder
from scellm.train import PretrainConfig, World
from scellm.train._batch import CELLS_PER_DRAW
from scellm.train._corpus_batches import CorpusBatches
from scellm.train._recipe_file import read_recipe
from scellm.train._trainer import Trainer

NAME = "scaling"
RATE = "cells/s, 1 thread, processor time"
"""Column of the page of speed."""
CELLS, GPUS, EPOCHS = (2e6, 50e6, 1e9), (1, 8, 64), 10
PEAK_BF16, PEAK_FP32, BANDWIDTH = 989e12, 67e12, 3.35e12
"""One H100 SXM, data sheet: dense bf16 and fp32 operations, bytes of memory, per second."""
NVLINK, NETWORK = 450e9, 50e9
"""Bytes per second each way between GPUs of a machine (data sheet) and per GPU between machines (400 Gb/s)."""
UTILISATION, MEMORY_UTILISATION = 0.4, 0.5
"""Shares of the peaks that we expect to reach. Assumed, not measured: no GPU was at hand."""
CPU_CORES_PER_GPU = 16
GENES = 600
"""Mean genes of a view."""
LOADER_THREADS = 1
"""Of each process, as the loop is written."""
GRAPH_BYTES = 2
"""Bytes per number in graphs, bf16."""


@dataclass(frozen=True)
class Case:
    """An encoder and the batches it is trained on."""

    name: str
    config: CellLMConfig
    batch_size: int
    genes: int
    """Mean genes of a view."""
    datasets_per_batch: int | None = None


def cases() -> list[Case]:
    """What is costed: the shipped recipe, the same size with two blocks, the published encoder."""
    n_genes = len(GeneVocabulary.default())
    recipe = read_recipe("small")
    stage = recipe.stages[-1]
    shipped = recipe.architecture(stage, n_genes)
    kind = f"bag of {shipped.dim}" if not shipped.depth else f"{shipped.depth} blocks of {shipped.dim}"
    return [
        Case(f"shipped ({kind})", shipped, stage.recipe.batch_size, GENES, stage.recipe.datasets_per_batch),
        Case("transformer", CellLMConfig.named("transformer", n_genes=n_genes), 4096, GENES),
        Case("base (as published)", CellLMConfig.named("base", n_genes=n_genes), 65_536, GENES),
    ]


def gpus(case: Case) -> list[int]:
    """Numbers of GPUs that a batch is large enough for: each process holds at least one block of 64 cells."""
    return [n for n in GPUS if case.batch_size >= n * CELLS_PER_DRAW]


def parameters(config: CellLMConfig) -> int:
    """Trained numbers of an encoder."""
    with torch.device("meta"):
        return sum(p.numel() for p in Encoder(config).parameters())


def bag_bytes(config: CellLMConfig, genes: int) -> float:
    """Bytes a GPU moves for one view of a bag: rows of the gene table forwards, and again, read and written, backwards."""
    return 3.0 * genes * config.dim * 4


def step(case: Case, n_gpus: int, kept: float, loader: float, overhead: float) -> dict[str, float]:
    """Seconds of the parts of one step on one of several GPUs; the loader draws while the GPU works.

    `overhead` is what a step takes when there is next to nothing in it.
    """
    config, views = case.config, 2 * case.batch_size / n_gpus
    passes = 3 + (1 - kept)  # forwards 1, backwards 2, and forwards again where the graph was not kept
    encode = views * passes * operations(config, case.genes) / (PEAK_BF16 * UTILISATION)
    if not config.depth:
        encode = views * bag_bytes(config, case.genes) / (BANDWIDTH * MEMORY_UTILISATION)
    optimise = (
        parameters(config) * 4 * 8 / (BANDWIDTH * MEMORY_UTILISATION)
    )  # AdamW: weights, gradients, two moments
    compared = case.batch_size**2 / (case.datasets_per_batch or 1)
    loss = 12 * compared * config.dim / n_gpus / (PEAK_FP32 * UTILISATION)
    rate = NVLINK if n_gpus <= 8 else NETWORK
    exchange = 0.0 if n_gpus == 1 else exchanged(case, n_gpus) / (rate * MEMORY_UTILISATION)
    return {
        "loader": case.batch_size / n_gpus / loader,
        "encoder": encode + optimise,
        "loss": loss,
        "network": exchange,
        "overhead": overhead,
    }


def exchanged(case: Case, n_gpus: int) -> float:
    """Bytes a process receives in a step: both views' vectors, gradients at them, the gradient of the weights."""
    vectors = 2 * case.batch_size * case.config.dim * 4 * (n_gpus - 1) / n_gpus
    weights = 2 * parameters(case.config) * 4 * (n_gpus - 1) / n_gpus
    return 2 * vectors + weights


def kept_share(case: Case, n_gpus: int) -> float:
    """Share of graphs that 60 of 80 GB hold: about 34 numbers of the size of the embedding per gene and block."""
    if not case.config.depth:
        return 1.0
    inner = case.config.heads * case.config.dim_head
    per_view = (
        case.genes
        * case.config.depth
        * (6 * case.config.dim + 4 * inner + 3 * case.config.ff_mult * case.config.dim)
    )
    return min(1.0, 60e9 / (2 * case.batch_size / n_gpus * per_view * GRAPH_BYTES))


def costs(found: dict[str, Any]) -> pd.DataFrame:
    """Time and GPU hours of ten epochs."""
    rows = []
    for case in cases():
        for n_cells in CELLS:
            for n_gpus in gpus(case):
                steps = EPOCHS * n_cells / case.batch_size
                many, one = (steps * _seconds(parts) for parts in _both(case, n_gpus, found))
                rows.append(
                    {
                        "encoder": case.name,
                        "cells": f"{n_cells / 1e6:,.0f} M",
                        "H100": str(n_gpus),
                        "time": _time(many),
                        "GPU hours": _short(many * n_gpus / 3600),
                        "time, one loader thread": _time(one),
                    }
                )
    return pd.DataFrame(rows)


def _both(case: Case, n_gpus: int, found: dict[str, Any]) -> list[dict[str, float]]:
    """Parts of a step with all cores that a GPU has drawing batches, and with as many threads as there are now."""
    kept = kept_share(case, n_gpus)
    rate, overhead = found["loader, in memory"], found["overhead of a step (s)"]
    return [
        step(case, n_gpus, kept, rate * threads, overhead) for threads in (CPU_CORES_PER_GPU, LOADER_THREADS)
    ]


def _seconds(parts: dict[str, float]) -> float:
    """A step: the loader works beside the others, which follow each other."""
    return max(parts["loader"], sum(parts.values()) - parts["loader"])


def parts_table(found: dict[str, Any]) -> pd.DataFrame:
    """Milliseconds of the parts of a step."""
    rows = []
    for case in cases():
        for n_gpus in gpus(case):
            parts = _both(case, n_gpus, found)[0]
            rows.append(
                {"encoder": case.name, "batch": f"{case.batch_size:,}", "H100": str(n_gpus)}
                | {"graphs kept": f"{kept_share(case, n_gpus):.0%}"}
                | {f"{name} (ms)": _short(1000 * x) for name, x in parts.items()}
                | {"received per GPU (MB)": _short(0 if n_gpus == 1 else exchanged(case, n_gpus) / 1e6)}
            )
    return pd.DataFrame(rows)


def storage(found: dict[str, Any]) -> pd.DataFrame:
    """Size of the packed corpus, and what a GPU's processes read per second."""
    rows = []
    for n_cells in CELLS:
        row = {
            "cells": f"{n_cells / 1e6:,.0f} M",
            "packed file (GB)": _short(n_cells * found["packed bytes per cell"] / 1e9),
        }
        for case in cases():
            rate = case.batch_size / _seconds(_both(case, 1, found)[0])
            row[f"{case.name}: MB/s read for one GPU"] = _short(rate * found["packed bytes per cell"] / 1e6)
        rows.append(row)
    return pd.DataFrame(rows)


def _time(seconds: float) -> str:
    """Minutes, hours or days."""
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds / 60)} minutes"


def _short(x: float) -> str:
    """Two digits that count."""
    if not x:
        return "0"
    return f"{x:,.0f}" if x >= 100 else f"{x:.2g}" if x < 10 else f"{x:.0f}"


def measured(corpus: Path) -> dict[str, Any]:
    """Loader and training step of the shipped recipe on this CPU, one thread, processor time."""
    found: dict[str, Any] = {}
    settings = {
        "objectives": ["contrastive"],
        "batch_size": 512,
        "datasets_per_batch": 1,
        "views": {"max_genes": 2048},
    }
    recipe = PretrainConfig.from_dict(settings)
    for name, in_memory in (("in memory", True), ("packed, on disk", False)):
        cells = CorpusBatches(
            Corpus.build(corpus, in_memory=in_memory),
            recipe,
            World.current(),
            is_packed=True,
            device=torch.device("cpu"),
        )
        cells.prepare(0)
        began, lengths, n_steps = time.process_time(), [], 20
        for i in range(1, n_steps + 1):
            lengths.append(cells.prepare(i).batch.lengths.mean())
        found[f"loader, {name}"] = n_steps * recipe.batch_size / (time.process_time() - began)
        found["genes per view"] = float(np.mean(lengths))
    loaded = Corpus.build(corpus, in_memory=True)
    config = cases()[0].config
    for tokens in ("auto", 200_000):
        options = {"max_steps": 12, "tokens_per_chunk": tokens, "memory_budget": "1GiB", "log_every": 1000}
        run = Trainer(
            Encoder(config),
            loaded,
            PretrainConfig.from_dict(settings | options),
            torch.device("cpu"),
            World.current(),
        )
        began = time.process_time()
        run.train(None, "auto", show_progress=False)
        found[f"training step of the bag, {tokens if tokens == 'auto' else f'{tokens:,}'} tokens at once"] = (
            12 * recipe.batch_size / (time.process_time() - began)
        )
    found["packed bytes per cell"] = corpus.stat().st_size / loaded.n_cells
    options = settings | {"batch_size": 64, "views": {"max_genes": 4}, "max_steps": 50, "log_every": 1000}
    tiny = CellLMConfig.named("tiny", n_genes=config.n_genes)
    run = Trainer(
        Encoder(dataclasses.replace(tiny, depth=0, dim=1)),
        loaded,
        PretrainConfig.from_dict(options),
        torch.device("cpu"),
        World.current(),
    )
    began = time.process_time()
    run.train(None, "auto", show_progress=False)
    found["overhead of a step (s)"] = (time.process_time() - began) / 50
    return found


def measured_table(found: dict[str, Any]) -> pd.DataFrame:
    """What was measured, with where."""
    units = {
        "genes per view": "{:,.0f}",
        "packed bytes per cell": "{:,.0f}",
        "overhead of a step (s)": "{:.4f}",
    }
    rows = [
        {
            "what": name,
            "rate": units.get(name, "{:,.0f} cells/s").format(x),
            "from": "this script, one thread",
        }
        for name, x in found.items()
    ]
    loss = json.loads((DOCS / "divide_and_conquer.json").read_text())
    for row in loss["tables"]["The loss alone (one direction, d = 128)"]:
        if row["run"] == "ours" and row["N"] in ("4,096", "65,536"):
            share = row["of the product's rate"]
            rate = f"{row['seconds']}, {row['GF/s']}, {share} of a matrix product"
            what = f"loss at N = {row['N']}, one direction, d = 128"
            rows.append({"what": what, "rate": rate, "from": "divide_and_conquer, two threads"})
    speed = json.loads((DOCS / "speed.json").read_text())
    base = cases()[2].config
    for row in speed["tables"]["Cells per second"]:
        if row["run"] == "base, ours":
            done = row[RATE] * operations(base, row["genes"])
            rate = f"{row[RATE]:.2f} cells/s, {done / 1e9:.0f} GF/s by our count of operations"
            what = f"base, forwards, {row['genes']:,} genes"
            rows.append({"what": what, "rate": rate, "from": "speed, one thread"})
    return pd.DataFrame(rows)


def quality() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Macro-F1 by share of the corpus (starts) and by batch size (trainings), from the ablation."""
    table = collect(json.loads((DOCS / "ablation.json").read_text())["runs"])
    columns = ["arm", "seeds", "steps", "mean", "spread", "new studies"]
    size = table[table["group"].isin(["corpus size", "base"])][columns]
    shares = [int(arm.split()[0]) if "%" in arm else 100 for arm in size["arm"]]
    size = size.assign(share=shares).sort_values("share")
    batch = table[table["group"].isin(["batch", "trained"])][columns]
    is_shown = batch["arm"].str.contains("cells of all datasets") | (batch["arm"] == TRAINED[1])
    return size, batch[is_shown]


def draw(size: pd.DataFrame, batch: pd.DataFrame, path: Path) -> None:
    """Both curves, as far as they were measured, all sets and new studies."""
    from matplotlib.figure import Figure

    batch = batch[batch["arm"].str.contains("cells of all datasets")]
    n_cells = [int(arm.split()[0].replace(",", "")) for arm in batch["arm"]]
    curves = [(size["share"], size, [f"{s} %" for s in size["share"]], "share of the cells, of each dataset")]
    if len(batch) > 1:
        ticks = [f"{n:,}\n{s} steps" for n, s in zip(n_cells, batch["steps"], strict=True)]
        curves.append((n_cells, batch, ticks, "cells in a batch (all datasets, all negatives)"))
    figure = Figure(figsize=(1 + 4.5 * len(curves), 3.6), layout="constrained")
    grid = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (places, own, ticks, name) in zip(grid, curves, strict=True):
        axes.errorbar(
            places,
            own["mean"],
            yerr=own["spread"],
            fmt="o-",
            color="#0072B2",
            label="eight sets, ± sd of seeds",
        )
        axes.plot(
            places,
            own["new studies"],
            "o--",
            mfc="none",
            color="#D55E00",
            label="five of studies not trained on",
        )
        axes.set_xscale("log")
        axes.set_xticks(places, ticks)
        axes.minorticks_off()
        axes.set(xlabel=name)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set(ylabel="macro-F1, 15 neighbors")
    grid[0].legend(frameon=False, fontsize=8, loc="center left")
    figure.savefig(path, dpi=130)


TEXT = """
**Computed, not measured.** No GPU was at hand. What is measured is the loader, the loss and the encoder on a CPU (first
table). All numbers for H100 GPUs are products of operations, bytes and the peak rates of the data sheet, with assumed
shares of these peaks: {utilisation:.0%} of 989 TF/s (bf16, the encoder) and of 67 TF/s (fp32, the loss), {memory:.0%} of 3.35 TB/s of
memory, of 450 GB/s between GPUs of one machine, and of 50 GB/s between machines. Take them as right within a factor of
two or three.

Ten epochs over {cells}: the paper's corpus, the size of CELLxGENE Census, and what is to come. Batches are {shipped_batch:,}
cells for the shipped recipe, 4,096 for `transformer`, and 65,536 for `base`, which is what the divide-and-conquer step is for; views of {genes} genes. Cost scales
with cells and epochs, so any other number follows. A process holds at least one block of 64 cells, so 512 cells are for 8 GPUs at most;
on 64, the shipped recipe needs a larger batch.

{verdict}

## What was measured

{measured}

## Parts of one step, computed

The encoder's part is forwards, backwards, and forwards again for graphs that 60 GB do not hold, and the optimizer. The loader has
{cores} cores per GPU here; **as written the loop draws batches in one thread per process**, which the last column of the costs is
for. Overhead is the measured processor time of a step with next to nothing in it: Python, launches, the log. On this CPU `base`
reaches 92 of some 230 GF/s of a matrix product, the same {utilisation:.0%} that are assumed for the GPU.

{parts}

## Ten epochs, computed

{costs}

Packed files hold what was measured once; reading is sequential in blocks and far below what disks give.

{storage}

## Quality against size, measured

![Macro-F1 by share of the corpus](scaling.png)

From the {{doc}}`ablation`, on labeled sets that are left out of training. The share of the corpus is that of the start of the shipped recipe without
training, computed from 10, 30 and all 100 cells of each dataset; it does not leave studies out, which costs more (see the groups on the
corpus there). {batch_note}

{quality}
"""


def verdict(found: dict[str, Any]) -> str:
    """Which part saturates first, in words made from the numbers."""
    lines = []
    for case in cases():
        firsts, slower = [], []
        for n_gpus in gpus(case):
            many, one = _both(case, n_gpus, found)
            firsts.append(f"{max(many, key=many.get)} on {n_gpus}")
            slower.append(_seconds(one) / _seconds(many))
        words = ""
        if max(slower) > 1.05:
            words = (
                f"; with one loader thread a run takes {min(slower):.2g} to {max(slower):.2g} times as long"
            )
        lines.append(f"- **{case.name}**: {', '.join(firsts)}{words}.")
    return "What takes longest in a step (*overhead* is the loop itself):\n\n" + "\n".join(lines)


def batch_note(batch: pd.DataFrame) -> str:
    """What the curve over batch sizes is, or that there is none."""
    if batch["arm"].str.contains("cells of all datasets").sum() < 2:
        return (
            "Quality against batch size was **not measured**: the time did not suffice for these trainings."
        )
    seconds = json.loads((DOCS / "ablation.json").read_text())["seconds"]
    return f"Batches: {seconds:g} seconds of one thread each of training on top, so larger batches take fewer steps."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    path = DOCS / f"{NAME}.json"
    if options.page:
        found = json.loads(path.read_text())["facts"]["measured"]
    else:
        torch.set_num_threads(1)
        found = measured(options.corpus)
    size, batch = quality()
    draw(size, batch, DOCS / "scaling.png")
    text = TEXT.format(
        utilisation=UTILISATION,
        memory=MEMORY_UTILISATION,
        cells=" , ".join(f"{n / 1e6:,.0f} million" for n in CELLS).replace(" ,", ","),
        shipped_batch=cases()[0].batch_size,
        genes=GENES,
        verdict=verdict(found),
        measured=measured_table(found).to_markdown(index=False),
        cores=CPU_CORES_PER_GPU,
        parts=parts_table(found).to_markdown(index=False, disable_numparse=True),
        storage=storage(found).to_markdown(index=False, disable_numparse=True),
        costs=costs(found).to_markdown(index=False, disable_numparse=True),
        batch_note=batch_note(batch),
        quality=pd.concat([size.drop(columns="share"), batch[batch["seeds"] > 0]])
        .drop_duplicates("arm")
        .astype(object)
        .fillna("")
        .to_markdown(index=False, floatfmt=".4f"),
    )
    print(
        write(
            NAME,
            "Scaling, on paper",
            text,
            {},
            {"measured": found, "costs": costs(found).to_dict(orient="records")},
        )
    )


if __name__ == "__main__":
    main()
