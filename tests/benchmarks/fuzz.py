"""Random AnnData into every public tool: the input stays as it is, and every error is one of scellm's own.

    python tests/benchmarks/fuzz.py --calls 100 --seed 0

Prints a table of how the calls ended, and exits with 1 if one changed its input or ended in an error from elsewhere.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import scellm
from scellm.data import GeneVocabulary, describe_values

ALLOWED = (KeyError, TypeError, ValueError, FileNotFoundError)
PACKAGE = str(Path(scellm.__file__).parent)


def random_names(rng: np.random.Generator, n: int) -> list[str]:
    """Names of genes of one of many kinds, and their mishaps."""
    vocabulary = GeneVocabulary.default()
    kind = rng.choice(
        ["symbol", "ensembl", "lower", "prefix", "barnyard", "dates", "suffix", "nonsense", "twice"]
    )
    names = rng.permutation(vocabulary.symbols)[:n].astype(object)
    if kind == "ensembl":
        names = rng.permutation(vocabulary.ensembl_ids)[:n].astype(object)
    elif kind == "lower":
        names = np.array([name.lower() for name in names], dtype=object)
    elif kind == "prefix":
        names = "GRCh38_" + names
    elif kind == "barnyard":
        names = np.array(
            [("hg19_" if rng.random() < 0.5 else "mm10_") + name for name in names], dtype=object
        )
    elif kind == "dates":
        names[: n // 9] = "1-Mar"
    elif kind == "suffix":
        names = names + "-rna"
    elif kind == "nonsense":
        names = np.array([f"\u00e4 {i}\n" for i in range(n)], dtype=object)
    elif kind == "twice":
        names[n // 2 :] = names[: n - n // 2]
    return [str(name) for name in names]


def random_values(rng: np.random.Generator, n: int, genes: int) -> Any:
    """A matrix of random scale, faults, type and format."""
    profile = rng.lognormal(0, 1.5, genes)
    X = rng.poisson(rng.lognormal(7, 1, (n, 1)) * profile / profile.sum()).astype(np.float64)
    scale = rng.choice(["counts", "log", "normal", "scaled", "mixed", "offset", "binary", "zero"])
    total = np.maximum(X.sum(1, keepdims=True), 1)
    if scale in ("log", "normal", "mixed"):
        linear = X / total * 1e4
        X = {
            "log": np.log1p(linear),
            "normal": linear,
            "mixed": np.vstack([X[: n // 2], np.log1p(linear[n // 2 :])]),
        }[scale]
    elif scale == "scaled":
        X = X - X.mean()
    elif scale == "offset":
        X = X + 1
    elif scale == "binary":
        X = (X > 0).astype(np.float64)
    elif scale == "zero":
        X[:] = 0
    fault = rng.choice(["none", "none", "none", "nan", "inf", "tiny", "negative", "empty rows"])
    if n and genes:
        spot = (rng.integers(n), rng.integers(genes))
        X[spot] = {"nan": np.nan, "inf": np.inf, "tiny": -1e-9, "negative": -1.0}.get(str(fault), X[spot])
    if fault == "empty rows":
        X[: n // 3] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = X.astype(rng.choice(["float64", "float32", "float32", "int64", "int32", "uint8"]))
    return random_format(rng, X)


def random_format(rng: np.random.Generator, X: np.ndarray) -> Any:
    """Dense in C or Fortran order, sparse of two kinds and two classes, or dask."""
    kind = rng.choice(["dense", "fortran", "csr", "csc", "csr_array", "dask"])
    if kind == "dask":
        import dask.array

        return dask.array.from_array(X, chunks=(max(1, len(X) // 3), X.shape[1]))
    make = {
        "fortran": np.asfortranarray,
        "csr": sp.csr_matrix,
        "csc": sp.csc_matrix,
        "csr_array": sp.csr_array,
    }
    return make.get(str(kind), np.ascontiguousarray)(X)


def random_cells(rng: np.random.Generator) -> ad.AnnData:
    """An AnnData of random size, with odd names, layers, raw and columns."""
    n, genes = int(rng.choice([0, 1, 2, 7, 30])), int(rng.choice([0, 1, 50, 2500, 6000]))
    var = pd.DataFrame(index=random_names(rng, genes))
    if rng.random() < 0.3:
        var["feature_types"] = rng.choice(["Gene Expression", "Antibody Capture", "odd"], genes)
    if rng.random() < 0.3:
        var, var["gene_ids"] = var.set_index(pd.Index([f"x{i}" for i in range(genes)])), var.index.to_numpy()
    groups = rng.choice(["a", "b", "nan", ""], n).astype(object)
    groups[rng.random(n) < 0.2] = None
    obs = pd.DataFrame(
        {"group": groups, "number": rng.normal(size=n)}, index=[f"c{i // 2}" for i in range(n)]
    )
    adata = ad.AnnData(random_values(rng, n, genes), obs=obs, var=var)
    if rng.random() < 0.3:
        adata.layers["counts"] = random_values(rng, n, genes)
    if rng.random() < 0.2:
        adata.raw = adata
    return adata[: max(0, n - 1)] if rng.random() < 0.1 else adata


def calls() -> dict[str, Callable[[ad.AnnData, np.random.Generator], Any]]:
    """Public tools with random options."""

    def options(rng: np.random.Generator) -> dict[str, Any]:
        found = [{}, {}, {"layer": "counts"}, {"use_raw": True}, {"gene_key": "gene_ids"}, {"min_overlap": 0}]
        return dict(found[rng.integers(len(found))])

    def check(adata: ad.AnnData, rng: np.random.Generator) -> Any:
        found = options(rng)
        found.pop("min_overlap", None)
        return scellm.pp.check_input(adata, **found)

    def harmonize(adata: ad.AnnData, rng: np.random.Generator) -> Any:
        found = options(rng)
        found.pop("min_overlap", None)
        return scellm.pp.harmonize_genes(adata, **found)

    return {
        "pp.check_input": check,
        "pp.harmonize_genes": harmonize,
        "data.describe_values": lambda adata, _: describe_values(adata.X, obs=adata.obs),
        "tl.embed": lambda adata, rng: scellm.tl.embed(adata, **options(rng)),
        "tl.malignancy": lambda adata, rng: scellm.tl.malignancy(adata, **options(rng)),
        "tl.annotate": lambda adata, rng: scellm.tl.annotate(adata, **options(rng)),
        "tl.drug_response": lambda adata, rng: scellm.tl.drug_response(adata, **options(rng)),
        "tl.drug_response(groupby)": lambda adata, _: scellm.tl.drug_response(adata, groupby="group"),
    }


def fingerprint(adata: ad.AnnData) -> list[Any]:
    """All that a tool must leave alone: matrices, names, and the columns that were there."""

    def matrix(X: Any) -> bytes:
        X = X.compute() if hasattr(X, "compute") else X
        X = X.toarray() if sp.issparse(X) else np.asarray(X)
        return X.tobytes() + str((X.dtype, X.shape)).encode()

    found = [matrix(X) for X in (adata.X, *(adata.layers[key] for key in adata.layers if key is not None))]
    found += [matrix(adata.raw.X)] if adata.raw is not None else []
    frames = [adata.obs[["group", "number"]], adata.var]
    return found + [frame.to_csv() for frame in frames]


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by a line of the package, with a message, and is of a kind that is promised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, ALLOWED) and bool(str(error)) and last.filename.startswith(PACKAGE)


def main(arguments: list[str] | None = None) -> int:
    """Run the calls and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    table: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    tools, bad = list(calls().items()), 0
    for number in range(chosen.calls):
        rng = np.random.default_rng([chosen.seed, number])
        name, call = tools[number % len(tools)]
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            adata = random_cells(rng)
            before = fingerprint(adata)
            try:
                call(adata, rng)
                ended = "done"
            except Exception as error:  # noqa: BLE001 - any error is the finding
                ended = type(error).__name__ if is_ours(error) else f"FOREIGN {type(error).__name__}"
                if ended.startswith("FOREIGN"):
                    traceback.print_exc()
                    print(f"seed {chosen.seed}, call {number}, {name}: {adata!r}", file=sys.stderr)
            if fingerprint(adata) != before:
                ended = "CHANGED"
                print(f"seed {chosen.seed}, call {number}, {name}: input changed", file=sys.stderr)
        bad += ended.isupper() or ended.startswith("FOREIGN")
        table[name][ended] += 1
    print(pd.DataFrame(table).T.fillna(0).astype(int).to_string())
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
