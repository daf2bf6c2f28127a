"""Cells through the encoder: batches, device, precision, memory."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from .._warn import warn
from ..data import Tokens
from ..nn import encode_bag
from ._bundle import CellLM

POSITIONS_PER_BATCH = {"cpu": 4_096, "mps": 65_536, "cuda": 262_144}
"""Gene positions encoded at once by default; see docs/benchmarks for the measurement on a CPU."""
BAG_POSITIONS_PER_BATCH = 1_048_576
"""The same for a bag of genes, which keeps nothing per position."""


def choose_device(device: torch.device | str | None = "auto") -> torch.device:
    """The device meant by "auto": CUDA, then MPS, then CPU."""
    if device in ("auto", None):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        msg = f"device={device!r} is not a device; choose 'auto', 'cpu', 'cuda', 'cuda:0' or 'mps'."
        raise ValueError(msg) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(chosen.type, False):
        msg = f"device={device!r} is not at hand here; choose from {[name for name, has in available.items() if has]}."
        raise ValueError(msg)
    return chosen


def choose_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """The type meant by "auto": bfloat16 on a GPU that has it, float32 elsewhere.

    On CPUs it is float32 whatever the processor, so that the same cells get the same numbers everywhere.
    """
    if precision not in ("auto", "fp32", "bf16"):
        msg = f"precision={precision!r} is unknown; choose 'auto', 'fp32' or 'bf16'."
        raise ValueError(msg)
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


@dataclass
class BatchSize:
    """How many cells are encoded at once, and what memory has shown to be too many."""

    asked: int | Literal["auto"] = "auto"
    """Cells, or `"auto"` for as many as a budget of gene positions holds."""
    fits: int | None = None
    """Most cells at once after memory ran out; `None` if it never has."""

    def report(self, device: torch.device) -> None:
        """Warn, once, if memory ran out."""
        if self.fits is not None:
            warn(
                f"Memory of {device} ran out; went on with {self.fits} cells at once. Pass batch_size={self.fits} "
                "to start there."
            )


def encode(
    model: CellLM,
    tokens: Tokens,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    batches: BatchSize | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Embed tokenized cells.

    Parameters
    ----------
    model
        The model; its encoder must be on `device` already.
    tokens
        Cells.
    device, dtype
        Where and in what precision to compute.
    batches
        Cells encoded at once; halved when memory runs out, and kept so for the next call with the same object.
    on_batch
        Called with the number of cells done after each batch.

    Returns
    -------
    (n_cells, dim) float32 in the order of `tokens`; NaN for cells without genes.
    """
    result = np.full((len(tokens), model.config.dim), np.nan, dtype=np.float32)
    batches = batches or BatchSize()
    cells_per_batch = None if batches.asked == "auto" else batches.asked
    positions = BAG_POSITIONS_PER_BATCH if model.config.is_bag else POSITIONS_PER_BATCH[device.type]
    waiting = deque(tokens.batches(positions, cells_per_batch=cells_per_batch))
    while waiting:
        rows = waiting.popleft()
        if batches.fits is not None and len(rows) > batches.fits:
            waiting.extendleft([rows[batches.fits :], rows[: batches.fits]])
            continue
        try:
            result[rows] = _encode_rows(model, tokens, rows, device, dtype)
        except RuntimeError as error:  # torch.OutOfMemoryError is one too
            if not _is_out_of_memory(error):
                raise
            if len(rows) == 1:
                msg = f"One cell of {tokens.lengths[rows[0]]} genes does not fit in the memory of {device}."
                raise MemoryError(msg) from error
            batches.fits = len(rows) // 2
            waiting.appendleft(rows)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        if on_batch is not None:
            on_batch(len(rows))
    return result


def _encode_rows(
    model: CellLM, tokens: Tokens, rows: np.ndarray, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Embed some cells in one batch, (B, dim) float32."""
    if model.config.is_bag:
        some = tokens[rows]
        packed = (some.gene_ids.astype(np.int64), some.values, some.indptr)
        with torch.inference_mode():
            return encode_bag(model.encoder, *(torch.from_numpy(x).to(device) for x in packed)).cpu().numpy()
    gene_ids, values, is_gene = (torch.from_numpy(x).to(device) for x in tokens.padded(rows))
    autocast = torch.autocast(device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
    with torch.inference_mode(), autocast:
        return model.encoder(gene_ids, values, is_gene, wanted="none").cells.float().cpu().numpy()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """What CUDA and MPS say, and what the CPU allocator says."""
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
