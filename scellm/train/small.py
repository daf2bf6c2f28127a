"""Train the shipped weights: `python -m scellm.train.small --corpus FOLDER [FOLDER ...] --out FOLDER`.

Two stages. First the encoder without its blocks, a bag of genes (`encode_bag`), with a contrastive loss alone:
a hundred times cheaper per cell, and it is where gene embeddings are learnt. Then blocks that start at zero are put
in (`grow`) and trained with masked gene modelling and the contrastive loss while the bag is kept. The model is
half-way between start and end of the second stage (`average`).
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..data import CorpusDataset, GeneVocabulary, TokenConfig, read_corpus
from ..models import CellLM, save
from ..nn import CellLMConfig, Encoder
from ._pretrain import PretrainConfig, average, grow, pretrain, start_from_corpus
from ._views import ViewConfig

BAG = PretrainConfig(
    batch_size=512,
    n_steps=3400,
    learning_rate=3e-3,
    bag=True,
    precision="fp32",
    views=ViewConfig(max_genes=2048),
)
BLOCKS = PretrainConfig(
    batch_size=128,
    n_steps=240,
    learning_rate=1e-3,
    warmup=0.1,
    keep_bag=True,
    views=ViewConfig(max_genes=320),
)
SHARE = 0.5
"""How far from the start of the second stage to its end; chosen on labelled sets of the corpus."""
TOKENS = TokenConfig(target_sum=1e4, max_genes=1024)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the stages and save the model; a finished first stage in the folder is used again."""
    parser = argparse.ArgumentParser(prog="python -m scellm.train.small", description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", nargs="+", type=Path, required=True, help="folders of .h5ad files")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, stages and the model")
    parser.add_argument("--config", default="small", choices=("tiny", "small"), help="architecture")
    parser.add_argument("--bag-steps", type=int, default=BAG.n_steps, help="steps of the first stage")
    parser.add_argument("--blocks-steps", type=int, default=BLOCKS.n_steps, help="steps of the second stage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    vocabulary = GeneVocabulary.default()
    datasets = read_corpus(options.corpus, vocabulary)
    corpus = {name: dataset.counts for name, dataset in datasets.items()}
    print(f"{sum(x.shape[0] for x in corpus.values())} cells of {len(corpus)} datasets")
    options.out.mkdir(parents=True, exist_ok=True)
    config = CellLMConfig.named(options.config, n_genes=len(vocabulary))
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.monotonic()

    stages = {
        "bag": dataclasses.replace(BAG, n_steps=options.bag_steps),
        "blocks": dataclasses.replace(BLOCKS, n_steps=options.blocks_steps),
    }
    bag = Encoder(dataclasses.replace(config, depth=0))
    stage = options.out / "bag.safetensors"
    if stage.exists():
        bag.load_state_dict(load_file(stage))
        print(f"First stage taken from {stage}; delete it to train it again.")
    else:
        start_from_corpus(bag, corpus, TOKENS.target_sum)
        _run(bag, corpus, stages["bag"], options.seed, device, options.out / "bag.csv")
        save_file(bag.cpu().state_dict(), stage)
    start = grow(bag, config)
    encoder = copy.deepcopy(start)
    _run(encoder, corpus, stages["blocks"], options.seed + 1, device, options.out / "blocks.csv")
    encoder = average(start, encoder.cpu(), SHARE)
    minutes = (time.monotonic() - started) / 60
    model = CellLM(
        encoder=encoder.eval(),
        config=config,
        tokens=TOKENS,
        vocabulary=vocabulary,
        provenance=_provenance(options, datasets, stages, minutes, device),
        name=f"scellm-{options.config}",
    )
    print(f"Saved {save(model, options.out / model.name, overwrite=True, dtype=torch.float16)}")


def _run(
    encoder: Encoder, corpus: dict[str, Any], recipe: PretrainConfig, seed: int, device: str, path: Path
) -> None:
    """Train one stage with its log."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)

        def log(numbers: dict[str, float]) -> None:
            if not file.tell():
                writer.writerow(numbers)
            writer.writerow(f"{value:.6g}" for value in numbers.values())
            file.flush()

        pretrain(encoder, corpus, recipe, rng=np.random.default_rng(seed), device=device, log=log)


def _provenance(
    options: argparse.Namespace,
    datasets: dict[str, CorpusDataset],
    stages: dict[str, PretrainConfig],
    minutes: float,
    device: str,
) -> dict[str, Any]:
    """What the model card and `config.json` say about the training."""
    return {
        "description": "Pretrained on normal and cancer cells with masked gene modelling and a contrastive loss.",
        "command": f"python -m scellm.train.small --config {options.config} --seed {options.seed}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "minutes": round(minutes, 1),
        "device": device,
        "n_cells": sum(dataset.counts.shape[0] for dataset in datasets.values()),
        "datasets": {
            name: {
                "cells": dataset.counts.shape[0],
                "vocabulary_genes": dataset.n_matched,
                "values": dataset.values,
                **dataset.about,
            }
            for name, dataset in datasets.items()
        },
        "share": SHARE,
        "stages": {name: dataclasses.asdict(stage) for name, stage in stages.items()},
    }


if __name__ == "__main__":
    main()
