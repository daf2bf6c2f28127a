"""What all figures share: making axes, ending as scanpy's functions do, text that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 34
"""Characters of a class name that are drawn."""


def new_axes(width: float, height: float) -> Axes:
    """The axes of a new figure of that many inches."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def plain(ax: Axes, *, grid: str | None = None) -> None:
    """Undo what a session's style, such as scanpy's, would do to a figure: grids over cells, huge labels.

    Parameters
    ----------
    ax
        Axes that are drawn and named.
    grid
        "x" for a pale grid behind, `None` for none.
    """
    ax.grid(visible=False)
    if grid:
        ax.grid(axis=grid, color="0.93", linewidth=0.8, linestyle="-")
    ax.set_axisbelow(True)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(9)
    ax.title.set_fontsize(10)


def finish(
    axes: Axes | Sequence[Axes], *, is_ours: bool, show: bool | None, return_fig: bool | None
) -> Axes | list[Axes] | Figure | None:
    """What a plotting function returns: the figure if asked for, nothing if it was shown, else the axes."""
    import matplotlib.pyplot as plt

    several = isinstance(axes, Sequence)
    if return_fig:
        return (axes[0] if several else axes).figure
    if show if show is not None else is_ours:
        plt.show()
        return None
    return list(axes) if several else axes


def short(name: str) -> str:
    """A class name cut where it would push everything else out of the figure."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a color."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
