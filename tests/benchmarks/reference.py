"""Build the reference of cell types that comes with a model, and judge it on studies that are left out.

    python tests/benchmarks/reference.py DATA [--model scellm-small] [--out FOLDER] [--page]

DATA has the folders `corpus`, `corpus_wide`, `corpus_more` and `profiles`. Cells are measured ones of the labeled studies,
and cells drawn around the mean profiles of others; `reference_types.tsv` is the tree: its types, their terms in the Cell
Ontology, the tissues they live in and the labels of the sources that mean them. Labels not listed are left out: of cell
lines, of tumors, of doublets. Types without human cells take mouse ones through one-to-one orthologs. Nothing of
`benchmarks` is read. Needs cellxgene-ontology-guide. The part `reference` is written into the model's folder. `--page` also
writes `docs/benchmarks/reference.md` and `docs/guide/cell_types.md`. Run it again whenever the weights change.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import _reference_cells as source
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _genes_on_tree import (
    N_NEIGHBORS,
    NEIGHBORS_WEIGH,
    GenesOnTree,
    fit_genes,
    neighbors_said,
    some_of_each,
    together,
)
from _reference_page import by_study, by_type, page_of_types, text_of
from _report import write
from _threshold_trials import chosen, with_doubt

import scellm
from scellm.annotation._annotator import Annotator
from scellm.annotation._decide import AS_LIKELY_AS_NOT
from scellm.annotation._fit_tree import allowed_classes, calibrate_on_tree, fit_on_tree, fit_temperature
from scellm.annotation._smoothing import Smoothing
from scellm.annotation._tree import Tree
from scellm.metrics._calibration import softmax
from scellm.metrics._conformal import balance
from scellm.models._hub import shipped_folder
from scellm.models._parts import write_part

N_EXEMPLARS = 3_500
N_FOLDS, N_THREADS = 7, 3
"""In which studies are left out of the head on genes."""
N_MARKERS = 8
LEAST_DETECTED = 0.25
"""Share of a type's cells that express a gene for it to be a marker."""
SYNONYMS = {
    "B cell": "B lymphocyte",
    "OPC": "oligodendrocyte progenitor",
    "regulatory T cell": "Treg",
    "NK cell": "natural killer",
    "cDC1": "DC1",
    "cDC2": "DC2",
}


def ontology(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Ids and synonyms of the terms; curated nodes have none."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    taken = {synonym: name for name, synonym in SYNONYMS.items()}  # no synonym of another type
    ids, synonyms = [], []
    for name, term in zip(rows["type"], rows["term"], strict=True):
        found = (parser.get_term_id_by_label(term, "CL") or "") if term else ""
        if term and not found:
            msg = f"{term!r} is no term of the Cell Ontology."
            raise ValueError(msg)
        ids.append(found)
        more = [term, *(parser.get_term_synonyms(found) if found else [])]
        more += [SYNONYMS[name]] if name in SYNONYMS else []
        more = [x for x in more if taken.get(x, name) == name]
        synonyms.append(sorted({x for x in more if x and x.lower() != name.lower()})[:12])
    return ids, synonyms


def uberon(names: list[str]) -> dict[str, str]:
    """Ids of tissues."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    return {
        name: parser.get_term_id_by_label(source.UBERON.get(name, name), "UBERON") or "" for name in names
    }


def marker_genes(
    tree: Tree, nodes: np.ndarray, cells: pd.DataFrame, logged: sp.csr_array, symbols: np.ndarray
) -> list[list[str]]:
    """Genes that set a node apart: highest in it over the 90th percentile of the classes outside, widely detected."""
    holds = tree.holds
    means, detected = [], []
    for node in tree.node_of_class:
        rows = np.flatnonzero(nodes == node)
        by_study = [
            logged[rows[part]].mean(axis=0)
            for part in cells["name"].iloc[rows].groupby(cells["name"].iloc[rows].to_numpy()).indices.values()
        ]
        means.append(np.mean(by_study, axis=0))
        detected.append((logged[rows] > 0).mean(axis=0))
    means, detected = np.array(means), np.array(detected)
    found = []
    for node in range(len(tree.names)):
        mine = holds[:, node]
        if not mine.any() or mine.all():
            found.append([])
            continue
        outside = np.quantile(means[~mine], 0.95, axis=0)
        gain = np.where(
            np.median(detected[mine], axis=0) >= LEAST_DETECTED, np.median(means[mine], axis=0) - outside, -1
        )
        best = np.argsort(-gain)[:N_MARKERS]
        found.append([str(symbols[i]) for i in best if gain[i] > 0])
    return found


def left_out(
    vectors: np.ndarray, nodes: np.ndarray, cells: pd.DataFrame, tree: Tree
) -> dict[str, np.ndarray]:
    """Rows of measured human studies that could be tested, their logits and outlier scores by what was fitted without."""
    names, above = cells["name"].to_numpy(), tree.above
    found: dict[str, list[np.ndarray]] = {"tested": [], "logits": [], "strange": []}
    for study in cells["name"][cells["is_real"] & ~cells["is_mouse"]].unique():
        train, test = rows_without([study], names), np.flatnonzero(names == study)
        covered = above[np.unique(nodes[train])].any(axis=0)  # nodes that other studies have cells of
        test = test[covered[nodes[test]]]
        if not len(test):
            continue
        fitted = fit_on_tree(
            vectors[train], nodes[train], tree, groups=names[train], max_exemplars=N_EXEMPLARS
        )
        found["tested"].append(test)
        found["logits"].append(fitted.logits(vectors[test]))
        found["strange"].append(fitted.outlier_score(vectors[test]))
        print(study, len(test), flush=True)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def genes_left_out(
    tested: np.ndarray,
    nodes: np.ndarray,
    names: np.ndarray,
    tree: Tree,
    logged: sp.csr_array,
    has: np.ndarray,
) -> dict[str, np.ndarray]:
    """For the same rows: logits of heads on genes that were fitted without their study, and the share of the genes it has.

    Several studies are left out at a time, which is quicker and makes the head no better than it is.
    """
    by_genes, share = np.zeros((len(tested), len(tree.node_of_class))), np.zeros((len(tested), 1))
    studies = list(pd.Series(names[tested]).value_counts().index)

    def leave_out(fold: list[str]) -> None:
        genes = genes_of(rows_without(fold, names), nodes, names, tree, logged, has)
        here = np.isin(names[tested], fold)
        by_genes[here] = genes.logits(logged[tested[here]], has[tested[here]])
        share[here] = has[tested[here]][:, genes.columns].mean(axis=1, keepdims=True)
        print("genes,", fold, flush=True)

    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(leave_out, [studies[i::N_FOLDS] for i in range(N_FOLDS)]))
    return {"by_genes": by_genes, "share": share}


def rows_without(out: list[str], names: np.ndarray) -> np.ndarray:
    """Rows of all studies but these and the profiles made of them."""
    of_them = [name for study in out for name in (study, *source.SAME_STUDY.get(study, ()))]
    return np.flatnonzero(~np.isin(names, of_them))


def genes_of(
    rows: np.ndarray,
    nodes: np.ndarray,
    studies: np.ndarray,
    tree: Tree,
    logged: sp.csr_array,
    has: np.ndarray,
) -> GenesOnTree:
    """The head on genes of some of these cells, the same number of each label at most."""
    rows = rows[some_of_each(nodes[rows], np.random.default_rng(0))]
    return fit_genes(logged[rows], has[rows], nodes[rows], studies[rows], tree)


def calibrate(
    annotator: Annotator, logits: np.ndarray, vectors: np.ndarray, held_out: tuple[np.ndarray, ...]
) -> tuple[dict[str, Any], np.ndarray]:
    """Calibrate with and without neighbors; what was found with them, and their scores."""
    studies = held_out[-1]
    annotator.facts["alone"] = calibrate_on_tree(annotator, logits, *held_out)
    alone = annotator.calibration
    smoothing = Smoothing(n_neighbors=N_NEIGHBORS, weight=NEIGHBORS_WEIGH, temperature=1.0)
    said = neighbors_said(vectors, softmax(logits / alone.temperature), studies, smoothing)
    report = calibrate_on_tree(annotator, said, *held_out)
    both, annotator.calibration = annotator.calibration, alone
    annotator.smoothing = replace(smoothing, temperature=both.temperature, path_errors=both.path_errors)
    return report, said


def facts_of_types(
    rows: pd.DataFrame,
    tree: Tree,
    nodes: np.ndarray,
    cells: pd.DataFrame,
    tested: np.ndarray,
    probabilities: np.ndarray,
) -> list[dict[str, Any]]:
    """What is known of each node."""
    above, truth = tree.above, nodes[tested]
    chain = tree.chains(probabilities)[0]
    passed = (chain[:, :, None] == np.arange(len(tree.names))).any(axis=1)
    named = tree.deepest(probabilities, AS_LIKELY_AS_NOT)
    named_above = above[named] & (named >= 0)[:, None]
    found = []
    for i in range(len(rows)):
        can_tell = named_above[:, i] & (
            above[truth, i] | ~above[i, truth]
        )  # not those known only more broadly
        mine = above[nodes, i]
        part, at = cells[mine], above[nodes[tested], i]
        listed = [x.strip() for x in rows["tissues"].iloc[i].split(";")]
        found.append(
            {
                "tissues": [] if listed == ["any"] else listed,
                "seen_in": sorted({x for x in part["tissue"] if x}),
                "n_measured": int((part["is_real"] & ~part["is_mouse"]).sum()),
                "n_drawn": int((~part["is_real"] & ~part["is_mouse"]).sum()),
                "n_mouse": int(part["is_mouse"].sum()),
                "n_studies": int(part["name"].nunique()),
                "recall": float(passed[at, i].mean()) if at.any() else -1.0,
                "n_tested": int(at.sum()),
                "precision": float(above[truth, i][can_tell].mean()) if can_tell.any() else -1.0,
                "n_named": int(can_tell.sum()),
            }
        )
    return found


def sources(datasets: list[Any]) -> pd.DataFrame:
    """Where the cells are from."""
    return pd.DataFrame(
        [
            {
                "dataset": adata.uns["name"],
                "cells": adata.n_obs,
                **{field: " ".join(adata.uns[field].split())[:160] for field in source.SOURCE},
            }
            for adata in datasets
        ]
    )


def main() -> None:
    """Build, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--out", type=Path, help="folder of the model; the shipped one by default")
    parser.add_argument(
        "--cache", type=Path, help="file that keeps what was left out, so that it is fitted once"
    )
    parser.add_argument("--page", action="store_true", help="write the pages of the documentation too")
    options = parser.parse_args()
    folder = options.out or shipped_folder() / options.model
    model = scellm.models.load(folder)
    rng = np.random.default_rng(0)
    rows = source.table()
    ids, synonyms = ontology(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # estimated counts of some sources
        datasets = source.measured(options.data, rows, rng) + source.around_profiles(options.data, rows, rng)
        vectors, cells, logged, marks, has = source.embedded(datasets, model)
    has = has[pd.factorize(cells["name"])[0]]
    tree = source.tree_of(rows, set(cells["type"]), ids)
    nodes = np.array([tree.names.index(name) for name in cells["type"]])
    studies = cells["name"].to_numpy()

    held_out: dict[str, np.ndarray] = {}
    if options.cache and options.cache.exists():
        with np.load(options.cache, allow_pickle=False) as file:
            held_out = dict(file)
    if "logits" not in held_out:
        held_out = left_out(vectors, nodes, cells, tree)
    if "by_genes" not in held_out:
        held_out |= genes_left_out(held_out["tested"], nodes, studies, tree, logged, has)
    if options.cache:
        np.savez(options.cache, **held_out)
    tested, strange = held_out["tested"], held_out["strange"]
    annotator = fit_on_tree(vectors, nodes, tree, groups=studies, max_exemplars=N_EXEMPLARS)
    weights = balance(studies[tested], len(tested))
    allowed = allowed_classes(tree, nodes[tested])
    alone = fit_temperature(held_out["logits"], allowed, weights)
    mixed = together(held_out["logits"], held_out["by_genes"], held_out["share"])
    joint = fit_temperature(mixed, allowed, weights)
    genes = genes_of(np.arange(len(nodes)), nodes, studies, tree, logged, has)
    annotator.gene_head = genes.named(model.vocabulary.symbols, alone, joint)
    logits = mixed * alone / joint
    report, said = calibrate(
        annotator, logits, vectors[tested], (nodes[tested], strange, weights, studies[tested])
    )
    probabilities = softmax(said / annotator.smoothing.temperature)
    types = facts_of_types(rows, tree, nodes, cells, tested, probabilities)
    markers = marker_genes(tree, nodes, cells, logged, model.vocabulary.symbols)
    for i, fact in enumerate(types):
        fact |= {"markers": markers[i], "synonyms": synonyms[i], "term": rows["term"].iloc[i]}
    is_real = cells["is_real"].to_numpy()
    annotator.report = {
        **report,
        "method": "linear",
        "macro_f1_by_method": {},
        "held_out": "studies",
        "n_groups": len(np.unique(studies[tested])),
        "n_cells": len(nodes),
        "n_fitted": len(nodes),
    }
    listed = sorted({x.strip() for text in rows["tissues"] for x in text.split(";")} - {"any", "solid"})
    annotator.facts |= {
        "ontology": "Cell Ontology (CC BY 4.0); the tree is curated",
        "ontology_ids": [ids[node] for node in tree.node_of_class],
        "types": types,
        "tissues": uberon(listed),
        "studies": sorted(set(studies[is_real])),
        "profiles": sorted({name.removeprefix("drawn_") for name in studies[~is_real]}),
        "made_by": "tests/benchmarks/reference.py",
    }
    part = annotator.to_part()
    part.tensors["exemplars"] = part.tensors["exemplars"].astype(np.float16)
    part.tensors["cell_hashes"] = marks[is_real]
    part.meta["hashed_studies"] = [str(x) for x in studies[is_real]]
    write_part(folder, "reference", part)
    size = sum((folder / f"reference.{kind}").stat().st_size for kind in ("safetensors", "json"))
    table = by_study(annotator, probabilities, nodes[tested], studies[tested], strange)
    print(table.to_string(), report, size, sep="\n")
    if options.page:
        doubt = with_doubt(said, nodes[tested], tree, studies[tested])
        text = text_of(annotator, cells, size, model.name, chosen(doubt))
        tables = {
            "Studies left out": table,
            "Doubt in lineages": doubt,
            "Sources": sources(datasets),
            "Types in the studies left out": by_type(
                annotator, probabilities, nodes[tested], studies[tested]
            ),
        }
        facts = {"model": model.name, "sha256": model.sha256, "report": annotator.report}
        print(write("reference", "The reference of cell types", text, tables, facts))
        print(page_of_types(annotator))


if __name__ == "__main__":
    main()
