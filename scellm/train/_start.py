"""Where training starts: scales taken from the corpus, a deeper encoder made from a bag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch

from ..data import Corpus, log_normalize
from ..nn import CellLMConfig, Encoder, encode_bag
from ..nn._encoder import EMBEDDING_STD
from ._gene_directions import gene_discriminants, gene_loadings

OFFSET = 1.5
"""Constant coordinate of an encoder that starts from discriminants, in median lengths of a cell."""


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
    rows = _sampled_rows(corpus, n_cells, seed)
    return {name: corpus.counts(i, rows[i]) for i, name in enumerate(corpus.names)}


def sample_labels(corpus: Corpus, key: str, n_cells: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """A column of `obs` for the cells of `sample_corpus`, text by name of the dataset; "" is unlabeled.

    Parameters
    ----------
    corpus
        The cells.
    key
        Name of the column.
    n_cells, seed
        As in `sample_corpus`.

    Raises
    ------
    KeyError
        No dataset has the column.
    """
    rows, labels = _sampled_rows(corpus, n_cells, seed), corpus.labels(key)
    return {name: labels[i][rows[i]] for i, name in enumerate(corpus.names)}


def _sampled_rows(corpus: Corpus, n_cells: int, seed: int) -> list[np.ndarray]:
    """Rows of each dataset that are sampled, sorted."""
    return [
        np.sort(np.random.default_rng([seed, i]).choice(size, size=min(int(size), n_cells), replace=False))
        for i, size in enumerate(corpus.sizes)
    ]


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
def init_from_corpus(
    encoder: Encoder,
    corpus: Mapping[str, sp.csr_array],
    target_sum: float,
    *,
    gene_init: Literal["random", "pca", "lda"] = "random",
    labels: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> None:
    """Set the gains of a continuous encoder from the corpus, and its bias so that the mean cell is at zero.

    Without the second, the part all cells share (ribosomal, mitochondrial genes) is most of the embedding
    and the first thousand steps go into removing it. Gains of square roots stay at 1: their noise is the same for
    all genes already.

    Parameters
    ----------
    encoder
        Encoder with `expression="continuous"`, changed in place.
    corpus
        (n_cells, n_genes) linear expression of some cells of each dataset.
    target_sum
        Counts per cell after normalization.
    gene_init
        Gene embeddings: left as they are, `gene_loadings`, or `gene_discriminants`. With those the last coordinate
        is a constant of `OFFSET` times the length of the median cell (ours): angles between cells then go with their
        distance, and depend less on where the mean of the corpus lies, which is far from the cells of a tissue it
        does not have.
    labels
        For `"lda"`: cell type of each cell of `corpus`, "" unknown.
    seed
        Of the random directions loadings start from.

    Raises
    ------
    ValueError
        `gene_init="lda"` without labels.
    """
    config, expression = encoder.config, encoder.expression
    n_genes = next(iter(corpus.values())).shape[1]
    gain = np.ones(n_genes, dtype=np.float32)
    if config.amount == "log1p":
        gain = gene_gain(corpus, target_sum, limits=(0.3, 3.0))
        expression.log_gain[:n_genes] = torch.from_numpy(np.log(gain))
    if gene_init != "random":
        options = {"gain": gain, "config": config, "seed": seed}
        if gene_init == "pca":
            directions = gene_loadings(corpus, config.dim, target_sum, **options)
        elif labels is None:
            msg = "gene_init='lda' needs labels: directions are those that tell cell types apart."
            raise ValueError(msg)
        else:
            directions = np.zeros((n_genes, config.dim), dtype=np.float32)
            directions[:, :-1] = gene_discriminants(corpus, labels, config.dim - 1, target_sum, **options)
        directions *= EMBEDDING_STD / np.sqrt(np.mean(directions**2))
        encoder.gene_embedding.weight[:n_genes] = torch.from_numpy(directions)
    bags = []
    for counts in corpus.values():
        values = log_normalize(counts[:: max(1, counts.shape[0] // 200)], target_sum)
        values = values[np.diff(values.indptr) > 0]
        gene_ids = torch.from_numpy(values.indices.astype(np.int64))
        indptr = torch.from_numpy(values.indptr.astype(np.int64))
        bags.append(encode_bag(encoder, gene_ids, torch.from_numpy(values.data), indptr, finished=False))
    cells = torch.cat(bags)
    mean = torch.stack([bag.mean(0) for bag in bags]).mean(0)
    expression.bias -= mean
    if gene_init == "lda":
        expression.bias[-1] = OFFSET * (cells - mean)[:, :-1].norm(dim=1).median()


def growth_problems(config: CellLMConfig, wanted: CellLMConfig) -> list[str]:
    """Why an encoder cannot go on as another: fields that differ, but for those that may.

    Parameters
    ----------
    config
        The architecture it has.
    wanted
        That of the next run: more blocks, and other dropout, are possible.
    """
    grows = {name: getattr(config, name) <= getattr(wanted, name) for name in ("depth", "cell_depth")}
    free = ("dropout", *(name for name, may in grows.items() if may))
    found, asked = config.to_dict(), wanted.to_dict()
    return [
        f"{name} {found[name]!r} -> {asked[name]!r}"
        for name in found
        if name not in free and found[name] != asked[name]
    ]


@torch.no_grad()
def deepen(bag: Encoder, config: CellLMConfig) -> Encoder:
    """A deeper encoder that starts as the one before: what its new blocks add is zero until trained.

    Parameters
    ----------
    bag
        Encoder without blocks, or with fewer.
    config
        The deeper architecture; otherwise as that of `bag`.
    """
    encoder = Encoder(config)
    encoder.silence_blocks()
    encoder.load_state_dict(encoder.state_dict() | bag.state_dict())
    for block in encoder.cell_blocks[len(bag.cell_blocks) :]:
        block.contract.weight.zero_()
        block.contract.bias.zero_()
    return encoder
