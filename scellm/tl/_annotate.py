"""annotate: cell types, confidence, probabilities -> obs, obsm."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_anndata, check_backed, check_free, check_key
from .._keys import CELL_TYPE
from .._obs import read_text
from .._warn import warn
from ..annotation._align import align_cells, check_align
from ..annotation._annotator import Annotator
from ..annotation._decide import NOVEL, UNASSIGNED, Result, Thresholds, decide, vote_clusters
from ..annotation._fit import METHODS
from ..annotation._records import AnnotationRecord, describe, plain_report
from ..annotation._vote import over_cluster
from ..models import CellLM, load
from ._annotate_sources import Reference, of_genes, of_model, on_embedding, on_genes
from ._read_labels import RESERVED
from ._vectors import cell_vectors

if TYPE_CHECKING:
    import torch

LARGE_SHIFT = 1.5
"""Shift that is worth a word."""
MANY_NOVEL = 0.5
"""Share of novel cells from which the warning says that reference and data do not belong together."""
logger = logging.getLogger(__name__)


def annotate(
    adata: AnnData,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    *,
    reference: AnnData | None = None,
    labels: str | None = None,
    method: Literal["auto", "linear", "prototype", "knn", "logistic"] = "auto",
    val_by: str | None = None,
    target_error: float | None = None,
    min_confidence: float | None = None,
    novelty_error: float | None = 0.05,
    align: bool | Literal["auto"] = "auto",
    groupby: str | Literal["auto"] | None = None,
    layer: str | None = None,
    reference_layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    rng: int = 0,
    key_added: str = CELL_TYPE,
    copy: bool = False,
) -> AnnData | None:
    """Name the type of every cell, say how sure that is, and leave out what is not known.

    Three ways, chosen by what is given:

    - *reference*: `reference=` and `labels=`. Both objects are embedded with the same model, and a classifier is fitted
      on the embedding of the reference. It is the best of logistic regression, class prototypes and nearest
      neighbours on held-out parts of the reference: on groups such as donors with `val_by=`, else on cells.
    - *fine-tuned*: `model=` is what `tl.fine_tune` returned. Its own head is used, on the embedding or, as for drug
      response, on genes.
    - *pretrained*: nothing else. The reference that comes with the model is used: broad types of many tissues.

    In all of them the probabilities are scaled by a temperature fitted on held-out cells :cite:p:`Guo2017`.

    A cell is `"novel"` if it is farther from the reference cells than all but `novelty_error` of the held-out ones:
    nothing like it was seen. It is `"unassigned"` if it is near, but between types: the confidence is below
    `min_confidence`, or, with `target_error`, more than one type cannot be excluded. These two are different answers.

    With `target_error=0.05` each cell gets a set of types by split conformal prediction :cite:p:`Sadinle2019`. For cells
    exchangeable with the held-out ones the true type is outside the set at most 5 % of the time, over all cells
    together, not within each type. Cells of another study or tissue are not exchangeable, and types that the reference
    lacks are never in the set: look at what is novel first.

    Parameters
    ----------
    adata
        Cells.
    model
        Model for the embedding: a name, a folder, a loaded model or the result of `tl.fine_tune` or
        `tl.few_shot`. `adata.obsm["X_scellm"]` is used if it is of this model and matrix, else cells are embedded.
    reference
        Labelled cells of the same kind of sample.
    labels
        Column of `reference.obs` with their types.
    method
        Classifier on the reference: `"linear"` (multinomial logistic regression), `"prototype"` (cosine to the mean of
        each type), `"knn"` (vote of the nearest cells), all on the embedding; `"auto"` takes the one that wins on
        held-out cells, the linear one unless another wins by more than 0.02 macro-F1. `"logistic"` is the baseline: logistic regression on 2,000 variable genes, without a model, but
        with the same calibration, sets and novelty.
    val_by
        Column of `reference.obs` with donors or studies. Whole groups are held out to choose and to calibrate, each
        weighs the same. Without it confidence is that for more cells of the same donors.
    target_error
        Greatest share of cells whose set of types may miss the true one, between 0 and 1; `None` makes no sets.
    min_confidence
        Cells whose confidence is lower are "unassigned".
    novelty_error
        Share of held-out reference cells that would be called novel; `None` calls none novel.
    align
        Whether to remove the batch shift: the vector by which all cells of `adata` lie apart from reference cells of their
        own types, as another protocol gives. `"auto"` removes it from the embedding if that brings the cells at least 8 %
        closer to the reference, which is rare within one study and the rule between protocols; not below 50 cells, nor on
        genes. `True` always does. Both also divide distances, before cells are called novel, by the median distance of
        these cells over that of the held-out reference cells, at least 1 and at most 3 (ours: chosen on pairs of
        protocols of the training corpus); this takes half of the cells to be of known types. Labels then depend on what
        else is in `adata`: pass one study at a time. `False` does neither, so that no cell depends on the others.
    groupby
        Column of `adata.obs` with clusters: all cells of one get the label of its majority. `"auto"` makes small clusters of
        the embedding.
    layer
        Layer of `adata` with expression; `None` reads `adata.X`.
    reference_layer
        Layer of `reference` with expression; `None` reads `reference.X`.
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
    `adata.obs[f"{key_added}_confidence"]` : float32
        Calibrated probability of the most probable type, also of cells that are unassigned or novel; after a vote that
        of the type voted for. 0 for cells without genes.
    `adata.obs[f"{key_added}_novelty"]` : float32
        Distance from the reference cells, without the shift; above 1 is novel. NaN for cells without genes or `novelty_error=None`.
    `adata.obsm[f"{key_added}_probabilities"]` : array of shape (n_obs, n_classes), float32
        Calibrated probabilities, columns in the order of `uns[key_added]["classes"]`; NaN for cells without genes.
    `adata.obsm[f"{key_added}_set"]` : array of shape (n_obs, n_classes), bool
        With `target_error`: the types that cannot be excluded.
    `adata.obs[f"{key_added}_set_size"]` : int32
        With `target_error`: how many these are, at least 1.
    `adata.uns[key_added]` : dict
        `classes`, `ontology_ids` (Cell Ontology ids of the classes, where the reference has them), `mode` ("reference",
        "fine-tuned" or "pretrained"), `method`, `model`, `sha256`, thresholds, `majority_vote`, `batch_shift` (length of
        the shift that was removed, 0 if none), numbers of cells without a type, `message` in words, and
        under `held_out` what was measured on held-out reference cells: macro-F1 of each classifier, calibration
        error before and after, coverage of the sets overall and by class (-1 where a class could not be held out).

    Raises
    ------
    KeyError
        A column or layer is not there.
    TypeError
        `reference` or `adata` is no AnnData; labels are measurements.
    ValueError
        A model without types and no reference; an option about a reference without one; fewer than two types; names that differ only by case; one group in
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
    limits = Thresholds(target_error=target_error, min_confidence=min_confidence, novelty_error=novelty_error)
    check_key(key_added)
    check_align(align)
    _check_options(adata, reference, labels, method, copy=copy)
    if reference is None:
        _check_no_reference(labels, method, val_by, reference_layer)
    check_free(adata, key_added, ("obs", key_added), of="tl.annotate", field="classes")
    clusters = None if groupby in (None, "auto") else read_text(adata, groupby)
    model = model if isinstance(model, CellLM) else load(model)
    options = {"min_overlap": min_overlap, "device": device}
    query = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, **options}
    if reference is None:
        annotator, mode = of_model(model)
    else:
        annotator, mode = None, "reference"
        asked = Reference(reference, labels, method, val_by, rng)
        options |= {"layer": reference_layer}
    vectors, record = None, {}
    if method == "logistic":
        annotator, vectors = on_genes(adata, asked, model, query, options)
    elif annotator is None:
        annotator = on_embedding(asked, model, options)
    if vectors is None and annotator.space == "genes":
        vectors = of_genes(adata, annotator, model, query)
    elif vectors is None:
        vectors, record = cell_vectors(adata, model, query)
    vectors, batch_shift = align_cells(annotator, vectors, align)
    result = decide(annotator, vectors, limits, is_shifted=align is not False)
    if groupby == "auto":
        clusters = np.full(adata.n_obs, "", dtype=object)
        clusters[~result.is_empty] = over_cluster(vectors[~result.is_empty], rng)
    if clusters is not None:
        vote_clusters(result, clusters)
    target = adata.copy() if copy else adata
    _write(target, key_added, annotator, result)
    written = _record(annotator, mode, model, result, limits)
    written = dataclasses.replace(
        written,
        embedding_reused=bool(record.get("reused", False)),
        majority_vote=clusters is not None,
        batch_shift=batch_shift,
    )
    target.uns[key_added] = written.to_uns()
    logger.info(written.message)
    _warn(result, mode)
    return target if copy else None


def _write(adata: AnnData, key: str, annotator: Annotator, result: Result) -> None:
    """Put the results where `Returns` says, and take away what an earlier call left there."""
    names = np.array([*annotator.classes, *RESERVED[::-1]], dtype=object)  # -1 and -2 count from the end
    found = names[result.codes]
    categories = names[np.isin(np.arange(len(names)), result.codes % len(names))]  # those of some cell
    adata.obs[key] = pd.Categorical(found, categories=categories)
    adata.obs[f"{key}_confidence"] = result.confidence.astype(np.float32)
    adata.obs[f"{key}_novelty"] = result.novelty
    adata.obsm[f"{key}_probabilities"] = result.probabilities
    if result.sets is not None:
        adata.obsm[f"{key}_set"] = result.sets
        adata.obs[f"{key}_set_size"] = result.sets.sum(axis=1).astype(np.int32)
        return
    if f"{key}_set" in adata.obsm:
        del adata.obsm[f"{key}_set"]
    if f"{key}_set_size" in adata.obs:
        del adata.obs[f"{key}_set_size"]


def _record(
    annotator: Annotator, mode: str, model: CellLM, result: Result, limits: Thresholds
) -> AnnotationRecord:
    """What goes to `uns`."""
    method = "logistic" if annotator.space == "genes" else annotator.kind
    return AnnotationRecord(
        mode=mode,
        method=method,
        classes=annotator.classes,
        model=model.name,
        sha256=model.sha256,
        embedding_reused=False,
        majority_vote=False,
        batch_shift=0.0,
        n_unassigned=int((result.codes == UNASSIGNED).sum()),
        n_novel=int((result.codes == NOVEL).sum()),
        novelty_shift=result.shift,
        n_empty=int(result.is_empty.sum()),
        held_out=plain_report(annotator.report),
        message=describe(annotator.report, len(annotator.classes), mode, model.name, method),
        ontology_ids=list(annotator.facts.get("ontology_ids") or []),
        **{name: float(value) for name, value in vars(limits).items() if value is not None},
    )


def _warn(result: Result, mode: str) -> None:
    """Say what the user would otherwise find out too late."""
    share = float((result.codes == NOVEL).mean())
    closer = (
        "If it has several donors or studies, pass val_by= with their column, so that the distance between them counts."
        if mode == "reference"
        else "Pass reference= with labelled cells of the same tissue."
    )
    if share > MANY_NOVEL:
        warn(
            f"{100 * share:.0f} % of the cells are novel: farther from the reference than its own cells are from each "
            f"other. Another tissue or organism, or a reference that is too uniform. {closer} novelty_error=None labels "
            "them all the same."
        )
    elif result.shift > LARGE_SHIFT:
        warn(
            f"The cells are {result.shift:.1f} times as far from the reference as its held-out cells: another protocol or "
            "tissue. What is novel was judged beyond that shift, and confidence may be too high. " + closer
        )


def _check_options(
    adata: AnnData,
    reference: AnnData | None,
    labels: str | None,
    method: str,
    *,
    copy: bool,
) -> None:
    """Refuse what makes no sense before anything is computed."""
    check_anndata(adata)
    check_backed(adata, copy=copy)
    if method not in ("auto", *METHODS, "logistic"):
        msg = f"method={method!r} is unknown; choose one of {['auto', *METHODS, 'logistic']}."
        raise ValueError(msg)
    if reference is None:
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


def _check_no_reference(
    labels: str | None, method: str, val_by: str | None, reference_layer: str | None
) -> None:
    """Refuse options about a reference where there is none: they would do nothing."""
    given = {"labels": labels, "val_by": val_by, "reference_layer": reference_layer}
    named = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    named += [f"method={method!r}"] if method != "auto" else []
    if named:
        msg = (
            f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} about a reference, and none is given. Pass "
            "reference= with labelled cells; to train on labels of these cells, see scellm.tl.fine_tune."
        )
        raise ValueError(msg)
