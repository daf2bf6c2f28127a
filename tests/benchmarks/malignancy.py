"""Train the head of `tl.malignancy`, and measure it and copy number on studies left out.

    python tests/benchmarks/malignancy.py DATA [--model scellm-small] [--infercnvpy PYTHON] [--write]

DATA has the folders `corpus`, `corpus_wide`, `corpus_more`, `profiles`, `benchmarks` and `drug/single_cell`. PYTHON is an
interpreter with infercnvpy. Writes `docs/benchmarks/malignancy.md`, `.json` and `.png`; with `--write` also the part
`malignancy` into the model's folder. About ten minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _malignancy_cells import Dataset, Training, balanced, fit, folds, read_all, training_cells
from _malignancy_page import draw, page
from _malignancy_trials import simulate, speed
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import scellm
from scellm.models._hub import shipped_folder
from scellm.models._parts import Part, write_part
from scellm.tl._malignancy_samples import read_counts
from scellm.tumors import Combination, call, combine
from scellm.tumors._evidence import BOUND_COPY, BOUND_HEAD

STRENGTHS = {"head": (30.0, 100.0, 300.0), "genes": (1.0, 10.0)}
"""Inverse penalties that are tried; the one with the least loss on studies left out is taken."""
N_FOLDS = 10
MOST_HEAD = 0.5
"""The head's weight is bounded: studies of one class teach it laboratories, which calibration on other studies does not show."""
MIXTURES = ("li2017_cell_lines",)
"""Unrelated lines in one set: diploid tumor cells beside the clones of others, which no sample has; not for the weights."""
FEWEST_OF_TYPE = 20
FEWEST_NORMAL = 100


def labelled(dataset: Dataset) -> np.ndarray:
    """(n,) cells with a known class."""
    return dataset.truth >= 0


def platt(logits: np.ndarray, malignant: np.ndarray, study: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that calibrate log odds."""
    model = LogisticRegression(C=1e6).fit(
        logits[:, None], malignant, sample_weight=balanced(malignant, study)
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def pooled(datasets: list[Dataset], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Results, classes and studies of all labeled cells of some datasets."""
    values = [dataset.results[key][labelled(dataset)] for dataset in datasets]
    truth = [dataset.truth[labelled(dataset)] == 1 for dataset in datasets]
    study = [np.full(labelled(dataset).sum(), dataset.study, dtype=object) for dataset in datasets]
    return np.concatenate(values), np.concatenate(truth), np.concatenate(study)


def leave_studies_out(
    measured: list[Dataset], cells: Training, key: str
) -> tuple[float, tuple[float, float]]:
    """Calibrated log odds of each dataset from a head that has seen neither its study nor its cell lines, into `results`."""
    features = {"head": lambda d: d.vectors, "genes": lambda d: d.genes}[key]
    of_training = [dataset for dataset in measured if not dataset.is_benchmark]
    best = (np.inf, 0.0, {})
    for strength in STRENGTHS[key]:
        found = {}
        for fold in folds(measured, N_FOLDS):
            out = {dataset.study for dataset in fold}
            lines = {line for dataset in fold for line in dataset.line} - {""}
            rows = np.flatnonzero(~np.isin(cells.study, list(out)) & ~np.isin(cells.line, list(lines)))
            head = fit(cells, key, rows, strength)
            found |= {dataset.name: head.decision_function(features(dataset)) for dataset in fold}
        for dataset in measured:
            dataset.results[key] = found[dataset.name]
        logits, truth, study = pooled(of_training, key)
        slope, intercept = platt(logits, truth, study)
        signed = np.where(truth, -1, 1) * (slope * logits + intercept)
        loss = float(np.average(np.logaddexp(0, signed), weights=balanced(truth, study)))
        print(f"{key}: penalty 1/{strength:g}, loss {loss:.3f}", flush=True)
        if loss < best[0]:
            best, calibration = (loss, strength, found), (slope, intercept)
    for dataset in measured:
        others = [other for other in of_training if other.study != dataset.study]
        slope, intercept = platt(*pooled_from(others, best[2]))
        dataset.results[key] = slope * best[2][dataset.name] + intercept
    return best[1], calibration


def pooled_from(
    datasets: list[Dataset], found: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `pooled`, of log odds that are not in `results` yet."""
    for dataset in datasets:
        dataset.results["_raw"] = found[dataset.name]
    return pooled(datasets, "_raw")


def combination_rows(datasets: list[Dataset]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of the combination: head, copy, found, absent; of sets whose copy number can be read."""
    features, truth, study = [], [], []
    for dataset in datasets:
        if dataset.copies is None or not dataset.copies.is_usable:
            continue
        rows = labelled(dataset)
        n, has = rows.sum(), float(bool(dataset.copies.clones))
        head = np.clip(dataset.results["head"][rows], -BOUND_HEAD, BOUND_HEAD)
        copy = np.clip(dataset.copies.log_odds[rows], -BOUND_COPY, BOUND_COPY) * has
        features.append(np.column_stack([head, copy, np.full(n, has), np.full(n, 1 - has)]))
        truth.append(dataset.truth[rows] == 1)
        study.append(np.full(n, dataset.study, dtype=object))
    return np.concatenate(features), np.concatenate(truth), np.concatenate(study)


def fit_combination(datasets: list[Dataset]) -> Combination:
    """Weights of the evidence: logistic regression with a weak penalty; slopes not below 0, that of the head at most 0.5."""
    features, truth, study = combination_rows(
        [dataset for dataset in datasets if dataset.name not in MIXTURES]
    )
    weights = balanced(truth, study)
    signs = np.where(truth, -1.0, 1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = signs * (features @ w)
        slope = weights * signs / (1 + np.exp(-margin))
        return float(weights @ np.logaddexp(0, margin) + 0.5 * w @ w), features.T @ slope + w

    bounds = [(0, MOST_HEAD), (0, None), (None, None), (None, None)]
    return Combination(*minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B", bounds=bounds).x.tolist())


def judge(measured: list[Dataset]) -> Combination:
    """Probabilities and calls with weights from other studies; the weights from all of the corpus."""
    of_training = [dataset for dataset in measured if not dataset.is_benchmark]
    for dataset in measured:
        weights = fit_combination([other for other in of_training if other.study != dataset.study])
        dataset.results["both"] = combine(dataset.results["head"], dataset.copies, weights)
        is_read = dataset.copies is not None and dataset.copies.is_usable
        dataset.results["call"] = call(dataset.results["both"], is_alone=not is_read)
        dataset.results["copy number"] = dataset.copies.log_odds if is_read else np.zeros(len(dataset.truth))
    return fit_combination(of_training)


def old_head(measured: list[Dataset]) -> None:
    """Log odds of the head that came with scellm-small until November 24, which was trained on some of these cells."""
    with np.load(Path(__file__).with_name("malignancy_head_before.npz")) as head:
        for dataset in measured:
            dataset.results["shipped before"] = dataset.vectors @ head["weight"] + float(head["bias"][0])


def other_tool(dataset: Dataset, model: scellm.models.CellLM, python: str) -> dict[str, float]:
    """Scores of infercnvpy with its defaults and the same reference cells, into `results`."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts, genome = read_counts(dataset.adata, model, scellm.data.ReadOptions(min_overlap=0.01))
        counts = counts.tocsr()
        totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-9)
        logged = counts.multiply(1e4 / totals[:, None]).tocsr()
        logged.data = np.log1p(logged.data)
        var = pd.DataFrame(
            {
                "chromosome": [f"chr{name}" for name in genome.chromosome],
                "start": genome.start,
                "end": genome.start + 1,
            },
            index=model.vocabulary.symbols[genome.ids].astype(str),
        )
        expressed = np.asarray(logged.sum(axis=0)).ravel() > 0
        reference = dataset.copies.is_reference if dataset.copies is not None else dataset.is_normal
        obs = pd.DataFrame(
            {"reference": np.where(reference, "normal", "other")}, index=dataset.adata.obs_names
        )
        cells = ad.AnnData(logged[:, expressed], obs=obs, var=var[expressed])
        cells.write_h5ad(Path(folder) / "cells.h5ad")
        script = Path(__file__).with_name("_infercnvpy_scores.py")
        command = [python, str(script), f"{folder}/cells.h5ad", f"{folder}/scores.npz"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"infercnvpy on {dataset.name}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            return {}
        with np.load(f"{folder}/scores.npz") as scores:
            dataset.results["infercnvpy, cell"] = scores["by_cell"]
            dataset.results["infercnvpy, cluster"] = scores["by_cluster"]
            return {name: float(scores[name]) for name in ("seconds", "seconds_all", "peak_gb")}


METHODS = (
    "both",
    "copy number",
    "head",
    "shipped before",
    "genes",
    "infercnvpy, cell",
    "infercnvpy, cluster",
)


def areas(measured: list[Dataset]) -> pd.DataFrame:
    """AUC of each method on each set with both classes."""
    rows = []
    for dataset in measured:
        truth = dataset.truth[labelled(dataset)] == 1
        if not 0 < truth.sum() < len(truth):
            continue
        row = {
            "set": dataset.name + " *" * dataset.is_benchmark,
            "malignant": int(truth.sum()),
            "normal": int((~truth).sum()),
        }
        row |= {"genes measured": dataset.n_measured}
        for name in METHODS:
            score = dataset.results.get(name)
            row[name] = np.nan if score is None else roc_auc_score(truth, score[labelled(dataset)])
        rows.append(row)
    return pd.DataFrame(rows)


def false_calls(measured: list[Dataset]) -> pd.DataFrame:
    """Normal cells called malignant, of each set with 100 normal cells or more, and of its worst type."""
    rows = []
    for dataset in measured:
        normal = dataset.truth == 0
        if normal.sum() < FEWEST_NORMAL:
            continue
        wrong = dataset.results["call"] == "malignant"
        before = dataset.results["shipped before"] > 0
        by_type = pd.DataFrame({"type": dataset.kinds[normal], "wrong": wrong[normal]}).groupby("type")[
            "wrong"
        ]
        shares = by_type.mean()[by_type.size() >= FEWEST_OF_TYPE]
        worst = shares.idxmax() if len(shares) else ""
        is_read = dataset.copies is not None and dataset.copies.is_usable
        rows.append(
            {
                "set": dataset.name + " *" * dataset.is_benchmark,
                "normal": int(normal.sum()),
                "copy number": "read" if is_read else "too few genes",
                "called malignant, %": 100 * wrong[normal].mean(),
                "undecided, %": 100 * (dataset.results["call"][normal] == "undecided").mean(),
                "worst type": f"{worst} ({100 * shares.max():.0f} %)" if len(shares) else "",
                "worst, %": 100 * shares.max() if len(shares) else np.nan,
                "shipped before > 0.5, %": 100 * before[normal].mean(),
                "head alone > 0.5, %": 100 * (dataset.results["head"][normal] > 0).mean(),
            }
        )
    return pd.DataFrame(rows)


def true_calls(measured: list[Dataset]) -> pd.DataFrame:
    """Malignant cells called so."""
    rows = []
    for dataset in measured:
        cancer = dataset.truth == 1
        if not cancer.any():
            continue
        calls = dataset.results["call"][cancer]
        copies = dataset.copies
        rows.append(
            {
                "set": dataset.name + " *" * dataset.is_benchmark,
                "malignant": int(cancer.sum()),
                "called malignant, %": 100 * (calls == "malignant").mean(),
                "undecided, %": 100 * (calls == "undecided").mean(),
                "reference": copies.reference if copies is not None and copies.is_usable else "none",
                "clones": len(copies.clones) if copies is not None else 0,
                "head alone > 0.5, %": 100 * (dataset.results["head"][cancer] > 0).mean(),
                "shipped before > 0.5, %": 100 * (dataset.results["shipped before"][cancer] > 0).mean(),
            }
        )
    return pd.DataFrame(rows)


def calibration(measured: list[Dataset]) -> tuple[float, pd.DataFrame]:
    """Expected calibration error of the combined probability, classes and studies weighing the same, and its bins."""
    probability, truth, study = pooled(measured, "both")
    weights = balanced(truth, study)
    bins = np.minimum((probability * 10).astype(int), 9)
    frame = pd.DataFrame({"bin": bins, "w": weights, "p": probability * weights, "y": truth * weights})
    sums = frame.groupby("bin").sum()
    sums = sums.assign(
        said=sums["p"] / sums["w"], found=sums["y"] / sums["w"], share=sums["w"] / sums["w"].sum()
    )
    return float((sums["share"] * (sums["said"] - sums["found"]).abs()).sum()), sums[
        ["share", "said", "found"]
    ]


def write_head(
    cells: Training,
    strength: float,
    scale: tuple[float, float],
    weights: Combination,
    error: float,
    folder: Path,
) -> None:
    """Fit on all cells of the corpus and put the head into the model's folder."""
    head = fit(cells, "head", np.arange(len(cells.study)), strength)
    slope, intercept = scale
    studies = [len(set(cells.study[cells.malignant == value])) for value in (True, False)]
    trained_on = (
        f"{int(cells.malignant.sum())} malignant cells of {studies[0]} studies "
        f"({', '.join(sorted(set(cells.study[cells.malignant])))}) and {int((~cells.malignant).sum())} normal ones of {studies[1]}, "
        "cells drawn around mean profiles included"
    )
    part = Part(
        tensors={
            "weight": (slope * head.coef_[0]).astype(np.float32),
            "bias": np.array([slope * head.intercept_[0] + intercept], dtype=np.float32),
            "combination": np.array(
                [weights.head, weights.copy, weights.found, weights.absent], dtype=np.float32
            ),
        },
        meta={
            "trained_on": trained_on,
            "penalty": f"L2, C = {strength:g}",
            "calibration": "Platt scaling on cells of studies left out; both classes and all studies of a class weigh the same",
            "combination": "weights of head, copy number, a clone found, none found: logistic regression on studies left out",
            "calibration_error": round(error, 4),
            "made_by": "tests/benchmarks/malignancy.py",
        },
    )
    write_part(folder, "malignancy", part)
    print(f"wrote the part 'malignancy' of {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--infercnvpy", help="a Python that has infercnvpy")
    parser.add_argument("--write", action="store_true", help="put the head into the folder of the model")
    options = parser.parse_args()
    start = time.perf_counter()
    model = scellm.models.load(options.model)
    measured, extra = read_all(options.data, model)
    cells = training_cells(measured, extra)
    print(f"{len(cells.study)} cells of {len(set(cells.study))} studies to train on", flush=True)
    strength, scale = leave_studies_out(measured, cells, "head")
    leave_studies_out(measured, cells, "genes")
    old_head(measured)
    weights = judge(measured)
    print(weights, flush=True)
    cost = {}
    if options.infercnvpy:
        for dataset in measured:
            if 0 < (dataset.truth == 1).sum() < labelled(dataset).sum():
                cost[dataset.name] = other_tool(dataset, model, options.infercnvpy)
    error, bins = calibration(measured)
    draw(measured, bins)
    tables = {
        "AUC, sets with both classes": areas(measured),
        "Normal cells called malignant": false_calls(measured),
        "Malignant cells called malignant": true_calls(measured),
        "Simulated arms": simulate(measured, model),
    }
    facts = {
        "model": model.name,
        "weights": vars(weights),
        "penalty": strength,
        "calibration_error": error,
        "bins": bins.to_dict("records"),
        "speed": speed(options.data / "corpus" / "copykat_tnbc.h5ad", model, options.infercnvpy),
        "infercnvpy": cost,
        "seconds": time.perf_counter() - start,
    }
    print(page(tables, facts))
    if options.write:
        folder = Path(options.model) if Path(options.model).is_dir() else shipped_folder() / options.model
        write_head(cells, strength, scale, weights, error, folder)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
