"""The objectives that are sums over cells, pure functions of tensors."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "sum"]


def masked_gene_loss(
    logits: Tensor, values: Tensor, is_masked: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy of the expression bin of masked genes (paper, section 3.2.1).

    Parameters
    ----------
    logits
        (B, G, C) predicted bins; the last two of the C classes are CLS and PAD.
    values
        (B, G) log1p expression.
    is_masked
        (B, G) bool.
    reduction
        Over masked genes.
    """
    bins = values[is_masked].clamp(0, logits.shape[-1] - 3).long()
    return F.cross_entropy(logits[is_masked], bins, reduction=reduction)


def masked_value_loss(
    predicted: Tensor, values: Tensor, is_masked: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Squared error of the log1p expression of masked genes (ours): `masked_gene_loss` without bins.

    Parameters
    ----------
    predicted
        (B, G) log1p expression.
    values, is_masked, reduction
        As in `masked_gene_loss`.
    """
    return F.mse_loss(predicted[is_masked], values[is_masked], reduction=reduction)


def normal_cancer_loss(logits: Tensor, is_cancer: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of normal against cancer cells (paper, section 3.2.2); cells without a label do not count.

    Parameters
    ----------
    logits
        (B,) log-odds of cancer.
    is_cancer
        (B,) 1 cancer, 0 normal, NaN unknown.
    reduction
        Over labeled cells; without any the loss is 0.
    """
    is_known = ~is_cancer.isnan()
    loss = F.binary_cross_entropy_with_logits(logits[is_known], is_cancer[is_known], reduction="sum")
    return loss if reduction == "sum" else loss / is_known.sum().clamp(min=1).to(torch.float32)
