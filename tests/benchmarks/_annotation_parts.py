"""The measurements of the annotation benchmark, one function per part: a model in, rows of a table out."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _annotation_data as data
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _annotation_methods import (
    NONE,
    Cells,
    Pythons,
    accuracy,
    best,
    by_celltypist,
    by_singler,
    celltypist_by,
    embed,
    logged,
    logistic_regression,
    macro_f1,
    pca_neighbors,
    random_like,
    scellm_annotator,
)
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import scellm
from scellm.annotation._align import align_cells
from scellm.annotation._decide import MAX_SHIFT
from scellm.annotation._fit import fit_annotator
from scellm.metrics import find_leakage
from scellm.metrics._calibration import softmax
from scellm.metrics._cell_hashes import cell_hashes, match_hashes
from scellm.models import CellLM
from scellm.tl._vectors import cell_vectors, log_expression

Row = dict[str, Any]
SEEDS = 5
SHOTS = (5, 10, 50)
MOST_TESTED = 1500
"""Cells of a set that few-shot predictions are made for."""
FALSE_ALARM = 0.05
N_TIMED, N_RUNS = 20_000, 3
"""Cells that are timed, and how often."""


INDEPENDENT = ("logistic regression", "PCA + kNN", "celltypist", "SingleR")
"""Methods that no model is in: measured before, they are measured."""


def known(before: Sequence[Row], row: Row) -> Row:
    """What was measured before of methods that do not depend on the model, for the set, shots or studies of a row."""
    keys = [key for key in ("set", "reference", "query", "cells per type", "types") if key in row]
    for old in before:
        if all(old.get(key) == row[key] for key in keys):
            return {
                name: value
                for name, value in old.items()
                if name.removesuffix(" ±").removesuffix(", s") in INDEPENDENT and value is not None
            }
    return {}


def cells_of(adata, model: CellLM, *, n_random: int = 1, genes: list[str] | None = None) -> Cells:
    """All that the methods read."""
    vectors = {"scellm": embed(adata, model)}
    vectors |= {f"random {seed}": embed(adata, random_like(model, seed)) for seed in range(n_random)}
    study = adata.obs["study"].astype(str).to_numpy()
    return Cells(logged(adata, genes), vectors, adata.obs["cell_type"].astype(str).to_numpy(), study)


def join_cells(parts: list[Cells]) -> Cells:
    """Several studies as one."""
    return Cells(
        sp.vstack([part.logged for part in parts], format="csr"),
        {name: np.concatenate([part.vectors[name] for part in parts]) for name in parts[0].vectors},
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.study for part in parts]),
    )


def compared(celltypist: str) -> dict[str, Callable]:
    """Column -> method."""
    found = {
        "scellm": scellm_annotator("scellm"),
        "logistic regression": logistic_regression,
        "PCA + kNN": pca_neighbors,
    }
    if celltypist:
        found["celltypist"] = celltypist_by(celltypist)
    return found | {"random weights": scellm_annotator("random 0")}


# -- no labels ----------------------------------------------------------------------------------------------------


def on_genes_of_reference(tree, pythons: Pythons, sets: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Baselines on genes of the reference's cells: method -> set -> node of each of its cells.

    Cells are those that the shipped reference is made of, at most `MOST` of a label, known at any depth. Logistic regression
    gets the tree; celltypist and SingleR take each label, fine or broad, for a class of its own. All read the same 1,000 genes.
    """
    import _reference_cells as source
    import anndata as ad
    from _genes_on_tree import fit_genes, some_of_each

    rng = np.random.default_rng(0)
    rows = source.table()
    parts = source.measured(data.DATA, rows, rng) + source.around_profiles(data.DATA, rows, rng)
    parts = [part for part in parts if part.n_vars > 900]
    joined = ad.concat(parts, join="outer", fill_value=0)
    nodes = np.array([tree.names.index(name) for name in joined.obs["type"]])
    has = np.concatenate([np.tile(joined.var_names.isin(part.var_names), (part.n_obs, 1)) for part in parts])
    studies = np.repeat([part.uns["name"] for part in parts], [part.n_obs for part in parts])
    kept = some_of_each(nodes, rng)
    train = ad.AnnData(logged(joined[kept]), obs={"cell_type": np.array(tree.names)[nodes[kept]]})
    train.var_names = joined.var_names
    fitted = fit_genes(train.X, has[kept], nodes[kept], studies[kept], tree)
    tests = {}
    for name, adata in sets.items():
        shared = [gene for gene in train.var_names if gene in adata.var_names]
        tests[name] = ad.AnnData(logged(adata, shared))
        tests[name].var_names = shared
    found: dict[str, dict[str, np.ndarray]] = {"logistic regression": {}}
    for name, test in tests.items():
        place, values = train.var_names.get_indexer(test.var_names), test.X.tocoo()
        X = sp.csr_array((values.data, (values.row, place[values.col])), shape=(test.n_obs, train.n_vars))
        chain = tree.chains(softmax(fitted.logits(X, np.isin(np.arange(train.n_vars), place))))[0]
        found["logistic regression"][name] = chain[np.arange(len(chain)), (chain >= 0).sum(axis=1) - 1]
    genes = train.var_names[np.sort(fitted.columns)]
    tests = {name: test[:, test.var_names.isin(genes)].copy() for name, test in tests.items()}
    if pythons.celltypist:
        tables = by_celltypist(pythons.celltypist, train[:, genes].copy(), tests)
        found["celltypist"] = {
            name: np.array([tree.names.index(x) for x in table.columns[table.to_numpy().argmax(axis=1)]])
            for name, table in tables.items()
        }
    if pythons.singler:
        labels = by_singler(pythons.singler, train[:, genes].copy(), tests)
        found["SingleR"] = {
            name: np.array([tree.names.index(label) for label in of_set]) for name, of_set in labels.items()
        }
    return found


def zero_shot(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """`tl.annotate` with nothing but the model, with the tissue, and baselines on genes of the same reference cells."""
    from scellm.annotation._annotator import Annotator

    if "reference" not in model.parts:
        return
    tree = Annotator.from_part(model.parts["reference"]).tree
    methods = ("logistic regression", *pythons.there)
    sets = {name: data.read_for_ontology(name) for name in data.HELD_OUT}
    by_genes: dict[str, dict[str, np.ndarray]] = {}
    for name, adata in sets.items():
        truth = adata.obs["cell_type"].astype(str).to_numpy()
        nodes = np.array([tree.names.index(data.ONTOLOGY[old][0]) for old in truth])
        old = known(before, {"set": data.short(name), "types": len(np.unique(truth))})
        if not set(methods) <= set(old):
            by_genes = by_genes or on_genes_of_reference(tree, pythons, sets)
            old |= {
                method: macro_f1(truth, _common(tree, found[name], truth, nodes))
                for method, found in by_genes.items()
                if method not in old
            }
        row = {"set": data.short(name), "types": len(np.unique(truth)), "cells": adata.n_obs}
        scellm.tl.annotate(adata, model=model, min_overlap=0.02, min_confidence=None, novelty_error=None)
        guess = _common(tree, _nodes(adata, tree), truth, nodes)
        p = np.nan_to_num(adata.obsm["scellm_cell_type_probabilities"])
        row |= {"scellm": macro_f1(truth, guess)}
        tissue = data.TISSUE[name]
        scellm.tl.annotate(
            adata, model=model, min_overlap=0.02, min_confidence=None, novelty_error=None, tissue=tissue
        )
        with_tissue = _common(tree, _nodes(adata, tree), truth, nodes)
        row |= {"scellm, tissue=": macro_f1(truth, with_tissue), **old, "accuracy": accuracy(truth, guess)}
        yield row | _at_five_percent(adata, model, tree, nodes) | {"ECE": _ece(tree, p, nodes)}


def shipped_calibration(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """Confidence of the shipped reference beside what a perfect one would be measured as, and other temperatures."""
    from scellm.annotation._annotator import Annotator
    from scellm.annotation._fit_tree import calibration_error, confidence_at
    from scellm.annotation._neighbors import Neighborhood
    from scellm.tl._annotate_sources import read_cells

    annotator, rng = Annotator.from_part(model.parts["reference"]), np.random.default_rng(0)
    tree = annotator.tree
    for name in data.HELD_OUT:
        adata = data.read_for_ontology(name)
        vectors, _ = align_cells(annotator, cell_vectors(adata, model, {"min_overlap": 0.02})[0], "auto")
        is_full = np.isfinite(vectors).all(axis=1)
        labels = adata.obs["cell_type"].astype(str).to_numpy()[is_full]
        nodes = np.array([tree.names.index(data.ONTOLOGY[label][0]) for label in labels])
        ones = np.ones(len(nodes))
        genes = read_cells(adata, annotator, model, {"min_overlap": 0.02}).genes
        own = annotator.probabilities(vectors[is_full], None if genes is None else genes[is_full])
        logits, temperature = np.log(own + 1e-9), 1.0
        if (smoothing := annotator.smoothing) is not None:
            unmoved = cell_vectors(adata, model, {"min_overlap": 0.02})[0][is_full]
            around = Neighborhood.of(unmoved, ones > 0, smoothing, lambda rows, own=own: own[rows])
            if around is not None:
                logits = smoothing.logits(own, around.around(unmoved, np.arange(len(own))))
                temperature = smoothing.temperature
        errors = {}
        for factor in (0.8, 1.0, 1.25, 1.5):
            p = softmax(logits / (factor * temperature))
            confidence, right = confidence_at(tree, p, nodes)
            errors[factor] = calibration_error(confidence, right, ones)
            if factor == 1.0:
                drawn = [
                    calibration_error(confidence, rng.random(len(nodes)) < confidence, ones)
                    for _ in range(200)
                ]
                row = {"set": data.short(name), "cells": len(nodes), "confidence": float(confidence.mean())}
                row |= {
                    "right": float(right.mean()),
                    "ECE": errors[1.0],
                    "ECE of a perfect one": float(np.mean(drawn)),
                }
        yield row | {f"ECE at {factor} T": error for factor, error in errors.items() if factor != 1.0}


MARKERS = {
    "neuron": "SNAP25 SYT1 STMN2",
    "astrocyte": "AQP4 GJA1 SLC1A2",
    "OPC": "PDGFRA OLIG1 OLIG2",
    "oligodendrocyte": "MBP MOBP PLP1",
    "microglia": "CSF1R C1QA C1QB CD74 AIF1",
    "endothelial": "PECAM1 CLDN5 FLT1 VWF",
    "mural": "RGS5 PDGFRB ACTA2 TAGLN NOTCH3",
    "fibroblast": "DCN COL1A2 COL3A1",
}
"""Genes of textbooks, not those the reference has learnt."""


def lineage_errors(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """Brain cells by the authors' type and the lineage that is named: mean log expression of genes of each kind of cell."""
    adata = data.read_for_ontology("darmanis_brain")
    scellm.tl.annotate(adata, model=model, target_error=0.05, min_overlap=0.02)
    values = pd.DataFrame(logged(adata).toarray(), columns=adata.var_names)
    panels = {kind: [gene for gene in genes.split() if gene in values] for kind, genes in MARKERS.items()}
    authors = adata.obs["cell_type"].astype(str).to_numpy()
    lineages = adata.obs["scellm_cell_type_coarse"].astype(str).to_numpy()
    for (author, lineage), rows in pd.DataFrame({"a": authors, "l": lineages}).groupby(["a", "l"]):
        means = {kind: float(values.loc[rows.index, genes].mean(axis=None)) for kind, genes in panels.items()}
        yield {"authors": author, "lineage named": lineage, "cells": len(rows), **means}


# -- the same cells on both sides? --------------------------------------------------------------------------------


def leakage(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """`metrics.find_leakage` for every reference and query, and the shipped reference against every set."""
    for references, query in data.DIRECTIONS:
        found = find_leakage(data.read(query, common=True), data.join(references), find_near=False)
        yield {
            "reference": data.short(*references),
            "query": data.short(query),
            "cells": len(found.same),
            "same measurement": found.n_same,
            "names in both": found.shared_barcodes,
        }
    marks = model.parts["reference"].tensors["cell_hashes"]
    for name in data.HELD_OUT:
        adata = data.read_for_ontology(name)
        values, _ = log_expression(adata, model, {"min_overlap": 0.02})
        same = match_hashes(cell_hashes(values, list(model.vocabulary.symbols)), marks) >= 0
        row = {"reference": "shipped", "query": data.short(name), "cells": len(same)}
        yield row | {"same measurement": int(same.sum()), "names in both": float("nan")}


def _at_five_percent(adata, model: CellLM, tree, nodes: np.ndarray) -> Row:
    """What is named at an asked error of 5 %, how much of it is right, and how deep."""
    scellm.tl.annotate(adata, model=model, target_error=0.05, min_overlap=0.02)
    found = _nodes(adata, tree)
    named = found >= 0
    lineage = tree.lineage
    coarse = adata.obs["scellm_cell_type_coarse"].astype(str).to_numpy()
    is_coarse = ~np.isin(coarse, ["unassigned", "novel"])
    right = tree.agrees(found, nodes) & named
    wanted = np.array([tree.names[lineage[node]] for node in nodes])
    fine = named & tree.above[np.maximum(found, 0), nodes]
    return {
        "novel": float((adata.obs["scellm_cell_type"].astype(str) == "novel").mean()),
        "named": float(named.mean()),
        "right of the named": float(right[named].mean()) if named.any() else float("nan"),
        "at the authors' level": float(fine.mean()),
        "lineage named": float(is_coarse.mean()),
        "lineage right": float((coarse == wanted)[is_coarse].mean()) if is_coarse.any() else float("nan"),
    }


def _nodes(adata, tree) -> np.ndarray:
    """Node of each label, -1 for refusals."""
    place = {name: i for i, name in enumerate(tree.names)}
    return np.array([place.get(name, -1) for name in adata.obs["scellm_cell_type"].astype(str)])


def _common(tree, found: np.ndarray, truth: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Names of the set for nodes found: that of the true type a node is in, else another."""
    above = tree.above
    types = {name: nodes[truth == name][0] for name in np.unique(truth)}
    guess = []
    for node in found:
        inside = [name for name, of in types.items() if node >= 0 and above[node, of]]
        inside.sort(key=lambda name: -above[types[name]].sum())
        guess.append(inside[0] if inside else f"other: {node}")
    return np.array(guess)


def _ece(tree, p: np.ndarray, nodes: np.ndarray) -> float:
    """Calibration error at the depth of the authors' labels."""
    from scellm.annotation._fit_tree import tree_scores

    return tree_scores(tree, p, nodes, np.ones(len(nodes)))["ece_after"]


# -- across studies -----------------------------------------------------------------------------------------------


def directions(model: CellLM) -> Iterator[tuple[str, str, Cells, Cells]]:
    """References and queries with common names, over common genes; cells of types the other side lacks are out."""
    for references, query in data.DIRECTIONS:
        joined, asked = data.join(references), data.read(query, common=True)
        shared = sorted(set(joined.obs["cell_type"]) & set(asked.obs["cell_type"]))
        genes = list(joined.var_names.intersection(asked.var_names))
        asked = asked[asked.obs["cell_type"].isin(shared)].copy()
        kept = set(joined.obs_names)
        parts = []
        for name in references:
            part = data.read(name, common=True)
            part = part[[cell in kept for cell in part.obs_names]].copy()
            parts.append(cells_of(part, model, genes=genes))
        yield (
            data.short(*references),
            data.short(query),
            join_cells(parts),
            cells_of(asked, model, genes=genes),
        )


def cross_study(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """Macro-F1 of label transfer between studies."""
    for reference, query, train, test in directions(model):
        row: Row = {"reference": reference, "query": query, "types": len(np.unique(test.labels))}
        methods = compared(pythons.celltypist) | {
            "scellm, not aligned": scellm_annotator("scellm", align=False)
        }
        row |= known(before, row)
        for name, fit in methods.items():
            if name in row:
                continue
            start = time.perf_counter()
            row[name] = macro_f1(test.labels, best(*fit(train, test, 0)))
            row[f"{name}, s"] = time.perf_counter() - start
        yield row


# -- few labels ---------------------------------------------------------------------------------------------------


def draw_shots(labels: np.ndarray, shots: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, `shots` of each type, and the others, of types that keep at least five."""
    names, sizes = np.unique(labels, return_counts=True)
    names = names[sizes >= shots + 5]
    train = [rng.permutation(np.flatnonzero(labels == name))[:shots] for name in names]
    rest = np.flatnonzero(np.isin(labels, names))
    rest = np.setdiff1d(rest, np.concatenate(train)) if train else rest[:0]
    return (np.concatenate(train) if train else rest), rest


def few_shot(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """Macro-F1 from 5, 10 and 50 labeled cells per type of the same set."""
    methods = compared("")
    methods |= {
        f"scellm, {kind}": scellm_annotator("scellm", kind) for kind in ("linear", "prototype", "knn")
    }
    for name in data.HELD_OUT:
        cells = cells_of(data.read(name), model, n_random=SEEDS)
        for shots in SHOTS:
            scores: dict[str, list[float]] = {}
            old: Row = {}
            for seed in range(SEEDS):
                rng = np.random.default_rng(seed)
                train, test = draw_shots(cells.labels, shots, rng)
                if len(np.unique(cells.labels[train])) < 3:
                    break
                test = test[data.thin(cells.labels[test], MOST_TESTED)]
                a, b = cells[train], cells[test]
                types = len(np.unique(a.labels))
                old = known(before, {"set": data.short(name), "cells per type": shots, "types": types})
                for method, fit in methods.items():
                    if method in old:
                        continue
                    fit = scellm_annotator(f"random {seed}") if method == "random weights" else fit
                    scores.setdefault(method, []).append(macro_f1(b.labels, best(*fit(a, b, seed))))
                if pythons.celltypist and shots == 10 and seed == 0 and "celltypist" not in old:
                    found = best(*celltypist_by(pythons.celltypist)(a, b, seed))
                    scores.setdefault("celltypist", []).append(macro_f1(b.labels, found))
            if not scores:
                continue
            row: Row = {"set": data.short(name), "cells per type": shots, "types": types, **old}
            for method, values in scores.items():
                row[method] = float(np.mean(values))
                row[f"{method} ±"] = float(np.std(values)) if len(values) > 1 else float("nan")
            yield row


# -- 80/20 --------------------------------------------------------------------------------------------------------


STRATEGIES = {"head": 3, "lora": 1, "full": 1}
"""Seeds of each; each epoch of the encoder costs as much as all of `"head"`."""
EPOCHS = 10


def fine_tuned(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """`tl.fine_tune` on 64 % of a set, 16 % for validation, judged on 20 %; baselines on the same splits."""
    for name in data.HELD_OUT:
        adata = data.read(name, fewest=8)
        del adata.obs["study"]
        scores: dict[str, list[float]] = {}
        old = known(before, {"set": data.short(name), "types": adata.obs["cell_type"].nunique()})
        options = {
            "labels": "cell_type", "val_size": 0.16, "test_size": 0.2, "min_overlap": 0.02,
            "max_epochs": EPOCHS,
        }  # fmt: skip
        for strategy, seeds in STRATEGIES.items():
            for seed in range(seeds):
                scellm.tl.fine_tune(
                    adata,
                    model=model,
                    strategy=strategy,
                    rng=seed,
                    baseline=strategy == "head" and not old,
                    **options,
                )
                report = adata.uns["scellm_fine_tune"]
                scores.setdefault(f"scellm, {strategy}", []).append(report["test"]["macro_f1"])
                if strategy == "head" and not old:
                    table = dict(
                        zip(report["baselines"]["methods"], report["baselines"]["macro_f1"], strict=True)
                    )
                    scores.setdefault("logistic regression", []).append(table["logistic"])
                    scores.setdefault("PCA + kNN", []).append(table["pca_knn"])
                if strategy == "head":
                    scellm.tl.fine_tune(
                        adata,
                        model=random_like(model, seed),
                        strategy="head",
                        rng=seed,
                        baseline=False,
                        **options,
                    )
                    random = adata.uns["scellm_fine_tune"]["test"]["macro_f1"]
                    scores.setdefault("random weights", []).append(random)
        row: Row = {"set": data.short(name), "types": len(report["classes"]), **old}
        row["scellm"] = float(np.mean(scores["scellm, lora"]))
        for method, values in scores.items():
            row[method] = float(np.mean(values))
            row[f"{method} ±"] = float(np.std(values)) if len(values) > 1 else float("nan")
        yield row


# -- calibration --------------------------------------------------------------------------------------------------


def conformal_row(train: Cells, test: Cells, seed: int, *, by_study: bool) -> Row:
    """Coverage and calibration error on cells that nothing was fitted on."""
    classes, codes = np.unique(train.labels, return_inverse=True)
    groups = train.study if by_study else None
    found = fit_annotator(train.vectors["scellm"], codes, list(classes), groups=groups, rng=seed)
    vectors, _ = align_cells(found, test.vectors["scellm"], "auto")
    logits = found.logits(vectors)
    truth = np.array([{name: i for i, name in enumerate(classes)}[label] for label in test.labels])
    error = scellm.metrics.expected_calibration_error
    row: Row = {
        "method": found.kind,
        "accuracy": accuracy(test.labels, best(logits, classes)),
        "ECE before": error(softmax(logits), truth),
        "ECE after": error(softmax(logits / found.calibration.temperature), truth),
    }
    probabilities = found.probabilities(vectors)
    strange = found.outlier_score(vectors)
    alarms = found.novelty_scores(strange, FALSE_ALARM, shift=min(found.shift(strange), MAX_SHIFT))
    row["called novel"] = float((alarms > 1).mean())
    for target in (0.05, 0.1, 0.2):
        sets = found.sets(probabilities, target)
        row[f"coverage at {target:g}"] = float(sets[np.arange(len(sets)), truth].mean())
        row[f"set size at {target:g}"] = float(sets.sum(1).mean())
    return row


def calibration(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """On other cells of the same set, and on another study."""
    for name in data.HELD_OUT:
        cells = cells_of(data.read(name, fewest=8), model, n_random=0)
        rows = []
        for seed in range(SEEDS):
            train, test = train_test_split(
                np.arange(len(cells.labels)), test_size=0.4, stratify=cells.labels, random_state=seed
            )
            rows.append(conformal_row(cells[train], cells[test], seed, by_study=False))
        table = pd.DataFrame(rows)
        mean = table.drop(columns="method").mean().to_dict()
        yield {
            "held out": "cells of the same set",
            "reference": data.short(name),
            "query": data.short(name),
            "method": table["method"].mode()[0],
            **mean,
        }
    for reference, query, train, test in directions(model):
        by_study = len(np.unique(train.study)) > 2
        yield {
            "held out": "another study",
            "reference": reference,
            "query": query,
            **conformal_row(train, test, 0, by_study=by_study),
        }


# -- types never seen ---------------------------------------------------------------------------------------------


def novelty(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """One type at a time is left out of the reference: is it flagged, while held-out cells of the others are not?"""
    for name in data.HELD_OUT:
        cells = cells_of(data.read(name, fewest=10), model, n_random=0)
        half, rest = train_test_split(
            np.arange(len(cells.labels)), test_size=0.5, stratify=cells.labels, random_state=0
        )
        for left_out in np.unique(cells.labels):
            reference = half[cells.labels[half] != left_out]
            known = rest[cells.labels[rest] != left_out]
            unseen = np.flatnonzero(cells.labels == left_out)
            classes, codes = np.unique(cells.labels[reference], return_inverse=True)
            vectors = cells.vectors["scellm"]
            found = fit_annotator(vectors[reference], codes, list(classes), method="linear", rng=0)
            score = {
                part: found.novelty_scores(found.outlier_score(vectors[rows]), FALSE_ALARM)
                for part, rows in (("known", known), ("unseen", unseen))
            }
            probabilities = {
                part: found.probabilities(vectors[rows])
                for part, rows in (("known", known), ("unseen", unseen))
            }
            between = {part: found.sets(p, FALSE_ALARM).sum(1) > 1 for part, p in probabilities.items()}
            doubt = np.concatenate([1 - probabilities[part].max(1) for part in ("known", "unseen")])
            is_unseen = np.repeat([False, True], [len(known), len(unseen)])
            limit = np.quantile(doubt[~is_unseen], 1 - FALSE_ALARM)
            likeliest = pd.Series(best(probabilities["unseen"], classes)).mode()[0]
            yield {
                "set": data.short(name),
                "left out": left_out,
                "cells": len(unseen),
                "novel": float((score["unseen"] > 1).mean()),
                "false alarms": float((score["known"] > 1).mean()),
                "novel or unassigned": float(((score["unseen"] > 1) | between["unseen"]).mean()),
                "false alarms of both": float(((score["known"] > 1) | between["known"]).mean()),
                "AUROC": float(roc_auc_score(is_unseen, np.concatenate([score["known"], score["unseen"]]))),
                "low confidence alone": float((doubt[is_unseen] > limit).mean()),
                "taken for": likeliest,
            }


# -- genes --------------------------------------------------------------------------------------------------------


def genes(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """Deletion test of `tl.gene_importance`."""
    for name in ("pbmc3k", "baron_h1_pancreas", "darmanis_brain", "zheng_sorted_pbmc_mudan"):
        adata = data.read(name, fewest=10)
        scellm.tl.gene_importance(
            adata, "cell_type", model=model, n_cells=24, min_overlap=0.02, show_progress=False
        )
        record = adata.uns["scellm_gene_importance"]
        for i, group in enumerate(record["groups"]):
            top = scellm.get.gene_importance(adata, group=group, n_genes=6)["gene"]
            yield {
                "set": data.short(name),
                "type": str(group),
                **{
                    key: float(record["deletion"][key][i])
                    for key in ("score", "drop", "random_drop", "random_drop_sd")
                },
                "most important": ", ".join(top),
            }


# -- time and memory ----------------------------------------------------------------------------------------------


def speed(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """Blood cells: embedding alone, and all of `tl.annotate`; and a reference of 12,000 vectors in 60 types.

    Seconds are those of the processor, the least of some runs, as other work on the machine lengthens them; the first run of a
    process does not count.
    """
    import anndata as ad

    adata = data.read("pbmc3k")
    big = ad.concat([adata] * 8, index_unique="-")[:N_TIMED].copy()
    rng = np.random.default_rng(0)
    centres, codes = rng.normal(0, 1, (60, 256)), rng.integers(0, 60, 12_000)
    vectors = (centres[codes] + rng.normal(0, 1.5, (12_000, 256))).astype(np.float32)
    ways = {
        "tl.embed": lambda: scellm.tl.embed(big, model, show_progress=False, copy=True),
        "tl.annotate, shipped reference": lambda: scellm.tl.annotate(big, model=model, copy=True),
        "tl.annotate, shipped reference, sets": lambda: scellm.tl.annotate(
            big, model=model, copy=True, target_error=0.05
        ),
        "tl.annotate, neighbors not asked (groupby=None)": lambda: scellm.tl.annotate(
            big, model=model, copy=True, groupby=None
        ),
        "tl.annotate, and no shift sought (align=False)": lambda: scellm.tl.annotate(
            big, model=model, copy=True, groupby=None, align=False
        ),
        "tl.annotate, and nothing novel (novelty_error=None)": lambda: scellm.tl.annotate(
            big, model=model, copy=True, groupby=None, align=False, novelty_error=None
        ),
        "own reference, 12,000 cells, 60 types, three methods in five folds": lambda: fit_annotator(
            vectors, codes, [f"type {i}" for i in range(60)]
        ),
    }
    base = None
    scellm.tl.annotate(big[:500].copy(), model=model, target_error=0.05)
    for name, run in ways.items():
        spent = []
        for _ in range(N_RUNS):
            start, wall = time.process_time(), time.perf_counter()
            run()
            spent.append((time.process_time() - start, time.perf_counter() - wall))
        seconds, clock = (float(x) for x in np.min(spent, axis=0))
        base = base or seconds
        yield {
            "what": name,
            "processor seconds": seconds,
            "seconds by the clock": clock,
            "times embedding": seconds / base if name.startswith("tl") else float("nan"),
        }


MAKE = """
import sys, numpy as np, scipy.sparse as sp, anndata as ad, scellm
path, n = sys.argv[1], int(sys.argv[2])
toy = scellm.datasets.toy_cells(2000, n_vars=19000)
X = sp.vstack([toy.X] * (n // 2000), format="csr")
big = ad.AnnData(X, var=toy.var)
big.obs_names = [f"cell{i}" for i in range(n)]
big.write_h5ad(path)
"""
RUN = """
import resource, sys, time, warnings
warnings.simplefilter("ignore")
import anndata as ad, scellm, scellm.tl, scellm.models, scanpy
reference = scellm.datasets.toy_cells(400, n_vars=19000)
scellm.tl.embed(reference, sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
adata = ad.read_h5ad(sys.argv[1], backed="r")
start = time.perf_counter()
options = {} if sys.argv[3] == "shipped" else {"reference": reference, "labels": "cell_type"}
scellm.tl.annotate(adata, model=sys.argv[2], target_error=0.05, **options)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter() - start)
"""


def memory(model: CellLM, pythons: Pythons = NONE, before: Sequence[Row] = ()) -> Iterator[Row]:
    """200,000 drawn cells in a file."""
    n = 200_000
    way = "shipped" if "reference" in model.parts else "reference"
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder) / "cells.h5ad", Path(folder) / "model"
        scellm.models.save(model, weights)
        subprocess.run([sys.executable, "-c", MAKE, str(path), str(n)], check=True)
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(path), str(weights), way],
            check=True,
            capture_output=True,
            text=True,
        )
        size = path.stat().st_size / 2**30
    before, peak, seconds = map(float, done.stdout.split()[-3:])
    unit = 2**20 if sys.platform != "darwin" else 2**30
    yield {
        "cells": n,
        "file, GiB": size,
        "peak memory, GiB": peak / unit,
        "of it before, GiB": before / unit,
        "seconds": seconds,
    }


def own_peak() -> float:
    """Highest memory of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "zero_shot": zero_shot,
    "shipped_calibration": shipped_calibration,
    "lineage_errors": lineage_errors,
    "leakage": leakage,
    "cross_study": cross_study,
    "few_shot": few_shot,
    "fine_tuned": fine_tuned,
    "calibration": calibration,
    "novelty": novelty,
    "genes": genes,
    "speed": speed,
    "memory": memory,
}
