"""Splits of measured pairs that do not leak, and the scores of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import _drug_data as source
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.model_selection import GroupKFold, KFold

from scellm.drugs import structure_kernel
from scellm.drugs._names import shared_targets
from scellm.drugs._structures import structures

FEWEST = 10
"""Pairs a drug or line needs for a correlation of its own."""


@dataclass(frozen=True)
class Problem:
    """Pairs to learn from, and pairs to predict."""

    expression: np.ndarray
    """(L, G) log2(TPM + 1)."""
    lines: pd.Index
    drugs: pd.DataFrame
    bits: np.ndarray
    """(D, 2048) fingerprints."""
    structure: np.ndarray
    action: np.ndarray
    values: np.ndarray
    """(L, D) ln IC50 of the training pairs, 0 elsewhere."""
    measured: np.ndarray
    """(L, D) bool."""
    rows: np.ndarray
    columns: np.ndarray
    truth: np.ndarray
    """Line, drug and ln IC50 of each test pair, (n,)."""
    screens: np.ndarray
    """(D,) name of the screen."""


def problem(
    table: pd.DataFrame,
    is_test: np.ndarray,
    is_train: np.ndarray,
    expression: pd.DataFrame | None = None,
) -> Problem:
    """The problem of a table of `line`, `drug`, `ln_ic50`, lines read by `expression` (`None`: of the shipped model).

    Ids of one compound (first block of the InChIKey) are one drug, and a training pair of a line and compound that is
    tested goes.
    """
    expression = source.expression() if expression is None else expression
    catalogue = source.drugs()
    key = source.compounds(catalogue)
    first = key.drop_duplicates().index
    compound = pd.Series(first, index=key[first].to_numpy())
    table = table.assign(drug=compound[key[table["drug"]].to_numpy()].to_numpy())
    drugs = catalogue.loc[sorted(table["drug"].unique())]
    rows = pd.Index(expression.index).get_indexer(table["line"])
    columns = pd.Index(drugs.index).get_indexer(table["drug"])
    shape = (len(expression), len(drugs))
    tested, values, n = np.zeros(shape, dtype=bool), np.zeros(shape), np.zeros(shape)
    tested[rows[is_test], columns[is_test]] = True
    np.add.at(values, (rows[is_train], columns[is_train]), table["ln_ic50"].to_numpy()[is_train])
    np.add.at(n, (rows[is_train], columns[is_train]), 1)
    measured = (n > 0) & ~tested
    bits, numbers, _, _ = structures(drugs["smiles"].tolist())
    return Problem(
        expression=expression.to_numpy(np.float64),
        lines=expression.index,
        drugs=drugs.reset_index(drop=True),
        bits=bits,
        structure=structure_kernel((bits, numbers), (bits, numbers)),
        action=shared_targets(drugs).astype(np.float64),
        values=np.where(measured, values / np.maximum(n, 1), 0),
        measured=measured,
        rows=rows[is_test],
        columns=columns[is_test],
        truth=table["ln_ic50"].to_numpy(np.float64)[is_test],
        screens=np.full(len(drugs), ""),
    )


SMALL = "618 genes"
"""Ends the names of splits whose lines are read by the genes of the model before this one."""


def splits(data: Path = source.DATA) -> Iterator[tuple[str, list[Problem]]]:
    """Name and problems (folds, whose predictions are pooled) of every split.

    Responses of GDSC2 in its later release, one id a compound; the last two splits are also read by the 618 genes of CCLE.
    """
    measured = source.full(data)
    table = measured[measured["screen"] == "GDSC2"].drop(columns="screen").reset_index(drop=True)
    lines, drugs = table["line"].to_numpy(), table["drug"].to_numpy()
    compound = source.compounds(source.drugs(data))[drugs].to_numpy()
    tissue = source.lines(pd.Index(np.unique(lines)), data).set_index("line")["tissue"]
    by_line = GroupKFold(5, shuffle=True, random_state=0)
    yield "unseen lines", _folds(table, by_line, lines)
    yield "unseen tissues", _folds(table, GroupKFold(5), tissue[lines].to_numpy())
    yield "unseen drugs", _folds(table, GroupKFold(5, shuffle=True, random_state=0), compound)
    yield "random pairs", _folds(table, KFold(10, shuffle=True, random_state=0), lines, only=1)
    small = source.ccle(data)
    both = table[table["line"].isin(small.index)].reset_index(drop=True)
    lines = both["line"].to_numpy()
    groups = {
        "unseen lines, those of CCLE": (by_line, lines),
        "unseen tissues, those of CCLE": (GroupKFold(5), tissue[lines].to_numpy()),
    }
    for name, (folds, of_lines) in groups.items():
        yield name, _folds(both, folds, of_lines)
        yield f"{name}, {SMALL}", _folds(both, folds, of_lines, expression=small)


def _folds(
    table: pd.DataFrame,
    folds: GroupKFold | KFold,
    groups: np.ndarray,
    *,
    only: int | None = None,
    expression: pd.DataFrame | None = None,
) -> list[Problem]:
    """The problems of a division of a table, or of its first `only` parts."""
    parts = list(folds.split(table, groups=groups))[:only]
    return [
        problem(table, _mask(len(table), test), _mask(len(table), train), expression) for train, test in parts
    ]


def _mask(n: int, where: np.ndarray) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[where] = True
    return mask


def score(problems: list[Problem], predictions: list[np.ndarray]) -> dict[str, float]:
    """Global Pearson and RMSE; mean Pearson and Spearman over drugs, mean Pearson over lines."""
    truth = np.concatenate([problem.truth for problem in problems])
    guess = np.concatenate(predictions)
    lines, drugs = (np.concatenate([getattr(p, name) for p in problems]) for name in ("rows", "columns"))
    return {
        "Pearson": float(np.corrcoef(truth, guess)[0, 1]) if np.ptp(guess) > 1e-9 else 0.0,
        "RMSE": float(np.sqrt(np.mean((truth - guess) ** 2))),
        "per drug": within(truth, guess, drugs),
        "per drug, Spearman": within(truth, guess, drugs, rank=True),
        "per line": within(truth, guess, lines),
        "pairs": len(truth),
    }


def within(truth: np.ndarray, guess: np.ndarray, group: np.ndarray, *, rank: bool = False) -> float:
    """Mean correlation within groups of at least `FEWEST`; a constant prediction counts as 0."""
    found = []
    for name in np.unique(group):
        rows = group == name
        if rows.sum() >= FEWEST and truth[rows].std() > 0:
            pair = (
                (truth[rows], guess[rows])
                if not rank
                else tuple(map(stats.rankdata, (truth[rows], guess[rows])))
            )
            found.append(np.corrcoef(*pair)[0, 1] if np.ptp(pair[1]) > 1e-9 else 0.0)
    return float(np.mean(found)) if found else float("nan")


def behind(
    problems: list[Problem], ours: list[np.ndarray], theirs: list[np.ndarray], *, by: str, draws: int = 500
) -> dict[str, tuple[float, float]]:
    """95 % intervals of how far `theirs` stay behind `ours`, in Pearson and in mean Pearson per drug.

    Bootstrap over what is held out: `by` "drug" or "line".
    """
    shape = problems[0].values.shape
    truth, tested = np.zeros(shape), np.zeros(shape)
    guesses = np.zeros((2, *shape))
    for task, *pair in zip(problems, ours, theirs, strict=True):
        at = task.rows, task.columns
        truth[at], tested[at] = task.truth, 1.0
        guesses[0][at], guesses[1][at] = pair
    truth = np.where(tested > 0, truth - truth.sum() / tested.sum(), 0)
    enough = tested.sum(0) >= FEWEST
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = {"Pearson": [], "per drug": []}
    fixed = [_within_columns(truth, guess, tested) for guess in guesses]
    axis = 1 if by == "drug" else 0
    held = np.flatnonzero(tested.any(1 - axis))
    for _ in range(draws):
        n = np.bincount(generator.choice(held, len(held)), minlength=shape[axis]).astype(float)
        weights = tested * (n if by == "drug" else n[:, None])
        flat = weights.ravel()[:, None]
        pair = [_within_columns(truth.reshape(-1, 1), g.reshape(-1, 1), flat)[0] for g in guesses]
        found["Pearson"].append(pair[0] - pair[1])
        if by == "drug":
            means = [np.average(r[enough], weights=n[enough]) if n[enough].any() else np.nan for r in fixed]
        else:
            means = [np.mean(_within_columns(truth, g, weights)[enough]) for g in guesses]
        found["per drug"].append(means[0] - means[1])
    return {name: tuple(map(float, np.nanquantile(values, [0.025, 0.975]))) for name, values in found.items()}


def _within_columns(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted correlation in each column; 0 where either is constant."""
    n = np.maximum(weights.sum(0), 1e-9)
    a, b = (values - (weights * values).sum(0) / n for values in (truth, guess))
    over = (weights * a * b).sum(0)
    under = np.sqrt((weights * a**2).sum(0) * (weights * b**2).sum(0))
    return np.divide(over, under, out=np.zeros_like(over), where=under > 1e-9)
