"""Train, validation and test cells: by groups where there are any, else by class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Rows of each part, ascending and disjoint."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the validation and test parts."""
        return np.concatenate([self.val, self.test])


def split_cells(
    codes: np.ndarray,
    *,
    val_size: float,
    test_size: float,
    val_groups: np.ndarray | None = None,
    test_groups: np.ndarray | None = None,
    rng: int = 0,
) -> Split:
    """Hold out a test part, then a validation part of the rest.

    Parameters
    ----------
    codes
        (n,) classes, spread over the parts as evenly as the groups allow.
    val_size, test_size
        Share of all cells in each; 0 makes none.
    val_groups, test_groups
        (n,) groups that are held out whole; `None` holds out cells.
    rng
        Seed.

    Raises
    ------
    ValueError
        Too few groups for the parts that are asked for.
    """
    rows = np.arange(len(codes))
    test = _hold_out(codes, rows, test_size, test_groups, rng, "test_by")
    rest = np.setdiff1d(rows, test)
    share = val_size / max(1 - test_size, 1e-9)
    val = _hold_out(codes, rest, min(share, 0.5), val_groups, rng + 1, "val_by")
    return Split(np.setdiff1d(rest, val), val, test)


def _hold_out(
    codes: np.ndarray, rows: np.ndarray, size: float, groups: np.ndarray | None, rng: int, option: str
) -> np.ndarray:
    """About `size` of the rows, ascending."""
    if size == 0:
        return rows[:0]
    if groups is None:
        return _of_each_class(codes, rows, size, rng)
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.unique(groups[rows])
    if len(names) < 2:
        msg = (
            f"{option} has {len(names)} group left ({', '.join(str(name) for name in names)}) after the others were held out; each of "
            "training, validation and test needs one. Name a column with more groups, or pass test_size=0."
        )
        raise ValueError(msg)
    n_splits = min(len(names), max(2, round(1 / size)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=rng)
        folds = [
            fold for _, fold in splitter.split(rows, codes[rows], groups[rows]) if 0 < len(fold) < len(rows)
        ]
    # the fold that leaves most classes on both sides, then the one nearest to the size that is asked for
    best = max(folds, key=lambda fold: (_n_shared(codes, rows, fold), -abs(len(fold) / len(rows) - size)))
    return rows[np.sort(best)]


def _n_shared(codes: np.ndarray, rows: np.ndarray, fold: np.ndarray) -> int:
    """Classes that are in the fold and outside."""
    return len(np.intersect1d(codes[rows[fold]], codes[np.setdiff1d(rows, rows[fold])]))


def _of_each_class(codes: np.ndarray, rows: np.ndarray, size: float, rng: int) -> np.ndarray:
    """The same share of each class; at least one cell where that leaves two."""
    generator = np.random.default_rng(rng)
    held = []
    for code in np.unique(codes[rows]):
        mine = generator.permutation(rows[codes[rows] == code])
        n = max(round(size * len(mine)), int(len(mine) >= 3))
        held.append(mine[: min(n, len(mine) - 1)])
    return np.sort(np.concatenate(held))
