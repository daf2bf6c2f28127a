"""How well each type of the shipped reference was recognized where whole studies were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FEWEST_CELLS = 20
"""A rate of fewer cells is not known (ours)."""
OFTEN_WRONG = 0.5
"""Share of right names below which a name is worth a word."""
MANY_CELLS = 0.02
"""Share of the cells that a doubtful name must have to be worth a word (ours)."""


def left_out_rates(types: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Recall and precision of each node, NaN where fewer than `FEWEST_CELLS` cells tell.

    Precision needs studies that have the type, too: where none has, a name can only be contradicted, never confirmed.

    Parameters
    ----------
    types
        What the reference knows of each node.
    """
    number = np.array([[fact.get(name, 0) for name in ("n_tested", "n_named")] for fact in types])
    is_known = number >= FEWEST_CELLS
    recall, precision = (np.array([fact[name] for fact in types], float) for name in ("recall", "precision"))
    return {
        "recall_left_out": np.where(is_known[:, 0], recall, np.nan),
        "precision_left_out": np.where(is_known.all(axis=1), precision, np.nan),
    }


def doubtful_names(
    names: np.ndarray, nodes: Sequence[str], parents: Sequence[str], precision: np.ndarray
) -> str:
    """Frequent names that were wrong more often than right in studies left out, in words; "" if there are none.

    Parameters
    ----------
    names
        (n,) labels of cells.
    nodes, parents
        Nodes of the tree, and the node above each, "" at the top.
    precision
        Of each node, NaN if unknown.
    """
    found = []
    number = Counter(names.tolist())
    for node, parent, right in zip(nodes, parents, precision, strict=True):
        share = number[node] / max(len(names), 1)
        if right < OFTEN_WRONG and share >= MANY_CELLS:
            instead = f", so read {parent!r}" if parent else ""
            found.append(
                (share, f"{node!r} ({100 * share:.0f} % of the cells, right in {100 * right:.0f} %{instead})")
            )
    listed = [text for _, text in sorted(found, reverse=True)]
    return ", ".join(listed)


def named_instead(types: Sequence[Mapping[str, Any]], parents: np.ndarray) -> tuple[int, ...]:
    """The node that each node is named as: itself, or the one above where it was wrong more often than right."""
    is_wrong = left_out_rates(types)["precision_left_out"] < OFTEN_WRONG
    found: list[int] = []
    for node, parent in enumerate(parents):
        found.append(found[parent] if is_wrong[node] and parent >= 0 else node)
    return tuple(found)
