"""What lineage a cell type is of, and which types are normal cells that tumors hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

LINEAGE = {
    "lymphocyte": "hematopoietic",
    "myeloid leukocyte": "hematopoietic",
    "platelet or megakaryocyte": "hematopoietic",
    "erythroid cell": "hematopoietic",
    "blood stem or progenitor cell": "hematopoietic",
    "epithelial cell": "epithelial",
    "trophoblast": "epithelial",
    "endothelial cell": "endothelial",
    "stromal cell": "mesenchymal",
    "muscle cell": "mesenchymal",
    "neuron": "neural",
    "neural progenitor": "neural",
    "glia": "neural",
    "melanocyte": "melanocytic",
    "germ cell": "germ",
}
"""What a tumor of each coarse lineage of the shipped reference is called."""
NORMAL_LINEAGES = frozenset({"lymphocyte", "myeloid leukocyte", "endothelial cell"})
"""Coarse lineages whose types are normal cells that tumors hold."""
NORMAL_STROMA = frozenset(
    {"fibroblast", "myofibroblast", "pericyte or smooth muscle cell", "pericyte", "smooth muscle cell"}
)
"""Stromal types that are such cells; others, such as chondrocytes, are of one organ."""
NO_REFERENCE = frozenset({"thymocyte", "precursor B cell"})
"""Types of these lineages that are taken for tumors too easily."""
LINEAGES = tuple(dict.fromkeys(LINEAGE.values()))
"""What tumors are called, in the order of columns of probabilities."""
CLEAR = 0.5
"""Mean probability of a lineage over a clone's cells from which it is named: as likely as all others together."""


def normal_types(coarse: Mapping[str, str]) -> frozenset[str]:
    """Immune, stromal and endothelial types: the normal cells of a tumor.

    Parameters
    ----------
    coarse
        Coarse lineage of each type of the shipped reference, "" for none.
    """
    found = {name for name, lineage in coarse.items() if lineage in NORMAL_LINEAGES}
    return frozenset((found | (NORMAL_STROMA & set(coarse))) - NO_REFERENCE)


def lineage_probabilities(
    probabilities: np.ndarray, classes: Sequence[str], coarse: Mapping[str, str]
) -> np.ndarray:
    """(n, L) probability of each of `LINEAGES`: the sum over its types.

    Parameters
    ----------
    probabilities
        (n, K) of the types of the shipped reference.
    classes
        (K,) their names.
    coarse
        Coarse lineage of each type.
    """
    lineage = np.array([LINEAGE.get(coarse.get(name, ""), "") for name in classes])
    return probabilities @ (lineage[:, None] == np.array(LINEAGES)).astype(probabilities.dtype)


def lineage_of(probabilities: np.ndarray) -> str:
    """The lineage that a clone's cells are of with a mean probability of one half, "unclear" without one.

    Parameters
    ----------
    probabilities
        (n, L) of each cell; 0 where nothing is known.
    """
    mean = probabilities.mean(axis=0)
    return LINEAGES[int(mean.argmax())] if mean.max() >= CLEAR else "unclear"


def malignant_names(
    types: np.ndarray, is_malignant: np.ndarray, clone: np.ndarray, lineages: np.ndarray
) -> np.ndarray:
    """Types of cells with malignant ones renamed "malignant (lineage)", the same for all cells of a clone, (n,).

    Parameters
    ----------
    types
        (n,) names of types.
    is_malignant
        (n,) cells that are called malignant.
    clone
        (n,) clone of each, -1 for none.
    lineages
        (n, L) probabilities of each cell.
    """
    names = np.array(types, dtype=object)
    for number in np.unique(clone[is_malignant]):
        rows = is_malignant & (clone == number)
        names[rows] = f"malignant ({lineage_of(lineages[rows])})"
    return names
