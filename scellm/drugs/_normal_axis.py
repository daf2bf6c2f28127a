"""How far a cell lies on the way from cancer cell lines to normal tissue.

The nearest cell line does not tell: normal blood is more like a leukaemia than a lung cancer is like another. So there is
an axis along which cell lines and normal tissues differ most for their spread (linear discriminant, ridge), one per depth.
"""

from __future__ import annotations

import numpy as np

FARTHEST = 0.56
"""Position from which a cell is outside: between groups of cancer cells and of normal tissue of labeled datasets of the
training corpus (`docs/dev/decisions.md`)."""
LEAST = 0.1
"""Part of the axis that the genes at hand must hold for it to be used."""


def position_on_axis(
    centered: np.ndarray, axis: np.ndarray, shift: np.ndarray, present: np.ndarray
) -> np.ndarray | None:
    """Where cells lie between the mean cell line (0) and mean normal tissue (1), (B,); `None` if too few genes tell.

    Parameters
    ----------
    centered
        (B, P) log fractions of the present genes, less those of the mean cell line.
    axis, shift
        (G,) of the depth of the cells.
    present
        (P,) which of the G genes the data hold.
    """
    length = float(axis[present] @ shift[present])
    return None if length < LEAST else centered @ axis[present] / length
