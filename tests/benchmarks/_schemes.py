"""Random cells, a small encoder, and the ways of taking one contrastive step that divide_and_conquer.py compares.

A scheme is a function (encoder, cells, options) -> step; a step is called without arguments and fills `.grad`.
Of peers the package itself is run where it is installed, else the scheme written anew from its description.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scellm.nn import CellLMConfig, Encoder
from scellm.train import DivideAndConquer, _info_nce, info_nce

N_GENES, GENES_PER_CELL, DIM = 1000, 32, 64
TEMPERATURE = 0.1
Step = Callable[[], object]


class Cells:
    """Two views of random cells, one after the other, as rows of the step; views differ by noise and dropout."""

    def __init__(
        self, n: int, *, seed: int = 0, own: slice = slice(None), genes: int = GENES_PER_CELL
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        gene_ids = torch.randint(0, N_GENES, (n, genes), generator=generator)[own]
        values = 5 * torch.rand(n, genes, generator=generator)[own]
        noise = torch.rand(2, n, genes, generator=generator)[:, own]
        keys = torch.randint(-(2**62), 2**62, (2, n), generator=generator)[:, own]
        self.features = {
            "gene_ids": torch.cat([gene_ids, gene_ids]),
            "values": torch.cat([values, values]) + noise.flatten(0, 1),
            "is_gene": torch.ones(2 * len(gene_ids), genes, dtype=torch.bool),
            "dropout_keys": keys.flatten(),
        }
        self.lengths = np.full(2 * len(gene_ids), genes)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: np.ndarray) -> dict[str, Tensor]:
        index = torch.from_numpy(rows).to(self.features["gene_ids"].device)
        return {name: x[index] for name, x in self.features.items()}

    def to(self, device: str) -> Cells:
        self.features = {name: x.to(device) for name, x in self.features.items()}
        return self

    def part(self, start: int, stop: int) -> dict[str, Tensor]:
        """Rows in a row, without a copy."""
        return {name: x[start:stop] for name, x in self.features.items()}

    def views(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        n = len(self) // 2
        return self.part(0, n), self.part(n, 2 * n)


def new_encoder(dropout: float, attention: str = "softmax") -> Encoder:
    """The encoder everything is measured on."""
    torch.manual_seed(0)
    ours = {"attention": attention, "expression": "continuous", "cell_embedding": "mean"}
    config = CellLMConfig(
        n_genes=N_GENES, dim=DIM, depth=2, heads=4, dim_head=16, ff_mult=4, dropout=dropout, **ours
    )
    return Encoder(config).train()


# the loss


def contrast(representations: Tensor, **options: Any) -> Tensor:
    """Our loss on both views, one after the other."""
    return info_nce(*representations.chunk(2), temperature=TEMPERATURE, **options)


def cross_entropy(first: Tensor, second: Tensor, *, symmetric: bool = True, t: float = TEMPERATURE) -> Tensor:
    """The same with the N x N similarities in torch's graph."""
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / t
    labels = torch.arange(len(logits), device=logits.device)
    loss = F.cross_entropy(logits, labels)
    return (loss + F.cross_entropy(logits.T, labels)) / 2 if symmetric else loss


def backward_by_rows(first: Tensor, second: Tensor, n_rows: int, *, symmetric: bool = True) -> Tensor:
    """Differentiate the same for some rows at a time, each with its own graph; returns the loss."""
    pairs = [(first, second), (second, first)] if symmetric else [(first, second)]
    total = torch.zeros(())
    for query, key in pairs:
        unit_query, unit_key = F.normalize(query, dim=1), F.normalize(key, dim=1)
        leaves = [x.detach().requires_grad_() for x in (unit_query, unit_key)]
        for start in range(0, len(query), n_rows):
            labels = torch.arange(start, min(start + n_rows, len(query)))
            logits = leaves[0][start : start + n_rows] @ leaves[1].T / TEMPERATURE
            loss = F.cross_entropy(logits, labels, reduction="sum") / (len(query) * len(pairs))
            loss.backward()
            total += loss.detach()
        torch.autograd.backward([unit_query, unit_key], [x.grad for x in leaves])
    return total


@contextlib.contextmanager
def only_rows(n: int) -> Iterator[None]:
    """Our loss for the first n queries against all keys: the memory of the whole, in a part of the time."""
    run = _info_nce._Sweep.run

    def some(self: Any, queries: Tensor, keys: Tensor, **options: Any) -> None:
        for name in ("positive", "own", "relation", "d_queries"):
            options[name] = None if options[name] is None else options[name][:n]
        run(self, queries[:n], keys, **options)

    _info_nce._Sweep.run = some
    try:
        yield
    finally:
        _info_nce._Sweep.run = run


# schemes


class Keeping(DivideAndConquer):
    """Keeps a share of the graphs, whatever the budget."""

    share = 0.0

    def _plan(self, lengths: np.ndarray) -> tuple[list[np.ndarray], int]:
        chunks, _ = super()._plan(lengths)
        return chunks, round(self.share * len(chunks))


def plain(encoder: Encoder, cells: Cells, *, loss: Callable[[Tensor], Tensor] | None = None) -> Step:
    """Everything in one graph."""
    loss = loss or (lambda r: cross_entropy(*r.chunk(2)))
    return lambda: loss(encoder(**cells.features).cells).backward()


def ours(encoder: Encoder, cells: Cells, *, budget: str) -> Step:
    """`DivideAndConquer` with a budget."""
    step = DivideAndConquer(
        lambda batch: encoder(**batch).cells, contrast, modules=[encoder], memory_budget=budget
    )
    return lambda: step(cells)


def grad_cache(encoder: Encoder, cells: Cells, *, micro_batch: int) -> Step:
    """Two passes over chunks of a fixed size, the loss in one graph."""
    package = _grad_cache_package()
    if package is None:
        return lambda: _two_passes(
            encoder, cells, micro_batch, lambda leaf: cross_entropy(*leaf.chunk(2)).backward()
        )
    cached = package(
        models=[encoder, encoder],
        chunk_sizes=micro_batch,
        loss_fn=cross_entropy,
        get_rep_fn=lambda encoding: encoding.cells,
    )
    return lambda: cached(*cells.views())


def sentence_transformers(encoder: Encoder, cells: Cells, *, micro_batch: int) -> Step:
    """Two passes over chunks of a fixed size, the loss by rows."""
    if find_spec("sentence_transformers") is None:
        return lambda: _two_passes(
            encoder, cells, micro_batch, lambda leaf: backward_by_rows(*leaf.chunk(2), micro_batch)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": self.encoder(**features).cells}

    model = SentenceTransformer(modules=[Module()], device="cpu").train()
    loss = CachedMultipleNegativesRankingLoss(
        model,
        scale=1 / TEMPERATURE,
        mini_batch_size=micro_batch,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    return lambda: loss(list(cells.views()), torch.empty(0)).backward()


def open_clip(encoder: Encoder, cells: Cells, *, micro_batch: int) -> Step:
    """Chunk after chunk is encoded again among the features of all others, and the whole loss taken each time."""

    def step() -> None:
        views, n = cells.views(), len(cells) // 2
        chunks = [slice(start, start + micro_batch) for start in range(0, n, micro_batch)]
        parts = [[{name: x[chunk] for name, x in view.items()} for view in views] for chunk in chunks]
        with torch.no_grad():
            features = [[encoder(**part[view]).cells for part in parts] for view in (0, 1)]
        for number, part in enumerate(parts):
            now = []
            for view in (0, 1):
                again = encoder(**part[view]).cells
                now.append(torch.cat([*features[view][:number], again, *features[view][number + 1 :]]))
            cross_entropy(*now).backward()

    return step


SCHEMES = {
    "plain": plain,
    "ours": ours,
    "GradCache": grad_cache,
    "sentence-transformers": sentence_transformers,
    "open_clip": open_clip,
}


def label(scheme: str) -> str:
    """Name of a peer's row: its version, or that the scheme is written anew."""
    if scheme == "GradCache":
        return f"GradCache {version('GradCache')}" if _has_grad_cache() else "GradCache scheme (rewritten)"
    if scheme == "sentence-transformers":
        if find_spec("sentence_transformers") is None:
            return "sentence-transformers cached loss scheme (rewritten)"
        return f"sentence-transformers {version('sentence-transformers')}, cached loss"
    return "open_clip accumulation scheme (rewritten)"  # its own is part of a training script


def _has_grad_cache() -> bool:
    return find_spec("gradcache") is not None


def _grad_cache_package() -> Any:
    """The class of the package, or None; release 0.0.1 is installed as `gradcache` but imports `grad_cache`."""
    if not _has_grad_cache():
        return None
    if "grad_cache" not in sys.modules:
        alias = types.ModuleType("grad_cache")
        alias.__path__ = list(find_spec("gradcache").submodule_search_locations)
        sys.modules["grad_cache"] = alias
    from grad_cache.grad_cache import GradCache

    return GradCache


def _two_passes(
    encoder: Encoder, cells: Cells, micro_batch: int, differentiate: Callable[[Tensor], object]
) -> None:
    """Gao et al. 2021: encode without graphs, cache the gradients, encode again and push them back."""
    starts, states, found = range(0, len(cells), micro_batch), [], []
    with torch.no_grad():
        for start in starts:
            states.append(torch.get_rng_state())
            found.append(encoder(**cells.part(start, start + micro_batch)).cells)
    leaf = torch.cat(found).requires_grad_()
    differentiate(leaf)
    after = torch.get_rng_state()
    for start, state in zip(starts, states, strict=True):
        torch.set_rng_state(state)
        again = encoder(**cells.part(start, start + micro_batch)).cells
        again.backward(leaf.grad[start : start + micro_batch])
    torch.set_rng_state(after)


# measuring


def memory_and_time(step: Step) -> tuple[int, float]:
    """Peak memory above what was there before, in bytes, and seconds, of one call."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        _forget_peak()
        before = _kilobytes("VmRSS") * 1024
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, time.perf_counter() - start
    seconds = time.perf_counter() - start
    return max(_kilobytes("VmHWM") * 1024 - before, 0), seconds


def _forget_peak() -> None:
    """Set the kernel's mark of the highest memory back: imports have been higher than what comes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _kilobytes(field: str) -> int:
    """Memory of this process; VmHWM is `ru_maxrss`, which besides survives from the parent into a child."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(field)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_turn(runs: dict[str, Step], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each in every round; another one begins each round."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(rounds + warm_up):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            runs[name]()
            if i >= warm_up:
                found[name].append(time.perf_counter() - start)
    return found


def gemm_rate(n: int, repeats: int = 3) -> float:
    """FLOP/s of a plain product of n x n matrices in fp32, the best of some."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    out = a @ b
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)
