"""The page of the annotation benchmark, every number and every verdict made from the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

BASELINES = ("logistic regression", "PCA + kNN", "celltypist", "SingleR")
COLOURS = {
    "scellm": "#0072B2",
    "logistic regression": "#E69F00",
    "PCA + kNN": "#009E73",
    "celltypist": "#CC79A7",
    "SingleR": "#56B4E9",
    "random weights": "#BBBBBB",
}
DISTINCT = 0.9
"""AUROC from which on a type left out counts as distinct in its set."""

INTRO = """
Only sets of which no cell is in the training corpus are tested on: `baron`, `lawlor` (pancreas), `darmanis` (brain),
`pollen` (cell lines and tissues), `pbmc3k`, `zheng68k`, `zheng sorted` (blood). The corpus has other cells of the study of
the last three. References may be sets of the corpus; the encoder has seen those with their labels.

- **scellm**: the embedding of `{model}`, frozen, and the classifier that `tl.annotate(reference=...)` fits on it: the best of
  logistic regression, prototypes and nearest neighbors on held-out parts of the *training* cells; the move of another
  protocol is taken out (`align="auto"`). At 80 % of the labels: `tl.fine_tune(strategy="lora")`.
- **logistic regression**: multinomial, on the 2,000 most variable log-normalized genes of the training cells,
  standardized, classes weighted; the same as `tl.fit_reference(method="logistic")`.
- **PCA + kNN**: 50 components of those genes, fitted on the training cells, and up to 15 neighbors.
- **celltypist**: celltypist 1.7.1 trained on the same cells with all genes, default settings; with few labels one seed, at 10
  cells per type. Without labels of the set: on the cells and 1,000 genes that logistic regression gets there, each label, fine or broad, a class.
- **SingleR**: {singler}
- **random weights**: as scellm, with the encoder untrained: what pretraining is worth.
- scANVI: not measured. It did not fit the time of this run on a processor.

Macro-F1 is the mean over the types of the tested cells. All methods get the same training cells and, across studies, the
same genes (the encoder: each study's own).
"""
SINGLER = (
    "the Python port, singler 0.5.0, with its defaults: rank correlation with the cells of each label over its markers. Without "
    "labels of the set only, on the cells, genes and labels that celltypist gets there."
)
NO_SINGLER = "not measured: its Python port was not installed."
PUBLISHED = """
Published for other data, and not comparable with the tables here: on Zheng68k, 80/20, CellLM has a macro-F1 of 71.8 and
scBERT of 68.8 {cite:p}`Zhao2023`. Of that set we have 165 cells.
"""
TRIED = """
**What was tried where a target was missed.** *Across studies:* that the embedding moves between protocols was seen on baron →
lawlor, one of these sets; how the move is taken out was chosen on sets of the training corpus alone, where macro-F1 rose from
0.900 to 0.953. With the weights before these (18d1b189) and one reference, the mean over these directions was 0.705; 0.718 if all
cells were embedded from the common genes only; 0.754 with the mean of each study subtracted, which does harm where the proportions of
types differ (zheng sorted → pbmc3k 0.87 to 0.79, moncada → baron 0.97 to 0.86); prototypes 0.624 and neighbors 0.640 instead of
the linear head. *Heads, frozen or trained:* the columns of the tables below. *Calibration on another study:* nothing fitted on one
study can promise it; the references of three studies, calibrated with whole studies held out, come nearest to it. *Types left out:* low confidence
alone, in the table, does worse. *No labels:* the errors are among types of one tissue (T cells, islets and ducts), which is why `tissue=`
changes little; cells given 12 draws per mean profile are most of what the reference has of fine types, and measured cells of more
studies would be needed. On studies of the corpus left out, all cells together, the calibration error is near 0.06; within single ones of them, drawn to the size of
these sets, it is above 0.1 with and without neighbors ({doc}`left_out`, small samples): studies differ in how far confidence is too high or too
low, and neither lineage nor distance from the reference told which, so that no rule could be chosen there. A weaker penalty and studies weighed alike within a type helped a little on studies
left out. That neighbors have a say was chosen there, too; here it helps sets of many cells and harms the small ones of close subtypes (zheng68k, 165 cells).
*Named and lineage:* no lineage of the keratinocytes and few of the fibroblasts of `pollen` are likely enough to be named, and a warning says that
this set does not fit; no rule that goes up the tree can name them at that error. Of `darmanis`, the authors' "Vascular" counts as
endothelial here: those named stromal express genes of mural cells and fibroblasts and none of endothelium, and the "OPC" named myeloid those of
microglia (the table of lineages in the brain). The truth of the benchmark is left as the authors have it.
In samples of 100 or 165 cells of studies left out, fewer neighbors or a smaller weight were no better, so that there is one rule. *Time:* what is
left beside embedding is in the table of times, step by step: products of each cell with the reference's cells, with the others and with the
weights of 1,000 genes, none of which can be left out without other results.
The sorted "regulatory" cells of the corpus teach "CD4 T cell" only, as their study has no other T cells: before, 17 % of pbmc3k were called regulatory. With so few cells a perfect confidence would be measured with an error, too (`ECE of a perfect one`); confidence is too
high on some sets and too low on others, so that no other temperature lowers the mean. `right of the named` counts an ancestor of the true type as right; the promise of 5 % is over all cells, named or not.
Logistic regression without labels of the set is on 1,000 genes with the tree, partial labels and weights of the reference, from at
most 20 cells of a label, for time. The 0.752 of an earlier page was on an earlier reference of other types, and 0.663 was without the
cells that are known only broadly: neither is the same comparison.
"""
HEADINGS = {
    "zero_shot": "Without any labels of the set: the shipped reference",
    "shipped_calibration": "Confidence of the shipped reference",
    "lineage_errors": "Lineages in the brain, and markers",
    "leakage": "Cells that are on both sides",
    "cross_study": "Across studies",
    "few_shot": "From few labeled cells",
    "fine_tuned": "80 % of the labels",
    "calibration": "Calibration and prediction sets",
    "novelty": "Types that the reference lacks",
    "genes": "Genes that matter, and the trial of it",
    "speed": "Time",
    "memory": "Memory for 200,000 cells in a file",
}


def page(parts: dict[str, dict]) -> tuple[str, dict[str, pd.DataFrame]]:
    """Text above the tables, and the tables."""
    frames = {name: pd.DataFrame(part["rows"]) for name, part in parts.items()}
    models = {part["sha256"][:8] for part in parts.values()}
    has_singler = "SingleR" in frames.get("zero_shot", ())
    text = INTRO.format(
        model=next(iter(parts.values()))["model"], singler=SINGLER if has_singler else NO_SINGLER
    )
    text += PUBLISHED
    if len(models) > 1:
        listed = ", ".join(f"{name} {part['sha256'][:8]}" for name, part in parts.items())
        text += (
            f"\n**The parts are of different weights** ({listed}); run the script again without `--parts`.\n"
        )
    found = targets(frames)
    text += "\n## Targets\n\n" + found.to_markdown(index=False, disable_numparse=True) + "\n\n"
    text += "\n\n".join(sentence for sentence in verdicts(frames) if sentence) + "\n" + TRIED
    text += (
        "\n\n![Macro-F1 across studies and from few labels; calibration; types never seen](annotation.png)"
    )
    tables = {HEADINGS[name]: tidy(name, frames[name]) for name in HEADINGS if name in frames}
    seconds = sum(part["seconds"] for part in parts.values())
    text += f"\n\nAll parts together took {seconds / 60:.0f} minutes by the clock, on one thread. Times are those of whatever else the machine did."
    return text, tables


def columns_of(table: pd.DataFrame) -> list[str]:
    """The compared methods that a table has."""
    return [name for name in COLOURS if name in table]


def best_baseline(table: pd.DataFrame) -> pd.Series:
    """Highest baseline of each row."""
    return table[[name for name in BASELINES if name in table]].astype(float).max(axis=1)


def best_on_average(table: pd.DataFrame) -> tuple[str, float]:
    """The baseline with the highest mean among those measured everywhere, and that mean."""
    means = table[[name for name in BASELINES if name in table and table[name].notna().all()]].mean()
    return str(means.idxmax()), float(means.max())


def targets(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each target of the issue, what was measured, and whether it was met."""
    rows: list[tuple[str, str, bool | None]] = zero_shot_targets(frames.get("zero_shot"))
    if "cross_study" in frames:
        table = frames["cross_study"]
        name, value = best_on_average(table)
        ours = table["scellm"].mean()
        rows.append(
            (
                "across studies: at or above the best baseline on average",
                f"scellm {ours:.3f}, {name} {value:.3f} ({ours - value:+.3f})",
                ours >= value,
            )
        )
    if "few_shot" in frames:
        few = frames["few_shot"]
        for shots, table in few.groupby("cells per type"):
            name, value = best_on_average(table)
            ours = table["scellm"].mean()
            word = "above" if shots <= 10 else "at or above"
            rows.append(
                (
                    f"{shots} cells per type: {word} the best baseline on average",
                    f"scellm {ours:.3f}, {name} {value:.3f} ({ours - value:+.3f})",
                    ours > value if shots <= 10 else ours >= value,
                )
            )
    gains = [
        (f[["scellm", "random weights"]].assign(part=name))
        for name, f in frames.items()
        if name in ("cross_study", "few_shot", "fine_tuned") and {"scellm", "random weights"} <= set(f)
    ]
    if gains:
        table = pd.concat(gains)
        gain = table["scellm"] - table["random weights"]
        rows.append(
            (
                "pretrained beats random weights everywhere",
                f"in {int((gain > 0).sum())} of {len(gain)} rows; smallest gain {gain.min():+.3f}, mean {gain.mean():+.3f}",
                bool((gain > 0).all()),
            )
        )
    if "calibration" in frames:
        for held_out, table in frames["calibration"].groupby("held out"):
            gap = (table["coverage at 0.05"] - 0.95).abs()
            low = table["coverage at 0.05"].min()
            rows.append(
                (
                    f"coverage within 2 points of 95 %, {held_out}",
                    f"mean {table['coverage at 0.05'].mean():.3f}, lowest {low:.3f}; within in {int((gap <= 0.02).sum())} of {len(gap)}",
                    bool((gap <= 0.02).all()),
                )
            )
            error = table["ECE after"]
            rows.append(
                (
                    f"calibration error below 0.05, {held_out}",
                    f"mean {error.mean():.3f} (before {table['ECE before'].mean():.3f}); below in {int((error < 0.05).sum())} of {len(error)}",
                    bool((error < 0.05).all()),
                )
            )
    if "novelty" in frames:
        table = frames["novelty"]
        distinct = table[table["AUROC"] >= DISTINCT]
        flagged = distinct["novel"] >= 0.8
        rows.append(
            (
                f"type left out: 80 % flagged at 5 % false alarms, where it is distinct (AUROC ≥ {DISTINCT})",
                f"in {int(flagged.sum())} of {len(flagged)} distinct types ({len(table)} in all); mean {distinct['novel'].mean():.2f} at {table['false alarms'].mean():.3f} false alarms",
                bool(flagged.all()),
            )
        )
    if "speed" in frames:
        table = frames["speed"]
        shipped = table[table["what"].str.contains("shipped")]
        if len(shipped):
            most = shipped["times embedding"].max()
            rows.append(
                (
                    "shipped reference, 20,000 cells: within 1.3 times embedding",
                    f"{most:.2f} times",
                    most <= 1.3,
                )
            )
        own = table[table["what"].str.startswith("own reference")]
        if len(own):
            seconds = own["processor seconds"].iloc[0]
            rows.append(
                (
                    "own reference, 12,000 cells x 60 types: at most 20 s",
                    f"{seconds:.1f} s of the processor",
                    seconds <= 20,
                )
            )
    if "memory" in frames:
        peak = frames["memory"]["peak memory, GiB"].iloc[0]
        rows.append(("200,000 backed cells: below 4 GB", f"{peak:.2f} GiB", peak * 1.0737 < 4))
    if "genes" in frames:
        table = frames["genes"]
        wins = table["drop"] > table["random_drop"] + 2 * table["random_drop_sd"]
        rows.append(
            (
                "important genes matter more than random ones of equal expression",
                f"in {int(wins.sum())} of {len(wins)} types; mean drop {table['drop'].mean():.3f} against {table['random_drop'].mean():.3f}",
                bool(wins.all()),
            )
        )
    table = pd.DataFrame(rows, columns=["target", "measured", "met"])
    table["met"] = table["met"].map({True: "met", False: "**missed**"})
    return table


def zero_shot_targets(table: pd.DataFrame | None) -> list[tuple[str, str, bool | None]]:
    """What was asked of labels without any labels of the set."""
    if table is None or "scellm, tissue=" not in table:
        return []
    mean = table.mean(numeric_only=True)
    level = mean["at the authors' level"]
    ours, tissue, rival = mean["scellm"], mean["scellm, tissue="], mean["logistic regression"]
    return [
        (
            "no labels: macro-F1 of at least 0.78, and above logistic regression",
            f"{ours:.3f}, logistic regression {rival:.3f}"
            + "".join(f", {name} {mean[name]:.3f}" for name in BASELINES[2:] if name in mean),
            ours >= 0.78 and ours > rival,
        ),
        ("the same with tissue=: at least 0.83", f"{tissue:.3f}", tissue >= 0.83),
        (
            "no labels, 5 % asked error: at least 95 % named, 95 % of these right, 70 % at the authors' level",
            f"{mean['named']:.1%} named, {mean['right of the named']:.1%} right, {level:.1%} at the level",
            bool(
                mean["named"] >= 0.95
                and mean["right of the named"] >= 0.95
                and mean["at the authors' level"] >= 0.7
            ),
        ),
        (
            "no labels: lineage of at least 97 % right",
            f"{mean['lineage right']:.1%} of those named",
            mean["lineage right"] >= 0.97,
        ),
        ("no labels: calibration error of at most 0.06", f"{mean['ECE']:.3f}", mean["ECE"] <= 0.06),
    ]


def verdicts(frames: dict[str, pd.DataFrame]) -> list[str]:
    """Who wins where, in words."""
    found = []
    for name, what, label in (
        ("cross_study", "Across studies", lambda row: f"{row['reference']} → {row['query']}"),
        ("few_shot", "From few labels", lambda row: f"{row['set']} ({row['cells per type']})"),
        ("fine_tuned", "With 80 % of the labels", lambda row: row["set"]),
    ):
        if name not in frames:
            continue
        table = frames[name]
        rival = best_baseline(table)
        lost = [
            label(row)
            for (_, row), other in zip(table.iterrows(), rival, strict=True)
            if row["scellm"] <= other
        ]
        found.append(
            f"**{what}** scellm is better than every baseline in {len(table) - len(lost)} of {len(table)} rows. A baseline "
            f"is better or equal on: {', '.join(lost) or 'none'}."
        )
    if "novelty" in frames:
        table = frames["novelty"].sort_values("novel")
        hard = table[table["novel"] < 0.8]
        pairs = ", ".join(
            f"{row['left out']} taken for {row['taken for']} ({row['set']}, {row['novel']:.2f})"
            for _, row in hard.head(12).iterrows()
        )
        found.append(
            f"**Hard pairs.** {len(hard)} of {len(table)} types, once left out, are called novel in less than 80 % of their "
            f"cells; the hardest: {pairs}. These are mostly subtypes of a type that the reference still has: a distance "
            "cannot call them strange without calling that type's own cells strange, too."
        )
    return found


def tidy(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table for the page: no seconds, spread beside the mean, a mean at the end."""
    table = table.copy()
    if name == "few_shot":
        for method in [column for column in table if f"{column} ±" in table]:
            spread = table.pop(f"{method} ±")
            table[method] = [
                "" if pd.isna(mean) else f"{mean:.3f}" + ("" if pd.isna(sd) else f" ± {sd:.3f}")
                for mean, sd in zip(table[method], spread, strict=True)
            ]
        return table
    if name == "fine_tuned":
        return table.fillna("")
    table = table[[column for column in table if not str(column).endswith(", s")]]
    if name in ("cross_study", "zero_shot", "shipped_calibration"):
        mean = {
            table.columns[0]: "mean",
            **table.mean(numeric_only=True).drop(["types", "cells"], errors="ignore").to_dict(),
        }
        table = pd.concat([table, pd.DataFrame([mean])], ignore_index=True)
        for column in {"types", "cells"} & set(table):
            table[column] = table[column].map(lambda n: "" if pd.isna(n) else f"{n:.0f}")
    if "scellm, not aligned" in table:  # beside what it is compared with
        column = table.pop("scellm, not aligned")
        table.insert(list(table).index("scellm") + 1, "not aligned", column)
    if name == "calibration":
        table = table.drop(columns=["set size at 0.1", "set size at 0.2"])
    return table.astype(object).where(table.notna(), "")


def draw(frames: dict[str, pd.DataFrame], path: Path) -> None:
    """Four panels: across studies, few labels, coverage, types never seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 9.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    (cross, few), (coverage, unseen) = above.subplots(1, 2, width_ratios=(1.5, 1)), below.subplots(1, 2)
    if "cross_study" in frames:
        _cross(cross, frames["cross_study"])
    if "few_shot" in frames:
        _few(few, frames["few_shot"])
    if "calibration" in frames:
        _coverage(coverage, frames["calibration"])
    if "novelty" in frames:
        _unseen(unseen, frames["novelty"])
    for ax in (cross, few, coverage, unseen):
        ax.spines[["top", "right"]].set_visible(False)
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=120)
    part.replace(path)


def _cross(ax, table: pd.DataFrame) -> None:
    names = columns_of(table)
    place = np.arange(len(table))
    for i, name in enumerate(names):
        offset = (i - (len(names) - 1) / 2) * 0.13
        ax.scatter(table[name], place + offset, color=COLOURS[name], s=34, label=name, zorder=3, linewidths=0)
    ax.hlines(place[:-1] + 0.5, 0, 1, color="0.92", lw=1)
    ax.set_yticks(
        place, [f"{a} → {b}" for a, b in zip(table["reference"], table["query"], strict=True)], fontsize=9
    )
    ax.set(xlim=(0, 1), ylim=(len(table) - 0.4, -0.6), xlabel="macro-F1", title="across studies")
    ax.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.09), fontsize=9)


def _few(ax, table: pd.DataFrame) -> None:
    for name in columns_of(table):
        mean = table.groupby("cells per type")[name].mean() if table[name].notna().all() else None
        if mean is not None:
            ax.plot(range(len(mean)), mean, marker="o", color=COLOURS[name], label=name)
            ax.set_xticks(range(len(mean)), [str(shots) for shots in mean.index])
    ax.set(
        ylim=(0, 1), xlabel="labeled cells per type", ylabel="macro-F1, mean over sets", title="few labels"
    )
    ax.legend(frameon=False, fontsize=9, loc="lower right")


def _coverage(ax, table: pd.DataFrame) -> None:
    looks = {"cells of the same set": ("#0072B2", "o"), "another study": ("#D55E00", "s")}
    for held_out, part in table.groupby("held out"):
        colour, marker = looks[held_out]
        x, y = [], []
        for target in (0.05, 0.1, 0.2):
            x += [1 - target] * len(part)
            y += list(part[f"coverage at {target:g}"])
        ax.scatter(x, y, color=colour, marker=marker, s=26, alpha=0.75, linewidths=0, label=held_out)
    line = np.array([0.75, 1.0])
    ax.plot(line, line, color="0.4", lw=1, ls="--")
    ax.fill_between(line, line - 0.02, line + 0.02, color="0.9", label="within 2 points", lw=0)
    ax.set(
        xlim=(0.77, 0.98),
        ylim=(0, 1.02),
        xlabel="coverage asked for",
        ylabel="coverage measured",
        title="prediction sets",
    )
    ax.set_xticks([0.8, 0.9, 0.95])
    ax.legend(frameon=False, fontsize=9, loc="lower left")


def _unseen(ax, table: pd.DataFrame) -> None:
    sets = list(dict.fromkeys(table["set"]))
    rng = np.random.default_rng(0)
    place = table["set"].map({name: i for i, name in enumerate(sets)}) + rng.uniform(-0.22, 0.22, len(table))
    is_distinct = table["AUROC"] >= DISTINCT
    for part, colour, label in (
        (is_distinct, "#0072B2", "distinct type"),
        (~is_distinct, "#BBBBBB", "not distinct"),
    ):
        ax.scatter(place[part], table["novel"][part], color=colour, s=30, linewidths=0, label=label, zorder=3)
    ax.axhline(0.8, color="0.4", lw=1, ls="--")
    ax.axhline(0.05, color="#D55E00", lw=1, ls=":", label="5 % false alarms")
    ax.set_xticks(range(len(sets)), sets, rotation=25, ha="right")
    ax.set(ylim=(-0.02, 1.02), ylabel="share called novel", title="types left out of the reference")
    ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.06))
