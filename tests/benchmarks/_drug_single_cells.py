"""From bulk to single cells: lines measured both ways, and few labeled cells."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
from scellm.drugs._targets import target_genes
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
SOURCES = (
    "bulk",
    "sums of single cells",
    "sums of ten cells",
    "single cells, averaged",
    "sums, read as thinned bulk",
    "nearest line",
    "expression of targets",
)
"""What lines are predicted from; the last but two without what other lines say about the platform. *Nearest line* is the measured
response of the most similar known line, *expression of targets* its mean log expression, as of drug2cell."""
REPEATS = {0.05: 10, 0.8: 3}
"""Draws for each share of labeled cells."""


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


class _Left:
    """A model without the lines that exist as single cells, and readers without the study that is read."""

    def __init__(self, data: Path) -> None:
        log2_tpm = source.expression(data)
        self.log2_tpm = log2_tpm[GeneVocabulary.default().subset(log2_tpm.columns).symbols]
        self.found = [one for one in line_sets(data) if one[1] in self.log2_tpm.index]
        out = {line for _, line, _, _ in self.found}
        table, drugs = source.training_set(data)
        drugs = drugs[drugs["screen"] == "GDSC2"].set_index("drug", drop=False)
        table = table[table["drug"].isin(drugs.index)]
        self.truth = table[table["line"].isin(out)].pivot(index="line", columns="drug", values="ln_ic50")
        self.truth = self.truth.reindex(columns=drugs.index)
        lines = self.log2_tpm.index[~self.log2_tpm.index.isin(out)]
        self.grid = ResponseGrid.from_table(table[table["line"].isin(lines)], lines, pd.Index(drugs.index))
        bits, numbers, _, _ = structures(drugs["smiles"].tolist())
        self.known = self.log2_tpm.loc[lines].to_numpy(np.float64)
        self.plainly = fit_projector(self.known)
        self.fit = solve_response(
            CellLineProjector(self.plainly).kernel_similarity,
            self.grid,
            structure_kernel((bits, numbers), (bits, numbers)),
            shared_targets(drugs).astype(np.float64),
            DrugResponseConfig(),
        )
        self.truth -= self.fit.mean
        self.targets = [[g for g in target_genes(text) if g in self.log2_tpm] for text in drugs["target"]]
        self.both_ways = differences(self.found, self.log2_tpm)
        self._readers: dict[str, dict[str, np.ndarray]] = {}

    def reader(self, name: str) -> dict[str, np.ndarray]:
        """What other lines in other studies say about the platform."""
        if study(name) not in self._readers:
            here = {line for other, line, _, _ in self.found if study(other) == study(name)}
            seen = platform(self.both_ways, but_lines=here, but_study=study(name))
            seen = Platform(seen["factor"].to_numpy(), seen["spread"].to_numpy())
            self._readers[study(name)] = fit_projector(self.known, platform=seen)
        return self._readers[study(name)]

    def deviation(
        self, linear: np.ndarray, present: np.ndarray | None, statistics: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predicted ln IC50 less the drug's mean, (B, D), and the similarity to the known lines (B, L)."""
        is_bulk = np.full(len(linear), present is None)
        similarity = CellLineProjector(statistics, present).project(linear, is_bulk)[0]
        return self.fit.scale * (
            cell_line_kernel(similarity).astype(np.float64) @ self.fit.response
        ), similarity

    def guesses(self, name: str, line: str, present: np.ndarray, linear: np.ndarray) -> dict[str, np.ndarray]:
        """What each source says of a line, (D,) each."""
        sums, reader = linear.sum(0, keepdims=True), self.reader(name)
        of_sums, similarity = self.deviation(sums, present, reader)
        lengths = np.linalg.norm(reader["line_vectors"], axis=1)
        nearest = int((similarity[0] / lengths).argmax())
        known = np.where(self.grid.measured[nearest], self.grid.values[nearest] - self.fit.mean, 0)
        bulk = np.exp2(self.log2_tpm.loc[[line]].to_numpy()) - 1
        logged = np.full(self.log2_tpm.shape[1], np.nan)
        logged[present] = np.log1p(linear / np.maximum(linear.sum(1, keepdims=True), 1e-9) * 1e4).mean(0)
        places = [self.log2_tpm.columns.get_indexer(genes) for genes in self.targets]
        targets = [-np.nanmean(logged[p]) if np.isfinite(logged[p]).any() else 0.0 for p in places]
        return {
            "bulk": self.deviation(bulk, None, self.plainly)[0][0],
            "sums of single cells": of_sums[0],
            "sums of ten cells": self.deviation(linear[:10].sum(0, keepdims=True), present, reader)[0][0],
            "single cells, averaged": np.nanmean(self.deviation(linear[:300], present, reader)[0], axis=0),
            "sums, read as thinned bulk": self.deviation(sums, present, self.plainly)[0][0],
            "nearest line": known,
            "expression of targets": np.array(targets),
        }


def transfer(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lines left out of the fit, predicted from single cells and from bulk; per line, and summarized."""
    left = _Left(data)
    named = source.lines(left.log2_tpm.index, data).set_index("line")["name"]
    rows, by_line = [], {}
    for name, line, present, linear in left.found:
        if line not in left.truth.index:
            continue
        real = left.truth.loc[line].to_numpy()
        row = {
            "set": name,
            "line": named[line],
            "cells": len(linear),
            "counts": float(np.median(linear.sum(1))),
        }
        for what, guess in left.guesses(name, line, present, linear).items():
            row[what] = correlation(real, guess) if np.ptp(guess) else np.nan
            by_line.setdefault((what, study(name) == "breast"), {}).setdefault(line, []).append(guess)
        rows.append(row)
    summary = []
    for label, which in (("all", (True, False)), ("27 breast lines", (True,)), ("others", (False,))):
        for what in SOURCES:
            merged: dict[str, list[np.ndarray]] = {}
            for is_breast in which:
                for line, guesses in by_line[what, is_breast].items():
                    merged.setdefault(line, []).extend(guesses)
            lines = sorted(merged)
            guess = np.array([np.mean(merged[line], axis=0) for line in lines])
            summary.append(
                {"lines": f"{label} ({len(lines)})", "predicted from": what}
                | _agree(left.truth.loc[lines].to_numpy(), guess)
            )
    return pd.DataFrame(rows), pd.DataFrame(summary)


def _agree(real: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Spearman per drug over lines, its 90 % interval over lines drawn again, and Pearson over all pairs."""
    generator, n = np.random.default_rng(0), len(real)
    drawn = [_spearman(real[rows], guess[rows]) for rows in generator.integers(n, size=(100, n))]
    low, high = np.nanquantile(drawn, [0.05, 0.95])
    return {
        "Spearman per drug": _spearman(real, guess),
        "low": float(low),
        "high": float(high),
        "Pearson of deviations": correlation(real.ravel(), guess.ravel()),
    }


def _spearman(real: np.ndarray, guess: np.ndarray) -> float:
    """Mean over drugs of the rank correlation over lines; a constant guess counts as 0."""
    found = []
    for i in range(real.shape[1]):
        seen = np.isfinite(real[:, i])
        if seen.sum() >= 5 and np.ptp(real[seen, i]):
            ranks = [stats.rankdata(values[seen, i]) for values in (real, guess)]
            found.append(np.corrcoef(*ranks)[0, 1] if np.ptp(guess[seen, i]) else 0.0)
    return float(np.mean(found))


def correlation(real: np.ndarray, guess: np.ndarray) -> float:
    """Pearson over what was measured."""
    seen = np.isfinite(real) & np.isfinite(guess)
    return float(np.corrcoef(real[seen], guess[seen])[0, 1])


MOST_CELLS = 100
"""Cells of a type whose applicability is looked at."""


def applicability(data: Path, only: Sequence[str] = ()) -> pd.DataFrame:
    """Applicability of cell types with 20 cells or more, each added up, and of single cells: above 1 is outside."""
    rows = []
    paths = [*sorted((data / "corpus").glob("*.h5ad")), *sorted((data / "benchmarks").glob("*.h5ad"))]
    singles = data / "drug" / "single_cell"
    paths += [singles / "pc9_erlotinib_gse149383.h5ad", singles / "breast_lines_gambardella.h5ad"]
    for path in paths:
        if not only or path.stem in only:
            cells = ad.read_h5ad(path)
            cells.raw = None
            if path.stem == TUMOR:
                cells.obs["cell_type"] = cells.obs["cell_type_inferred"]
                cells.obs["malignant"] = cells.obs["cell_type"] == "Epithelial"
            rows += _applicability_of(path.stem, cells)
    if not only or TUTORIAL in only:
        cells = scellm.datasets.cell_lines()
        cells.obs["cell_type"] = pd.Categorical(cells.obs["cell_line"].astype(str).str.split("_").str[0])
        cells.obs["malignant"] = cells.obs["cell_type"].isin(["A549", "H1437", "HCT116", "K562"])
        rows += _applicability_of(TUTORIAL, cells)
    return pd.DataFrame(rows)


TUMOR = "copykat_tnbc"
"""A breast cancer without labels: its epithelial cells, by markers, are the tumor."""
TUTORIAL = "li2017, reads as they are"
"""Name of `scellm.datasets.cell_lines()`, the cells of the tutorial; li2017_cell_lines has them thinned."""


def _applicability_of(name: str, cells: ad.AnnData) -> list[dict[str, Any]]:
    """A row for the cancer cells of a set, and one for the normal cells."""
    rows = []
    label = cells.obs["malignant"].astype(str)
    for value, kind in (("True", "cancer"), ("False", "normal")):
        here = cells[(label == value).to_numpy()].copy()
        types = here.obs["cell_type"].astype(str)
        here = here[(types.map(types.value_counts()).to_numpy() >= 20) & (types != "NA").to_numpy()].copy()
        kept = here.obs.groupby("cell_type", observed=True).cumcount() < MOST_CELLS
        here = here[kept.to_numpy()].copy()
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
                "set": name,
                "kind": kind,
                "cells": here.n_obs,
                "groups": len(sums),
                "outside": int((sums > 1).sum()),
                "lowest": float(sums.min()),
                "highest": float(sums.max()),
                "single cells outside": float((found[None] > 1).mean()),
            }
        )
    return rows


# -- few labeled cells -------------------------------------------------------------------------------------------


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
"""Two neighboring kinds of cells each, no responses; nothing about few labeled cells was chosen on them."""


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
    """Log-normalized expression, or z-scores as they are."""
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
    """Features centered and brought to a mean square of 1 per cell; embeddings standardized before."""
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
    used = [int(name) for name in fitted.annotator.head.genes]
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
