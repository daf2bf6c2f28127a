"""The encoder: genes and values of cells -> hidden states, readable top to bottom.

Shape letters: `B` cells, `G` gene positions, `D` hidden size. A cell's row depends on that cell alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._attention import Attention, Positions, orthogonal_projection
from ._config import CellLMConfig
from ._heads import MaskedGeneHead

EMBEDDING_STD = 0.05
"""Spread of embeddings before training: small, so that training soon moves them."""


class Encoding(NamedTuple):
    """What the encoder returns."""

    cells: Tensor
    """(B, D) cell embeddings."""
    genes: Tensor
    """(B, G, D) hidden states of the gene positions; filler positions hold zeros."""


class BinnedExpression(nn.Module):
    """Token = gene embedding + embedding of the expression bin (paper, section 3.1).

    The bin is the integer part of log1p expression clipped to `max_bin`, so values below 1 fall in bin 0.
    """

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.max_bin = config.max_bin
        self.embedding = nn.Embedding(config.n_expression_tokens, config.dim)
        self.mask_embedding = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)

    def forward(self, genes: Tensor, values: Tensor, gene_ids: Tensor, is_masked: Tensor | None) -> Tensor:
        expression = self.embedding(values.clamp(0, self.max_bin).long())  # (B, G, D)
        if is_masked is not None:
            expression = torch.where(
                is_masked[..., None], self.mask_embedding.to(expression.dtype), expression
            )
        return genes + expression

    def special(self, genes: Tensor, offset: int) -> Tensor:
        """Token of CLS (`offset` 1) or PAD (`offset` 2) from its row of the gene table."""
        return genes + self.embedding.weight[self.max_bin + offset]


class ContinuousExpression(nn.Module):
    """Token = u * gene embedding + bias, with u = gain of the gene * log1p expression (ours).

    The gain is learnt per gene; pretraining starts it at the inverse spread of the gene in the corpus, so
    that a rarely seen marker is not drowned by ribosomal genes. The bias turns the length of u * embedding
    into a direction, which is what the layer norm of the first block lets through.
    """

    MAX = 5.0
    """u is clipped here: one runaway gene must not be the whole cell."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(config.n_genes + 2))
        self.bias = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)
        self.mask_embedding = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)

    def forward(self, genes: Tensor, values: Tensor, gene_ids: Tensor, is_masked: Tensor | None) -> Tensor:
        token = self.amount(values, gene_ids).unsqueeze(-1) * genes + self.bias  # (B, G, D)
        if is_masked is None:
            return token
        return torch.where(is_masked[..., None], genes + self.mask_embedding, token)

    def amount(self, values: Tensor, gene_ids: Tensor) -> Tensor:
        """Amount u = gain of the gene * log1p expression, clipped; the shape of `values`."""
        return (values * self.log_gain[gene_ids].exp()).clamp(max=self.MAX)

    def special(self, genes: Tensor, offset: int) -> Tensor:
        """CLS and PAD have no expression: their row of the gene table is their token."""
        return genes


class FeedForward(nn.Module):
    """Pre-norm two-layer network added to its input."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        width = config.ff_mult * config.dim
        self.norm = nn.LayerNorm(config.dim)
        self.expand = nn.Linear(config.dim, width)
        self.contract = nn.Linear(width, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.gelu(self.expand(self.norm(x))))
        return x + self.dropout(self.contract(hidden))


class Block(nn.Module):
    """Pre-norm encoder block: attention, then feed-forward, each added to its input."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x), positions))
        return self.feed_forward(x)


class Encoder(nn.Module):
    """CellLM encoder :cite:p:`Zhao2023`: a transformer over the expressed genes of each cell.

    Parameters
    ----------
    config
        The architecture.
    """

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.config = config
        self.gene_embedding = nn.Embedding(config.n_genes + 2, config.dim)  # genes, CLS, PAD
        nn.init.normal_(self.gene_embedding.weight, std=EMBEDDING_STD)
        self.expression = (BinnedExpression if config.expression == "bins" else ContinuousExpression)(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.cell_blocks = nn.ModuleList(FeedForward(config) for _ in range(config.cell_depth))
        self.norm = nn.LayerNorm(config.dim)
        self.masked_gene = MaskedGeneHead(config.dim, config.n_expression_tokens)

    def forward(
        self, gene_ids: Tensor, values: Tensor, is_gene: Tensor, *, is_masked: Tensor | None = None
    ) -> Encoding:
        """Encode a batch of cells.

        Parameters
        ----------
        gene_ids
            (B, G) int64 ids of expressed genes; anything in filler positions.
        values
            (B, G) float log1p expression of those genes.
        is_gene
            (B, G) bool, `False` where a row is filled up to the longest.
        is_masked
            (B, G) bool, positions whose value is hidden for masked gene modelling.

        Returns
        -------
        Cell embeddings (B, D) and hidden states of the genes (B, G, D).
        """
        gene_ids = gene_ids.masked_fill(~is_gene, self.config.n_genes + 1)
        x = self.expression(self.gene_embedding(gene_ids), values, gene_ids, is_masked)  # (B, G, D)
        x, positions = self._frame(x, is_gene)
        for block in self.blocks:
            x = block(x, positions)
        return self._pool(x, is_gene)

    def redraw_projections(self, generator: torch.Generator) -> None:
        """Draw new FAVOR+ projections from `generator`; call it between optimiser steps only."""
        for block in self.blocks:
            projection = block.attention.projection
            if projection is not None:
                projection.copy_(orthogonal_projection(*projection.shape, generator=generator))

    def _frame(self, x: Tensor, is_gene: Tensor) -> tuple[Tensor, Positions]:
        """Put CLS before the genes and the PAD position that stands for all padding after them."""
        config, is_token = self.config, is_gene
        if config.cell_embedding == "cls":
            x = torch.cat([self._special(len(x), 1), x], dim=1)
            is_token = F.pad(is_token, (1, 0), value=True)
        multiplicity = is_token.float()
        if config.padded_context is not None:
            n_padded = config.padded_context - multiplicity.sum(1)  # (B,)
            x = torch.cat([x, self._special(len(x), 2)], dim=1)
            is_token = F.pad(is_token, (0, 1), value=False)
            multiplicity = torch.cat([multiplicity, n_padded.clamp(min=0)[:, None]], dim=1)
        return x, Positions(is_token, multiplicity)

    def _special(self, n_cells: int, offset: int) -> Tensor:
        """CLS (`offset` 1) or PAD (`offset` 2) token for each cell, (B, 1, D)."""
        row = self.gene_embedding.weight[self.config.n_genes + offset - 1]
        return self.expression.special(row, offset).expand(n_cells, 1, -1)

    def _pool(self, x: Tensor, is_gene: Tensor) -> Encoding:
        first = 1 if self.config.cell_embedding == "cls" else 0
        genes = x[:, first : first + is_gene.shape[1]]  # (B, G, D)
        if self.config.cell_embedding == "cls":
            cells = x[:, 0]
        else:
            weight = is_gene / is_gene.sum(1, keepdim=True).clamp(min=1)  # (B, G)
            cells = torch.einsum("bgd,bg->bd", genes, weight.to(genes.dtype))
        return Encoding(self.finish(cells), self.norm(genes) * is_gene.unsqueeze(-1))

    def finish(self, cells: Tensor) -> Tensor:
        """Pooled hidden states -> cell embeddings, (B, D) -> (B, D)."""
        cells = self.norm(cells)
        for block in self.cell_blocks:
            cells = block(cells)
        return cells
