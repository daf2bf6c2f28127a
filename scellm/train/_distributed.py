"""The processes of one run, and the four exchanges between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def _named(exchange: Callable[P, R]) -> Callable[P, R]:
    """Turn what the backends say when a process is gone into one message."""

    @wraps(exchange)
    def exchanged(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return exchange(*args, **kwargs)
        except RuntimeError as error:  # dist.DistBackendError is one too
            msg = (
                f"Another process of this run ended or stopped answering: {str(error).splitlines()[0]} "
                "Look at its own last message; the run resumes from its newest checkpoint."
            )
            raise RuntimeError(msg) from error

    return exchanged


@dataclass(frozen=True)
class World:
    """The processes that share one batch.

    Every process holds some rows of the batch, in the order of their ranks, and all weights. Alone, every exchange
    gives back what it got.

    Parameters
    ----------
    rank
        Number of this process.
    size
        Number of processes.
    group
        Process group of torch.distributed; `None` is the default one.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def current(cls) -> World:
        """All processes of the run that torch.distributed was set up for; this one alone if it was not."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @_named
    def sizes(self, n_rows: int, device: torch.device) -> list[int]:
        """Rows of each process."""
        if self.size == 1:
            return [n_rows]
        counts = torch.zeros(self.size, dtype=torch.int64, device=device)
        counts[self.rank] = n_rows
        dist.all_reduce(counts, group=self.group)
        return counts.tolist()

    @_named
    def gather(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Rows of all processes, (sizes[rank], ...) -> (sum of sizes, ...); without gradient."""
        if self.size == 1:
            return rows.detach()
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])  # backends want equal shapes
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @_named
    def reduce_scatter(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Sum over processes of this process's rows, (sum of sizes, ...) -> (sizes[rank], ...)."""
        if self.size == 1:
            return rows
        parts = [rows.new_zeros(max(sizes), *rows.shape[1:]) for _ in sizes]
        for part, own in zip(parts, rows.split(sizes), strict=True):
            part[: len(own)] = own
        result = torch.empty_like(parts[0])
        dist.reduce_scatter(result, parts, group=self.group)
        return result[: sizes[self.rank]]

    @_named
    def sum(self, value: Tensor) -> Tensor:
        """Sum over processes, any shape; without gradient."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value, group=self.group)
        return value

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradients by their sums over processes, in one exchange per type of number.

        A parameter without a gradient here may have one elsewhere, so it takes part with zeros.
        """
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_dtype.setdefault(parameter.dtype, []).append(parameter)
        for group in by_dtype.values():
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group])
            flat = self.sum(flat)
            for parameter, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = part.view_as(parameter)


@contextmanager
def processes(*, timeout: float = 600.0) -> Iterator[World]:
    """Join the other processes when the program was started by torchrun; alone otherwise.

    Parameters
    ----------
    timeout
        Seconds after which a process that does not answer ends the run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield World.current()
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=timedelta(seconds=timeout))
    try:
        yield World.current()
    finally:
        dist.destroy_process_group()
