"""Train the shipped weights: `python -m scellm.train.small --corpus FOLDER [FOLDER ...] --out FOLDER`.

Two stages. First the encoder without its blocks, a bag of genes (`encode_bag`), with a contrastive loss alone:
a hundred times cheaper per cell, and it is where gene embeddings are learnt. Then blocks that start at zero
are put in (`grow`) and everything is trained with masked gene modelling and the contrastive loss.
"""

from __future__ import annotations

import argparse
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
from ._pretrain import PretrainConfig, grow, pretrain, start_from_corpus
from ._views import ViewConfig

BAG = PretrainConfig(
    batch_size=512,
    n_steps=3400,
    learning_rate=3e-3,
    bag=True,
    precision="fp32",
    views=ViewConfig(max_genes=2048),
)
FULL = PretrainConfig(
    batch_size=128, n_steps=700, learning_rate=3e-4, warmup=0.1, views=ViewConfig(max_genes=256)
)
TOKENS = TokenConfig(target_sum=1e4, max_genes=2048)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both stages and save the model; a finished first stage in the folder is used again."""
    parser = argparse.ArgumentParser(prog="python -m scellm.train.small", description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", nargs="+", type=Path, required=True, help="folders of .h5ad files")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, stages and the model")
    parser.add_argument("--config", default="small", choices=("tiny", "small"), help="architecture")
    parser.add_argument("--bag-steps", type=int, default=BAG.n_steps, help="steps of the first stage")
    parser.add_argument("--steps", type=int, default=FULL.n_steps, help="steps of the second stage")
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

    bag = Encoder(dataclasses.replace(config, depth=0))
    stage = options.out / "bag.safetensors"
    if stage.exists():
        bag.load_state_dict(load_file(stage))
        print(f"First stage taken from {stage}; delete it to train it again.")
    else:
        start_from_corpus(bag, corpus, TOKENS.target_sum)
        recipe = dataclasses.replace(BAG, n_steps=options.bag_steps)
        _run(bag, corpus, recipe, options.seed, device, options.out / "bag.csv")
        save_file(bag.cpu().state_dict(), stage)
    encoder = grow(bag, config)
    recipe = dataclasses.replace(FULL, n_steps=options.steps)
    _run(encoder, corpus, recipe, options.seed + 1, device, options.out / "full.csv")
    minutes = (time.monotonic() - started) / 60
    model = CellLM(
        encoder=encoder.cpu(),
        config=config,
        tokens=TOKENS,
        vocabulary=vocabulary,
        provenance=_provenance(options, datasets, recipe, minutes, device),
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
    recipe: PretrainConfig,
    minutes: float,
    device: str,
) -> dict[str, Any]:
    """What the model card and `config.json` say about the training."""
    return {
        "description": "Pretrained on normal and cancer cells with masked gene modelling and a contrastive loss.",
        "command": f"python -m scellm.train.small --steps {options.steps} --seed {options.seed}",
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
        "stages": {"bag": dataclasses.asdict(BAG), "full": dataclasses.asdict(recipe)},
    }


if __name__ == "__main__":
    main()
