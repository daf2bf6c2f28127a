"""`tl.rank_drugs`: seconds, what its intervals hold, and how much larger a file becomes; many cells in a process of its own.

python tests/benchmarks/_drug_rank.py CELLS.h5ad  # with predictions; prints one line of JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from _drug_speed import Peak

import scellm
from scellm.drugs._rank import Moments, compare_samples

DONORS = (3, 4, 6, 8, 12)
DRAWS = 20_000
MANY = 500_000
"""Cells of an atlas."""


def coverage() -> list[dict[str, Any]]:
    """Share of 90 % intervals that hold the true difference: donors of normal and of skewed spread, in pairs and not."""
    rng, rows = np.random.default_rng(0), []
    for n in DONORS:
        row: dict[str, Any] = {"donors": n}
        for name, draw in (
            ("normal", rng.standard_normal),
            ("skewed", lambda size: rng.gamma(4, 0.5, size) - 2),
        ):
            for kind in ("in pairs", "unpaired"):
                values = draw((2, n, DRAWS))
                sides = [_samples(side, i * (kind == "unpaired")) for i, side in enumerate(values)]
                found = compare_samples(*sides, level=0.9)
                row[f"{name}, {kind}"] = float(((found.low <= 0) & (found.high >= 0)).mean())
        rows.append(row)
    return rows


def _samples(values: np.ndarray, shift: int) -> Moments:
    """Samples of a side as cohorts; with a shift they are others than those of the other side."""
    n, width = values.shape
    counts, sums = np.zeros(2 * n), np.zeros((2 * n, width))
    counts[n * shift : n * (1 + shift)], sums[n * shift : n * (1 + shift)] = 1, values
    return Moments(counts, sums, sums**2, np.zeros(width))


def measure(data: Path) -> dict[str, Any]:
    """Kang's blood cells: processor seconds of both tools on the panel, and megabytes of the file before and after."""
    cells = ad.read_h5ad(data / "corpus" / "kang_ifnb_pbmc.h5ad")
    cells.X = cells.X.astype(np.float32)
    cells.obs["sample"] = np.arange(cells.n_obs) % 8  # the donors are not in the file
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_h5ad(Path(folder) / "before.h5ad")
        start = time.process_time()
        scellm.tl.drug_response(cells, show_progress=False)
        predicted = time.process_time()
        scellm.tl.rank_drugs(cells, "cell_type", sample_key="sample", show_progress=False)
        ranked = time.process_time()
        cells.write_h5ad(Path(folder) / "after.h5ad")
        many = large(cells, Path(folder) / "many.h5ad")
        sizes = [(Path(folder) / f"{name}.h5ad").stat().st_size / 1e6 for name in ("before", "after")]
    return {
        "cells": cells.n_obs,
        "drugs": cells.obsm["drug_response"].shape[1],
        "drug_response, CPU s": predicted - start,
        "rank_drugs, CPU s": ranked - predicted,
        "file before, MB": sizes[0],
        "file after, MB": sizes[1],
        "coverage": coverage(),
        "many": many,
    }


def large(cells: ad.AnnData, path: Path) -> dict[str, float]:
    """Seconds and memory on `MANY` cells of a file that stays on disk: cells with predictions, again and again."""
    rows = np.arange(MANY) % cells.n_obs
    columns = ["cell_type", "sample", "drug_response_uncertainty", "drug_response_applicability"]
    obs = cells.obs[columns].iloc[rows].set_axis(np.arange(MANY).astype(str))
    counts = sp.csr_matrix(cells.X).astype(np.uint16)
    copies = sp.vstack([counts] * (-(-MANY // cells.n_obs)), format="csr")[:MANY]
    obsm = {"drug_response": cells.obsm["drug_response"][rows]}
    uns = {"drug_response": cells.uns["drug_response"]}
    ad.AnnData(copies, obs=obs, var=cells.var, obsm=obsm, uns=uns).write_h5ad(path)
    del copies, obs, obsm
    command = [sys.executable, __file__, str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    path.unlink()
    return found


def main(path: str) -> None:
    """Rank the drugs of a file that is not read into memory."""
    cells = ad.read_h5ad(path, backed="r")
    before, peak = Peak.now(), Peak()
    peak.start()
    wall, start = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.rank_drugs(cells, "cell_type", sample_key="sample", show_progress=False)
    taken, wall = time.process_time() - start, time.perf_counter() - wall
    peak.stopped.set()
    row = {
        "cells": cells.n_obs,
        "CPU s": taken,
        "seconds": wall,
        "memory, MiB": peak.highest,
        "before, MiB": before,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1])
