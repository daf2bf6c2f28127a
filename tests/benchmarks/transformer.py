"""The transformer beside the bag it started from, by seeds.

    python tests/benchmarks/transformer.py DATA RUN [RUN ...] [--variants RUN ...] [--others MODEL ...] [--wide BAG MODEL ...] [--bags MODEL ...] [--ship]

RUN is the folder of `scellm pretrain scellm-transformer CORPUS -o RUN`, the first that of the shipped weights, the others of other
seeds (those that are not finished are left out); `training_corpus.py` packs the corpus without the datasets of `validation.py`.
`--variants` are runs of the recipe with another learning rate or number of steps, `--others` models of recipes changed from it, `--wide` a bag of another width and blocks on it, `--bags` bags of
other seeds (`block_trials.py --bags`). What is measured is kept in `--cache`, by weights, and on the page: runs and models that are not given stay there. Needs scib-metrics. Writes `docs/benchmarks/transformer.md` with its figure; `--ship` also writes the first
model with its card into the package, `--speed` times anew (on an idle machine).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from _report import DOCS, write
from _transformer_page import BAG, NAME, OURS, measure, page_text, tables_of, verdict_of
from _transformer_scores import Run, Store, Trained, finished
from speed import random_tokens

import scellm
from scellm.models import CellLM, _encode

SHIPPED = Path(scellm.__file__).parent / "models" / "weights"
SPEED_CELLS, SPEED_GENES = 256, 1000
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

scellm.tl.embed(adata, "{name}")  # adata.obsm["X_scellm"]
```

## What it is

{depth} block of softmax attention of size {dim} over up to {max_genes:,} expressed protein-coding genes of a cell ({n_genes:,} in the vocabulary),
{n_parameters:,} parameters. The cell embedding is a bag of genes plus the mean over genes of what the block changes.

Trained on {n_cells:,} cells, part of them drawn around mean profiles of cell types; the published CellLM saw two million. {stages}

![Losses](../../../../docs/benchmarks/{figure})

## Numbers

{verdict}

{table}

## Limits

- **`scellm-small` is the default of `scellm.tl.embed`**: it is faster and no worse. This model is here to be measured, adapted and trained on.
- No reference of cell types and no head of malignancy come with it: {no_parts}
- Not for diagnosis or any clinical use.

## Training data

{sources}

Weights are ours (BSD-3-Clause); the cells are not part of them and keep their licences.
"""


def draw(runs: list[Trained], path: Path) -> None:
    """Training curves: losses as steps go on, and how far apart cells stay."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(12, 2.6), layout="constrained")
    names = ["contrastive", "masked_gene", "normal_cancer", "anisotropy"]
    for number, run in enumerate(runs):
        log = run.log
        for ax, name in zip(axes, names, strict=True):
            ax.plot(log["step"], log[name], color=f"C{number}", lw=0.5, alpha=0.35)
            smooth = log[name].rolling(9, min_periods=1, center=True).mean()
            ax.plot(log["step"], smooth, color=f"C{number}", label=f"seed {run.seed}")
    for ax, name in zip(axes, names, strict=True):
        ax.set(xlabel="step of 4,096 cells", title=name.replace("_", " "))
        ax.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes[-1].legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def cells_per_second(model: CellLM) -> float:
    """From tokens to embeddings, cells of 1,000 genes, all cores; the best of three."""
    tokens = random_tokens(SPEED_CELLS, SPEED_GENES, len(model.vocabulary))
    found = []
    for _ in range(3):
        start = time.perf_counter()
        _encode.encode(model, tokens, device=torch.device("cpu"), dtype=torch.float32)
        found.append(time.perf_counter() - start)
    return SPEED_CELLS / min(found)


def stage_text(stages: dict[str, dict]) -> str:
    """One sentence for each stage."""
    words = []
    for name, stage in stages.items():
        recipe = stage["recipe"]
        objectives = ", ".join(f"{key} {weight:g}" for key, weight in recipe["objectives"].items())
        words.append(
            f"Stage *{name}*: {stage['steps']:,} steps of {recipe['batch_size']:,} cells, objectives {objectives}."
        )
    return " ".join(words)


def ship(model: CellLM, verdict: str, table: pd.DataFrame) -> None:
    """Into the package, with the card."""
    about = model.provenance
    rows = [
        f"| {name} | {facts['cells']:,} | {' '.join(str(facts.get('paper', '?')).replace('|', '/').split())} | "
        f"{' '.join(str(facts.get('licence', '?')).replace('|', '/').split())} |"
        for name, facts in about["datasets"].items()
    ]
    model.card = CARD.format(
        name=model.name,
        description="One block of attention on a bag of genes, pretrained with the three published objectives of CellLM, and labels, in batches of "
        "4,096 cells by divide and conquer; gene embeddings are those of its bag.",
        depth=model.config.depth,
        dim=model.config.dim,
        max_genes=model.tokens.max_genes,
        n_genes=len(model.vocabulary),
        n_parameters=model.n_parameters,
        n_cells=about["n_cells"],
        stages=stage_text(about["stages"]),
        figure=f"{NAME}.png",
        verdict=verdict,
        table=table.to_markdown(index=False, floatfmt=".3f"),
        no_parts='`scellm.tl.annotate(adata)` takes `"scellm-small"`; a reference in this space is one call of `scellm.tl.fit_reference`.',
        sources="\n".join(
            ["| dataset | cells | from | licence as stated there |", "| --- | --- | --- | --- |", *rows]
        ),
    )
    scellm.models.save(model, SHIPPED / model.name, dtype=torch.float16, overwrite=True)


def main() -> None:
    """Score, write the page, and ship."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--variants", type=Path, nargs="*", default=[])
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    parser.add_argument("--wide", type=Path, nargs="*", default=[])
    parser.add_argument("--bags", type=Path, nargs="*", default=[])
    parser.add_argument("--cache", type=Path, default=Path("transformer-cache"))
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--speed", action="store_true", help="time anew")
    options = parser.parse_args()
    stored = DOCS / f"{NAME}.json"
    facts = json.loads(stored.read_text())["facts"] if stored.exists() else {}
    models = {
        kind: [path for path in getattr(options, kind) if kind not in ("runs", "variants") or finished(path)]
        for kind in ("runs", "variants", "others", "wide", "bags")
    }
    first = Run(models["runs"][0])
    found = measure(Store(options.data, options.cache), facts.get("kept", {}), models)
    speeds = facts.get("speeds", {})
    if options.speed or not speeds:
        timed = {"transformer": first.model, "scellm-small": scellm.models.load("scellm-small")}
        speeds = {name: cells_per_second(model) for name, model in timed.items()}
    draw(found.runs, DOCS / f"{NAME}.png")
    tables = tables_of(found, speeds)
    facts = {
        "recipe": "scellm-transformer",
        "sha256": first.model.sha256,
        "seeds": [run.seed for run in found.runs],
        "speeds": speeds,
        "verdict": verdict_of(found)[1],
        "kept": found.kept(),
    }
    print(write(NAME, "The transformer beside its bag", page_text(found, speeds), tables, facts))
    if options.ship:
        shipped = tables["The shipped weights and other options, on datasets left out"]
        ship(first.model, verdict_of(found)[1], shipped[["dataset", "PCA", BAG, OURS]])


if __name__ == "__main__":
    main()
