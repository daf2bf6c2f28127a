"""Simulated gains and losses of known size, and time and memory, for the benchmark of `tl.malignancy`."""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _malignancy_cells import Dataset
from sklearn.metrics import roc_auc_score

import scellm
from scellm.data import ReadOptions
from scellm.tl._malignancy_samples import Cells, _copies, analyze, read_counts
from scellm.tl._malignancy_types import read_with_types
from scellm.tumors import Combination, load_genome, load_panel

SEEDS = (0, 1)
N_ARMS = (1, 2, 4, 8)
TRIALS = (
    ("baron_h1_pancreas", "beta", 500),
    ("baron_h1_pancreas", "beta", 1000),
    ("baron_h1_pancreas", "beta", 1900),
    ("ipsc_cardio_scdatasets", "iPSC-derived D0", 4500),
)
"""Dataset, the type half of which becomes a tumor, and the genes of a cell after thinning."""
MOST = 600
ARMS = [f"{number}{arm}" for number in (*range(1, 13), 17, 19) for arm in "pq"] + [
    "8q",
    "13q",
    "14q",
    "15q",
    "20q",
    "22q",
]
N_SPEED, N_GENES = 10_000, 15_000


def thinned(counts: sp.csr_matrix, n_genes: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Counts drawn without replacement so that the median cell expresses about `n_genes`."""
    low, high = 0.01, 1.0
    for _ in range(8):
        share = (low + high) / 2
        trial = counts[:200].copy()
        trial.data = rng.binomial(trial.data.astype(int), share)
        trial.eliminate_zeros()
        low, high = (share, high) if np.median(np.diff(trial.indptr)) < n_genes else (low, share)
    result = counts.copy()
    result.data = rng.binomial(result.data.astype(int), high).astype(np.float32)
    result.eliminate_zeros()
    return result


def altered(
    counts: sp.csr_matrix, rows: np.ndarray, arm_of_column: np.ndarray, n_arms: int, rng: np.random.Generator
) -> sp.csr_matrix:
    """One copy more of half of the arms and one less of the others, in some cells: 1.5 and 0.5 times the counts."""
    arms = rng.choice(sorted(set(ARMS) & set(arm_of_column)), n_arms, replace=False)
    signs = rng.permutation(np.arange(n_arms) % 2 == 0)
    result = counts.tolil(copy=True).tocsr()
    is_row = np.zeros(counts.shape[0], dtype=bool)
    is_row[rows] = True
    row_of = np.repeat(np.arange(counts.shape[0]), np.diff(result.indptr))
    for arm, is_gain in zip(arms, signs, strict=True):
        here = is_row[row_of] & (arm_of_column[result.indices] == arm)
        old = result.data[here].astype(int)
        result.data[here] = old + rng.poisson(0.5 * old) if is_gain else rng.binomial(old, 0.5)
    result.eliminate_zeros()
    return result


def simulate(measured: list[Dataset], model: scellm.models.CellLM) -> pd.DataFrame:
    """How often a tumor of a normal type is found, by the arms it has gained or lost and the depth of the cells."""
    genome = load_genome(model.vocabulary.ensembl_ids, model.vocabulary.symbols)
    arm_of = dict(zip(model.vocabulary.symbols[genome.ids].tolist(), genome.arm.tolist(), strict=True))
    panel = load_panel(genome, model.vocabulary.symbols)
    rows = []
    for name, kind, n_genes in TRIALS:
        dataset = next(found for found in measured if found.name == name)
        of_kind = np.flatnonzero(dataset.kinds == kind)
        others = np.flatnonzero(dataset.kinds != kind)
        for n_arms in N_ARMS:
            found = []
            for seed in SEEDS:
                rng = np.random.default_rng(seed)
                some = [
                    rng.choice(part, min(MOST // 2, len(part)), replace=False) for part in (of_kind, others)
                ]
                cells = dataset.adata[np.concatenate(some)].copy()
                tumor = np.arange(len(some[0]) // 2)
                cells.X = thinned(sp.csr_matrix(cells.X), n_genes, rng)
                arms = np.array([arm_of.get(symbol, "") for symbol in cells.var_names])
                cells.X = altered(sp.csr_matrix(cells.X), tumor, arms, n_arms, rng)
                found.append(_trial(cells, tumor, model, panel))
            table = pd.DataFrame(found)
            rows.append(
                {
                    "cells": f"{name}, {kind}",
                    "genes a cell": n_genes,
                    "arms altered": n_arms,
                    "found in": f"{int(table['found'].sum())} of {len(SEEDS)}",
                    "AUC": table["auc"].mean(),
                    "altered cells with log odds > 0, %": 100 * table["hit"].mean(),
                    "others, %": 100 * table["wrong"].mean(),
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def _trial(cells: ad.AnnData, tumor: np.ndarray, model: scellm.models.CellLM, panel) -> dict[str, float]:
    """One simulated sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw, _, types = read_with_types(cells, model, {"show_progress": False})
        counts, genome = read_counts(cells, model, ReadOptions())
    n = cells.n_obs
    empty = np.zeros(n, dtype=object)
    inside = Cells(counts, genome, raw, np.zeros(n), types.lineages, types.is_normal, empty)
    copies = _copies(inside, np.arange(n), panel, 0)
    is_tumor = np.zeros(n, dtype=bool)
    is_tumor[tumor] = True
    hits = copies.log_odds > 0
    return {
        "found": hits[is_tumor].mean() > 0.5,
        "auc": roc_auc_score(is_tumor, copies.log_odds),
        "hit": hits[is_tumor].mean(),
        "wrong": hits[~is_tumor].mean(),
    }


def large_sample(data: ad.AnnData) -> ad.AnnData:
    """10,000 cells x 15,000 genes, drawn from a breast tumor."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, data.n_obs, N_SPEED)
    columns = np.sort(np.argsort(-np.asarray(data.X.sum(axis=0)).ravel())[:N_GENES])
    X = sp.csr_matrix(data.X)[rows][:, columns]
    X.data = rng.binomial(X.data.astype(int), 0.7).astype(np.float32)
    X.eliminate_zeros()
    return ad.AnnData(
        X, obs=pd.DataFrame(index=[f"c{i}" for i in range(N_SPEED)]), var=data.var.iloc[columns][[]]
    )


def _timed(cells: ad.AnnData, model, queue) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, used = time.perf_counter(), time.process_time()
    vectors, _, types = read_with_types(cells, model, {})  # the embedding is there
    counts, genome = read_counts(cells, model, ReadOptions())
    n = cells.n_obs
    empty = np.full(n, "", dtype=object)
    inside = Cells(counts, genome, vectors, np.zeros(n), types.lineages, types.is_normal, empty)
    analyze(inside, model.vocabulary.symbols, Combination(), empty, 0, show=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    used = time.process_time() - used
    queue.put({"seconds": time.perf_counter() - start, "cpu_seconds": used, "peak_gb": peak / 1e6})


def speed(path: Path, model: scellm.models.CellLM, python: str | None) -> dict[str, float]:
    """Time and memory beyond the embedding, of `tl.malignancy` and of infercnvpy, on one thread."""
    small = ad.read_h5ad(path)
    small.X = sp.csr_matrix(small.X).astype(np.float32)
    cells = large_sample(small)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.embed(cells, model, show_progress=False)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_timed, args=(cells, model, queue))
    process.start()
    result = {f"scellm, {name}": value for name, value in queue.get().items()}
    process.join()
    if python:
        genome = load_genome(model.vocabulary.ensembl_ids, model.vocabulary.symbols)
        place = {model.vocabulary.symbols[i]: k for k, i in enumerate(genome.ids)}
        known = np.array([name in place for name in cells.var_names])
        at = [place[name] for name in cells.var_names[known]]
        totals = np.asarray(cells.X.sum(axis=1)).ravel()
        logged = sp.csr_matrix(cells.X[:, known].multiply(1e4 / totals[:, None]))
        logged.data = np.log1p(logged.data)
        var = pd.DataFrame(
            {
                "chromosome": [f"chr{genome.chromosome[k]}" for k in at],
                "start": genome.start[at],
                "end": genome.start[at] + 1,
            },
            index=cells.var_names[known],
        )
        is_normal = read_with_types(cells, model, {})[2].is_normal
        obs = pd.DataFrame({"reference": np.where(is_normal, "normal", "other")}, index=cells.obs_names)
        with tempfile.TemporaryDirectory() as folder:
            ad.AnnData(logged, obs=obs, var=var).write_h5ad(f"{folder}/cells.h5ad")
            script = Path(__file__).with_name("_infercnvpy_scores.py")
            done = subprocess.run(
                [python, str(script), f"{folder}/cells.h5ad", f"{folder}/scores.npz"],
                capture_output=True,
                check=False,
            )
            if not done.returncode:
                with np.load(f"{folder}/scores.npz") as scores:
                    result |= {
                        f"infercnvpy, {name}": float(scores[name])
                        for name in ("seconds", "seconds_all", "peak_gb")
                    }
    return result
