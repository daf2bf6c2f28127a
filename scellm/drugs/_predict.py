"""Predictions for cells, or for groups whose counts are added up: blocks of expression in, arrays out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

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
    return join_predictions([Prediction(*_predict(block, model, projector, panel)) for block in blocks])


@dataclass(frozen=True)
class GroupSums:
    """Counts of n groups, added up over cells."""

    counts: np.ndarray
    """(n, P) of the present genes."""
    n_cells: np.ndarray
    n_bulk: np.ndarray
    """(n,) how many are bulk profiles."""

    @classmethod
    def of(
        cls,
        blocks: Iterable[tuple[np.ndarray, np.ndarray]],
        codes: np.ndarray,
        n_groups: int,
        projector: CellLineProjector,
    ) -> GroupSums:
        """Add up cells.

        Parameters
        ----------
        blocks
            (B, P) linear expression of the present genes, cells in order, and (B,) what one count became there.
        codes
            (n_cells,) number of each cell's group, below 0 for none.
        n_groups
            Number of groups.
        projector
            Projector for the present genes.
        """
        empty = np.zeros((n_groups, len(projector.present)))
        start, sums = 0, cls(empty, np.zeros(n_groups), np.zeros(n_groups))
        for linear, one in blocks:
            of_block = codes[start : start + len(linear)]
            start += len(linear)
            kept = np.flatnonzero(of_block >= 0)
            member = sp.csr_array((np.ones(len(kept)), (of_block[kept], kept)), shape=(n_groups, len(linear)))
            counts, is_bulk = as_counts(linear, one, projector)
            sums += cls(member @ counts, member.sum(1), member @ is_bulk)
        return sums

    def __add__(self, other: GroupSums) -> GroupSums:
        return GroupSums(self.counts + other.counts, self.n_cells + other.n_cells, self.n_bulk + other.n_bulk)


def predict_groups(
    sums: GroupSums, model: DrugModel, projector: CellLineProjector, panel: Panel
) -> Prediction:
    """Predict each group from the sum of its cells' counts; a row for each group."""
    return Prediction(*_predict(sums.counts, model, projector, panel, sums.n_bulk > sums.n_cells / 2))


def join_predictions(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of consecutive parts of the cells, one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(Prediction)]
    return Prediction(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


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


def as_counts(
    linear: np.ndarray, one: np.ndarray, projector: CellLineProjector
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B, P) as they were counted, to be added up, and which are bulk; `one` (B,) is what one count became.

    Bulk profiles weigh the same.
    """
    total, is_bulk = linear.sum(1, dtype=np.float64), projector.is_bulk(linear)
    unit = np.where(is_bulk, total / DEEP, one)
    return np.where(total[:, None] > 0, linear / np.where(total > 0, unit, 1.0)[:, None], 0.0), is_bulk
