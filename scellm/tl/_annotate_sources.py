"""Where the annotator of `tl.annotate` comes from: a model, or a reference that is fitted now; and the vectors it takes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._obs import read_text
from .._warn import warn
from ..annotation._annotator import Annotator
from ..annotation._fit import fit_annotator
from ..annotation._levels import tree_of_ids, tree_of_levels
from ..annotation._tree import Tree
from ..metrics._baselines import variable_genes
from ..metrics._cell_hashes import cell_hashes, match_hashes
from ..models import CellLM
from ._read_labels import Labels, group_columns, read_groups, read_labels
from ._vectors import cell_vectors, log_expression

FEW_GENES, MANY_GENES = 0.5, 0.9
"""Share of the genes of a head on genes below which it is refused, and below which that is worth a word (ours)."""
CELLS_LOOKED_AT = 200
"""Cells that are compared with those of the shipped reference."""
logger = logging.getLogger("scellm.tl._annotate")


@dataclass(frozen=True)
class Reference:
    """Labeled cells, and how a classifier is fitted to them."""

    cells: AnnData
    labels: str
    method: str
    val_by: str | None
    rng: int
    levels: str | Sequence[str] | None = None

    def read(self) -> tuple[Labels, np.ndarray, np.ndarray | None]:
        """Labels, rows that have one, and the groups of those rows."""
        read = read_labels(self.cells, self.labels, name="reference", min_cells=2)
        rows = np.flatnonzero(read.codes >= 0)
        return read, rows, _groups(self.cells, self.val_by, rows)

    def tree(self, read: Labels, classes: list[str]) -> Tree | None:
        """The tree over the classes, if levels were named."""
        if self.levels is None:
            return None
        columns = [self.levels] if isinstance(self.levels, str) else list(self.levels)
        texts = {column: read_text(self.cells, column, name="reference") for column in columns}
        has = read.codes >= 0
        labels = np.array(read.classes, dtype=object)[np.maximum(read.codes, 0)]
        if len(columns) == 1 and (ids := _ids(labels[has], texts[columns[0]][has], columns[0])):
            tree, replaced = tree_of_ids({name: ids[name] for name in classes})
            if replaced:
                listed = ", ".join(f"{old} by {new}" for old, new in replaced.items())
                warn(
                    f"{len(replaced)} ids of reference.obs[{columns[0]!r}] are obsolete and were replaced: {listed}."
                )
            return tree
        return tree_of_levels(labels[has], {name: text[has] for name, text in texts.items()}, classes)


def of_model(model: CellLM) -> tuple[Annotator, str]:
    """The head or the reference of a model, and the mode that is."""
    for part, mode in (("cell_type", "fine-tuned"), ("reference", "pretrained")):
        if part in model.parts:
            annotator = Annotator.from_part(model.parts[part])
            if not annotator.head.genes and annotator.head.n_features != model.config.dim:
                msg = (
                    f"The {part!r} of {model.name!r} takes vectors of {annotator.head.n_features} numbers, its encoder gives "
                    f"{model.config.dim}: they do not belong together. Fine-tune again, or load the model again."
                )
                raise ValueError(msg)
            return annotator, mode
    msg = (
        f"{model.name or 'This model'!r} knows no cell types: it has neither a fine-tuned head nor a reference. Pass "
        "reference= with labeled cells and labels= with their column, or a model from scellm.tl.fine_tune."
    )
    raise ValueError(msg)


def seen_before(adata: AnnData, model: CellLM, query: Mapping[str, Any]) -> float:
    """Share of some cells that are cells of the shipped reference themselves."""
    part = model.parts["reference"] if "reference" in model.parts else None
    marks = part.tensors.get("cell_hashes") if part is not None else None
    if marks is None or adata.isbacked:
        return 0.0
    rows = np.arange(adata.n_obs)
    if len(rows) > CELLS_LOOKED_AT:
        rows = np.sort(np.random.default_rng(0).choice(adata.n_obs, CELLS_LOOKED_AT, replace=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is to be said of these values was said when they were embedded
        logged, _ = log_expression(adata[rows], model, query)
    found = match_hashes(cell_hashes(logged, list(model.vocabulary.symbols)), marks)
    return float((found >= 0).mean()) if len(found) else 0.0


def of_genes(adata: AnnData, annotator: Annotator, model: CellLM, query: dict[str, Any]) -> np.ndarray:
    """(n_obs, F) log1p CP10k of the genes of a head; genes the data lacks are at the mean of its training cells."""
    ids = pd.Index(model.vocabulary.symbols).get_indexer(annotator.head.genes)
    if (ids < 0).any():
        msg = (
            f"{int((ids < 0).sum())} genes of the head of {model.name!r} are not in its vocabulary: they do not belong "
            "together. Fine-tune again, or load the model again."
        )
        raise ValueError(msg)
    logged, has = log_expression(adata, model, query, ids)
    vectors = logged.toarray()
    is_empty, is_there = ~vectors.any(axis=1), has[ids]
    if (share := float(is_there.mean())) < FEW_GENES:
        msg = (
            f"`adata` has {int(is_there.sum())} of the {len(ids)} genes of the head ({100 * share:.0f} %, need "
            f"{100 * FEW_GENES:.0f} %). Pass the data as it was before genes were selected, or fine-tune with its genes."
        )
        raise ValueError(msg)
    if share < MANY_GENES:
        warn(
            f"`adata` lacks {int((~is_there).sum())} of the {len(ids)} genes of the head; they count as average, and "
            "confidence may be too high."
        )
    vectors[:, ~is_there] = annotator.head.centre[~is_there]
    vectors[is_empty] = np.nan
    return vectors


def on_embedding(asked: Reference, model: CellLM, options: dict[str, Any]) -> Annotator:
    """A classifier on the embedding of the reference."""
    read, rows, groups = asked.read()
    vectors, _ = cell_vectors(asked.cells, model, options)
    rows, groups = _without_empty(vectors, rows, groups)
    codes, classes = _codes(read, rows)
    tree = asked.tree(read, classes)
    return fit_annotator(
        vectors[rows], codes, classes, method=asked.method, groups=groups, tree=tree, rng=asked.rng
    )


def on_genes(
    adata: AnnData, asked: Reference, model: CellLM, query: dict[str, Any], options: dict[str, Any]
) -> tuple[Annotator, np.ndarray]:
    """The baseline, and the vectors of the cells: log1p CP10k of genes that both objects have and that vary."""
    read, rows, groups = asked.read()
    logged, has = log_expression(asked.cells, model, options)
    _, query_has = log_expression(adata[:1], model, {**query, "min_overlap": 0})
    genes = variable_genes(logged[rows], has & query_has)
    if len(genes) < 50:
        msg = f"`adata` and `reference` share {len(genes)} expressed genes; at least 50 are needed."
        raise ValueError(msg)
    vectors = logged[:, genes].toarray()
    codes, classes = _codes(read, rows)
    annotator = fit_annotator(
        vectors[rows],
        codes,
        classes,
        tree=asked.tree(read, classes),
        method="linear",
        groups=groups,
        genes=[str(symbol) for symbol in model.vocabulary.symbols[genes]],
        rng=asked.rng,
    )
    found = log_expression(adata, model, query, genes)[0].toarray()
    found[~found.any(axis=1)] = np.nan
    return annotator, found


def _ids(labels: np.ndarray, texts: np.ndarray, column: str) -> dict[str, str]:
    """Id of the Cell Ontology of each label, nothing if the column holds no ids.

    Raises
    ------
    ValueError
        A label with several ids, or without any.
    """
    is_id = np.array([text.startswith("CL:") for text in texts])
    if not is_id.any():
        return {}
    found: dict[str, str] = {}
    for label in np.unique(labels.astype(str)):
        ids = sorted(set(texts[(labels == label) & is_id]))
        if len(ids) != 1:
            msg = (
                f"reference.obs[{column!r}] has {', '.join(ids) or 'no id'} for {label!r}; one id of the Cell Ontology per type "
                "is needed. Correct the column, or leave levels= out."
            )
            raise ValueError(msg)
        found[str(label)] = ids[0]
    return found


def _codes(read: Labels, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes of the rows that are used, renumbered where a class lost all its cells, and the classes."""
    present, codes = np.unique(read.codes[rows], return_inverse=True)
    return codes, [read.classes[code] for code in present]


def _groups(reference: AnnData, val_by: str | None, rows: np.ndarray) -> np.ndarray | None:
    """Groups to hold out, of the rows."""
    if val_by is not None:
        return read_groups(reference, val_by, rows, option="val_by", name="reference")
    if columns := group_columns(reference):
        logger.info(
            "The reference has the columns %s; with val_by= whole groups would be held out, and confidence be that for "
            "other donors.",
            columns,
        )
    return None


def _without_empty(
    vectors: np.ndarray, rows: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows whose cells express something."""
    is_full = np.isfinite(vectors[rows]).all(axis=1)
    return rows[is_full], None if groups is None else groups[is_full]
