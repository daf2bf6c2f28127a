"""A bag of genes made wider by principal components of some cells: closed form, without training."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
import torch

from ..nn import Encoder
from ._gene_directions import _components, bag_values

FAINT = 0.003
"""Length of the new coordinates before the norm, relative to the old ones: too short to change these."""
N_ROUNDS = 4
"""Rounds of the iteration that finds principal axes."""


@torch.no_grad()
def widen(
    bag: Encoder,
    cells: dict[str, sp.csr_array],
    target_sum: float,
    *,
    n_components: int,
    weight: float,
    seed: int = 0,
) -> Encoder:
    """The bag with more coordinates: principal components of what it multiplies its gene embeddings with (ours).

    The old coordinates of every cell stay as they are. The new ones are its scores on the principal axes within the
    given datasets, `weight` times as long as the old ones (root mean square around the mean of the cells).

    Parameters
    ----------
    bag
        Encoder of depth 0 without cell blocks, D coordinates.
    cells
        (n_cells, n_genes) linear expression of each dataset; differences between their means do not count.
    target_sum
        Counts per cell after normalization.
    n_components
        Number K of new coordinates at most; cells that span fewer get fewer.
    weight
        Their length relative to that of the old ones.
    seed
        Of the random directions that the iteration starts from.

    Returns
    -------
    An encoder of D + K coordinates.
    """
    config, n_genes = bag.config, bag.config.n_genes
    gain = bag.expression.log_gain[:n_genes].exp().numpy()
    values = {name: bag_values(counts, config, target_sum, gain) for name, counts in cells.items()}
    axes, _ = _components(values, n_components, seed=seed, n_rounds=N_ROUNDS)
    mean = (np.mean([part.mean(0) for part in values.values()], axis=0) @ axes).astype(np.float32)  # (K,)
    stacked = sp.csr_array(sp.vstack(list(values.values()), format="csr"))
    old = _pooled(bag, stacked)
    length = np.linalg.norm(stacked @ axes - mean, axis=1).mean()
    faint = FAINT * float(old.std(1, correction=0).mean()) * config.dim**0.5 / max(float(length), 1e-12)
    with torch.random.fork_rng(devices=[]):
        grown = Encoder(dataclasses.replace(config, dim=config.dim + axes.shape[1]))
    _fill(grown, bag, torch.from_numpy(axes) * faint, -torch.from_numpy(mean) * faint)
    spreads = [
        (x - x.mean(0)).square().sum(1).mean()
        for x in grown.norm(_pooled(grown, stacked)).tensor_split([config.dim], 1)
    ]
    grown.norm.weight[config.dim :] *= weight * (spreads[0] / spreads[1].clamp(min=1e-30)).sqrt()
    return grown.eval()


def _pooled(bag: Encoder, values: sp.csr_array) -> torch.Tensor:
    """Sums before the norm from what gene embeddings are multiplied with, (n_cells, D)."""
    table = bag.gene_embedding.weight[: bag.config.n_genes].numpy()
    return torch.from_numpy(np.asarray(values @ table)) + bag.expression.bias


def _fill(grown: Encoder, bag: Encoder, axes: torch.Tensor, bias: torch.Tensor) -> None:
    """Weights of the wider bag: the old coordinates centered and stretched, so that the norm gives what it gave."""
    dim, n_genes = bag.config.dim, bag.config.n_genes
    stretch = (grown.config.dim / dim) ** 0.5
    grown.expression.log_gain.copy_(bag.expression.log_gain)
    for new, old in (
        (grown.gene_embedding.weight, bag.gene_embedding.weight),
        (grown.expression.bias, bag.expression.bias),
        (grown.expression.mask_embedding, bag.expression.mask_embedding),
    ):
        new.zero_()
        new[..., :dim] = (old - old.mean(-1, keepdim=True)) * stretch
    grown.gene_embedding.weight[:n_genes, dim:] = axes
    grown.expression.bias[dim:] = bias
    grown.norm.weight[:dim], grown.norm.bias[:dim] = bag.norm.weight / stretch, bag.norm.bias
    grown.norm.weight[dim:], grown.norm.bias[dim:] = 1, 0
    head, old_head = grown.masked_gene, bag.masked_gene
    head.weight.zero_()
    head.weight[:, :dim], head.bias[:] = old_head.weight, old_head.bias
