"""The page of `paper.py`: each claim beside what it was measured against."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from _paper_runs import BATCHES, RATES, RUNS, SEEDS, finished
from _paper_scores import all_scores
from _report import DOCS, write

CANCER_SETS = ("melanoma_tirosh_mini", "scmixology_sc_celseq2_5cl_p1")
"""Datasets with tumor cells or cells of cancer lines."""
DRAWS = 4000


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of differences (dataset x seed), drawn over datasets and over seeds."""
    rng = np.random.default_rng(0)
    n, s = differences.shape
    rows = rng.integers(n, size=(DRAWS, n))
    columns = rng.integers(s, size=(DRAWS, s))
    means = differences[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    return float(differences.mean()), *np.quantile(means, (0.025, 0.975))


def verdict(low: float, high: float) -> str:
    """What an interval of a difference says of a claim that it is above zero."""
    return "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"


class Scores:
    """Scores of the runs that are finished.

    Parameters
    ----------
    table
        Rows of `all_scores`.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table.set_index(["run", "dataset"])
        self.runs = set(table["run"])

    def seeds(self, *arms: str) -> list[int]:
        """Seeds with which all of these arms are finished."""
        return [s for s in SEEDS if all(f"{arm}-{s}" in self.runs for arm in arms)]

    def of(self, run: str, what: str, sets: tuple[str, ...] | None = None) -> np.ndarray:
        """(n_datasets,) scores of a run."""
        values = self.table.loc[run][what]
        return values.loc[list(sets) if sets else slice(None)].to_numpy()

    def difference(
        self, first: str, second: str, what: str, sets: tuple[str, ...] | None = None
    ) -> tuple[float, float, float, int] | None:
        """`first` less `second`, seed by seed, its interval and the number of seeds; the second may be a run without seeds."""
        paired = second not in self.runs
        seeds = self.seeds(first, second) if paired else self.seeds(first)
        if not seeds:
            return None
        columns = [
            self.of(f"{first}-{s}", what, sets) - self.of(f"{second}-{s}" if paired else second, what, sets)
            for s in seeds
        ]
        return *interval(np.stack(columns, 1)), len(seeds)

    def mean(self, arm: str, what: str, sets: tuple[str, ...] | None = None) -> float:
        """Over datasets and seeds; of a run without seeds over datasets."""
        runs = [arm] if arm in self.runs else [f"{arm}-{s}" for s in self.seeds(arm)]
        return float(np.mean([self.of(run, what, sets) for run in runs])) if runs else np.nan


Difference = tuple[float, float, float, int] | None


def _said(found: Difference) -> str:
    return "not run" if found is None else f"{found[0]:+.3f} ({found[1]:+.3f} to {found[2]:+.3f})"


def _judged(found: Difference, *, below: bool = False) -> str:
    if found is None:
        return "not run"
    low, high = (-found[2], -found[1]) if below else found[1:3]
    return verdict(low, high)


def _missing(table: pd.DataFrame) -> str:
    """How many comparisons have no runs yet."""
    n = int((table["verdict"] == "not run").sum())
    return f"; {n} have not been run" if n else ""


def _so_many(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"


def claims(scores: Scores) -> pd.DataFrame:
    """The table of claims."""
    d = scores.difference
    cures = d("three", "masked", "anisotropy")
    gains = d("three", "masked", "macro_f1")
    only = d("three", "contrastive", "macro_f1")
    larger = d("batch-4096", "batch-256", "macro_f1")
    most, least = (_best_bag(scores, b) for b in (BATCHES[-1], BATCHES[0]))
    larger_bag = d(most, least, "macro_f1") if most and least else None
    tried = [len(_rates(scores, b)) for b in (BATCHES[-1], BATCHES[0])]
    rates = (
        "best rate of each"
        if min(tried) in (0, len(RATES))
        else f"best of {tried[0]} and {tried[1]} of {len(RATES)} rates"
    )
    cancer, normal = d("three", "no-cancer", "macro_f1", CANCER_SETS), d("three", "no-cancer", "macro_f1")
    few, many = d("three", "masked", "few_labels"), d("three", "masked", "many_labels")
    few_genes, many_genes = d("three", "genes", "few_labels"), d("three", "genes", "many_labels")
    m = scores.mean
    pca = f"PCA {m('PCA', 'macro_f1'):.3f}, before training {m('start-blocks-0', 'macro_f1'):.3f}"
    rows = [
        ("contrast lowers the anisotropy of masked genes alone", "anisotropy, less is better", cures, f"masked {m('masked', 'anisotropy'):.3f}, PCA {m('PCA', 'anisotropy'):.3f}", _judged(cures, below=True)),
        ("and the embedding is better for it", "macro-F1 of 15 neighbors", gains, pca, _judged(gains)),
        ("three objectives are better than contrast alone", "macro-F1 of 15 neighbors", only, pca, _judged(only)),
        ("larger contrastive batches are better: 4,096 over 256, one block", "macro-F1 of 15 neighbors", larger, pca, _judged(larger)),
        (f"the same of a bag: 16,384 over 256, {rates}", "macro-F1 of 15 neighbors", larger_bag, pca, _judged(larger_bag)),
        ("cancer cells in the corpus help on tumors and cancer lines", "macro-F1 of 15 neighbors, two sets", cancer, f"PCA {m('PCA', 'macro_f1', CANCER_SETS):.3f}", _judged(cancer)),
        ("and do no harm elsewhere (all sets)", "macro-F1 of 15 neighbors", normal, pca, _judged(normal)),
        ("annotates better than masked genes alone, 5 labels a type", "macro-F1, logistic regression on it", few, f"genes {m('genes', 'few_labels'):.3f}", _judged(few)),
        ("the same with four fifths of the labels", "macro-F1, logistic regression on it", many, f"genes {m('genes', 'many_labels'):.3f}", _judged(many)),
        ("annotates better than logistic regression on genes, 5 labels", "macro-F1, difference from genes", few_genes, f"genes {m('genes', 'few_labels'):.3f}", _judged(few_genes)),
        ("the same with four fifths of the labels", "macro-F1, difference from genes", many_genes, f"genes {m('genes', 'many_labels'):.3f}", _judged(many_genes)),
    ]  # fmt: skip
    return pd.DataFrame(
        [
            (claim, what, _said(found), str(found[3]) if found else "0", beside, word)
            for claim, what, found, beside, word in rows
        ],
        columns=["claim", "measured as", "difference (95 %)", "seeds", "beside", "verdict"],
    )


def _best_bag(scores: Scores, batch: int) -> str:
    """The rate of a batch size with the best mean, among those finished with a seed; "" if there is none."""
    arms = [f"bag-{batch}-{rate:g}" for rate in _rates(scores, batch)]
    return max(arms, key=lambda arm: scores.mean(arm, "macro_f1"), default="")


def _rates(scores: Scores, batch: int) -> list[float]:
    return [rate for rate in RATES if scores.seeds(f"bag-{batch}-{rate:g}")]


def bags(scores: Scores) -> pd.DataFrame:
    """Macro-F1 of bags by batch and rate; empty if none is finished."""
    rows = [
        {
            "batch": f"{batch:,}",
            **{
                f"rate {rate:g}": (
                    f"{scores.mean(f'bag-{batch}-{rate:g}', 'macro_f1'):.3f}"
                    if rate in _rates(scores, batch)
                    else "not run"
                )
                for rate in RATES
            },
        }
        for batch in BATCHES
        if _rates(scores, batch)
    ]
    return pd.DataFrame(rows)


def length(scores: Scores) -> str:
    """What training did to the start."""
    start, three = scores.mean("start-blocks-0", "macro_f1"), scores.mean("three", "macro_f1")
    said = (
        "At this length training takes away more than it gives, so what the arms say of each other is of models that are not good yet."
        if three < start
        else "Training gains over its start."
    )
    first = scores.mean("start-bag-0", "macro_f1") if "start-bag-0" in scores.runs else np.nan
    best = [arm for b in BATCHES if (arm := _best_bag(scores, b))]
    if best and np.isfinite(first):
        arm = max(best, key=lambda name: scores.mean(name, "macro_f1"))
        said += f" The bag has {first:.3f} before its first step and {scores.mean(arm, 'macro_f1'):.3f} after five passes with the best batch and rate."
    return said


def arms(scores: Scores) -> pd.DataFrame:
    """Every arm, with its means."""
    starts = [name for name in ("start-blocks-0", "start-bag-0") if name in scores.runs]
    names = ["PCA", "genes", *starts, *dict.fromkeys(name.rsplit("-", 1)[0] for name in RUNS)]
    rows = []
    for arm in names:
        n = 1 if arm in scores.runs else len(scores.seeds(arm))
        if n:
            values = {
                what: scores.mean(arm, what)
                for what in ("macro_f1", "anisotropy", "uniformity", "few_labels", "many_labels")
            }
            rows.append({"arm": arm, "seeds": str(n), **values})
    return pd.DataFrame(rows)


def memory() -> str:
    """What the benchmark of the divide-and-conquer step says."""
    facts = json.loads((DOCS / "divide_and_conquer.json").read_text(encoding="utf-8"))["facts"]
    found = {row["target"]: row["measured"] for row in facts["targets"]}
    freed = next(x for name, x in found.items() if "freed memory" in name)
    plain = next(x for name, x in found.items() if "256 MiB)" in name)
    exact = next(x for name, x in found.items() if "single precision" in name)
    return (
        f"**The batch is decoupled from memory**: holds, see {{doc}}`divide_and_conquer`. From 1,024 to 65,536 cells the peak grows by "
        f"{freed} where freed memory is given back, and by {plain} with the system's allocator; gradients differ from those of one "
        f"graph by at most {exact}."
    )


def figure(scores: Scores, runs: Path) -> None:
    """Anisotropy in training, and macro-F1 by arm."""
    import matplotlib.pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for arm, color in (("masked", "#c44e52"), ("contrastive", "#55a868"), ("three", "#4c72b0")):
        for seed in scores.seeds(arm):
            log = pd.read_csv(runs / f"{arm}-{seed}" / "history.csv")
            left.plot(
                log["step"],
                log["anisotropy"],
                color=color,
                label=arm if seed == scores.seeds(arm)[0] else None,
            )
    left.set(xlabel="step of 1,024 cells", ylabel="anisotropy of a batch", ylim=(0, 1))
    left.legend(frameon=False)
    names = [
        a
        for a in ("masked", "contrastive", "three", "no-cancer", "batch-256", "batch-4096")
        if scores.seeds(a)
    ]
    for i, arm in enumerate(names):
        values = np.mean([scores.of(f"{arm}-{s}", "macro_f1") for s in scores.seeds(arm)], axis=0)
        right.plot(np.full(len(values), i), values, "o", color="0.7", ms=4)
        right.plot(i, values.mean(), "_", color="black", ms=22, mew=2)
    for name, style in (("PCA", "--"), ("start-blocks-0", ":")):
        label = "PCA of each set" if name == "PCA" else "before training"
        right.axhline(scores.mean(name, "macro_f1"), ls=style, color="0.3", lw=1, label=label)
    right.set_xticks(range(len(names)), names, rotation=20)
    right.set(ylabel="macro-F1, 15 neighbors", xlabel="dots: datasets; bars: means")
    right.legend(frameon=False, loc="lower right")
    drawn.savefig(DOCS / "paper.png", dpi=150)
    plt.close(drawn)


def write_page(data: Path, runs: Path) -> Path:
    """Score what is finished and write the page."""
    done = [name for name in RUNS if finished(runs / name)]
    scores = Scores(all_scores(data, runs, done))
    table = claims(scores)
    figure(scores, runs)
    by_rate = bags(scores)
    told = table["verdict"].value_counts()
    text = "\n\n".join(
        [
            "The abstract of CellLM {cite:p}`Zhao2023`, sentence by sentence, at a scale that one core reaches: one block of 128 "
            "reading 96 genes a view, one pass over 73,000 cells, the published objectives, no label of a cell type; eight datasets "
            f"that the models did not see. **Of {len(table)} comparisons, {_so_many(told.get('holds', 0), 'holds', 'hold')}, {_so_many(told.get('does not hold', 0), 'does not', 'do not')}, and "
            f"{told.get('cannot be told', 0)} cannot be told{_missing(table)}.** The paper trained 50 million "
            "parameters on 2 million cells; what is so here need not be so there.",
            "Where the table has one seed, an interval is over datasets alone and says nothing of the spread between trainings. The gene embeddings start from loadings of principal components: before any step macro-F1 of 15 neighbors is "
            f"{scores.mean('start-blocks-0', 'macro_f1'):.3f}, after one pass with three objectives {scores.mean('three', 'macro_f1'):.3f}, with "
            f"masked genes alone {scores.mean('masked', 'macro_f1'):.3f}, and PCA of each dataset has {scores.mean('PCA', 'macro_f1'):.3f}. "
            + length(scores),
            f"**Anisotropy**: contrast lowers it from {scores.mean('masked', 'anisotropy'):.3f} to {scores.mean('three', 'anisotropy'):.3f}"
            + (" and does not cure it: " if scores.mean("three", "anisotropy") > 0.5 else "; ")
            + f"before training it is {scores.mean('start-blocks-0', 'anisotropy'):.3f}, that of PCA {scores.mean('PCA', 'anisotropy'):.3f}.",
            "![Anisotropy in training, and macro-F1 by arm](paper.png)",
            memory(),
            "**Few labels and drugs**: see {doc}`drug_response`. What `tl.few_shot` gains there comes from genes and unlabeled cells; the "
            "encoder adds nothing. Response of cell lines that were not seen is predicted worse from the embedding of `scellm-transformer` than from genes, and not "
            "better from both.",
            "Intervals are over datasets and seeds; one of two datasets is hardly more than their range. *masked*, *contrastive*, *three*: the objectives; *no-cancer*: contrast and masked "
            "genes on a corpus without cancer cells and cell lines; *batch*: three objectives with other batches over as many cells; "
            "*bag*: contrast alone, no block, five passes, batch and learning rate (the best of each batch is chosen on the same datasets). *few* and *many labels*: logistic regression on the "
            "frozen embedding, which is not the fine-tuning of the paper.",
        ]
    )
    return write(
        "paper",
        "The paper, claim by claim",
        text,
        {"Claims": table, "All arms": arms(scores)}
        | ({"Bags by batch and rate, macro-F1": by_rate} if len(by_rate) else {}),
        {"runs": done},
    )
