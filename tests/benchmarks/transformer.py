"""The transformer beside the bag it started from: python tests/benchmarks/transformer.py DATA --bag MODEL --blocks MODEL ...

`--blocks` are models of `scellm pretrain transformer CORPUS -o RUN`, or of recipes changed from it, and `--bag` that of its first
stage alone; `training_corpus.py` packs the corpus without the datasets of `validation.py`. Scores are those of `validation.py`, on all labeled cells; the log is each model's `history`. Writes
`docs/benchmarks/transformer.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from pathlib import Path

import pandas as pd
from _report import write
from validation import SETS, pca, read

import scellm
from scellm.metrics import neighbor_score
from scellm.models import CellLM

LOGGED = ["step", "contrastive", "supervised", "masked_gene", "anisotropy", "uniformity", "cells_per_second"]


def scores(models: dict[str, CellLM], data: Path) -> pd.DataFrame:
    """Macro-F1 from 15 nearest neighbors, a row for each dataset and their mean."""
    rows = []
    for name in SETS:
        adata = read(data, name)
        types = adata.obs["cell_type"]
        row = {"dataset": name, "PCA": neighbor_score(pca(adata), types).macro_f1}
        for key, model in models.items():
            scellm.tl.embed(adata, model, min_overlap=0.05, show_progress=False)
            row[key] = neighbor_score(adata.obsm["X_scellm"], types).macro_f1
        rows.append(row)
    table = pd.DataFrame(rows)
    return pd.concat([table, pd.DataFrame([{"dataset": "mean", **table.iloc[:, 1:].mean()}])])


def log_of(path: Path) -> pd.DataFrame:
    """Six lines of a training log, from the first to the last."""
    log = pd.read_csv(path)
    at = sorted({round(i * (len(log) - 1) / 5) for i in range(6)})
    return log.iloc[at][[name for name in LOGGED if name in log]].round(3)


def main() -> None:
    """Score and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--blocks", type=Path, nargs="+", required=True)
    parser.add_argument("--logs", type=Path, nargs="+", required=True, help="log.csv of each --blocks")
    options = parser.parse_args()
    bag = scellm.models.load(options.bag)
    few = dataclasses.replace(bag, tokens=dataclasses.replace(bag.tokens, max_genes=1024), sha256="")
    models = {"bag": bag, "bag, 1,024 genes": few}
    models |= {path.name: scellm.models.load(path) for path in options.blocks}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = scores(models, options.data)
    tables = {"Macro-F1": table}
    tables |= {
        f"Log of {path.name}": log_of(log) for path, log in zip(options.blocks, options.logs, strict=True)
    }
    mean = table.iloc[-1]
    best = max(options.blocks, key=lambda path: mean[path.name])
    word = (
        "Better here"
        if mean[best.name] > max(mean["bag"], mean["bag, 1,024 genes"])
        else "Not at this length"
    )
    text = (
        "Does a block of attention, trained with the three published objectives and labels on top of a bag, tell cell types of "
        f"datasets it has not seen apart better than the bag? **{word}**: the best has a mean of {mean[best.name]:.4f}, "
        f"the bag {mean['bag, 1,024 genes']:.4f} reading 1,024 genes and {mean['bag']:.4f} reading all; PCA fitted to each "
        f"dataset has {mean['PCA']:.4f}. One seed each. The logs show whether the models were trained and stayed clear of "
        "collapse. None of these weights ship.\n\n"
        "`blocks` is the recipe `transformer` (one block, batches of 512, 180 steps); `blocks_frozen` keeps the gene embeddings "
        '(`freeze = ["gene_embedding", "expression"]`) at a learning rate of 5e-4 for 90 steps. Batches of 4,096, other '
        "objectives, depths and views, and more seeds were not tried."
    )
    print(write("transformer", "The transformer beside its bag", text, tables, {"recipe": "transformer"}))


if __name__ == "__main__":
    main()
