"""fit_reference: labeled cells -> a model that knows their types."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from anndata import AnnData

from .._checks import check_anndata, check_choice
from .._obs import read_text
from .._warn import warn
from ..annotation._fit import METHODS, fit_annotator
from ..annotation._levels import tree_of_ids, tree_of_levels
from ..annotation._tree import Tree
from ..metrics._baselines import variable_genes
from ..models import CellLM, load
from ..models._parts import Parts
from ._read_labels import Labels, group_columns, read_groups, read_labels
from ._vectors import cell_vectors, log_expression

if TYPE_CHECKING:
    import torch

FEWEST_GENES = 50
"""Genes below which logistic regression on genes is refused (ours)."""
logger = logging.getLogger("scellm.tl._annotate")


def fit_reference(
    adata: AnnData,
    labels: str,
    *,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    levels: str | Sequence[str] | None = None,
    method: Literal["auto", "linear", "prototype", "knn", "logistic"] = "auto",
    val_by: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    rng: int = 0,
) -> CellLM:
    """Make a reference of your own labeled cells, for any number of datasets to annotate.

    The cells are embedded, and a classifier is fitted on the embedding: the best of logistic regression, class prototypes
    and nearest neighbors on held-out parts of the reference, which also calibrate its confidence. The encoder stays
    as it is; to change it too, see `tl.fine_tune`.

    `tl.annotate(adata, reference=, labels=)` does this with the defaults of all options, each time anew.

    Parameters
    ----------
    adata
        Labeled cells; cells without a label are left out. 10,000 at most are used, drawn evenly over types.
    labels
        Column of `adata.obs` with their types.
    model
        Model for the embedding: a name, a folder or a loaded model. It is not changed.
    levels
        Columns of `adata.obs` with broader types, from coarse to fine, or one column with ids of the Cell Ontology, for
        instance `"cell_type_ontology_term_id"`; the tree over the types. `None` leaves them flat.
    method
        Classifier: `"linear"` (multinomial logistic regression), `"prototype"` (cosine to the mean of each type), `"knn"`
        (vote of the nearest cells), all on the embedding; `"auto"` takes the one that wins on held-out cells, the
        linear one unless another wins by more than 0.02 macro-F1. `"logistic"` is the baseline: logistic regression on
        2,000 variable genes, without the embedding, but with the same calibration, sets and novelty.
    val_by
        Column of `adata.obs` with donors or studies: whole groups are held out, so that confidence is that for a new donor, and
        each group weighs the same. Without it confidence is that for more cells of the same donors.
    layer, use_raw, gene_key, min_overlap, device
        As in `tl.embed`.
    rng
        Seed of folds and of the cells drawn.

    Returns
    -------
    The model with these types, for `tl.annotate(other, result)`; `models.save` and `models.load` keep it.

    Raises
    ------
    KeyError
        A column or layer is not there.
    TypeError
        `adata` is not an AnnData; labels are measurements.
    ValueError
        Fewer than two types; names that differ only by case; levels that contradict each other; one group in `val_by`;
        genes or values that `tl.embed` would refuse.

    Examples
    --------
    >>> cells = scellm.datasets.toy_cells(200, n_vars=1950)
    >>> reference, adata = cells[:160].copy(), cells[160:].copy()
    >>> model = scellm.tl.fit_reference(reference, "cell_type", val_by="donor")
    >>> scellm.tl.annotate(adata, model, novelty_error=None)
    >>> bool((adata.obs["scellm_cell_type"].astype(str) == adata.obs["cell_type"].astype(str)).mean() > 0.9)
    True
    """
    check_anndata(adata)
    check_choice(adata, layer, use_raw)
    if method not in ("auto", *METHODS, "logistic"):
        msg = f"method={method!r} is unknown; choose one of {['auto', *METHODS, 'logistic']}."
        raise ValueError(msg)
    model = model if isinstance(model, CellLM) else load(model)
    source = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, "min_overlap": min_overlap}
    return with_reference(
        adata, model, Labeled(labels, levels, method, val_by, rng, "adata"), {**source, "device": device}
    )


@dataclass(frozen=True)
class Labeled:
    """What is known of the cells of a reference, and how a classifier is fitted to them."""

    labels: str
    levels: str | Sequence[str] | None
    method: Literal["auto", "linear", "prototype", "knn", "logistic"]
    val_by: str | None
    rng: int
    name: str
    """What to call the object in messages."""


def with_reference(adata: AnnData, model: CellLM, asked: Labeled, source: dict[str, Any]) -> CellLM:
    """A model with the same encoder that knows the types of these cells."""
    read = read_labels(adata, asked.labels, name=asked.name, min_cells=2)
    groups = _groups(adata, asked, read)
    if asked.method == "logistic":
        vectors, genes = _expression(adata, model, source, read)
    else:
        vectors, genes = cell_vectors(adata, model, source)[0], None
    rows = np.flatnonzero((read.codes >= 0) & np.isfinite(vectors).all(axis=1))
    present, codes = np.unique(read.codes[rows], return_inverse=True)
    classes = [read.classes[code] for code in present]
    annotator = fit_annotator(
        vectors[rows],
        codes,
        classes,
        method="linear" if asked.method == "logistic" else asked.method,
        groups=None if groups is None else groups[rows],
        genes=genes,
        tree=_tree(adata, asked, read, classes),
        rng=asked.rng,
    )
    annotator.facts = {"mode": "reference", "labels": asked.labels}
    parts = Parts(model.parts)
    parts["cell_type"] = annotator.to_part()
    cells = f"{len(rows)} cells of {len(classes)} types of {asked.labels!r}"
    return dataclasses.replace(
        model,
        card="",
        provenance={**model.provenance, "own_reference": cells},
        parts=parts,
    )


def _expression(
    adata: AnnData, model: CellLM, source: dict[str, Any], read: Labels
) -> tuple[np.ndarray, list[str]]:
    """(n_obs, F) log1p CP10k of the genes that vary, and their symbols."""
    logged, has = log_expression(adata, model, source)
    genes = variable_genes(logged[np.flatnonzero(read.codes >= 0)], has)
    if len(genes) < FEWEST_GENES:
        msg = f"{len(genes)} genes vary between the labeled cells; at least {FEWEST_GENES} are needed."
        raise ValueError(msg)
    return logged[:, genes].toarray(), [str(symbol) for symbol in model.vocabulary.symbols[genes]]


def _groups(adata: AnnData, asked: Labeled, read: Labels) -> np.ndarray | None:
    """(n_obs,) groups to hold out."""
    if asked.val_by is not None:
        rows = np.flatnonzero(read.codes >= 0)
        groups = np.full(adata.n_obs, "", dtype=object)
        groups[rows] = read_groups(adata, asked.val_by, rows, option="val_by", name=asked.name)
        return groups
    if columns := group_columns(adata):
        logger.info(
            "The reference has the columns %s; with scellm.tl.fit_reference(..., val_by=) whole groups would be held out, "
            "and confidence be that for other donors.",
            columns,
        )
    return None


def _tree(adata: AnnData, asked: Labeled, read: Labels, classes: list[str]) -> Tree | None:
    """The tree over the classes, if levels were named."""
    if asked.levels is None:
        return None
    columns = [asked.levels] if isinstance(asked.levels, str) else list(asked.levels)
    has = read.codes >= 0
    texts = {column: read_text(adata, column, name=asked.name)[has] for column in columns}
    labels = np.array(read.classes, dtype=object)[read.codes[has]]
    where = f"{asked.name}.obs[{columns[0]!r}]"
    if len(columns) == 1 and (ids := _ids(labels, texts[columns[0]], where)):
        tree, replaced = tree_of_ids({name: ids[name] for name in classes})
        if replaced:
            listed = ", ".join(f"{old} by {new}" for old, new in replaced.items())
            warn(f"{len(replaced)} ids of {where} are obsolete and were replaced: {listed}.")
        return tree
    return tree_of_levels(labels, texts, classes)


def _ids(labels: np.ndarray, texts: np.ndarray, where: str) -> dict[str, str]:
    """Id of the Cell Ontology of each label, nothing if the column holds no ids."""
    is_id = np.array([text.startswith("CL:") for text in texts])
    if not is_id.any():
        return {}
    found: dict[str, str] = {}
    for label in np.unique(labels.astype(str)):
        ids = sorted(set(texts[(labels == label) & is_id]))
        if len(ids) != 1:
            msg = (
                f"{where} has {', '.join(ids) or 'no id'} for {label!r}; one id of the Cell Ontology per type is needed. "
                "Correct the column, or leave levels= out."
            )
            raise ValueError(msg)
        found[str(label)] = ids[0]
    return found
