"""The page of `transformer.py`: what was measured, by seeds, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from _paper_page import interval
from _transformer_scores import (
    LOGGED,
    SHOTS,
    Found,
    Run,
    Store,
    Trained,
    averaged,
    beside,
    difference_of,
    mean,
    reading,
)

import scellm

NAME = "transformer"
OURS, BAG = "transformer", "its bag"
CONTEXTS = (512, 1024, 2048)
BETWEEN_SEEDS = 0.0041
"""Standard deviation of a mean over these datasets between seeds, pooled over the arms of the page `ablation`."""


def log_of(log: pd.DataFrame) -> pd.DataFrame:
    """Ten lines of a training log, from the first to the last."""
    at = sorted({round(i * (len(log) - 1) / 9) for i in range(10)})
    return log.iloc[at][[name for name in LOGGED if name in log and name != "learning_rate"]].round(3)


@dataclass
class Results:
    """What was measured, by run where there are several."""

    runs: list[Trained]
    """The first is that of the shipped weights."""
    pca: dict[str, Found]
    small: dict[str, Found]
    others: dict[str, Found]
    wide: dict[str, Found]
    bags: dict[str, Found]
    """Bags of other seeds, on the datasets left out."""
    variants: list[Found]
    read: list[Found]
    again: Found
    """The shipped weights beside those of the first run: largest difference, and the score of each."""

    @property
    def ours(self) -> list[Found]:
        """Scores of the transformers on datasets left out."""
        return [run.scores[OURS]["left-out"] for run in self.runs]

    @property
    def their_bags(self) -> list[Found]:
        """Those of their bags."""
        return [run.scores[BAG]["left-out"] for run in self.runs]

    def of_all(self, kind: str) -> dict[str, list[Found]]:
        """By method, benchmark or few labels: a score for each run, or one."""
        found = {} if kind not in self.pca else {"PCA": [self.pca[kind]]}
        found |= {name: [run.scores[name][kind] for run in self.runs] for name in (OURS, BAG)}
        return found | {"scellm-small": [self.small[kind]]}

    @property
    def differences(self) -> np.ndarray:
        """(n_datasets, n_runs) ours less the bag of the same run."""
        return np.stack(
            [
                np.subtract(list(a["macro_f1"].values()), list(b["macro_f1"].values()))
                for a, b in zip(self.ours, self.their_bags, strict=True)
            ],
            1,
        )

    def kept(self) -> Found:
        """For JSON: all of it, so that the page can be made when models are gone."""
        return {
            field.name: [run.to_dict() for run in self.runs] if field.name == "runs" else getattr(self, field.name)
            for field in fields(self)
        }  # fmt: skip


def measure(store: Store, known: Found, models: dict[str, list[Path]]) -> Results:
    """All scores.

    Parameters
    ----------
    store
        What is in it is not measured again.
    known
        What the page has, as `Results.kept` gave it: stays where a run or a model is not at hand.
    models
        Folders of runs, variants, others, wide and bags; the first run is that of the shipped weights.
    """
    runs = [Run(folder) for folder in models["runs"]]
    trained = {kept["seed"]: Trained.from_dict(kept) for kept in known.get("runs", [])}
    trained = {run.seed: Trained.of(run, store) for run in runs} | {
        seed: one for seed, one in trained.items() if seed not in [run.seed for run in runs]
    }
    first, small = runs[0], scellm.models.load("scellm-small")

    def scored(kind: str) -> dict[str, Found]:
        loaded = {path.name: reading(scellm.models.load(path), CONTEXTS[1]) for path in models[kind]}
        return known.get(kind, {}) | {name: store.left_out(model) for name, model in loaded.items()}

    bags = {
        path.parent.name: store.left_out(reading(scellm.models.load(path), CONTEXTS[1]))
        for path in models["bags"]
    }
    tried = [variant_of(first, store), *(variant_of(Run(folder), store) for folder in models["variants"])]
    new = {(row["highest rate"], row["steps"]) for row in tried}
    shipped = scellm.models.load("scellm-transformer")
    gap = difference_of(first.model, shipped)
    again = known.get("again") or {}
    if first.model.provenance["minutes"] != shipped.provenance["minutes"]:  # another training
        again = {
            "difference": gap,
            "shipped": mean(store.left_out(shipped)),
            "again": mean(store.left_out(first.model)),
            "minutes": first.model.provenance["minutes"],
            "minutes of the shipped": shipped.provenance["minutes"],
        }
    return Results(
        runs=list(trained.values()),
        pca={"left-out": store.left_out(None), "benchmark": store.benchmark(None)},
        small={"benchmark": store.benchmark(small), "few": store.few_labels(small)},
        others=scored("others"),
        wide=scored("wide"),
        bags=known.get("bags", {}) | bags,
        variants=tried + [row for row in known.get("variants", []) if (row["highest rate"], row["steps"]) not in new],
        read=[
            {"genes": str(n)} | {name: mean(store.left_out(reading(model, n))) for name, model in ((OURS, first.model), (BAG, first.bag))}
            for n in CONTEXTS
        ],
        again=again,
    )  # fmt: skip


def variant_of(run: Run, store: Store) -> Found:
    """A run of the recipe with another learning rate or number of steps, beside its own bag."""
    ours, bag = store.left_out(run.model), store.left_out(run.bag)
    differences = np.subtract(list(ours["macro_f1"].values()), list(bag["macro_f1"].values()))
    first, last = run.log.iloc[:10].mean(), run.log.iloc[-10:].mean()
    return {
        "highest rate": f"{run.log['learning_rate'].max():.2g}",
        "steps": str(run.steps),
        OURS: mean(ours),
        BAG: mean(bag),
        "difference": float(differences.mean()),
        "contrastive, first ten steps": float(first["contrastive"]),
        "last ten": float(last["contrastive"]),
        "highest anisotropy": float(run.log["anisotropy"].max()),
    }


def trained(found: Results) -> str:
    """What the losses did."""
    log = found.runs[0].log
    first, last = log.iloc[:10].mean(), log.iloc[-10:].mean()
    names = ("contrastive", "supervised", "masked_gene", "normal_cancer")
    falls = [name for name in names if last[name] < 0.98 * first[name]]
    said = ", ".join(f"{name.replace('_', ' ')} {first[name]:.2f} to {last[name]:.2f}" for name in names)
    text = (
        f"Losses, mean of the first and of the last ten steps: {said}: {'all' if len(falls) == len(names) else f'{len(falls)} of {len(names)}'} fall. Cells stay apart (anisotropy "
        f"{found.ours[0]['anisotropy']:.2f}, of the bag {found.their_bags[0]['anisotropy']:.2f}; highest of a batch in training {log['anisotropy'].max():.2f}). The highest learning rate is "
        f"{log['learning_rate'].max():.2g}, as the rate of a recipe is for 256 cells and grows with the root of the batch."
    )
    for row in found.variants[1:]:
        text += f" **Another rate and length**: with {row['highest rate']} and {row['steps']} steps it has {row[OURS]:.4f}, its bag {row[BAG]:.4f} ({row['difference']:+.4f})."
    return text


def methods_table(found: Results) -> pd.DataFrame:
    """Means over the benchmark sets and trainings."""
    rows = []
    for name, scores in found.of_all("benchmark").items():
        row: dict[str, object] = {"method": name}
        for key, title in (("macro_f1", "macro-F1"), ("nmi", "NMI"), ("ari", "ARI")):
            row[title] = float(np.mean([mean(one, key) for one in scores]))
        row[f"macro-F1 from {SHOTS} labels"] = (
            f"{np.mean([mean(one) for one in found.of_all('few')[name]]):.3f}"
            if name in found.of_all("few")
            else "not run"
        )
        rows.append(row)
    return pd.DataFrame(rows)


def seeds_table(found: Results) -> pd.DataFrame:
    """A row for each training."""
    rows = [
        {
            "seed": f"{run.seed}" + (", shipped" if i == 0 else ""),
            OURS: mean(found.ours[i]),
            BAG: mean(found.their_bags[i]),
            "difference": float(found.differences[:, i].mean()),
            "worst dataset": float(found.differences[:, i].min()),
            "benchmark sets": mean(found.of_all("benchmark")[OURS][i]),
            "its bag there": mean(found.of_all("benchmark")[BAG][i]),
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
    final = averaged(found.of_all("benchmark")[OURS])["macro_f1"]
    above = sum(
        final[name] > score for name, score in found.of_all("benchmark")["PCA"][0]["macro_f1"].items()
    )
    ours, pca = methods.loc[OURS], methods.loc["PCA"]
    few = float(np.mean([mean(one) for one in found.of_all("few")[OURS]]))
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
        f"was put on has {np.mean([mean(x) for x in found.their_bags]):.4f} ({gain:+.4f}, 95 % over datasets{' and seeds' if n > 1 else ''} {low:+.4f} to {high:+.4f}; {trained}; the target was "
        f"+0.010), PCA fitted to each {mean(found.pca['left-out']):.4f}. On the seven benchmark sets it is {methods[OURS]:.3f}, its bag {methods[BAG]:.3f}, scellm-small "
        f"{methods['scellm-small']:.3f}, PCA {methods['PCA']:.3f}."
    )


def again(found: Results) -> str:
    """Whether training again reaches the shipped numbers: with the seed of the recipe, and with others."""
    words = []
    if found.again:
        gap = abs(found.again["shipped"] - found.again["again"])
        reaches = gap <= 2 * BETWEEN_SEEDS * np.sqrt(2)
        same = (
            "every weight is the same, bit for bit"
            if found.again["difference"] == 0
            else f"no weight differs by more than {found.again['difference']:.2g} of the size of its tensor"
        )
        words.append(
            f"**Retraining from the recipe {'reaches' if reaches else 'does not reach'} the numbers.** Trained anew, with the seed of the recipe "
            f"({found.again['minutes']:.0f} minutes of one core; the shipped weights took {found.again['minutes of the shipped']:.0f}), {same}; macro-F1 is {found.again['again']:.4f}, that of the "
            f"shipped weights {found.again['shipped']:.4f}. Other processors and versions round in other ways."
        )
    ours = [mean(one) for one in found.ours]
    if len(ours) > 1:
        spread = float(np.std(ours, ddof=1))
        bags = [mean(one) for one in found.bags.values()]
        of_bags = (
            f" The spread is that of the bag: {len(bags)} bags of as many seeds have {np.mean(bags):.4f} with a standard deviation of {np.std(bags, ddof=1):.4f} ({min(bags):.4f} to {max(bags):.4f}); "
            f"of its variance {_share_of_noisiest(found.bags)}."
            if len(bags) > 2
            else ""
        )
        words.append(
            f"**Expect the mean, not the shipped number.** Over {len(ours)} seeds macro-F1 on the datasets left out is {np.mean(ours):.4f}, standard deviation {spread:.4f}; the shipped weights have "
            f"{ours[0]:.4f}, {(ours[0] - np.mean(ours)) / spread:+.1f} standard deviations from it.{of_bags}"
        )
    return "\n\n".join(words) or "The recipe was not run again yet."


def _share_of_noisiest(bags: dict[str, Found]) -> str:
    """The dataset that makes most of the spread of the mean, and the spread without it."""
    table = pd.DataFrame([bag["macro_f1"] for bag in bags.values()])
    name = str(table.std().idxmax())
    return f"most comes from *{name}* (standard deviation {table[name].std():.3f}; without it that of the mean is {table.drop(columns=name).mean(axis=1).std():.4f})"


def trials(found: Results) -> str:
    """What else was trained, each beside what it may be compared with."""
    words = [
        "*all_trained* is the same block with gene embeddings trained along, on 128 genes a view and for 90 steps."
        + (
            f" *bag_more* is the bag alone, of the same seed, with `corpus_more` in the corpus, too (`training_corpus.py --more`): {mean(found.others['bag_more']):.4f} beside {mean(found.their_bags[0]):.4f}."
            if "bag_more" in found.others
            else ""
        ),
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
        width = mean(found.wide[bag]) - mean(found.their_bags[0])
        words.append(
            f"**Wider**: blocks of 256 dimensions (batches of 512 cells; gene embeddings trained along, and fixed) have {gains}, and the bag of 256 dimensions that they were put on "
            f"{mean(found.wide[bag]):.4f}, all reading {CONTEXTS[1]:,} genes: {attention}. That bag is {width:+.4f} beside the one of 128, "
            f"{'more' if abs(width) > 2 * BETWEEN_SEEDS else 'less'} than twice the spread between seeds ({2 * BETWEEN_SEEDS:.4f}): what there is of a gain is of the width. One training each."
        )
    read = pd.DataFrame(found.read).set_index("genes")
    words.append(
        f"**Genes read**: with {CONTEXTS[0]:,}, {CONTEXTS[1]:,} and {CONTEXTS[2]:,} genes of a cell the transformer has "
        f"{', '.join(f'{x:.4f}' for x in read[OURS])}, its bag {', '.join(f'{x:.4f}' for x in read[BAG])}. Depth, objectives, rates and batches, at a short budget: {{doc}}`block_trials`."
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
    left = beside({"PCA": found.pca["left-out"], OURS: averaged(found.ours), BAG: averaged(found.their_bags)})
    left["difference"] = left[OURS] - left[BAG]
    shipped = {"PCA": found.pca["left-out"], BAG: found.their_bags[0], OURS: found.ours[0], **found.others}
    tables = {
        "Targets": targets_table(found, speeds["transformer"]),
        "Trainings: macro-F1 on datasets left out, and on the benchmark sets": seeds_table(found),
        f"Macro-F1 on datasets left out of training{over}": left,
        "The shipped weights and other options, on datasets left out": beside(shipped),
    }
    if len(found.variants) > 1:
        tables["Other rates and lengths, macro-F1 on datasets left out"] = pd.DataFrame(found.variants)
    if found.wide:
        tables["Blocks of 256 dimensions beside their bag, on datasets left out"] = beside(found.wide)
    if found.bags:
        tables["Bags of other seeds, macro-F1 on datasets left out"] = beside(found.bags)
    return tables | {
        "Genes read, macro-F1 on datasets left out": pd.DataFrame(found.read),
        "Benchmark sets: means": methods_table(found),
        f"Benchmark sets: macro-F1{over}": beside(
            {k: averaged(v) for k, v in found.of_all("benchmark").items()}
        ),
        "Cells a second": pd.DataFrame([{"model": key, "cells/s": value} for key, value in speeds.items()]),
        "Log of the training of the shipped block": log_of(found.runs[0].log),
    }
