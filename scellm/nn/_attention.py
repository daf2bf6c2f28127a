"""FAVOR+ feature maps as pure functions, and the two attention modules.

Shape letters: `B` cells, `G` positions, `D` hidden size, `H` heads, `E` head size, `M` random features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._config import CellLMConfig

EPS = 1e-4
"""Added to every feature after the exponential, as in the published encoder."""


class Positions(NamedTuple):
    """What each position of a batch stands for."""

    is_token: Tensor
    """(B, G) bool: a gene or CLS; its value is attended to."""
    multiplicity: Tensor
    """(B, G) float: identical positions this one stands for. 1 for tokens, 0 for filler, and for the one
    PAD position that represents the padding of a cell, the number of padded positions."""


def orthogonal_projection(n_features: int, dim_head: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows of random orthogonal blocks with norms of Gaussian vectors, (M, E)  :cite:p:`Choromanski2021`."""
    n_blocks = -(-n_features // dim_head)
    blocks = torch.randn(n_blocks, dim_head, dim_head, generator=generator)
    directions = torch.linalg.qr(blocks).Q.transpose(1, 2).reshape(-1, dim_head)[:n_features]
    norms = torch.randn(n_features, dim_head, generator=generator).norm(dim=1, keepdim=True)
    return directions * norms


def _exponents(x: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Projected data (B, H, G, M) and half squared norms (B, H, G, 1), both at scale E^-1/4."""
    x = x * x.shape[-1] ** -0.25
    return x @ projection.T, x.square().sum(-1, keepdim=True) / 2


def query_features(q: Tensor, projection: Tensor) -> Tensor:
    """Positive features of queries, (B, H, G, E) -> (B, H, G, M), stabilised query by query."""
    projected, half_norm = _exponents(q, projection)
    stabiliser = projected.amax(-1, keepdim=True)
    return projection.shape[0] ** -0.5 * ((projected - half_norm - stabiliser).exp() + EPS)


def key_features(k: Tensor, projection: Tensor, present: Tensor) -> Tensor:
    """Positive features of keys, (B, H, G, E) -> (B, H, G, M), stabilised cell by cell.

    The maximum runs over the heads, present positions and features of one cell, never over the batch, so
    that a cell's features depend on that cell alone. `present` is (B, G) bool.
    """
    projected, half_norm = _exponents(k, projection)
    highest = projected.amax((1, 3))  # (B, G)
    highest = highest.masked_fill(~present, -torch.inf).amax(1)  # (B,)
    exponent = projected - half_norm - highest[:, None, None, None]
    exponent = exponent.masked_fill(~present[:, None, :, None], -torch.inf)  # filler may exceed the maximum
    return projection.shape[0] ** -0.5 * (exponent.exp() + EPS)


def favor_attention(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, positions: Positions) -> Tensor:
    """FAVOR+ attention in time linear in `G`, (B, H, G, E) each -> (B, H, G, E).

    With features phi, weights m (multiplicity) and token indicator t:
    out_i = phi(q_i) . sum_j t_j phi(k_j) v_j^T / phi(q_i) . sum_j m_j phi(k_j).
    Padding counts in the denominator only, as in the published encoder.

    The features, several times the size of `q` and `k`, are not kept for the backward pass but computed again.
    """
    return _FavorAttention.apply(q, k, v, projection, *positions)


def plain_favor_attention(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, is_token: Tensor, multiplicity: Tensor
) -> Tensor:
    """The same through torch's own differentiation, which keeps the features."""
    phi_q = query_features(q, projection)
    phi_k = key_features(k, projection, multiplicity > 0)
    total = torch.einsum("bhgm,bg->bhm", phi_k, multiplicity.to(phi_k.dtype))  # (B, H, M)
    v = v * is_token[:, None, :, None]
    context = phi_k.transpose(-1, -2) @ v  # (B, H, M, E)
    return (phi_q @ context) / (phi_q @ total.unsqueeze(-1))


class _FavorAttention(torch.autograd.Function):
    """`plain_favor_attention` that keeps `q`, `k`, `v` only."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *fixed: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v, *fixed)
        device = q.device.type
        # the backward pass runs outside the caller's autocast and must compute what was computed here
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return plain_favor_attention(q, k, v, *fixed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *qkv, projection, is_token, multiplicity = ctx.saved_tensors
        qkv = [x.detach().requires_grad_() for x in qkv]
        device, dtype, is_enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(device, dtype, enabled=is_enabled):
            out = plain_favor_attention(qkv[0], qkv[1], qkv[2], projection, is_token, multiplicity)
        return *torch.autograd.grad(out, qkv, gradient), None, None, None


class Attention(nn.Module):
    """Multi-head attention over the genes of one cell: FAVOR+ or exact softmax."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads = config.heads
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_k = nn.Linear(config.dim, inner, bias=False)
        self.to_v = nn.Linear(config.dim, inner, bias=False)
        self.to_out = nn.Linear(inner, config.dim)
        projection = None
        if config.attention == "favor":
            projection = orthogonal_projection(config.random_features, config.dim_head)
        self.register_buffer("projection", projection)  # state: saved with the weights, never redrawn here

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        # one product of all three, which reads x once
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        q, k, v = (self._split(part) for part in F.linear(x, weight).chunk(3, dim=-1))
        if self.projection is None:
            mask = positions.is_token[:, None, None, :]
            # without filler the mask is left out: the fused kernels are faster without one
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=None if positions.is_token.all() else mask
            )
        else:
            out = favor_attention(q, k, v, self.projection.to(q.dtype), positions)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, G, H*E) -> (B, H, G, E)
