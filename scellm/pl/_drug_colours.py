"""Colors of drug responses: lower is darker, less certain is paler, and drug classes told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._colours import palette

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

LABEL = "ln IC50, ln µM:\nlower = more sensitive"
LABEL_Z = "z, spreads of the drug\nover cell lines:\nlower = more sensitive"
LABEL_CENTRED = "ln IC50 less the mean, ln µM:\nlower = more sensitive"
Unit = Literal["ln_ic50", "z", "difference"]
LABELS: dict[Unit, str] = {"ln_ic50": LABEL, "z": LABEL_Z, "difference": LABEL_CENTRED}
UNKNOWN = "#D9D9D9"
"""Of what cannot be predicted."""
PALEST = 0.15
"""Strength of color that is always left."""


class Scale:
    """Colors of values and of their certainty.

    Parameters
    ----------
    values, std
        What will be drawn, any shape; NaN where not known.
    unit
        What values are: "ln_ic50", "z", or "difference" from the mean of what is drawn; the last two have 0 in the middle of the colors.
    cmap
        Color map or its name; `None` for ours.
    """

    def __init__(
        self, values: np.ndarray, std: np.ndarray, *, unit: Unit, cmap: str | Colormap | None
    ) -> None:
        import matplotlib as mpl
        from matplotlib.colors import Normalize

        center = unit != "ln_ic50"
        name = cmap or ("PuOr" if center else "viridis")
        self.cmap: Colormap = mpl.colormaps[name] if isinstance(name, str) else name
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (-1.0, 1.0)
        if center:
            high = max(abs(low), abs(high), 1e-6)
            low = -high
        elif high - low < 1e-6:
            low, high = low - 0.5, high + 0.5
        self.norm: Normalize = Normalize(low, high)
        known = std[np.isfinite(std) & (std > 0)]
        self.best_std = float(np.quantile(known, 0.05)) if len(known) else np.nan
        self.worst_std = float(known.max()) if len(known) else np.nan
        self.label = LABELS[unit]

    def strength(self, std: np.ndarray) -> np.ndarray:
        """1 for the surest predictions of the figure, half of it for twice their standard deviation."""
        if not np.isfinite(self.best_std):
            return np.ones(np.shape(std))
        found = np.clip(self.best_std / np.maximum(std, 1e-12), PALEST, 1.0)
        return np.where(np.isfinite(std), found, PALEST)

    def colours(self, values: np.ndarray, std: np.ndarray) -> np.ndarray:
        """RGB of each value, mixed with white; gray where there is none. (..., 3)."""
        from matplotlib.colors import to_rgb

        full = self.cmap(self.norm(np.nan_to_num(values)))[..., :3]
        strength = self.strength(std)[..., None]
        return np.where(np.isfinite(values)[..., None], 1 - strength * (1 - full), to_rgb(UNKNOWN))


def class_colours(classes: list[str]) -> dict[str, str]:
    """A color for each drug class, commonest first; above seven, figures number them too."""
    names, counts = np.unique([name for name in classes if name], return_counts=True)
    return palette([str(names[i]) for i in np.argsort(-counts, kind="stable")])
