"""`gpu.py pack`: the corpus, small enough to travel, the package and these scripts in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from _gpu_pieces import sha256

import scellm
from scellm.data import Corpus, pack
from scellm.data.corpus._labels import TableLabels
from scellm.data.corpus._sources import MemorySource

CORPUS, ABOUT = "corpus.scellm.h5", "pack.json"
SCRIPTS = ("gpu.py", "_gpu_pieces.py", "_gpu_run.py", "_gpu_measure.py", "_operations.py")
BYTES_PER_VALUE = 1.3
"""Of a packed and compressed value, about; where it is wrong the cap is lowered and the file written again."""
CELLS_AT_ONCE = 512


def thinned(counts: sp.csr_array, max_counts: float, rng: np.random.Generator) -> sp.csr_array:
    """Cells of at most about so many counts: binomial for whole numbers, Poisson for others, as views are drawn."""
    totals = counts.sum(1, dtype=np.float64)
    share = np.repeat(np.minimum(1, max_counts / np.maximum(totals, 1)), np.diff(counts.indptr))
    if np.array_equal(counts.data, np.rint(counts.data)):
        data = rng.binomial(counts.data.astype(np.int64), share)
    else:
        data = rng.poisson(counts.data * share)
    result = sp.csr_array((data.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)
    result = result.copy()
    result.eliminate_zeros()
    return result


def smaller(corpus: Corpus, max_cells: int, max_counts: float) -> Corpus:
    """At most so many cells of each dataset, of at most about so many counts; the same ones every time."""
    labels = {key: corpus.labels(key) for key in corpus.label_keys}
    datasets = {}
    for d, name in enumerate(corpus.names):
        rng = np.random.default_rng([0, d])
        rows = np.sort(rng.permutation(int(corpus.sizes[d]))[:max_cells])
        counts = sp.vstack(
            [
                thinned(corpus.counts(d, rows[i : i + CELLS_AT_ONCE]), max_counts, rng)
                for i in range(0, len(rows), CELLS_AT_ONCE)
            ],
            format="csr",
        )
        obs = pd.DataFrame({key: columns[d][rows] for key, columns in labels.items()})
        about = corpus.about[name] | {"cells": len(rows)}
        datasets[name] = MemorySource(sp.csr_array(counts), TableLabels(obs), about)
    return Corpus(datasets, corpus.vocabulary)


def compressed(packed: Path, out: Path) -> None:
    """The same packed file, slower to read and smaller: gzip in place of lzf."""
    import h5py

    with h5py.File(packed) as source, h5py.File(out, "w") as target:
        target.attrs.update(source.attrs)

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                new = target.require_group(name)
            elif item.shape[0] == 0:
                new = target.create_dataset(name, data=item[:])
            else:
                options = {"compression": "gzip", "compression_opts": 6, "shuffle": True, "fletcher32": True}
                chunk = min(item.shape[0], 1 << 17)
                new = target.create_dataset(name, data=item[:], chunks=(chunk,), **options)
            new.attrs.update(item.attrs)

        source.visititems(copy)


def cap(corpus: Corpus, max_counts: float, n_bytes: float) -> int:
    """Cells of each dataset that fit into so many bytes, by a sample of each."""
    per_cell = np.empty(len(corpus))
    for d in range(len(corpus)):
        rng = np.random.default_rng([1, d])
        rows = np.sort(rng.permutation(int(corpus.sizes[d]))[:20])
        per_cell[d] = BYTES_PER_VALUE * thinned(corpus.counts(d, rows), max_counts, rng).nnz / len(rows)
    low, high = 1, int(corpus.sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        fits = (np.minimum(corpus.sizes, middle) * per_cell).sum() <= n_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def pack_folder(
    corpus_path: Path, out: Path, *, most_mb: float, max_counts: float, wheels: Sequence[Path]
) -> dict[str, Any]:
    """Make the folder; what it holds is in its `pack.json`.

    Raises
    ------
    FileExistsError
        The folder is there.
    ValueError
        Not even one cell of each dataset fits.
    """
    if out.exists():
        msg = f"{out} is there already; choose another folder, or remove it."
        raise FileExistsError(msg)
    out.mkdir(parents=True)
    _copy_code(out, wheels)
    code = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    room = most_mb * 1e6 - code - 100_000
    corpus = Corpus.build(corpus_path, in_memory=False)
    max_cells = cap(corpus, max_counts, room)
    while True:
        small = smaller(corpus, max_cells, max_counts)
        pack(small, out / "lzf.h5", overwrite=True, show_progress=False)
        compressed(out / "lzf.h5", out / CORPUS)
        (out / "lzf.h5").unlink()
        size = (out / CORPUS).stat().st_size
        if size <= room:
            break
        if max_cells == 1:
            msg = f"One cell of each dataset takes {size / 1e6:.1f} MB, and there is room for {room / 1e6:.1f} MB; pass a larger --mb."
            raise ValueError(msg)
        max_cells = max(1, int(0.97 * max_cells * room / size))
    found = {
        "scellm": scellm.__version__,
        "corpus": str(corpus_path.name),
        "cells": small.n_cells,
        "cells_of_the_corpus": corpus.n_cells,
        "datasets": len(small),
        "max_cells": max_cells,
        "max_counts": max_counts,
        "fingerprint": Corpus.build(out / CORPUS, in_memory=False).fingerprint,
        "files": {
            path.relative_to(out).as_posix(): sha256(path.read_bytes())
            for path in sorted(out.rglob("*"))
            if path.is_file()
        },
        "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
    }
    (out / ABOUT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _copy_code(out: Path, wheels: Sequence[Path]) -> None:
    """The package without weights the genome of tumors and the exemplars, these scripts, and wheels."""
    package = Path(scellm.__file__).parent
    shutil.copytree(
        package,
        out / "scellm",
        ignore=shutil.ignore_patterns("weights", "tables", "scellm-corpus", "__pycache__", "*.pyc"),
    )
    for name in SCRIPTS:
        shutil.copy(Path(__file__).parent / name, out / name)
    for wheel in wheels:
        (out / "wheels").mkdir(exist_ok=True)
        shutil.copy(wheel, out / "wheels" / wheel.name)
