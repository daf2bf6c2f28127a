"""annotate: cell types, confidence, probabilities -> obs, obsm."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from .._checks import check_backed, check_free, check_key
from .._keys import CELL_TYPE
from .._version import __version__
from .._warn import warn
from ..models import CellLM, load
from ..models._annotator import Annotator
from ..train._fit_annotator import METHODS, REPORTED_ERRORS, fit_annotator
from ._align import align_cells, check_align
from ._read_labels import RESERVED, group_columns, read_column, read_groups, read_labels
from ._vectors import cell_vectors, log_expression, variable_genes
from ._vote import over_cluster, vote

if TYPE_CHECKING:
    import torch

UNASSIGNED, NOVEL = -1, -2
"""Codes of cells that get no type; `RESERVED` has their names in this order."""
MAX_SHIFT = 3.0
"""Protocols of the training corpus shift distances up to this; more is another kind of cell (ours)."""
LARGE_SHIFT = 1.5
"""Shift that is worth a word."""
MANY_NOVEL = 0.5
"""Share of novel cells from which the warning says that reference and data do not belong together."""
FEW_GENES, MANY_GENES = 0.5, 0.9
"""Share of the genes of a head on genes below which it is refused, and below which that is worth a word (ours)."""
logger = logging.getLogger(__name__)


def annotate(
    adata: AnnData,
    *,
    model: CellLM | str | os.PathLike[str] | None = None,
    reference: AnnData | None = None,
    labels: str | None = None,
    method: Literal["auto", "linear", "prototype", "knn", "logistic"] = "auto",
    val_by: str | None = None,
    target_error: float | None = None,
    min_confidence: float | None = None,
    novelty_error: float | None = 0.05,
    novelty_shift: float | Literal["auto"] = "auto",
    align: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    majority_vote: bool = False,
    layer: str | None = None,
    reference_layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    rng: int = 0,
    key_added: str = CELL_TYPE,
    show_progress: bool | None = None,
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
        Model for the embedding: a name, a folder, a loaded model or the result of `tl.fine_tune`; `None` is
        "scellm-small". `adata.obsm["X_scellm"]` is used if it is of this model and matrix, else cells are embedded.
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
    novelty_shift
        Distances are divided by it before they are called novel: cells of another protocol are farther from the
        reference as a whole. `"auto"` is the median distance of these cells over that of the held-out reference cells,
        at least 1 and at most 3 (ours: chosen on pairs of protocols of the training corpus); it takes half of the
        cells to be of known types. 1 takes distances as they are, so that no cell depends on the others.
    align
        Whether to take out of the embedding the shift that all cells of `adata` have from reference cells of their own
        types, as another protocol gives. `"auto"` does so if the cells then lie nearer to the reference by 8 % or more,
        which is rare within one study and the rule between protocols. Labels then depend on what else is in `adata`:
        give it one study at a time. Without effect below 50 cells and for `method="logistic"`.
    groupby
        Column of `adata.obs` with clusters: all cells of one get the label of its majority.
    majority_vote
        The same over small clusters of the embedding, if `groupby` is not given.
    layer
        Layer of `adata` with expression; `None` reads `adata.X`.
    reference_layer
        Layer of `reference` with expression; `None` reads `reference.X`.
    use_raw, gene_key
        Of `adata`, as in `tl.embed`.
    min_overlap, batch_size, device, precision
        As in `tl.embed`, for both.
    rng
        Seed of folds, of the reference cells drawn (10,000 at most) and of over-clustering.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 2,000 cells.
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
        `classes`, `way`, `method`, `model`, `sha256`, thresholds, `study_shift` (length of what was taken out, 0 if
        nothing), numbers of cells without a type, `message` in words,
        and under `held_out` what was measured on held-out reference cells: macro-F1 of each classifier, calibration
        error before and after, coverage of the sets overall and by class (-1 where a class could not be held out).

    Raises
    ------
    KeyError
        A column or layer is not there.
    TypeError
        `reference` or `adata` is no AnnData; labels are measurements.
    ValueError
        A model without types and no reference; fewer than two types; names that differ only by case; one group in
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
    _check_options(adata, reference, labels, method, copy=copy)
    _check_thresholds(target_error, min_confidence, novelty_error, novelty_shift)
    check_free(adata, key_added, ("obs", key_added), of="tl.annotate", field="classes")
    clusters = None if groupby is None else read_column(adata, groupby, name="adata")
    model = load("scellm-small" if model is None else model) if not isinstance(model, CellLM) else model
    options = {
        "min_overlap": min_overlap,
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "show_progress": show_progress,
    }
    query = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, **options}
    if reference is None:
        annotator, way = _of_model(model)
        vectors, record = (
            (_of_genes(adata, annotator, model, query), {})
            if annotator.space == "genes"
            else cell_vectors(adata, model, query)
        )
    elif method == "logistic":
        way = "reference"
        annotator, vectors = _on_genes(
            adata, reference, labels, val_by, model, query, {"layer": reference_layer, **options}, rng
        )
        record = {}
    else:
        way = "reference"
        annotator = _on_embedding(
            reference, labels, method, val_by, model, {"layer": reference_layer, **options}, rng
        )
        vectors, record = cell_vectors(adata, model, query)
    vectors, moved = align_cells(annotator, vectors, align)
    result = _decide(annotator, vectors, target_error, min_confidence, novelty_error, novelty_shift)
    if clusters is None and majority_vote:
        clusters = np.full(adata.n_obs, "", dtype=object)
        clusters[~result.is_empty] = over_cluster(vectors[~result.is_empty], rng)
    if clusters is not None:
        _vote(result, clusters)
    target = adata.copy() if copy else adata
    _write(target, key_added, annotator, result)
    target.uns[key_added] = _record(
        annotator,
        way,
        model,
        record,
        result,
        target_error,
        min_confidence,
        novelty_error,
        voted=clusters is not None,
        moved=moved,
    )
    logger.info(target.uns[key_added]["message"])
    _warn(result, way)
    return target if copy else None


@dataclass
class Result:
    """What was decided about n cells."""

    codes: np.ndarray
    """(n,) class, `UNASSIGNED` or `NOVEL`."""
    probabilities: np.ndarray
    """(n, K), NaN for empty cells."""
    confidence: np.ndarray
    novelty: np.ndarray
    is_empty: np.ndarray
    sets: np.ndarray | None
    shift: float
    """How many times farther these cells are from the reference than held-out ones, before the bound."""


def _decide(
    annotator: Annotator,
    vectors: np.ndarray,
    target_error: float | None,
    min_confidence: float | None,
    novelty_error: float | None,
    novelty_shift: float | Literal["auto"],
) -> Result:
    """Types, or why there is none."""
    if target_error is not None and not annotator.is_calibrated:
        msg = (
            "target_error needs held-out cells, and this head was fitted without: pass calibrate=True to "
            "tl.fine_tune, or leave target_error out."
        )
        raise ValueError(msg)
    is_empty = np.isnan(vectors).any(axis=1)
    n, n_classes = len(vectors), len(annotator.classes)
    probabilities = np.full((n, n_classes), np.nan, np.float32)
    novelty = np.full(n, np.nan, np.float32)
    some = vectors[~is_empty]
    probabilities[~is_empty] = annotator.probabilities(some)
    shift = 1.0
    if novelty_error is not None and len(annotator.novelty) and len(some):
        strange = annotator.strangeness(some)
        shift = annotator.shift(strange) if novelty_shift == "auto" else float(novelty_shift)
        novelty[~is_empty] = annotator.novelty_scores(
            strange, novelty_error, shift=min(shift, MAX_SHIFT) if novelty_shift == "auto" else shift
        )
    filled = np.nan_to_num(probabilities)
    confidence = filled.max(axis=1)
    codes = filled.argmax(axis=1)
    sets = None
    if target_error is not None:
        sets = np.ones((n, n_classes), dtype=bool)  # of an empty cell nothing can be excluded
        sets[~is_empty] = annotator.sets(probabilities[~is_empty], target_error)
        codes[sets.sum(axis=1) > 1] = UNASSIGNED
    if min_confidence is not None:
        codes[confidence < min_confidence] = UNASSIGNED
    codes[is_empty] = UNASSIGNED
    codes[novelty > 1] = NOVEL  # a comparison with NaN is false
    return Result(codes, probabilities, confidence, novelty, is_empty, sets, shift)


def _of_model(model: CellLM) -> tuple[Annotator, str]:
    """The head or the reference of a model, and which of the ways that is."""
    for part, way in (("cell_type", "fine-tuned"), ("reference", "pretrained")):
        if part in model.parts:
            annotator = Annotator.from_part(model.parts[part])
            if annotator.space == "embedding" and annotator.n_features != model.config.dim:
                msg = (
                    f"The {part!r} of {model.name!r} takes vectors of {annotator.n_features} numbers, its encoder gives "
                    f"{model.config.dim}: they do not belong together. Fine-tune again, or load the model again."
                )
                raise ValueError(msg)
            return annotator, way
    msg = (
        f"{model.name or 'This model'!r} knows no cell types: it has neither a fine-tuned head nor a reference. Pass "
        "reference= with labelled cells and labels= with their column, or a model from scellm.tl.fine_tune."
    )
    raise ValueError(msg)


def _of_genes(adata: AnnData, annotator: Annotator, model: CellLM, query: dict[str, Any]) -> np.ndarray:
    """(n_obs, F) log1p CP10k of the genes of a head; genes the data lacks are at the mean of its training cells."""
    ids = pd.Index(model.vocabulary.symbols).get_indexer(annotator.genes)
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
    vectors[:, ~is_there] = annotator.centre[~is_there]
    vectors[is_empty] = np.nan
    return vectors


def _on_embedding(
    reference: AnnData,
    labels: str,
    method: str,
    val_by: str | None,
    model: CellLM,
    options: dict[str, Any],
    rng: int,
) -> Annotator:
    """A classifier on the embedding of the reference."""
    read = read_labels(reference, labels, name="reference", min_cells=2)
    rows = np.flatnonzero(read.codes >= 0)
    groups = _groups(reference, val_by, rows)
    vectors, _ = cell_vectors(reference, model, options)
    rows, groups = _without_empty(vectors, rows, groups)
    return fit_annotator(vectors[rows], *_codes(read, rows), method=method, groups=groups, rng=rng)


def _on_genes(
    adata: AnnData,
    reference: AnnData,
    labels: str,
    val_by: str | None,
    model: CellLM,
    query: dict[str, Any],
    options: dict[str, Any],
    rng: int,
) -> tuple[Annotator, np.ndarray]:
    """The baseline, and the vectors of the cells: log1p CP10k of genes that both objects have and that vary."""
    read = read_labels(reference, labels, name="reference", min_cells=2)
    rows = np.flatnonzero(read.codes >= 0)
    groups = _groups(reference, val_by, rows)
    logged, has = log_expression(reference, model, options)
    _, query_has = log_expression(adata[:1], model, {**query, "min_overlap": 0})
    genes = variable_genes(logged[rows], has & query_has)
    if len(genes) < 50:
        msg = f"`adata` and `reference` share {len(genes)} expressed genes; at least 50 are needed."
        raise ValueError(msg)
    vectors = logged[:, genes].toarray()
    annotator = fit_annotator(
        vectors[rows],
        *_codes(read, rows),
        method="linear",
        groups=groups,
        space="genes",
        genes=[str(symbol) for symbol in model.vocabulary.symbols[genes]],
        rng=rng,
    )
    found = log_expression(adata, model, query, genes)[0].toarray()
    found[~found.any(axis=1)] = np.nan
    return annotator, found


def _codes(read: Any, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes of the rows that are used, renumbered where a class lost all its cells, and the classes."""
    present, codes = np.unique(read.codes[rows], return_inverse=True)
    return codes, [read.classes[code] for code in present]


def _groups(reference: AnnData, val_by: str | None, rows: np.ndarray) -> np.ndarray | None:
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


def _vote(result: Result, clusters: np.ndarray) -> None:
    """Give all cells of a cluster one code; cells without a cluster keep theirs."""
    has = clusters != ""
    result.codes[has] = vote(result.codes[has], clusters[has])
    named = (result.codes >= 0) & ~result.is_empty
    result.confidence[named] = result.probabilities[named, result.codes[named]]


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
    annotator: Annotator,
    way: str,
    model: CellLM,
    embedding: dict[str, Any],
    result: Result,
    target_error: float | None,
    min_confidence: float | None,
    novelty_error: float | None,
    *,
    voted: bool,
    moved: float,
) -> dict[str, Any]:
    """What goes to `uns`: text, numbers and arrays, so that it survives h5ad and zarr whatever types are named."""
    report = annotator.report
    method = "logistic" if annotator.space == "genes" else annotator.kind
    thresholds = {
        "target_error": target_error,
        "min_confidence": min_confidence,
        "novelty_error": novelty_error,
    }
    record = {
        "scellm_version": __version__,
        "way": way,
        "method": method,
        "classes": np.array(annotator.classes, dtype=object),
        "model": model.name,
        "sha256": model.sha256,
        "embedding_reused": bool(embedding.get("reused", False)),
        "voted": voted,
        "study_shift": moved,
        "n_unassigned": int((result.codes == UNASSIGNED).sum()),
        "n_novel": int((result.codes == NOVEL).sum()),
        "novelty_shift": result.shift,
        "n_empty": int(result.is_empty.sum()),
        **{name: float(value) for name, value in thresholds.items() if value is not None},
        "held_out": _plain(report),
        "message": _message(annotator, way, model, method),
    }
    if ids := annotator.facts.get("ontology_ids"):
        record["ontology_ids"] = np.array(ids, dtype=object)
    return record


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    """A report as numbers, text and arrays, without class names as keys."""
    plain = {name: value for name, value in report.items() if isinstance(value, bool | int | float | str)}
    plain |= {
        f"macro_f1_{name}": float(value) for name, value in report.get("macro_f1_by_method", {}).items()
    }
    if "coverage" in report:
        errors = [str(error) for error in REPORTED_ERRORS]
        plain["target_errors"] = np.array(REPORTED_ERRORS)
        plain["coverage"] = np.array([report["coverage"][error] for error in errors])
        plain["set_size"] = np.array([report["set_size"][error] for error in errors])
        plain["coverage_by_class"] = np.array([report["coverage_by_class"][error] for error in errors])
    return plain


def _message(annotator: Annotator, way: str, model: CellLM, method: str) -> str:
    """What was done, in a sentence or two."""
    report = annotator.report
    what = {
        "reference": f"label transfer from {report.get('n_cells', 0)} reference cells",
        "fine-tuned": f"the head of the fine-tuned model {model.name!r}",
        "pretrained": f"the reference of {model.name!r}",
    }[way]
    text = f"{len(annotator.classes)} classes by {what}, method {method!r}."
    scores = report.get("macro_f1_by_method", {})
    if len(scores) > 1:
        listed = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
        text += f" It won on held-out {report['held_out']} (macro-F1: {listed})."
    elif "macro_f1" in report:
        text += f" Macro-F1 on held-out {report.get('held_out', 'cells')}: {report['macro_f1']:.3f}."
    return text


def _warn(result: Result, way: str) -> None:
    """Say what the user would otherwise find out too late."""
    share = float((result.codes == NOVEL).mean())
    closer = (
        "If it has several donors or studies, pass val_by= with their column, so that the distance between them counts."
        if way == "reference"
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
    if not isinstance(adata, AnnData):
        msg = f"Need an AnnData object, found {type(adata).__name__}."
        raise TypeError(msg)
    check_backed(adata, copy=copy)
    if method not in ("auto", *METHODS, "logistic"):
        msg = f"method={method!r} is unknown; choose one of {['auto', *METHODS, 'logistic']}."
        raise ValueError(msg)
    if reference is None:
        if labels is not None or method != "auto":
            given = f"labels={labels!r}" if labels is not None else f"method={method!r}"
            msg = (
                f"{given} is about a reference, and none is given. Pass reference= with labelled cells; to train on "
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


def _check_thresholds(
    target_error: float | None,
    min_confidence: float | None,
    novelty_error: float | None,
    novelty_shift: float | Literal["auto"],
) -> None:
    """Refuse shares and probabilities that are none."""
    for name, value in (("target_error", target_error), ("novelty_error", novelty_error)):
        if value is not None and not 0 < value < 1:
            msg = f"{name}={value!r} is a share of cells; it must be above 0 and below 1, for instance 0.05."
            raise ValueError(msg)
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        msg = f"min_confidence={min_confidence!r} is a probability; it must be between 0 and 1."
        raise ValueError(msg)
    if novelty_shift != "auto" and not (isinstance(novelty_shift, int | float) and novelty_shift >= 1):
        msg = f"novelty_shift={novelty_shift!r} must be 'auto' or a number of at least 1."
        raise ValueError(msg)
