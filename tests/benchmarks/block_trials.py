"""Which options of a block of attention tell cell types apart better than the bag it is put on, at a short budget.

    python tests/benchmarks/block_trials.py DATA CORPUS RUNS [--only NAME ...]
    python tests/benchmarks/block_trials.py DATA CORPUS RUNS --bags N    # only the bags of so many seeds
    python tests/benchmarks/block_trials.py DATA CORPUS RUNS --page

Trains what `TRIALS` lists on the bag of the recipe `transformer` (once for each seed), each on as many cells, into the folder RUNS; what
is there is not trained again (*recipe* may be a run of `scellm pretrain transformer`: its model as `model`, its log as `history.csv`). CORPUS is the file of `training_corpus.py` without the datasets of `validation.py`. Models are compared
on those datasets and on labeled ones of `corpus_more`; no model has seen the cells. One process needs one core; start two with different
`--only` on two. `--page` writes `docs/benchmarks/block_trials.md`; scores of runs that are no longer at hand stay in its JSON file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
import validation
from _paper_page import interval
from _paper_runs import finished
from _report import DOCS, write
from adapt import embed

import scellm
from scellm.data import Corpus
from scellm.metrics import neighbor_score
from scellm.models import CellLM
from scellm.train._recipe_file import read_recipe

NAME = "block_trials"
SEEDS = (0, 1)
CELLS = 25_600
"""Cells of every trial: 50 steps of 512."""
BASE: dict[str, Any] = {
    "objectives": {"contrastive": 1.0, "supervised": 0.7, "masked_gene": 0.3, "normal_cancer": 0.1},
    "batch_size": 512,
    "datasets_per_batch": 4,
    "learning_rate": 4e-4,
    "warmup": 0.1,
    "freeze": ("gene_embedding", "expression"),
    "views": {"max_genes": 256},
    "log_every": 1,
}
"""The second stage of the recipe `transformer` in batches of 512."""
PUBLISHED = {"contrastive": 1.0, "masked_gene": 0.3, "normal_cancer": 0.1}
TRIALS: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("as the recipe, batches of 512", {}),
    "supervised": ("labels alone", {"objectives": {"supervised": 1.0}}),
    "contrastive": ("contrast alone", {"objectives": {"contrastive": 1.0}}),
    "one-dataset": ("batches of one dataset", {"datasets_per_batch": 1}),
    "rate-3": ("three times the rate", {"learning_rate": 1.2e-3}),
    "published": ("the published objectives, no labels", {"objectives": PUBLISHED}),
    "favor": ("FAVOR+ attention", {"architecture": {"attention": "favor"}}),
    "two-blocks": ("two blocks", {"architecture": {"depth": 2}}),
    "genes-trained": ("gene embeddings trained along", {"freeze": ()}),
    "batch-2048": ("batches of 2,048", {"batch_size": 2048}),
    "masked": ("masked genes alone", {"objectives": {"masked_gene": 1.0}}),
    "all-negatives": ("negatives of all datasets", {"negatives": "all"}),
    "genes-512": ("512 genes a view", {"views": {"max_genes": 512}}),
    "rate-10": ("ten times the rate", {"learning_rate": 4e-3}),
    "four-blocks": ("four blocks", {"architecture": {"depth": 4}}),
    "recipe": ("the recipe itself, 163,840 cells", {"batch_size": 4096, "max_steps": 40}),
}
"""What differs from `BASE`: in words, and as options of `tl.pretrain`; those that answer most first."""
MORE = (
    "braun_fetal_cortex",
    "dengue_pbmc_zanini",
    "fetal_testis_germ_li",
    "melanoma_tils_sade",
    "mouse_marrow_stroma",
    "mouse_tm_droplet_immune",
    "pancreas_panc8_3tech_mini",
    "pbmc_symphony_3tech",
    "yan_embryo",
)
"""Labeled sets of `corpus_more` with at least five types, set aside before anything was measured on them."""
PANELS = 0.04
"""Share of the vocabulary that a set has at least."""
ENOUGH = 0.010
"""Gain over the bag that was asked of the shipped model."""
NAMES = [f"{trial}-{seed}" for seed in SEEDS for trial in TRIALS]


def bag(corpus: Corpus, runs: Path, seed: int) -> CellLM:
    """The first stage of the recipe, from its folder if it is there."""
    recipe = read_recipe("transformer")
    stage, folder = recipe.stages[0], runs / f"bag-{seed}"
    if not (folder / "model").is_dir():
        fields = {field.name: getattr(stage.recipe, field.name) for field in dataclasses.fields(stage.recipe)}
        del fields["seed"]
        model = scellm.tl.pretrain(
            corpus,
            config=recipe.architecture(stage, len(corpus.vocabulary)),
            gene_init=stage.gene_init,
            max_genes=recipe.max_genes,
            checkpoint_dir=folder / "checkpoints",
            show_progress=False,
            name=folder.name,
            rng=seed,
            **fields,
        )
        scellm.models.save(model, folder / "model", overwrite=True)
    return scellm.models.load(folder / "model")


def train(run: str, corpus: Corpus, runs: Path) -> None:
    """Train one trial; on from its checkpoint, if there is one."""
    trial, seed = run.rsplit("-", 1)
    options = BASE | TRIALS[trial][1]
    start, n_steps = bag(corpus, runs, int(seed)), options.pop("max_steps", CELLS // options["batch_size"])
    model = scellm.tl.pretrain(
        corpus,
        config=dataclasses.replace(start.config, **{"depth": 1} | options.pop("architecture", {})),
        init=start,
        max_steps=n_steps,
        max_genes=start.tokens.max_genes,
        rng=int(seed),
        checkpoint_dir=runs / run / "checkpoints",
        show_progress=False,
        name=run,
        **options,
    )
    model.history.to_csv(runs / run / "history.csv", index=False)
    scellm.models.save(model, runs / run / "model", overwrite=True)


def sets(data: Path) -> dict[str, ad.AnnData]:
    """The labeled cells of all sets."""
    return {name: validation.read(data, name) for name in (*validation.SETS, *MORE)}


def scores(model: CellLM | None, cells: dict[str, ad.AnnData]) -> dict[str, float]:
    """Macro-F1 of 15 neighbors by dataset; `None` is PCA fitted to each."""
    return {
        name: neighbor_score(
            validation.pca(adata) if model is None else embed(adata, model, PANELS), adata.obs["cell_type"]
        ).macro_f1
        for name, adata in cells.items()
    }


def all_scores(data: Path, runs: Path) -> dict[str, dict[str, Any]]:
    """By run, what was measured; what is known is not measured again."""
    stored = DOCS / f"{NAME}.json"
    known = json.loads(stored.read_text())["facts"]["runs"] if stored.exists() else {}
    wanted = [f"bag-{seed}" for seed in SEEDS] + [run for run in NAMES if finished(runs / run)]
    wanted = [run for run in wanted if run not in known and (runs / run / "model").is_dir()]
    if not wanted and "PCA" in known:
        return known
    cells = sets(data)
    if "PCA" not in known:
        known["PCA"] = {"macro_f1": scores(None, cells)}
    for run in wanted:
        known[run] = {"macro_f1": scores(scellm.models.load(runs / run / "model"), cells)}
        if finished(runs / run):
            known[run] |= course(pd.read_csv(runs / run / "history.csv"))
        print(run, f"{np.mean(list(known[run]['macro_f1'].values())):.4f}", flush=True)
    return known


def course(log: pd.DataFrame) -> dict[str, Any]:
    """What the losses did: means of the first and of the last tenth."""
    tenth = max(1, len(log) // 10)
    losses = [name for name in ("contrastive", "supervised", "masked_gene") if name in log]
    return {
        "losses": {name: [float(log[name][:tenth].mean()), float(log[name][-tenth:].mean())] for name in losses},
        "anisotropy": float(log["anisotropy"].max()),
        "seconds": float(log["seconds"].iloc[-1]) if "seconds" in log else float("nan"),
    }  # fmt: skip


def table_of(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """A row for each trial: its difference from the bag of the same seed."""
    rows = []
    for trial, (words, _) in TRIALS.items():
        seeds = [seed for seed in SEEDS if f"{trial}-{seed}" in found]
        if not seeds:
            continue
        columns = []
        for seed in seeds:
            ours, start = (found[run]["macro_f1"] for run in (f"{trial}-{seed}", f"bag-{seed}"))
            columns.append([ours[name] - start[name] for name in ours])
        differences = np.array(columns).T
        gain, low, high = interval(differences)
        runs = [found[f"{trial}-{seed}"] for seed in seeds]
        falls = {name: np.mean([run["losses"][name] for run in runs], 0) for name in runs[0]["losses"]}
        rows.append(
            {
                "trial": trial,
                "what": words,
                "seeds": str(len(seeds)),
                "gain": gain,
                "low": low,
                "high": high,
                "left-out sets": float(differences[: len(validation.SETS)].mean()),
                "other sets": float(differences[len(validation.SETS) :].mean()),
                "worst": float(differences.mean(1).min()),
                "losses": ", ".join(f"{name.replace('_', ' ')} {a:.2f} to {b:.2f}" for name, (a, b) in falls.items()),
                "highest anisotropy": max(run["anisotropy"] for run in runs),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def by_set(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Macro-F1 by set: PCA and the bag, mean over seeds, and what each trial differs from the bag of its seeds."""
    columns = {"PCA": pd.Series(found["PCA"]["macro_f1"])}
    bags = {seed: pd.Series(found[f"bag-{seed}"]["macro_f1"]) for seed in SEEDS if f"bag-{seed}" in found}
    columns["bag"] = sum(bags.values()) / len(bags)
    for trial in TRIALS:
        seeds = [seed for seed in bags if f"{trial}-{seed}" in found]
        if seeds:
            gains = [pd.Series(found[f"{trial}-{seed}"]["macro_f1"]) - bags[seed] for seed in seeds]
            columns[trial] = sum(gains) / len(gains)
    table = pd.DataFrame(columns)
    table.loc["mean"] = table.mean()
    return table.rename_axis("dataset").reset_index()


def text_of(found: dict[str, dict[str, Any]], table: pd.DataFrame) -> str:
    """What the trials say."""
    best = table.loc[table["gain"].idxmax()]
    worse = table.loc[table["high"] < 0, "trial"].tolist()
    better = table.loc[table["low"] > 0, "trial"].tolist()
    sets_of = by_set(found).set_index("dataset")
    means, of_others = sets_of.loc["mean"], sets_of.loc[list(MORE)].mean()
    n = len(found["PCA"]["macro_f1"])
    return "\n\n".join(
        [
            f"{len(table)} options of a block of attention were tried, each but *recipe* on {CELLS:,} cells and with "
            f"{'two seeds' if (table['seeds'] == '2').all() else 'one or two seeds'}, beside the bag of the same seed, on {n} labeled datasets whose cells no model has seen (of some of the studies the corpus has mean profiles of types): the "
            f"{len(validation.SETS)} of {{doc}}`transformer` and {len(MORE)} of another folder.",
            f"**{_said(better, 'Better than the bag')}; {_said(worse, 'worse')}.** {'Every interval ends below the target' if (table['high'] < ENOUGH).all() else 'Not every interval ends below the target'} of the shipped model, {ENOUGH:+.3f}. The highest is *{best['trial']}* ({best['what']}) with {best['gain']:+.4f} "
            f"({best['low']:+.4f} to {best['high']:+.4f}). An interval is over datasets and seeds and of one trial; the best of {len(table)} is above its true value.",
            f"The bag has {means['bag']:.4f} on these sets, PCA fitted to each {means['PCA']:.4f}; on those of the other folder alone {of_others['bag']:.4f} and {of_others['PCA']:.4f}.",
            "All losses are means of the first and of the last tenth of the steps: a trial whose losses do not fall says nothing of its option. No block collapsed "
            f"(highest anisotropy of a batch {table['highest anisotropy'].max():.2f}).",
            "A block starts at zero, so what is trained little stays near its bag; these lengths show which way an option leads, not where it ends. "
            "*recipe* has six times as many cells; more of it is on the page {doc}`transformer`.",
        ]
    )  # fmt: skip


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as the page has it."""
    shown = table[["trial", "what", "seeds"]].copy()
    shown["beside the bag (95 %)"] = [
        f"{row.gain:+.4f} ({row.low:+.4f} to {row.high:+.4f})" for row in table.itertuples()
    ]
    return pd.concat(
        [shown, table.drop(columns=[*shown.columns[:3], "gain", "low", "high", "losses"])], axis=1
    )


def _said(trials: list[str], words: str) -> str:
    return f"{words}: {', '.join(trials) if trials else 'none'}"


def main() -> None:
    """Train, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--bags", type=int, default=0, metavar="N")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        found = all_scores(options.data, options.runs)
        table = table_of(found)
        tables = {
            "Trials": shown(table),
            "Losses, means of the first and of the last tenth": table[["trial", "losses"]],
            "Macro-F1 by dataset: PCA, the bag, and what each trial differs from it": by_set(found),
        }
        print(write(NAME, "Options of a block of attention", text_of(found, table), tables, {"runs": found}))
        return
    corpus = Corpus.build([options.corpus], min_overlap=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(options.bags):
            bag(corpus, options.runs, seed)
        for run in [] if options.bags else options.only:
            if not finished(options.runs / run):
                train(run, corpus, options.runs)
                print(run, flush=True)


if __name__ == "__main__":
    main()
