"""The nearest of many cells: by torch, which is many times faster than numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

N_NEAREST = 5
"""Exemplars a distance is averaged over."""
GROUP = 4
"""Columns of which the largest is looked at first."""


def nearest(
    vectors: np.ndarray, exemplars: np.ndarray, values: np.ndarray, *, skip: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine distance of unit vectors to their nearest exemplars, and the mean of those exemplars' values.

    With `skip=1` the nearest of all is left out, which for an exemplar is itself.
    """
    return nearest_by(vectors @ exemplars.T, values, 1.0, skip=skip)


def nearest_by(
    products: np.ndarray, values: np.ndarray, lengths: np.ndarray | float, *, skip: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, from (n, N) products of vectors of (n,) lengths with the exemplars."""
    k = min(N_NEAREST + skip, len(values))
    skip = min(skip, k - 1)
    close, index = largest(products, k)
    distance = 1 - close[:, skip:].mean(axis=1) / np.where(lengths > 0, lengths, 1).astype(np.float32)
    return np.maximum(distance, 0), values[index[:, skip:]].mean(axis=1)


def largest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) largest values of each row, falling, and their columns; by torch, which is many times faster than numpy."""
    import torch

    found, index = _largest(torch.from_numpy(np.ascontiguousarray(values)), k)
    return found.numpy(), index.numpy()


def _largest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same. The k largest are in the k groups of columns that have the largest maxima: sought first, for speed."""
    import torch

    size = values.shape[1] // GROUP
    if size < 8 * max(k, 1):
        found, index = torch.topk(values, k, dim=1)
        return found, index
    grouped = values[:, : GROUP * size].unflatten(1, (GROUP, size))
    top = _largest(grouped.amax(dim=1), k)[1]
    rest = torch.arange(GROUP * size, values.shape[1]).expand(len(values), -1)
    columns = torch.cat([*(top + i * size for i in range(GROUP)), rest], dim=1)
    found, index = torch.topk(values.gather(1, columns), k, dim=1)
    return found, columns.gather(1, index)


def means_of(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, K) mean of the rows of (m, K) values at (n, k) places; by torch, for speed."""
    import torch

    return torch.nn.functional.embedding_bag(
        torch.from_numpy(places), torch.from_numpy(values), mode="mean"
    ).numpy()
