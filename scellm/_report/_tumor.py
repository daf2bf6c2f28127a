"""The sections on malignant cells and on drugs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import get, pl
from .._obs import has_column, read_groups
from ..drugs._record import DrugRecord, RankRecord
from ._figures import figure
from ._found import Results
from ._html import Markup, Section, facts, percent, sentence, table, tag
from ._labels import absent

FEW_COUNTS = 300
"""Median counts below which single cells say little of drugs."""
WEAK = 0.2
"""Correlation over left-out cell lines below which a drug is hardly predictable."""
MOST_DRUGS = 10
MANY_UNDECIDED = 0.2
MANY_OUTSIDE, MOST_OUTSIDE = 0.1, 0.5
"""Shares of cells unlike all cell lines, from which it is a doubt, or a grave one."""
COLUMNS = (
    "sample",
    "n_cells",
    "n_malignant",
    "n_normal",
    "n_undecided",
    "n_clones",
    "reference",
    "n_reference",
)
"""Columns of samples in their order, which files do not keep."""


def malignancy_section(adata: AnnData, found: Results, *, figures: bool) -> Section:
    """All results of `tl.malignancy`."""
    section = Section("malignancy", "Malignant cells")
    if not found.malignant:
        section.body += absent(
            "Malignant cells were not looked for. For a tumor type",
            "scellm.tl.malignancy(adata, sample_key='your column of samples')",
        )
    for key in found.malignant:
        section.body.append(
            sentence("Calls rest on copy number and expression. They are research results, not a diagnosis.")
        )
        _verdicts(section, get.malignancy(adata, key=key))
        undecided = float((adata.obs[f"{key}_call"].astype(str) == "undecided").mean())
        if undecided > MANY_UNDECIDED:
            section.warn(
                f"{percent(undecided)} of the cells could not be called malignant or normal (undecided). Leave them out of comparisons.",
                f"{percent(undecided)} of the cells are neither called malignant nor normal",
            )
        if figures:
            _draw_malignancy(section, adata, key, found)
        section.body.append(_arms(get.malignancy(adata, key=key, what="arms")))
        label = f"{key}_label"
        if has_column(adata, label):
            by_type = get.malignancy(adata, key=key, groupby=label).sort_values("n_cells", ascending=False)
            by_type["share_malignant"] = [percent(x) for x in by_type["share_malignant"]]
            section.body.append(
                table(
                    by_type.rename(columns={label: "type"}).rename(columns=_said),
                    "Calls by type, with the mean of the probability and of each kind of evidence.",
                )
            )
    return section


def _verdicts(section: Section, by_sample: pd.DataFrame) -> None:
    """What was found in each sample, in words, and numbers beside it."""
    names = [str(name) or "all cells" for name in by_sample["sample"]]
    said = by_sample["verdict"].astype(str) if "verdict" in by_sample else pd.Series([""] * len(names))
    section.body.append(facts(dict(zip(names, said, strict=True)), "Verdict by sample."))
    columns = [name for name in COLUMNS if name in by_sample]
    numbers = by_sample.assign(sample=names)[columns].rename(columns={"reference": "compared with"})
    section.body.append(table(numbers.rename(columns=_said), "Calls by sample."))
    weak = [name for name, text in zip(names, said, strict=True) if "expression alone" in text]
    none = [name for name, text in zip(names, said, strict=True) if "No aneuploid" in text]
    if weak:
        section.warn(
            f"Copy number could not be read in {', '.join(weak)}: calls there rest on expression alone, which is weak evidence.",
            "some malignant cells were called from expression alone",
            grave=len(weak) == len(names),
        )
    if none:
        section.warn(
            f"No gains or losses were found in {', '.join(none)}. A tumor without them cannot be told from normal cells this way.",
            "some samples have no gains or losses to tell malignant cells by",
        )


def _arms(arms: pd.DataFrame) -> Markup | None:
    """A row for each clone: its gains and losses with their log ratio."""
    if not {"clone", "arm", "log_ratio", "state"} <= set(arms) or not len(arms):
        return None
    arms = arms.assign(sample=arms["sample"] if "sample" in arms else "")
    rows = []
    for (sample, clone), some in arms.groupby(["sample", "clone"], sort=False):
        row = {"clone": f"{sample} {clone}".strip()}
        for state, name in (("gain", "gains"), ("loss", "losses")):
            part = some[some["state"] == state]
            row[name] = ", ".join(
                f"{arm} ({x:+.2f})" for arm, x in zip(part["arm"], part["log_ratio"], strict=True)
            )
        rows.append(row)
    return table(
        pd.DataFrame(rows),
        "Gains and losses of chromosome arms by clone, with the log ratio to normal cells.",
    )


def _said(name: str) -> str:
    """A column's name in words."""
    return {"n_reference": "normal cells to compare with"}.get(
        name, name.removeprefix("n_").replace("_", " ")
    )


def _draw_malignancy(section: Section, adata: AnnData, key: str, found: Results) -> None:
    """Evidence on the UMAP, and the genome."""
    calls = adata.obs[f"{key}_call"].astype(str).value_counts()
    said = ", ".join(f"{n:,} {name}" for name, n in calls.items())
    if found.basis is not None:
        section.body.append(
            figure(
                adata,
                pl.malignancy,
                "Copy number, expression and the call on the cells, and the distribution of the probability.",
                f"Three scatter plots of cells and a histogram of the probability of being malignant: {said}.",
                key=key,
                basis=found.basis,
            )
        )
    section.body.append(
        figure(
            adata,
            pl.copy_number,
            "Expression along the genome less that of normal cells: red for more, blue for less.",
            "Heat map of cells, grouped by clone, against the genome. The table of chromosome arms lists its gains and losses.",
            key=key,
        )
    )


def drugs_section(adata: AnnData, found: Results, *, figures: bool) -> Section:
    """Results of `tl.drug_response` and `tl.rank_drugs`."""
    section = Section("drugs", "Drugs")
    if not found.drugs and not found.ranks:
        section.body += absent(
            "Drug response was not predicted. For a tumor type",
            "scellm.tl.drug_response(adata)\nscellm.tl.rank_drugs(adata, groupby='your groups', sample_key='your column of samples')",
        )
        return section
    section.body.append(
        sentence(
            "Predicted from how cancer cell lines of similar expression responded in a dish. Not a clinical prediction, and mutations are seen only "
            "as far as they show in expression."
        )
    )
    for key in found.drugs:
        _response(section, adata, key, found, figures=figures)
    for key in found.ranks:
        _ranked(section, adata, key, figures=figures)
    if found.drugs and not found.ranks:
        section.body += absent(
            "Groups of cells were not compared. Type",
            "scellm.tl.rank_drugs(adata, groupby='your groups', sample_key='your column of samples')",
        )
    return section


def _response(section: Section, adata: AnnData, key: str, found: Results, *, figures: bool) -> None:
    """Predictions by group, and how far to trust them."""
    record = DrugRecord.known(adata.uns, key)
    outside = adata.obs[f"{key}_applicability"].to_numpy(float)
    share = float(np.mean(outside[np.isfinite(outside)] > 1)) if np.isfinite(outside).any() else float("nan")
    section.body.append(tag("h3", f"Predicted response, {key!r}"))
    section.body.append(
        facts(
            {
                "Drugs": len(record.drugs),
                "Predicted for": f"groups of obs[{record.groupby!r}]" if record.groupby else "each cell",
                "Units": record.units,
                "Cells unlike all cell lines of the model": percent(share),
                "Median counts over the model's genes": record.median_counts,
                "Notes": record.notes,
            },
            "What was predicted.",
        )
    )
    if share > MANY_OUTSIDE:
        section.warn(
            f"{percent(share)} of the cells are unlike any cancer cell line that the drug model has seen (applicability above 1, under {key!r}). "
            "Do not rely on their predictions; look at malignant cells alone.",
            f"{percent(share)} of the cells are unlike what the drug model has seen",
            grave=share > MOST_OUTSIDE,
        )
    if not record.groupby and record.median_counts < FEW_COUNTS:
        section.warn(
            f"Half of the cells have fewer than {record.median_counts:.0f} counts over the drug model's genes, too few for single cells: "
            "predict groups with `scellm.tl.drug_response(adata, groupby='your groups')`.",
            "cells have too few counts for drug predictions of single cells",
        )
    weak = [name for name, r in zip(record.drugs, record.pearson, strict=True) if r < WEAK]
    if weak:
        section.body.append(sentence(f"Hardly predictable from expression: {', '.join(weak[:20])}."))
    groupby = _groups_for(adata, record, found)
    if groupby is not None:
        section.body.append(_by_group(adata, key, groupby))
        if figures:
            n = len(read_groups(adata, groupby).categories)
            section.body.append(
                figure(
                    adata,
                    pl.drug_response,
                    f"Predicted response by obs[{groupby!r}] as z over the model's lines: the drugs that differ most.",
                    f"Heat map of predicted drug response for {n} groups and the drugs that differ most between them. The table lists the lowest of each group.",
                    key=key,
                    groupby=groupby,
                    center=True,
                    n_drugs=30,
                )
            )


def _groups_for(adata: AnnData, record: DrugRecord, found: Results) -> str | None:
    """Groups to show predictions by: those they were made by, else calls, labels or samples if there are several."""
    samples = found.sample_key
    if samples is not None and len(read_groups(adata, samples).categories) < 2:
        samples = None
    candidates = [
        record.groupby,
        *(f"{key}_call" for key in found.malignant),
        *(f"{key}_coarse" for key in found.labels),
        *found.labels,
        samples,
    ]
    return next((name for name in candidates if name and has_column(adata, name)), None)


def _by_group(adata: AnnData, key: str, groupby: str) -> Markup:
    """The drugs that are predicted to hit each group more than they hit cell lines; without means by their lowest IC50."""
    lowest = get.drug_response(adata, key=key, groupby=groupby, n_drugs=5)
    columns = [groupby, "drug", "z", "ln_ic50", "std", "applicability", "pearson", "target", "n_cells"]
    names = {
        "ln_ic50": "ln IC50",
        "std": "sd",
        "pearson": "correlation on left-out lines",
        "n_cells": "cells",
    }
    return table(
        lowest[columns].rename(columns=names),
        f"The five drugs that are predicted to hit each group of obs[{groupby!r}] more than they hit cell lines: the lowest z, the "
        "difference from the drug's mean over the model's lines in units of its spread. An applicability above 1 is outside of what the "
        "model has seen.",
    )


def _ranked(section: Section, adata: AnnData, key: str, *, figures: bool) -> None:
    """Groups compared."""
    record = RankRecord.known(adata.uns, key)
    section.body.append(tag("h3", f"Groups compared, {key!r}"))
    section.body.append(
        sentence(
            f"Groups of obs[{record.groupby!r}] against {record.reference!r}, by {record.replicates}"
            + (f" of obs[{record.sample_key!r}]" if record.sample_key else "")
            + f"; intervals of {100 * record.level:.0f} %. An effect of -1 means that 2.7 times less drug is predicted to be needed."
        )
    )
    if not record.sample_key:
        section.warn(
            "Drugs were compared between groups without samples: there is no p-value, and differences between donors are not in the intervals. "
            "With several donors pass sample_key= to `scellm.tl.rank_drugs`.",
            "drugs were compared without samples",
        )
    rows = get.rank_drugs(adata, key=key).groupby("group", sort=False).head(MOST_DRUGS)
    columns = [
        "group",
        "drug",
        "effect_sd",
        "effect",
        "low",
        "high",
        "p_adjusted",
        "z",
        "ln_ic50",
        "target_expressed",
        "target",
    ]
    names = {
        "effect_sd": "effect in sd",
        "ln_ic50": "ln IC50",
        "p_adjusted": "adjusted p",
        "target_expressed": "cells that express the target",
    }
    shown = rows[columns].assign(target_expressed=[percent(float(x)) for x in rows["target_expressed"]])
    section.body.append(
        table(
            shown.rename(columns=names),
            f"The {MOST_DRUGS} drugs with the lowest effect in each group, in units of the drug's spread over cell lines.",
            most=200,
        )
    )
    if figures:
        section.body.append(
            figure(
                adata,
                pl.rank_drugs,
                "Difference of mean predicted ln IC50 from the other cells, with its interval.",
                f"For each of {len(record.groups)} groups, points with intervals for the drugs of lowest effect. The table has the numbers.",
                key=key,
            )
        )
