"""The section on cell types: labels by type, lineage and sample, how sure they are, what speaks for them, what is unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import pl
from .._obs import has_column, read_groups
from ..annotation._records import AnnotationRecord
from ._figures import figure
from ._found import Results
from ._html import Markup, Section, bullets, code, facts, percent, sentence, table, tag
from ._types import REFUSALS, doubts_of_labels, rare_types, types_of, types_table

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
        types = types_of(adata, key)
        _verdict(section, key, record)
        doubts = Section("", "")
        doubts_of_labels(doubts, adata, key, record, types)
        _take(section, doubts, key, is_first=key == found.labels[0], is_only=len(found.labels) == 1)
        if figures:
            section.body += _figures(adata, key, found, rare_types(types, adata.n_obs))
        _lineages(section, adata, key, found)
        types_table(section, adata, key, types)
        _unknown(section, adata, key, record)
    return section


def _take(section: Section, of_key: Section, key: str, *, is_first: bool, is_only: bool) -> None:
    """Warnings of one of several columns of labels with its name; the opening of the page has grave doubts of others only."""
    section.warnings += [words if is_only else f"Labels {key!r}: {words}" for words in of_key.warnings]
    if is_first or of_key.is_doubtful:
        section.doubts += of_key.doubts if is_first else [f"{words} ({key!r})" for words in of_key.doubts]
        section.is_doubtful |= of_key.is_doubtful


def absent(words: str, line: str) -> list[Markup]:
    """That something was not run, and what to type to have it."""
    return [tag("div", sentence(f"{words}:"), code(line), class_="absent")]


def _verdict(section: Section, key: str, record: AnnotationRecord) -> None:
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


def _number(held: dict[str, object], name: str) -> float | None:
    value = held.get(name)
    return float(value) if isinstance(value, int | float | np.number) else None


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


def _figures(adata: AnnData, key: str, found: Results, rare: list[str]) -> list[Markup]:
    """UMAP, confidence and markers; the last two without rare types."""
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
    kept = ~labels.isin(rare).to_numpy()
    shown, left_out = adata, ""
    if not kept.all():
        shown = adata[kept]
        left_out = f" Without {len(rare)} rare types of {int((~kept).sum()):,} cells."
    drawn.append(
        figure(
            shown,
            pl.confidence,
            f"Confidence by type: median, half and nine tenths of the cells.{left_out}",
            f"Box plots of confidence for {labels.nunique()} labels, the surest on top; the mean over cells is {mean:.2f}. The table by type has the means.",
            key=key,
        )
    )
    drawn.append(
        figure(
            shown,
            pl.markers,
            "Marker genes of the reference by predicted type: size is the share of cells that express the gene, color how much."
            + left_out,
            "Dot plot of marker genes against predicted types. The table by type lists the markers that are expressed and those that are not.",
            key=key,
        )
    )
    return drawn
