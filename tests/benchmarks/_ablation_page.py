"""The page and figure of `ablation.py`, made from its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _report import DOCS

BASE = ("base", "the shipped recipe, shortened")
SHORT = ("encoder", "bag, trained as the blocks are")
BESIDE_SHORT = ("1 block, softmax", "1 block, FAVOR+", "published bins")
"""Arms that are trained on shorter views and smaller batches, beside a bag that is so too."""
TEXT = """
What each choice of the recipe is worth, one at a time. All runs have **the same processor time**, {seconds:g} seconds of one
thread, not the same number of steps: what makes a step dearer has to earn it. Two seeds each (three of the base). The score is
macro-F1 of cell types from 15 nearest neighbours on the eight labelled sets of the training corpus that are left out of
training (`tests/benchmarks/validation.py`), so that the benchmark sets play no part in any choice. Six of the eight are of
studies from which nothing is trained on ("new studies"); the others are plates and donors of studies the corpus
has. Mean profiles of two of the six, which the shipped recipe draws cells around, are left out here.

The base is a short version of the shipped recipe: a bag of genes of 128 dimensions that starts from principal components
within datasets; contrastive and supervised contrastive loss, weights 1 and 0.7, temperature 0.1; 512 cells of one dataset a
batch; two views of at most 512 genes with thinned counts and dropped genes; the 1,024 most expressed genes are read when
cells are embedded. {seconds:g} seconds are about {steps:.0f} steps, where the shipped weights have thousands: **what
takes long to pay is not seen here.** PCA fitted on each set reaches {pca:.3f} ({pca_unseen:.3f} on the new studies), the base
{base:.3f} ({base_unseen:.3f}).

The standard deviation between seeds of one arm, pooled over all arms, is {noise:.4f}. A difference between two arms is called
one if it is more than twice its standard error; with this many arms, about one in twenty of those without any effect will be
called so by chance.

{verdict}

![Differences to the base](ablation.png)

## What it says

{says}

## What was not measured

{missing}
"""


def collect(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per arm: means over seeds, and the difference to what it is compared with, seed by seed."""
    runs = list({(r["group"], r["arm"], r["seed"]): r for r in runs}.values())
    table = pd.DataFrame(runs)
    rows = []
    for (group, arm), own in table.groupby(["group", "arm"], sort=False):
        beside = _beside(group, arm)
        other = table[(table["group"] == beside[0]) & (table["arm"] == beside[1])]
        paired = own.merge(other, on="seed", suffixes=("", " other"))
        rows.append(
            {
                "group": group,
                "arm": arm,
                "seeds": len(own),
                "steps": int(own["steps"].mean()),
                "mean": own["mean"].mean(),
                "spread": own["mean"].std(ddof=1) if len(own) > 1 else np.nan,
                "new studies": own["unseen"].mean(),
                "difference": (paired["mean"] - paired["mean other"]).mean() if len(paired) else np.nan,
                "difference, new": (paired["unseen"] - paired["unseen other"]).mean()
                if len(paired)
                else np.nan,
                "error": np.sqrt(1 / max(len(own), 1) + 1 / max(len(other), 1)),
                "beside": beside[1],
            }
        )
    found = pd.DataFrame(rows)
    found["error"] *= noise(found)
    return found


def _beside(group: str, arm: str) -> tuple[str, str]:
    """What an arm is compared with."""
    if group == "objectives of a block" or arm in BESIDE_SHORT:
        return SHORT
    return BASE


def noise(table: pd.DataFrame) -> float:
    """Standard deviation between seeds, pooled over arms with more than one."""
    several = table[(table["seeds"] > 1) & (table["spread"] > 0)]
    return (
        float(np.sqrt(np.average(several["spread"] ** 2, weights=several["seeds"] - 1)))
        if len(several)
        else np.nan
    )


def called(row: pd.Series) -> str:
    """Better, worse, or neither."""
    if not np.isfinite(row["difference"]) or not np.isfinite(row["error"]):
        return ""
    if abs(row["difference"]) <= 2 * row["error"]:
        return "no difference"
    return "better" if row["difference"] > 0 else "worse"


def verdict(table: pd.DataFrame) -> str:
    """What is better and what is worse, in words made from the numbers."""
    others = table[(table["group"] != "base") & (table["beside"] == BASE[1])]
    lines = []
    for word, name in (
        ("better", "**Better than the base**"),
        ("worse", "**Worse**"),
        ("no difference", "**Neither**"),
    ):
        own = others[others.apply(called, axis=1) == word].sort_values(
            "difference", ascending=word == "worse"
        )
        items = "; ".join(f"{r['group']}: {r['arm']} ({r['difference']:+.3f})" for _, r in own.iterrows())
        lines.append(f"- {name}: {items or 'nothing'}.")
    return "\n".join(lines)


def write_page(results: dict[str, Any], keys: list[str]) -> Path:
    """Write `ablation.md` and `ablation.png`."""
    table = collect(results["runs"])
    base = table[(table["group"] == BASE[0]) & (table["arm"] == BASE[1])].iloc[0]
    done = {f"{g}: {a}" for g, a in zip(table["group"], table["arm"], strict=True)}
    left = [key for key in keys if key not in done]
    missing = [
        "Latent cross-attention, a masked graph autoencoder on the protein network, and marker sets as supervision: "
        "there is no code for them.",
        "Combinations: each arm changes one thing.",
        "Anything on a GPU, and any run of more than a minute or so.",
    ]
    if left:
        missing.append("Arms of the script that the time did not suffice for: " + "; ".join(left) + ".")
    text = TEXT.format(
        seconds=results["seconds"],
        steps=base["steps"],
        pca=results["PCA"]["mean"],
        pca_unseen=results["PCA"]["unseen"],
        base=base["mean"],
        base_unseen=base["new studies"],
        noise=noise(table),
        verdict=verdict(table),
        says=SAYS.strip(),
        missing="\n".join(f"- {line}" for line in missing),
    )
    draw(table, DOCS / "ablation.png")
    parts = ["# Which choices matter", text.strip()]
    for group, own in table.groupby("group", sort=False):
        shown = own[
            ["arm", "seeds", "steps", "mean", "spread", "new studies", "difference", "difference, new"]
        ].copy()
        shown["verdict"] = [called(row) for _, row in own.iterrows()]
        if (own["beside"] != BASE[1]).any():
            shown["beside"] = own["beside"]
        if group == "base":
            shown = shown.drop(columns=["difference", "difference, new", "verdict"])
        parts += [
            f"## {group[0].upper()}{group[1:]}",
            shown.to_markdown(index=False, floatfmt=".4f", disable_numparse=[0]).replace("nan", ""),
        ]
    where = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    parts.append(f"Made by `python tests/benchmarks/ablation.py` on: {where}.")
    page, new = DOCS / "ablation.md", DOCS / "ablation.md.new"
    new.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    new.replace(page)
    return page


SAYS = """
(to be written when the runs are done)
"""


def draw(table: pd.DataFrame, path: Path) -> None:
    """Difference of each arm to what it is compared with, all sets and new studies."""
    from matplotlib.figure import Figure

    table = table[(table["group"] != "base") & table["difference"].notna()]
    table = table[~((table["group"] == "objectives of a block") & (table["arm"] == SHORT[1]))].reset_index(
        drop=True
    )
    figure = Figure(figsize=(9, 0.27 * len(table) + 1.4), layout="constrained")
    axes = figure.subplots()
    y = -np.arange(len(table))
    error = float(table["error"].median())
    axes.axvspan(
        -2 * error, 2 * error, color="#EEEEEE", zorder=0, label="no difference (twice the standard error)"
    )
    axes.axvline(0, color="#888888", lw=0.8)
    axes.scatter(
        table["difference, new"], y, s=22, facecolors="none", edgecolors="#D55E00", label="six new studies"
    )
    axes.errorbar(
        table["difference"],
        y,
        xerr=table["error"],
        fmt="o",
        ms=5,
        color="#0072B2",
        label="all eight sets, ± standard error",
    )
    axes.set_yticks(y, [f"{r['group']}: {r['arm']}" for _, r in table.iterrows()], fontsize=8)
    low = max(-0.15, float(table[["difference", "difference, new"]].min().min()) - 0.01)
    axes.set(
        xlim=(low, None),
        ylim=(y[-1] - 0.7, 0.7),
        xlabel="macro-F1, difference to the base (blocks: to a bag trained alike)",
    )
    off = table[table["difference"] < low]
    for i, row in off.iterrows():
        axes.annotate(
            f"← {row['difference']:+.2f}", (low, -i), xytext=(3, -3), textcoords="offset points", fontsize=8
        )
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    print(collect(json.loads((DOCS / "ablation.json").read_text())["runs"]).to_string())
