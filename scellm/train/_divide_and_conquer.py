"""Divide and conquer: one contrastive batch of any size, encoded chunk by chunk, with exact gradients.

The gradient of a loss L(r_1, ..., r_N) on representations r_i = f(x_i; w) is sum_i dL/dr_i . dr_i/dw (paper, section
3.3). So the representations are made without graphs, L is differentiated at them, and then every chunk is encoded
again, with a graph, to carry its dL/dr_i back to the weights. What memory is left keeps the graphs of some chunks from
the first pass, which need no second one.

Shape letters: `N` rows (each view of a cell is one), `D` representation size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ._memory import SavedBytes, available_bytes, parse_bytes

TOKENS_PER_CHUNK = {"cpu": 8_192, "mps": 32_768, "cuda": 131_072}
"""Most tokens encoded at once: larger chunks are no faster (tests/benchmarks/divide_and_conquer.py, CPU)."""
REPLAY_TOLERANCE = 1e-3
"""Relative difference of a chunk's representations between the passes above which the step is refused."""


class Rows(Protocol):
    """What is encoded: N rows that can be taken apart."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> Any:
        """The input of `encode` for some rows, in that order. A tensor or array does this by itself."""


@dataclass(frozen=True)
class Encoded:
    """What `encode` returns when it has more to say than representations."""

    representations: Tensor
    """(n, D)."""
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """Objectives that are sums over cells, this chunk's share of each, weighted as they enter the total loss. They
    are asked for with gradients on; without, they may be left out."""


@dataclass(frozen=True)
class StepReport:
    """What a step did, beside filling `.grad`."""

    losses: dict[str, float]
    """`contrastive` and the objectives of `Encoded.losses`, as they enter the total."""
    representations: Tensor
    """(N, D) of the first pass, without graph."""
    n_chunks: int
    n_kept: int
    """Chunks whose graph was kept, so that they were encoded once."""
    bytes_per_token: float
    """Memory of graphs, as measured on the first chunk of the first step."""


class DivideAndConquer:
    """Gradients of a loss over a whole batch, in the memory of a few chunks :cite:p:`Zhao2023,Gao2021`.

    Calling it fills `.grad` with the gradients of `loss(representations) + sum of Encoded.losses`, added to what
    is there, exactly as one graph over the whole batch would: equal up to rounding for any chunking and any budget,
    provided that a row's representation depends on that row alone. Dropout is allowed: torch's random state is
    recorded before each chunk and replayed, and `CellDropout` with keys gives the masks of a single graph, whatever
    the chunks. The optimizer is the caller's.

    With f the share of a forward pass in forward and backward, and k of the chunks kept, a step costs
    1 + f (1 - k) times that of one graph. Memory is that of the kept graphs, or of one chunk, and of N x D numbers.

    Parameters
    ----------
    encode
        Input of some rows -> (n, D) representations, or `Encoded`.
    loss
        (N, D) representations -> scalar; row i is row i of what the step is called with. It must be differentiable
        and may have parameters of its own, such as a temperature. `None` if all objectives are sums over cells: then
        every chunk is encoded once.
    modules
        The networks `encode` and `loss` use, for their device, their weights, and to refuse batch norm. May be left
        out if `encode` is a module.
    memory_budget
        Memory for graphs: bytes, a text such as "8GiB", or `"auto"`, what is free of the device's memory. It is a
        bound on graphs, not on weights, optimizer states or the rows themselves.
    tokens_per_chunk
        Most tokens encoded at once; `"auto"` is measured per kind of device, less if the budget asks for it. Rows
        without `lengths` have one token each, so set it for those.
    no_sync
        Makes a context without gradient exchange, such as `DistributedDataParallel.no_sync`, for the whole step. Sum
        the gradients over processes afterwards (`World.sum_gradients`).

    Raises
    ------
    ValueError
        A module with batch norm in training mode: it makes a row depend on its chunk.

    Examples
    --------
    >>> import torch
    >>> from scellm.train import DivideAndConquer, info_nce
    >>> encoder = torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 4))
    >>> cells = torch.randn(100, 20)
    >>> step = DivideAndConquer(encoder, lambda r: info_nce(r[:100], r[100:]), tokens_per_chunk=16)
    >>> report = step(torch.cat([cells, cells]))  # two views that differ by dropout
    >>> encoder[0].weight.grad.shape, report.n_chunks
    (torch.Size([8, 20]), 13)
    """

    def __init__(
        self,
        encode: Callable[[Any], Tensor | Encoded],
        loss: Callable[[Tensor], Tensor] | None,
        *,
        modules: Sequence[nn.Module] | None = None,
        memory_budget: int | float | str = "auto",
        tokens_per_chunk: int | Literal["auto"] = "auto",
        no_sync: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        if modules is None:
            modules = [x for x in (encode, loss) if isinstance(x, nn.Module)]
        self.encode = encode
        self.loss = loss
        self.modules = list(modules)
        self.no_sync = no_sync
        self.bytes_per_token: float | None = None
        weights = self._weights()
        self.device = weights[0].device if weights else torch.device("cpu")
        self._budget = None if memory_budget == "auto" else parse_bytes(memory_budget)
        if tokens_per_chunk == "auto":
            tokens_per_chunk = TOKENS_PER_CHUNK.get(self.device.type, TOKENS_PER_CHUNK["cpu"])
        if (
            isinstance(tokens_per_chunk, bool)
            or not isinstance(tokens_per_chunk, int)
            or tokens_per_chunk < 1
        ):
            msg = f"tokens_per_chunk={tokens_per_chunk!r} must be 'auto' or a positive whole number."
            raise ValueError(msg)
        self.tokens_per_chunk = tokens_per_chunk
        self._check_modules()

    def __call__(self, rows: Rows) -> StepReport:
        """Add the gradients of one batch.

        Parameters
        ----------
        rows
            N rows. `rows[index]` with an (n,) integer array is the input of `encode`; `rows.lengths`, if it is there,
            (N,) tokens of each, so that rows of like length are encoded together. A tensor will do.

        Raises
        ------
        RuntimeError
            A chunk was encoded differently the second time: something random is not replayed, or something changed
            between the passes.
        ValueError
            The budget is smaller than one row needs; batch norm.
        """
        self._check_modules()
        with self.no_sync():  # forward passes too: there it is decided what a backward pass will do
            return self._step(rows)

    def _step(self, rows: Rows) -> StepReport:
        lengths = np.maximum(np.asarray(getattr(rows, "lengths", np.ones(len(rows), np.int64))), 1)
        if self.bytes_per_token is None:
            self.bytes_per_token = self._measure(rows, lengths)
        chunks, n_kept = self._plan(lengths)
        if self.loss is None:
            losses, representations = self._one_pass(rows, chunks)
            return self._report(losses, representations, len(chunks), len(chunks))
        states, kept, representations = self._first_pass(rows, chunks, n_kept)
        after = _RandomState(self.device)

        # the loss, differentiated at the representations
        leaf = representations.clone().requires_grad_()
        total = self.loss(leaf)
        total.backward()
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

        losses = {"contrastive": total.detach()}
        self._second_pass(rows, chunks, states, kept, representations, gradient, losses)
        after.restore()
        return self._report(losses, representations, len(chunks), n_kept)

    def _first_pass(
        self, rows: Rows, chunks: list[np.ndarray], n_kept: int
    ) -> tuple[list[_RandomState], list[Encoded], Tensor]:
        """Random states before each chunk without graph, the last chunks with theirs, and all representations."""
        states: list[_RandomState] = []
        kept: list[Encoded] = []
        representations = None
        for number, chunk in enumerate(chunks):
            is_kept = number >= len(chunks) - n_kept
            if not is_kept:
                states.append(_RandomState(self.device))
            with torch.set_grad_enabled(is_kept):
                encoded = _encoded(self.encode(rows[chunk]))
            representations = self._put(representations, len(rows), chunk, encoded)
            if is_kept:
                kept.append(encoded)
            del encoded  # before the next chunk is made
        return states, kept, representations

    def _second_pass(
        self,
        rows: Rows,
        chunks: list[np.ndarray],
        states: list[_RandomState],
        kept: list[Encoded],
        representations: Tensor,
        gradient: Tensor,
        losses: dict[str, Tensor],
    ) -> None:
        """Gradients at the representations -> gradients of weights; kept graphs first, which frees them."""
        mismatch = representations.new_zeros(())
        for number in reversed(range(len(chunks))):
            index = self._index(chunks[number])
            if kept:
                encoded = kept.pop()
            else:
                states[number].restore()
                with torch.enable_grad():
                    encoded = _encoded(self.encode(rows[chunks[number]]))
                first = representations[index]
                difference = (encoded.representations.detach().to(first.dtype) - first).norm()
                mismatch = torch.maximum(mismatch, difference / first.norm().clamp(min=1e-12))
            self._carry_back(encoded, gradient[index], losses)
            del encoded
        if not float(mismatch) <= REPLAY_TOLERANCE and bool(representations.isfinite().all()):
            msg = (
                "A chunk was encoded differently the second time (relative difference "
                f"{float(mismatch):.2g}, allowed {REPLAY_TOLERANCE:g}), so the gradients would be wrong. Nothing may "
                "change between the passes: redraw random projections between optimizer steps, draw views and masks "
                "before the step, and take random numbers from torch's default generators."
            )
            raise RuntimeError(msg)

    def _one_pass(self, rows: Rows, chunks: list[np.ndarray]) -> tuple[dict[str, Tensor], Tensor]:
        """Only sums over cells: each chunk by itself."""
        losses: dict[str, Tensor] = {}
        representations = None
        for chunk in chunks:
            with torch.enable_grad():
                encoded = _encoded(self.encode(rows[chunk]))
            representations = self._put(representations, len(rows), chunk, encoded)
            self._carry_back(encoded, None, losses)
            del encoded
        return losses, representations

    def _put(
        self, representations: Tensor | None, n_rows: int, chunk: np.ndarray, encoded: Encoded
    ) -> Tensor:
        """Collect the representations of a chunk, in at least single precision; makes the (N, D) tensor at first."""
        part = encoded.representations.detach()
        if representations is None:
            dtype = torch.promote_types(part.dtype, torch.float32)
            representations = part.new_empty(n_rows, part.shape[1], dtype=dtype)
        representations[self._index(chunk)] = part.to(representations.dtype)
        return representations

    def _carry_back(self, encoded: Encoded, gradient: Tensor | None, losses: dict[str, Tensor]) -> None:
        """Push the gradients at a chunk's results back to the weights, and count its share of the losses."""
        results = [] if gradient is None else [(encoded.representations, gradient)]
        results += [(share, torch.ones_like(share)) for share in encoded.losses.values()]
        results = [(x, g.to(x.dtype)) for x, g in results if x.requires_grad]
        if results:
            torch.autograd.backward(*zip(*results, strict=True))
        for name, share in encoded.losses.items():
            losses[name] = losses.get(name, 0.0) + share.detach()

    def _index(self, chunk: np.ndarray) -> Tensor:
        return torch.from_numpy(chunk).to(self.device)

    def _report(
        self, losses: dict[str, Tensor], representations: Tensor, n_chunks: int, n_kept: int
    ) -> StepReport:
        return StepReport(
            losses={name: float(value) for name, value in losses.items()},
            representations=representations,
            n_chunks=n_chunks,
            n_kept=n_kept,
            bytes_per_token=self.bytes_per_token,
        )

    @property
    def memory_budget(self) -> int:
        """Bytes for graphs; for "auto" what is free now."""
        return available_bytes(self.device) if self._budget is None else self._budget

    def _weights(self) -> list[Tensor]:
        return [x for module in self.modules for x in (*module.parameters(), *module.buffers())]

    def _check_modules(self) -> None:
        for module in self.modules:
            for name, part in module.named_modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training:
                    msg = (
                        f"The module {name!r} is batch norm, whose result depends on the chunk a row is in: gradients "
                        "over chunks would not be those of the whole batch. Use layer norm, or put it in eval mode."
                    )
                    raise ValueError(msg)

    def _measure(self, rows: Rows, lengths: np.ndarray) -> float:
        """Bytes per token that the graph of the first chunk keeps; nothing else comes of it."""
        n_tokens = min(self.tokens_per_chunk, 4 * int(lengths.max()))
        chunk = next(_chunks(lengths, n_tokens))
        before = _RandomState(self.device)
        with torch.enable_grad(), SavedBytes(self._weights()) as saved:
            encoded = _encoded(self.encode(rows[chunk]))
        before.restore()
        del encoded
        return max(1.0, saved.total / (len(chunk) * int(lengths[chunk].max())))

    def _plan(self, lengths: np.ndarray) -> tuple[list[np.ndarray], int]:
        """Chunks, and how many of the last ones keep their graphs."""
        budget = self.memory_budget
        # a chunk is encoded, and its graph walked back, beside whatever is kept: twice its graph
        needed = int(2 * self.bytes_per_token * lengths.max())
        if needed > budget:
            msg = (
                f"memory_budget is {_readable(budget)}; one row of {lengths.max()} tokens needs {_readable(needed)}. "
                f"Pass memory_budget={_readable(needed)!r} or more, or shorter rows."
            )
            raise ValueError(msg)
        n_tokens = min(self.tokens_per_chunk, int(budget / (2 * self.bytes_per_token)))
        n_tokens = max(n_tokens, int(lengths.max()))
        chunks = list(_chunks(lengths, n_tokens))
        sizes = np.array([len(chunk) * lengths[chunk].max() for chunk in chunks]) * self.bytes_per_token
        if sizes.sum() + sizes.max() <= budget:
            return chunks, len(chunks)
        # longest first, so that the shortest chunks, which come last, are kept
        from_last = np.cumsum(sizes[::-1]) + sizes.max()
        return chunks, int((from_last <= budget).sum())


class _RandomState:
    """State of torch's generators of the CPU and of the device that encodes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.own = None
        if device.type == "cuda":
            self.own = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            self.own = torch.mps.get_rng_state()

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self.own, self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(self.own)


def _chunks(lengths: np.ndarray, n_tokens: int) -> Iterator[np.ndarray]:
    """Rows, longest first, as many at once as `n_tokens` positions hold when filled up to the longest."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, n_tokens // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _encoded(result: Tensor | Encoded) -> Encoded:
    return result if isinstance(result, Encoded) else Encoded(result)


def _readable(n_bytes: int) -> str:
    """Bytes in MiB or GiB, rounded up so that the number is enough."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n_bytes >= size:
            return f"{np.ceil(10 * n_bytes / size) / 10:g}{unit}"
    return f"{n_bytes}B"
