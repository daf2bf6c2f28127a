"""Colors of cell types: shared with scanpy, and told apart by color-blind readers as far as colors can be."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Seven colors that all common forms of color vision tell apart (Okabe and Ito), without black."""
SHADES = (0.0, -0.45, 0.5, -0.25, 0.28, -0.62)
"""Towards black (negative) or white: what a color is told apart by once its hue is taken."""
REFUSED = {"unassigned": "#C8C8C8", "novel": "#000000"}
"""The two answers that are not cell types."""
CONFIDENCE = "cividis"
"""Color map of numbers: even in lightness, the same for color-blind readers."""


def palette(names: list[str]) -> dict[str, str]:
    """A color for each name: seven hues, then the same hues darker and lighter, up to 42, then from the start.

    More than seven are not told apart by color alone, by anybody: figures number their classes then.
    """
    types = [name for name in names if name not in REFUSED]
    colours = [_shade(hue, shade) for shade in SHADES for hue in OKABE_ITO]
    found = {name: colours[i % len(colours)] for i, name in enumerate(types)}
    return {name: REFUSED.get(name) or found[name] for name in names}


def colours_of(adata: AnnData, key: str) -> dict[str, str]:
    """Color by category of `adata.obs[key]`: those in `uns`, as scanpy keeps them, else ours, which are put there."""
    from matplotlib.colors import to_hex

    names = [str(name) for name in adata.obs[key].cat.categories]
    stored = adata.uns.get(f"{key}_colors")
    if stored is not None and len(stored) >= len(names):
        return {name: to_hex(colour) for name, colour in zip(names, stored, strict=False)}
    counts = adata.obs[key].value_counts()  # the clearest colors for the most frequent
    colours = palette(sorted(names, key=lambda name: -int(counts.get(name, 0))))
    if not adata.is_view:  # writing to a view would make it a copy
        adata.uns[f"{key}_colors"] = np.array([colours[name] for name in names], dtype=object)
    return colours


def _shade(colour: str, amount: float) -> str:
    """Mix a color with black (`amount` below 0) or white."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = np.array(to_rgb(colour))
    target = 1.0 if amount > 0 else 0.0
    return to_hex(rgb + abs(amount) * (target - rgb))
