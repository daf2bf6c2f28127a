"""The pages about the reference of cell types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from scellm.annotation._annotator import Annotator

TYPES_PAGE = Path(__file__).parents[2] / "docs" / "guide" / "cell_types.md"
TEXT = """
`scellm.tl.annotate(adata)` without a reference uses the one inside `{model}`: {n_types} types under {n_nodes} nodes of a tree,
from {n_real} measured cells of {n_studies} human studies, {n_drawn} cells drawn around the mean profiles of {n_profiled}
others, and {n_mouse} mouse cells for types without human ones. A classifier on the embedding and one on the log expression of
{n_genes} genes share the say; the one on genes counts by the square root of the share of these genes that the cells have
({{doc}}`what that is worth <left_out>`), and the 15 nearest cells of the same data weigh a half. {{doc}}`All types by tissue <../guide/cell_types>`.

Each of the studies below was left out in turn, with profiles made of the same cells, the reference was built from all
others, and its cells were annotated (the classifier on genes leaves three studies out at a time); the temperature and the thresholds come from the other studies of the table. A cell is
right if the way down the tree passes the node that its authors named. None of the studies is of the benchmark. Types that no
other study has are not tested.
The encoder itself was trained on some of these studies, with their labels (see its recipe): the numbers are too good for
a new study, by how much is not known here. The benchmark of cell types is on sets that no part of the model has seen.

Means over studies: right at the depth of the authors' label {accuracy:.3f}, right lineage {coarse_accuracy:.3f}, calibration
error {ece_after:.3f}. At an asked error of 5 %, {named:.1%} of the cells are named and {right:.1%} of these by the true type
or an ancestor of it. {n_untested} types are in one study only, so nothing here says how well they are found. The part has
{size:.1f} MB.

*Doubt in lineages.* With `target_error` a node is worth 1 - c (1 - p), and the deepest one on the way down that reaches the threshold is named.
The second table has c at lineages (lymphocyte, epithelial cell, ...) and at nodes above them (blood cell); below it is 1. *Lineage or
finer*, *authors' level* and *depth* (0 without a name) are of all cells; *gain* is with its standard error over studies. {chosen}. c was chosen here: the
smallest with which names are on average as deep as without it. The choice saw the studies that the first table is about.
"""


def text_of(annotator: Annotator, cells: pd.DataFrame, size: int, model: str, chosen: str) -> str:
    """What stands above the table."""
    tree, report, types = annotator.tree, annotator.report, annotator.facts["types"]
    real, mouse = cells["is_real"], cells["is_mouse"]
    return TEXT.format(
        model=model,
        n_types=len(annotator.classes),
        n_nodes=len(tree.names),
        n_genes=len(annotator.gene_head.genes) if annotator.gene_head else 0,
        n_real=int((real & ~mouse).sum()),
        n_studies=cells["name"][real & ~mouse].nunique(),
        n_drawn=int((~real & ~mouse).sum()),
        n_profiled=cells["name"][~real & ~mouse].nunique(),
        n_mouse=int(mouse.sum()),
        accuracy=report["accuracy"],
        coarse_accuracy=report["coarse_accuracy"],
        ece_after=report["ece_after"],
        named=report["named_0.05"],
        right=report["right_0.05"],
        n_untested=sum(types[node]["n_tested"] == 0 for node in tree.node_of_class),
        size=size / 1e6,
        chosen=chosen,
    )


def by_study(
    annotator: Annotator,
    probabilities: np.ndarray,
    nodes: np.ndarray,
    studies: np.ndarray,
    strange: np.ndarray,
) -> pd.DataFrame:
    """One row per study that was left out."""
    tree = annotator.tree
    lineage = tree.lineage
    chain, _ = tree.chains(probabilities)
    hit = (chain == nodes[:, None]).any(axis=1)
    coarse = (chain == lineage[nodes][:, None]).any(axis=1)
    found_at = tree.deepest(probabilities, least_score=annotator.least_score(0.05))
    right = (found_at >= 0) & tree.agrees(found_at, nodes)
    rows = []
    for study in np.unique(studies):
        here = studies == study
        has = here & (lineage[nodes] >= 0)
        named = here & (found_at >= 0)
        rows.append(
            {
                "study": study,
                "cells": int(here.sum()),
                "types": len(np.unique(nodes[here])),
                "accuracy": float(hit[here].mean()),
                "balanced": float(np.mean([hit[here & (nodes == x)].mean() for x in np.unique(nodes[here])])),
                "lineage": float(coarse[has].mean()),
                "named (5 %)": float((found_at[here] >= 0).mean()),
                "right of the named": float(right[named].mean()) if named.any() else float("nan"),
                "novel": float((annotator.novelty_scores(strange[here], 0.05) > 1).mean()),
            }
        )
    return pd.DataFrame(rows)


def by_type(
    annotator: Annotator, probabilities: np.ndarray, nodes: np.ndarray, studies: np.ndarray
) -> pd.DataFrame:
    """One row per type and study that was left out: how many cells pass it on the way down, and where the others end."""
    tree = annotator.tree
    chain, _ = tree.chains(probabilities)
    hit = (chain == nodes[:, None]).any(axis=1)
    last = chain[np.arange(len(chain)), (chain >= 0).sum(axis=1) - 1]
    rows = []
    for study in np.unique(studies):
        for node in np.unique(nodes[studies == study]):
            here = (studies == study) & (nodes == node)
            wrong = pd.Series([tree.names[i] for i in last[here & ~hit]], dtype=object).value_counts()
            rows.append(
                {
                    "type": tree.names[node],
                    "study": study,
                    "cells": int(here.sum()),
                    "right": float(hit[here].mean()),
                    "the others are called": ", ".join(f"{name} ({n})" for name, n in wrong.head(3).items()),
                }
            )
    return pd.DataFrame(rows).sort_values(["type", "study"], ignore_index=True)


def page_of_types(annotator: Annotator) -> Path:
    """The page of all types by tissue."""
    tree, types = annotator.tree, annotator.facts["types"]
    is_class = np.isin(np.arange(len(tree.names)), tree.node_of_class)
    lines = [
        "# All cell types\n",
        f"What `scellm.tl.annotate(adata)` can answer without a reference: {len(annotator.classes)} types, and the broader ones above",
        "them. *Cells* are measured ones, drawn ones (around mean profiles), and mouse ones. *Recognized* is the share of the cells",
        "of studies left out that were given this type or one below it where their authors did; a dash means that no second study",
        "has it, so that nobody knows. *Right* is the share of the cells so named, or named one below it, that were of it, among those",
        "whose authors say so precisely; `get.annotation` shows both as `recall_left_out` and `precision_left_out`. Search the page with the browser, or the site with the search box: synonyms are listed. A type",
        "may be passed as `classes=` or `exclude=` by its name, a synonym or its id.\n",
        "The tree is curated: it follows the Cell Ontology (CC BY 4.0) where that helps a reader, and departs from it for mesothelium,",
        "microglia, smooth muscle beside pericytes, and nodes without an id, such as T or NK cells. Made by",
        "`python tests/benchmarks/reference.py`.\n",
    ]
    tissues = ["", *sorted(annotator.facts["tissues"])]
    for tissue in tissues:
        mine = [
            i
            for i, fact in enumerate(types)
            if (fact["n_studies"] > 0)
            and (tissue in fact["tissues"] if tissue else fact["tissues"] in ([], ["solid"]))
        ]
        if not mine:
            continue
        uberon = annotator.facts["tissues"].get(tissue, "")
        lines += [f"\n## {tissue.capitalize() or 'Everywhere'}{f' ({uberon})' if uberon else ''}\n"]
        lines += [
            "| type | id | lineage | cells | studies | recognized | right | markers | also called |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for i in sorted(mine, key=lambda i: (tree.names[max(tree.lineage[i], 0)], tree.names[i])):
            fact = types[i]
            lineage = tree.names[tree.lineage[i]] if tree.lineage[i] >= 0 else ""
            counts = " + ".join(
                f"{fact[f'n_{kind}']} {word}"
                for kind, word in (("measured", "measured"), ("drawn", "drawn"), ("mouse", "mouse"))
                if fact[f"n_{kind}"]
            )
            recall = f"{fact['recall']:.0%} of {fact['n_tested']}" if fact["n_tested"] else "–"
            right = (
                f"{fact['precision']:.0%} of {fact['n_named']}"
                if fact["n_named"] and fact["n_tested"]
                else "–"
            )
            name = f"**{tree.names[i]}**" if is_class[i] else f"*{tree.names[i]}*"
            lines.append(
                f"| {name} | {tree.ids[i]} | {lineage} | {counts} | {fact['n_studies']} | {recall} | {right} | "
                f"{', '.join(fact['markers'][:5])} | {', '.join(fact['synonyms'][:4])} |"
            )
    TYPES_PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TYPES_PAGE
