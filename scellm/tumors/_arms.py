"""Gains and losses of chromosome arms."""

from __future__ import annotations

import numpy as np

from ._aneuploidy import Coherence
from ._genome import Segments

LEAST_SHIFT = 0.08
"""Log ratio of expression from which an arm is said to be gained or lost: a third of that of one copy more."""
LEAST_Z = 3.0
NOISE = 1.25
"""Standard error of an arm in units of that from its genes' spread: the square root of 1.5."""


def arm_table(clones: list[Coherence], segments: Segments) -> dict[str, np.ndarray]:
    """Mean shift of every arm in every clone, its standard error, and what it is called.

    Parameters
    ----------
    clones
        Clones against normal cells.
    segments
        Segments of the genome.

    Returns
    -------
    `clone`, `arm`, `log_ratio`, `standard_error`, `state` ("gain", "loss", "neutral"), all of the same length.
    """
    names = list(dict.fromkeys(segments.arm.tolist()))
    rows: list[tuple[int, str, float, float, str]] = []
    for number, clone in enumerate(clones):
        for name in names:
            here = segments.arm == name
            weight = segments.sizes[here] / segments.sizes[here].sum()
            shift = float(clone.shift[here] @ weight)
            error = NOISE * float(np.sqrt(((clone.error[here] * weight) ** 2).sum()))
            is_altered = abs(shift) > max(LEAST_SHIFT, LEAST_Z * error)
            rows.append(
                (number, name, shift, error, ("gain" if shift > 0 else "loss") if is_altered else "neutral")
            )
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return {
        "clone": np.array(columns[0], dtype=np.int32),
        "arm": np.array(columns[1], dtype=str),
        "log_ratio": np.array(columns[2], dtype=np.float32),
        "standard_error": np.array(columns[3], dtype=np.float32),
        "state": np.array(columns[4], dtype=str),
    }
