"""Seconds and memory of `tl.drug_response`, each size in a process of its own.

python tests/benchmarks/_drug_speed.py CELLS.h5ad N_CELLS N_DRUGS  # prints one line of JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

SET = "corpus/pbmc_10k_protein_v3.h5ad"
SIZES = ((2_500, 50), (5_000, 50), (10_000, 50), (20_000, 50), (40_000, 50), (10_000, 170))
"""Cells and drugs."""
ROUNDS = 3


def measure(data: Path) -> list[dict[str, Any]]:
    """One row for each of `SIZES`: seconds (median of `ROUNDS` calls), and megabytes beyond what was loaded before."""
    rows = []
    for cells, drugs in SIZES:
        command = [sys.executable, __file__, str(data / SET), str(cells), str(drugs)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], flush=True)
    return rows


class Peak(threading.Thread):
    """Largest resident memory while it runs, MiB; asked a thousand times a second. Linux."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.stopped = self.now(), threading.Event()

    @staticmethod
    def now() -> float:
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def run(self) -> None:
        while not self.stopped.wait(0.001):
            self.highest = max(self.highest, self.now())


def main(path: str, n_cells: int, n_drugs: int) -> None:
    """Time one size."""
    import anndata as ad
    import numpy as np
    import torch

    import scellm

    real = ad.read_h5ad(path)
    adata = real[np.arange(n_cells) % real.n_obs].copy()  # more than there are: again from the first
    del real
    adata.obs_names_make_unique()
    names = scellm.drugs.load_drug_model().drugs["name"].tolist()[:n_drugs]
    warnings.simplefilter("ignore")
    small = adata[:100].copy()
    scellm.tl.drug_response(small, drugs=names, show_progress=False)  # libraries are loaded
    before, peak, seconds = Peak.now(), Peak(), []
    peak.start()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        scellm.tl.drug_response(adata, drugs=names, show_progress=False)
        seconds.append(time.perf_counter() - start)
    peak.stopped.set()
    output = 2 * adata.obsm["drug_response"].nbytes / 2**20
    row = {
        "cells": n_cells,
        "drugs": n_drugs,
        "seconds": float(np.median(seconds)),
        "output, MiB": output,
        "memory beyond the cells, MiB": peak.highest - before,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
