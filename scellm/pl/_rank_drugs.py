"""rank_drugs: which drugs a group of cells is predicted to be more sensitive to, with intervals and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._checks import check_anndata
from .._containers import takes_cells
from .._keys import RANK_DRUGS
from ..drugs._record import RankRecord
from ._figure import finish, short

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXPRESSED, ABSENT, UNKNOWN = "#0072B2", "#D55E00", "#999999"
"""Of drugs with a target that cells of the group express, with none that they do, and with no known target."""
FEW = 0.05
"""Share of cells below which a target counts as not expressed."""
SIGNIFICANT = 0.05
LONGEST_TARGET = 26
PANELS_PER_ROW = 2


@takes_cells
def rank_drugs(
    adata: AnnData,
    *,
    groups: str | Sequence[str] | None = None,
    n_drugs: int = 10,
    key: str = RANK_DRUGS,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> list[Axes] | Figure | None:
    """Draw the drugs that each group of cells is predicted to be most sensitive to, compared with the others.

    A panel per group. The dot is the difference of mean predicted ln IC50 in units of the drug's spread over cell lines, by which
    `tl.rank_drugs` ranks; further left is more sensitive. The line is its
    95 % interval over samples, or over cells if there are no samples. The error of the model is not in the interval. A
    filled blue dot means that at least 5 % of the group's cells express a known target, a hollow orange one that fewer do,
    a gray one that no target is a gene of the data; beside it stand the group's predicted IC50, the targets and that share. A star marks an adjusted
    p-value below 0.05.

    Parameters
    ----------
    adata
        Cells with results of `tl.rank_drugs`.
    groups
        Groups to draw, in this order; `None` draws all.
    n_drugs
        Drugs of each group, those with the lowest difference.
    key
        Key of the results: `key_added` of `tl.rank_drugs`.
    ax
        Axes for one group; `None` makes a figure.
    show, return_fig
        Whether to show the figure, which is done if no `ax` is given, and whether to return it in place of the axes.

    Returns
    -------
    A list of axes, the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        Nothing of `tl.rank_drugs` is under `key`, or a group was not ranked.
    TypeError
        `adata` is no AnnData.
    ValueError
        `n_drugs` is below 1, no group is named, or one `ax` for several groups.
    """
    check_anndata(adata)
    if n_drugs < 1:
        msg = f"n_drugs={n_drugs!r} must be at least 1."
        raise ValueError(msg)
    record = RankRecord.from_uns(adata.uns.get(key))
    if record is None:
        msg = f"There are no ranked drugs under {key!r}. Run scellm.tl.rank_drugs(adata, groupby) first."
        raise KeyError(msg)
    chosen = record.choose(groups)
    if ax is not None and len(chosen) > 1:
        msg = f"ax= takes one group, found {len(chosen)}; name one in groups=, or leave ax= out."
        raise ValueError(msg)
    n_drugs = min(n_drugs, len(record.drugs))
    axes = [ax] if ax is not None else _panels(len(chosen), n_drugs)
    for panel, group in zip(axes, chosen, strict=True):
        _draw(panel, _in_spreads(record.table(group).head(n_drugs), record))
        panel.set_title(short(group), fontsize=10)
    _explain(axes, record)
    return finish(axes, is_ours=ax is None, show=show, return_fig=return_fig)


def _in_spreads(table: pd.DataFrame, record: RankRecord) -> pd.DataFrame:
    """Effects and intervals in units of the drug's spread, if that is known."""
    if not table["effect_sd"].notna().any():
        return table
    spread = table["drug"].map(dict(zip(record.drugs, record.spread, strict=True)))
    return table.assign(effect=table["effect_sd"], low=table["low"] / spread, high=table["high"] / spread)


def _panels(n: int, n_drugs: int) -> list[Axes]:
    """Panels in rows of two."""
    import matplotlib.pyplot as plt

    columns = min(n, PANELS_PER_ROW)
    rows = -(-n // columns)
    size = (5.2 * columns, (0.24 * n_drugs + 0.75) * rows + 1.0)
    figure: Figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for unused in axes[n:]:
        unused.remove()
    for last in axes[max(n - columns, 0) : n]:  # also above a panel that was removed
        last.tick_params(labelbottom=True)
    return list(axes[:n])


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    """A line per drug: interval, dot, targets."""
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    for y, drug in enumerate(table.itertuples()):
        share = drug.target_expressed
        colour = UNKNOWN if np.isnan(share) else EXPRESSED if share >= FEW else ABSENT
        if np.isfinite(drug.low):
            ax.plot(
                [drug.low, drug.high], [y, y], color=colour, lw=1.4, gid="interval", solid_capstyle="butt"
            )
        if np.isfinite(drug.effect):
            face = "white" if share < FEW else colour
            ax.plot(drug.effect, y, "o", mfc=face, mec=colour, ms=6, mew=1.3, gid="effect")
        else:
            ax.text(
                0.5,
                y,
                "not predictable",
                fontsize=7,
                color="0.5",
                transform=ax.get_yaxis_transform(),
                va="center",
            )
        ax.text(
            1.02,
            y,
            _concentration(drug.ln_ic50) + _targets(drug.target, share),
            fontsize=7,
            va="center",
            transform=ax.get_yaxis_transform(),
        )
    stars = [" *" if p < SIGNIFICANT else "" for p in table["p_adjusted"]]
    names = [short(name) + star for name, star in zip(table["drug"], stars, strict=True)]
    ax.set_yticks(range(len(table)), names, fontsize=8)
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.tick_params(axis="x", labelsize=8)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color="0.92", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _concentration(ln_ic50: float) -> str:
    """An IC50 in µM, three digits at most."""
    return "" if np.isnan(ln_ic50) else f"{float(f'{np.exp(ln_ic50):.2g}'):,g} µM; "


def _targets(target: str, share: float) -> str:
    """Names of targets, and the share of cells that express one."""
    if not target:
        return "target not known"
    name = target if len(target) <= LONGEST_TARGET else f"{target[: LONGEST_TARGET - 1]}…"
    return name if np.isnan(share) else f"{name}: {100 * share:.0f} %"


def _explain(axes: list[Axes], record: RankRecord) -> None:
    """Units and what dots mean, once for the figure."""
    from matplotlib.lines import Line2D

    reference = "other cells" if record.reference == "rest" else record.reference
    unit = "units of the drug's spread" if np.isfinite(record.effect_sd).any() else "ln µM"
    label = f"difference of ln IC50 from {reference}, {unit}: lower = more sensitive\n{100 * record.level:.0f} % interval over {record.replicates}, error of the model not included"
    if np.isfinite(record.p_adjusted).any():
        label += "; * adjusted p < 0.05"
    handles = [
        Line2D([], [], marker="o", ls="", mfc=face, mec=edge, ms=6, mew=1.3, label=text)
        for face, edge, text in (
            (EXPRESSED, EXPRESSED, "a target is expressed"),
            ("white", ABSENT, f"in fewer than {100 * FEW:.0f} % of cells"),
            (UNKNOWN, UNKNOWN, "target is no gene of the data"),
        )
    ]
    figure = axes[0].figure
    if len(axes) == 1:
        from matplotlib.transforms import ScaledTranslation

        beneath = axes[0].transAxes + ScaledTranslation(0, -0.65, figure.dpi_scale_trans)  # inches
        axes[0].set_xlabel(label, fontsize=8)
        axes[0].legend(
            handles=handles, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0),
            bbox_transform=beneath, borderaxespad=0,
        )  # fmt: skip
    else:
        figure.supxlabel(label, fontsize=8)
        figure.legend(handles=handles, fontsize=8, frameon=False, ncols=3, loc="outside upper center")
