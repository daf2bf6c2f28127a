"""Studies of the reference left out: the embedding beside logistic regression on genes, same cells, same tree.

    python tests/benchmarks/left_out.py DATA [--model scellm-small] [--penalties 0.1 0.001] [--cache FILE]

For each measured human study: fit on at most `MOST` cells of a label of all other studies, annotate its cells. Both heads
are logistic regression over the classes of the tree with labels of any depth; one is given the embedding, the other the
most variable genes. Penalties beside the default are tried on the two largest studies. Writes `docs/benchmarks/left_out.md`.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _reference_cells as source
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _genes_on_tree import (
    GENES_WEIGH,
    ITERATIONS,
    MOST,
    N_GENES,
    N_NEIGHBORS,
    NEIGHBORS_WEIGH,
    PENALTY,
    GenesOnTree,
    fit_genes,
    neighbors_said,
    some_of_each,
    together,
)
from _neighbor_trials import N_DRAWS, conclusion, judged, own_references, small_samples
from _report import write
from _threshold_trials import chosen, own_with_doubt, with_doubt

import scellm
from scellm.annotation._annotator import Annotator
from scellm.annotation._fit_tree import (
    allowed_classes,
    calibrate_on_tree,
    fit_on_tree,
    fit_temperature,
)
from scellm.annotation._smoothing import Smoothing
from scellm.annotation._tree import Tree
from scellm.metrics._calibration import softmax
from scellm.metrics._conformal import balance

N_EXEMPLARS, N_THREADS = 500, 3
LEAST_TESTED, N_TRIED = 100, 2
"""Cells of a study for it to be left out, and studies on which penalties are tried."""
ALONE, RIVAL, BOTH, SCELLM = "embedding alone", "logistic regression", "embedding and genes", "scellm"
SHARES = (0.5, 0.2, 0.05)
"""Of the genes of the head that cells are left, drawn at random."""
WEIGHTS = (0.2, 0.35, 0.65, 0.8)
"""Of the genes beside the embedding, besides the first one."""
METHODS = (SCELLM, BOTH, ALONE, RIVAL)
NEIGHBORS = (0.35, 0.65, 0.8, 1.0)
"""Weights of the neighbors, besides the first one."""
TEXT = """
What `scellm.tl.annotate` without a reference is made of, in small: a classifier on the embedding, logistic regression on the {n_genes}
most variable genes, *embedding and genes*, the mean of their scores, and *scellm*, which asks the {n_neighbors} nearest cells of the same study in
the embedding, too. Genes weigh {weigh}, times the root of the share of them that the cells have; the logarithm of the mean probability of the neighbors weighs {near}. Each of
{n_studies} measured human studies with at least {least} cells is left out with the profiles made of the same cells, both are fitted on the same cells
of all others (at most {most} of a label, so fewer than the shipped reference has), with the same tree, labels of any depth and weights, and
annotate its cells. Probabilities add up along the tree for all. Calibration error and what is named at an
error of 5 % are with temperature and threshold of the other studies, log loss and depth with those of all. *Right*: the way down the tree passes the node of the authors.
*Distance*: edges between the end of the way and the authors' node, of wrong cells. *Depth*: edges from the top to the node
named at 5 %.

{sentence} The encoder was trained on some of these studies, with their labels, which favors it; genes have no such advantage.
Logistic regression had {iterations} steps and C = {penalty}{tried}. celltypist and SingleR were not run.

A study has at most 60 tested cells of a type here, so that its neighbors are farther than those of a whole sample.
Other weights are in the second table; there, *alike* pays no heed to missing genes.
Rows with a share of the genes were given no more of them than that, drawn at random; the embedding had all.

*Small samples*: {n_draws} times so many cells of each study, with as many neighbors at most, which weigh so much; each row at the temperature
best for it. *Neighbors beside a reference of one's own*: `fit_annotator`, as `tl.annotate(reference=)` uses it, learns from one study
and is asked about another one, or from few cells of each type and is asked about the others of the study; neighbors are asked without another
temperature, *coverage* is that of sets at 5 % error, and *gain* is that of macro-F1, with its standard error over cases.

*Doubt in lineages*: with `target_error` a node is worth 1 - c (1 - p), and the deepest one on the way down that reaches the threshold is
named; the table has c at lineages (lymphocyte, epithelial cell, ...) and at nodes above them (blood cell), below it is 1. Temperature and
threshold of a study are those of the others; *lineage or finer*, *authors' level* and *depth* (0 without a name) are of all cells.
{chosen}. {{doc}}`The reference's page <reference>` has the same for the shipped classifier and more studies, on which c was chosen: the smallest
with which names are on average as deep as without it. *Of one's own*: classifiers as above, with the lineage and the node below it as `levels=`.
"""


def score(
    tree: Tree, annotator: Annotator, logits: np.ndarray, nodes: np.ndarray, studies: np.ndarray
) -> tuple[dict[str, float], pd.DataFrame]:
    """Means over studies, and a row per study."""
    annotator = copy.copy(annotator)
    weights = balance(studies, len(studies))
    report = calibrate_on_tree(annotator, logits, nodes, np.zeros(len(nodes)), weights, studies)
    probabilities = softmax(logits / annotator.calibration.temperature)
    chain, _ = tree.chains(probabilities)
    last = chain[np.arange(len(chain)), (chain >= 0).sum(axis=1) - 1]
    right = (chain == nodes[:, None]).any(axis=1)
    lineage = tree.lineage[nodes]
    coarse = (chain == lineage[:, None]).any(axis=1)
    deepest = tree.deepest(probabilities, least_score=annotator.least_score(0.05))
    named = deepest >= 0
    depth = tree.above.sum(axis=1)[deepest]
    inside = (probabilities * allowed_classes(tree, nodes)).sum(axis=1)
    rows = []
    for study in np.unique(studies):
        here = studies == study
        has, wrong = here & (lineage >= 0), here & ~right
        each = [right[here & (nodes == node)].mean() for node in np.unique(nodes[here])]
        rows.append(
            {
                "study": study,
                "cells": int(here.sum()),
                "right": right[here].mean(),
                "balanced": np.mean(each),
                "lineage": coarse[has].mean(),
                "log loss": -np.log(np.maximum(inside[here], 1e-6)).mean(),
                "distance": tree.distance(last[wrong], nodes[wrong]).mean() if wrong.any() else np.nan,
                "depth": depth[here & named].mean() if (here & named).any() else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    mean = table.drop(columns=["study", "cells"]).mean().to_dict()
    mean |= {"calibration error": report["ece_after"], "temperature": annotator.calibration.temperature}
    return mean | {"named (5 %)": report["named_0.05"], "right of the named": report["right_0.05"]}, table


def score_briefly(tree: Tree, logits: np.ndarray, nodes: np.ndarray, studies: np.ndarray) -> dict[str, float]:
    """Means over studies of what needs no threshold, at one temperature."""
    means = judged(logits, nodes, tree, studies)
    return {name: mean for name, mean in means.items() if name != "calibration error"}


def read_cells(data: Path, model: scellm.models.CellLM, cache: Path | None) -> dict[str, np.ndarray]:
    """Vectors, types, studies, log values and measured genes of the cells, kept in a file if one is named."""
    if cache and cache.exists():
        with np.load(cache, allow_pickle=False) as found:
            return dict(found)
    rng, rows = np.random.default_rng(0), source.table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # estimated counts of some sources
        datasets = source.measured(data, rows, rng) + source.around_profiles(data, rows, rng)
        vectors, cells, logged, _, has = source.embedded(datasets, model)
    found = {
        "vectors": vectors,
        "types": cells["type"].to_numpy(str),
        "studies": cells["name"].to_numpy(str),
        "is_tested": (cells["is_real"] & ~cells["is_mouse"]).to_numpy(bool),
        "data": logged.data,
        "indices": logged.indices,
        "indptr": logged.indptr,
        "has": has[pd.factorize(cells["name"])[0]],
    }
    if cache:
        np.savez(cache, **found)
    return found


def fit_without(
    cells: dict[str, np.ndarray], tree: Tree, nodes: np.ndarray, penalties: list[float]
) -> tuple[Annotator, np.ndarray, dict[str, np.ndarray], dict[float, list[float]]]:
    """A fitted annotator, rows tested, their logits by method, and the share right by penalty of the first studies."""
    names, has = cells["studies"], cells["has"]
    logged = sp.csr_array((cells["data"], cells["indices"], cells["indptr"]), shape=has.shape)
    sizes = pd.Series(names[cells["is_tested"]]).value_counts()
    largest = list(sizes.index[:N_TRIED])

    def leave_out(study: str) -> tuple[Annotator, np.ndarray, dict[str, np.ndarray], dict[float, float]]:
        start, rng = time.perf_counter(), np.random.default_rng(0)
        out = np.isin(names, [study, *source.SAME_STUDY.get(study, ())])
        train = np.flatnonzero(~out)
        train = train[some_of_each(nodes[train], rng)]
        test = np.flatnonzero(names == study)
        test = test[tree.above[np.unique(nodes[train])].any(axis=0)[nodes[test]]]
        annotator = fit_on_tree(
            cells["vectors"][train], nodes[train], tree, groups=names[train], max_exemplars=N_EXEMPLARS
        )
        alone, found, right = annotator.logits(cells["vectors"][test]), {}, {}
        for penalty in [PENALTY, *penalties] if study in largest else [PENALTY]:
            genes = fit_genes(logged[train], has[train], nodes[train], names[train], tree, penalty=penalty)
            of_genes = genes.logits(logged[test], has[test])
            chain = tree.chains(softmax(of_genes))[0]
            right[penalty] = float((chain == nodes[test][:, None]).any(axis=1).mean())
            if penalty == PENALTY:
                found = mixed(alone, genes, logged[test], has[test])
        print(study, len(train), len(test), right, time.perf_counter() - start, flush=True)
        return annotator, test, found, right

    with ThreadPoolExecutor(N_THREADS) as pool:
        results = [x for x in pool.map(leave_out, sizes.index[sizes >= LEAST_TESTED]) if len(x[1])]
    tried = {
        penalty: [x[3][penalty] for x in results if penalty in x[3]] for penalty in [PENALTY, *penalties]
    }
    return (
        results[-1][0],
        np.concatenate([x[1] for x in results]),
        {name: np.concatenate([x[2][name] for x in results]) for name in results[0][2]},
        tried,
    )


def with_neighbors(
    logits: np.ndarray, vectors: np.ndarray, nodes: np.ndarray, tree: Tree, studies: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores of cells whose neighbors have a say, by method."""
    temperature = fit_temperature(logits, allowed_classes(tree, nodes), balance(studies, len(studies)))
    own, found = softmax(logits / temperature), {}
    for weight in (NEIGHBORS_WEIGH, *NEIGHBORS):
        smoothing = Smoothing(n_neighbors=N_NEIGHBORS, weight=weight, temperature=1.0)
        name = SCELLM if weight == NEIGHBORS_WEIGH else f"neighbors weigh {weight:g}"
        found[name] = neighbors_said(vectors, own, studies, smoothing)
    return found


def mixed(
    alone: np.ndarray, genes: GenesOnTree, logged: sp.csr_array, has: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores by method: of the embedding, of genes, of both, with other weights and with few of the genes."""
    found, rng = genes.logits(logged, has), np.random.default_rng(0)
    share = has[:, genes.columns].mean(axis=1, keepdims=True)
    results = {ALONE: alone, RIVAL: found, BOTH: together(alone, found, share)}
    for weight in WEIGHTS:
        results[f"genes weigh {weight:g}"] = together(alone, found, share, weight)
    results["genes weigh alike"] = together(alone, found)
    for part in SHARES:
        few = has & (rng.random(has.shape[1]) < part)
        share = few[:, genes.columns].mean(axis=1, keepdims=True)
        results[f"{BOTH}, {part:.0%} of the genes"] = together(alone, genes.logits(logged, few), share)
    return results


def main() -> None:
    """Fit, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--penalties", nargs="*", type=float, default=[])
    parser.add_argument("--cache", type=Path, help="file that keeps the embedded cells")
    options = parser.parse_args()
    model = scellm.models.load(options.model)
    cells, rows = read_cells(options.data, model, options.cache), source.table()
    tree = source.tree_of(rows, set(cells["types"]), [""] * len(rows))
    nodes = np.array([tree.names.index(name) for name in cells["types"]])
    annotator, tested, logits, tried = fit_without(cells, tree, nodes, options.penalties)
    studies = cells["studies"][tested]
    logits |= with_neighbors(logits[BOTH], cells["vectors"][tested], nodes[tested], tree, studies)
    results = {name: score(tree, annotator, logits[name], nodes[tested], studies) for name in METHODS}
    means = pd.DataFrame([{"method": name, **mean} for name, (mean, _) in results.items()])
    briefly = [
        {"method": name, **score_briefly(tree, found, nodes[tested], studies)}
        for name, found in logits.items()
        if name not in results
    ]
    tables = {"Means over studies": means, "Other weights, and fewer genes": pd.DataFrame(briefly)}
    small = small_samples(logits[BOTH], cells["vectors"][tested], nodes[tested], tree, studies)
    own = own_references(cells)
    tables |= {"Small samples": small, "Neighbors beside a reference of one's own": own}
    doubt = with_doubt(logits[SCELLM], nodes[tested], tree, studies)
    tables |= {
        "Doubt in lineages": doubt,
        "Doubt in lineages, references of one's own": own_with_doubt(cells, tree),
    }
    tables |= {f"Studies, {name}": results[name][1] for name in METHODS}
    by_name = means.set_index("method")
    ours, rival, alone = by_name.loc[SCELLM], by_name.loc[RIVAL], by_name.loc[ALONE]
    sentence = "Means over studies, scellm against the embedding alone and logistic regression: " + ", ".join(
        f"{name} {ours[name]:.3f} against {alone[name]:.3f} and {rival[name]:.3f}"
        for name in ("right", "lineage", "log loss", "calibration error")
    )
    for what, before in ((BOTH, ALONE), (SCELLM, BOTH)):
        gain = (results[what][1]["balanced"] - results[before][1]["balanced"]).to_numpy()
        sentence += (
            f". The mean over types of *{what}* is {gain.mean():+.3f} from *{before}* (standard error over studies "
            f"{gain.std(ddof=1) / np.sqrt(len(gain)):.3f}; up in {int((gain > 0).sum())} of {len(gain)}, down in {int((gain < 0).sum())})"
        )
    sentence += "."
    others = ", ".join(f"{np.mean(x[:N_TRIED]):.3f} at {penalty:g}" for penalty, x in tried.items())
    text = TEXT.format(
        n_genes=N_GENES,
        n_studies=len(results[SCELLM][1]),
        least=LEAST_TESTED,
        most=MOST,
        sentence=sentence,
        iterations=ITERATIONS,
        penalty=PENALTY,
        weigh=GENES_WEIGH,
        n_neighbors=N_NEIGHBORS,
        near=NEIGHBORS_WEIGH,
        chosen=chosen(doubt),
        n_draws=N_DRAWS,
        tried=f" (right on the first {N_TRIED} studies: {others})" if options.penalties else "",
    )
    text += "\n" + conclusion(small, own)
    for table in tables.values():
        print(table.to_string())
    facts = {"model": model.name, "sha256": model.sha256}
    print(write("left_out", "Studies left out, beside genes", text, tables, facts))


if __name__ == "__main__":
    main()
