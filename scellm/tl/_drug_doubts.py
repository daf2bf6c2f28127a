"""What should not be believed of predicted drug responses, in warnings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .._warn import warn
from ..drugs import Panel
from ..drugs._predict import Prediction

SHALLOW = 300
"""Counts over the model's genes below which single cells say little; see the card of the model."""
WEAK = 0.2
"""Correlation over left-out cell lines below which a drug counts as hardly predictable."""


def report(
    found: Prediction,
    panel: Panel,
    groups: pd.Categorical | None,
    notes: list[str],
    *,
    groupby: str | None,
    asked: bool,
) -> None:
    """Warn of what should not be believed."""
    distance, depth = found.distance, found.depth
    what = "cells" if groups is None else "groups"
    for note in notes:
        warn(note)
    if groups is not None and (n := int((groups.codes < 0).sum())):
        warn(f"{n} cells have no group in `adata.obs[{groupby!r}]`; their rows are NaN.")
    if n := int(np.isnan(distance).sum()):
        names = (
            "" if groups is None else f" ({', '.join(map(str, groups.categories[np.isnan(distance)][:5]))})"
        )
        warn(f"{n} of {len(distance)} {what}{names} express none of the model's genes; their rows are NaN.")
    outside = distance > 1
    n, of = int(outside.sum()), int(np.isfinite(distance).sum())
    if n > (0.5 * of if groups is None else 0):
        if groups is None:
            share = f"{100 * n / of:.0f} % of the cells"
        else:
            names = ", ".join(map(str, groups.categories[outside][:5]))
            share = f"{n} of {of} groups ({names}{', ...' if n > 5 else ''})"
        warn(
            f"{share} are unlike any cancer cell line the model has seen (applicability above 1): normal cells, a tumor that "
            "has little in common with cells in a dish, or data of another kind. Do not rely on their predictions."
        )
    if groups is None and np.median(depth) < SHALLOW:
        warn(
            f"Half of the cells have fewer than {np.median(depth):.0f} counts over the model's genes: their predictions stay near "
            "each drug's mean. Pass groupby= with clusters or samples, whose counts are added up."
        )
    weak = [name for name, r in zip(panel.names, panel.pearson, strict=True) if r < WEAK]
    if weak and asked:
        warn(
            f"Hardly predictable from expression (correlation over left-out cell lines below {WEAK}): {', '.join(weak)}."
        )
