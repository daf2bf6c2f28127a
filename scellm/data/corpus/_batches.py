"""Which cells come in which batch: seeds, epochs, ranks. No cell is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ONE = 2**32
"""Shares of a batch are counted in this fraction of a cell, so that sums are exact."""
GOLDEN = 0x9E3779B97F4A7C15
"""2**64 times the golden ratio - 1: steps of that length fill the circle as evenly as any."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Cells that are contrasted together, grouped by dataset."""

    dataset: np.ndarray
    """(B,) int64, ascending."""
    row: np.ndarray
    """(B,) int64, row in the dataset."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass
class _Place:
    """How far one dataset has been read."""

    epoch: int = 0
    position: int = 0
    """Cells of this epoch's order that were passed."""
    held: tuple[int, ...] = ()
    """Cells that were passed but not taken, as the batch had them already; the next batch begins with them."""


class Sampler:
    """Endless batches that mix datasets, each read without replacement, the same for the same seed.

    A dataset of n cells has a share of the batch proportional to `n**power`, but not more cells than it has; what is
    over goes to the others. Shares are rounded up or down anew for each batch, so that over many batches they are
    exact. Each dataset is read in an order drawn for each of its epochs; where reading single cells is slow, in whole
    blocks. A cell is never twice in a batch.

    Parameters
    ----------
    sizes
        Cells of each dataset. Shape (n_datasets,).
    block_sizes
        Neighboring cells of each dataset that stay together; `None` is 1. Shape (n_datasets,).
    batch_size
        Cells of a batch.
    power
        0 gives all datasets the same share, 1 all cells the same chance.
    datasets_per_batch
        Each batch takes cells of this many datasets, drawn by `n**power` for each batch, in equal parts; of more where
        these have too few cells. `None` takes cells of all. With many datasets and negatives within each, this is what
        leaves a cell enough others to be told from.
    seed
        Of the orders, and of the datasets of each batch.

    Raises
    ------
    ValueError
        An empty dataset, fewer cells than a batch has, a batch of fewer than 2, fewer than one dataset per batch, or a
        power outside 0 to 1.

    Examples
    --------
    >>> from scellm.data import Sampler
    >>> sampler = Sampler([10, 1000], batch_size=22)
    >>> sampler.shares.tolist()
    [2.0, 20.0]
    >>> sampler.next().dataset.tolist().count(0)
    2
    """

    def __init__(
        self,
        sizes: Sequence[int] | np.ndarray,
        block_sizes: Sequence[int] | np.ndarray | None = None,
        *,
        batch_size: int,
        power: float = 0.5,
        datasets_per_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        self.sizes = np.array(sizes, dtype=np.int64)
        self.block_sizes = (
            np.ones_like(self.sizes) if block_sizes is None else np.array(block_sizes, np.int64)
        )
        self.batch_size, self.power, self.seed, self.step = int(batch_size), float(power), int(seed), 0
        self.datasets_per_batch = datasets_per_batch
        self._check()
        self._shares = _shares(self.sizes, self.batch_size, self.power)
        self._places = [_Place() for _ in self.sizes]
        self._orders: dict[
            int, tuple[int, np.ndarray]
        ] = {}  # by dataset, the epoch and the order of its blocks

    def _check(self) -> None:
        if self.sizes.ndim != 1 or not len(self.sizes) or (self.sizes < 1).any():
            msg = f"sizes must hold the number of cells of each dataset, at least 1; found {self.sizes.tolist()[:10]}."
            raise ValueError(msg)
        if self.block_sizes.shape != self.sizes.shape or (self.block_sizes < 1).any():
            msg = f"block_sizes must hold one number, at least 1, for each of the {len(self.sizes)} datasets; found {self.block_sizes.tolist()[:10]}."
            raise ValueError(msg)
        if self.batch_size < 2:
            msg = f"batch_size is {self.batch_size}; need at least 2 cells to contrast."
            raise ValueError(msg)
        if self.batch_size > self.sizes.sum():
            msg = f"batch_size is {self.batch_size}, but there are only {self.sizes.sum()} cells; make it smaller, or give more data."
            raise ValueError(msg)
        if not 0 <= self.power <= 1:
            msg = f"power is {self.power}; need a number from 0 (datasets alike) to 1 (cells alike)."
            raise ValueError(msg)
        if self.datasets_per_batch is not None and self.datasets_per_batch < 1:
            msg = f"datasets_per_batch is {self.datasets_per_batch}; need at least 1, or None for all."
            raise ValueError(msg)
        if self.seed < 0:
            msg = f"seed is {self.seed}; need a whole number from 0 on."
            raise ValueError(msg)

    @property
    def shares(self) -> np.ndarray:
        """(n_datasets,) number of cells in a batch that has any of the dataset, on average or at most."""
        if self.datasets_per_batch is not None:
            return np.minimum(self.sizes, self.batch_size / self.datasets_per_batch)
        return self._shares / ONE

    @property
    def epochs(self) -> np.ndarray:
        """(n_datasets,) how often each dataset has been read, float64."""
        read = [place.position - len(place.held) for place in self._places]
        return np.array([place.epoch for place in self._places]) + np.array(read) / self.sizes

    def next(self) -> Batch:
        """Draw the next batch."""
        quotas = self._quotas()
        rows = [self._take(dataset, int(quota)) for dataset, quota in enumerate(quotas)]
        self.step += 1
        return Batch(np.repeat(np.arange(len(quotas)), quotas), np.concatenate(rows))

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler is, to be written as JSON; small, whatever the number of cells."""
        return self._settings() | {
            "step": self.step,
            "epoch": [place.epoch for place in self._places],
            "position": [place.position for place in self._places],
            "held": {str(d): list(place.held) for d, place in enumerate(self._places) if place.held},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another sampler of the same settings was.

        Raises
        ------
        ValueError
            The state is of other data or settings.
        """
        settings = self._settings()
        if other := [key for key in settings if state.get(key) != settings[key]]:
            shown = "; ".join(
                f"{key} was {_short(state.get(key))}, is {_short(settings[key])}" for key in other
            )
            msg = f"The state is of a sampler over other data or with other settings: {shown}. Give the same ones to go on."
            raise ValueError(msg)
        self.step = int(state["step"])
        self._places = [
            _Place(int(epoch), int(position), tuple(state["held"].get(str(dataset), ())))
            for dataset, (epoch, position) in enumerate(zip(state["epoch"], state["position"], strict=True))
        ]

    def _settings(self) -> dict[str, Any]:
        """What decides the batches, beside the place."""
        return {
            "sizes": self.sizes.tolist(),
            "block_sizes": self.block_sizes.tolist(),
            "batch_size": self.batch_size,
            "power": self.power,
            "datasets_per_batch": self.datasets_per_batch,
            "seed": self.seed,
        }

    def _quotas(self) -> np.ndarray:
        """(n_datasets,) cells of each dataset in this batch: its share rounded down or up.

        The shares lie end to end on a line, and a dataset has as many cells as its stretch has marks, one per length of
        a cell. The first mark wanders with the step.
        """
        start = self.seed * 0xD1342543DE82EF95 + self.step * GOLDEN
        first = (start % 2**64) // 2**32  # in fractions of a cell
        ends = (
            np.cumsum(self._shares if self.datasets_per_batch is None else self._drawn_shares()) + first
        ) // ONE
        return np.diff(ends, prepend=0)

    def _drawn_shares(self) -> np.ndarray:
        """(n_datasets,) shares, in `ONE`, of the datasets drawn for this batch; 0 of the others."""
        weights = self.sizes.astype(np.float64) ** self.power
        # the order in which they would be drawn without replacement: smallest exponential waiting time first
        waiting = np.random.default_rng([self.seed, self.step, 1]).exponential(size=len(weights)) / weights
        order = np.argsort(waiting, kind="stable")
        enough = int(np.searchsorted(np.cumsum(self.sizes[order]), self.batch_size)) + 1
        chosen = order[: max(self.datasets_per_batch, enough)]
        shares = np.zeros(len(weights), dtype=np.int64)
        shares[chosen] = _shares(self.sizes[chosen], self.batch_size, 0.0)
        return shares

    def _take(self, dataset: int, quota: int) -> np.ndarray:
        """The next cells of a dataset, none of them twice."""
        if not quota:
            return np.zeros(0, dtype=np.int64)
        place, size = self._places[dataset], int(self.sizes[dataset])
        taken = np.array(place.held[:quota], dtype=np.int64)
        place.held = place.held[quota:]
        n = min(quota - len(taken), size - place.position)
        taken = np.concatenate([taken, self._ordered(dataset, place.position, place.position + n)])
        place.position += n
        if len(taken) < quota:  # the epoch ends in this batch, with nothing held
            place.epoch, place.position = place.epoch + 1, 0
            # enough to find the missing ones among them, whatever is in the batch already
            ahead = self._ordered(dataset, 0, min(size, quota))
            is_new = ~np.isin(ahead, taken)
            stop = int(np.flatnonzero(is_new)[quota - len(taken) - 1]) + 1
            place.held = tuple(ahead[:stop][~is_new[:stop]].tolist())
            place.position = stop
            taken = np.concatenate([taken, ahead[:stop][is_new[:stop]]])
        return taken

    def _ordered(self, dataset: int, start: int, stop: int) -> np.ndarray:
        """Cells `start` to `stop` of this epoch's order: blocks in random order, cells of a block one by one."""
        size, block = int(self.sizes[dataset]), int(self.block_sizes[dataset])
        epoch = self._places[dataset].epoch
        if self._orders.get(dataset, (None,))[0] != epoch:
            rng = np.random.default_rng([self.seed, dataset, epoch])
            order = rng.permutation(np.arange(-(-size // block), dtype=np.int64))
            self._orders[dataset] = epoch, order
        order = self._orders[dataset][1]
        at = np.arange(start, stop)
        # the last block may be short; all that comes behind it in the order comes that much earlier
        lacking = len(order) * block - size
        if lacking:
            short_end = int(np.flatnonzero(order == len(order) - 1)[0] + 1) * block - lacking
            at += np.where(at >= short_end, lacking, 0)
        return order[at // block] * block + at % block


def shard(batch_size: int, rank: int, world_size: int, *, block: int = 64) -> slice:
    """The part of a batch that one of several processes encodes.

    Whole blocks, so that however many processes there are the same cells are encoded together.

    Parameters
    ----------
    batch_size
        Cells of the batch of all processes.
    rank
        Number of the process, from 0.
    world_size
        Number of processes.
    block
        Cells of a block; the last one of a batch may be shorter.

    Returns
    -------
    Slice of the batch. The slices of all ranks follow each other, and differ by one block at most.

    Raises
    ------
    ValueError
        Fewer blocks than processes, or no such rank.
    """
    if not 0 <= rank < world_size:
        msg = f"rank is {rank}; with {world_size} processes it is 0 to {world_size - 1}."
        raise ValueError(msg)
    n_blocks = -(-batch_size // block)
    if n_blocks < world_size:
        msg = (
            f"A batch of {batch_size} cells has {n_blocks} blocks of {block}, too few for {world_size} processes. Use at "
            f"least batch_size={(world_size - 1) * block + 1}, better {world_size * block}, or at most {n_blocks} processes."
        )
        raise ValueError(msg)
    start, stop = (n_blocks * r // world_size * block for r in (rank, rank + 1))
    return slice(start, min(stop, batch_size))


def _shares(sizes: np.ndarray, batch_size: int, power: float) -> np.ndarray:
    """(n_datasets,) cells of a batch, in `ONE`: as `sizes**power`, at most `sizes`; they add up to the batch."""
    weights = sizes.astype(np.float64) ** power
    is_full = np.zeros(len(sizes), dtype=bool)
    while True:
        left = batch_size - sizes[is_full].sum()
        total = weights[~is_full].sum()
        shares = np.where(is_full, sizes, left * weights / total if total else 0)
        too_much = ~is_full & (shares > sizes)
        if not too_much.any():
            break
        is_full |= too_much
    parts = np.minimum(np.round(shares * ONE).astype(np.int64), sizes * ONE)
    rest = batch_size * ONE - int(parts.sum())  # of rounding; goes where there is most room
    while rest:
        at = int(np.argmax(sizes * ONE - parts)) if rest > 0 else int(np.argmax(parts))
        moved = min(rest, int(sizes[at]) * ONE - int(parts[at])) if rest > 0 else max(rest, -int(parts[at]))
        parts[at] += moved
        rest -= moved
    return parts


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
