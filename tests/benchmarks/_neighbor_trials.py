"""Neighbors in small samples, and beside a reference of one's own: on studies of the corpus, for the page of those left out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from _genes_on_tree import N_NEIGHBORS, NEIGHBORS_WEIGH, neighbors_said
from sklearn.metrics import f1_score

from scellm.annotation._align import align_cells
from scellm.annotation._fit import fit_annotator
from scellm.annotation._fit_tree import allowed_classes, calibration_error, confidence_at, fit_temperature
from scellm.annotation._smoothing import Smoothing
from scellm.annotation._tree import Tree
from scellm.metrics import expected_calibration_error
from scellm.metrics._calibration import softmax
from scellm.metrics._conformal import balance

SIZES, N_DRAWS = (100, 165), 4
"""Cells drawn of a study, and how often."""
WAYS = ((0, 0.0), *product((5, N_NEIGHBORS), (0.35, NEIGHBORS_WEIGH, 0.65, 0.8)))
"""How many neighbors, and what they weigh."""
LEAST_CELLS, LEAST_LEARNED, LEAST_TESTED, LEAST_TYPES = 100, 8, 10, 3
"""Of a study, of a type of a reference, of a type of the cells asked about; types of both."""
SHOTS, LEAST_OF_TYPE = (5, 10), 25
"""Labeled cells of a type, and cells that the type has."""
ERROR = 0.05


def smoothed(
    vectors: np.ndarray, own: np.ndarray, groups: np.ndarray, n_neighbors: int, weight: float
) -> np.ndarray:
    """(n, K) scores with neighbors; those of the cells themselves for none."""
    if not n_neighbors:
        return np.log(own + 1e-9)
    return neighbors_said(
        vectors, own, groups, Smoothing(n_neighbors=n_neighbors, weight=weight, temperature=1.0)
    )


def small_samples(
    logits: np.ndarray, vectors: np.ndarray, nodes: np.ndarray, tree: Tree, studies: np.ndarray
) -> pd.DataFrame:
    """Means over studies, of each of which few cells were drawn, at the temperature that is best for all of these."""
    temperature = fit_temperature(logits, allowed_classes(tree, nodes), balance(studies, len(studies)))
    own, found = softmax(logits / temperature), []
    for size in SIZES:
        rng = np.random.default_rng(0)
        drawn = [
            rng.permutation(np.flatnonzero(studies == study))[:size]
            for study in np.unique(studies)
            for _ in range(N_DRAWS)
        ]
        sample = np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
        rows = np.concatenate(drawn)
        for n_neighbors, weight in WAYS:
            said = smoothed(vectors[rows], own[rows], sample, n_neighbors, weight)
            row = {"cells": str(size), "neighbors": n_neighbors, "weigh": weight}
            means = judged(said, nodes[rows], tree, sample)
            found.append(row | {name: mean for name, mean in means.items() if name != "lineage"})
    return pd.DataFrame(found)


def conclusion(small: pd.DataFrame, own: pd.DataFrame) -> str:
    """What the two tables say of what ships."""

    def row(table: pd.DataFrame, of: str, n_neighbors: int, weight: float) -> pd.Series:
        first = table.columns[0]
        is_it = (table["neighbors"] == n_neighbors) & (table["weigh"] == weight) & (table[first] == of)
        return table[is_it].iloc[0]

    sizes, kinds = small["cells"].unique(), own["labels"].unique()
    text = "**Neighbors of few cells.** "
    for size in sizes:
        ways = ((0, 0.0), (N_NEIGHBORS, NEIGHBORS_WEIGH), (5, NEIGHBORS_WEIGH), (5, 0.35))
        none, ours, fewer, less = (row(small, size, *way) for way in ways)
        text += (
            f"Of {size} cells of a study, the log loss is {none['log loss']:.3f} without neighbors, {ours['log loss']:.3f} as shipped, "
            f"{fewer['log loss']:.3f} with 5 of them and {less['log loss']:.3f} if these weigh 0.35; the calibration error "
            + ", ".join(f"{x['calibration error']:.3f}" for x in (none, ours, fewer, less))
            + ". "
        )
    text += (
        "So fewer neighbors or a smaller weight are no better for small samples, and there is one rule for all.\n\n"
        "**A reference of one's own.** As shipped, neighbors change macro-F1 by "
    )
    gains = [(kind, row(own, kind, N_NEIGHBORS, NEIGHBORS_WEIGH), row(own, kind, 0, 0.0)) for kind in kinds]
    text += "; ".join(
        f"{ours['gain']:+.3f} (± {ours['±']:.3f}; {kind}), log loss from {none['log loss']:.3f} to {ours['log loss']:.3f}"
        for kind, ours, none in gains
    )
    return (
        f"{text}. Macro-F1 is within what so few cases can tell, a temperature and sets with neighbors cannot be fitted on a few labeled "
        "cells, and labels of cells would depend on what else is asked about: there each cell is named by itself."
    )


def judged(said: np.ndarray, nodes: np.ndarray, tree: Tree, groups: np.ndarray) -> dict[str, float]:
    """Means over samples or studies of what needs no threshold, and the temperature, which is one for all."""
    allowed = allowed_classes(tree, nodes)
    temperature = fit_temperature(said, allowed, balance(groups, len(groups)))
    p = softmax(said / temperature)
    confidence, right = confidence_at(tree, p, nodes)
    lineage = tree.lineage[nodes]
    coarse = (tree.chains(p)[0] == lineage[:, None]).any(axis=1)
    inside = np.maximum((p * allowed).sum(axis=1), 1e-6)
    found = []
    for one in np.unique(groups):
        here = groups == one
        of_lineage = here & (lineage >= 0)
        found.append(
            {
                "right": right[here].mean(),
                "balanced": np.mean([right[here & (nodes == x)].mean() for x in np.unique(nodes[here])]),
                "lineage": coarse[of_lineage].mean() if of_lineage.any() else np.nan,
                "log loss": -np.log(inside[here]).mean(),
                "calibration error": calibration_error(confidence[here], right[here], np.ones(here.sum())),
            }
        )
    return pd.DataFrame(found).mean().to_dict() | {"temperature": temperature}


def own_references(cells: dict[str, np.ndarray]) -> pd.DataFrame:
    """What neighbors add to a classifier fitted on one study for another one, and on few cells of a study for its others."""
    results = pd.DataFrame(
        [row for kind, name, *of in pairs(cells) for row in _with_and_without(kind, name, *of)]
    )
    found = []
    for (kind, n_neighbors, weight), rows in results.groupby(["labels", "neighbors", "weigh"], sort=False):
        alone = results[(results["labels"] == kind) & (results["neighbors"] == 0)]
        gain = rows["macro-F1"].to_numpy() - alone["macro-F1"].to_numpy()
        found.append(
            {"labels": kind, "neighbors": n_neighbors, "weigh": weight, "cases": len(rows)}
            | rows[["macro-F1", "log loss", "calibration error", "coverage"]].mean().to_dict()
            | {"gain": gain.mean(), "±": gain.std(ddof=1) / np.sqrt(len(gain))}
            | {"up": int((gain > 0).sum()), "down": int((gain < 0).sum())}
        )
    return pd.DataFrame(found)


def pairs(cells: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Where labels are from, a name, rows to learn from, rows asked about; and vectors and types of all."""
    vectors, types = cells["vectors"].astype(np.float32), cells["types"]
    names = np.where(cells["is_tested"], cells["studies"], "")
    sizes = pd.Series(names[names != ""]).value_counts()
    large = list(sizes.index[sizes >= LEAST_CELLS])
    for query in large:
        asked = np.flatnonzero(names == query)
        number = pd.Series(types[asked]).value_counts()
        for study in large:
            learned = np.flatnonzero(names == study)
            of_type = pd.Series(types[learned]).value_counts()
            known = of_type.index[of_type >= LEAST_LEARNED]
            shared = number[number.index.isin(known)]
            shared = shared[shared >= LEAST_TESTED]
            if study == query or len(shared) < LEAST_TYPES or shared.sum() < len(asked) / 2:
                continue
            yield (
                "another study",
                f"{study} to {query}",
                learned[np.isin(types[learned], known)],
                asked,
                vectors,
                types,
            )
        frequent = number.index[number >= LEAST_OF_TYPE]
        if len(frequent) < LEAST_TYPES:
            continue
        rng = np.random.default_rng(0)
        asked = asked[np.isin(types[asked], frequent)]
        for shots in SHOTS:
            learned = np.concatenate([rng.permutation(asked[types[asked] == x])[:shots] for x in frequent])
            yield f"{shots} of each type", query, learned, np.setdiff1d(asked, learned), vectors, types


def _with_and_without(
    kind: str, name: str, learned: np.ndarray, asked: np.ndarray, vectors: np.ndarray, types: np.ndarray
) -> Iterator[dict[str, Any]]:
    """A row for each way; scores are of cells of types that were learned."""
    classes, codes = np.unique(types[learned], return_inverse=True)
    annotator = fit_annotator(vectors[learned], codes, list(classes))
    moved, _ = align_cells(annotator, vectors[asked], "auto")
    own = annotator.probabilities(moved)
    rows = np.flatnonzero(np.isin(types[asked], classes))
    truth = np.searchsorted(classes, types[asked][rows])
    print(kind, name, len(learned), len(asked), flush=True)
    for n_neighbors, weight in WAYS:
        p = softmax(smoothed(vectors[asked], own, np.zeros(len(asked)), n_neighbors, weight))[rows]
        of_truth = p[np.arange(len(rows)), truth]
        yield {
            "labels": kind,
            "neighbors": n_neighbors,
            "weigh": weight,
            "macro-F1": f1_score(
                truth, p.argmax(axis=1), labels=np.unique(truth), average="macro", zero_division=0
            ),
            "log loss": -np.log(np.maximum(of_truth, 1e-6)).mean(),
            "calibration error": expected_calibration_error(p, truth),
            "coverage": annotator.sets(p, ERROR)[np.arange(len(rows)), truth].mean(),
        }
