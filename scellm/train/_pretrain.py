"""Pretraining: batch, step, log."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data import log_normalize
from ..nn import CellLMConfig, ContrastiveHead, Encoder
from ._bag import encode_bag
from ._info_nce import info_nce
from ._losses import masked_gene_loss
from ._views import ViewConfig, draw_view

NOT_IN_BAG = ("blocks.", "masked_gene.", "expression.mask_embedding")
"""Beginnings of the names of parameters that an encoder of depth 0 does not use."""
LOG_EVERY = 20
"""Steps between two lines of the log."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Recipe of one pretraining run (ours, where the paper gives no number).

    Parameters
    ----------
    batch_size
        Cells contrasted together, all from one dataset: telling datasets apart would be too easy.
    n_steps
        Optimiser steps.
    learning_rate, warmup, weight_decay
        Peak of a cosine schedule, its linear warm-up as a share of the steps, and AdamW's decay of matrices.
    temperature
        Temperature of the contrastive loss.
    contrastive_weight, masked_gene_weight
        Weights of the two losses; 0 switches one off.
    mask_rate
        Share of the second view's genes whose value is hidden.
    dataset_power
        A dataset of n cells is drawn with probability proportional to n to this power.
    bag
        Train only what the encoder has without its blocks (see `encode_bag`): a fast first stage. No masked
        gene modelling then.
    keep_bag
        Train only what the bag does not have: blocks and heads.
    precision
        Of the encoder's matrix products; losses and weights are always fp32.
    views
        How views are drawn.
    """

    batch_size: int = 256
    n_steps: int = 1000
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    temperature: float = 0.1
    contrastive_weight: float = 1.0
    masked_gene_weight: float = 0.3
    mask_rate: float = 0.2
    dataset_power: float = 0.5
    bag: bool = False
    keep_bag: bool = False
    precision: Literal["fp32", "bf16"] = "bf16"
    views: ViewConfig = dataclasses.field(default_factory=ViewConfig)


def gene_gain(
    corpus: Mapping[str, sp.csr_array], target_sum: float, *, limits: tuple[float, float]
) -> np.ndarray:
    """Inverse of twice the spread of each gene's log1p expression, averaged over datasets, (n_genes,).

    Every dataset counts the same, so that a gene seen in one small tissue keeps its own scale there.
    """
    square_sum, n_seen = 0.0, 0.0
    for counts in corpus.values():
        row_scale = target_sum / np.maximum(counts.sum(1, dtype=np.float64), 1)
        data = np.log1p(counts.data * np.repeat(row_scale, np.diff(counts.indptr)))
        values = sp.csr_array((data, counts.indices, counts.indptr), shape=counts.shape)
        mean = values.mean(0)
        variance = np.maximum(values.multiply(values).mean(0) - mean**2, 0)
        square_sum, n_seen = square_sum + variance, n_seen + (variance > 0)
    spread = np.sqrt(square_sum / np.maximum(n_seen, 1))
    gain = 1 / (2 * np.where(spread > 0, spread, np.median(spread[spread > 0])))
    return np.clip(gain, *limits).astype(np.float32)


@torch.no_grad()
def start_from_corpus(encoder: Encoder, corpus: Mapping[str, sp.csr_array], target_sum: float) -> None:
    """Set the gains of a continuous encoder from the corpus, and its bias so that the mean cell is at zero.

    Without the second, the part all cells share (ribosomal, mitochondrial genes) is most of the embedding
    and the first thousand steps go into removing it.
    """
    gain = gene_gain(corpus, target_sum, limits=(0.3, 3.0))
    expression = encoder.expression
    expression.log_gain[: len(gain)] = torch.from_numpy(np.log(gain))
    bags = []
    for counts in corpus.values():
        values = log_normalize(counts[:: max(1, counts.shape[0] // 200)], target_sum)
        values = values[np.diff(values.indptr) > 0]
        gene_ids = torch.from_numpy(values.indices.astype(np.int64))
        indptr = torch.from_numpy(values.indptr.astype(np.int64))
        bags.append(
            encode_bag(encoder, gene_ids, torch.from_numpy(values.data), indptr, finished=False).mean(0)
        )
    expression.bias -= torch.stack(bags).mean(0)


@torch.no_grad()
def grow(bag: Encoder, config: CellLMConfig) -> Encoder:
    """A deeper encoder that starts as the bag: what its new blocks add is zero until trained.

    Parameters
    ----------
    bag
        Encoder of depth 0.
    config
        The deeper architecture; otherwise as that of `bag`.
    """
    encoder = Encoder(config)
    encoder.load_state_dict(encoder.state_dict() | bag.state_dict())
    for block in encoder.blocks:
        for last in (block.attention.to_out, block.feed_forward.contract):
            last.weight.zero_()
            last.bias.zero_()
    for block in encoder.cell_blocks[len(bag.cell_blocks) :]:
        block.contract.weight.zero_()
        block.contract.bias.zero_()
    return encoder


@torch.no_grad()
def average(start: Encoder, trained: Encoder, share: float) -> Encoder:
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


def pretrain(
    encoder: Encoder,
    corpus: Mapping[str, sp.csr_array],
    config: PretrainConfig,
    *,
    rng: np.random.Generator,
    device: torch.device | str = "cpu",
    log: Callable[[dict[str, float]], None] | None = None,
    show_progress: bool = True,
    max_seconds: float = math.inf,
) -> Encoder:
    """Train an encoder with masked gene modelling and an in-batch contrastive loss, in place.

    Parameters
    ----------
    encoder
        The encoder to train.
    corpus
        Linear expression of each dataset, (n_cells, n_genes) CSR over the encoder's vocabulary.
    config
        The recipe.
    rng
        Source of all randomness but dropout's.
    device
        Where to train.
    log
        Called every 20 steps with step, seconds, learning rate and the mean of each loss since the last call.
    show_progress
        Whether to show a progress bar.
    max_seconds
        The schedule is shortened to end by then.
    """
    device = torch.device(device)
    encoder = encoder.to(device).train()
    head = ContrastiveHead(encoder.config.dim, encoder.config.dim).to(device)
    kept = [
        p for name, p in encoder.named_parameters() if config.keep_bag and not name.startswith(NOT_IN_BAG)
    ]
    for parameter in kept:
        parameter.requires_grad_(requires_grad=False)
    optimizer = _optimizer([encoder, head], config)
    names = list(corpus)
    sizes = np.array([corpus[name].shape[0] for name in names], dtype=float)
    chance = sizes**config.dataset_power / (sizes**config.dataset_power).sum()
    start = time.monotonic()
    since_log: dict[str, list[float]] = {}
    progress = tqdm(total=config.n_steps, disable=not show_progress, desc="pretrain")
    for step in range(config.n_steps):
        elapsed = time.monotonic() - start
        done = max(step / config.n_steps, elapsed / max_seconds)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(done, config.warmup)
        counts = corpus[names[rng.choice(len(names), p=chance)]]
        rows = rng.choice(counts.shape[0], size=min(config.batch_size, counts.shape[0]), replace=False)
        losses = _losses(encoder, head, counts[np.sort(rows)], config, rng, device)
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*encoder.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        for name, value in losses.items():
            since_log.setdefault(name, []).append(value.item())
        progress.update()
        if step % LOG_EVERY == 0:
            means = {name: float(np.mean(values)) for name, values in since_log.items()}
            since_log.clear()
            progress.set_postfix({name: f"{mean:.3f}" for name, mean in means.items()})
            if log is not None:
                log({"step": step, "seconds": elapsed, "learning_rate": group["lr"], **means})
    progress.close()
    for parameter in kept:
        parameter.requires_grad_(requires_grad=True)
    return encoder.eval()


def _losses(
    encoder: Encoder,
    head: ContrastiveHead,
    counts: sp.csr_array,
    config: PretrainConfig,
    rng: np.random.Generator,
    device: torch.device,
) -> dict[str, Tensor]:
    """The weighted losses of one batch; masks and views are drawn here, before anything is encoded."""
    encoded, masked = [], None
    views = [draw_view(counts, config.views, rng) for _ in range(2)]
    present = np.flatnonzero((views[0].lengths > 0) & (views[1].lengths > 0))
    for i, view in enumerate(views):
        if config.bag:
            view = view[present]
            tensors = (torch.from_numpy(x).to(device) for x in (view.gene_ids, view.values, view.indptr))
            encoded.append(head(encode_bag(encoder, *tensors)))
            continue
        gene_ids, values, is_gene = (torch.from_numpy(x).to(device) for x in view.padded(present))
        is_masked = None
        if i == 1 and config.masked_gene_weight:
            is_masked = torch.from_numpy(rng.random(is_gene.shape) < config.mask_rate).to(device) & is_gene
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            encoding = encoder(gene_ids, values, is_gene, is_masked=is_masked)
            if is_masked is not None:
                masked = masked_gene_loss(encoder.masked_gene(encoding.genes).float(), values, is_masked)
            encoded.append(head(encoding.cells).float())
    losses = {}
    if config.contrastive_weight:
        losses["contrastive"] = config.contrastive_weight * info_nce(*encoded, temperature=config.temperature)
    if masked is not None:
        losses["masked_gene"] = config.masked_gene_weight * masked
    return losses


def _optimizer(modules: list[torch.nn.Module], config: PretrainConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices but not embeddings, norms, gains and biases."""
    decayed, kept = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            is_matrix = parameter.ndim == 2 and "embedding" not in name
            (decayed if is_matrix else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def _schedule(done: float, warmup: float) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if done < warmup:
        return max(done / warmup, 1e-3)
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
