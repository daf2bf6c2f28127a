"""How cell embeddings fill their sphere: alignment, uniformity, anisotropy."""

from __future__ import annotations

import numpy as np


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared distance between the unit vectors of two views of the same cells :cite:p:`Wang2020`.

    0 if both views of every cell point the same way; 2 for unrelated directions.

    Parameters
    ----------
    first, second
        (n_cells, dim) embeddings; row i of both is one cell.

    Raises
    ------
    ValueError
        Shapes differ, or a row has no direction.
    """
    first, second = _unit(first), _unit(second)
    if first.shape != second.shape:
        msg = f"Two views of the same cells have one shape; found {first.shape} and {second.shape}."
        raise ValueError(msg)
    return float(np.square(first - second).sum(1).mean())


def uniformity(cells: np.ndarray) -> float:
    """Log of the mean of exp(-2 squared distance) over pairs of unit vectors :cite:p:`Wang2020`; lower is more uniform.

    0 if all cells have one direction. About -4 + 8 / dim at best, for directions drawn evenly over the sphere.

    Parameters
    ----------
    cells
        (n_cells, dim) embeddings of at least two cells. Costs n_cells^2 distances: pass a sample.

    Raises
    ------
    ValueError
        Fewer than two cells, or a row has no direction.
    """
    cosine = _pairs(cells)
    return float(np.log(np.exp(-4 * (1 - cosine)).mean()))  # squared distance of unit vectors: 2 - 2 cosine


def anisotropy(cells: np.ndarray) -> float:
    """Mean cosine of pairs of cells :cite:p:`Ethayarajh2019`: 1 if all lie in one narrow cone, 0 if all around.

    Parameters and errors are those of `uniformity`.
    """
    return float(_pairs(cells).mean())


def _pairs(cells: np.ndarray) -> np.ndarray:
    """Cosines of all pairs of different cells, each once."""
    cells = _unit(cells)
    if len(cells) < 2:
        msg = f"{len(cells)} cell makes no pair; pass at least two."
        raise ValueError(msg)
    return (cells @ cells.T)[np.triu_indices(len(cells), k=1)]


def _unit(cells: np.ndarray) -> np.ndarray:
    """Rows at length 1."""
    cells = np.asarray(cells, dtype=np.float64)
    length = np.linalg.norm(cells, axis=1, keepdims=True) if cells.ndim == 2 else np.zeros(1)
    if not (np.isfinite(length) & (length > 0)).all():
        msg = (
            "Embeddings must be (n_cells, dim) without rows of NaN or 0; leave empty cells out with "
            "np.isfinite(adata.obsm['X_scellm']).all(axis=1)."
        )
        raise ValueError(msg)
    return cells / length
