"""How well neighbors in an embedding share a cell type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class NeighborScore:
    """Result of `neighbor_score`.

    Parameters
    ----------
    macro_f1
        Mean of `f1` over types: a rare type counts as much as a common one.
    f1
        F1 of each scored type.
    n_cells
        Scored cells.
    left_out
        Cells of each type that is too small to be scored.
    n_unlabeled
        Cells without a label.
    """

    macro_f1: float
    f1: dict[str, float]
    n_cells: int
    left_out: dict[str, int]
    n_unlabeled: int


def neighbor_score(
    embedding: ArrayLike,
    labels: Sequence[object] | pd.Series,
    *,
    n_neighbors: int = 15,
    n_folds: int = 5,
    min_cells: int = 10,
    rng: int = 0,
) -> NeighborScore:
    """Macro-F1 of labels predicted from the nearest neighbors, cross-validated.

    Each cell's label is predicted by a vote of its `n_neighbors` nearest cells by cosine distance among the
    other folds. No parameter is fitted, so the score is that of the embedding alone.

    Parameters
    ----------
    embedding
        Vectors of the cells, shape (n_obs, dim).
    labels
        Cell type of each cell, length n_obs; missing values are unlabeled.
    n_neighbors
        Voting neighbors; 15 is what `scanpy.pp.neighbors` takes by default.
    n_folds
        Folds, stratified by label.
    min_cells
        Types with fewer cells are left out, of neighbors too, and listed in the result.
    rng
        Seed of the folds.

    Returns
    -------
    The score, with what it was computed on.

    Raises
    ------
    ValueError
        Lengths differ, vectors are not finite, fewer than two types remain, or folds are larger than types.
    """
    # here, as training uses this package on machines without scikit-learn
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    vectors = np.asarray(embedding, dtype=np.float32)
    labels = pd.Series(np.asarray(labels, dtype=object))
    if vectors.ndim != 2 or len(vectors) != len(labels):
        msg = f"The embedding has shape {vectors.shape} for {len(labels)} labels; need (n_obs, dim) and n_obs labels."
        raise ValueError(msg)
    if n_folds > min_cells:
        msg = f"min_cells is {min_cells}: with {n_folds} folds a type needs at least {n_folds} cells."
        raise ValueError(msg)
    if n_bad := int((~np.isfinite(vectors)).any(axis=1).sum()):
        msg = (
            f"{n_bad} of {len(vectors)} vectors are not finite; leave those cells out (empty cells are NaN)."
        )
        raise ValueError(msg)

    counts = labels.value_counts()
    scored = labels.isin(counts.index[counts >= min_cells]).to_numpy()
    types = sorted(counts.index[counts >= min_cells], key=str)
    if len(types) < 2:
        msg = f"{len(types)} of {len(counts)} types have at least {min_cells} cells; need two types to tell apart."
        raise ValueError(msg)

    lengths = np.linalg.norm(vectors[scored], axis=1, keepdims=True)
    unit = vectors[scored] / np.where(lengths > 0, lengths, 1)  # nearest by cosine = nearest on the sphere
    truth = labels[scored].astype(str).to_numpy()
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=rng)
    predicted = cross_val_predict(KNeighborsClassifier(n_neighbors), unit, truth, cv=folds)
    names = [str(name) for name in types]
    f1 = f1_score(truth, predicted, labels=names, average=None, zero_division=0)
    return NeighborScore(
        macro_f1=float(f1.mean()),
        f1=dict(zip(names, f1.tolist(), strict=True)),
        n_cells=int(scored.sum()),
        left_out={str(name): int(n) for name, n in counts.items() if n < min_cells},
        n_unlabeled=int(labels.isna().sum()),
    )
