"""From bulk to single cells: lines measured both ways, and few labelled cells."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import _drug_data as source
import anndata as ad
import numpy as np
import pandas as pd
import torch
from _drug_rivals import random_like
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit

import scellm
from scellm.data import GeneVocabulary, describe_values, gene_counts, match_genes
from scellm.data._drugs import shared_targets, structure_kernel
from scellm.models import CellLM
from scellm.models._line_reader import LineReader, fit_reader
from scellm.nn import line_kernel
from scellm.train._drug_response import DrugResponseConfig, ResponseGrid, solve_response, structures

SETS = (
    "corpus/li2017_cell_lines",
    "corpus/scmixology_sc_celseq2",
    "corpus/scmixology_sc_celseq2_5cl_p1",
    "corpus/scmixology_sc_celseq2_5cl_p2",
    "corpus/scmixology_sc_celseq2_5cl_p3",
    "corpus/scmixology_sc_dropseq",
    "corpus/a549_metastasis_cp007",
    "benchmarks/pollen2014",
    "drug/single_cell/pc9_erlotinib_gse149383",
    "drug/single_cell/sciplex3_mini",
)
REPEATS = {0.05: 10, 0.8: 3}
"""Draws for each share of labelled cells."""


def plain(name: str) -> str:
    """`NCI-H1975` and `H1975` are one line."""
    return "".join(c for c in name.split(" (")[0].upper() if c.isalnum()).removeprefix("NCI")


def line_sets(data: Path) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Set, line id, present genes and linear expression (cells, genes) of every line with cells."""
    table = pd.read_parquet(data / "drug" / "cell_lines.parquet")
    ids = {
        plain(str(row["name"])): row["sidm_id"] for _, row in table.iloc[::-1].iterrows() if row["sidm_id"]
    }
    vocabulary = GeneVocabulary.default().subset(source.expression(data).columns)
    for name in SETS:
        cells = ad.read_h5ad(data / f"{name}.h5ad")
        X = cells.X.astype(np.float32)
        if name.endswith("erlotinib_gse149383"):  # the untreated ones are the line
            kept = (cells.obs["drug_response"] == "sensitive").to_numpy()
            cells, X = cells[kept], X[kept]
        match = match_genes(cells.var, vocabulary, min_overlap=0.05)
        present = np.unique(match.ids[match.ids >= 0])
        linear = gene_counts(X, match.ids, len(vocabulary), describe_values(X).linearize).toarray()[
            :, present
        ]
        types = cells.obs["cell_type"].astype(str).to_numpy()
        for cell_type in sorted(set(types)):
            line = ids.get(plain(cell_type))
            if line is not None:
                yield Path(name).name, line, present, linear[types == cell_type]


def transfer(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lines left out of the fit, predicted from single cells and from bulk; per line, and summarised."""
    found = list(line_sets(data))
    out = {line for _, line, _, _ in found}
    log2_tpm = source.expression(data)
    names = GeneVocabulary.default().subset(log2_tpm.columns).symbols
    log2_tpm = log2_tpm[names]
    drugs = source.drugs(data)
    table = source.gdsc2(data)
    drugs = drugs.loc[sorted(table["drug"].unique())]
    train = log2_tpm.index[~log2_tpm.index.isin(out)]
    grid = ResponseGrid.from_table(table[table["line"].isin(train)], train, pd.Index(drugs.index))
    bits, numbers, _, _ = structures(drugs["smiles"].tolist())
    statistics = fit_reader(log2_tpm.loc[train].to_numpy(np.float64))
    reader = LineReader(statistics)
    structure = structure_kernel((bits, numbers), (bits, numbers))
    action = shared_targets(drugs).astype(np.float64)
    fit = solve_response(reader.kernel_similarity, grid, structure, action, DrugResponseConfig())

    def deviation(linear: np.ndarray, present: np.ndarray | None) -> np.ndarray:
        """Predicted ln IC50 less the drug's mean, (B, D)."""
        similarity = torch.from_numpy(LineReader(statistics, present).read(linear)[0])
        return fit.scale * (line_kernel(similarity).double().numpy() @ fit.response)

    measured = pd.read_parquet(data / "drug" / "response_long.parquet")
    measured = measured[(measured["source"] == "GDSC2_oncoPredict") & measured["cell_line_id"].isin(out)]
    truth = measured.pivot_table(index="cell_line_id", columns="drug_id", values="value", observed=True)
    truth = truth.reindex(columns=drugs.index) - fit.mean
    named = source.lines(pd.Index(sorted(out)), data).set_index("line")["name"]
    rows, by_line = [], {"sums of single cells": {}, "single cells, averaged": {}, "bulk": {}}
    for name, line, present, linear in found:
        if line not in truth.index:
            continue
        guesses = {
            "sums of single cells": deviation(linear.sum(0, keepdims=True), present)[0],
            "single cells, averaged": np.nanmean(deviation(linear, present), axis=0),
        }
        if line in log2_tpm.index:
            bulk = (np.exp2(log2_tpm.loc[[line]].to_numpy()) - 1) * 1e6
            guesses["bulk"] = deviation(bulk, None)[0]
        real = truth.loc[line].to_numpy()
        row = {"set": name, "line": named[line], "cells": len(linear), "drugs": int(np.isfinite(real).sum())}
        for what, guess in guesses.items():
            row[what] = correlation(real, guess)
            by_line[what].setdefault(line, []).append(guess)
        rows.append(row)
    lines = sorted(by_line["bulk"])  # only lines that have all
    summary = []
    for what, guesses in by_line.items():
        guess = np.array([np.mean(guesses[line], axis=0) for line in lines])
        real = truth.loc[lines].to_numpy()
        spearman = [
            stats.spearmanr(real[seen, i], guess[seen, i]).statistic
            for i in range(real.shape[1])
            if (seen := np.isfinite(real[:, i])).sum() >= 5
        ]
        summary.append(
            {
                "predicted from": what,
                "lines": len(lines),
                "drugs": len(spearman),
                "Spearman per drug": float(np.nanmean(spearman)),
                "±": float(np.nanstd(spearman) / np.sqrt(len(spearman))),
                "Pearson of deviations": correlation(real.ravel(), guess.ravel()),
                "RMSE": float(np.sqrt(np.nanmean((real - guess) ** 2))),
            }
        )
    real = truth.loc[lines].to_numpy()
    nothing = {"predicted from": "drug mean", "lines": len(lines), "drugs": summary[0]["drugs"]}
    nothing |= {
        "Spearman per drug": 0.0,
        "Pearson of deviations": 0.0,
        "RMSE": float(np.sqrt(np.nanmean(real**2))),
    }
    return pd.DataFrame(rows), pd.DataFrame([nothing, *summary])


def correlation(real: np.ndarray, guess: np.ndarray) -> float:
    """Pearson over what was measured."""
    seen = np.isfinite(real) & np.isfinite(guess)
    return float(np.corrcoef(real[seen], guess[seen])[0, 1])


# -- few labelled cells -------------------------------------------------------------------------------------------


def labelled(data: Path) -> Iterator[tuple[str, str, ad.AnnData, np.ndarray, str]]:
    """Set, drug, cells, which are sensitive, and what else differs between the classes."""
    folder = data / "drug" / "single_cell"
    cells = ad.read_h5ad(folder / "pc9_erlotinib_gse149383.h5ad")
    confound = "class = library: untreated against 11 days of drug"
    yield "PC9", "Erlotinib", cells, (cells.obs["drug_response"] == "sensitive").to_numpy(), confound
    cells = ad.read_h5ad(folder / "sc_scad_A375.h5ad")
    confound = "class = culture: parental against resistant; z-scored"
    yield "A375", "PLX-4720", cells, (cells.obs["response_PLX4720"].astype(int) == 1).to_numpy(), confound
    cells = ad.read_h5ad(folder / "sc_scad_JHU006.h5ad")
    for drug in ("Afatinib", "Sorafenib"):
        what = (
            "the same as for Cetuximab and NVP-TAE684"
            if drug == "Afatinib"
            else "the inverse of the other three"
        )
        confound = f"labels are cell states, {what}; z-scored"
        yield "JHU006", drug, cells, (cells.obs[f"response_{drug}"].astype(int) == 1).to_numpy(), confound


def few_shot(data: Path, model: CellLM) -> pd.DataFrame:
    """Macro-F1 and AUC of heads on genes, on the embedding and on an untrained one, from 5 % and 80 % of the cells."""
    rows = []
    for name, drug, cells, sensitive, confound in labelled(data):
        features = {"genes": _genes(cells)}
        for what, encoder in (("scellm", model), ("random weights", random_like(model, 0))):
            features[what] = _embed(cells, encoder)
        for share in REPEATS:
            splits = StratifiedShuffleSplit(REPEATS[share], train_size=share, random_state=0)
            splits = list(splits.split(sensitive, sensitive))
            row = {"set": name, "drug": drug, "share": share, "labelled": len(splits[0][0])}
            for what, values in features.items():
                found = [_head(values, sensitive, *split, is_genes=what == "genes") for split in splits]
                row[f"{what} F1"], row[f"{what} AUC"] = (float(value) for value in np.mean(found, axis=0))
            rows.append(row | {"confound": confound})
    return pd.DataFrame(rows)


def _genes(cells: ad.AnnData) -> np.ndarray:
    """Log-normalised expression, or z-scores as they are."""
    X = np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, dtype=np.float64)
    if X.min() < 0:
        return X
    return np.log1p(X / X.sum(1, keepdims=True) * 1e4)


def _embed(cells: ad.AnnData, model: CellLM) -> np.ndarray:
    """Embedding; of z-scores, which `tl.embed` refuses, the positive part taken for log1p values."""
    X = cells.X
    if (X.min() if hasattr(X, "min") else np.min(X)) < 0:
        dense = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
        X = np.expm1(np.clip(dense, 0, 6)).astype(np.float32)
    copy = ad.AnnData(X.astype(np.float32), var=cells.var)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.embed(copy, model, min_overlap=0.01, show_progress=False)
    return copy.obsm["X_scellm"]


def _head(
    values: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, *, is_genes: bool
) -> tuple[float, float]:
    """Balanced logistic regression; genes as they are with C = 100, the best of three for them, embeddings scaled, C = 1."""
    if not is_genes:
        values = (values - values[train].mean(0)) / (values[train].std(0) + 1e-6)
    head = LogisticRegression(C=100.0 if is_genes else 1.0, class_weight="balanced", max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged to the last digit
        head.fit(values[train], labels[train])
    score = head.decision_function(values[test])
    return f1_score(labels[test], score > 0, average="macro"), roc_auc_score(labels[test], score)


def zero_shot(data: Path) -> dict[str, float]:
    """AUC of the shipped drug model's own prediction on PC9, without any label."""
    cells = ad.read_h5ad(data / "drug" / "single_cell" / "pc9_erlotinib_gse149383.h5ad")
    cells.X = cells.X.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.drug_response(cells, drugs=["Erlotinib", "Gefitinib", "Afatinib"], show_progress=False)
    sensitive = (
        (cells.obs["drug_response"] == "sensitive").to_numpy() if "drug_response" in cells.obs else None
    )
    found = {}
    for i, name in enumerate(cells.uns["drug_response"]["drugs"]):
        guess = cells.obsm["drug_response"][:, i]
        known = np.isfinite(guess)
        found[str(name)] = float(roc_auc_score(sensitive[known], -guess[known]))
    return found
