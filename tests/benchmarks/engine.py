"""Where the time of a training step goes on one thread of a CPU, and how many cells a second it trains.

    python tests/benchmarks/engine.py CORPUS.h5 --label NAME     # measures the scellm that is imported, some minutes
    python tests/benchmarks/engine.py --page                     # writes the page of all labels

CORPUS.h5 is what `training_corpus.py` packs. Processor time, so that a busy machine changes little; the peak is that of a
matrix product of the same thread just before. To compare two versions, put each on PYTHONPATH in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _operations import operations
from _report import DOCS, machine, write

NAME = "engine"
BATCH, GENES, STEPS = 64, 256, 3
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("_scaled_dot_product",),
    "GELU": ("gelu",),
    "layer norm": ("native_layer_norm",),
    "dropout": ("__rshift__", "bitwise_", "__and__", "__xor__", "ge", "where"),
    "genes": ("embedding", "index_select", "index_add", "index_put"),
}
"""Operations of each kind, by how their names begin."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An encoder and what it is trained on."""

    depth: int
    dim: int
    dropout: float = 0.0
    objectives: tuple[str, ...] = ("contrastive",)

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        parts = [f"{self.depth} block{'s' if self.depth > 1 else ''} of {self.dim}"]
        parts += [f"dropout {self.dropout:g}"] if self.dropout else []
        parts += ["masked genes"] if "masked_gene" in self.objectives else []
        return ", ".join(parts)


CASES = (
    Case(1, 128),
    Case(1, 128, dropout=0.1),
    Case(1, 128, objectives=("contrastive", "masked_gene")),
    Case(1, 256),
    Case(4, 128),
)


def peak() -> float:
    """Operations a second of a large product, this thread."""
    a, b = torch.randn(1024, 512), torch.randn(512, 512)
    a @ b
    times = []
    for _ in range(15):
        began = time.thread_time()
        a @ b
        times.append(time.thread_time() - began)
    return 2 * 1024 * 512 * 512 / statistics.median(times)


def measured(case: Case, corpus: Any) -> dict[str, Any]:
    """Processor seconds of steps and of the loader, and shares of kinds of operations."""
    from scellm.nn import CellLMConfig, Encoder
    from scellm.train import PretrainConfig, World
    from scellm.train._trainer import Trainer

    config = CellLMConfig(
        n_genes=len(corpus.vocabulary),
        dim=case.dim,
        depth=case.depth,
        heads=case.dim // 32,
        dim_head=32,
        attention="softmax",
        expression="continuous",
        amount="sqrt",
        cell_embedding="bag",
        dropout=case.dropout,
    )
    fields = {"objectives": list(case.objectives), "batch_size": BATCH, "datasets_per_batch": 1}
    fields |= {"views": {"max_genes": GENES}, "memory_budget": "4GiB", "precision": "fp32"}
    recipe = PretrainConfig.from_dict(fields)
    run = Trainer(Encoder(config), corpus, recipe, torch.device("cpu"), World.current())
    rates, loader, lengths = [], [], []
    for step in range(STEPS + 1):
        began = time.process_time()
        prepared = run.batches.prepare(step)
        loader.append(time.process_time() - began)
        began = time.thread_time()
        run._take(prepared, 1e-4, None)
        run.n_done += 1
        rates.append(time.thread_time() - began)
        lengths.append(prepared.batch.lengths.mean())
    seconds = statistics.median(rates[1:])
    done = 3 * 2 * BATCH * operations(config, round(statistics.mean(lengths[1:])))
    ceiling = peak()
    return {
        "case": case.name,
        "cells/s": BATCH / seconds,
        "of the peak": done / seconds / ceiling,
        "peak (G operations/s)": ceiling / 1e9,
        "genes of a view": statistics.mean(lengths[1:]),
        "loader": statistics.median(loader[1:]) / seconds,
        **_shares(run),
    }


def _shares(run: Any) -> dict[str, float]:
    """Shares of one step by kind of operation."""
    prepared = run.batches.prepare(STEPS + 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run._take(prepared, 1e-4, None)
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = dict.fromkeys(KINDS, 0.0)
    for event in events:
        name = event.key.removeprefix("aten::")
        kind = next((k for k, parts in KINDS.items() if _is_of(name, k, parts)), None)
        if kind is not None:
            shares[kind] += event.self_cpu_time_total / total
    shares["optimizer"] = sum(e.cpu_time_total for e in events if e.key.startswith("Optimizer.step")) / total
    shares["everything else"] = max(0.0, 1 - sum(shares.values()))
    return shares


def _is_of(name: str, kind: str, parts: tuple[str, ...]) -> bool:
    """Whether an operation is of a kind; matrix products go by the whole name, as `mm` begins others."""
    if kind == "matrix products" or name in ("ge", "where"):
        return name in parts
    return any(name.startswith(part) for part in parts if part not in ("ge", "where"))


def page() -> None:
    """Write the page of what was measured."""
    record = json.loads((DOCS / f"{NAME}.json").read_text(encoding="utf-8"))["facts"]
    labels = list(record)
    rates, shares = [], []
    for case in [case.name for case in CASES]:
        found = {label: next(r for r in record[label]["rows"] if r["case"] == case) for label in labels}
        row = {"encoder": case}
        row |= {f"cells/s, {label}": f"{r['cells/s']:.0f}" for label, r in found.items()}
        row |= {f"of the peak, {label}": f"{r['of the peak']:.0%}" for label, r in found.items()}
        if len(found) == 2:
            first, last = found.values()
            row["ratio"] = f"{last['cells/s'] / first['cells/s']:.2f}"
        rates.append(row)
        for label, r in found.items():
            kinds = (*KINDS, "optimizer", "everything else", "loader")
            shares.append({"encoder": case, "version": label} | {k: f"{r[k]:.1%}" for k in kinds})
    text = f"""\
Processor time of one thread; batches of {BATCH} cells of one dataset, views of about {GENES} genes, softmax attention with heads of
32, fp32, graphs kept. Operations are two per multiplication with a weight and of attention, three times the forward pass,
also where a version needs fewer; the peak is that of a matrix product of 1,024 x 512 x 512 by the same thread. Other processes
share the machine's caches, so that rates vary by some percent."""
    text += """

*before* is commit d8188f4. *after*: where dropout is off, the last contraction comes after pooling, once for a cell in place of
once for a gene; hidden states are finished for masked genes only, and only in the pass with gradients; queries, keys and
values are one product; a mean over genes is a batched product (as `einsum` it copied both sides, and cost as much as
the contraction it saved). Tried without gain: chunks of 1,024 to 16,384 tokens in place of 8,192. What is left beside products
and attention is GELU, residuals and copies."""
    tables = {"Cells a second": pd.DataFrame(rates), "Where the time of a step goes": pd.DataFrame(shares)}
    text += "\n\nThe loader works in a thread of its own beside the step; its share is its processor time over that of a step."
    write(NAME, "A training step on a CPU", text, tables, record, record[labels[-1]]["machine"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--label", default="now")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.corpus is not None:
        from scellm.data import Corpus

        torch.set_num_threads(1)
        corpus = Corpus.build(options.corpus, in_memory=True)
        path, rows = DOCS / f"{NAME}.json", []
        record = json.loads(path.read_text(encoding="utf-8"))["facts"] if path.exists() else {}
        for case in CASES:
            rows.append(measured(case, corpus))
            print(json.dumps(rows[-1]), flush=True)
            record[options.label] = {"rows": rows, "machine": machine()}
            path.write_text(json.dumps({"facts": record}, indent=1) + "\n", encoding="utf-8")
    if options.page:
        page()


if __name__ == "__main__":
    main()
