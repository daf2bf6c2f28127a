"""Random numbers that are computed from keys instead of drawn, and counts thinned by them, on any device.

The same keys give the same numbers whatever device or process computes them, and however cells are divided.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL_MEAN = 16.0
"""Up to this mean a count is found exactly, by adding up probabilities; above, from a normal number corrected for skew."""
MOST = 100
"""Largest count that is looked for by adding up; with a mean of 16 a larger one has a chance below 1e-40."""
_GOLDEN, _FIRST, _SECOND = -1640531527, -2048144789, -1028477387
"""2^32 / golden ratio, and the two multipliers of MurmurHash3's finaliser, as signed 32-bit numbers."""


def uniform(keys: Tensor, places: Tensor) -> Tensor:
    """Numbers between 0 and 1, both excluded, in steps of 2^-23, float32.

    Parameters
    ----------
    keys
        (n,) int64.
    places
        (n,) int32, which number of each key.
    """
    bits = places * _GOLDEN + keys.to(torch.int32)
    # shifts of signed numbers copy the sign, hence the masks
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * _FIRST ^ (keys >> 32).to(torch.int32)
    bits = (bits ^ ((bits >> 13) & 0x7FFFF)) * _SECOND
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    return (((bits >> 9) & 0x7FFFFF).float() + 0.5) * 2.0**-23


def binomial(counts: Tensor, share: Tensor, u: Tensor) -> Tensor:
    """Binomial draws by inversion, (n,) float32.

    Parameters
    ----------
    counts
        (n,) whole numbers, float32.
    share
        (n,) chance of each count to stay.
    u
        (n,) numbers between 0 and 1.
    """
    is_flipped = share > 0.5  # the rarer outcome is counted
    rare = torch.where(is_flipped, 1 - share, share)
    mean = counts * rare
    drawn = torch.zeros_like(u)
    large, small = _by_size(mean)
    p = rare[large]
    variance = mean[large] * (1 - p)
    drawn[large] = _normal(mean[large], variance, (1 - 2 * p) * variance.rsqrt(), u[large])
    n, p = counts[small], rare[small]
    drawn[small] = _inverted(torch.exp(n * torch.log1p(-p)), p / (1 - p), n, u[small])
    drawn = torch.minimum(drawn, counts)
    return torch.where(is_flipped, counts - drawn, drawn)


def poisson(mean: Tensor, u: Tensor) -> Tensor:
    """Poisson draws by inversion, (n,) float32."""
    drawn = torch.zeros_like(u)
    large, small = _by_size(mean)
    drawn[large] = _normal(mean[large], mean[large], mean[large].rsqrt(), u[large])
    drawn[small] = _inverted(torch.exp(-mean[small]), mean[small], None, u[small])
    return drawn


def _by_size(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Places of large and of small means; where it is 0 nothing is drawn."""
    is_large = mean > SMALL_MEAN
    return torch.nonzero(is_large).squeeze(1), torch.nonzero(~is_large & (mean > 0)).squeeze(1)


def _normal(mean: Tensor, variance: Tensor, skew: Tensor, u: Tensor) -> Tensor:
    """Whole numbers of about these moments: the first terms of Cornish and Fisher."""
    z = torch.special.ndtri(u)
    return (mean + variance.sqrt() * (z + skew * (z.square() - 1) / 6)).round_().clamp_(min=0)


def _inverted(chance: Tensor, ratio: Tensor, n: Tensor | None, u: Tensor) -> Tensor:
    """Smallest k whose probabilities up to k reach u; P(k + 1) = P(k) * ratio * (n - k) / (k + 1), or without n."""
    drawn = torch.zeros_like(u)
    at = torch.arange(len(u), device=u.device)
    left = u - chance  # what the probabilities so far do not reach
    for k in range(1, MOST):
        kept = torch.nonzero(left > 0).squeeze(1)  # most counts are small: soon few are left
        if not len(kept):
            break
        at, left, chance, ratio = at[kept], left[kept], chance[kept], ratio[kept]
        n = None if n is None else n[kept]
        drawn[at] += 1
        chance = chance * ratio * (1 / k if n is None else (n - (k - 1)).clamp(min=0) / k)
        left = left - chance
    return drawn
