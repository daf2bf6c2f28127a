"""The encoder without its blocks: a bag of genes, a hundred times cheaper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._encoder import Encoder


def encode_bag(
    encoder: Encoder,
    gene_ids: Tensor,
    values: Tensor,
    indptr: Tensor,
    *,
    finished: bool = True,
    dropout_keys: Tensor | None = None,
) -> Tensor:
    """Cell embeddings of a continuous encoder without CLS as if it had no attention blocks, (B, D).

    Equals `encoder(...).cells` of an encoder of depth 0 but never makes the (B, G, D) tokens: the mean of
    u * embedding + bias is a weighted embedding bag plus the bias; so is the sum of amounts of unit length.

    Parameters
    ----------
    encoder
        Encoder with `expression="continuous"` and `cell_embedding="mean"`, `"unit"` or `"bag"`.
    gene_ids, values
        (n_tokens,) packed tokens.
    indptr
        (B + 1,) where each cell starts; every cell has at least one gene.
    finished
        `False` returns the pooled tokens before the cell blocks and the norm.
    dropout_keys
        (B,) int64, as in `Encoder.forward`.
    """
    u = encoder.expression.amount(values, gene_ids)  # (n_tokens,)
    genes = F.embedding_bag(
        gene_ids, encoder.gene_embedding.weight, indptr[:-1], mode="sum", per_sample_weights=u
    )  # (B, D)
    lengths = indptr.diff()
    if encoder.config.has_unit_amounts:
        square = torch.segment_reduce(u.square(), "sum", lengths=lengths)
        share = 1 / square.clamp(min=1e-12).sqrt()
    else:
        share = 1 / lengths
    cells = genes * share[:, None].to(genes.dtype) + encoder.expression.bias
    return encoder.finish(cells, dropout_keys) if finished else cells
