"""Predictions for cells, or for groups whose counts are added up: blocks of expression in, arrays out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ._model import DrugModel
from ._panel import Panel
from ._profiles import DEEP
from ._projection import CellLineProjector


@dataclass(frozen=True)
class Prediction:
    """Predicted responses of n cells, or of n groups, to D drugs."""

    mean: np.ndarray
    """(n, D) ln IC50, NaN where none of the model's genes is expressed."""
    uncertainty: np.ndarray
    """(n,) standard deviation in units of each drug's own, `Panel.std_unit`."""
    distance: np.ndarray
    """(n,) distance from the cell lines, above 1 outside."""
    depth: np.ndarray
    """(n,) counts over the model's genes."""


def predict_cells(
    blocks: Iterable[np.ndarray], model: DrugModel, projector: CellLineProjector, panel: Panel
) -> Prediction:
    """Predict each cell by itself.

    Parameters
    ----------
    blocks
        (B, P) linear expression of the present genes, cells in order.
    model, projector, panel
        The model, its projector for the present genes, and the drugs.

    Returns
    -------
    The predictions, a row for each cell.
    """
    parts = [_predict(block, model, projector, panel) for block in blocks]
    return Prediction(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def predict_groups(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    codes: np.ndarray,
    model: DrugModel,
    projector: CellLineProjector,
    panel: Panel,
) -> Prediction:
    """Predict each group from the sum of its cells' counts.

    Parameters
    ----------
    blocks
        (B, P) linear expression of the present genes, cells in order, and (B,) what one count became there.
    codes
        (n_cells,) number of each cell's group, below 0 for none.
    model, projector, panel
        As of `predict_cells`.

    Returns
    -------
    The predictions, a row for each group.
    """
    n, start = int(codes.max(initial=-1)) + 1, 0
    sums, n_cells, n_bulk = np.zeros((n, len(projector.present))), np.zeros(n), np.zeros(n)
    for linear, one in blocks:
        of_block = codes[start : start + len(linear)]
        start += len(linear)
        kept = np.flatnonzero(of_block >= 0)
        member = sp.csr_array((np.ones(len(kept)), (of_block[kept], kept)), shape=(n, len(linear)))
        counts, is_bulk = as_counts(linear, one)
        sums += member @ counts
        n_cells += member.sum(1)
        n_bulk += member @ is_bulk
    return Prediction(*_predict(sums, model, projector, panel, n_bulk > n_cells / 2))


def _predict(
    linear: np.ndarray,
    model: DrugModel,
    projector: CellLineProjector,
    panel: Panel,
    is_bulk: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, uncertainty, distance and depth of profiles."""
    similarity, distance, depth = projector.project(linear, is_bulk)
    return model.predict(similarity, panel), model.uncertainty(similarity), distance, depth


def as_counts(linear: np.ndarray, one: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B, P) as they were counted, to be added up, and which are bulk; `one` (B,) is what one count became.

    Bulk profiles weigh the same.
    """
    total = linear.sum(1, dtype=np.float64)
    smallest = np.where(linear > 0, linear, np.inf).min(axis=1, initial=np.inf)
    is_bulk = (total > 0) & (total >= DEEP * smallest)
    unit = np.where(is_bulk, total / DEEP, one)
    return np.where(total[:, None] > 0, linear / np.where(total > 0, unit, 1.0)[:, None], 0.0), is_bulk
