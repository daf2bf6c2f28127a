"""Write the measured numbers and the sources of a shipped model into its card.

    python tests/benchmarks/model_card.py

Run after `embedding.py` and `speed.py`, whose numbers it takes; the weights do not change.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
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

scellm.tl.embed(adata)  # adata.obsm["X_scellm"]
```

## What it is

An encoder over a cell's expressed protein-coding genes, {blocks}, size {dim}, {n_genes:,} genes (HGNC),
{n_parameters:,} parameters, of which the gene embeddings are the most. Tokens are the gene embedding scaled by
expression; the cell embedding is the mean over genes, brought to unit variance. Of cells with more than {max_genes:,}
expressed genes the most expressed are read.

It is a small model: trained on {n_real:,} cells and {n_drawn:,} drawn around mean profiles of cell types, in about
{minutes:.0f} minutes on two CPU cores, where the published CellLM saw two million cells.

## Numbers

Macro-F1 of cell type from the 15 nearest neighbours (cosine, five-fold; types with at least 10 cells), zero-shot.
PCA is fitted on the set itself; random weights are the same architecture untrained. The three blood sets are from
the same study (Zheng et al. 2017), of which other cells are in the training data.

{numbers}

{verdict}

{speed}

## Recipe

`python tests/benchmarks/training_corpus.py` packs the cells, `scellm pretrain small corpus.h5 -o run` trains on them.
{stages} Two views of a cell differ by thinned counts and dropped genes. Every number is in `config.json`.

![Losses](../../../../docs/benchmarks/training-scellm-small.png)

## Limits

- Tissues in the training data: {tissues}. Of others it knows only what their genes do in these.
- {cancer:,} cancer cells, most of them cell lines; it was not trained to tell cancer from normal.
- Part of the training data is mouse, read through one-to-one orthologs.
- No batch correction: cells of two protocols may lie apart.
- Not for diagnosis or any clinical use.

## Training data

{sources}

Weights are ours (BSD-3-Clause); the cells are not part of them and keep the licences above.
"""


def numbers(page: dict) -> str:
    """The benchmark's table without its spread."""
    table = pd.DataFrame(page["tables"]["Macro-F1"])[
        ["set", "cells", "types", "scellm", "PCA", "random weights"]
    ]
    return table.to_markdown(index=False, floatfmt=".3f")


def speed(path: Path) -> str:
    """One sentence about cells per second."""
    if not path.exists():
        return ""
    page = json.loads(path.read_text())
    rows = {(row["run"], row["genes"]): row["cells/s"] for row in page["tables"]["Cells per second"]}
    return f"Speed on {page['machine']['cpu']}: {rows['scellm-small', 1000]:.0f} cells a second at 1,000 expressed genes."


def sources(datasets: dict[str, dict]) -> str:
    """One row per dataset."""
    rows = [
        {
            "dataset": name,
            "cells": facts["cells"],
            "cancer / normal": f"{facts.get('cancer', '?')} / {facts.get('normal', '?')}",
            "tissue": facts.get("tissue", "?")[:60],
            "organism": facts.get("organism", "human"),
            "from": facts.get("paper", "?"),
            "carrier (licence as stated there)": f"{facts.get('provenance', '?')} ({facts.get('licence', '?')})",
        }
        for name, facts in datasets.items()
    ]
    return (
        pd.DataFrame(rows).map(lambda x: str(x).replace("|", "/").replace("\n", " ")).to_markdown(index=False)
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
    drawn = sum(facts["cells"] for name, facts in about["datasets"].items() if name.startswith("drawn_"))
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
        n_genes=len(model.vocabulary),
        n_parameters=model.n_parameters,
        max_genes=model.tokens.max_genes,
        n_real=about["n_cells"] - drawn,
        n_drawn=drawn,
        minutes=about["minutes"],
        numbers=numbers(page),
        verdict=page["facts"]["verdict"],
        speed=speed(DOCS / "speed.json"),
        stages=" ".join(stage_text(name, stage) for name, stage in about["stages"].items()),
        tissues=", ".join(sorted(tissues - {""})),
        cancer=sum(int(facts.get("cancer", 0)) for facts in about["datasets"].values()),
        sources=sources(about["datasets"]),
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
