"""What the doubt in lineages counts where an error is promised: trials on studies left out and on references of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from _neighbor_trials import pairs

from scellm.annotation._align import align_cells
from scellm.annotation._fit import fit_annotator
from scellm.annotation._fit_tree import allowed_classes, fit_temperature
from scellm.annotation._levels import tree_of_levels
from scellm.annotation._tree import LINEAGE_DOUBT, Tree
from scellm.metrics._calibration import softmax
from scellm.metrics._conformal import balance, conformal_threshold, score_quantiles

ERRORS = (0.05, 0.1)
DOUBTS = (1.0, 0.8, LINEAGE_DOUBT, 0.6, 0.4)
COUNTS = (*((at, at) for at in DOUBTS), *((at, at**2) for at in DOUBTS[1:]), (1.0, 0.6), (1.0, 0.4))
"""What doubt counts at lineages, and above them."""
SHARES = ("named", "right", "lineage or finer", "authors' level", "depth")


def with_doubt(said: np.ndarray, nodes: np.ndarray, tree: Tree, studies: np.ndarray) -> pd.DataFrame:
    """Means over studies for each way to count doubt; temperature and threshold of a study are those of the others.

    Parameters
    ----------
    said
        (n, K) scores before their temperature.
    nodes
        (n,) true nodes.
    tree
        Over the classes.
    studies
        (n,) names.
    """
    allowed, weights, names = allowed_classes(tree, nodes), balance(studies, len(studies)), np.unique(studies)
    ways = {}
    for study in names:
        others = studies != study
        temperature = fit_temperature(said[others], allowed[others], weights[others])
        ways[study] = tree.chains(softmax(said / temperature))
    rows, first = [], {}
    for error in ERRORS:
        for at, above in COUNTS:
            counts = _counts(tree, at, above)
            found = np.full(len(nodes), -1)
            for study in names:
                here, (chain, values) = studies == study, ways[study]
                score = np.where(chain >= 0, 1 - counts[chain] * (1 - values), 0)
                wrong = np.where((chain >= 0) & ~tree.agrees(chain, nodes[:, None]), score, 0).max(axis=1)
                quantiles = score_quantiles(wrong[~here], weights[~here])
                least = conformal_threshold(quantiles, int((~here).sum()), error) + 2e-6
                depth = ((chain >= 0) & (score >= least - 1e-6)).sum(axis=1)
                last = chain[np.arange(len(chain)), np.maximum(depth, 1) - 1]
                found[here] = np.where(depth > 0, last, -1)[here]
            table = pd.DataFrame([_shares(tree, found[studies == x], nodes[studies == x]) for x in names])
            gain = table - first.setdefault(error, table)
            row: dict[str, Any] = {"asked error": f"{error:.0%}", "at lineages": at, "above them": above}
            row |= _means(table)
            for name in ("named", "authors' level"):
                row[f"gain, {name}"] = f"{gain[name].mean():+.3f} ± {gain[name].sem():.3f}"
            rows.append(row)
    return pd.DataFrame(rows)


def own_with_doubt(cells: dict[str, np.ndarray], tree: Tree) -> pd.DataFrame:
    """The same for references of one's own, with lineages and the nodes below these as `levels=`."""
    rows = []
    for kind, name, learned, asked, vectors, types in pairs(cells):
        place = {node: i for i, node in enumerate(tree.names)}
        above = [_levels(tree, place[x]) for x in types[learned]]
        levels = {"lineage": np.array([x[0] for x in above]), "broad": np.array([x[1] for x in above])}
        classes, codes = np.unique(types[learned], return_inverse=True)
        own = tree_of_levels(types[learned], levels, list(classes))
        known = np.isin(types[asked], classes)
        print(kind, name, own.names, flush=True)
        for doubt in DOUBTS:
            annotator = fit_annotator(
                vectors[learned],
                codes,
                list(classes),
                method="linear",
                tree=replace(own, lineage_doubt=doubt),
            )
            moved, _ = align_cells(annotator, vectors[asked], "auto")
            p = annotator.probabilities(moved)[known]
            truth = annotator.tree.node_of_class[np.searchsorted(classes, types[asked][known])]
            for error in ERRORS:
                found = annotator.tree.deepest(p, least_score=annotator.least_score(error))
                row = {"labels": kind, "asked error": f"{error:.0%}", "at lineages": doubt}
                rows.append(row | _shares(annotator.tree, found, truth))
    found = []
    for key, part in pd.DataFrame(rows).groupby(["labels", "asked error", "at lineages"], sort=False):
        row = dict(zip(("labels", "asked error", "at lineages"), key, strict=True))
        found.append(row | {"cases": len(part)} | _means(part))
    return pd.DataFrame(found).sort_values(
        ["labels", "asked error", "at lineages"], ascending=[True, True, False]
    )


def chosen(table: pd.DataFrame) -> str:
    """What the table of studies left out says of what ships."""
    is_asked = table["asked error"] == f"{ERRORS[0]:.0%}"

    def row(at: float, above: float) -> pd.Series:
        return table[is_asked & (table["at lineages"] == at) & (table["above them"] == above)].iloc[0]

    rows = {
        "as all other": row(1.0, 1.0),
        f"{LINEAGE_DOUBT:g} times, above them its square, as shipped": row(LINEAGE_DOUBT, LINEAGE_DOUBT**2),
        f"{LINEAGE_DOUBT:g} times, above them, too": row(LINEAGE_DOUBT, LINEAGE_DOUBT),
        "0.6 times, above them, too": row(0.6, 0.6),
        "0.4 times, above them its square": row(0.4, 0.4**2),
    }
    return "At an asked error of 5 %, if doubt in lineages counts " + "; ".join(
        f"{name}: {x['named']:.1%} named, {x['right']:.1%} of these right, {authors:.1%} at the level of the authors, mean depth {x['depth']:.2f}"
        for name, x in rows.items()
        for authors in [x["authors' level"]]
    )


def _means(table: pd.DataFrame) -> dict[str, float]:
    """Means over studies; what is right is of the named cells, of all studies together."""
    mean = table[list(SHARES)].mean().to_dict()
    return mean | {"right": mean["right"] / mean["named"]}


def _counts(tree: Tree, at: float, above: float) -> np.ndarray:
    """(M,) what doubt in each node counts."""
    is_above = tree.above[tree.is_lineage].any(axis=0) & ~tree.is_lineage
    return np.where(tree.is_lineage, at, np.where(is_above, above, 1.0))


def _shares(tree: Tree, found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Shares of all cells; of right ones, too."""
    has = found >= 0
    return {
        "named": has.mean(),
        "right": (has & tree.agrees(found, truth)).mean(),
        "lineage or finer": (has & (tree.lineage[found] >= 0)).mean(),
        "authors' level": (has & tree.above[found, truth]).mean(),
        "depth": (has * tree.above.sum(axis=1)[found]).mean(),
    }


def _levels(tree: Tree, node: int) -> tuple[str, str]:
    """Lineage of a node, and the node below that on the way to it."""
    path = tree.path(node)
    at = path.index(tree.names[tree.lineage[node]])
    return path[at], path[min(at + 1, len(path) - 1)]
