"""The encoder: genes and values of cells -> hidden states, readable top to bottom.

Shape letters: `B` cells, `G` gene positions, `D` hidden size. A cell's row depends on that cell alone.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._attention import Attention, Positions, orthogonal_projection
from ._config import CellLMConfig
from ._dropout import CellDropout
from ._heads import MaskedGeneHead

EMBEDDING_STD = 0.05
"""Spread of embeddings before training: small, so that training soon moves them."""


class Encoding(NamedTuple):
    """What the encoder returns."""

    cells: Tensor
    """(B, D) cell embeddings."""
    genes: Tensor
    """(B, G, D) hidden states of the gene positions, filler positions hold zeros; or those asked for, (n, D)."""


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

    The gain is learned per gene; pretraining starts it at the inverse spread of the gene in the corpus, so
    that a rarely seen marker is not drowned by ribosomal genes. The bias turns the length of u * embedding
    into a direction, which is what the layer norm of the first block lets through. With `amount="sqrt"`, u = gain *
    square root of expression. With `cell_embedding="unit"` or `"bag"` the amounts of a cell, as far as they are not masked, are
    divided by their root mean square, so that neither its depth nor its number of genes is in their length.
    """

    MAX: ClassVar = {"log1p": 5.0, "sqrt": 100.0}
    """u is clipped here: one runaway gene must not be the whole cell."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.n_genes, self.scale, self.is_unit = config.n_genes, config.amount, config.has_unit_amounts
        self.log_gain = nn.Parameter(torch.zeros(config.n_genes + 2))
        self.bias = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)
        self.mask_embedding = nn.Parameter(torch.randn(config.dim) * EMBEDDING_STD)

    def forward(self, genes: Tensor, values: Tensor, gene_ids: Tensor, is_masked: Tensor | None) -> Tensor:
        u = self.amount(values, gene_ids)  # (B, G)
        if self.is_unit:
            counts = gene_ids < self.n_genes if is_masked is None else (gene_ids < self.n_genes) & ~is_masked
            square = (u.square() * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)
            u = u / square.clamp(min=1e-12).sqrt()
        token = u.unsqueeze(-1) * genes + self.bias  # (B, G, D)
        if is_masked is None:
            return token
        return torch.where(is_masked[..., None], genes + self.mask_embedding, token)

    def amount(self, values: Tensor, gene_ids: Tensor) -> Tensor:
        """Amount u = gain of the gene * expression on the scale of the encoder, clipped; the shape of `values`."""
        if self.scale == "sqrt":
            values = values.expm1().clamp(min=0).sqrt()
        # an embedding, not an index: with several threads the gradient of that differs from run to run in its rounding
        gain = F.embedding(gene_ids, self.log_gain[:, None]).squeeze(-1).exp()
        return (values * gain).clamp(max=self.MAX[self.scale])

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
        self.hidden_dropout = CellDropout(config.dropout)
        self.dropout = CellDropout(config.dropout)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        return x + self.dropout(self.contract(self.hidden(x, keys)), keys)

    def hidden(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """The wide layer, (..., D) -> (..., ff_mult * D)."""
        return self.hidden_dropout(F.gelu(self.expand(self.norm(x))), keys)


class Block(nn.Module):
    """Pre-norm encoder block: attention, then feed-forward, each added to its input."""

    def __init__(self, config: CellLMConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.dropout = CellDropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, positions: Positions, keys: Tensor | None = None) -> Tensor:
        return self.feed_forward(self.attend(x, positions, keys), keys)

    def attend(self, x: Tensor, positions: Positions, keys: Tensor | None = None) -> Tensor:
        """The first half: attention added to its input."""
        return x + self.dropout(self.attention(self.norm(x), positions), keys)


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
        if config.cell_embedding == "bag":
            self.silence_blocks()
        layers = (module for module in self.modules() if isinstance(module, CellDropout))
        for salt, layer in enumerate(layers):
            layer.salt = salt

    def forward(
        self,
        gene_ids: Tensor,
        values: Tensor,
        is_gene: Tensor,
        *,
        is_masked: Tensor | None = None,
        dropout_keys: Tensor | None = None,
        wanted: Literal["all", "masked", "none"] = "all",
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
        dropout_keys
            (B,) int64, one per cell and use: fixes the dropout masks of each cell, see `CellDropout`. `None` draws
            them from torch's generator. Without effect in eval mode.
        wanted
            Which hidden states of genes are needed: fewer cost less. Cell embeddings are the same up to rounding.

        Returns
        -------
        Cell embeddings (B, D) and hidden states of the genes: (B, G, D), of the masked ones in their order (n, D), or
        none (0, D).
        """
        gene_ids = gene_ids.masked_fill(~is_gene, self.config.n_genes + 1)
        x = self.expression(self.gene_embedding(gene_ids), values, gene_ids, is_masked)  # (B, G, D)
        tokens = x
        x, positions = self._frame(x, is_gene)
        for block in self.blocks[:-1]:
            x = block(x, positions, dropout_keys)
        end = self._end(x, positions, dropout_keys, is_short=wanted != "all")
        first = x.shape[1] - is_gene.shape[1]
        if self.config.cell_embedding == "cls":
            cells = end.at(0)
        elif self.config.cell_embedding == "bag":
            is_seen = is_gene if is_masked is None else is_gene & ~is_masked
            cells = self._of_unit_amounts(_mean(tokens, is_seen), is_seen)
            if self.blocks:
                cells = cells + end.mean(is_gene, first) - _mean(tokens, is_gene)
        elif self.config.cell_embedding == "unit":
            cells = self._of_unit_amounts(end.mean(is_gene, first), is_gene)
        else:
            cells = end.mean(is_gene, first)
        if wanted == "all":
            genes = self.norm(end.all()[:, first:]) * is_gene.unsqueeze(-1)
        elif wanted == "masked" and is_masked is not None:
            genes = self.norm(end.where(F.pad(is_masked & is_gene, (first, 0))))
        else:
            genes = cells[:0]
        return Encoding(self.finish(cells, dropout_keys), genes)

    def _end(self, x: Tensor, positions: Positions, keys: Tensor | None, *, is_short: bool) -> _End:
        """Hidden states after the last block, of which only what is asked for is computed.

        With dropout they are all computed, as a mask goes by the place of a unit in the cell.
        """
        if not self.blocks:
            return _End(x)
        last = self.blocks[-1]
        x = last.attend(x, positions, keys)
        if is_short and not (self.training and self.config.dropout):
            return _End(x, last.feed_forward)
        return _End(last.feed_forward(x, keys))

    @torch.no_grad()
    def silence_blocks(self) -> None:
        """Set what the blocks add to their input to zero, so that training starts from the encoder without them."""
        for block in self.blocks:
            for last in (block.attention.to_out, block.feed_forward.contract):
                last.weight.zero_()
                last.bias.zero_()

    def redraw_projections(self, generator: torch.Generator) -> None:
        """Draw new FAVOR+ projections from `generator`; call it between optimizer steps only."""
        for block in self.blocks:
            projection = block.attention.projection
            if projection is not None:
                projection.copy_(orthogonal_projection(*projection.shape, generator=generator))

    def _frame(self, x: Tensor, is_gene: Tensor) -> tuple[Tensor, Positions]:
        """Put CLS, and the PAD position that stands for all padding, before the genes.

        Before, so that the place of every position is the same however far the genes are filled up.
        """
        config, is_token = self.config, is_gene
        multiplicity = is_gene.float()
        if config.padded_context is not None:
            n_tokens = multiplicity.sum(1) + float(config.cell_embedding == "cls")
            n_padded = config.padded_context - n_tokens  # (B,)
            x = torch.cat([self._special(len(x), 2), x], dim=1)
            is_token = F.pad(is_token, (1, 0), value=False)
            multiplicity = torch.cat([n_padded.clamp(min=0)[:, None], multiplicity], dim=1)
        if config.cell_embedding == "cls":
            x = torch.cat([self._special(len(x), 1), x], dim=1)
            is_token = F.pad(is_token, (1, 0), value=True)
            multiplicity = F.pad(multiplicity, (1, 0), value=1.0)
        return x, Positions(is_token, multiplicity)

    def _special(self, n_cells: int, offset: int) -> Tensor:
        """CLS (`offset` 1) or PAD (`offset` 2) token for each cell, (B, 1, D)."""
        row = self.gene_embedding.weight[self.config.n_genes + offset - 1]
        return self.expression.special(row, offset).expand(n_cells, 1, -1)

    def _of_unit_amounts(self, mean: Tensor, is_seen: Tensor) -> Tensor:
        """Sum over genes of amounts that are a vector of length 1, plus the bias once, from their mean, (B, D)."""
        # tokens are sqrt(n) * (their share of a vector of length 1) + bias; undo the n, keep one bias
        bias = self.expression.bias
        n_genes = is_seen.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
        return (mean - bias) * n_genes.sqrt() + bias

    def finish(self, cells: Tensor, keys: Tensor | None = None) -> Tensor:
        """Pooled hidden states -> cell embeddings, (B, D) -> (B, D); `keys` as in `forward`."""
        cells = self.norm(cells)
        for block in self.cell_blocks:
            cells = block(cells, keys)
        return cells


class _End:
    """Hidden states after the last block: there already, or its feed-forward layer still to come.

    A mean over genes and the contraction of that layer may change places, as both are linear: then one vector of a cell
    is contracted in place of hundreds.

    Parameters
    ----------
    x
        (B, G, D) hidden states.
    still
        Layer that is not applied yet; `None` if there is none.
    """

    def __init__(self, x: Tensor, still: FeedForward | None = None) -> None:
        self.x, self.still = x, still

    def all(self) -> Tensor:
        """(B, G, D) of all positions."""
        return self.x if self.still is None else self.still(self.x)

    def at(self, position: int) -> Tensor:
        """(B, D) of one position."""
        return self.x[:, position] if self.still is None else self.still(self.x[:, position])

    def where(self, chosen: Tensor) -> Tensor:
        """(n, D) of the positions where (B, G) is true."""
        return self.x[chosen] if self.still is None else self.still(self.x[chosen])

    def mean(self, is_seen: Tensor, first: int) -> Tensor:
        """(B, D) mean over the positions from `first` on that are seen."""
        x = self.x[:, first:]
        if self.still is None:
            return _mean(x, is_seen)
        contract = self.still.contract
        hidden = F.linear(_mean(self.still.hidden(x), is_seen), contract.weight)
        return _mean(x, is_seen) + hidden + contract.bias * is_seen.any(1, keepdim=True)


def _mean(genes: Tensor, is_seen: Tensor) -> Tensor:
    """Mean over the positions that are seen, (B, G, D) -> (B, D)."""
    weight = is_seen / is_seen.sum(1, keepdim=True).clamp(min=1)  # (B, G)
    return torch.bmm(weight.to(genes.dtype).unsqueeze(1), genes).squeeze(1)  # einsum copies both
