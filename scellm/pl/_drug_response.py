"""drug_response: predicted sensitivity by group of cells and drug, with how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .._containers import takes_cells
from .._keys import DRUG_RESPONSE
from .._obs import has_column
from .._warn import warn
from ._drug_cells import draw_umap, draw_violins
from ._drug_colours import Unit
from ._drug_grid import draw_dots, draw_heatmap
from ._drug_table import (
    Responses,
    Summary,
    centred,
    choose_drugs,
    group_codes,
    judged,
    lowest,
    most_different,
    only_groups,
    read_responses,
    similar_together,
    summarise,
)
from ._figure import finish

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Kind = Literal["heatmap", "dotplot", "umap", "violin"]
N_DRUGS = {"heatmap": 50, "dotplot": 50, "umap": 5, "violin": 8}
"""Most drugs drawn where none are named."""


@takes_cells
def drug_response(
    adata: AnnData,
    drugs: str | Sequence[str] | None = None,
    *,
    n_drugs: int | None = None,
    groupby: str | None = None,
    groups: str | Sequence[str] | None = None,
    kind: Kind = "heatmap",
    key: str = DRUG_RESPONSE,
    center: bool = False,
    sort: bool = True,
    cmap: str | Colormap | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Axes | list[Axes] | Figure | None:
    """Draw predicted drug responses, as `tl.drug_response` wrote them.

    The numbers are ln IC50 in ln µM: lower is more sensitive, and one unit less is 2.7 times less drug. Most of what
    differs between drugs is the drug: a drug that kills every cell line has a dark column whatever the cells.
    `center=True` draws z, the difference from the drug's mean over the cell lines of the model in units of its spread over them: what the drug
    does to these cells more, or less, than usual.

    The less certain a prediction, the paler it is drawn, or the smaller its dot. What cannot be predicted is drawn as
    such. Cells unlike all cell lines of the training (applicability above 1) are counted for each group; of groups that
    were predicted as a whole, the applicability stands beside them.

    Parameters
    ----------
    adata
        Cells with results of `tl.drug_response`.
    drugs
        Names, synonyms, targets or classes of drugs, as `tl.drug_response` takes them; a target or class is all drugs
        of it. `None` draws all of them, or if there are more than `n_drugs`, those whose z differs most between groups that the
        model can judge (at most half of the cells outside; where fewer than two can be judged, the two most like cell lines); of one group those with the
        lowest z; and says so.
    n_drugs
        Most drugs drawn where none are named; `None` is 50, 5 for `"umap"` and 8 for `"violin"`.
    groupby
        Column of `obs` with groups of cells. `None` takes the groups that the predictions were made by; without any,
        the heatmap has a row for each cell, and the other kinds take all cells as one group.
    groups
        Groups to draw; `None` draws all.
    kind
        `"heatmap"` or `"dotplot"` of groups by drugs, `"umap"` of cells, or `"violin"` of the cells of each group.
    key
        Key of the results: `key_added` of `tl.drug_response`.
    center
        Draw z in place of ln IC50. Predictions that do not have the drugs' means over cell lines, such as those of scellm 0.2, are drawn less
        their mean over cells, with a warning.
    sort
        Put similar rows and similar columns side by side (average linkage); of one row the lowest first. Drugs named in `drugs` stay in their
        order.
    cmap
        Colors; `None` takes viridis, or orange to purple if centered. Both are safe for color-blind readers.
    ax
        Axes to draw on; for `"umap"` and `"violin"` with one drug only. `None` makes a figure.
    show, return_fig
        Whether to show the figure, which is done if no `ax` is given, and whether to return it in place of the axes.

    Returns
    -------
    The axes (a list for `"umap"` and `"violin"`), the figure if `return_fig=True`, or `None` if it was shown.

    Raises
    ------
    KeyError
        Nothing of `tl.drug_response` is under `key`; a drug is none of those predicted; no such column of `obs`; no
        UMAP; a name of `groups` that is no group. The message says what to run or which names are near.
    TypeError
        `adata` is no AnnData, a drug's name is no text, or `groupby` names measurements.
    ValueError
        Unknown `kind`, `n_drugs` below 1, no cells, no drugs or groups named, or one `ax` for several drugs.
    """
    if kind not in get_args(Kind):
        msg = f"kind={kind!r} is unknown; choose one of {', '.join(map(repr, get_args(Kind)))}."
        raise ValueError(msg)
    if n_drugs is not None and n_drugs < 1:
        msg = f"n_drugs={n_drugs!r} must be at least 1."
        raise ValueError(msg)
    responses = read_responses(adata, key)
    if not adata.n_obs:
        msg = "There are no cells to draw."
        raise ValueError(msg)
    groupby = groupby if groupby is not None else _recorded_groups(adata, responses)
    codes, names = only_groups(*group_codes(adata, groupby), groups)
    chosen, note = _choose(responses, drugs, codes, names, N_DRUGS[kind] if n_drugs is None else n_drugs)
    unit, chosen = _relative(chosen) if center else ("ln_ic50", chosen)
    if kind in ("umap", "violin"):
        if ax is not None and len(chosen.drugs) > 1:
            msg = f"ax= takes one drug for kind={kind!r}, found {len(chosen.drugs)}; name one in drugs=, or leave ax= out."
            raise ValueError(msg)
        if kind == "umap":
            axes = draw_umap(adata, chosen, unit=unit, cmap=cmap, ax=ax, note=note)
        else:
            axes = draw_violins(chosen, codes, names, groupby, unit=unit, ax=ax, note=note)
        return finish(axes, is_ours=ax is None, show=show, return_fig=return_fig)
    by_cell = kind == "heatmap" and groupby is None
    if by_cell:
        summary = _each_cell(chosen, list(adata.obs_names))
    else:
        summary = summarise(chosen, codes, names, as_one=groupby is not None and groupby == chosen.groupby)
    if sort:
        columns = np.arange(len(chosen.drugs)) if drugs is not None else _columns(summary)
        summary = summary.ordered(similar_together(centred(summary.values)), columns)
    draw = draw_heatmap if kind == "heatmap" else draw_dots
    drawn = draw(summary, groupby or "", by_cell=by_cell, unit=unit, cmap=cmap, ax=ax, note=note)
    return finish(drawn, is_ours=ax is None, show=show, return_fig=return_fig)


def _recorded_groups(adata: AnnData, responses: Responses) -> str | None:
    """The groups the predictions were made by, if their column is still there."""
    return responses.groupby if responses.groupby and has_column(adata, responses.groupby) else None


def _choose(
    responses: Responses, drugs: str | Sequence[str] | None, codes: np.ndarray, groups: list[str], most: int
) -> tuple[Responses, str]:
    """The drugs to draw, and what to say if these are not all."""
    if drugs is not None:
        return responses[choose_drugs(responses, drugs)], ""
    n_drugs = len(responses.drugs)
    if n_drugs <= most:
        return responses, ""
    relative = responses.relative()
    if len(groups) == 1 and (responses.groupby is not None or len(responses.values) == 1):
        columns = lowest(summarise(relative, codes, groups), most)
        return responses[columns], f"{most} of {n_drugs} drugs: those with the lowest z"
    by_group = len(groups) > 1
    rows = summarise(relative, codes, groups) if by_group else _each_cell(relative, [])
    between = "groups" if by_group else "cells"
    which, called = judged(rows)
    if called:
        between = f"the {between} {called}" if which.sum() > 2 else f"the two {between} {called}"
    return responses[most_different(rows, most)], (
        f"{most} of {n_drugs} drugs: those whose prediction differs most between {between}"
    )


def _columns(summary: Summary) -> np.ndarray:
    """An order of drugs: similar ones side by side; of one row the lowest first."""
    return (
        similar_together(summary.values.T) if len(summary.rows) > 1 else lowest(summary, len(summary.drugs))
    )


def _relative(responses: Responses) -> tuple[Unit, Responses]:
    """z, or if that is not known differences from the mean over cells."""
    if not responses.has_z:
        warn(
            "These predictions do not have the drugs' means and spreads over cell lines, so that their differences from the mean over cells are "
            "drawn. Run scellm.tl.drug_response(adata) again for z."
        )
    return "z" if responses.has_z else "difference", responses.relative()


def _each_cell(responses: Responses, names: list[str]) -> Summary:
    """A row for each cell."""
    outside = np.where(np.isfinite(responses.applicability), responses.applicability > 1, np.nan)
    return Summary(
        rows=names,
        n_cells=np.ones(len(responses.values), dtype=int),
        drugs=responses.drugs,
        classes=responses.classes,
        values=responses.values,
        std=responses.std,
        outside=outside,
        applicability=responses.applicability,
        as_one=False,
    )
