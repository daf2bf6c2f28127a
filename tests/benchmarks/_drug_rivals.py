"""What the drug model is measured beside: trivial predictors, ridge, forest, networks. `Problem` in, predictions out."""

from __future__ import annotations

import dataclasses
import warnings

import _drug_data as source
import anndata as ad
import numpy as np
import pandas as pd
import torch
from _drug_splits import Problem
from scipy.linalg import solve
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from torch import Tensor, nn

import scellm
from scellm.drugs import DrugResponseConfig, structure_kernel
from scellm.drugs._fit_projection import RANK, principal_axes
from scellm.drugs._grid import ResponseGrid
from scellm.drugs._names import shared_targets
from scellm.drugs._profiles import log_fractions, to_unit
from scellm.drugs._solve import solve_response
from scellm.drugs._structures import structures
from scellm.models import CellLM
from scellm.nn import Encoder

EMBEDDED: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
"""Embeddings of the lines by the encoders so far."""


def drug_means(problem: Problem) -> np.ndarray:
    """(D,) mean of the training pairs; of all pairs for a drug without any."""
    n = problem.measured.sum(0)
    return np.where(n > 0, problem.values.sum(0) / np.maximum(n, 1), problem.values.sum() / n.sum())


def drug_mean(problem: Problem) -> np.ndarray:
    """Predict the drug's mean."""
    return drug_means(problem)[problem.columns]


def drug_and_line_mean(problem: Problem) -> np.ndarray:
    """Predict the drug's mean plus the line's mean deviation from it."""
    mean = drug_means(problem)
    deviation = np.where(problem.measured, problem.values - mean, 0).sum(1) / (problem.measured.sum(1) + 1)
    return mean[problem.columns] + deviation[problem.rows]


def ridge_per_drug(problem: Problem, *, penalty: float = 1.6) -> np.ndarray:
    """A ridge regression on all genes for every drug, `penalty` for each gene; unseen drugs get the mean."""
    mean, genes = drug_means(problem), _standardised(problem)
    penalty *= genes.shape[1]
    guess = np.tile(mean, (len(genes), 1))
    gram = genes @ genes.T
    for drug in np.unique(problem.columns):
        rows = np.flatnonzero(problem.measured[:, drug])
        if len(rows) > 20:
            center = gram[rows].mean(0)  # the intercept: genes centered on the drug's own lines
            inner = gram[np.ix_(rows, rows)] - center[rows] - center[rows][:, None] + center[rows].mean()
            cross = gram[:, rows] - center[:, None] - center[rows] + center[rows].mean()
            inner.flat[:: len(rows) + 1] += penalty
            weights = solve(inner, problem.values[rows, drug] - mean[drug], assume_a="pos")
            guess[:, drug] += cross @ weights
    return guess[problem.rows, problem.columns]


def _standardised(problem: Problem) -> np.ndarray:
    """Genes z-scored over the lines that have training pairs, (L, G)."""
    known = problem.expression[problem.measured.any(1)]
    return (problem.expression - known.mean(0)) / (known.std(0) + 1e-6)


def _components(problem: Problem, n: int) -> np.ndarray:
    """PCA of the standardized genes, fitted on lines that have training pairs, scaled to unit variance, (L, n)."""
    genes, known = _standardised(problem), problem.measured.any(1)
    pca = PCA(n, svd_solver="full").fit(genes[known])
    scores = pca.transform(genes)
    return scores / scores[known].std(0)


def _structure_components(problem: Problem, n: int) -> np.ndarray:
    """PCA of the fingerprints, fitted on drugs that have training pairs, (D, n)."""
    known = problem.measured.any(0)
    pca = PCA(min(n, known.sum() - 1), svd_solver="full").fit(problem.bits[known].astype(float))
    scores = pca.transform(problem.bits.astype(float))
    return scores / scores[known].std()


def _pairs(problem: Problem, of_line: np.ndarray, of_drug: np.ndarray, *, test: bool) -> np.ndarray:
    rows, columns = (problem.rows, problem.columns) if test else np.nonzero(problem.measured)
    return np.hstack([of_line[rows], of_drug[columns]])


def ridge_pairs(problem: Problem) -> np.ndarray:
    """One ridge on genes' components and fingerprint of all pairs."""
    of_line, of_drug = _components(problem, 50), _structure_components(problem, 100)
    model = Ridge(alpha=10.0).fit(
        _pairs(problem, of_line, of_drug, test=False), problem.values[problem.measured]
    )
    return model.predict(_pairs(problem, of_line, of_drug, test=True))


def forest(problem: Problem) -> np.ndarray:
    """A random forest of few trees for every drug, on components of genes; unseen drugs get the mean."""
    mean, of_line = drug_means(problem), _components(problem, 100)
    guess = np.tile(mean, (len(of_line), 1))
    for drug in np.unique(problem.columns):
        rows = np.flatnonzero(problem.measured[:, drug])
        if len(rows) > 20:
            model = RandomForestRegressor(20, min_samples_leaf=5, max_features=0.1, random_state=0)
            guess[:, drug] = model.fit(of_line[rows], problem.values[rows, drug]).predict(of_line)
    return guess[problem.rows, problem.columns]


# -- Gaussian processes -------------------------------------------------------------------------------------------


def gaussian_process(
    problem: Problem,
    similarity: np.ndarray | None = None,
    *,
    config: DrugResponseConfig | None = None,
    rounds: int = 0,
    structure: bool = True,
    action: bool = True,
) -> np.ndarray:
    """The drug model's own fit; `similarity` (L, L) replaces that of expression."""
    if similarity is None:
        similarity = expression_similarity(problem)
    fit = solve_response(
        similarity,
        ResponseGrid(problem.values, problem.measured),
        problem.structure * structure,
        problem.action * action,
        config or DrugResponseConfig(),
        screens=problem.screens,
        rounds=rounds,
    )
    return fit.fitted[problem.rows, problem.columns]


def with_more_compounds(problem: Problem) -> np.ndarray:
    """The drug model's own fit where more compounds are known."""
    return gaussian_process(more_compounds(problem), expression_similarity(problem))


def more_compounds(problem: Problem) -> Problem:
    """With what GDSC1 measured of compounds that are in the problem under no name; its level moved to that of the problem.

    Pairs and their order stay; a line without training pairs gets none.
    """
    table, catalogue = source.full(), source.drugs()
    key = source.compounds(catalogue)
    table = table[table["screen"] == "GDSC1"]
    table = table.assign(compound=key[table["drug"]].to_numpy())
    known = problem.lines[problem.measured.any(1)]
    table = table[~table["compound"].isin(source.compounds(problem.drugs)) & table["line"].isin(known)]
    wide = table.pivot_table(index="line", columns="compound", values="ln_ic50").reindex(problem.lines)
    extra = catalogue.assign(compound=key).drop_duplicates("compound").set_index("compound").loc[wide.columns]
    drugs = pd.concat([problem.drugs, extra], ignore_index=True)
    bits, numbers, _, _ = structures(drugs["smiles"].tolist())
    found = wide.notna().to_numpy()
    shift = problem.values[problem.measured].mean() - wide.to_numpy()[found].mean()
    return dataclasses.replace(
        problem,
        drugs=drugs,
        bits=bits,
        structure=structure_kernel((bits, numbers), (bits, numbers)),
        action=shared_targets(drugs).astype(np.float64),
        values=np.hstack([problem.values, wide.fillna(0).to_numpy() + shift * found]),
        measured=np.hstack([problem.measured, found]),
        screens=np.array(["GDSC2"] * len(problem.drugs) + ["GDSC1"] * len(extra)),
    )


def expression_similarity(problem: Problem, rank: int = RANK) -> np.ndarray:
    """(L, L) similarities as the drug model has them, `rank` components fitted on lines with training pairs."""
    known = problem.measured.any(1)
    whole = log_fractions(np.exp2(problem.expression) - 1, 1.0).astype(np.float64)
    center, spread = whole[known].mean(0), np.maximum(whole[known].std(0), 1e-2)
    unit = to_unit((whole - center) * spread**-0.5)
    vectors = unit @ principal_axes(unit[known], rank)
    return vectors @ vectors.T


def embedding_similarity(problem: Problem, model: CellLM) -> np.ndarray:
    """(L, L) cosines of centered encoder embeddings."""
    cells = line_embedding(problem, model)
    cells = cells - cells[problem.measured.any(1)].mean(0)
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    return np.clip(cells @ cells.T, -1, 1).astype(np.float64)


def line_cells(problem: Problem) -> ad.AnnData:
    """The lines as an AnnData of TPM."""
    from _drug_data import ccle, expression

    names = next(
        table.columns for table in (expression(), ccle()) if table.shape[1] == problem.expression.shape[1]
    )
    return ad.AnnData(
        (np.exp2(problem.expression) - 1).astype(np.float32), var=pd.DataFrame(index=names.astype(str))
    )


def line_embedding(problem: Problem, model: CellLM) -> np.ndarray:
    """(L, dim) frozen embeddings, kept for other folds."""
    key = model.name, problem.expression.shape
    if key not in EMBEDDED:
        EMBEDDED[key] = _embed(problem, model)
    return EMBEDDED[key]


def _embed(problem: Problem, model: CellLM) -> np.ndarray:
    """(L, dim) frozen embeddings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = scellm.tl.embed(line_cells(problem), model, min_overlap=0.01, show_progress=False, copy=True)
    return cells.obsm["X_scellm"].astype(np.float64)


def random_like(model: CellLM, seed: int) -> CellLM:
    """The same model with untrained weights."""
    torch.manual_seed(seed)
    return dataclasses.replace(model, encoder=Encoder(model.config).eval(), parts={}, name=f"random {seed}")


# -- networks -----------------------------------------------------------------------------------------------------


def mlp(problem: Problem, *, seeds: int = 3) -> np.ndarray:
    """One hidden layer on components of genes with an output for every drug, the mean of several seeds."""
    mean = drug_means(problem)
    of_line = torch.tensor(_components(problem, 100), dtype=torch.float32)
    spread = (problem.values - mean)[problem.measured].std()
    wanted = torch.tensor((problem.values - mean) / spread, dtype=torch.float32)
    guesses = [_fit_mlp(of_line, wanted, torch.tensor(problem.measured), seed) for seed in range(seeds)]
    return (mean + spread * np.mean(guesses, axis=0))[problem.rows, problem.columns]


def _fit_mlp(of_line: Tensor, wanted: Tensor, measured: Tensor, seed: int, *, steps: int = 400) -> np.ndarray:
    """(L, D) outputs after AdamW on all lines at once; a tenth of the lines, left out, says where to stop."""
    torch.manual_seed(seed)
    held = measured & (torch.rand(len(of_line), 1) < 0.1)
    kept = measured & ~held
    n_drugs = wanted.shape[1]
    layers = nn.Linear(of_line.shape[1], 256), nn.GELU(), nn.Dropout(0.5), nn.Linear(256, n_drugs)
    network = nn.Sequential(nn.Dropout(0.2), *layers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-1)
    best, chosen = np.inf, np.zeros(tuple(wanted.shape))
    for step in range(steps):
        network.train()
        loss = (network(of_line) - wanted)[kept].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            network.eval()
            with torch.no_grad():
                guess = network(of_line)
            error = float((guess - wanted)[held].square().mean())
            if error < best:
                best, chosen = error, guess.numpy()
    return chosen
