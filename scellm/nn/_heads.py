"""Small networks on top of the encoder."""

from __future__ import annotations

from torch import Tensor, nn


class MaskedGeneHead(nn.Linear):
    """Predicts the expression bin of a masked gene from its hidden state, (..., D) -> (..., n_tokens)."""


class ContrastiveHead(nn.Sequential):
    """Maps cell embeddings to the space of the contrastive loss, (B, D) -> (B, size); used in training only."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, size))

    def forward(self, cells: Tensor) -> Tensor:
        return super().forward(cells)


class MaskedValueHead(nn.Linear):
    """Predicts the log1p expression of a masked gene from its hidden state, (..., D) -> (..., 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 1)


class CancerHead(nn.Linear):
    """Log-odds that a cell is malignant from its embedding, (B, D) -> (B, 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 1)
