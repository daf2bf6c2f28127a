"""Where training starts: scales taken from the corpus, a deeper encoder grown from a bag, the average of two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch

from ..data import Corpus, log_normalize
from ..nn import CellLMConfig, Encoder
from ._bag import encode_bag


def sample_corpus(corpus: Corpus, n_cells: int, *, seed: int = 0) -> dict[str, sp.csr_array]:
    """Up to so many cells of each dataset, (n, n_genes) linear expression by name.

    Parameters
    ----------
    corpus
        The cells.
    n_cells
        Cells of each dataset at most.
    seed
        Which ones.
    """
    sample = {}
    for i, (name, size) in enumerate(zip(corpus.names, corpus.sizes, strict=True)):
        rng = np.random.default_rng([seed, i])
        rows = rng.choice(size, size=min(int(size), n_cells), replace=False)
        sample[name] = corpus.counts(i, np.sort(rows))
    return sample


def gene_gain(
    corpus: Mapping[str, sp.csr_array], target_sum: float, *, limits: tuple[float, float]
) -> np.ndarray:
    """Inverse of twice the spread of each gene's log1p expression, averaged over datasets, (n_genes,).

    Every dataset counts the same, so that a gene seen in one small tissue keeps its own scale there.
    """
    square_sum, n_seen = 0.0, 0.0
    for counts in corpus.values():
        row_scale = target_sum / np.maximum(counts.sum(1, dtype=np.float64), 1)
        data = np.log1p(counts.data * np.repeat(row_scale, np.diff(counts.indptr)))
        values = sp.csr_array((data, counts.indices, counts.indptr), shape=counts.shape)
        mean = values.mean(0)
        variance = np.maximum(values.multiply(values).mean(0) - mean**2, 0)
        square_sum, n_seen = square_sum + variance, n_seen + (variance > 0)
    spread = np.sqrt(square_sum / np.maximum(n_seen, 1))
    gain = 1 / (2 * np.where(spread > 0, spread, np.median(spread[spread > 0])))
    return np.clip(gain, *limits).astype(np.float32)


@torch.no_grad()
def start_from_corpus(encoder: Encoder, corpus: Mapping[str, sp.csr_array], target_sum: float) -> None:
    """Set the gains of a continuous encoder from the corpus, and its bias so that the mean cell is at zero.

    Without the second, the part all cells share (ribosomal, mitochondrial genes) is most of the embedding
    and the first thousand steps go into removing it.
    """
    gain = gene_gain(corpus, target_sum, limits=(0.3, 3.0))
    expression = encoder.expression
    expression.log_gain[: len(gain)] = torch.from_numpy(np.log(gain))
    bags = []
    for counts in corpus.values():
        values = log_normalize(counts[:: max(1, counts.shape[0] // 200)], target_sum)
        values = values[np.diff(values.indptr) > 0]
        gene_ids = torch.from_numpy(values.indices.astype(np.int64))
        indptr = torch.from_numpy(values.indptr.astype(np.int64))
        bags.append(
            encode_bag(encoder, gene_ids, torch.from_numpy(values.data), indptr, finished=False).mean(0)
        )
    expression.bias -= torch.stack(bags).mean(0)


@torch.no_grad()
def grow(bag: Encoder, config: CellLMConfig) -> Encoder:
    """A deeper encoder that starts as the bag: what its new blocks add is zero until trained.

    Parameters
    ----------
    bag
        Encoder of depth 0.
    config
        The deeper architecture; otherwise as that of `bag`.
    """
    encoder = Encoder(config)
    encoder.load_state_dict(encoder.state_dict() | bag.state_dict())
    for block in encoder.blocks:
        for last in (block.attention.to_out, block.feed_forward.contract):
            last.weight.zero_()
            last.bias.zero_()
    for block in encoder.cell_blocks[len(bag.cell_blocks) :]:
        block.contract.weight.zero_()
        block.contract.bias.zero_()
    return encoder


@torch.no_grad()
def average(start: Encoder, trained: Encoder, share: float) -> Encoder:
    """The encoder between two: (1 - share) * start + share * trained, except for the masked-gene head.

    After a short training the weights half-way are often better on data unlike the training's than either
    end :cite:p:`Wortsman2022`. The head and the mask embedding, of no use before training, are those of `trained`.
    """
    first, second = start.state_dict(), trained.state_dict()
    own = ("masked_gene.", "expression.mask_embedding")
    encoder = Encoder(trained.config)
    encoder.load_state_dict(
        {
            name: new if name.startswith(own) else torch.lerp(first[name], new, share)
            for name, new in second.items()
        }
    )
    return encoder
