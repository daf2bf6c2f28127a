"""Pieces of fine-tuning: the head, cells of a batch, thinning of genes, the loss."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Tokens


class Head(nn.Module):
    """Scores of K classes: unit vector, minus center, over scale, times weights, (B, D) -> (B, K)."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("centre", torch.from_numpy(np.asarray(centre, np.float32)))
        self.register_buffer("scale", torch.from_numpy(np.asarray(scale, np.float32)))
        self.weight = nn.Parameter(torch.from_numpy(np.asarray(weight, np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(np.asarray(bias, np.float32)))

    def forward(self, cells: Tensor) -> Tensor:
        return F.linear((F.normalize(cells, dim=1) - self.centre) / self.scale, self.weight, self.bias)


class BatchRows:
    """Cells of a batch as the divide-and-conquer step takes them apart."""

    def __init__(self, tokens: Tokens, device: torch.device, *, is_packed: bool) -> None:
        self.tokens, self.is_packed, self.device = tokens, is_packed, device
        self.lengths = tokens.lengths

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: np.ndarray) -> dict[str, Tensor]:
        arrays = self.tokens.arrays(rows, is_packed=self.is_packed) | {"rows": rows}
        return {name: torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for name, x in arrays.items()}


def thin(tokens: Tokens, most: float, generator: np.random.Generator) -> Tokens:
    """Leave out a share of the genes of each cell, drawn between 0 and `most`; one gene always stays."""
    if most == 0:
        return tokens
    lengths = tokens.lengths
    share = np.repeat(generator.uniform(0, most, len(tokens)), lengths)
    kept = generator.random(len(tokens.values)) >= share
    kept[tokens.indptr[:-1]] |= np.add.reduceat(kept, tokens.indptr[:-1]) == 0
    indptr = np.concatenate([[0], np.cumsum(kept)])[tokens.indptr]
    return Tokens(tokens.gene_ids[kept], tokens.values[kept], indptr)


def cross_entropy(logits: np.ndarray, codes: np.ndarray) -> float:
    """Mean negative log-probability of the true classes; those the training cells lack count as impossible, 1e-12."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-np.maximum(log_p[np.arange(len(codes)), codes], np.log(1e-12)).mean())


def digest_of(state: dict[str, Tensor]) -> str:
    """SHA-256 of weights."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
