"""Shape and speed of the package beside an earlier state: python tests/benchmarks/house.py DATA BEFORE.

DATA is the folder with `corpus`; BEFORE a checkout of the earlier commit (`git worktree add BEFORE COMMIT`). Times are of
processor time, one thread, the best of two calls in each of two processes, which run side by side with those of the other
state, so that both have the same machine. Writes
`docs/benchmarks/house.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from _report import write
from shape import measure

HERE = Path(__file__).parents[2]
ROUNDS = 2
TIMED = """
import json, sys, time, warnings
import anndata as ad, numpy as np, torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
import scellm
cells = ad.read_h5ad(sys.argv[1])[:2000].copy()
cells.X = cells.X.astype(np.float32)
model = scellm.models.load("scellm-small")
stored = cells.copy()
scellm.tl.embed(stored, model, show_progress=False)
drugs = ["Erlotinib", "Nilotinib", "Dasatinib", "Lapatinib"]
few = cells[:600].copy()
calls = {
    "embed, 2,000 cells": lambda: scellm.tl.embed(cells.copy(), model, show_progress=False),
    "annotate, 2,000 cells": lambda: scellm.tl.annotate(cells.copy(), model=model),
    "annotate, embedding stored": lambda: scellm.tl.annotate(stored.copy(), model=model),
    "drug_response, 2,000 cells, 4 drugs": lambda: scellm.tl.drug_response(cells.copy(), drugs=drugs, show_progress=False),
    "pretrain, tiny, 4 steps": lambda: scellm.tl.pretrain(few, config="tiny", batch_size=256, max_steps=4, show_progress=False),
}
found = {}
for name, call in calls.items():
    for _ in range(2):
        start = time.process_time()
        call()
        found[name] = min(found.get(name, 1e9), time.process_time() - start)
print(json.dumps(found))
"""


def start(root: Path, cells: Path) -> subprocess.Popen:
    """A process that imports the package of `root` and prints the processor time of each call."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", TIMED, str(cells)],
        cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def main() -> None:
    """Measure both and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("before", type=Path)
    options = parser.parse_args()
    cells = options.data.resolve() / "corpus" / "kang_ifnb_pbmc.h5ad"
    roots = {"before": options.before.resolve(), "now": HERE}
    commits = {
        name: subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, check=True, capture_output=True, text=True
        ).stdout.strip()
        for name, root in roots.items()
    }
    running = [(name, start(root, cells)) for _ in range(ROUNDS) for name, root in roots.items()]
    times: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
    for name, process in running:
        times[name].append(json.loads(process.communicate()[0].splitlines()[-1]))
    best = pd.DataFrame({name: pd.DataFrame(rows).min() for name, rows in times.items()})
    best["now / before"] = best["now"] / best["before"]
    shape = pd.DataFrame({name: measure(root) for name, root in roots.items()})
    tables = {
        "Shape": shape.reset_index(names="what"),
        "Seconds of processor time": best.reset_index(names="call"),
    }
    text = (
        f"The package at {commits['now']} (now) and at {commits['before']} (before). Shape is that of "
        "`tests/test_shape.py`, which lets none of its limits be passed; lines of code are without blank lines, comments and "
        "docstrings. Times are of one thread, the best of two calls in each of two processes, those of both states side by "
        "side. The models of the two states are not the same: the reference has 144 types on a tree instead of flat ones, the "
        "drug model reads ten times as many genes, which is what `drug_response` takes longer for."
    )
    print(write("house", "The package before and after it was rebuilt", text, tables, {"commits": commits}))


if __name__ == "__main__":
    main()
