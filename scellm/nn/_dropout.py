"""Dropout whose mask depends on the cell, the layer and nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16
"""A hidden unit is kept or not by 16 random bits."""
_GOLDEN, _FIRST, _SECOND = -1640531527, -2048144789, -1028477387
"""2^32 / golden ratio, and the two multipliers of MurmurHash3's finaliser, as signed 32-bit numbers."""


class CellDropout(nn.Module):
    """Dropout with masks that are computed from a key per cell instead of drawn.

    Whether a unit is kept is a hash of the cell's key, the layer (`salt`) and the unit's place in the cell. So the
    mask of a cell is the same whatever other cells are in the batch, how long the batch is filled up, which device
    or process computes it, and whether it is the first or the second time. Without keys it is torch's dropout.

    Parameters
    ----------
    rate
        Share of units set to zero; the others are scaled by 1 / (1 - rate).
    salt
        Tells layers apart; the encoder numbers its own.
    """

    def __init__(self, rate: float, salt: int = 0) -> None:
        super().__init__()
        self.rate = rate
        self.salt = salt

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Drop units of (B, ..., D) hidden states by (B,) int64 keys."""
        if not self.training or not self.rate:
            return x
        if keys is None:
            return F.dropout(x, self.rate)
        is_kept = keep_mask(keys, x[0].numel(), salt=self.salt, rate=self.rate).view(x.shape)
        return torch.where(is_kept, x / (1 - self.rate), 0.0)  # only the mask is kept for the backward pass

    def extra_repr(self) -> str:
        return f"rate={self.rate}, salt={self.salt}"


def keep_mask(keys: Tensor, n_units: int, *, salt: int, rate: float) -> Tensor:
    """Which units stay, (B,) int64 -> (B, n_units) bool: a counter-based generator, two units per 32-bit hash."""
    keys = keys ^ (salt * 0x9E3779B97F4A7C15 % (1 << 63))
    low = keys.to(torch.int32).unsqueeze(1)
    high = (keys >> 32).to(torch.int32).unsqueeze(1)
    bits = (
        torch.arange(-(-n_units // 2), dtype=torch.int32, device=keys.device) * _GOLDEN + low
    )  # (B, n_units/2)
    # shifts of signed numbers copy the sign, hence the masks
    bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF)).mul_(_FIRST).bitwise_xor_(high)
    bits.bitwise_xor_((bits >> 13).bitwise_and_(0x7FFFF)).mul_(_SECOND)
    bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF))
    return bits.view(torch.int16)[:, :n_units] >= round(rate * LEVELS) - LEVELS // 2
