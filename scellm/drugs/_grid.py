"""The grid of measured responses, cell lines by drugs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class ResponseGrid:
    """Measured ln IC50 of cell lines and drugs, and how drugs were brought to one scale."""

    values: np.ndarray
    """(L, D) ln IC50, 0 where not measured."""
    measured: np.ndarray
    """(L, D) bool."""

    @classmethod
    def from_table(cls, responses: pd.DataFrame, lines: pd.Index, drugs: pd.Index) -> ResponseGrid:
        """From a table with the columns `line`, `drug` and `ln_ic50`; repeated pairs are averaged.

        Raises
        ------
        KeyError
            A cell line or drug is not in the lists.
        ValueError
            A value is not finite.
        """
        table = responses.groupby(["line", "drug"], observed=True)["ln_ic50"].mean()
        rows = lines.get_indexer(table.index.get_level_values("line"))
        columns = drugs.get_indexer(table.index.get_level_values("drug"))
        for found, what in ((rows, "line"), (columns, "drug")):
            if (found < 0).any():
                name = table.index.get_level_values(what)[int(np.argmax(found < 0))]
                msg = f"The {what} {name!r} has responses, but is not in the table of {what}s."
                raise KeyError(msg)
        if not np.isfinite(table).all():
            pair = table.index[int(np.argmax(~np.isfinite(table)))]
            msg = f"The response of {pair} is not finite; leave out what was not measured."
            raise ValueError(msg)
        values, measured = np.zeros((len(lines), len(drugs))), np.zeros((len(lines), len(drugs)), dtype=bool)
        values[rows, columns], measured[rows, columns] = table, True
        return cls(values, measured)

    def masked(self, kept: np.ndarray) -> ResponseGrid:
        """Only the pairs that are `kept`, (L, D) bool or what broadcasts to it."""
        measured = self.measured & kept
        return ResponseGrid(np.where(measured, self.values, 0), measured)
