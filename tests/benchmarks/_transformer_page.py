"""The page of `transformer.py`: what was measured, by seeds, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _paper_page import interval
from _transformer_scores import SHOTS, Found, Run, Store, averaged, beside, mean, reading

import scellm

NAME = "transformer"
LOGGED = [
    "step",
    "contrastive",
    "supervised",
    "masked_gene",
    "normal_cancer",
    "anisotropy",
    "cells_per_second",
]
OURS, BAG = "transformer", "its bag"
SHARES, CONTEXTS = (0.0, 0.25, 0.5, 0.75), (512, 1024, 2048)
BETWEEN_SEEDS = 0.0041
"""Standard deviation of a mean over these datasets between seeds, pooled over the arms of the page `ablation`."""


def log_of(log: pd.DataFrame) -> pd.DataFrame:
    """Ten lines of a training log, from the first to the last."""
    at = sorted({round(i * (len(log) - 1) / 9) for i in range(10)})
    return log.iloc[at][[name for name in LOGGED if name in log]].round(3)


@dataclass
class Results:
    """What was measured, by run where there are several."""

    runs: list[Run]
    pca: Found
    ours: list[Found]
    bags: list[Found]
    final: dict[str, list[Found]]
    """Benchmark sets: method to a score for each run, or one."""
    few: dict[str, list[Found]]
    others: dict[str, Found]
    wide: dict[str, Found]
    variants: pd.DataFrame
    read: pd.DataFrame
    shares: pd.DataFrame

    @property
    def differences(self) -> np.ndarray:
        """(n_datasets, n_runs) ours less the bag of the same run."""
        return np.stack(
            [
                np.subtract(list(a["macro_f1"].values()), list(b["macro_f1"].values()))
                for a, b in zip(self.ours, self.bags, strict=True)
            ],
            1,
        )


def measure(
    runs: list[Run], variants: list[Run], store: Store, others: list[Path], wide: list[Path]
) -> Results:
    """All scores; those in the store are not measured again."""
    first, small = runs[0], scellm.models.load("scellm-small")
    models, bags = [run.model for run in runs], [run.bag for run in runs]
    loaded = {path.name: reading(scellm.models.load(path), CONTEXTS[1]) for path in (*others, *wide)}
    scored = {name: store.left_out(model) for name, model in loaded.items()}
    read = [
        {"genes": str(n)}
        | {
            name: mean(store.left_out(reading(model, n)))
            for name, model in ((OURS, models[0]), (BAG, bags[0]))
        }
        for n in CONTEXTS
    ]
    shares = [
        {
            "share": f"{share:g}" + (", shipped" if share == first.share else ""),
            **{f"seed {run.seed}": mean(store.left_out(run.with_start(share))) for run in runs},
        }
        for share in SHARES
        if first.share or not share
    ]
    shares.append(
        {"share": "1, the bag"}
        | {f"seed {run.seed}": mean(store.left_out(bag)) for run, bag in zip(runs, bags, strict=True)}
    )
    return Results(
        runs,
        store.left_out(None),
        [store.left_out(model) for model in models],
        [store.left_out(bag) for bag in bags],
        {
            "PCA": [store.benchmark(None)],
            OURS: [store.benchmark(model) for model in models],
            BAG: [store.benchmark(bag) for bag in bags],
            small.name: [store.benchmark(small)],
        },
        {
            OURS: [store.few_labels(model) for model in models],
            BAG: [store.few_labels(bag) for bag in bags],
            small.name: [store.few_labels(small)],
        },
        {path.name: scored[path.name] for path in others},
        {path.name: scored[path.name] for path in wide},
        variants_table([runs[0], *variants], store),
        pd.DataFrame(read),
        pd.DataFrame(shares),
    )


def variants_table(runs: list[Run], store: Store) -> pd.DataFrame:
    """Other learning rates and numbers of steps, each beside its own bag."""
    rows = []
    for i, run in enumerate(runs):
        ours, end, bag = (store.left_out(one) for one in (run.model, run.with_start(0.0), run.bag))
        differences = np.subtract(list(ours["macro_f1"].values()), list(bag["macro_f1"].values()))
        first, last = run.log.iloc[:10].mean(), run.log.iloc[-10:].mean()
        rows.append(
            {
                "highest rate": f"{run.log['learning_rate'].max():.2g}" + ("" if i else ", shipped"),
                "steps": str(run.steps),
                "share of the start": f"{run.share:g}",
                OURS: mean(ours),
                "end alone": mean(end),
                BAG: mean(bag),
                "difference": float(differences.mean()),
                "worst dataset": float(differences.min()),
                "contrastive, first ten steps": first["contrastive"],
                "last ten": last["contrastive"],
                "highest anisotropy": run.log["anisotropy"].max(),
            }
        )
    return pd.DataFrame(rows)


def trained(found: Results) -> str:
    """What the losses did."""
    log = found.runs[0].log
    first, last = log.iloc[:10].mean(), log.iloc[-10:].mean()
    names = ("contrastive", "supervised", "masked_gene", "normal_cancer")
    falls = [name for name in names if last[name] < 0.98 * first[name]]
    said = ", ".join(f"{name.replace('_', ' ')} {first[name]:.2f} to {last[name]:.2f}" for name in names)
    text = (
        f"Losses, mean of the first and of the last ten steps: {said}: {'all' if len(falls) == len(names) else f'{len(falls)} of {len(names)}'} fall. Cells stay apart (anisotropy "
        f"{found.ours[0]['anisotropy']:.2f}, of the bag {found.bags[0]['anisotropy']:.2f}; highest of a batch in training {log['anisotropy'].max():.2f}). The highest learning rate is "
        f"{log['learning_rate'].max():.2g}, as the rate of a recipe is for 256 cells and grows with the root of the batch."
    )
    if len(found.variants) > 1:
        rows = found.variants.iloc[1:]
        best = rows.loc[rows["difference"].idxmax()]
        gap = best[OURS] - found.variants.iloc[0][OURS]
        text += (
            f" **Other rates and lengths**: with {best['highest rate']}, {best['steps']} steps and a share of {best['share of the start']} of the start it has {best[OURS]:.4f}, its bag {best[BAG]:.4f} ({best['difference']:+.4f}; "
            f"{gap:+.4f} beside the shipped weights, {'more' if abs(gap) > 2 * BETWEEN_SEEDS else 'less'} than twice the spread between seeds)."
        )
    return text


def methods_table(found: Results) -> pd.DataFrame:
    """Means over the benchmark sets and trainings."""
    rows = []
    for name, scores in found.final.items():
        row: dict[str, object] = {"method": name}
        for key, title in (("macro_f1", "macro-F1"), ("nmi", "NMI"), ("ari", "ARI")):
            row[title] = float(np.mean([mean(one, key) for one in scores]))
        row[f"macro-F1 from {SHOTS} labels"] = (
            f"{np.mean([mean(one) for one in found.few[name]]):.3f}" if name in found.few else "not run"
        )
        rows.append(row)
    return pd.DataFrame(rows)


def seeds_table(found: Results) -> pd.DataFrame:
    """A row for each training."""
    rows = [
        {
            "seed": f"{run.seed}" + (", shipped" if i == 0 else ""),
            OURS: mean(found.ours[i]),
            BAG: mean(found.bags[i]),
            "difference": float(found.differences[:, i].mean()),
            "worst dataset": float(found.differences[:, i].min()),
            "benchmark sets": mean(found.final[OURS][i]),
            "its bag there": mean(found.final[BAG][i]),
        }
        for i, run in enumerate(found.runs)
    ]
    table = pd.DataFrame(rows)
    if len(rows) > 1:
        numbers = table.drop(columns="seed")
        table = pd.concat(
            [
                table,
                pd.DataFrame([{"seed": "mean", **numbers.mean()}]),
                pd.DataFrame([{"seed": "standard deviation", **numbers.std()}]),
            ]
        )
    return table


def targets_table(found: Results, speed: float) -> pd.DataFrame:
    """What was asked for before training."""
    methods = methods_table(found).set_index("method")
    per_dataset = found.differences.mean(1)
    final = averaged(found.final[OURS])["macro_f1"]
    above = sum(final[name] > score for name, score in found.final["PCA"][0]["macro_f1"].items())
    ours, pca = methods.loc[OURS], methods.loc["PCA"]
    few = float(np.mean([mean(one) for one in found.few[OURS]]))
    rows = [
        ("left-out datasets, gain over the bag", "+0.010", f"{per_dataset.mean():+.4f}", per_dataset.mean() >= 0.01),
        ("the same, worst dataset", "-0.020", f"{per_dataset.min():+.4f}", per_dataset.min() >= -0.02),
        ("benchmark sets", "0.925", f"{ours['macro-F1']:.3f}", ours["macro-F1"] >= 0.925),
        ("benchmark sets better than PCA", "6 of 7", f"{above} of {len(final)}", above >= 6),
        ("NMI of Leiden", f"above PCA, {pca['NMI']:.3f}", f"{ours['NMI']:.3f}", ours["NMI"] > pca["NMI"]),
        ("ARI of Leiden", f"above PCA, {pca['ARI']:.3f}", f"{ours['ARI']:.3f}", ours["ARI"] > pca["ARI"]),
        (f"{SHOTS} labels of a type", "0.905", f"{few:.3f}", few >= 0.905),
        ("cells a second, two cores, 1,000 genes", "200", f"{speed:.0f}", speed >= 200),
    ]  # fmt: skip
    return pd.DataFrame(
        [(what, asked, got, "met" if met else "missed") for what, asked, got, met in rows],
        columns=["what", "at least", "measured", "verdict"],
    )


def verdict_of(found: Results) -> tuple[str, str]:
    """One word, and the sentences behind it."""
    gain, low, high = interval(found.differences)
    n = len(found.runs)
    word = (
        "Yes"
        if gain >= 0.01 and low > 0
        else "By less than was asked"
        if low > 0
        else "No, it is worse"
        if high < 0
        else "No difference is shown"
    )
    trained = "one training" if n == 1 else f"{n} trainings of different seeds, each beside its own bag"
    methods = methods_table(found).set_index("method")["macro-F1"]
    return word, (
        f"On eight datasets that were left out of training, macro-F1 of 15 neighbors is {np.mean([mean(x) for x in found.ours]):.4f}; the bag that the block "
        f"was put on has {np.mean([mean(x) for x in found.bags]):.4f} ({gain:+.4f}, 95 % over datasets{' and seeds' if n > 1 else ''} {low:+.4f} to {high:+.4f}; {trained}; the target was "
        f"+0.010), PCA fitted to each {mean(found.pca):.4f}. On the seven benchmark sets it is {methods[OURS]:.3f}, its bag {methods[BAG]:.3f}, scellm-small "
        f"{methods['scellm-small']:.3f}, PCA {methods['PCA']:.3f}."
    )


def again(found: Results) -> str:
    """Whether training again reaches the shipped numbers."""
    if len(found.runs) == 1:
        return "The recipe was not run again with another seed yet."
    others = [mean(x) for x in found.ours[1:]]
    gap = mean(found.ours[0]) - float(np.mean(others))
    within = abs(gap) <= 2 * BETWEEN_SEEDS * np.sqrt(1 + 1 / len(others))
    return (
        f"**Retraining from the recipe {'reaches' if within else 'does not reach'} the numbers within the spread.** With other seeds it has "
        f"{', '.join(f'{x:.4f}' for x in others)} on the datasets left out, the shipped weights {mean(found.ours[0]):.4f} ({gap:+.4f}; twice the spread "
        f"between seeds of the page {{doc}}`ablation`, standard deviation {BETWEEN_SEEDS:.4f}, is {2 * BETWEEN_SEEDS * np.sqrt(1 + 1 / len(others)):.4f})."
    )


def _mixing(found: Results) -> str:
    """How much of the start is in the shipped weights, and what other shares give."""
    if not found.runs[0].share:
        return (
            "The shipped weights are those at the end of the training of the block. Averages with the start (`keep_start`) were measured for the runs under "
            "*Other rates and lengths* alone."
        )
    scores = found.shares.set_index("share").mean(1)
    best, shipped = scores.iloc[:-1].idxmax(), scores[scores.index.str.contains("shipped")].iloc[0]
    gap = (
        ", the shipped one"
        if "shipped" in best
        else f" ({scores[best] - shipped:+.4f} beside the shipped one)"
    )
    return (
        f"The shipped weights are the mean of those at the start and at the end of the training of the block, with a share of {found.runs[0].share:g} of the start "
        f"(`keep_start`). Of the shares in the table {best.split(',')[0]} is best{gap}; the bag alone has {scores.iloc[-1]:.4f}."
    )


def trials(found: Results) -> str:
    """What else was trained, each beside what it may be compared with."""
    words = [
        _mixing(found),
        "*all_trained* is the same block with gene embeddings trained along, on 128 genes a view and for 90 steps.",
    ]
    if "continued" in found.others:
        gap = mean(found.others["continued"]) - mean(found.ours[0])
        words.append(
            f"**Longer**: *continued* is the shipped block trained on for 40 steps at half the rate. It has {mean(found.others['continued']):.4f} ({gap:+.4f} beside "
            f"the shipped weights, {'more' if abs(gap) > 2 * BETWEEN_SEEDS else 'less'} than twice the spread between seeds)."
        )
    if found.wide:
        bag, *blocks = found.wide
        gains = ", ".join(f"*{name}* {mean(found.wide[name]):.4f}" for name in blocks)
        best_block = max(mean(found.wide[name]) for name in blocks)
        adds = best_block - mean(found.wide[bag]) > 2 * BETWEEN_SEEDS
        attention = f"attention adds {'something' if adds else 'nothing that could be told from chance'} there{'' if adds else ' either'}"
        width = mean(found.wide[bag]) - mean(found.bags[0])
        words.append(
            f"**Wider**: blocks of 256 dimensions (batches of 512 cells; gene embeddings trained along, and fixed) have {gains}, and the bag of 256 dimensions that they were put on "
            f"{mean(found.wide[bag]):.4f}, all reading {CONTEXTS[1]:,} genes: {attention}. That bag is {width:+.4f} beside the one of 128, "
            f"{'more' if abs(width) > 2 * BETWEEN_SEEDS else 'less'} than twice the spread between seeds ({2 * BETWEEN_SEEDS:.4f}): what there is of a gain is of the width. One training each."
        )
    read = found.read.set_index("genes")
    words.append(
        f"**Genes read**: with {CONTEXTS[0]:,}, {CONTEXTS[1]:,} and {CONTEXTS[2]:,} genes of a cell the transformer has "
        f"{', '.join(f'{x:.4f}' for x in read[OURS])}, its bag {', '.join(f'{x:.4f}' for x in read[BAG])}. Other depths, objectives and lengths beyond these were not tried."
    )
    return "\n\n".join(words)


def page_text(found: Results, speeds: dict[str, float]) -> str:
    """The page above its tables."""
    word, verdict = verdict_of(found)
    methods = methods_table(found).set_index("method")
    few = methods[f"macro-F1 from {SHOTS} labels"]
    return "\n\n".join(
        [
            "Does a block of attention, trained with the three published objectives and labels in batches of 4,096 cells by divide and conquer, tell "
            f"cell types apart better than the bag of genes it is put on? **{word}.** {verdict}",
            again(found),
            f"Leiden clusters of the benchmark sets agree with types by an NMI of {methods.loc[OURS, 'NMI']:.3f} (its bag {methods.loc[BAG, 'NMI']:.3f}, PCA {methods.loc['PCA', 'NMI']:.3f}) and an ARI of "
            f"{methods.loc[OURS, 'ARI']:.3f} ({methods.loc[BAG, 'ARI']:.3f}, {methods.loc['PCA', 'ARI']:.3f}). From {SHOTS} labeled cells of each type `tl.annotate` reaches a macro-F1 of {few[OURS]} on it, "
            f"{few[BAG]} on its bag, {few['scellm-small']} on scellm-small.",
            f"The model ships as `scellm-transformer`; the default stays `scellm-small`, which embeds {speeds['scellm-small']:,.0f} cells a second where "
            f"this one does {speeds['transformer']:,.0f} (cells of 1,000 genes, two cores).",
            trained(found),
            f"![Training curves]({NAME}.png)",
            trials(found),
        ]
    )


def tables_of(found: Results, speeds: dict[str, float]) -> dict[str, pd.DataFrame]:
    """All tables of the page."""
    n = len(found.runs)
    over = f", mean of {n} trainings" if n > 1 else ""
    left = beside({"PCA": found.pca, OURS: averaged(found.ours), BAG: averaged(found.bags)})
    left["difference"] = left[OURS] - left[BAG]
    shipped = {"PCA": found.pca, BAG: found.bags[0], OURS: found.ours[0], **found.others}
    tables = {
        "Targets": targets_table(found, speeds["transformer"]),
        "Trainings: macro-F1 on datasets left out, and on the benchmark sets": seeds_table(found),
        f"Macro-F1 on datasets left out of training{over}": left,
        "The shipped weights and other options, on datasets left out": beside(shipped),
    }
    if len(found.variants) > 1:
        tables["Other rates and lengths, macro-F1 on datasets left out"] = found.variants
    if found.wide:
        tables["Blocks of 256 dimensions beside their bag, on datasets left out"] = beside(found.wide)
    if found.runs[0].share:
        tables["Share of the start in the weights, macro-F1 on datasets left out"] = found.shares
    return tables | {
        "Genes read, macro-F1 on datasets left out": found.read,
        "Benchmark sets: means": methods_table(found),
        f"Benchmark sets: macro-F1{over}": beside({k: averaged(v) for k, v in found.final.items()}),
        "Cells a second": pd.DataFrame([{"model": key, "cells/s": value} for key, value in speeds.items()]),
        "Log of the training of the shipped block": log_of(found.runs[0].log),
    }
