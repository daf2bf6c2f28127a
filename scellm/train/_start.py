"""Where training starts: scales and directions taken from the corpus, a deeper encoder grown from a bag, averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch

from ..data import Corpus, log_normalize
from ..nn import CellLMConfig, Encoder, encode_bag
from ..nn._encoder import EMBEDDING_STD, ContinuousExpression


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


def gene_loadings(
    corpus: Mapping[str, sp.csr_array],
    dim: int,
    target_sum: float,
    *,
    gain: np.ndarray,
    seed: int = 0,
    n_rounds: int = 4,
) -> np.ndarray:
    """Loadings of genes on the principal components within datasets, (n_genes, dim).

    What a bag of genes with these embeddings computes is a principal component analysis of all datasets together, with
    the mean of each taken out, so that differences between studies do not count. Every dataset weighs the same.
    Components are scaled by 1 / sqrt(singular value), half-way to equal spread. By randomised subspace iteration over
    the sparse values :cite:p:`Halko2011`.

    Parameters
    ----------
    corpus
        (n_cells, n_genes) linear expression of each dataset.
    dim
        Number of components, at most that of genes.
    target_sum
        Counts per cell after normalisation.
    gain
        (n_genes,) factor of log1p expression, as in the encoder.
    seed
        Of the random directions it starts from.
    n_rounds
        Rounds of the iteration.
    """
    parts, means = [], []
    for counts in corpus.values():
        values = log_normalize(counts, target_sum)
        lengths = np.diff(values.indptr)
        share = np.minimum(values.data * gain[values.indices], ContinuousExpression.MAX)
        share /= np.repeat(
            np.maximum(lengths, 1) * np.sqrt(counts.shape[0]), lengths
        )  # mean over genes, as the bag
        part = sp.csr_array((share.astype(np.float32), values.indices, values.indptr), shape=values.shape)
        parts.append(part)
        means.append(part.mean(0))
    cells, means = sp.csr_array(sp.vstack(parts, format="csr")), np.array(means, dtype=np.float32)
    genes = sp.csr_array(cells.T)
    ends = np.cumsum([0, *(part.shape[0] for part in parts)])
    of = np.repeat(np.arange(len(parts)), np.diff(ends))

    def project(directions: np.ndarray) -> np.ndarray:
        return cells @ directions - (means @ directions)[of]

    def project_back(scores: np.ndarray) -> np.ndarray:
        return genes @ scores - means.T @ np.add.reduceat(scores, ends[:-1], axis=0)

    rng = np.random.default_rng(seed)
    n_directions = min(dim + 20, *cells.shape)
    directions = rng.standard_normal((cells.shape[1], n_directions)).astype(np.float32)
    for _ in range(n_rounds):
        directions = np.linalg.qr(project_back(np.linalg.qr(project(directions)).Q)).Q
    _, spread, turn = np.linalg.svd(project(directions), full_matrices=False)
    kept = min(dim, int((spread > 1e-6 * spread[0]).sum()))
    loadings = rng.standard_normal((cells.shape[1], dim)).astype(np.float32)
    loadings *= 1e-3 / np.sqrt(cells.shape[1])  # directions the corpus does not have
    loadings[:, :kept] = (directions @ turn.T)[:, :kept] / np.sqrt(spread[:kept])
    return loadings


@torch.no_grad()
def start_from_corpus(
    encoder: Encoder,
    corpus: Mapping[str, sp.csr_array],
    target_sum: float,
    *,
    genes: Literal["random", "loadings"] = "random",
    seed: int = 0,
) -> None:
    """Set the gains of a continuous encoder from the corpus, and its bias so that the mean cell is at zero.

    Without the second, the part all cells share (ribosomal, mitochondrial genes) is most of the embedding
    and the first thousand steps go into removing it.

    Parameters
    ----------
    encoder
        Encoder with `expression="continuous"`, changed in place.
    corpus
        (n_cells, n_genes) linear expression of some cells of each dataset.
    target_sum
        Counts per cell after normalisation.
    genes
        Gene embeddings: left as they are, or `gene_loadings`.
    seed
        Of `gene_loadings`.
    """
    gain = gene_gain(corpus, target_sum, limits=(0.3, 3.0))
    expression = encoder.expression
    expression.log_gain[: len(gain)] = torch.from_numpy(np.log(gain))
    if genes == "loadings":
        loadings = gene_loadings(corpus, encoder.config.dim, target_sum, gain=gain, seed=seed)
        loadings *= EMBEDDING_STD / np.sqrt(np.mean(loadings**2))
        encoder.gene_embedding.weight[: len(gain)] = torch.from_numpy(loadings)
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
