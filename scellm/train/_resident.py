"""A corpus in the memory of a device: cells are taken and views drawn there, without the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._warn import warn
from ..data import Batch, Corpus
from ._batch import CELLS_PER_DRAW
from ._memory import available_bytes
from ._recipe import PretrainConfig
from ._thinning import binomial, poisson, uniform

SHARE = 0.5
"""Of the memory that is free, what a corpus may take at most."""
CELLS_AT_ONCE, SAMPLED = 4096, 32
"""Cells read at once, and cells of a dataset from which its size is estimated."""
STREAMS = 6
"""Keys of a cell: thinning, choice of genes and mask of each view."""


@dataclass(frozen=True)
class ResidentBatch:
    """Two views of some cells on a device; the same to a step as `TrainingBatch`."""

    gene_ids: Tensor
    """(n_tokens,) int32."""
    values: Tensor
    """(n_tokens,) float32."""
    indptr: Tensor
    """(2 B + 1,) int64."""
    lengths: np.ndarray
    """(2 B,) genes of each row."""
    is_masked: Tensor
    """(n_tokens,) bool."""
    dropout_keys: Tensor
    """(2 B,) int64."""
    cells: np.ndarray
    """(B,) which of the cells it was drawn from: those with a gene in both views."""
    is_cancer: np.ndarray
    """(2 B,) float32: 1 cancer, 0 normal, NaN unknown."""
    is_packed: bool
    device: torch.device

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: np.ndarray) -> dict[str, Any]:
        """Arguments of the encoder for some rows, and what the objectives ask of them."""
        index = torch.from_numpy(rows).to(self.device)
        starts, lengths = self.indptr[index], self.indptr[index + 1] - self.indptr[index]
        arrays: dict[str, Any] = {"dropout_keys": self.dropout_keys[index]}
        arrays["is_cancer"] = torch.from_numpy(self.is_cancer[rows]).to(self.device)
        if self.is_packed:
            at, indptr = ranges(starts, lengths, int(self.lengths[rows].sum()))
            return {
                "gene_ids": self.gene_ids[at].long(),
                "values": self.values[at],
                "indptr": indptr,
            } | arrays
        columns = torch.arange(int(self.lengths[rows].max(initial=0)), device=self.device)
        is_gene = columns < lengths[:, None]  # (n, G)
        at = torch.where(is_gene, starts[:, None] + columns, 0)
        arrays |= {"gene_ids": self.gene_ids[at].long(), "is_gene": is_gene}
        arrays["values"] = self.values[at].masked_fill_(~is_gene, 0.0)
        if self.is_masked.numel():
            arrays["is_masked"] = self.is_masked[at] & is_gene
        return arrays


class ResidentCorpus:
    """All cells of a corpus as one packed array on a device.

    Parameters
    ----------
    corpus
        The cells, read once.
    device
        Where they go.
    """

    def __init__(self, corpus: Corpus, device: torch.device) -> None:
        self.device = device
        self.first = np.concatenate([[0], np.cumsum(corpus.sizes)])
        ids_type = torch.int16 if len(corpus.vocabulary) < 2**15 else torch.int32
        lengths, totals, gene_ids, values, is_whole = [], [], [], [], []
        for d, size in enumerate(corpus.sizes.tolist()):
            own = True
            for start in range(0, size, CELLS_AT_ONCE):
                counts = corpus.counts(d, np.arange(start, min(start + CELLS_AT_ONCE, size)))
                own = own and bool(np.array_equal(counts.data, np.rint(counts.data)))
                lengths.append(np.diff(counts.indptr).astype(np.int64))
                totals.append(counts.sum(1, dtype=np.float64))
                gene_ids.append(torch.from_numpy(counts.indices).to(device).to(ids_type))
                values.append(torch.from_numpy(counts.data.astype(np.float32)).to(device))
            is_whole.append(own)
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        self.indptr = torch.from_numpy(indptr).to(device)
        self.lengths, self.totals = np.concatenate(lengths), np.concatenate(totals)
        self.gene_ids, self.counts = torch.cat(gene_ids), torch.cat(values)
        self.is_whole = np.array(is_whole)

    def draw(
        self,
        chosen: Batch,
        is_cancer: np.ndarray,
        recipe: PretrainConfig,
        *,
        step: int,
        first: int,
        is_packed: bool,
    ) -> ResidentBatch:
        """Draw views, masks and keys of some cells; arguments as in `draw_batch`."""
        keys, kept_counts, kept_genes = _drawn(len(chosen), recipe, step, first)
        totals = self.totals[self.first[chosen.dataset] + chosen.row]
        kept_counts = kept_counts * np.minimum(1, recipe.views.max_counts / np.maximum(totals, 1))
        cells = self._cells(chosen)
        views = [
            self._view(cells, recipe, keys[3 * v : 3 * v + 3], kept_counts[v], kept_genes[v], masks=v == 1)
            for v in range(2)
        ]
        lengths = np.stack([view[3].cpu().numpy() for view in views])  # (2, B)
        full = np.flatnonzero((lengths > 0).all(0))
        gene_ids, values, is_masked = (torch.cat([view[i] for view in views]) for i in range(3))
        all_lengths = torch.cat([view[3] for view in views])
        if len(full) < len(chosen):
            rows = torch.from_numpy(np.concatenate([full, full + len(chosen)])).to(self.device)
            ends = all_lengths.cumsum(0)
            at, _ = ranges((ends - all_lengths)[rows], all_lengths[rows], int(lengths[:, full].sum()))
            gene_ids, values = gene_ids[at], values[at]
            is_masked = is_masked[at] if is_masked.numel() else is_masked
            all_lengths = all_lengths[rows]
        dropout = torch.from_numpy(keys[6:8, full].reshape(-1)).to(self.device)
        indptr = torch.nn.functional.pad(all_lengths.cumsum(0), (1, 0))
        return ResidentBatch(
            gene_ids=gene_ids,
            values=values,
            indptr=indptr,
            lengths=lengths[:, full].reshape(-1),
            is_masked=is_masked,
            dropout_keys=dropout,
            cells=full,
            is_cancer=np.tile(is_cancer[full].astype(np.float32), 2),
            is_packed=is_packed,
            device=self.device,
        )

    def _cells(self, chosen: Batch) -> _Cells:
        """The counts of some cells, whole."""
        cell = self.first[chosen.dataset] + chosen.row
        lengths = self.lengths[cell]
        index, length = (torch.from_numpy(x).to(self.device) for x in (cell, lengths))
        n = int(lengths.sum())
        at, indptr = ranges(self.indptr[index], length, n)
        row = torch.repeat_interleave(torch.arange(len(cell), device=self.device), length, output_size=n)
        place = (torch.arange(n, device=self.device) - indptr[row]).to(torch.int32)
        is_whole = self.is_whole[chosen.dataset]
        whole = torch.from_numpy(is_whole).to(self.device)
        return _Cells(self.gene_ids[at].int(), self.counts[at], row, place, whole, bool(is_whole.all()))

    def _view(
        self,
        cells: _Cells,
        recipe: PretrainConfig,
        keys: np.ndarray,
        kept_counts: np.ndarray,
        kept_genes: np.ndarray,
        *,
        masks: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gene ids, values, masks and the (B,) lengths of one view: as `draw_view`."""
        views, row, n = recipe.views, cells.row, len(kept_counts)
        thin, choose, mask = torch.from_numpy(keys).to(self.device)
        share = torch.from_numpy(kept_counts).to(self.device).float()[row]
        u = uniform(thin[row], cells.place)
        if cells.all_whole:
            counts = binomial(cells.counts, share, u)
        else:
            is_whole = cells.is_whole[row]
            counts = torch.empty_like(u)
            counts[is_whole] = binomial(cells.counts[is_whole], share[is_whole], u[is_whole])
            counts[~is_whole] = poisson((cells.counts * share)[~is_whole], u[~is_whole])

        # whole numbers: their sums do not depend on the order in which they are added
        totals = torch.zeros(n, device=self.device, dtype=torch.float64).index_add_(0, row, counts.double())
        found = torch.zeros(n, device=self.device).index_add_(0, row, (counts > 0).float())
        genes = torch.from_numpy(kept_genes).to(self.device).float()
        genes = torch.minimum(genes, views.max_genes / found.clamp(min=1))
        is_kept = (counts > 0) & (uniform(choose[row], cells.place) < genes[row])
        at = torch.nonzero(is_kept).squeeze(1)
        row = row[at]
        scale = views.target_sum / totals.clamp(min=1)
        values = torch.log1p(counts[at].double() * scale[row]).float()
        is_masked = torch.empty(0, dtype=torch.bool, device=self.device)
        if recipe.masks:
            is_masked = torch.zeros(len(at), dtype=torch.bool, device=self.device)
            if masks:
                is_masked = uniform(mask[row], cells.place[at]) < recipe.mask_rate
        lengths = torch.zeros(n, device=self.device).index_add_(0, row, torch.ones_like(values)).long()
        return cells.gene_ids[at], values, is_masked, lengths


@dataclass(frozen=True)
class _Cells:
    """Cells of a batch, value by value."""

    gene_ids: Tensor
    counts: Tensor
    row: Tensor
    """(n,) cell of each value."""
    place: Tensor
    """(n,) int32, place of each value in its cell."""
    is_whole: Tensor
    """(B,) whether a cell holds whole numbers."""
    all_whole: bool


def resident(
    corpus: Corpus, wanted: Literal["auto", "host", "device"], device: torch.device
) -> ResidentCorpus | None:
    """The corpus on the device if that is wanted and there is room; else `None`, said where it was wanted."""
    if wanted == "host" or (wanted == "auto" and device.type != "cuda"):
        return None
    needed, free = corpus_bytes(corpus), available_bytes(device)
    reason = f"it takes {needed / 1e9:,.2f} GB there, and at most {SHARE * free / 1e9:,.2f} GB may be used"
    if device.type == "mps":
        reason = "it has no numbers of double precision"
    elif needed <= SHARE * free:
        try:
            return ResidentCorpus(corpus, device)
        except torch.OutOfMemoryError:
            reason = f"it ran out of memory with {free / 1e9:,.2f} GB free"
    warn(
        f"The corpus does not go into the memory of {device}: {reason}. Views are drawn on the host instead, which is "
        "slower; pass views_on='host' to say so, fewer cells, or a device with more memory."
    )
    return None


def corpus_bytes(corpus: Corpus) -> int:
    """About what a corpus takes on a device, while it is put there: by a sample of each dataset."""
    n_values = 0.0
    for d, size in enumerate(corpus.sizes.tolist()):
        rows = np.unique(np.linspace(0, size - 1, min(size, SAMPLED)).astype(np.int64))
        n_values += size * corpus.counts(d, rows).nnz / len(rows)
    return int(2 * (4 + (2 if len(corpus.vocabulary) < 2**15 else 4)) * n_values)


def ranges(starts: Tensor, lengths: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Places of stretches that begin at `starts`, one after the other, and where each begins among them."""
    indptr = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(starts - indptr[:-1], lengths, output_size=total)
    return torch.arange(total, device=starts.device) + shift, indptr


def _drawn(
    n_cells: int, recipe: PretrainConfig, step: int, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn per cell: keys (8, B) int64, shares of counts and of genes kept by each view (2, B)."""
    parts = []
    for start in range(0, n_cells, CELLS_PER_DRAW):
        n = min(CELLS_PER_DRAW, n_cells - start)
        rng = np.random.default_rng([recipe.seed, step, (first + start) // CELLS_PER_DRAW, 2])
        keys = rng.integers(-(2**62), 2**62, size=(STREAMS + 2, n))
        counts = rng.uniform(*recipe.views.keep_counts, size=(2, n))
        genes = 1 - rng.uniform(*recipe.views.drop_genes, size=(2, n))
        parts.append((keys, counts, genes))
    keys, counts, genes = (np.concatenate([part[i] for part in parts], axis=1) for i in range(3))
    return keys, counts, genes
