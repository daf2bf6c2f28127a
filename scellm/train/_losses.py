"""The objectives, pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Contrastive loss between two views of the same cells, averaged over both directions.

    With unit vectors a, b and temperature t: -log exp(a_i . b_i / t) / sum_j exp(a_i . b_j / t).

    Parameters
    ----------
    first, second
        (B, D) representations; row i of both is one cell.
    temperature
        Temperature t.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature  # (B, B)
    same = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


def masked_gene_loss(logits: Tensor, values: Tensor, is_masked: Tensor) -> Tensor:
    """Cross-entropy of the expression bin of masked genes (paper, section 3.2.1).

    Parameters
    ----------
    logits
        (B, G, C) predicted bins; the last two of the C classes are CLS and PAD.
    values
        (B, G) log1p expression.
    is_masked
        (B, G) bool.
    """
    bins = values[is_masked].clamp(0, logits.shape[-1] - 3).long()
    return F.cross_entropy(logits[is_masked], bins)
