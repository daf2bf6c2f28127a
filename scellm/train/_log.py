"""The log of a run: a CSV file, TensorBoard where it is installed, and memory."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._files import replacing
from ._recipe import OBJECTIVES

Row = dict[str, float]


class TrainingLog:
    """Rows of numbers by step, kept in memory and written to `log.csv` as they come.

    Parameters
    ----------
    folder
        Where to write; `None` keeps them in memory only.
    step
        Rows after this step, left by a run that is resumed from an earlier one, are removed.
    """

    def __init__(self, folder: Path | None, *, step: int = 0) -> None:
        self.rows: list[Row] = []
        self.path = None if folder is None else folder / "log.csv"
        self._board = None if folder is None else _tensorboard(folder / "tensorboard", step)
        if self.path is None:
            return
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = ({name: float(x) for name, x in row.items() if x} for row in csv.DictReader(file))
                self.rows = [row for row in rows if row.get("step", 0) <= step and step > 0]
        self._rewrite()

    def add(self, row: Row) -> None:
        """Append a row; its numbers are written in full, so that a resumed run has the same."""
        is_known = bool(self.rows) and list(row) == list(self.rows[-1])
        self.rows.append(row)
        if self.path is not None:
            if is_known:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerow(repr(value) for value in row.values())
            else:
                self._rewrite()
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))
            self._board.flush()

    def _rewrite(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([repr(row[name]) if name in row else "" for name in names] for row in self.rows)


class Means:
    """Means of numbers since they were last taken."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, row: Row) -> None:
        """Take in the numbers of one step."""
        for name, value in row.items():
            self.values.setdefault(name, []).append(value)

    def take(self) -> Row:
        """The means; then begin anew."""
        means = {name: float(np.mean(values)) for name, values in self.values.items()}
        self.values = {}
        return means


def short(line: Row) -> dict[str, str]:
    """What the progress bar shows of a line."""
    shown = {name: f"{line[name]:.3f}" for name in OBJECTIVES if name in line}
    return shown | {"cells/s": f"{line['cells_per_second']:.0f}", "GiB": f"{line['memory_gib']:.1f}"}


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer, if the package is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def peak_gib(device: torch.device) -> float:
    """Most memory the process has used: of the GPU on a GPU, resident elsewhere; NaN where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / (1 << 30)
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 30)
