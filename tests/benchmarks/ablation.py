"""What each choice of the recipe is worth: one thing is changed at a time, on equal processor time.

    python tests/benchmarks/ablation.py CORPUS.h5 DATA [--seconds 20] [--until 19:40] [--only GROUP ...] [--again ARM ...]
    python tests/benchmarks/ablation.py --page

CORPUS.h5 is what `training_corpus.py` packs, DATA the folder with `corpus`, `corpus_wide`, `drug` and `knowledge`. Every run is
scored on the labeled sets of `validation.py`, which the corpus leaves out; the benchmark sets are not read. A run is
written to `docs/benchmarks/ablation.json` when it ends, so what was measured is kept when the script is stopped, and
goes on from there. `--page` only writes the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import torch
from _ablation_genes import bulk_embedding, string_embedding
from _ablation_page import unseen, write_page
from _report import DOCS, machine
from validation import SETS, pca, read

import scellm
from scellm.data import Corpus, TokenConfig, log_normalize
from scellm.metrics import neighbor_score
from scellm.models import CellLM
from scellm.nn import CellLMConfig, Encoder, encode_bag
from scellm.nn._encoder import EMBEDDING_STD
from scellm.train import (
    PretrainConfig,
    World,
    _gene_directions,
    _start,
    _trainer,
    deepen,
    init_from_corpus,
    sample_corpus,
    sample_labels,
)
from scellm.train._gene_directions import _components, gene_discriminants

NAME = "ablation"
DIM, MAX_GENES, TARGET_SUM = 128, 4096, 1e4
LEAKS = ("drawn_FUMA_GSE81547_Human_Pancreas", "drawn_FUMA_Linnarsson_GSE67602_Mouse_Skin_Epidermis")
"""Profiles of two of the validation studies; left out here."""
FOLD_SEEDS = 2
SAMPLE, MOST_COMPONENTS = 100, 256
"""Cells of each dataset that the start is computed from, and its components: fewer than in the shipped recipe."""
BASE: dict[str, Any] = {
    "objectives": {"contrastive": 1.0, "supervised": 0.7},
    "batch_size": 512,
    "datasets_per_batch": 1,
    "learning_rate": 1e-3,
    "views": {"max_genes": 512},
    "memory_budget": "1GiB",
    "tokens_per_chunk": 200_000,  # twice as fast as "auto" on a CPU: each chunk's gradient is as large as the gene table
    "log_every": 100_000,
}
BLOCKS = {"batch_size": 128, "views": {"max_genes": 160}, "tokens_per_chunk": "auto"}
"""What blocks of attention are trained on, so that they take more than a few steps."""
READ_BY_BLOCKS = 512
MEAN_LOG = {"amount": "log1p", "cell_embedding": "mean"}
"""The bag as it was first: mean over genes of log1p times a gain."""


@dataclass(frozen=True)
class Arm:
    """One thing that differs from the base."""

    group: str
    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    genes: str = "discriminants"
    corpus: str = "all"
    labels: str = "all"
    """Whose cell types the start reads: of all datasets, of cells, or of drawn cells."""
    cells: int = SAMPLE
    ridge: float = 0.1
    offset: bool = True
    gain: bool = True
    read: int = MAX_GENES
    """Genes of a cell that the finished model reads."""
    share: float = 1.0
    """How far from the start to the end of training the finished model is."""
    times: float = 0.0
    """Processor time as a multiple of that of the trained base; 0 is the start, not trained."""
    seeds: tuple[int, ...] = (0, 1)

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"


def arms() -> list[Arm]:
    """All of them, what matters most first: starts, which take seconds, then trainings."""
    starts = [
        Arm("base", "discriminants, square roots of unit length, not trained"),
        Arm("start", "loadings (no labels)", genes="loadings"),
        Arm("start", "discriminants, log1p with gains, mean", config=MEAN_LOG, seeds=(0,)),
        Arm(
            "start", "loadings, log1p with gains, mean (the first recipe)", config=MEAN_LOG, genes="loadings"
        ),
        Arm("start", "random", genes="random"),
        Arm("start", "STRING network, spectral", genes="STRING"),
        Arm("start", "bulk co-expression", genes="bulk"),
        Arm("start", "half discriminants, half STRING", genes="discriminants+STRING"),
        Arm("start", "no constant coordinate", offset=False),
        Arm(
            "values",
            "loadings, log1p with gains, unit length",
            config=MEAN_LOG | {"cell_embedding": "unit"},
            genes="loadings",
            seeds=(0,),
        ),
        Arm(
            "values",
            "loadings, log1p without gains, mean",
            config=MEAN_LOG,
            genes="loadings",
            gain=False,
            seeds=(0,),
        ),
        Arm(
            "values",
            "loadings, square roots, mean",
            config={"cell_embedding": "mean"},
            genes="loadings",
            seeds=(0,),
        ),
        *[Arm("dimension", f"{dim}", config={"dim": dim}) for dim in (32, 64, 256)],
        *[Arm("ridge", f"{ridge:g}", ridge=ridge) for ridge in (0.01, 1.0)],
        Arm("labels of the start", "of measured cells only", labels="cells"),
        Arm("labels of the start", "of drawn cells only", labels="drawn"),
        Arm("corpus of the start", "cells of blood and cell lines only (corpus)", corpus="narrow"),
        Arm("corpus of the start", "and of other tissues (corpus_wide), nothing drawn", corpus="cells"),
        Arm("corpus size", "10 % (10 cells of each dataset)", cells=SAMPLE // 10),
        Arm("corpus size", "30 % (30 cells of each dataset)", cells=3 * SAMPLE // 10),
        *[Arm("genes read", f"{n:,} most expressed", read=n) for n in (256, 1024, 2048)],
    ]
    contrastive, mixed_batch = {"objectives": {"contrastive": 1.0}}, {"datasets_per_batch": None}
    block = {"config": {"depth": 1}, "read": READ_BY_BLOCKS}
    masked = {"contrastive": 1.0, "masked_gene": 0.3}
    trained = [
        Arm("trained", "base: contrastive and supervised"),
        Arm("trained", "half-way between start and end", share=0.5),
        Arm("trained", "from loadings", genes="loadings"),
        Arm("trained", "from random", genes="random"),
        Arm(
            "trained", "the first recipe: loadings, log1p with gains, mean", genes="loadings", config=MEAN_LOG
        ),
        Arm("objectives", "contrastive only", contrastive),
        Arm("objectives", "supervised only", {"objectives": {"supervised": 1.0}}),
        Arm(
            "objectives",
            "all three, with normal/cancer",
            {"objectives": BASE["objectives"] | {"normal_cancer": 0.1}},
        ),
        *[
            Arm(
                "batch",
                f"{n:,} cells of all datasets, all negatives",
                mixed_batch | {"batch_size": n, "negatives": "all"},
            )
            for n in (256, 1024, 4096, 16384)
        ],
        Arm("negatives", "4 datasets, within each", {"datasets_per_batch": 4}),
        Arm("negatives", "4 datasets, all", {"datasets_per_batch": 4, "negatives": "all"}),
        Arm("views", "genes only", {"views": {"max_genes": 512, "keep_counts": (1, 1)}}),
        Arm("views", "counts only", {"views": {"max_genes": 1e9, "drop_genes": (0, 0)}}),
        Arm(
            "views",
            "dropout only, as published (bag and MLP, dropout 0.1)",
            {"views": {"max_genes": 1e9, "keep_counts": (1, 1), "drop_genes": (0, 0), "max_counts": 1e9}},
            {"cell_depth": 1, "dropout": 0.1},
        ),
        *[Arm("temperature", f"{t:g}", {"temperature": t}) for t in (0.05, 0.2)],
        Arm("temperature", "learned, from 0.1", {"learn_temperature": True}),
        Arm("encoder", "bag, trained as the blocks are", BLOCKS, read=READ_BY_BLOCKS),
        Arm("encoder", "1 block, softmax", BLOCKS, **block),
        Arm(
            "encoder",
            "1 block, FAVOR+",
            BLOCKS,
            config={"depth": 1, "attention": "favor"},
            read=READ_BY_BLOCKS,
        ),
        Arm(
            "objectives of a block",
            "masked genes only",
            BLOCKS | {"objectives": {"masked_gene": 1.0}},
            **block,
        ),
        Arm("objectives of a block", "contrastive only", BLOCKS | contrastive, **block),
        Arm(
            "objectives of a block", "contrastive and masked genes", BLOCKS | {"objectives": masked}, **block
        ),
        Arm(
            "objectives of a block",
            "contrastive, masked genes, normal/cancer (as published)",
            BLOCKS | {"objectives": masked | {"normal_cancer": 0.1}},
            **block,
        ),
        Arm("encoder", "bag and MLP", config={"cell_depth": 1}),
        Arm("gene embeddings while training", "frozen", {"freeze": ("gene_embedding",)}),
        *[Arm("genes in a view", f"{n:,}", {"views": {"max_genes": n}}) for n in (256, 2048)],
        Arm("sampling", "all datasets alike (power 0)", {"dataset_power": 0.0}),
        Arm("sampling", "all cells alike (power 1)", {"dataset_power": 1.0}),
        Arm("learning rate", "a third", {"learning_rate": 3e-4}),
        Arm(
            "values",
            "published bins, trained",
            BLOCKS,
            config={"expression": "bins"} | MEAN_LOG,
            genes="loadings",
            read=READ_BY_BLOCKS,
        ),
        Arm("length", "three times as long", times=3.0),
    ]
    return starts + [replace(arm, times=arm.times or 1.0) for arm in trained]


@torch.no_grad()
def interpolate_weights(start: Encoder, trained: Encoder, share: float) -> Encoder:
    """The encoder between two: (1 - share) * start + share * trained, except for the masked-gene head.

    After a short training the weights half-way are often better on data unlike the training's than either
    end :cite:p:`Wortsman2022`. The head and the mask embedding, of no use before training, are those of `trained`.
    """
    first, second = start.state_dict(), trained.state_dict()
    own = ("masked_gene.", "expression.mask_embedding")
    encoder = Encoder(trained.config)
    encoder.load_state_dict(
        {
            name: new if name.startswith(own) else torch.lerp(first[name], new, share)
            for name, new in second.items()
        }
    )
    return encoder


class Workshop:
    """Corpora, starts and validation sets, each made once."""

    def __init__(self, corpus: Path, data: Path) -> None:
        self.path, self.data = corpus, data
        self.components: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = {}
        self.sets = {name: read(data, name) for name in SETS}
        torch.optim.AdamW(
            [torch.nn.Parameter(torch.zeros(1))]
        )  # what torch imports late is no part of a run's time

    @cache  # noqa: B019  one object, as long as the script
    def corpus(self, name: str) -> Corpus:
        """All of it, or a part."""
        if name == "all":
            packed = Corpus.build(self.path, min_overlap=0.05)
            return _only(packed, [n for n in packed.names if n not in LEAKS])
        everything = self.corpus("all")
        wide = {path.stem for path in (self.data / "corpus_wide").glob("*.h5ad")}
        kept = [n for n in everything.names if not n.startswith("drawn_")]
        return _only(everything, [n for n in kept if name == "cells" or n not in wide])

    @cache  # noqa: B019
    def sample(self, corpus: str, cells: int, seed: int) -> dict[str, Any]:
        return sample_corpus(self.corpus(corpus), cells, seed=seed)

    @cache  # noqa: B019
    def table(self, kind: str, dim: int) -> np.ndarray:
        """(n_genes, dim) gene embeddings from what is known of genes."""
        vocabulary = self.corpus("all").vocabulary
        if kind == "STRING":
            return string_embedding(self.data / "knowledge" / "string_v12_ppi_dmfind.tsv.gz", vocabulary, dim)
        tissues, lines = (
            self.data / "profiles" / "human_bulk.h5ad",
            self.data / "drug" / "bulk_nci60_23k.h5ad",
        )
        return bulk_embedding(tissues, lines, vocabulary, dim)

    def start(self, arm: Arm, seed: int) -> Encoder:
        """The encoder of an arm before its first step."""
        config = CellLMConfig.named("transformer", n_genes=len(self.corpus("all").vocabulary))
        fields = {"dim": DIM, "depth": 0, "ff_mult": 4, "cell_embedding": "unit"} | arm.config
        config = replace(config, **fields)
        torch.manual_seed(seed)
        as_bag = {"depth": 0, "cell_depth": 0, "dropout": 0.0, "expression": "continuous"}
        bag = self._bag(arm, replace(config, **as_bag), seed)
        if config.expression == "bins":
            encoder = Encoder(config)
            encoder.gene_embedding.load_state_dict(bag.gene_embedding.state_dict())
            return encoder
        encoder = deepen(bag, config)
        if config.dropout:  # a block that adds nothing has nothing to drop
            encoder.cell_blocks.load_state_dict(Encoder(config).cell_blocks.state_dict())
        return encoder

    @torch.no_grad()
    def _bag(self, arm: Arm, config: CellLMConfig, seed: int) -> Encoder:
        """A bag of genes that starts as the arm says."""
        bag = Encoder(config)
        first, *second = arm.genes.split("+")
        sample = self.sample(arm.corpus, arm.cells, seed)
        labels = sample_labels(self.corpus(arm.corpus), "cell_type", arm.cells, seed=seed)
        drawn = {name: np.full_like(x, "") if name.startswith("drawn_") else x for name, x in labels.items()}
        cells = {name: x if name.startswith("drawn_") else np.full_like(x, "") for name, x in labels.items()}
        labels = {"all": labels, "cells": drawn, "drawn": cells}[arm.labels]
        key = (arm.corpus, arm.cells, seed, config.amount, config.cell_embedding, arm.gain)
        n_genes = len(self.corpus("all").vocabulary)

        def components(values: Any, n: int, *, seed: int, n_rounds: int) -> tuple[np.ndarray, np.ndarray]:
            """Computed once for all arms that share them."""
            if key not in self.components:
                self.components[key] = _components(values, MOST_COMPONENTS, seed=seed, n_rounds=n_rounds)
            return tuple(part[..., :n] for part in self.components[key])

        changes = {"gene_discriminants": partial(gene_discriminants, ridge=arm.ridge)}
        if not arm.gain:
            changes["gene_gain"] = lambda *_, **__: np.ones(n_genes, dtype=np.float32)
        with ExitStack() as stack:
            stack.enter_context(patch.object(_gene_directions, "_components", components))
            for name, changed in changes.items():
                stack.enter_context(patch.object(_start, name, changed))
            own = {"discriminants": "lda", "loadings": "pca"}.get(first, "random")
            init_from_corpus(bag, sample, TARGET_SUM, gene_init=own, labels=labels, seed=seed)
        if (own == "random" and first != "random") or second:
            place = slice(config.dim // 2, config.dim - 1) if second else slice(0, config.dim)
            known = torch.from_numpy(self.table(second[0] if second else first, place.stop - place.start))
            known *= EMBEDDING_STD / known.square().mean().sqrt()
            bag.gene_embedding.weight[:n_genes, place] = known
            _centre(bag, sample, keep_last=bool(second))
        if not arm.offset:
            bag.expression.bias[-1] = 0
        return bag

    def model(self, encoder: Encoder, read: int) -> CellLM:
        tokens = TokenConfig(target_sum=TARGET_SUM, max_genes=read)
        vocabulary = self.corpus("all").vocabulary
        return CellLM(
            encoder=encoder.eval(), config=encoder.config, tokens=tokens, vocabulary=vocabulary, name="arm"
        )

    def score(self, embedding: Callable[[ad.AnnData], np.ndarray]) -> dict[str, float]:
        """Macro-F1 of each validation set, mean over draws of the folds."""
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, adata in self.sets.items():
                vectors = embedding(adata)
                scores = [
                    neighbor_score(vectors, adata.obs["cell_type"], rng=seed).macro_f1
                    for seed in range(FOLD_SEEDS)
                ]
                found[name] = float(np.mean(scores))
        return found

    def score_model(self, encoder: Encoder, read: int) -> dict[str, float]:
        model = self.model(encoder, read)
        return self.score(
            lambda adata: scellm.tl.embed(
                adata, model, min_overlap=0.05, show_progress=False, copy=True
            ).obsm["X_scellm"]
        )


def _only(corpus: Corpus, names: list[str]) -> Corpus:
    """Some datasets of a corpus."""
    datasets = dict(zip(corpus.names, corpus._datasets, strict=True))
    return Corpus({name: datasets[name] for name in names}, corpus.vocabulary)


@torch.no_grad()
def _centre(bag: Encoder, sample: dict[str, Any], *, keep_last: bool) -> None:
    """Set the bias so that the mean cell is at zero, as `train.init_from_corpus` does."""
    means = []
    for counts in sample.values():
        values = log_normalize(counts, TARGET_SUM)
        values = values[np.diff(values.indptr) > 0]
        packed = (values.indices.astype(np.int64), values.data, values.indptr.astype(np.int64))
        means.append(encode_bag(bag, *(torch.from_numpy(x) for x in packed), finished=False).mean(0))
    mean = torch.stack(means).mean(0)
    if keep_last:
        mean[-1] = 0
    bag.expression.bias -= mean


def run(workshop: Workshop, arm: Arm, seed: int, seconds: float) -> dict[str, Any]:
    """Train one arm from one seed, unless it is not trained; the record of its scores."""
    encoder = workshop.start(arm, seed)
    record: dict[str, Any] = {"group": arm.group, "arm": arm.name, "seed": seed, "steps": 0, "seconds": 0.0}
    if arm.times:
        recipe = PretrainConfig.from_dict(BASE | arm.recipe | {"max_time": seconds * arm.times, "seed": seed})
        cpu = SimpleNamespace(monotonic=time.process_time)  # max_time and the schedule by processor time
        with patch.object(_trainer, "time", cpu), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = _trainer.Trainer(
                encoder, workshop.corpus(arm.corpus), recipe, torch.device("cpu"), World.current()
            )
            trainer.train(None, "auto", show_progress=False)
        if arm.share < 1:
            encoder = interpolate_weights(workshop.start(arm, seed), encoder, arm.share)
        record |= {
            "steps": trainer.n_done,
            "cells": trainer.n_done * recipe.batch_size,
            "seconds": trainer.seconds,
        }
    return record | _scores(workshop.score_model(encoder, arm.read))


def _scores(sets: dict[str, float]) -> dict[str, Any]:
    return {"sets": sets, "mean": float(np.mean(list(sets.values()))), "unseen": unseen(sets)}


def _store(results: dict[str, Any], path: Path) -> None:
    """Write the numbers under another name, then move them."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1, default=float) + "\n", encoding="utf-8")
    new.replace(path)


def _stored(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"runs": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor time of a run")
    parser.add_argument("--until", help="time of the day after which no run starts, as 19:40")
    parser.add_argument("--only", nargs="*", help="groups to run")
    parser.add_argument("--again", nargs="*", default=[], help="arms to run again, or PCA")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument(
        "--store", type=Path, default=DOCS / f"{NAME}.json", help="where the numbers are kept"
    )
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="take over runs of other processes")
    options = parser.parse_args()
    results = _stored(options.store)
    for other in options.merge:
        results["runs"] += _stored(other)["runs"]
    if options.merge:
        _store(results, options.store)
    if not options.page or "PCA" in options.again:
        workshop = Workshop(options.corpus, options.data)
        if "PCA" not in results or "PCA" in options.again:
            results["PCA"] = _scores(workshop.score(pca))
            _store(results, options.store)
    if not options.page:
        results |= {
            "machine": machine(),
            "seconds": options.seconds,
            "components": MOST_COMPONENTS,
            "sample": SAMPLE,
        }
        todo = [arm for arm in arms() if not options.only or arm.group in options.only]
        pairs = [(arm, seed) for arm in todo for seed in arm.seeds]
        # what takes seconds first, then all trainings once, then again
        for arm, seed in sorted(pairs, key=lambda pair: (pair[0].times > 0, pair[1])):
            if options.until and datetime.datetime.now().strftime("%H:%M") >= options.until:
                print("the time is over")
                return
            done = {(r["group"], r["arm"], r["seed"]) for r in results["runs"]}
            if (arm.group, arm.name, seed) in done and arm.name not in options.again:
                continue
            began = time.monotonic()
            found = run(workshop, arm, seed, options.seconds)
            same = (arm.group, arm.name, seed)
            kept = [r for r in results["runs"] if (r["group"], r["arm"], r["seed"]) != same]
            results["runs"] = [*kept, found]
            _store(results, options.store)
            print(
                f"{arm.key}, seed {seed}: {found['steps']} steps, {found['mean']:.4f} "
                f"(unseen {found['unseen']:.4f}), {time.monotonic() - began:.0f} s",
                flush=True,
            )
    if results["runs"]:
        print(write_page(results, [arm.key for arm in arms()]))


if __name__ == "__main__":
    main()
