"""What was found in a sample, in words."""

from __future__ import annotations

import numpy as np

from ._infer import FEWEST_GENES, CopyNumber

FEW_CELLS = 20


def verdict(copies: CopyNumber, arms: dict[str, np.ndarray], is_malignant: np.ndarray) -> str:
    """One or two sentences about a sample.

    Parameters
    ----------
    copies
        Copy number of its cells.
    arms
        Gains and losses, from `arm_table`.
    is_malignant
        (n,) cells that are called malignant.
    """
    n = len(is_malignant)
    called = f"{int(is_malignant.sum()):,} of {n:,} cells are called malignant"
    if not copies.is_usable:
        return (
            f"{len(copies.segments.genes):,} genes with a place on the genome are expressed enough, fewer than the {FEWEST_GENES:,} that copy "
            f"number takes: the calls rest on expression alone, which is weak evidence. {called}."
        )
    reference = (
        f"{int(copies.is_reference.sum()):,} normal cells of the sample"
        if copies.reference == "sample"
        else "the shipped panel of normal profiles, as the sample has too few normal cells"
    )
    few = f" {n} cells are few: a small aneuploid population may be missed." if n < FEW_CELLS else ""
    if not copies.clones:
        return (
            f"No aneuploid population found, compared with {reference}: a diploid tumor cannot be told from normal "
            f"this way. {called}.{few}"
        )
    changes = []
    for number in range(len(copies.clones)):
        here = arms["clone"] == number
        parts = [
            f"{state} of {', '.join(arms['arm'][here & (arms['state'] == state)])}"
            for state in ("gain", "loss")
            if (here & (arms["state"] == state)).any()
        ]
        size = int((copies.clone == number).sum())
        changes.append(f"clone {number + 1} ({size:,} cells) {' and '.join(parts) or 'no whole arm'}")
    return f"{called}; aneuploid, compared with {reference}: {'; '.join(changes)}.{few}"
