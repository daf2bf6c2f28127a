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

An encoder over a cell's expressed protein-coding genes: {depth} transformer blocks of exact attention, hidden size
{dim}, {n_genes:,} genes (HGNC), {n_parameters:,} parameters, of which the gene embeddings are the most. Tokens are the
gene embedding scaled by expression; the cell embedding is the mean over genes. Of cells with more than {max_genes:,}
expressed genes the most expressed are read.

It is a first model: trained on {n_cells:,} cells in about {minutes:.0f} minutes on two CPU cores, where the
published CellLM saw two million cells. The contrastive loss is the plain one within a batch; the
divide-and-conquer step of the CellLM paper is not part of this recipe yet.

## Numbers

Macro-F1 of cell type from the 15 nearest neighbours (cosine, five-fold; types with at least 10 cells), zero-shot.
PCA is fitted on the set itself; random weights are the same architecture untrained. The three blood sets are from
the same study (Zheng et al. 2017), of which other cells are in the training data.

{numbers}

{verdict}

{speed}

## Recipe

`{command}`, about {minutes:.0f} minutes on two CPU cores: {bag_steps:,} steps of a bag of genes (the encoder without
blocks), contrastive loss within the dataset, {bag_batch} cells a batch; then, with the bag kept, {blocks_steps:,} steps of
the blocks with masked gene modelling (weight {mask_weight}, {mask_rate:.0%} of genes) and the contrastive loss,
{blocks_batch} cells a batch; the weights are the average of start and end of this second stage. Two views of a cell
differ by thinned counts and dropped genes. Temperature {temperature}. Every number is in `config.json`. {note}

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
    return f"Speed on {page['machine']['cpu']}: {rows['small, fp32', 1000]:.0f} cells a second at 1,000 expressed genes."


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
    bag, blocks = (about["stages"][name] for name in ("bag", "blocks"))
    tissues = {t.strip() for facts in about["datasets"].values() for t in facts.get("tissue", "").split(",")}
    model.card = CARD.format(
        name=model.name,
        description=about["description"],
        depth=model.config.depth,
        dim=model.config.dim,
        n_genes=len(model.vocabulary),
        n_parameters=model.n_parameters,
        max_genes=model.tokens.max_genes,
        n_cells=about["n_cells"],
        minutes=about["minutes"],
        numbers=numbers(page),
        verdict=page["facts"]["verdict"],
        speed=speed(DOCS / "speed.json"),
        command=about["command"],
        bag_steps=bag["n_steps"],
        bag_batch=bag["batch_size"],
        blocks_steps=blocks["n_steps"],
        blocks_batch=blocks["batch_size"],
        mask_weight=blocks["masked_gene_weight"],
        mask_rate=blocks["mask_rate"],
        temperature=blocks["temperature"],
        note=about.get("note", ""),
        tissues=", ".join(sorted(tissues - {""})),
        cancer=sum(int(facts.get("cancer", 0)) for facts in about["datasets"].values()),
        sources=sources(about["datasets"]),
    )
    logs = {stage: DOCS / f"training-{model.name}-{stage}.csv" for stage in ("bag", "blocks")}
    axes = scellm.pl.training_history(logs, show=False)
    axes.figure.savefig(DOCS / f"training-{model.name}.png", dpi=130)
    scellm.models.save(model, folder, overwrite=True, dtype=torch.float16)
    if scellm.models.load(folder).sha256 != model.sha256:
        msg = "The weights changed when they were saved again."
        raise SystemExit(msg)
    print(f"Wrote the card of {folder}")


if __name__ == "__main__":
    main()
