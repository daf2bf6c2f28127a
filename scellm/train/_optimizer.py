"""What a run trains, with which optimizer, at which learning rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch

from ..nn import Encoder
from ._objectives import Heads
from ._recipe import CONTRASTIVE, PretrainConfig


def trained_parameters(
    encoder: Encoder, heads: Heads, recipe: PretrainConfig
) -> dict[str, torch.nn.Parameter]:
    """Parameters that change, by name; which those are is known before the first step.

    Raises
    ------
    ValueError
        `freeze` names no parameter, or all of them.
    """
    names = [name for name, _ in encoder.named_parameters()]
    for prefix in recipe.freeze:
        if not any(name.startswith(prefix) for name in names):
            msg = f"freeze={prefix!r} is the beginning of no parameter; there are {names}."
            raise ValueError(msg)
    used = {
        "contrastive": bool(set(CONTRASTIVE) & set(recipe.objectives)),
        "masked_value": "masked_value" in recipe.objectives,
        "cancer": "normal_cancer" in recipe.objectives,
        "log_temperature": recipe.learn_temperature,
    }
    unused = [] if recipe.masks else ["masked_gene.", "expression.mask_embedding"]
    trained = {
        f"encoder.{name}": p
        for name, p in encoder.named_parameters()
        if not name.startswith((*recipe.freeze, *unused))
    }
    trained |= {f"heads.{name}": p for name, p in heads.named_parameters() if used[name.partition(".")[0]]}
    if not trained:
        msg = "Nothing is left to train: freeze= names all parameters."
        raise ValueError(msg)
    return trained


@contextlib.contextmanager
def only_trained(
    trained: Mapping[str, torch.nn.Parameter], modules: tuple[torch.nn.Module, ...]
) -> Iterator[None]:
    """Switch gradients of other parameters off for the time of a run."""
    kept = {id(p) for p in trained.values()}
    others = [p for module in modules for p in module.parameters() if id(p) not in kept and p.requires_grad]
    for parameter in others:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad = True


def adamw(parameters: Mapping[str, torch.nn.Parameter], recipe: PretrainConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices but not embeddings, norms, gains and biases."""
    is_matrix = {name: p.ndim == 2 and "embedding" not in name for name, p in parameters.items()}
    groups = [
        {
            "params": [p for name, p in parameters.items() if is_matrix[name] is chosen],
            "weight_decay": decay,
        }
        for chosen, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=recipe.peak_learning_rate, betas=(0.9, 0.98))


def share_done(step: int, n_steps: int | None, seconds: float, max_time: float | None) -> float:
    """How much of a run is done, by steps or by the clock."""
    by_steps = 0.0 if n_steps is None else step / n_steps
    return by_steps if max_time is None else max(by_steps, seconds / max_time)


def rate_factor(done: float, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to 2 %."""
    if done < warmup:
        return max(done / warmup, 1e-3)
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (done - warmup) / max(1 - warmup, 1e-9)))
