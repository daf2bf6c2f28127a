"""pretrain: cells -> an encoder of them."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch

from .._version import __version__
from ..data import Corpus, GeneVocabulary, Sampler, TokenConfig
from ..models import CellLM, choose_device
from ..nn import CellLMConfig, Encoder
from ..train import PretrainConfig, World, deepen, init_from_corpus, sample_corpus, sample_labels, train
from ..train._recipe import GeneInit, check_gene_init
from ..train._start import growth_problems

if TYPE_CHECKING:
    from anndata import AnnData

SAMPLE = 300
"""Cells of each dataset from which the scales of a new continuous encoder are taken."""


def pretrain(
    data: AnnData | str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any] | Corpus,
    *,
    config: CellLMConfig | Literal["tiny", "small", "transformer", "base"] = "transformer",
    init: CellLM | None = None,
    gene_init: Literal["random", "pca", "lda"] = "random",
    dropout: float | None = None,
    objectives: Mapping[str, float] | Sequence[str] | None = None,
    batch_size: int = 4096,
    max_steps: int | None = None,
    device: torch.device | str = "auto",
    vocabulary: GeneVocabulary | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    max_genes: int = 2048,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never", "must", "force"] = "auto",
    rng: int = 0,
    name: str | None = None,
    show_progress: bool = True,
    **recipe: Any,
) -> CellLM:
    """Pretrain a CellLM encoder on your cells :cite:p:`Zhao2023`.

    Each step draws `batch_size` cells over all datasets and two views of each, and asks the encoder to find the other
    view of a cell among the others (`"contrastive"`), to fill in hidden genes (`"masked_gene"`), and, where labels
    are there, to tell cancer from normal cells or types apart. The divide-and-conquer step makes the batch as large as
    you like in the memory you have, see the guide page on pretraining.

    Parameters
    ----------
    data
        Cells with raw counts or log1p values: an AnnData, an `.h5ad` file, a folder of them, a file of
        `scellm pack`, an annbatch collection, several of those in a list, or by name in a mapping. Files are read in
        blocks, never whole unless they are small.
    config
        Architecture: a `CellLMConfig`, or the name of one.
    init
        Model to start from. With a `config` that is deeper it gets new blocks, which add nothing at first.
        `None` starts from random weights, a continuous encoder with its scales taken from the data.
    gene_init
        Where gene embeddings of a new continuous encoder start: `"random"`; `"pca"`, loadings of the principal
        components within the datasets (`train.gene_loadings`), which spares the first minutes of training; or `"lda"`,
        linear discriminants of labeled cell types (`train.gene_discriminants`).
    dropout
        Replaces the dropout of the architecture.
    objectives
        What to train on: names, or names and weights; see `train.PretrainConfig`. `None` is `"contrastive"` and
        `"masked_gene"`; contrast alone for a bag (depth 0), which sees no other gene of the cell.
    batch_size
        Cells contrasted together, over all processes.
    max_steps
        Optimizer steps after which the run ends, unless `max_epochs` or `max_time` end it first. With none of them it
        is 10 epochs.
    device
        `"auto"` takes CUDA, then MPS, then the CPU.
    vocabulary
        Genes of the model; `None` is that of `init` or of packed data, or the packaged human genes.
    layer, gene_key
        As in `tl.embed`, for all of `data`.
    min_overlap
        Fraction of the vocabulary each dataset must hold.
    max_genes
        Longest cell the finished model reads.
    checkpoint_dir
        Folder for checkpoints and `log.csv`. Without it an interrupted run is lost.
    resume
        `"auto"` goes on from the newest checkpoint in the folder, if there is one. `"must"` refuses if there is none,
        `"never"` if there is one; nothing is overwritten. `"force"` goes on although corpus or recipe have changed.
    rng
        Seed of everything random.
    name
        Name of the model; `None` is `"pretrained-"` and that of the configuration, as in `"pretrained-transformer"`. Names
        that begin with `"scellm-"` are those of models that come with scellm.
    show_progress
        Show a progress bar.
    recipe
        Other fields of `train.PretrainConfig`, such as `views`, `max_epochs`, `max_time`, `learning_rate`,
        `temperature`, `negatives`, `precision` and `memory_budget`.

    Returns
    -------
    The model, ready for `tl.embed` and `models.save`. `model.history` is the log as a `DataFrame`, one line every
    `log_every` steps: losses, learning rate, gradient norm, alignment, uniformity and anisotropy of embeddings, cells
    per second, peak memory in GiB.

    Raises
    ------
    ValueError
        An unknown or impossible option (with the nearest known one); a batch larger than the corpus; a budget smaller
        than one cell; a dataset without enough vocabulary genes or with values that are not finite; labels missing for
        an objective; a checkpoint of another architecture, vocabulary, corpus or recipe.
    KeyError
        A column, layer or objective that is not there.
    TypeError
        `data` is none of the above.
    FileExistsError, FileNotFoundError
        `resume` and `checkpoint_dir` do not fit.
    FloatingPointError
        A loss is not finite.
    OSError
        A checkpoint could not be written.
    RuntimeError
        Another process of the run is gone, or training has collapsed (`train.CollapseError`, which says what to
        change).

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(64, n_vars=400)
    >>> model = scellm.tl.pretrain(
    ...     adata, config="tiny", batch_size=32, max_steps=2, min_overlap=0.01, show_progress=False
    ... )
    >>> model.history["step"].tolist()
    [1.0, 2.0]
    """
    if objectives is None:
        kind = CellLMConfig.named(config) if isinstance(config, str) else config
        is_bag = isinstance(kind, CellLMConfig) and kind.is_bag
        objectives = ["contrastive"] if is_bag else PretrainConfig().objectives
    settings = PretrainConfig.from_dict(
        {"objectives": objectives, "batch_size": batch_size, "max_steps": max_steps, "seed": rng, **recipe}
    )
    tokens = TokenConfig(target_sum=settings.views.target_sum, max_genes=max_genes)
    if vocabulary is None and init is not None:
        vocabulary = init.vocabulary
    corpus = data
    if not isinstance(data, Corpus):
        corpus = Corpus.build(data, vocabulary, layer=layer, gene_key=gene_key, min_overlap=min_overlap)
    Sampler(
        corpus.sizes, batch_size=settings.batch_size
    )  # refuses a batch larger than the corpus before any work
    check_gene_init(gene_init)
    architecture = _architecture(config, dropout, len(corpus.vocabulary))
    _check_init(init, corpus, architecture)
    chosen, world = choose_device(device), World.current()
    encoder = start_encoder(architecture, init, corpus, tokens.target_sum, rng, gene_init, settings.type_key)
    history = train(
        encoder,
        corpus,
        settings,
        device=chosen,
        world=world,
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        resume=resume,
        show_progress=show_progress,
    )
    return CellLM(
        encoder=encoder.to("cpu"),
        config=architecture,
        tokens=tokens,
        vocabulary=corpus.vocabulary,
        provenance=_provenance(corpus, settings, history, chosen, world, init, gene_init),
        name=name or f"pretrained-{config if isinstance(config, str) else 'custom'}",
        history=pd.DataFrame(history),
    )


def _architecture(config: CellLMConfig | str, dropout: float | None, n_genes: int) -> CellLMConfig:
    """The architecture over this vocabulary."""
    if isinstance(config, str):
        config = CellLMConfig.named(config, n_genes=n_genes)
    if not isinstance(config, CellLMConfig):
        msg = f"config is a CellLMConfig or the name of one, found {type(config).__name__}."
        raise TypeError(msg)
    if config.n_genes != n_genes:
        msg = f"config.n_genes is {config.n_genes}, but the vocabulary has {n_genes} genes; both must be the same."
        raise ValueError(msg)
    return config if dropout is None else dataclasses.replace(config, dropout=dropout)


def _check_init(init: CellLM | None, corpus: Corpus, config: CellLMConfig) -> None:
    """That a model can be the start of this run."""
    if init is None:
        return
    if not isinstance(init, CellLM):
        msg = f"init is a loaded model, found {type(init).__name__}; load one with scellm.models.load(...)."
        raise TypeError(msg)
    if init.vocabulary != corpus.vocabulary:
        msg = (
            f"init has a vocabulary of {len(init.vocabulary)} genes, the data one of {len(corpus.vocabulary)}; both must "
            "be the same. Build or pack the data with vocabulary=init.vocabulary."
        )
        raise ValueError(msg)
    if problems := growth_problems(init.config, config):
        msg = (
            f"init has another architecture ({', '.join(problems)}): only depth may grow. Give config the same fields as "
            "init.config, or train without init."
        )
        raise ValueError(msg)


def start_encoder(
    config: CellLMConfig,
    init: CellLM | None,
    corpus: Corpus,
    target_sum: float,
    seed: int,
    gene_init: GeneInit,
    type_key: str = "cell_type",
) -> Encoder:
    """The encoder before its first step: the same every time; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if init is not None:
            return deepen(init.encoder.to("cpu"), config)
        encoder = Encoder(config)
        if config.expression == "continuous":
            sample = sample_corpus(corpus, SAMPLE, seed=seed)
            labels = sample_labels(corpus, type_key, SAMPLE, seed=seed) if gene_init == "lda" else None
            init_from_corpus(encoder, sample, target_sum, gene_init=gene_init, labels=labels, seed=seed)
        return encoder


def _provenance(
    corpus: Corpus,
    recipe: PretrainConfig,
    history: list[dict[str, float]],
    device: torch.device,
    world: World,
    init: CellLM | None,
    gene_init: str,
) -> dict[str, Any]:
    """What `config.json` and the model card say about the training."""
    last = history[-1] if history else {}
    return {
        "description": f"Pretrained with {', '.join(recipe.objectives)} on {corpus.n_cells} cells.",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "minutes": round(last.get("seconds", 0.0) / 60, 1),
        "steps": int(last.get("step", 0)),
        "device": f"{device.type}, {world.size} process{'es' if world.size > 1 else ''}",
        "started_from": f"{gene_init} gene embeddings" if init is None else init.name,
        "n_cells": corpus.n_cells,
        "datasets": {name: dict(about) for name, about in corpus.about.items()},
        "corpus_fingerprint": corpus.fingerprint,
        "recipe": recipe.to_dict(),
        "versions": {"scellm": __version__, "torch": torch.__version__},
    }
