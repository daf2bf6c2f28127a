"""Whether a change of the code changed results: embeddings, labels, drug predictions and golden encodings.

Save the results with the code before, and compare with the code after::

    python tests/benchmarks/unchanged.py DATA --save before.npz
    python tests/benchmarks/unchanged.py DATA --compare before.npz

DATA is the folder that holds `data/benchmarks/*.h5ad` and `reference/celllm_small`. Only public functions are called, by
keyword, so that one script serves both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp

import scellm

N_CELLS = 300
"""Cells of each data set at most."""
DRUGS = (
    "Erlotinib Gefitinib Lapatinib Afatinib Dabrafenib Trametinib Selumetinib Cisplatin Docetaxel Paclitaxel "
    "Vinblastine Gemcitabine Epirubicin Olaparib Nutlin-3a(-) Palbociclib Dasatinib Venetoclax Bortezomib Vorinostat"
).split()
TOLERANCE = {"embedding": 1e-6, "golden": 1e-6, "confidence": 1e-5, "own confidence": 1e-5, "drugs": 1e-4}
"""Largest difference that rounding may make; labels must be equal."""


def subsample(path: Path) -> ad.AnnData:
    """Some cells of a data set, always the same ones."""
    adata = ad.read_h5ad(path)
    rows = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:N_CELLS])
    return ad.AnnData(
        sp.csr_matrix(adata.X[rows], dtype=np.float32),
        obs=adata.obs.iloc[rows][[]].copy(),
        var=adata.var.copy(),
    )


def results_of(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """What the three tools say of these cells."""
    found = {}
    cells = adata.copy()
    scellm.tl.embed(cells, model="scellm-small", key_added="X_scellm", show_progress=False)
    found["embedding"] = np.asarray(cells.obsm["X_scellm"])
    cells = adata.copy()
    scellm.tl.annotate(cells, model="scellm-small", key_added="type")
    found["labels"] = cells.obs["type"].astype(str).to_numpy().astype(str)
    found["confidence"] = cells.obs["type_confidence"].to_numpy(np.float64)
    reference, others = cells[: len(adata) // 2].copy(), adata[len(adata) // 2 :].copy()
    scellm.tl.annotate(others, model="scellm-small", reference=reference, labels="type", key_added="own")
    found["own labels"] = others.obs["own"].astype(str).to_numpy().astype(str)
    found["own confidence"] = others.obs["own_confidence"].to_numpy(np.float64)
    cells = adata.copy()
    scellm.tl.drug_response(cells, drugs=DRUGS, key_added="drug_response", show_progress=False)
    found["drugs"] = np.asarray(cells.obsm["drug_response"])
    return found


def golden_encodings(folder: Path) -> dict[str, np.ndarray]:
    """Cells of the published code's checkpoint through `tl.embed`."""
    expression = np.load(folder / "cells.npz")["expression"]
    symbols = [f"G{i}" for i in range(expression.shape[1])]
    context = json.loads((folder / "config.json").read_text())["max_seq_len"]
    with tempfile.TemporaryDirectory() as target:
        out = Path(target) / "celllm"
        scellm.models.convert_openbiomed(folder / "checkpoint.pth", symbols, out, context=context)
        model = scellm.models.load(out)
    adata = ad.AnnData(sp.csr_matrix(np.rint(np.expm1(expression)), dtype=np.float32))
    adata.var_names = symbols
    scellm.tl.embed(adata, model=model, show_progress=False)
    return {"golden": np.asarray(adata.obsm["X_scellm"])}


def all_results(data: Path) -> dict[str, np.ndarray]:
    """Every result by `data set/what`."""
    found = {f"reference/{name}": x for name, x in golden_encodings(data / "reference/celllm_small").items()}
    for path in sorted((data / "data/benchmarks").glob("*.h5ad")):
        found |= {f"{path.stem}/{name}": x for name, x in results_of(subsample(path)).items()}
        print(path.stem, file=sys.stderr)
    return found


def compare(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> int:
    """Print a line for each result; 0 if none has changed."""
    n_changed = 0
    for name, old in before.items():
        what = name.rpartition("/")[2]
        new = after.get(name)
        if new is None or new.shape != old.shape:
            verdict, is_same = "missing or of another shape", False
        elif old.dtype.kind in "US":
            n_differ = int((old != new).sum())
            verdict, is_same = f"{n_differ} of {len(old)} differ", n_differ == 0
        elif not np.array_equal(np.isnan(old), np.isnan(new)):
            verdict, is_same = "other cells are NaN", False
        else:
            largest = float(np.nanmax(np.abs(old - new), initial=0))
            verdict, is_same = f"largest difference {largest:.1e}", largest <= TOLERANCE[what]
        print(f"{'same   ' if is_same else 'CHANGED'} {name}: {verdict}")
        n_changed += not is_same
    print(f"{n_changed} of {len(before)} results have changed.")
    return int(n_changed > 0)


def main() -> int:
    """Save or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--save", type=Path, metavar="FILE.npz")
    action.add_argument("--compare", type=Path, metavar="FILE.npz")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"scellm from {Path(scellm.__file__).parent}", file=sys.stderr)
    found = all_results(options.data)
    if options.save is not None:
        np.savez_compressed(options.save, **found)
        return 0
    with np.load(options.compare) as stored:
        return compare(dict(stored), found)


if __name__ == "__main__":
    sys.exit(main())
