"""From bulk to single cells: lines measured both ways, and few labelled cells."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import _drug_data as source
import anndata as ad
import numpy as np
import pandas as pd
from _drug_platform import differences, platform, study
from _drug_rivals import random_like
from scipy import sparse as sp
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit

import scellm
from scellm.annotation._few_labels import FewCells, FewLabelsConfig, fit_few_labels
from scellm.data import GeneVocabulary, describe_values, gene_counts, match_genes
from scellm.drugs import DrugResponseConfig, cell_line_kernel, structure_kernel
from scellm.drugs._fit_projection import fit_projector
from scellm.drugs._grid import ResponseGrid
from scellm.drugs._names import shared_targets
from scellm.drugs._profiles import Platform
from scellm.drugs._projection import CellLineProjector
from scellm.drugs._solve import solve_response
from scellm.drugs._structures import structures
from scellm.models import CellLM

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
    "drug/single_cell/breast_lines_gambardella",
)
SOURCES = ("sums of single cells", "single cells, averaged", "sums, read as thinned bulk", "bulk")
"""What lines are predicted from; the third without what other lines say about the platform."""
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
    known = log2_tpm.loc[train].to_numpy(np.float64)
    plainly = fit_projector(known)
    reader = CellLineProjector(plainly)
    structure = structure_kernel((bits, numbers), (bits, numbers))
    action = shared_targets(drugs).astype(np.float64)
    fit = solve_response(reader.kernel_similarity, grid, structure, action, DrugResponseConfig())
    both_ways = differences(found, log2_tpm)

    def deviation(
        linear: np.ndarray, present: np.ndarray | None, statistics: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Predicted ln IC50 less the drug's mean, (B, D)."""
        similarity = CellLineProjector(statistics, present).project(linear)[0]
        return fit.scale * (cell_line_kernel(similarity).astype(np.float64) @ fit.response)

    readers: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def aware(line: str, name: str) -> dict[str, np.ndarray]:
        """A reader that knows the platform from other lines, in other studies."""
        if (line, study(name)) not in readers:
            seen = platform(both_ways, but_line=line, but_study=study(name))
            seen = Platform(seen["factor"].to_numpy(), seen["spread"].to_numpy())
            readers[line, study(name)] = fit_projector(known, platform=seen)
        return readers[line, study(name)]

    measured = pd.read_parquet(data / "drug" / "response_long.parquet")
    measured = measured[(measured["source"] == "GDSC2_oncoPredict") & measured["cell_line_id"].isin(out)]
    truth = measured.pivot_table(index="cell_line_id", columns="drug_id", values="value", observed=True)
    truth = truth.reindex(columns=drugs.index) - fit.mean
    named = source.lines(pd.Index(sorted(out)), data).set_index("line")["name"]
    rows, by_line = [], {name: {} for name in SOURCES}
    for name, line, present, linear in found:
        if line not in truth.index:
            continue
        sums = linear.sum(0, keepdims=True)
        guesses = {
            "sums of single cells": deviation(sums, present, aware(line, name))[0],
            "single cells, averaged": np.nanmean(deviation(linear, present, aware(line, name)), axis=0),
            "sums, read as thinned bulk": deviation(sums, present, plainly)[0],
        }
        if line in log2_tpm.index:
            bulk = (np.exp2(log2_tpm.loc[[line]].to_numpy()) - 1) * 1e6
            guesses["bulk"] = deviation(bulk, None, plainly)[0]
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


def applicability(data: Path) -> pd.DataFrame:
    """Applicability of cell types with 20 cells or more, each added up, and of single cells: above 1 is outside."""
    rows = []
    paths = [*sorted((data / "corpus").glob("*.h5ad")), *sorted((data / "benchmarks").glob("*.h5ad"))]
    singles = data / "drug" / "single_cell"
    for path in [*paths, singles / "pc9_erlotinib_gse149383.h5ad", singles / "breast_lines_gambardella.h5ad"]:
        cells = ad.read_h5ad(path)
        cells.raw = None
        label = cells.obs["malignant"].astype(str)
        for value, kind in (("True", "cancer"), ("False", "normal")):
            here = cells[(label == value).to_numpy()].copy()
            types = here.obs["cell_type"].astype(str)
            here = here[(types.map(types.value_counts()).to_numpy() >= 20) & (types != "NA").to_numpy()].copy()
            if not here.n_obs:
                continue
            here.X = here.X.astype(np.float32)
            found = {}
            for groupby in ("cell_type", None):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    scellm.tl.drug_response(here, drugs="Erlotinib", groupby=groupby, show_progress=False)
                found[groupby] = here.obs["drug_response_applicability"]
            sums = found["cell_type"].groupby(here.obs["cell_type"], observed=True).first()
            rows.append(
                {
                    "set": path.stem,
                    "kind": kind,
                    "cells": here.n_obs,
                    "groups": len(sums),
                    "outside": int((sums > 1).sum()),
                    "lowest": float(sums.min()),
                    "highest": float(sums.max()),
                    "single cells outside": float((found[None] > 1).mean()),
                }
            )
    return pd.DataFrame(rows).sort_values(["kind", "lowest"]).reset_index(drop=True)


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


CHECKS = (
    ("corpus/maits_mast", "MAIT cell Unstim", "MAIT cell Stim", None),
    ("corpus/kang_ifnb_pbmc", "control", "stimulated", "CD4 Naive T"),
    ("corpus/kang_ifnb_pbmc", "control", "stimulated", "B"),
    ("corpus/ipsc_cardio_scdatasets", "iPSC-derived D30", "iPSC-derived D60", None),
    ("corpus/scmixology_sc_dropseq", "H1975", "H2228", None),
    ("benchmarks/pbmc3k", "CD4 T", "CD8 T", None),
    ("benchmarks/pbmc3k", "CD14 Monocytes", "FCGR3A Monocytes", None),
    ("benchmarks/zheng_sorted_pbmc_mudan", "memory T", "helper T", None),
    ("benchmarks/baron_h1_pancreas", "alpha", "delta", None),
)
"""Two neighbouring kinds of cells each, no responses; nothing about few labelled cells was chosen on them."""


def checks(data: Path) -> Iterator[tuple[str, str, ad.AnnData, np.ndarray]]:
    """Set, which are told apart, cells, which are the second kind."""
    for name, first, second, within in CHECKS:
        cells = ad.read_h5ad(data / f"{name}.h5ad")
        kind = cells.obs["cell_type"].astype(str)
        if within is not None:
            cells = cells[kind == within]
            kind = cells.obs["condition"].astype(str)
            first, second = sorted(kind.unique())
        cells = cells[kind.isin([first, second])].copy()
        what = f"{first} or {second}" if within is None else f"{within}, {first} or {second}"
        yield Path(name).name, what, cells, (kind[kind.isin([first, second])] == second).to_numpy()


def few_shot(data: Path, model: CellLM) -> pd.DataFrame:
    """Macro-F1 and AUC on the other cells by method, each the mean over draws of 5 % and 80 % of the cells.

    `±` is the standard error over draws; the last two columns are the difference from logistic regression on genes, draw by
    draw. Draws share cells, so that the errors are a little too small.
    """
    rows = []
    for name, drug, cells, sensitive, _ in labelled(data):
        for share in REPEATS:
            about = {"set": name, "drug": drug, "share": share, "recipe chosen on it": "yes"}
            rows += [about | row for row in _compare(cells, sensitive, model, share, is_check=False)]
    for name, what, cells, second in checks(data):
        about = {"set": name, "drug": what, "share": 0.05, "recipe chosen on it": "no"}
        rows += [about | row for row in _compare(cells, second, model, 0.05, is_check=True)]
    return pd.DataFrame(rows)


def _compare(
    cells: ad.AnnData, sensitive: np.ndarray, model: CellLM, share: float, *, is_check: bool
) -> list[dict[str, object]]:
    """Methods on one set and share; a check has fewer."""
    readable, genes = _readable(cells), _genes(cells)
    encoders = {"embedding": model} | ({} if is_check else {"random weights": random_like(model, 0)})
    embedded = {what: _embed(readable, encoder) for what, encoder in encoders.items()}
    same = {}
    if not is_check:
        same = {f"same recipe, {what}": _block(x) for what, x in embedded.items()}
        both = [_block(_genes(readable), is_genes=True), _block(embedded["embedding"])]
        same["same recipe, genes + embedding"] = np.hstack(both)
    found: dict[str, list[tuple[float, float]]] = {}
    n_labelled = max(5, int(share * len(sensitive)))
    splits = StratifiedShuffleSplit(REPEATS[share], train_size=n_labelled, random_state=0)
    for draw in splits.split(sensitive, sensitive):
        train, test = map(np.sort, draw)
        of = {"tl.fine_tune": _fine_tuned(readable, model, sensitive, train, test)}
        of["genes"] = _head(genes, sensitive, train, test, is_genes=True)
        if genes.min() < 0:
            of["genes, positive part"] = _head(_genes(readable), sensitive, train, test, is_genes=True)
        of |= {what: _head(x, sensitive, train, test, is_genes=False) for what, x in embedded.items()}
        of |= {what: _recipe(x, sensitive, train, test) for what, x in same.items()}
        truth = sensitive[test]
        for what, score in of.items():
            pair = f1_score(truth, score > 0, average="macro"), roc_auc_score(truth, score)
            found.setdefault(what, []).append(pair)
    base = np.array(found["genes"])[:, 0]
    rows = []
    for what, pairs in found.items():
        f1, auc = np.array(pairs).T
        rows.append(
            {
                "labelled": n_labelled,
                "method": what,
                "F1": float(f1.mean()),
                "±": _error(f1),
                "AUC": float(auc.mean()),
                "F1 less genes": float((f1 - base).mean()),
                "± (paired)": _error(f1 - base),
            }
        )
    return rows


def _error(values: np.ndarray) -> float:
    """Standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _genes(cells: ad.AnnData) -> np.ndarray:
    """Log-normalised expression, or z-scores as they are."""
    X = np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, dtype=np.float64)
    if X.min() < 0:
        return X
    return np.log1p(X / X.sum(1, keepdims=True) * 1e4)


def _readable(cells: ad.AnnData) -> ad.AnnData:
    """Cells as `tl` takes them; of z-scores, which it refuses, the positive part stands in for log1p values."""
    X = cells.X
    if (X.min() if hasattr(X, "min") else np.min(X)) < 0:
        dense = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
        X = np.expm1(np.clip(dense, 0, 6))
    return ad.AnnData(X.astype(np.float32), var=cells.var)


def _embed(cells: ad.AnnData, model: CellLM) -> np.ndarray:
    """Embedding of cells."""
    copy = cells.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.embed(copy, model, min_overlap=0.01, show_progress=False)
    return copy.obsm["X_scellm"]


def _fine_tuned(
    cells: ad.AnnData, model: CellLM, sensitive: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Score of the test cells: the user's own two calls, with labels on the training cells alone."""
    mine = cells.copy()
    mine.obs["response"] = None
    mine.obs.iloc[train, 0] = np.where(sensitive[train], "sensitive", "resistant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = scellm.tl.few_shot(mine, "response", model=model, min_overlap=0.01, baseline=False)
        others = cells[test].copy()
        scellm.tl.annotate(others, model=head, novelty_error=None, min_overlap=0.01)
    place = others.uns["scellm_cell_type"]["classes"].tolist().index("sensitive")
    return others.obsm["scellm_cell_type_probabilities"][:, place].astype(np.float64) - 0.5


def _block(values: np.ndarray, *, is_genes: bool = False) -> np.ndarray:
    """Features centred and brought to a mean square of 1 per cell; embeddings standardised before."""
    values = values - values.mean(0)
    if not is_genes:
        values = values / (values.std(0) + 1e-6)
    return values / np.sqrt((values**2).sum(1).mean())


def _recipe(values: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What `tl.fine_tune` does with genes, done with other features; all of them, where it takes 2,000 genes."""
    names = [str(i) for i in range(values.shape[1])]
    cells = FewCells(
        logged=sp.csr_array(values.astype(np.float32)),
        genes=names,
        labelled=train,
        codes=labels[train].astype(int),
        classes=["resistant", "sensitive"],
        unlabelled=test,
    )
    fitted = fit_few_labels(cells, FewLabelsConfig(n_genes=len(names)), calibrated=False)
    used = [int(name) for name in fitted.annotator.genes]
    logits = fitted.annotator.logits(values[test][:, used].astype(np.float32))
    return logits[:, 1] - logits[:, 0]


def _head(
    values: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, *, is_genes: bool
) -> np.ndarray:
    """Balanced logistic regression; genes as they are with C = 100, the best of three for them, embeddings scaled, C = 1."""
    if not is_genes:
        values = (values - values[train].mean(0)) / (values[train].std(0) + 1e-6)
    head = LogisticRegression(C=100.0 if is_genes else 1.0, class_weight="balanced", max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged to the last digit
        head.fit(values[train], labels[train])
    return head.decision_function(values[test])


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
