"""Whether a dataset as a whole fits the shipped reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._room import take_rows
from ._annotator import Annotator
from ._looks import UNSURE, Looks
from ._restrict import tissue_mask

MANY_UNSURE = 0.25
"""Share of cells without any type that reaches `UNSURE`: at most 0.15 in the sets that fit (ours, as all of these: chosen on
sets of the training corpus, measured on others in `tests/benchmarks/verdict.py`)."""
FAR = 1.10
"""Median distance from the reference over that of its held-out cells: at most 1.05 in the sets that fit."""
SCATTERED = 0.3
"""Share of types that the best tissue does not have: at most 0.21 in the sets that fit."""
FEWEST_CELLS, MOST_CELLS = 20, 1_000
"""With fewer cells there is no verdict; of more, some are enough."""


@dataclass(frozen=True)
class Fit:
    """How well cells as a whole fit."""

    unsure: float
    distance: float
    outside: float
    tissue: str

    @property
    def doubts(self) -> list[str]:
        """What speaks against it, in words."""
        found = []
        if self.unsure > MANY_UNSURE:
            found.append(
                f"no type reaches {UNSURE} in {100 * self.unsure:.0f} % of the cells (15 % at most where the reference fits)"
            )
        if self.distance > FAR:
            found.append(
                f"they are {self.distance:.2f} times as far from it as cells of other studies (1.05 at most), as tumors, embryos, "
                "cultures, doublets and other organisms are"
            )
        if self.outside > SCATTERED:
            found.append(
                f"no tissue has such a mix of types ({100 * self.outside:.0f} % are foreign even to the best, {self.tissue})"
            )
        return found


def fit_of(annotator: Annotator, vectors: np.ndarray, is_full: np.ndarray, looks: Looks) -> Fit | None:
    """The fit of cells to a reference with tissues; `None` for too few cells or a reference without.

    Parameters
    ----------
    annotator
        The shipped reference.
    vectors
        (n, F) embeddings before any alignment.
    is_full
        (n,) which of them are of cells with genes.
    looks
        Of these.
    """
    rows = np.flatnonzero(is_full)
    if len(rows) < FEWEST_CELLS or annotator.tree is None or not annotator.facts.get("tissues"):
        return None
    if len(rows) > MOST_CELLS:
        rows = rows[np.random.default_rng(0).choice(len(rows), MOST_CELLS, replace=False)]
    some = take_rows(vectors, rows)
    inside = {
        name: float(looks.mean[tissue_mask(annotator, name)].sum()) for name in annotator.facts["tissues"]
    }
    best = max(inside, key=lambda name: inside[name])
    return Fit(
        unsure=looks.unsure,
        distance=float(np.median(annotator.outlier_score(some))) / annotator.usual_distance,
        outside=1 - inside[best],
        tissue=best,
    )
