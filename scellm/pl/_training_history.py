"""training_history: losses against steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_LOSSES = ("step", "seconds", "learning_rate")
"""Columns of a training log that are not drawn."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
"""Told apart by colour-blind readers (Okabe and Ito)."""


def training_history(
    log: pd.DataFrame | str | os.PathLike[str] | Mapping[str, pd.DataFrame | str | os.PathLike[str]],
    *,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Draw the losses of a pretraining run.

    Parameters
    ----------
    log
        Table or CSV file with a column `step` and one column per loss, as training writes it; or several by name,
        drawn one after the other as stages of one run.
    ax
        Axes to draw on; `None` makes new ones.
    show
        Show the figure; `None` shows it if no `ax` is given.

    Returns
    -------
    The axes, or `None` if the figure was shown.

    Raises
    ------
    KeyError
        A log has no column `step`, or no loss.
    """
    import matplotlib.pyplot as plt

    stages = (
        {str(name): _read(part) for name, part in log.items()}
        if isinstance(log, Mapping)
        else {"": _read(log)}
    )
    losses = list(
        dict.fromkeys(loss for stage in stages.values() for loss in stage.columns if loss not in NOT_LOSSES)
    )
    is_ours = ax is None
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    start = 0.0
    for name, stage in stages.items():
        steps = start + stage["step"]
        for i, loss in enumerate(losses):
            if loss in stage:
                ax.plot(
                    steps, stage[loss], color=COLOURS[i % len(COLOURS)], label=loss.replace("_", " "), lw=1.4
                )
        if start:
            ax.axvline(start, color="0.7", lw=1, ls=":")
        if name:
            ax.annotate(name, (start, 1.01), xycoords=("data", "axes fraction"), fontsize=9, color="0.4")
        start = float(steps.iloc[-1])
    ax.set(xlabel="optimiser step", ylabel="loss (mean since the last line)", ylim=(0, None))
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))  # one entry per loss
    ax.legend(handles.values(), handles.keys(), frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    if show if show is not None else is_ours:
        plt.show()
        return None
    return ax


def _read(log: pd.DataFrame | str | os.PathLike[str]) -> pd.DataFrame:
    """The log as a table, checked."""
    table = log if isinstance(log, pd.DataFrame) else pd.read_csv(Path(log))
    if "step" not in table or not set(table.columns) - set(NOT_LOSSES):
        msg = f"A training log needs a column 'step' and at least one loss; found {list(table.columns)}."
        raise KeyError(msg)
    return table
