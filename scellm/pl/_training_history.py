"""training_history: losses against steps, and what became of the embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from ._colours import OKABE_ITO
from ._figure import finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Trained(Protocol):
    """What `tl.pretrain` returns, as far as this function looks at it."""

    history: Any


Log = pd.DataFrame | Trained | str | os.PathLike[str]

EMBEDDING = {
    "alignment": ("#0072B2", "-", "alignment\n(0: views agree)"),
    "uniformity": ("#D55E00", "--", "uniformity\n(lower: more even)"),
    "anisotropy": ("#009E73", ":", "anisotropy\n(1: one cone)"),
}
"""Columns of the second panel: color, line and legend."""
NOT_LOSSES = frozenset(
    {
        "step",
        "epoch",
        "penalty",
        "val_macro_f1",
        "seconds",
        "learning_rate",
        "gradient_norm",
        "kept_chunks",
        "n_empty",
        "temperature",
        "cells_per_second",
        "memory_gib",
        *EMBEDDING,
    }
)
"""Columns of a training log that are not drawn as losses."""


def training_history(
    log: Log | Mapping[str, Log],
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | Figure | None:
    """Draw the losses of a pretraining run, and beneath them how the embeddings fill their sphere.

    Parameters
    ----------
    log
        What `tl.pretrain` returned, its `history`, the `checkpoint_dir` of the run or the `log.csv` in it; or several
        by name, drawn one after the other as stages of one run. A table needs a column `step` and one per loss.
    ax
        Axes for the losses alone; `None` makes a figure, with a second panel for alignment, uniformity and anisotropy
        where the log has them.
    show, return_fig
        Whether to show the figure, which is done if no `ax` is given, and whether to return it in place of the axes.

    Returns
    -------
    The axes of the losses, the figure if `return_fig=True`, or `None` if it was shown. The second panel, if there is one, is
    `ax.figure.axes[1]`.

    Raises
    ------
    FileNotFoundError
        No such file, or a folder without `log.csv`.
    KeyError
        A log has no column `step`, or no loss.
    ValueError
        A model that was loaded, which has no history.
    """
    stages = (
        {str(name): _read(part) for name, part in log.items()}
        if isinstance(log, Mapping)
        else {"": _read(log)}
    )
    is_ours, below = ax is None, None
    columns = list(dict.fromkeys(name for stage in stages.values() for name in stage.columns))
    losses = [name for name in columns if name not in NOT_LOSSES]
    watched = [name for name in EMBEDDING if name in columns]
    if is_ours and watched:
        import matplotlib.pyplot as plt

        _, (ax, below) = plt.subplots(
            2, figsize=(7, 5), layout="constrained", sharex=True, height_ratios=(3, 2)
        )
    elif is_ours:
        ax = new_axes(6, 3.6)
    looks = {
        name: (OKABE_ITO[i % len(OKABE_ITO)], "-", name.replace("_", " ")) for i, name in enumerate(losses)
    }
    _draw(ax, stages, looks, is_beside=below is not None)
    _name_stages(ax, stages)
    ax.set(ylabel="loss", ylim=(0, None))
    if below is not None:
        _draw(below, stages, {name: EMBEDDING[name] for name in watched}, is_beside=True)
        below.set(ylabel="embeddings")
        below.axhline(0, color="0.85", lw=1, zorder=0)
    (ax if below is None else below).set(xlabel="optimizer step")
    return finish(ax, is_ours=is_ours, show=show, return_fig=return_fig)


def _draw(
    ax: Axes,
    stages: Mapping[str, pd.DataFrame],
    looks: Mapping[str, tuple[str, str, str]],
    *,
    is_beside: bool,
) -> None:
    """One line per column and stage, stages one after the other; the legend inside or beside."""
    start = 0.0
    for stage in stages.values():
        for name, (colour, style, label) in looks.items():
            if name in stage:
                line = stage[["step", name]].dropna()
                ax.plot(start + line["step"], line[name], color=colour, ls=style, label=label, lw=1.4)
        if start:
            ax.axvline(start, color="0.7", lw=1, ls=(0, (1, 3)))
        start += float(stage["step"].max())
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))  # one entry per column
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if is_beside else {}
    ax.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, **beside)
    ax.spines[["top", "right"]].set_visible(False)


def _name_stages(ax: Axes, stages: Mapping[str, pd.DataFrame]) -> None:
    """Names above where they start."""
    start = 0.0
    for name, stage in stages.items():
        if name:
            ax.annotate(name, (start, 1.01), xycoords=("data", "axes fraction"), fontsize=9, color="0.4")
        start += float(stage["step"].max())


def _read(log: Log) -> pd.DataFrame:
    """The log as a table, checked."""
    if isinstance(log, str | os.PathLike):
        log = pd.read_csv(_log_file(Path(log)))
    elif not isinstance(log, pd.DataFrame):
        log = log.history
        if log is None:
            msg = "This model was loaded, not trained here, and has no history. Pass the checkpoint_dir of its run, or its log.csv."
            raise ValueError(msg)
    if "step" not in log or not set(log.columns) - NOT_LOSSES or log.empty:
        msg = f"A training log needs a column 'step' and at least one loss; found {len(log)} lines of {list(log.columns)}."
        raise KeyError(msg)
    return log


def _log_file(path: Path) -> Path:
    """The file itself, or that in a folder of checkpoints."""
    if not path.is_dir():
        return path
    if not (path / "log.csv").is_file():
        stages = sorted(log.parent.name for log in path.glob("*/log.csv"))
        remedy = (
            f"It holds the stages {stages}; pass them in their order: "
            f"{{{', '.join(f'{name!r}: {str(path / name)!r}' for name in stages)}}}."
            if stages
            else "Pass the checkpoint_dir of a run."
        )
        msg = f"There is no log.csv in {path}. {remedy}"
        raise FileNotFoundError(msg)
    return path / "log.csv"
