"""Whether encoders with blocks collapse in their first steps: python tests/benchmarks/first_steps.py DATA.

1,024 blood cells of the training corpus: a block on the shipped bag for each way to pool, and the published form.
Writes `docs/benchmarks/first_steps.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _report import write

import scellm
from scellm.nn import CellLMConfig, Encoder

SHOWN = (1, 2, 3, 5, 10)
PUBLISHED = {"dim": 64, "depth": 2, "heads": 4, "dim_head": 16, "ff_mult": 2, "dropout": 0.1}
"""Bins, CLS and FAVOR+ are the defaults of `CellLMConfig`; the size is ours."""
COMMON = {"warmup": 0.0, "min_overlap": 0.02, "log_every": 1, "max_genes": 512, "show_progress": False}


def from_shipped_bag(cells: ad.AnnData, pooling: str, rate: float) -> pd.DataFrame:
    """The log of `scellm-small` with one block that starts at zero, pooled in one of two ways."""
    small = scellm.models.load("scellm-small")
    config = dataclasses.replace(small.config, cell_embedding=pooling)
    encoder = Encoder(config)
    encoder.load_state_dict(small.encoder.state_dict())
    return scellm.tl.pretrain(
        cells,
        config=dataclasses.replace(config, depth=1, dropout=0.1),
        init=dataclasses.replace(small, encoder=encoder.eval(), config=config),
        objectives={"contrastive": 1.0},
        batch_size=128,
        max_steps=max(SHOWN),
        learning_rate=rate * 2**0.5,  # per 256 cells
        **COMMON,
    ).history


def published(cells: ad.AnnData) -> pd.DataFrame:
    """The log of the published form from random gene embeddings."""
    config = CellLMConfig(n_genes=len(scellm.data.GeneVocabulary.default()), **PUBLISHED)
    return scellm.tl.pretrain(
        cells,
        config=config,
        objectives={"contrastive": 1.0, "masked_gene": 0.3},
        batch_size=64,
        max_steps=40,
        learning_rate=1e-3,
        views={"max_genes": 96},
        **COMMON,
    ).history


def main() -> None:
    """Train and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    stored = ad.read_h5ad(options.data / "corpus" / "kang_ifnb_pbmc.h5ad", backed="r")
    chosen = np.sort(np.random.default_rng(0).choice(stored.n_obs, 1024, replace=False))
    cells = stored[chosen].to_memory()
    cells.X = cells.X.astype(np.float32)
    logs = {
        f"scellm-small + 1 block, `{pooling}`, rate {rate:g}": from_shipped_bag(cells, pooling, rate)
        for rate in (1e-3, 1e-4)
        for pooling in ("unit", "bag")
    }
    logs["published form, rate 0.001"] = published(cells)
    tables = {
        what: pd.DataFrame(
            [
                {
                    "encoder": name,
                    **{f"step {i}": log[what].iloc[i - 1] for i in SHOWN},
                    "last": log[what].iloc[-1],
                }
                for name, log in logs.items()
            ]
        )
        for what in ("anisotropy", "contrastive")
    }
    text = (
        "Contrastive loss (the published form: and masked genes) on 1,024 blood cells of the training corpus, one seed. "
        "From the shipped bag: batches of 128 (guessing is a loss of log 128 = 4.85), 256 genes a view, ten steps, blocks start at "
        "zero; `unit` is the pooling before, `bag` the one for blocks. Published form: bins, CLS and FAVOR+, two blocks of 64 "
        "dimensions, batches of 64 (log 64 = 4.16), 96 genes a view, forty steps. No warm-up. Anisotropy is the mean cosine of "
        "two cells after the step; 1 is collapse. `tests/train/test_no_collapse.py` tests it."
    )
    print(write("first_steps", "The first steps of encoders with blocks", text, tables, {}))


if __name__ == "__main__":
    main()
