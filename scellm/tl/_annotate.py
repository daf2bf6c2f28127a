"""annotate: cell types, confidence, probabilities -> obs, obsm."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from anndata import AnnData

from .._calls import noting
from .._checks import check_anndata, check_backed, check_free, check_key, is_on_disk
from .._containers import takes_cells
from .._keys import CELL_TYPE, X_SCELLM
from .._obs import read_text
from .._warn import warn
from ..annotation._align import check_align, find_shift, without_shift
from ..annotation._decide import decide, empty_cells, vote_clusters
from ..annotation._restrict import class_mask
from ..annotation._vote import over_cluster
from ..models import CellLM, load
from ._annotate_results import Limits, make_record, say, write_labels
from ._annotate_sources import of_model, read_cells
from ._fit_reference import Labeled, with_reference

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@takes_cells
def annotate(
    adata: AnnData,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    *,
    reference: AnnData | None = None,
    labels: str | None = None,
    tissue: str | Sequence[str] | None = None,
    classes: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    target_error: float | None = None,
    min_confidence: float | Literal["auto"] | None = "auto",
    novelty_error: float | None = 0.05,
    align: bool | Literal["auto"] = "auto",
    groupby: str | Literal["neighbors", "auto"] | None = "neighbors",
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    rng: int = 0,
    key_added: str = CELL_TYPE,
    copy: bool = False,
) -> AnnData | None:
    """Name the type of every cell, say how sure that is, and leave out what is not known.

    Types are those of the model, or of a reference of your own:

    - nothing but cells: the reference that comes with the model is used, with types of many tissues on a tree, from
      lineages such as lymphocytes down to regulatory T cells; a classifier on 1,000 genes has its say beside that on the
      embedding, by the square root of the share of these genes that `adata` has;
    - `reference=` and `labels=`: both objects are embedded with the same model, and a classifier is fitted on the
      embedding of the reference, as `tl.fit_reference` does with the defaults of its options;
    - `model=` is what `tl.fit_reference`, `tl.fine_tune` or `tl.few_shot` returned.

    In all of them the probabilities are scaled by a temperature fitted on held-out cells :cite:p:`Guo2017`.

    Where types stand on a tree, as in the shipped reference and with `tl.fit_reference(levels=)`, probabilities add up along it, and a cell
    gets the deepest node that is sure enough: one that is surely a T cell, but CD4 or CD8, is a "T cell". With
    `target_error=0.05` the threshold is set by split conformal prediction on nested sets :cite:p:`Gupta2022`: the way
    down the tree is fixed, the nodes on it hold ever fewer types, and for cells exchangeable with the held-out ones the
    named node is the true type or an ancestor of it at least 95 % of the time. Doubt in a lineage counts 0.7 times and
    above lineages 0.49 times there (ours: chosen on studies of the corpus left out), so that a lineage may be named at
    less confidence than a type.

    A cell is `"novel"` if it is farther from the reference cells than all but `novelty_error` of the held-out ones:
    nothing like it was seen. It is `"unassigned"` if it is near, but between types: no node of the tree reaches
    `min_confidence`, or, without a tree and with `target_error`, more than one type cannot be excluded. These two are
    different answers. A warning says if the cells as a whole do not fit the shipped reference.

    Without a tree and with `target_error=0.05` each cell gets a set of types by split conformal prediction :cite:p:`Sadinle2019`. For cells
    exchangeable with the held-out ones the true type is outside the set at most 5 % of the time, over all cells
    together, not within each type. Cells of another study or tissue are not exchangeable, and types that the reference
    lacks are never in the set: look at what is novel first.

    Parameters
    ----------
    adata
        Cells.
    model
        Model for the embedding, and for types unless `reference` is given: a name, a folder, or a loaded model.
        `adata.obsm["X_scellm"]` is used if it is of this model and matrix, else cells are embedded.
    reference
        Labeled cells of the same kind of sample. Its expression is `reference.X`; to read a layer, to hold out whole donors,
        to give it a tree or to use it more than once, see `tl.fit_reference`.
    labels
        Column of `reference.obs` with their types.
    tissue
        Tissues the cells are from, by name or Uberon id: types that live in none of them are left out. Of the shipped
        reference; :doc:`the page of types </guide/cell_types>` lists them.
    classes
        Types that may be answered, by name, synonym or id of the Cell Ontology, each with all types below it.
    exclude
        Types that may not be answered, as for `classes`. The others share the probability, and a warning says if many cells
        look most like what was left out.
    target_error
        Greatest share of cells whose label, or set of types, may miss the true one, between 0 and 1; `None` asks for none.
    min_confidence
        What a label must reach; `"auto"` is 0.5 on a tree and nothing for flat types, `None` names the finest type always. `"auto"`
        also names no type of the shipped reference that was wrong more often than right in studies left out, but the one above it.
    novelty_error
        Share of held-out reference cells that would be called novel; `None` calls none novel.
    align
        Whether to remove the batch shift: the vector by which all cells of `adata` lie apart from reference cells of their
        own types, as another protocol gives. `"auto"` removes it from the embedding if that brings the cells at least 8 %
        closer to the reference, which is rare within one study and the rule between protocols; not below 50 cells, nor on
        genes. `True` always does. Both also divide distances, before cells are called novel, by the median distance of
        these cells over that of the held-out reference cells, at least 1 and at most 3 (ours: chosen on pairs of
        protocols of the training corpus); this takes half of the cells to be of known types. Labels then depend on what
        else is in `adata`: pass one study at a time. `False` does neither; with `groupby=None` no cell then depends on the others.
    groupby
        Which cells have a say in each other's type. `"neighbors"`: with the shipped reference the 15 nearest cells of `adata` in
        the embedding, looked for among 10,000 drawn at random if there are more; the logarithm of their mean probability weighs
        0.5 beside the cell's own (ours: chosen on studies of the corpus left out). Other models and references are not
        calibrated for this, and name each cell by itself. A column of `adata.obs` with clusters: all cells of one get the label of its
        majority. `"auto"` makes small clusters of the embedding. `None`: each cell by itself.
    layer
        Layer of `adata` with expression; `None` reads `adata.X`.
    use_raw, gene_key
        Of `adata`, as in `tl.embed`.
    min_overlap, device
        As in `tl.embed`, for both.
    rng
        Seed of folds, of the reference cells drawn (10,000 at most) and of over-clustering.
    key_added
        Key of the results.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.obs[key_added]` : categorical
        Type of each cell, "unassigned" or "novel"; its categories are those that some cell has.
    `adata.obs[f"{key_added}_coarse"]` : categorical
        On a tree: the lineage of each cell, "unassigned" or "novel".
    `adata.obs[f"{key_added}_ontology_id"]` : categorical
        On a tree with ids: the Cell Ontology id of the label, or of the nearest ancestor that has one; missing for others.
    `adata.obs[f"{key_added}_confidence"]` : float32
        Calibrated probability of the label, of unassigned and novel cells that of the most probable type; after a vote that
        of the type voted for. 0 for cells without genes.
    `adata.obs[f"{key_added}_novelty"]` : float32
        Distance from the reference cells, without the shift; above 1 is novel. NaN for cells without genes or `novelty_error=None`.
    `adata.obsm[f"{key_added}_probabilities"]` : array of shape (n_obs, n_classes), float32
        Calibrated probabilities, columns in the order of `uns[key_added]["classes"]`; NaN for cells without genes.
    `adata.obsm[f"{key_added}_set"]` : array of shape (n_obs, n_classes), bool
        With `target_error`: the types that cannot be excluded; on a tree those of the label.
    `adata.obs[f"{key_added}_set_size"]` : int32
        With `target_error`: how many these are, at least 1.
    `adata.uns[key_added]` : dict
        `classes`, `ontology_ids` (Cell Ontology ids of the classes, where the reference has them), on a tree `nodes` and
        `paths` (each node with its ancestors, " > " between), `markers` (genes of each node, comma between), `recall_left_out` and
        `precision_left_out` (of each node, as in :func:`scellm.get.annotation`), `summary` (one line about these cells), `tissue_guess`, `fits` and `doubts` (whether the cells fit the shipped reference, and
        why not), `mode` ("reference",
        "fine-tuned" or "pretrained"), `method`, `model`, `sha256`, thresholds, `majority_vote`, `n_neighbors`,
        `names_replaced` (names that gave way to those above them), `batch_shift` (length of
        the shift that was removed, 0 if none), numbers of cells without a type, `message` in words, the `call`, and
        under `held_out` what was measured on held-out reference cells: macro-F1 of each classifier, calibration
        error before and after, coverage of the sets overall and by class (-1 where a class could not be held out).
    `adata.obsm["X_scellm"]`, `adata.uns["X_scellm"]`
        The embedding, as by `tl.embed`, if it was computed and there was none.

    Raises
    ------
    KeyError
        A column or layer is not there.
    TypeError
        `reference` or `adata` is no AnnData; labels are measurements.
    ValueError
        A model without types and no reference; an unknown tissue or type, or fewer than two types left; levels that
        contradict each other; an option about a reference without one; fewer than two types; names that differ only by case; one group in
        `val_by`; an error outside (0, 1); sets asked of a head without calibration; genes or values that
        `tl.embed` would refuse; a key that holds something else.

    Examples
    --------
    >>> cells = scellm.datasets.toy_cells(200, n_vars=1950)
    >>> reference, adata = cells[:160].copy(), cells[160:].copy()
    >>> scellm.tl.annotate(adata, reference=reference, labels="cell_type", novelty_error=None)
    >>> bool((adata.obs["scellm_cell_type"].astype(str) == adata.obs["cell_type"].astype(str)).mean() > 0.9)
    True
    """
    check_key(key_added)
    check_align(align)
    _check_reference(adata, reference, labels)
    check_backed(adata, copy=copy)
    limits = Limits(target_error, min_confidence, novelty_error)
    check_free(adata, key_added, ("obs", key_added), of="tl.annotate", field="classes")
    clusters = None if groupby in (None, "auto", "neighbors") else read_text(adata, groupby)
    model = model if isinstance(model, CellLM) else load(model)
    options = {"min_overlap": min_overlap, "device": device}
    query = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, **options}
    if reference is not None and labels is not None:
        with noting():  # facts of the reference are not those of the cells
            model = with_reference(
                reference, model, Labeled(labels, None, "auto", None, rng, "reference"), options
            )
    annotator, mode = of_model(model)
    mask = class_mask(annotator, tissue=tissue, classes=classes, exclude=exclude)
    read = read_cells(adata, annotator, model, query, of_reference=mode == "pretrained")
    vectors, record = read.vectors, read.record
    shift = find_shift(annotator, vectors, align, ~empty_cells(vectors))
    thresholds = dataclasses.replace(limits.of(annotator), ask_neighbors=groupby == "neighbors")
    result = decide(
        annotator,
        vectors,
        thresholds,
        is_shifted=align is not False,
        allowed=mask,
        move=shift,
        on_disk=is_on_disk(adata),
        genes=read.genes,
    )
    if groupby == "auto":
        clusters = np.full(adata.n_obs, "", dtype=object)
        clusters[~result.is_empty] = over_cluster(without_shift(vectors[~result.is_empty], shift), rng)
    if clusters is not None:
        vote_clusters(result, clusters)
    target = adata.copy() if copy else adata
    write_labels(target, key_added, annotator, result)
    if record and not record.get("reused") and X_SCELLM not in target.obsm:
        target.obsm[X_SCELLM] = vectors
        target.uns[X_SCELLM] = {name: value for name, value in record.items() if name != "reused"}
    written = make_record(annotator, mode, model, result, thresholds, vectors)
    written = dataclasses.replace(
        written,
        embedding_reused=bool(record.get("reused", False)),
        majority_vote=clusters is not None,
        batch_shift=0.0 if shift is None else float(np.linalg.norm(shift)),
        seen_share=read.seen_share,
    )
    target.uns[key_added] = written.to_uns()
    logger.info(written.message)
    say(written, result, annotator, mask)
    return target if copy else None


def _check_reference(adata: AnnData, reference: AnnData | None, labels: str | None) -> None:
    """Refuse what makes no sense before anything is computed."""
    check_anndata(adata)
    if reference is None:
        if labels is not None:
            msg = (
                f"labels={labels!r} is about a reference, and none is given. Pass reference= with labeled cells; to train on "
                "labels of these cells, see scellm.tl.fine_tune."
            )
            raise ValueError(msg)
        return
    if not isinstance(reference, AnnData):
        msg = f"The reference must be an AnnData object, found {type(reference).__name__}."
        raise TypeError(msg)
    if labels is None:
        msg = (
            "reference= needs labels= with the column of its cell types; reference.obs has "
            f"{[str(column) for column in reference.obs.columns]}."
        )
        raise ValueError(msg)
    if reference is adata or (reference.shape == adata.shape and reference.obs_names.equals(adata.obs_names)):
        warn(
            "The reference and the cells to annotate are the same: each cell finds itself, so that confidence and "
            "novelty say nothing about new cells. What was measured on held-out cells still does."
        )
