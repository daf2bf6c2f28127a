"""The objectives, pure functions of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
