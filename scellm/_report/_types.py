"""Types of cells in a table, rare ones as one row, and what speaks against their labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import get
from ..annotation._records import AnnotationRecord
from ._html import Markup, Section, percent, sentence, table, tag

REFUSALS = ("unassigned", "novel")
STEPS = (0.9, 0.7, 0.5)
"""Where confidence is counted."""
FEW, RARE, FEWEST_RARE = 5, 0.001, 3
"""A type of fewer cells, or of a smaller share, is rare; so many rare types become one row."""
MOST_RARE = 0.25
"""Rare types that are so large a share of the cells together are shown one by one, as in small data."""
MANY_WRONG, GRAVELY_WRONG = 0.15, 0.35
"""Share of labels that are wrong by their own confidence, from which it is a doubt, or a grave one."""
MANY_NOVEL, MANY_NONE, MOST, MANY_SEEN, FAR = 0.1, 0.1, 0.3, 0.02, 1.5
FREQUENT, RIGHT = 0.05, 0.5
"""Types of so many cells are named where so few of the cells that got the name were right in studies left out."""
MOST_MARKERS = 8
LEFT_OUT = {
    "recall_left_out": "recognized in left-out studies",
    "precision_left_out": "right when so named there",
}


def types_of(adata: AnnData, key: str) -> pd.DataFrame:
    """`get.annotation`, without markers where there is no expression to look at."""
    try:
        return get.annotation(adata, key=key)
    except (KeyError, TypeError, ValueError):
        return get.annotation(_without_markers(adata, key), key=key)


def _without_markers(adata: AnnData, key: str) -> AnnData:
    record = {name: value for name, value in adata.uns[key].items() if name != "markers"}
    return AnnData(
        obs=adata.obs,
        obsm={name: adata.obsm[name] for name in adata.obsm if name == f"{key}_probabilities"},
        uns={key: record},
    )


def rare_types(types: pd.DataFrame, n_cells: int) -> list[str]:
    """Types of few cells, the largest first; none if they are too few to gather."""
    limit = max(FEW, RARE * n_cells)
    rare = [
        str(label)
        for label, n in zip(types["label"], types["n_cells"], strict=True)
        if n < limit and label not in REFUSALS
    ]
    share = float(types.loc[types["label"].astype(str).isin(rare), "n_cells"].sum()) / max(n_cells, 1)
    return rare if len(rare) >= FEWEST_RARE and share < MOST_RARE else []


def types_table(section: Section, adata: AnnData, key: str, types: pd.DataFrame) -> None:
    """A row for each type that is not rare, with markers as evidence; and how sure the labels are."""
    rare = rare_types(types, adata.n_obs)
    found = types[~types["label"].isin(rare)]
    rows = pd.DataFrame(
        {
            "cell type": found["label"],
            "cells": found["n_cells"],
            "share": [percent(n / adata.n_obs) for n in found["n_cells"]],
            "lineage": found["lineage"],
            "Cell Ontology": found["ontology_id"],
            "mean confidence": found["confidence"].round(2),
            **{said: _shares(found[name]) for name, said in LEFT_OUT.items() if _is_known(types, name)},
            "runner-up": found["runner_up"],
            "markers expressed": [_few(text) for text in found["markers_expressed"]],
            "markers lacking": [_few(text) for text in found["markers_lacking"]],
        }
    )
    always = ("cell type", "cells")
    rows = rows.loc[:, [name for name in rows if name in always or (rows[name].astype(str) != "").any()]]
    caption = (
        "Predicted types, most cells first. Markers are genes that the reference learned from its own cells; a marker counts as "
        "expressed if a tenth of the cells of the type have it."
    )
    if _is_known(types, "precision_left_out"):
        caption += (
            " In studies that the reference had not seen: share of the type's cells that got this name, and share of the "
            "cells of this name that were right; a dash where no second study has the type."
        )
    section.body += [tag("h3", "By type"), table(rows, caption)]
    if rare:
        counts = dict(zip(types["label"], types["n_cells"], strict=True))
        named = ", ".join(f"{name} ({counts[name]:,})" for name in rare)
        section.body.append(
            sentence(
                f"{len(rare)} rare types of {sum(counts[name] for name in rare):,} cells together are not in the table: {named}."
            )
        )
    section.body.append(_confidence(adata.obs[f"{key}_confidence"].to_numpy(float)))


def _is_known(types: pd.DataFrame, name: str) -> bool:
    return name in types and bool(types[name].notna().any())


def _shares(values: pd.Series) -> list[str]:
    return [percent(float(value)) for value in values]


def _few(genes: str) -> str:
    """The first genes of a list."""
    names = [name for name in genes.split(", ") if name]
    return ", ".join(names[:MOST_MARKERS]) + (
        f" and {len(names) - MOST_MARKERS} more" if len(names) > MOST_MARKERS else ""
    )


def _confidence(confidence: np.ndarray) -> Markup:
    """Cells by how sure their labels are."""
    edges = [1.01, *STEPS, -0.01]
    names = [
        f"{STEPS[0]} and more",
        *(f"{low} to {high}" for high, low in pairwise(STEPS)),
        f"below {STEPS[-1]}",
    ]
    counts = [int(((confidence < high) & (confidence >= low)).sum()) for high, low in pairwise(edges)]
    shares = [percent(n / max(len(confidence), 1)) for n in counts]
    return table(
        pd.DataFrame({"confidence": names, "cells": counts, "share": shares}),
        "How sure the labels are. Confidence is a calibrated "
        "probability: of cells at 0.7, seven of ten labels should be right where the reference fits.",
    )


def doubts_of_labels(
    section: Section, adata: AnnData, key: str, record: AnnotationRecord, types: pd.DataFrame
) -> None:
    """What speaks against the labels, the gravest first."""
    if not record.fits:
        section.warn(
            f"The cells do not fit the shipped reference: {record.doubts}. Names of types may be wrong however sure they look. Keep to "
            "the lineages, look at the markers, or label with a reference of your own: `scellm.tl.annotate(adata, reference=..., labels=...)`.",
            "the cells do not fit the reference",
            grave=True,
        )
    _without_type(section, adata, key)
    _wrong_by_confidence(section, adata, key)
    _wrong_elsewhere(section, adata, types)
    if record.seen_share > MANY_SEEN:
        section.warn(
            f"{percent(record.seen_share)} of the cells looked at are in the shipped reference itself. Their labels are no test of how well "
            "it does on new cells."
        )
    if record.novelty_shift > FAR and record.fits:
        section.warn(
            f"The cells are {record.novelty_shift:.1f} times as far from the reference as its own held-out cells: another protocol or tissue. "
            "Confidence may be too high.",
            "the cells are far from the reference, and confidence may be too high",
        )


def _without_type(section: Section, adata: AnnData, key: str) -> None:
    """Many cells that got no type."""
    labels = adata.obs[key].astype(str).to_numpy()
    novel, none = (float(np.mean(labels == name)) for name in ("novel", "unassigned"))
    if novel > MANY_NOVEL:
        section.warn(
            f"{percent(novel)} of the cells are like nothing in the reference (novel). They need a name from you.",
            f"{percent(novel)} of the cells are like nothing in the reference",
            grave=novel > MOST,
        )
    if none > MANY_NONE:
        section.warn(
            f"{percent(none)} of the cells lie between types and got none (unassigned).",
            f"{percent(none)} of the cells got no type",
            grave=none > MOST,
        )


def _wrong_by_confidence(section: Section, adata: AnnData, key: str) -> None:
    """Labels that are wrong by their own confidence."""
    labels = adata.obs[key].astype(str)
    is_named = ~labels.isin(REFUSALS).to_numpy()
    confidence = adata.obs[f"{key}_confidence"].to_numpy(float)[is_named]
    wrong = expected_wrong(adata, key)
    if wrong > MANY_WRONG:
        section.warn(
            f"By their own confidence, about {100 * wrong:.0f} of 100 names are wrong, and {percent(float(np.mean(confidence < STEPS[1])))} of the cells "
            f"are below {STEPS[1]}. Use the lineages for those, or a cluster's most frequent name.",
            f"about {100 * wrong:.0f} of 100 names are wrong by their own confidence",
            grave=wrong > GRAVELY_WRONG,
        )


def expected_wrong(adata: AnnData, key: str) -> float:
    """Share of names that are wrong if confidence is calibrated; 0 without names."""
    is_named = ~adata.obs[key].astype(str).isin(REFUSALS).to_numpy()
    confidence = adata.obs[f"{key}_confidence"].to_numpy(float)[is_named]
    return float(1 - np.nanmean(confidence)) if np.isfinite(confidence).any() else 0.0


def _wrong_elsewhere(section: Section, adata: AnnData, types: pd.DataFrame) -> None:
    """Frequent names that were mostly wrong, or could not be tested, in studies left out of the reference."""
    if not _is_known(types, "precision_left_out"):
        return
    is_frequent = (types["n_cells"] >= FREQUENT * adata.n_obs) & ~types["label"].isin(REFUSALS)
    frequent = types[is_frequent].to_dict("records")
    wrong = [one for one in frequent if one["precision_left_out"] < RIGHT]
    unknown = [one for one in frequent if np.isnan(one["precision_left_out"])]
    if wrong:
        said = "; ".join(
            f"{one['label']} ({one['n_cells']:,} cells; {100 * one['precision_left_out']:.0f} of 100 were right)"
            for one in wrong
        )
        share = sum(one["n_cells"] for one in wrong) / adata.n_obs
        section.warn(
            f"Do not trust these frequent names: in studies that the reference had not seen, most cells of the name were something else: {said}. "
            "Read the name above them, or look at their markers.",
            f"{percent(share)} of the cells have names that were mostly wrong in other studies",
            grave=share > MOST,
        )
    if unknown:
        said = "; ".join(f"{one['label']} ({one['n_cells']:,} cells)" for one in unknown)
        share = sum(one["n_cells"] for one in unknown) / adata.n_obs
        section.warn(
            f"Whether these frequent names are right in other studies is unknown, as no second study has the type: {said}. Their markers are the "
            "evidence that there is; or read the name above.",
            f"{percent(share)} of the cells have names that were not tested in other studies",
        )
