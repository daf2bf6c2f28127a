"""What is checked of numbers, genes and arrays in a model folder, whoever made it; each error names the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data import GeneVocabulary
from ._manifest import CONFIG, GENES, WEIGHTS

MAX_GENES = 1_000_000
"""Genes of the largest vocabulary."""
MAX_GENES_BYTES = 64 * 2**20
_QUANTILES = 1001
"""Length of the tables of quantiles of an annotator."""


def read_genes(path: Path, remedy: str) -> GeneVocabulary:
    """The vocabulary of a model folder."""
    if (size := path.stat().st_size) > MAX_GENES_BYTES:
        msg = f"`{path}` has {size / 1e6:,.0f} MB, more than any list of genes. {remedy}"
        raise ValueError(msg)
    try:
        vocabulary = GeneVocabulary.from_tsv(path)
    except ValueError as error:  # not UTF-8, other columns, genes that come twice
        msg = f"`{path}` holds no list of genes ({error}) {remedy}"
        raise ValueError(msg) from error
    if len(vocabulary) > MAX_GENES:
        msg = f"`{path}` lists {len(vocabulary):,} genes; scellm reads up to {MAX_GENES:,}. {remedy}"
        raise ValueError(msg)
    return vocabulary


def check_finite_arrays(arrays: Mapping[str, Any], path: Path, remedy: str) -> None:
    """That all numbers of a model are finite: it would give NaN to every cell, and the cells would be blamed."""
    for name, array in arrays.items():
        if hasattr(array, "isfinite"):  # torch; numpy knows no bfloat16
            is_finite = bool(array.isfinite().all())
        else:
            is_finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
        if not is_finite:
            msg = f"`{path}`: {name!r} of this model holds NaN or infinite numbers; it is of no use. {remedy}"
            raise ValueError(msg)


def part_problem(name: str, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str | None:
    """What does not fit together in a part of a known kind, before it is used; `None` if all does."""
    if name in ("reference", "cell_type") and "classes" in meta and "exemplars" in tensors:
        return _annotator_problem(tensors, meta)
    if name == "malignancy" and {"weight", "bias"} <= set(tensors):
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.ndim != 1 or bias.shape != (1,) or weight.dtype.kind != "f" or bias.dtype.kind != "f":
            return f"weight has shape {weight.shape} and bias {bias.shape}; needed are (dim,) and (1,)"
    return None


def _annotator_problem(tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str | None:
    """What is wrong with a fitted annotator; `None` if nothing is."""
    classes = meta["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "its classes are no list of names"
    if not classes or len(set(classes)) < len(classes):
        return "it has no classes, or two of one name"
    for field in ("genes", "report", "facts"):
        kind = list if field == "genes" else dict
        if not isinstance(meta.get(field, kind()), kind):
            return f"{field} is a {type(meta[field]).__name__}"
    ids = (meta.get("facts") or {}).get("ontology_ids") or []
    for field, texts in (("genes", meta.get("genes", [])), ("ontology_ids", ids)):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return f"{field} is not a list of text"
    temperature = meta.get("temperature", 1.0)
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        return f"its temperature is {temperature!r}; it must be a number above 0"
    number = meta.get("n_calibration", 0)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
        return f"n_calibration is {number!r}; it must be a whole number of at least 0"
    if "tree" in meta and (problem := _tree_problem(meta["tree"], len(classes))):
        return problem
    if "gene_head" in meta and (problem := _gene_head_problem(meta["gene_head"], tensors, len(classes))):
        return problem
    if "neighbors" in meta and (problem := _neighbors_problem(meta["neighbors"], tensors)):
        return problem
    return _array_problem(tensors, len(classes), calibrated=bool(meta.get("n_calibration", 0)))


def _tree_problem(tree: Any, n_classes: int) -> str | None:
    """What does not fit together in a tree of types; `None` if all does."""
    fields = ("names", "parents", "node_of_class", "is_lineage", "ids")
    if not isinstance(tree, dict) or not all(isinstance(tree.get(field), list) for field in fields):
        return f"its tree lacks one of {', '.join(fields)}"
    n_nodes = len(tree["names"])
    if any(len(tree[field]) != n_nodes for field in ("parents", "is_lineage")) or len(tree["ids"]) not in (
        0,
        n_nodes,
    ):
        return "the fields of its tree have different lengths"
    nodes, parents = tree["node_of_class"], tree["parents"]
    if len(nodes) != n_classes or not all(isinstance(x, int) and 0 <= x < n_nodes for x in nodes):
        return f"its tree has {len(nodes)} classes among {n_nodes} nodes, its list of classes {n_classes}"
    if not all(isinstance(x, int) and -1 <= x < i for i, x in enumerate(parents)):
        return "its tree has a node before its parent"
    doubt = tree.get("lineage_doubt", 1.0)
    if not _is_number(doubt) or not 0 < doubt <= 1:
        return f"lineage_doubt of its tree is {doubt!r}; it must be above 0 and at most 1"
    return None


def _gene_head_problem(head: Any, tensors: Mapping[str, np.ndarray], n_classes: int) -> str | None:
    """What does not fit together in what an annotator knows of genes; `None` if all does."""
    genes = head.get("genes") if isinstance(head, dict) else None
    if not isinstance(genes, list) or not genes or not all(isinstance(name, str) for name in genes):
        return "its gene_head lists no genes"
    if len(set(genes)) < len(genes):
        return "its gene_head has a gene twice"
    kept = head.get("kept")
    if not _is_number(kept) or not 0 <= kept < math.inf:
        return f"kept of its gene_head is {kept!r}; it must be a number of at least 0"
    n_genes = len(genes)
    needed = {"centre": (n_genes,), "scale": (n_genes,), "weight": (n_classes, n_genes), "bias": (n_classes,)}
    for name, shape in needed.items():
        array = tensors.get(f"gene_{name}")
        if array is None or array.shape != shape:
            return f"gene_{name} has shape {None if array is None else array.shape}, needed is {shape}"
    if not (tensors["gene_scale"] > 0).all():
        return "its gene_scale has numbers that are not above 0"
    return None


def _neighbors_problem(found: Any, tensors: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong in what an annotator knows of neighbors; `None` if all is well."""
    names = ("n_neighbors", "weight", "temperature")
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        return f"its neighbors are not {', '.join(names)}"
    number, weight, temperature = (found[name] for name in names)
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number < 2**31:
        return f"n_neighbors is {number!r}; it must be a whole number of at least 1"
    if not _is_number(weight) or not 0 <= weight <= 1:
        return f"the weight of its neighbors is {weight!r}; it must be between 0 and 1"
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        return f"the temperature of its neighbors is {temperature!r}; it must be a number above 0"
    errors = tensors.get("neighbor_path_errors")
    if errors is None or errors.ndim != 1 or not len(errors):
        return "its neighbor_path_errors are missing"
    return None


def _array_problem(tensors: Mapping[str, np.ndarray], n_classes: int, *, calibrated: bool) -> str | None:
    """Which array of an annotator has another shape or type than the others need."""
    for name, array in tensors.items():
        if (array.dtype.kind == "f") == (name in ("exemplar_labels", "cell_hashes")):
            return f"{name} is {array.dtype}"
    shapes = {name: array.shape for name, array in tensors.items()}
    if len(shapes.get("centre", ())) != 1 or len(shapes["exemplars"]) != 2 or not shapes["exemplars"][0]:
        return f"centre has shape {shapes.get('centre')} and exemplars {shapes['exemplars']}"
    n_features, (n_exemplars, n_axes) = shapes["centre"][0], shapes["exemplars"]
    projected = shapes.get("projection", (0, 0))
    needed = {
        "scale": (n_features,),
        "weight": (n_classes, n_features),
        "bias": (n_classes,),
        "exemplar_labels": (n_exemplars,),
        "exemplar_spread": (n_exemplars,),
        "projection": (n_features, n_axes) if 0 not in projected else projected,
        "exemplars": (n_exemplars, n_features if 0 in projected else n_axes),
    }
    if calibrated:
        needed |= {"nonconformity": (_QUANTILES,), "novelty": (_QUANTILES,)}
    for name, shape in needed.items():
        if name in shapes and shapes[name] != shape:
            return f"{name} has shape {shapes[name]}, needed is {shape}"
    labels = tensors.get("exemplar_labels", np.zeros(1, int))
    if labels.min() < 0 or labels.max() >= n_classes:
        return f"it has exemplars of classes beyond its {n_classes}"
    if "scale" in tensors and not (tensors["scale"] > 0).all():
        return "its scale has numbers that are not above 0"
    return None


def check_drug_model(
    folder: Path, encoder: Mapping[str, Any], tensors: Mapping[str, np.ndarray], remedy: str
) -> GeneVocabulary:
    """The vocabulary of a drug model, after its genes, lines, drugs, settings and arrays were found to fit together."""
    check_finite_arrays(tensors, folder / WEIGHTS, remedy)
    vocabulary = read_genes(folder / GENES, remedy)
    where = f"`{folder}` is damaged"
    sizes = [_n_rows(encoder.get(table)) for table in ("lines", "drugs")]
    if encoder.get("n_genes") != len(vocabulary) or None in sizes:
        msg = (
            f"{where}: {GENES} lists {len(vocabulary)} genes, {CONFIG} says {encoder.get('n_genes')!r}, or its lines and "
            f"drugs are not tables. {remedy}"
        )
        raise ValueError(msg)
    _check_drug_arrays(len(vocabulary), sizes[0], sizes[1], tensors, (where, remedy))
    settings = encoder.get("settings")
    bad = ["the settings"] if not isinstance(settings, dict) else []
    bad += [name for name, value in (settings or {}).items() if value is None] if not bad else []
    if bad:
        msg = f"{where}: {', '.join(bad)} must be numbers. {remedy}"
        raise ValueError(msg)
    return vocabulary


def _n_rows(table: Any) -> int | None:
    """Rows of a table as lists by column; `None` if it is none."""
    if not isinstance(table, dict) or not all(isinstance(column, list) for column in table.values()):
        return None
    lengths = {len(column) for column in table.values()}
    return lengths.pop() if len(lengths) == 1 else None


def _check_drug_arrays(
    n_genes: int, n_lines: int, n_drugs: int, tensors: Mapping[str, np.ndarray], said: tuple[str, str]
) -> None:
    """That arrays have the shapes that the tables need; `said` are the first and last words of a refusal."""
    where, remedy = said
    needed = {
        **dict.fromkeys(("mean_fraction", "gene_weight"), (n_genes,)),
        **dict.fromkeys(("mean", "scale", "error", "structure_mean", "structure_scale"), (n_drugs,)),
        **dict.fromkeys(("response", "dual"), (n_lines, n_drugs)),
        **dict.fromkeys(("center", "normal_axis", "normal_shift"), (None, n_genes)),
        "line_vectors": (n_lines, None),
        **dict.fromkeys(("loadings", "signal"), (n_genes, None)),
        **dict.fromkeys(("gain", "noise"), (None, n_genes)),
        "prior": (None,),
        "fingerprints": (n_drugs, None),
        "descriptors": (n_drugs, None),
    }
    optional = {"normal_axis", "normal_shift"}  # of models fitted without normal tissue
    for name, shape in needed.items():
        found = tensors[name].shape if name in tensors else None
        if found is None and name in optional:
            continue
        fits = found is not None and len(found) == len(shape)
        if not fits or any(n is not None and n != m for n, m in zip(shape, found, strict=True)):
            shown = "(" + ", ".join("*" if n is None else str(n) for n in shape) + ")"
            msg = (
                f"{where}: {name!r} has shape {found}, but {n_genes} genes, {n_lines} lines and {n_drugs} drugs need "
                f"{shown}; the files of this model are not of one model. {remedy}"
            )
            raise ValueError(msg)
    for name in ("scale", "error", "descriptor_spread", "noise"):
        if name in tensors and not (tensors[name] > 0).all():
            msg = f"{where}: {name!r} holds numbers that are not above 0. {remedy}"
            raise ValueError(msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
