"""What `tl.annotate` writes and says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from .._warn import tell, warn
from ..annotation._annotator import Annotator
from ..annotation._decide import AS_LIKELY_AS_NOT, NOVEL, UNASSIGNED, Result, Thresholds
from ..annotation._left_out import doubtful_names, left_out_rates, named_instead
from ..annotation._records import AnnotationRecord, describe, plain_report
from ..annotation._restrict import describe_excluded, guess_tissue
from ..annotation._tree import Tree
from ..annotation._verdict import fit_of
from ..models import CellLM
from ._read_labels import RESERVED

LARGE_SHIFT = 1.5
"""Shift that is worth a word."""
MANY_NOVEL = 0.5
"""Share of novel cells from which the warning says that reference and data do not belong together."""
MANY_EXCLUDED = 0.1
"""Share of cells that look most like a type that was left out, from which it is worth a word (ours)."""
MANY_SEEN = 0.02
"""Share of cells that the shipped reference has, from which it is worth a word (ours)."""
UNSURE = 0.5


@dataclass(frozen=True)
class Limits:
    """When a cell gets no type, as the user asks; checked when made."""

    target_error: float | None
    min_confidence: float | Literal["auto"] | None
    novelty_error: float | None

    def __post_init__(self) -> None:
        if isinstance(self.min_confidence, str) and self.min_confidence != "auto":
            msg = f"min_confidence={self.min_confidence!r} is unknown; pass 'auto', None or a probability."
            raise ValueError(msg)
        self._thresholds(None)

    def of(self, annotator: Annotator) -> Thresholds:
        """With what `"auto"` means for this annotator; an asked error goes before it."""
        tree, types = annotator.tree, annotator.facts.get("types")
        found = self._thresholds(AS_LIKELY_AS_NOT if tree is not None and self.target_error is None else None)
        if tree is None or not types or self.min_confidence != "auto":
            return found
        return replace(found, named_instead=named_instead(types, tree.parents))

    def _thresholds(self, auto: float | None) -> Thresholds:
        least = auto if isinstance(self.min_confidence, str) else self.min_confidence
        return Thresholds(
            target_error=self.target_error, min_confidence=least, novelty_error=self.novelty_error
        )


def write_labels(adata: AnnData, key: str, annotator: Annotator, result: Result) -> None:
    """Put the results where `Returns` says, and take away what an earlier call left there."""
    adata.obs[key] = _categorical(result.codes, result.names)
    adata.obs[f"{key}_confidence"] = result.confidence.astype(np.float32)
    adata.obs[f"{key}_novelty"] = result.novelty
    adata.obsm[f"{key}_probabilities"] = result.probabilities
    for name in ("coarse", "ontology_id", "set_size"):
        if f"{key}_{name}" in adata.obs:
            del adata.obs[f"{key}_{name}"]
    if f"{key}_set" in adata.obsm:
        del adata.obsm[f"{key}_set"]
    if annotator.tree is not None:
        adata.obs[f"{key}_coarse"] = _categorical(_lineages(annotator.tree, result), annotator.tree.names)
        if any(annotator.tree.ids):
            adata.obs[f"{key}_ontology_id"] = _ids(annotator.tree, result)
    if result.sets is not None:
        adata.obsm[f"{key}_set"] = result.sets
        adata.obs[f"{key}_set_size"] = result.sets.sum(axis=1).astype(np.int32)


def make_record(
    annotator: Annotator,
    mode: str,
    model: CellLM,
    result: Result,
    limits: Thresholds,
    embedding: np.ndarray,
) -> AnnotationRecord:
    """What goes to `uns`; `embedding` is that of the cells before any alignment."""
    method = "logistic" if annotator.head.genes else annotator.head.kind
    tree, types = annotator.tree, annotator.facts.get("types") or []
    fit = fit_of(annotator, embedding, ~result.is_empty, result.looks) if mode == "pretrained" else None
    doubts = fit.doubts if fit is not None else []
    guess = "" if doubts else guess_tissue(annotator, result.looks)
    smoothing = annotator.smoothing if limits.ask_neighbors else None
    report = annotator.report if smoothing is not None else annotator.facts.get("alone", annotator.report)
    replaced = [i for i, instead in enumerate(limits.named_instead) if instead != i]
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
        n_neighbors=0 if smoothing is None else smoothing.n_neighbors,
        names_replaced=[] if tree is None else [tree.names[i] for i in replaced],
        held_out=plain_report(report),
        message=describe(report, len(annotator.classes), mode, model.name, method),
        ontology_ids=_class_ids(annotator),
        nodes=list(tree.names) if tree is not None else [],
        paths=[" > ".join(tree.path(i)) for i in range(len(tree.names))] if tree is not None else [],
        markers=[", ".join(fact["markers"]) for fact in types],
        **(left_out_rates(types) if types else {}),
        summary=_summary(annotator, result, guess),
        tissue_guess=guess,
        fits=not doubts,
        doubts="; ".join(doubts),
        target_error=limits.target_error,
        min_confidence=limits.min_confidence,
        novelty_error=limits.novelty_error,
    )


def say(record: AnnotationRecord, result: Result, annotator: Annotator, mask: np.ndarray | None) -> None:
    """One line about these cells, and what the user would otherwise find out too late."""
    tell(record.summary)
    if doubtful := _doubtful(record, result):
        tell(
            f"In studies left out these names were wrong more often than right: {doubtful}. Look at scellm.pl.markers, and at "
            "precision_left_out in scellm.get.annotation(adata)."
        )
    if record.seen_share > MANY_SEEN:
        warn(
            f"{100 * record.seen_share:.0f} % of the cells looked at are in the shipped reference itself: each finds itself, and a "
            "score of these labels says nothing about new cells. Test on a study that is not on the page of the reference."
        )
    if mask is not None:
        share, names = describe_excluded(annotator, result.looks, mask)
        if share > MANY_EXCLUDED:
            warn(
                f"{100 * share:.0f} % of the cells look most like a type that tissue=, classes= or exclude= left out ({names}). "
                "Their labels are the best of what is left; look at obs confidence, or loosen the restriction."
            )
    if not record.fits:
        warn(
            f"These cells do not fit the shipped reference: {record.doubts}. Labels may be wrong in spite of their "
            "confidence. Look at scellm.get.annotation(adata, groupby=) and pl.markers, keep to the lineages in the coarse "
            "column, or pass reference= with labeled cells of the same kind."
        )
    elif record.n_novel > MANY_NOVEL * len(result.codes):
        share = record.n_novel / len(result.codes)
        warn(
            f"{100 * share:.0f} % of the cells are novel: farther from the reference than its own cells are from each "
            "other. Another tissue or organism, or a reference that is too uniform. "
            f"{_closer(record.mode)} novelty_error=None labels them all the same."
        )
    elif result.shift > LARGE_SHIFT:
        warn(
            f"The cells are {result.shift:.1f} times as far from the reference as its held-out cells: another protocol or "
            "tissue. What is novel was judged beyond that shift, and confidence may be too high. "
            + _closer(record.mode)
        )


def _doubtful(record: AnnotationRecord, result: Result) -> str:
    """Names of these cells that were mostly wrong where studies were left out."""
    if result.tree is None or record.precision_left_out is None:
        return ""
    tree = result.tree
    parents = [tree.names[parent] if parent >= 0 else "" for parent in tree.parents]
    names = np.array([*tree.names, *RESERVED[::-1]], dtype=object)[result.codes]
    return doubtful_names(names, tree.names, parents, record.precision_left_out)


def _closer(mode: str) -> str:
    return (
        "If it has several donors or studies, fit it with scellm.tl.fit_reference(..., val_by=) and their column, so that the "
        "distance between them counts."
        if mode == "reference"
        else "Pass reference= with labeled cells of the same tissue."
    )


def _summary(annotator: Annotator, result: Result, guess: str) -> str:
    """How many cells, types and lineages; how sure; what is novel; the tissue."""
    n, named = len(result.codes), result.codes[result.codes >= 0]
    n_types = len(np.unique(named))
    text = f"{n:,} cells: {n_types} type{'' if n_types == 1 else 's'}"
    if annotator.tree is not None:
        lineages = annotator.tree.lineage[named]
        k = len(np.unique(lineages[lineages >= 0]))
        text += f" in {k} lineage{'' if k == 1 else 's'}"
    n_novel, n_none = int((result.codes == NOVEL).sum()), int((result.codes == UNASSIGNED).sum())
    text += f", {_share(_n_unsure(annotator, result), n)} {'broadly named' if annotator.tree is not None else 'below 0.5'}"
    text += f", {_share(n_none, n)} unassigned, {_share(n_novel, n)} novel"
    return text + (f"; most like {guess}" if guess else "")


def _n_unsure(annotator: Annotator, result: Result) -> int:
    """Cells whose label has finer ones below it on the tree; without a tree those below 0.5."""
    if annotator.tree is None:
        return int((result.confidence < UNSURE).sum())
    named = result.codes[result.codes >= 0]
    return int(np.isin(named, annotator.tree.parents).sum())


def _share(part: int, n: int) -> str:
    return "none" if not part else f"{max(100 * part / max(n, 1), 1):.0f} %"


def _categorical(codes: np.ndarray, known: list[str]) -> pd.Categorical:
    """Names of codes, refusals included; categories are those of some cell."""
    names = np.array([*known, *RESERVED[::-1]], dtype=object)  # -1 and -2 count from the end
    places, codes = np.unique(codes % len(names), return_inverse=True)
    return pd.Categorical.from_codes(codes, categories=names[places])


def _lineages(tree: Tree, result: Result) -> np.ndarray:
    """(n,) lineage of each label; where the label is above all lineages or none, the likeliest one that is sure enough."""
    found = np.where(result.codes >= 0, tree.lineage[result.codes], -1)
    found = np.where(found >= 0, found, result.lineages)
    found[result.is_empty] = UNASSIGNED
    found[result.codes == NOVEL] = NOVEL
    return found


def _ids(tree: Tree, result: Result) -> pd.Categorical:
    """Ids of the labels, of the nearest ancestor where a node has none."""
    ids = list(tree.ids)
    for node, parent in enumerate(tree.parents):
        if not ids[node] and parent >= 0:
            ids[node] = ids[parent]
    kinds = np.array(
        sorted({ids[code] for code in np.unique(result.codes) if code >= 0} - {""}), dtype=object
    )
    place = pd.Index(kinds).get_indexer([*ids, ""])  # refusals count from the end
    return pd.Categorical.from_codes(np.where(result.codes >= 0, place[result.codes], -1), categories=kinds)


def _class_ids(annotator: Annotator) -> list[str]:
    if annotator.tree is not None and any(annotator.tree.ids):
        return [annotator.tree.ids[node] for node in annotator.tree.node_of_class]
    return list(annotator.facts.get("ontology_ids") or [])
