"""The section on cell types: labels by type, lineage and sample, how sure they are, what speaks for them, what is unknown."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import get, pl
from .._obs import has_column, read_groups
from ..annotation._records import AnnotationRecord
from ._figures import figure
from ._found import Results
from ._html import Markup, Section, bullets, code, facts, percent, sentence, table, tag

REFUSALS = ("unassigned", "novel")
STEPS = (0.9, 0.7, 0.5)
"""Where confidence is counted."""
UNSURE, MANY_UNSURE, MANY_NOVEL, MANY_NONE, MANY_SEEN = 0.5, 0.25, 0.1, 0.1, 0.02
FAR = 1.5
MOST_MARKERS = 8
MOST_COLUMNS = 12
"""Samples or lineages that stand side by side in one table."""


def labels_section(adata: AnnData, found: Results, *, figures: bool) -> Section:
    """All results of `tl.annotate`, one under the other."""
    section = Section("labels", "Cell types")
    if not found.labels:
        section.body += absent(
            "No cell types were predicted. For types from the shipped reference type",
            "scellm.tl.annotate(adata)",
        )
    for key in found.labels:
        record = AnnotationRecord.known(adata.uns, key)
        if len(found.labels) > 1:
            section.body.append(tag("h3", f"Labels under {key!r}"))
        _verdict(section, adata, key, record)
        if figures:
            section.body += _figures(adata, key, found)
        _lineages(section, adata, key, found)
        _types(section, adata, key)
        _unknown(section, adata, key, record)
    return section


def absent(words: str, line: str) -> list[Markup]:
    """That something was not run, and what to type to have it."""
    return [tag("div", sentence(f"{words}:"), code(line), class_="absent")]


def _verdict(section: Section, adata: AnnData, key: str, record: AnnotationRecord) -> None:
    """Whether the reference fits these cells, and how well it did on its own held-out cells."""
    fits = "" if record.mode != "pretrained" else "yes" if record.fits else f"no: {record.doubts}"
    held = record.held_out
    section.body.append(
        facts(
            {
                "In short": record.summary,
                "How": record.message,
                "Do the cells fit the reference?": fits,
                "Tissue they are most like": record.tissue_guess,
                "Held-out cells of the reference": int(_number(held, "n_held_out") or 0) or None,
                "Held out": held.get("held_out", ""),
                "Accuracy on them": _number(held, "accuracy"),
                "Accuracy of lineages on them": _number(held, "coarse_accuracy"),
                "Macro-F1 on them": _number(held, "macro_f1"),
                "Calibration error on them": _number(held, "ece_after"),
            },
            f"Verdict on the labels under obs[{key!r}].",
        )
    )
    confidence = adata.obs[f"{key}_confidence"].to_numpy(float)
    labels = adata.obs[key].astype(str).to_numpy()
    unsure, n = float(np.mean(confidence < UNSURE)), max(len(labels), 1)
    if not record.fits:
        section.warnings.append(
            f"The cells do not fit the shipped reference: {record.doubts}. Names of types may be wrong however sure they look. Keep to "
            "the lineages, look at the markers, or label with a reference of your own: `scellm.tl.annotate(adata, reference=..., labels=...)`."
        )
    elif unsure > MANY_UNSURE:
        section.warnings.append(
            f"{percent(unsure)} of the cells have a confidence below {UNSURE}: half of such labels or more may be wrong. Use the lineages for them."
        )
    if np.mean(labels == "novel") > MANY_NOVEL:
        section.warnings.append(
            f"{percent(float(np.mean(labels == 'novel')))} of the cells are like nothing in the reference (novel). They need a name from you."
        )
    if np.sum(labels == "unassigned") / n > MANY_NONE:
        section.warnings.append(
            f"{percent(float(np.mean(labels == 'unassigned')))} of the cells lie between types and got none (unassigned)."
        )
    if record.seen_share > MANY_SEEN:
        section.warnings.append(
            f"{percent(record.seen_share)} of the cells looked at are in the shipped reference itself. Their labels are no test of how well "
            "it does on new cells."
        )
    if record.novelty_shift > FAR and record.fits:
        section.warnings.append(
            f"The cells are {record.novelty_shift:.1f} times as far from the reference as its own held-out cells: another protocol or tissue. "
            "Confidence may be too high."
        )


def _number(held: dict[str, object], name: str) -> float | None:
    value = held.get(name)
    return float(value) if isinstance(value, int | float | np.number) else None


def _types(section: Section, adata: AnnData, key: str) -> None:
    """A row for each type, with markers as evidence."""
    try:
        found = get.annotation(adata, key=key)
    except (KeyError, TypeError, ValueError):  # without expression there are no markers to look at
        found = get.annotation(_without_markers(adata, key), key=key)
    rows = pd.DataFrame(
        {
            "cell type": found["label"],
            "cells": found["n_cells"],
            "share": [percent(n / adata.n_obs) for n in found["n_cells"]],
            "lineage": found["lineage"],
            "Cell Ontology": found["ontology_id"],
            "mean confidence": found["confidence"].round(2),
            "runner-up": found["runner_up"],
            "markers expressed": [_few(text) for text in found["markers_expressed"]],
            "markers lacking": [_few(text) for text in found["markers_lacking"]],
        }
    )
    rows = rows.loc[
        :, [name for name in rows if name in ("cell type", "cells") or (rows[name].astype(str) != "").any()]
    ]
    section.body.append(tag("h3", "By type"))
    section.body.append(
        table(
            rows,
            "Predicted types, most cells first. Markers are genes that the reference learned from its own cells; a marker counts as "
            "expressed if a tenth of the cells of the type have it.",
        )
    )
    confidence = adata.obs[f"{key}_confidence"].to_numpy(float)
    edges = [1.01, *STEPS, -0.01]
    names = [
        f"{STEPS[0]} and more",
        *(f"{low} to {high}" for high, low in pairwise(STEPS)),
        f"below {STEPS[-1]}",
    ]
    counts = [int(((confidence < high) & (confidence >= low)).sum()) for high, low in pairwise(edges)]
    shares = [percent(n / max(adata.n_obs, 1)) for n in counts]
    section.body.append(
        table(
            pd.DataFrame({"confidence": names, "cells": counts, "share": shares}),
            "How sure the labels are. Confidence is a calibrated "
            "probability: of cells at 0.7, seven of ten labels should be right where the reference fits.",
        )
    )


def _without_markers(adata: AnnData, key: str) -> AnnData:
    record = {name: value for name, value in adata.uns[key].items() if name != "markers"}
    return AnnData(
        obs=adata.obs,
        obsm={name: adata.obsm[name] for name in adata.obsm if name == f"{key}_probabilities"},
        uns={key: record},
    )


def _few(genes: str) -> str:
    """The first genes of a list."""
    names = [name for name in genes.split(", ") if name]
    return ", ".join(names[:MOST_MARKERS]) + (
        f" and {len(names) - MOST_MARKERS} more" if len(names) > MOST_MARKERS else ""
    )


def _lineages(section: Section, adata: AnnData, key: str, found: Results) -> None:
    """Lineages, over all cells and by sample."""
    coarse = f"{key}_coarse"
    column = coarse if has_column(adata, coarse) else key
    what = "Lineage" if column == coarse else "Type"
    groups = read_groups(adata, column)
    names = list(groups.categories)
    confidence = adata.obs[f"{key}_confidence"].to_numpy(float)
    counts = np.array([(groups == name).sum() for name in names])
    order = np.argsort(-counts, kind="stable")
    names, counts = [names[i] for i in order], counts[order]
    if column == coarse:
        rows = pd.DataFrame(
            {
                "lineage": names,
                "cells": counts,
                "share": [percent(n / adata.n_obs) for n in counts],
                "mean confidence": [round(float(confidence[groups == name].mean()), 2) for name in names],
            }
        )
        section.body += [tag("h3", "By lineage"), table(rows, "Lineages are surer than types.")]
    if found.sample_key is None:
        section.body += absent(
            "There is no column of samples that was recognized. For a table by sample name it",
            "scellm.report(adata, sample_key='your column')",
        )
        return
    samples = read_groups(adata, found.sample_key)
    shown = names[:MOST_COLUMNS]
    rows = pd.DataFrame(
        {"sample": samples.categories, "cells": [int((samples == name).sum()) for name in samples.categories]}
    )
    for name in shown:
        rows[name] = [percent(float(np.mean(groups[samples == one] == name))) for one in samples.categories]
    rows["mean confidence"] = [
        round(float(confidence[samples == one].mean()), 2) for one in samples.categories
    ]
    more = f" The {MOST_COLUMNS} largest of {len(names)}." if len(names) > MOST_COLUMNS else ""
    section.body += [
        tag("h3", "By sample"),
        table(rows, f"{what} by sample, obs[{found.sample_key!r}], in percent of its cells.{more}"),
    ]


def _unknown(section: Section, adata: AnnData, key: str, record: AnnotationRecord) -> None:
    """What got no type, and what to do about it."""
    labels = adata.obs[key].astype(str).to_numpy()
    counts = {name: int((labels == name).sum()) for name in REFUSALS}
    section.body.append(tag("h3", "What is unknown"))
    lines = [
        f"unassigned: {counts['unassigned']:,} of {len(labels):,} cells. They are near the reference, but no type is sure enough.",
        f"novel: {counts['novel']:,} of {len(labels):,} cells. They are farther from the reference than its own cells are from each other"
        + ("." if record.novelty_error is not None else "; this was not asked for (`novelty_error=None`)."),
    ]
    if record.n_empty:
        lines.append(f"{record.n_empty:,} cells express no gene that the model knows.")
    section.body.append(bullets(lines))
    if any(counts.values()):
        section.body.append(sentence("To name them, look at the groups they fall into and at their markers:"))
        section.body.append(code(f"scellm.get.annotation(adata, key={key!r}, groupby='your clusters')"))


def _figures(adata: AnnData, key: str, found: Results) -> list[Markup]:
    """UMAP, confidence and markers."""
    labels = adata.obs[key].astype(str)
    most = ", ".join(f"{name} ({n:,})" for name, n in labels.value_counts().head(5).items())
    mean = float(adata.obs[f"{key}_confidence"].mean())
    drawn = []
    if found.basis is None:
        drawn += absent(
            "There are no coordinates to draw cells by. For a UMAP of the embedding type",
            "scanpy.pp.neighbors(adata, use_rep='X_scellm')\nscanpy.tl.umap(adata)",
        )
    else:
        drawn.append(
            figure(
                adata,
                pl.annotation,
                f"Cells by predicted type and by confidence, on obsm[{found.basis!r}].",
                f"Two scatter plots of {adata.n_obs:,} cells: by type, the largest being {most}; and by confidence, on average {mean:.2f}.",
                key=key,
                basis=found.basis,
            )
        )
    drawn.append(
        figure(
            adata,
            pl.confidence,
            "Confidence by type: median, half and nine tenths of the cells.",
            f"Box plots of confidence for {labels.nunique()} labels, the surest on top; the mean over cells is {mean:.2f}. The table by type has the means.",
            key=key,
        )
    )
    drawn.append(
        figure(
            adata,
            pl.markers,
            "Marker genes of the reference by predicted type: size is the share of cells that express the gene, color how much.",
            "Dot plot of marker genes against predicted types. The table by type lists the markers that are expressed and those that are not.",
            key=key,
        )
    )
    return drawn
