"""Write the measured numbers and the sources of a shipped model and of its reference into its card.

    python tests/benchmarks/model_card.py

Run after `embedding.py`, `ablation.py` and `reference.py`, whose numbers it takes; the weights do not change.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from _ablation_page import collect, noise, verdict
from _report import DOCS

import scellm

WEIGHTS = Path(scellm.__file__).parent / "models" / "weights"
CARD = """\
---
library_name: scellm
license: bsd-3-clause
tags: [single-cell, transcriptomics, embedding]
---

# {name}

{description}

```python
import scellm

scellm.tl.annotate(adata)  # cell types and confidence in adata.obs, the embedding in adata.obsm["X_scellm"]
scellm.tl.malignancy(adata, sample_key="patient")  # malignant cells of tumors, in adata.obs
scellm.tl.embed(adata)  # the embedding alone
```

## What it is

An encoder over a cell's expressed protein-coding genes, {blocks}, size {dim}, {n_genes:,} genes (HGNC),
{n_parameters:,} parameters, of which the gene embeddings are the most. Tokens are the gene embedding scaled by
{amount}; the cell embedding is {pooling}, brought to unit variance. Of cells with more than {max_genes:,}
expressed genes the most expressed are read.

It is a small model: trained on {n_real:,} cells and {n_drawn:,} drawn around mean profiles of cell types, in about
{minutes:.0f} minutes on two CPU cores, where the published CellLM saw two million cells.

## Numbers

Macro-F1 of cell type from the 15 nearest neighbors (cosine, five-fold; types with at least 10 cells), zero-shot.
PCA is fitted on the set itself; random weights are the same architecture untrained. The three blood sets are from
the same study (Zheng et al. 2017), of which other cells are in the training data.

{numbers}

{verdict}

{structure}

{speed}

### Beside the targets

{targets}

### Spread over training seeds

{spread}

## Recipe

`python tests/benchmarks/training_corpus.py DATA corpus.h5 --leave-out` packs the cells, `scellm pretrain small corpus.h5 -o run`
trains on them.
{stages} Two views of a cell differ by thinned counts and dropped genes. Every number is in `config.json`.

![Losses](../../../../docs/benchmarks/training-scellm-small.png)

### What was compared for it

{ablation}

## Limits

- Tissues in the training data: {tissues}. Of others it knows only what their genes do in these.
- {cancer:,} cancer cells, most of them cell lines. The encoder was not trained to tell cancer from normal; what `tl.malignancy`
  makes of its embeddings is in `docs/benchmarks/malignancy.md`.
- {mouse:.0%} of the training cells are mouse, read through one-to-one orthologs.
{weak}
- No batch correction: cells of two protocols may lie apart. How batches mix, and types across batches, is in
  `docs/benchmarks/batches.md`.
- Not for diagnosis or any clinical use.

## Training data

{sources}

## The reference of cell types

`scellm.tl.annotate(adata)` answers from {n_types} types on a tree, fitted to the embeddings of {n_reference:,} labeled cells, measured ones
and ones drawn around mean profiles; 3,500 embeddings at most and marks of the measured cells are stored with the weights. How
well types of studies left out are recognized is in `docs/benchmarks/reference.md`. Cells are from:

{reference}

Weights are ours (BSD-3-Clause); the cells are not part of them and keep the licences above.
"""


def numbers(page: dict) -> str:
    """The benchmark's table without its spread."""
    table = pd.DataFrame(page["tables"]["Macro-F1"])[
        ["set", "cells", "types", "scellm", "PCA", "random weights"]
    ]
    return table.to_markdown(index=False, floatfmt=".3f")


def structure(page: dict) -> str:
    """Means of silhouette, NMI and ARI beside PCA, if they were measured."""
    parts = []
    for name in ("Silhouette", "NMI", "ARI"):
        table = page["tables"].get(f"{name} of cell types")
        if table:
            mean = next(row for row in table if row["set"] == "mean")
            parts.append(f"{name} {mean['scellm']:.3f} (PCA {mean['PCA']:.3f})")
    if not parts:
        return ""
    return f"Means of all sets, cell types as they are labeled against Leiden clusters: {', '.join(parts)}."


def targets(page: dict) -> str:
    """What was aimed at, and what came out."""
    columns = ["what", "at least", "scellm", "verdict"]
    return pd.DataFrame(page["tables"]["Targets"])[columns].to_markdown(index=False, disable_numparse=True)


def spread(page: dict, ablation: dict) -> str:
    """What is known of the spread between training runs."""
    found = "This recipe was trained once at full length."
    if "Other training seeds" in page["tables"]:
        mean = next(row for row in page["tables"]["Other training seeds"] if row["set"] == "mean")
        n_seeds = 1 + len(page["facts"]["seeds"])
        found = (
            f"{n_seeds} trainings with different seeds: mean macro-F1 {mean['mean']:.3f}, standard deviation {mean['sd']:.3f}; the shipped "
            f"one has {mean['shipped']:.3f}."
        )
    table = collect(ablation["runs"])
    return (
        f"{found} Between seeds of starts and of trainings of {ablation['seconds']:g} s the standard deviation is {noise(table):.4f}, on the mean of "
        "eight validation sets."
    )


def compared(ablation: dict) -> str:
    """The verdict of the ablation."""
    return (
        f"One thing was changed at a time, in starts and in trainings of {ablation['seconds']:g} s of one thread each, scored on eight "
        "labeled sets of the corpus that these did not see (the shipped weights are then trained on them as well); the benchmark sets "
        "above took no part. Differences in macro-F1, wins and losses (tables in "
        f"`docs/benchmarks/ablation.md`):\n\n{verdict(collect(ablation['runs']))}"
    )


def weak(page: dict) -> str:
    """The sets on which PCA is better, as a limit."""
    rows = [row for row in page["tables"]["Macro-F1"] if row["set"] != "mean" and row["scellm"] <= row["PCA"]]
    if not rows:
        return "- On none of the benchmark sets was PCA fitted on the set better; on a set of your own it may be."
    worst = sorted(rows, key=lambda row: row["scellm"] - row["PCA"])
    items = ", ".join(f"{row['set']} ({row['scellm'] - row['PCA']:+.3f})" for row in worst)
    return f"- PCA fitted on the set itself is better on {items}. For one data set on its own, compare both."


def speed(page: dict) -> str:
    """One sentence about cells per second."""
    own = page["facts"]["speed"]["scellm"]
    return (
        f"Speed on {page['machine']['cpu']}: {own['cells_per_second']:,.0f} cells a second of processor time, one thread, from counts in "
        f"memory to embeddings (10,000 cells, median {own['median_genes']:.0f} expressed genes), {own['peak_mib']:.0f} MiB above the start."
    )


def organism(name: str, facts: dict) -> str:
    """Of the cells of a dataset; those drawn around mean profiles have it in their name."""
    is_mouse = any(word in name.lower() for word in ("mouse", "tabula_muris"))
    return facts.get("organism", "mouse (orthologs)" if is_mouse else "human")


def sources(datasets: dict[str, dict]) -> str:
    """One row per dataset."""
    rows = [
        {
            "dataset": name,
            "cells": facts["cells"],
            "cancer / normal": f"{facts.get('cancer', '?')} / {facts.get('normal', '?')}",
            "tissue": facts.get("tissue", "?")[:60],
            "organism": organism(name, facts),
            "from": facts.get("paper", "?"),
            "carrier (licence as stated there)": f"{facts.get('provenance', '?')} ({facts.get('licence', '?')})",
        }
        for name, facts in datasets.items()
    ]
    return lean(rows)


def lean(rows: list[dict]) -> str:
    """A Markdown table without blanks that only a reader of the source would see."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(
        "| " + " | ".join(" ".join(str(x).replace("|", "/").split()) for x in line) + " |" for line in lines
    )


def stage_text(name: str, stage: dict) -> str:
    """One sentence about a stage."""
    recipe = stage["recipe"]
    objectives = " and ".join(f"{key} (weight {weight:g})" for key, weight in recipe["objectives"].items())
    datasets = recipe["datasets_per_batch"]
    cells = f"{recipe['batch_size']} cells a batch" + (f" of {datasets} dataset" if datasets else "")
    return (
        f"Stage *{name}*, from {stage['started_from']}: {stage['steps']:,} steps of {cells}, {objectives}, negatives "
        f"within {'the dataset' if recipe['negatives'] == 'dataset' else 'all cells'}, temperature {recipe['temperature']:g}."
    )


def main() -> None:
    """Put the card into the model folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=WEIGHTS / "scellm-small")
    folder = parser.parse_args().model
    model = scellm.models.load(folder)
    about, page = model.provenance, json.loads((DOCS / "embedding.json").read_text())
    if page["facts"]["sha256"] != model.sha256:
        msg = "docs/benchmarks/embedding.json was measured with other weights; run tests/benchmarks/embedding.py."
        raise SystemExit(msg)
    ablation = json.loads((DOCS / "ablation.json").read_text())
    reference = json.loads((DOCS / "reference.json").read_text())
    if reference["facts"]["sha256"] != model.sha256:
        msg = "docs/benchmarks/reference.json is of other weights; run tests/benchmarks/reference.py --page."
        raise SystemExit(msg)
    drawn = sum(facts["cells"] for name, facts in about["datasets"].items() if name.startswith("drawn_"))
    mouse = sum(
        facts["cells"] for name, facts in about["datasets"].items() if "mouse" in organism(name, facts)
    )
    tissues = {t.strip() for facts in about["datasets"].values() for t in facts.get("tissue", "").split(",")}
    model.card = CARD.format(
        name=model.name,
        description=about["description"],
        blocks=(
            f"{model.config.depth} transformer blocks of {model.config.attention} attention"
            if model.config.depth
            else "a bag of genes without attention blocks"
        ),
        dim=model.config.dim,
        amount={"sqrt": "the square root of normalized counts", "log1p": "log1p of normalized counts"}[
            model.config.amount
        ],
        pooling={
            "unit": "their sum, amounts of each cell scaled to a vector of length 1",
            "mean": "the mean over genes",
            "cls": "that of a position of its own",
        }[model.config.cell_embedding],
        n_genes=len(model.vocabulary),
        n_parameters=model.n_parameters,
        max_genes=model.tokens.max_genes,
        n_real=about["n_cells"] - drawn,
        n_drawn=drawn,
        mouse=mouse / about["n_cells"],
        minutes=about["minutes"],
        numbers=numbers(page),
        verdict=page["facts"]["verdict"],
        structure=structure(page),
        targets=targets(page),
        spread=spread(page, ablation),
        ablation=compared(ablation),
        weak=weak(page),
        speed=speed(page),
        stages=" ".join(stage_text(name, stage) for name, stage in about["stages"].items()),
        tissues=", ".join(sorted(tissues - {""})),
        cancer=sum(int(facts.get("cancer", 0)) for facts in about["datasets"].values()),
        sources=sources(about["datasets"]),
        n_types=len(model.parts["reference"].meta["classes"]),
        n_reference=reference["facts"]["report"]["n_cells"],
        reference=lean(reference["tables"]["Sources"]),
    )
    logs = {stage: DOCS / f"training-{model.name}-{stage}.csv" for stage in about["stages"]}
    axes = scellm.pl.training_history(logs, show=False)
    axes.figure.savefig(DOCS / f"training-{model.name}.png", dpi=130)
    scellm.models.save(model, folder, overwrite=True, dtype=torch.float16)
    if scellm.models.load(folder).sha256 != model.sha256:
        msg = "The weights changed when they were saved again."
        raise SystemExit(msg)
    print(f"Wrote the card of {folder}")


if __name__ == "__main__":
    main()
