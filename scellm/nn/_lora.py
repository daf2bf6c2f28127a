"""Low-rank adaptation: a frozen weight plus a product of two thin matrices that are trained :cite:p:`Hu2022`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W -> W + (alpha / rank) A B; nothing is added until A has been trained.

    Parameters
    ----------
    shape
        (n, m) of W.
    rank
        Columns of A and rows of B.
    alpha
        Scale; with `alpha = rank` a change of rank does not ask for another learning rate.
    """

    def __init__(self, shape: tuple[int, int], *, rank: int, alpha: float) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.zeros(shape[0], rank))  # A
        self.right = nn.Parameter(torch.randn(rank, shape[1]) / shape[1] ** 0.5)  # B
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.left @ self.right)


def add_lora(module: nn.Module, *, rank: int, alpha: float | None = None) -> list[nn.Parameter]:
    """Freeze a module and put a low-rank change on the weight of every embedding and linear layer in it.

    Draws from torch's generator. Layers smaller than the rank in either direction get none.

    Parameters
    ----------
    module
        Changed in place.
    rank, alpha
        As in `LowRank`; `alpha=None` is the rank.

    Returns
    -------
    The new parameters, the only ones that are trained.
    """
    module.requires_grad_(False)
    layers = [x for x in module.modules() if isinstance(x, nn.Linear | nn.Embedding)]
    added = []
    for layer in layers:
        if min(layer.weight.shape) <= rank:
            continue
        change = LowRank(tuple(layer.weight.shape), rank=rank, alpha=alpha or rank)
        change.to(layer.weight.device, layer.weight.dtype)
        parametrize.register_parametrization(layer, "weight", change)
        added += [change.left, change.right]
    return added


def merge_lora(module: nn.Module) -> None:
    """Make the sums the weights, and the module the plain one it was, with gradients on."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    module.requires_grad_(True)
