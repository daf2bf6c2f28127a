"""The page `docs/benchmarks/malignancy.md`, its words made from the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _malignancy_cells import Dataset
from _report import DOCS, write

MANY_GENES = 8000
TEXT = """
{{func}}`scellm.tl.malignancy` combines copy number, inferred from expression, with a linear head on the embedding. Which cells of
a study that it has not seen are malignant, and what does it call malignant in healthy tissue?

{verdict}

## What was done

Every dataset is judged by a head, a calibration and weights of the evidence that were fitted without its study, and
without its cell lines; sets marked * were never trained on, by the head or the encoder. The encoder and the reference that
names the normal cells have seen the other sets, without their classes. At most 1,200 cells of a set are used. The threshold of
the test for copy number, the share of normal cells and the bound of the panel were chosen while looking at these sets, so
that the numbers of copy number are a little too good; it has no weights that were fitted to classes. Where a dataset
has no labels, its classes are: `copykat_tnbc` and `thyroid_atc2_copykat`, two heaps by 2-means on the embedding, of which the one
with fewer immune, stromal and endothelial cells counts as malignant (which favors the head, as it reads the embedding, too); `luad_kim_mini`, the epithelial cells of
the tumor; `melanoma_tirosh_mini`, unlabeled cells that the reference names melanocytes. `MCF12A` among the breast lines is immortalized, has gains and
losses, and is no tumor: it counts as neither. `breast_tumour_chung_mini` holds
stromal and immune cells only. All cells of a set are one sample.

- **both**: `tl.malignancy`. **copy number**: its log odds alone. **head**: the head alone. **genes**: logistic regression on
  log-normalized genes, on the same split. **shipped before**: the head of November 24, **trained on several of these sets**.
- **infercnvpy**: with its defaults and the same normal cells; the mean absolute profile of a cell, and `cnv_score` of its Leiden
  cluster. Without normal cells it compares with the mean of all.
- A cell is called malignant from a probability of 0.8, or 0.98 where copy number cannot be read.

Calibration error of the combined probability, classes and studies weighing the same: {error:.3f}.

![Evidence and calibration](malignancy.png)

**Left:** a dot for each labeled cell, at most 150 of a set and class: to the right what copy number says, upwards what the head says. 0 on the horizontal axis
is "no clone found", where the head alone is left; cells in the corners are those on which both agree.

**Right:** is the probability right? Cells of all sets are put into ten bins by the probability that they were given. A point stands at the mean
probability of its bin and at the fraction of its cells that are malignant; on the dashed line both are the same. Above it
the probability is too low, below it too high. The area of a point is the share of cells in the bin, classes and studies weighing the
same: {ends:.0f} % of them are in the first and the last, near 0 and 1. The points between hold few cells of few sets, so that their place is uncertain; a cell is called malignant from 0.8. Calibration error is the
mean distance from the line, weighed by those shares. {bins}

## Simulated tumors

Half of the cells of a normal type get one copy more (1.5 times the counts) of half of the arms drawn, one less (0.5 times)
of the others; no dosage compensation, so that real tumors are harder. "found in" counts the samples in which most altered
cells have log odds above 0.

## Time and memory

{speed}

## Targets

{targets}
"""


def mean_of(table: pd.DataFrame, name: str) -> float:
    """Mean over the sets that have it."""
    return float(table[name].mean())


def say(tables: dict[str, pd.DataFrame]) -> str:
    """What came out, in words."""
    areas, wrong, right = list(tables.values())[:3]
    means = ", ".join(
        f"{name} {mean_of(areas, name):.3f}" for name in areas.columns[4:] if areas[name].notna().any()
    )
    worst = wrong.sort_values("worst, %", ascending=False).iloc[0]
    missed = right.sort_values("called malignant, %").head(3)
    few = ", ".join(
        f"{row['called malignant, %']:.0f} % of {row['set'].removesuffix(' *')}"
        for _, row in missed.iterrows()
    )
    total = np.average(wrong["called malignant, %"], weights=wrong["normal"])
    return (
        f"Mean AUC over the {len(areas)} sets with both classes: {means}. Of the normal cells of {len(wrong)} sets, {total:.2f} % are called "
        f"malignant; at worst {wrong['called malignant, %'].max():.1f} % of a set and {worst['worst, %']:.0f} % of a type ({worst['set']}: "
        f"{worst['worst type']}). Of malignant cells and cell lines, {np.average(right['called malignant, %'], weights=right['malignant']):.0f} % "
        f"are called so; fewest: {few}."
    )


def targets(tables: dict[str, pd.DataFrame], facts: dict[str, Any]) -> str:
    """Each target beside what was reached."""
    areas, wrong, right = list(tables.values())[:3]
    deep = areas[areas["genes measured"] >= MANY_GENES]
    speed = facts["speed"]
    rows = [
        ("mean AUC, 8,000 genes or more", ">= 0.95", f"{mean_of(deep, 'both'):.3f} ({len(deep)} sets)"),
        ("mean AUC, all", ">= 0.90", f"{mean_of(areas, 'both'):.3f} ({len(areas)} sets)"),
        (
            "normal cells called malignant, each set",
            "<= 3 %",
            f"{wrong['called malignant, %'].max():.1f} % at most; {int((wrong['called malignant, %'] <= 3).sum())} of {len(wrong)} sets within",
        ),
        (
            "of any type",
            "<= 10 %",
            f"{wrong['worst, %'].max():.1f} % at most; {int((wrong['worst, %'].fillna(0) <= 10).sum())} of {len(wrong)} sets within",
        ),
        (
            "malignant cells and lines called so",
            ">= 85 %",
            f"{np.average(right['called malignant, %'], weights=right['malignant']):.1f} % of all cells; "
            f"{int((right['called malignant, %'] >= 85).sum())} of {len(right)} sets within",
        ),
        (
            "10,000 cells x 15,000 genes beyond the embedding",
            "<= 60 s, <= 2 GB",
            f"{speed['scellm, cpu_seconds']:.0f} s of one processor, {speed['scellm, peak_gb']:.1f} GB",
        ),
    ]
    table = pd.DataFrame(rows, columns=["what", "target", "measured"])
    return table.to_markdown(index=False, disable_numparse=True)


def speed_text(speed: dict[str, float]) -> str:
    """Time and memory in a sentence."""
    text = (
        f"10,000 cells and 15,000 genes, beyond the embedding, one thread: {speed['scellm, cpu_seconds']:.0f} s of one processor "
        f"({speed['scellm, seconds']:.0f} s on a machine that others used, too) and {speed['scellm, peak_gb']:.1f} GB, types and the profile of the figure included."
    )
    if "infercnvpy, seconds" in speed:
        text += (
            f" infercnvpy: {speed['infercnvpy, seconds']:.0f} s and {speed['infercnvpy, peak_gb']:.1f} GB, with its neighbors and clusters "
            f"{speed['infercnvpy, seconds_all']:.0f} s."
        )
    return text


def page(tables: dict[str, pd.DataFrame], facts: dict[str, Any]) -> Path:
    """Write it."""
    text = TEXT.format(
        verdict=say(tables),
        error=facts["calibration_error"],
        ends=100 * (facts["bins"][0]["share"] + facts["bins"][-1]["share"]),
        bins="In numbers, probability given and fraction malignant (share of cells): "
        + ", ".join(
            f"{row['said']:.2f} and {row['found']:.2f} ({100 * row['share']:.1f} %)" for row in facts["bins"]
        )
        + ".",
        speed=speed_text(facts["speed"]),
        targets=targets(tables, facts),
    )
    shown = {heading: table.fillna("") for heading, table in tables.items()}
    return write("malignancy", "Malignant cells", text, shown, facts)


def draw(measured: list[Dataset], bins: pd.DataFrame) -> None:
    """Both pieces of evidence of every labeled cell, and reliability."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rng = np.random.default_rng(0)
    for value, color, name in ((0, "#0072B2", "normal"), (1, "#D55E00", "malignant")):
        points = []
        for dataset in measured:
            if dataset.copies is None or not dataset.copies.is_usable:
                continue
            rows = np.flatnonzero(dataset.truth == value)
            rows = rng.choice(rows, min(150, len(rows)), replace=False)
            points.append(np.column_stack([dataset.copies.log_odds[rows], dataset.results["head"][rows]]))
        x, y = np.concatenate(points).T
        left.scatter(
            x + rng.normal(0, 0.25, len(x)), y, s=3, lw=0, alpha=0.5, color=color, label=name, rasterized=True
        )
    left.set(xlabel="copy number, log odds", ylabel="head, log odds (study left out)", ylim=(-12, 12))
    left.legend(frameon=False, markerscale=4)
    right.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    right.plot(bins["said"], bins["found"], color="black", lw=1.2)
    right.scatter(bins["said"], bins["found"], s=20 + 400 * bins["share"], color="black", lw=0, clip_on=False)
    right.set(
        xlabel="probability of being malignant",
        ylabel="fraction of these cells that is malignant",
        xlim=(0, 1),
        ylim=(-0.02, 1.02),
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "malignancy.png", dpi=130)
