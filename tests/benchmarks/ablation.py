"""What each choice of the recipe is worth: one thing is changed at a time, on equal processor time.

    python tests/benchmarks/ablation.py CORPUS.h5 DATA [--seconds 20] [--until 19:40] [--only GROUP ...] [--again ARM ...]
    python tests/benchmarks/ablation.py --page

CORPUS.h5 is what `training_corpus.py` packs, DATA the folder with `corpus`, `corpus_wide`, `drug` and `knowledge`. Every run is
scored on the labelled sets of `validation.py`, which the corpus leaves out; the benchmark sets are not read. A run is
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
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _ablation_genes import bulk_embedding, mixed, random_embedding, string_embedding
from _report import DOCS, machine
from validation import SETS, pca, read

import scellm
from scellm.data import Corpus, TokenConfig, log_normalize
from scellm.metrics import neighbor_score
from scellm.models import CellLM
from scellm.nn import CellLMConfig, Encoder, encode_bag
from scellm.nn._encoder import EMBEDDING_STD
from scellm.train import PretrainConfig, World, _loop, average, grow, sample_corpus
from scellm.train._start import gene_gain, gene_loadings

NAME = "ablation"
DIM, MAX_GENES, TARGET_SUM = 128, 1024, 1e4
LEAKS = ("drawn_FUMA_GSE81547_Human_Pancreas", "drawn_FUMA_Linnarsson_GSE67602_Mouse_Skin_Epidermis")
"""Profiles of two of the validation studies; left out here, so that no score is of a study that was trained on."""
SEEN = ("scmixology_sc_celseq2_5cl_p1", "zheng_sorted_same")
"""Validation sets of studies from which other cells are in the corpus."""
FOLD_SEEDS = 2
SAMPLE = 500
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


@dataclass(frozen=True)
class Arm:
    """One thing that differs from the base."""

    group: str
    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    genes: str = "loadings"
    gain: bool = True
    corpus: str = "all"
    read: int = MAX_GENES
    """Genes of a cell that the finished model reads."""
    times: float = 1.0
    """Processor time as a multiple of that of the base; 0 is the start, not trained."""
    seeds: tuple[int, ...] = (0, 1)

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"


def arms() -> list[Arm]:
    """All of them, what matters most first."""
    contrastive, mixed_batch = {"objectives": {"contrastive": 1.0}}, {"datasets_per_batch": None}
    block = {"config": {"depth": 1}, "read": READ_BY_BLOCKS}
    masked = {"contrastive": 1.0, "masked_gene": 0.3}
    return [
        Arm("base", "the shipped recipe, shortened", seeds=(0, 1, 2)),
        Arm("start", "loadings, not trained", times=0),
        Arm("start", "random, not trained", genes="random", times=0),
        Arm("objectives", "contrastive only", contrastive),
        Arm("objectives", "supervised only", {"objectives": {"supervised": 1.0}}),
        Arm(
            "objectives",
            "all three, with normal/cancer",
            {"objectives": BASE["objectives"] | {"normal_cancer": 0.1}},
        ),
        Arm(
            "objectives",
            "contrastive and normal/cancer, no types",
            {"objectives": {"contrastive": 1.0, "normal_cancer": 0.1}},
        ),
        Arm("corpus", "cells of blood and cell lines only (corpus)", corpus="narrow"),
        Arm("corpus", "and of other tissues (corpus_wide), nothing drawn", corpus="cells"),
        Arm("corpus size", "10 % of the cells of each dataset", corpus="10 %"),
        Arm("corpus size", "30 % of the cells of each dataset", corpus="30 %"),
        Arm("gene embeddings", "random", genes="random"),
        Arm("gene embeddings", "STRING network, spectral", genes="STRING"),
        Arm("gene embeddings", "bulk co-expression", genes="bulk"),
        Arm("gene embeddings", "half loadings, half STRING", genes="loadings+STRING"),
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
        Arm("encoder", "bag and MLP", config={"cell_depth": 1}),
        *[Arm("temperature", f"{t:g}", {"temperature": t}) for t in (0.05, 0.2)],
        Arm("temperature", "learnt, from 0.1", {"learn_temperature": True}),
        Arm("values", "no gains (raw log1p)", gain=False),
        Arm("values", "published bins", config={"expression": "bins"}, recipe=BLOCKS, read=READ_BY_BLOCKS),
        *[Arm("genes in a view", f"{n:,}", {"views": {"max_genes": n}}) for n in (256, 2048)],
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
        Arm(
            "objectives of a block",
            "all four",
            BLOCKS | {"objectives": masked | {"normal_cancer": 0.1, "supervised": 0.7}},
            **block,
        ),
        Arm("dimension", "64", config={"dim": 64}),
        Arm("dimension", "256", config={"dim": 256}),
        *[
            Arm("frozen gene embeddings", name, {"freeze": ("gene_embedding",)}, genes=genes)
            for name, genes in (
                ("loadings", "loadings"),
                ("random", "random"),
                ("STRING network, spectral", "STRING"),
                ("bulk co-expression", "bulk"),
            )
        ],
        Arm("sampling", "all datasets alike (power 0)", {"dataset_power": 0.0}),
        Arm("sampling", "all cells alike (power 1)", {"dataset_power": 1.0}),
        Arm("learning rate", "three times as high", {"learning_rate": 3e-3}),
        Arm("length", "three times as long", times=3.0),
        Arm("start", "STRING network, not trained", genes="STRING", times=0, seeds=(0,)),
        Arm("start", "bulk co-expression, not trained", genes="bulk", times=0, seeds=(0,)),
    ]


class Workshop:
    """Corpora, starts and validation sets, each made once."""

    def __init__(self, corpus: Path, data: Path) -> None:
        self.path, self.data = corpus, data
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
        if name in ("narrow", "cells"):
            kept = [n for n in everything.names if not n.startswith("drawn_")]
            return _only(everything, [n for n in kept if name == "cells" or n not in wide])
        return _thinned(everything, int(name.removesuffix(" %")) / 100)

    @cache  # noqa: B019
    def sample(self, corpus: str) -> dict[str, Any]:
        return sample_corpus(self.corpus(corpus), SAMPLE)

    @cache  # noqa: B019
    def gain(self, corpus: str, is_used: bool) -> np.ndarray:
        if not is_used:
            return np.ones(len(self.corpus(corpus).vocabulary), dtype=np.float32)
        return gene_gain(self.sample(corpus), TARGET_SUM, limits=(0.3, 3.0))

    @cache  # noqa: B019
    def genes(self, kind: str, dim: int, corpus: str, is_used: bool, seed: int) -> np.ndarray:
        """(n_genes, dim) gene embeddings of spread `EMBEDDING_STD`."""
        symbols = self.corpus("all").vocabulary
        if "+" in kind:
            return mixed(*(self.genes(part, dim // 2, corpus, is_used, seed) for part in kind.split("+")))
        if kind == "random":
            return random_embedding(len(symbols), dim, seed) * EMBEDDING_STD
        if kind == "loadings":
            found = gene_loadings(self.sample(corpus), dim, TARGET_SUM, gain=self.gain(corpus, is_used))
        elif kind == "STRING":
            found = string_embedding(self.data / "knowledge" / "string_v12_ppi_dmfind.tsv.gz", symbols, dim)
        else:
            found = bulk_embedding(
                self.data / "profiles" / "human_bulk.h5ad",
                self.data / "drug" / "bulk_nci60_23k.h5ad",
                symbols,
                dim,
            )
        return (found * EMBEDDING_STD / np.sqrt(np.mean(found**2))).astype(np.float32)

    @torch.no_grad()
    def start(self, arm: Arm, seed: int) -> Encoder:
        """The encoder of an arm before its first step."""
        fields = {"dim": DIM, "depth": 0} | arm.config
        config = CellLMConfig.named("small", n_genes=len(self.corpus("all").vocabulary))
        config = replace(config, **fields)
        kind = 0 if arm.genes != "random" else seed  # only random ones differ from seed to seed
        table = torch.from_numpy(self.genes(arm.genes, config.dim, arm.corpus, arm.gain, kind))
        torch.manual_seed(seed)
        if config.expression == "bins":
            encoder = Encoder(config)
            encoder.gene_embedding.weight[: len(table)] = table
            return encoder
        bag = Encoder(replace(config, depth=0, cell_depth=0))
        bag.gene_embedding.weight[: len(table)] = table
        bag.expression.log_gain[: len(table)] = torch.from_numpy(self.gain(arm.corpus, arm.gain)).log()
        _centre(bag, self.sample(arm.corpus))
        encoder = grow(bag, config)
        if config.dropout:  # a block that adds nothing has nothing to drop
            fresh = Encoder(config)
            encoder.cell_blocks.load_state_dict(fresh.cell_blocks.state_dict())
        return encoder

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


def _thinned(corpus: Corpus, share: float) -> Corpus:
    """A share of the cells of each dataset, at least one."""
    labels = {key: corpus.labels(key) for key in ("cell_type", "malignant")}
    parts = {}
    for i, name in enumerate(corpus.names):
        rng = np.random.default_rng([7, i])
        n_cells = int(corpus.sizes[i])
        rows = np.sort(rng.choice(n_cells, max(1, round(share * n_cells)), replace=False))
        obs = pd.DataFrame({key: column[i][rows].astype(str) for key, column in labels.items()})
        obs.index = obs.index.astype(str)
        parts[name] = ad.AnnData(
            corpus.counts(i, rows), obs=obs, var=pd.DataFrame(index=corpus.vocabulary.symbols)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Corpus.build(parts, corpus.vocabulary, min_overlap=0.0)


@torch.no_grad()
def _centre(bag: Encoder, sample: dict[str, Any]) -> None:
    """Set the bias so that the mean cell is at zero, as `train.start_from_corpus` does."""
    means = []
    for counts in sample.values():
        values = log_normalize(counts[:: max(1, counts.shape[0] // 200)], TARGET_SUM)
        values = values[np.diff(values.indptr) > 0]
        packed = (values.indices.astype(np.int64), values.data, values.indptr.astype(np.int64))
        means.append(encode_bag(bag, *(torch.from_numpy(x) for x in packed), finished=False).mean(0))
    bag.expression.bias -= torch.stack(means).mean(0)


def run(workshop: Workshop, arm: Arm, seed: int, seconds: float) -> list[dict[str, Any]]:
    """Train one arm from one seed; records of its scores."""
    encoder = workshop.start(arm, seed)
    begun = grow(encoder, encoder.config) if arm.group == "base" else None
    record: dict[str, Any] = {"group": arm.group, "arm": arm.name, "seed": seed, "steps": 0, "seconds": 0.0}
    if arm.times:
        recipe = PretrainConfig.from_dict(BASE | arm.recipe | {"max_time": seconds * arm.times, "seed": seed})
        cpu = SimpleNamespace(monotonic=time.process_time)  # max_time and the schedule by processor time
        with patch.object(_loop, "time", cpu), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = _loop.Run(
                encoder, workshop.corpus(arm.corpus), recipe, torch.device("cpu"), World.current()
            )
            trainer.train(None, "auto", show_progress=False)
        record |= {
            "steps": trainer.n_done,
            "cells": trainer.n_done * recipe.batch_size,
            "seconds": trainer.seconds,
        }
    found = [record | _scores(workshop.score_model(encoder, arm.read))]
    if begun is not None and seed < 2:  # the same weights, read otherwise
        for read in (256, 512, 4096):
            other = {"group": "genes read", "arm": f"{read:,} most expressed"}
            found.append(record | other | _scores(workshop.score_model(encoder, read)))
        for share in (0.5, 0.8):
            other = {"group": "average", "arm": f"{share:g} of the way from the start"}
            half = average(begun, encoder, share)
            found.append(record | other | _scores(workshop.score_model(half, arm.read)))
    return found


def _scores(sets: dict[str, float]) -> dict[str, Any]:
    unseen = [x for name, x in sets.items() if name not in SEEN]
    return {"sets": sets, "mean": float(np.mean(list(sets.values()))), "unseen": float(np.mean(unseen))}


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
    parser.add_argument("--again", nargs="*", default=[], help="arms to run again")
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
    if not options.page:
        workshop = Workshop(options.corpus, options.data)
        results |= {"machine": machine(), "seconds": options.seconds}
        if "PCA" not in results:
            results["PCA"] = _scores(workshop.score(pca))
            _store(results, options.store)
        todo = [arm for arm in arms() if not options.only or arm.group in options.only]
        pairs = [(arm, seed) for arm in todo for seed in arm.seeds]
        for arm, seed in sorted(pairs, key=lambda pair: pair[1]):  # all arms once, then again
            if options.until and datetime.datetime.now().strftime("%H:%M") >= options.until:
                print("the time is over")
                return
            done = {(r["group"], r["arm"], r["seed"]) for r in results["runs"]}
            if (arm.group, arm.name, seed) in done and arm.name not in options.again:
                continue
            began = time.monotonic()
            found = run(workshop, arm, seed, options.seconds)
            new = {(r["group"], r["arm"], r["seed"]) for r in found}
            kept = [r for r in results["runs"] if (r["group"], r["arm"], r["seed"]) not in new]
            results["runs"] = kept + found
            _store(results, options.store)
            print(
                f"{arm.key}, seed {seed}: {found[0]['steps']} steps, {found[0]['mean']:.4f} "
                f"(unseen {found[0]['unseen']:.4f}), {time.monotonic() - began:.0f} s",
                flush=True,
            )
    if results["runs"]:
        from _ablation_page import write_page

        print(write_page(results, [arm.key for arm in arms()]))


if __name__ == "__main__":
    main()
