"""A batch of cells, ready to be encoded: views, masks and dropout keys, all drawn before the first pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..data import Tokens
from ._recipe import PretrainConfig
from ._views import draw_view

CELLS_PER_DRAW = 64
"""Cells that share a random generator. Processes hold whole blocks of them, so that what is drawn for a cell does not
depend on how many processes there are."""


@dataclass(frozen=True)
class TrainingBatch:
    """Two views of some cells, as 2 B rows: all first views, then all second ones."""

    tokens: Tokens
    """(2 B) rows."""
    is_masked: np.ndarray
    """(n_tokens,) bool: genes whose value is hidden."""
    dropout_keys: np.ndarray
    """(2 B,) int64."""
    cells: np.ndarray
    """(B,) which of the cells it was drawn from: those with a gene in both views."""
    is_cancer: np.ndarray
    """(2 B,) float32: 1 cancer, 0 normal, NaN unknown."""
    is_packed: bool
    """Rows are handed over packed, for `encode_bag`, rather than as rectangles."""
    device: torch.device

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """(2 B,) genes of each row."""
        return self.tokens.lengths

    def __getitem__(self, rows: np.ndarray) -> dict[str, Any]:
        """Arguments of the encoder for some rows, and what the objectives ask of them."""
        arrays = self.tokens.arrays(rows, is_packed=self.is_packed)
        if not self.is_packed and self.is_masked.any():
            masks = Tokens(self.tokens.gene_ids, self.is_masked.astype(np.float32), self.tokens.indptr)
            arrays["is_masked"] = masks.padded(rows)[1] > 0
        arrays |= {"dropout_keys": self.dropout_keys[rows], "is_cancer": self.is_cancer[rows]}
        return {name: torch.from_numpy(x).to(self.device, non_blocking=True) for name, x in arrays.items()}


def draw_batch(
    counts: sp.csr_array,
    is_cancer: np.ndarray,
    recipe: PretrainConfig,
    *,
    step: int,
    first: int = 0,
    is_packed: bool = False,
    device: torch.device | None = None,
) -> TrainingBatch:
    """Draw views, masks and keys of some cells of a batch.

    Parameters
    ----------
    counts
        (B, n_genes) linear expression.
    is_cancer
        (B,) 1, 0 or NaN.
    recipe
        What is drawn; its seed.
    step
        Number of the step: the same step gives the same draw.
    first
        Place of the first cell in the whole batch, a multiple of 64.
    """
    parts = []
    for start in range(0, counts.shape[0], CELLS_PER_DRAW):
        rng = np.random.default_rng([recipe.seed, step, (first + start) // CELLS_PER_DRAW])
        block = counts[start : start + CELLS_PER_DRAW]
        views = [draw_view(block, recipe.views, rng) for _ in range(2)]
        masks = [np.zeros(len(views[0].values), dtype=bool), np.zeros(len(views[1].values), dtype=bool)]
        if recipe.masks:
            masks[1] = rng.random(len(views[1].values)) < recipe.mask_rate
        keys = rng.integers(-(2**62), 2**62, size=(2, block.shape[0]))
        parts.append((views, masks, keys))
    n = counts.shape[0]
    views = [_joined([part[0][i] for part in parts]) for i in range(2)]
    tokens = _joined(views)
    is_masked = np.concatenate([part[1][i] for i in range(2) for part in parts])
    keys = np.concatenate([part[2][i] for i in range(2) for part in parts])
    cells = np.flatnonzero((views[0].lengths > 0) & (views[1].lengths > 0))
    both = np.concatenate([cells, cells + n])
    if len(cells) < n:
        marked = Tokens(tokens.gene_ids, is_masked.astype(np.float32), tokens.indptr)[both]
        tokens, is_masked = tokens[both], marked.values > 0
    return TrainingBatch(
        tokens=tokens,
        is_masked=is_masked,
        dropout_keys=keys[both],
        cells=cells,
        is_cancer=np.tile(is_cancer[cells].astype(np.float32), 2),
        is_packed=is_packed,
        device=device or torch.device("cpu"),
    )


def _joined(parts: list[Tokens]) -> Tokens:
    """Rows of several, one after the other."""
    starts = np.cumsum([0, *(len(part.values) for part in parts)])
    return Tokens(
        np.concatenate([part.gene_ids for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate(
            [[0], *(part.indptr[1:] + start for part, start in zip(parts, starts[:-1], strict=True))]
        ),
    )
