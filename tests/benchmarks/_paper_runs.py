"""The models that `paper.py` compares: small, of one recipe each, no label of a cell type in any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

import scellm
from scellm.data import Corpus, GeneVocabulary, TokenConfig
from scellm.models import CellLM
from scellm.nn import CellLMConfig
from scellm.tl._pretrain import start_encoder

TRANSFORMER = {
    "dim": 128,
    "depth": 1,
    "heads": 4,
    "dim_head": 32,
    "ff_mult": 2,
    "attention": "softmax",
    "expression": "continuous",
    "amount": "sqrt",
    "cell_embedding": "mean",
    "dropout": 0.1,
}
BAG = TRANSFORMER | {"depth": 0, "cell_embedding": "bag", "dropout": 0.0}
THREE = {"contrastive": 1.0, "masked_gene": 0.3, "normal_cancer": 0.1}
"""The published objectives; the weights are those of `PretrainConfig`."""
BATCHES = (256, 1024, 4096, 16384)
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1)


def _transformer(seed: int, *, batch: int = 1024, **changes: Any) -> dict[str, Any]:
    """One pass over as many cells as the corpus has."""
    options = {
        "config": TRANSFORMER,
        "objectives": THREE,
        "batch_size": batch,
        "max_epochs": 1,
        "views": {"max_genes": 96},
        "max_genes": 512,
        "precision": "bf16",
        "rng": seed,
        "log_every": max(1, 4096 // batch),
        "checkpoint_every": max(1, 8192 // batch),
    }
    return options | changes


def _bag(seed: int, batch: int, rate: float) -> dict[str, Any]:
    """Five passes: the size of a batch alone, which a bag shows in minutes."""
    options = {
        "config": BAG,
        "objectives": {"contrastive": 1.0},
        "views": {"max_genes": 512},
        "max_genes": 4096,
    }
    options |= {"batch_size": batch, "max_epochs": 5, "learning_rate": rate, "rng": seed}
    return options | {"log_every": max(1, 32768 // batch), "checkpoint_every": 100}


def _runs() -> dict[str, dict[str, Any]]:
    """All runs by name, those that answer most first."""
    runs: dict[str, dict[str, Any]] = {}
    for seed in SEEDS:
        runs[f"masked-{seed}"] = _transformer(seed, objectives={"masked_gene": 1.0})
        runs[f"three-{seed}"] = _transformer(seed)
        runs[f"contrastive-{seed}"] = _transformer(seed, objectives={"contrastive": 1.0})
        runs[f"no-cancer-{seed}"] = _transformer(
            seed, objectives={"contrastive": 1.0, "masked_gene": 0.3}, without_cancer=True
        )
        runs[f"batch-256-{seed}"] = _transformer(seed, batch=256)
        runs[f"batch-4096-{seed}"] = _transformer(seed, batch=4096)
    for seed in SEEDS:
        for batch in BATCHES:
            for rate in RATES:
                runs[f"bag-{batch}-{rate:g}-{seed}"] = _bag(seed, batch, rate)
    return runs


RUNS = _runs()


def finished(folder: Path) -> bool:
    """Whether a run has left its model and its log."""
    return (folder / "model").is_dir() and (folder / "history.csv").is_file()


def train(name: str, corpus: Path, runs: Path) -> None:
    """Train one model; on from its checkpoint, if there is one."""
    options = dict(RUNS[name])
    without = options.pop("without_cancer", False)
    config = CellLMConfig(n_genes=len(GeneVocabulary.default()), **options.pop("config"))
    folder, seed = runs / name, options["rng"]
    data = _normal_cells(corpus) if without else [corpus]
    kind = "without-cancer" if without else "blocks" if config.depth else "bag"
    model = scellm.tl.pretrain(
        data,
        config=config,
        init=start(runs / f"start-{kind}-{seed}", config, data, seed),
        negatives="all",
        min_overlap=0.05,
        checkpoint_dir=folder / "checkpoints",
        show_progress=False,
        name=name,
        **options,
    )
    model.history.to_csv(folder / "history.csv", index=False)
    scellm.models.save(model, folder / "model", overwrite=True)


def start(folder: Path, config: CellLMConfig, data: Any, seed: int) -> CellLM:
    """A model before its first step, the same for all runs of a seed: gene embeddings are loadings, without labels."""
    if not folder.is_dir():
        corpus = Corpus.build(data, min_overlap=0.05)
        encoder = start_encoder(config, None, corpus, 1e4, seed, "pca")
        model = CellLM(
            encoder=encoder.eval(),
            config=config,
            tokens=TokenConfig(max_genes=512 if config.depth else 4096),
            vocabulary=corpus.vocabulary,
            provenance={},
            name=folder.name,
        )
        scellm.models.save(model, folder)
    return scellm.models.load(folder)


def _normal_cells(corpus: Path) -> dict[str, ad.AnnData]:
    """The datasets without cancer cells and without lines of cells, most of which are of cancers."""
    full = Corpus.build([corpus], min_overlap=0.05)
    genes = pd.DataFrame(index=full.vocabulary.symbols)
    datasets = {}
    for number, (name, malignant) in enumerate(zip(full.names, full.labels("malignant"), strict=True)):
        keep = [i for i, label in enumerate(malignant) if str(label) != "True"]
        if "cell_lines" in name or not keep:
            continue
        datasets[name] = ad.AnnData(
            full.counts(number, keep), obs=pd.DataFrame(index=map(str, keep)), var=genes
        )
    return datasets
