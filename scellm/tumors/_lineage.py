"""What lineage a cell type is of, and which types are normal cells that tumors hold."""

from __future__ import annotations

from collections.abc import Mapping

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
CLEAR = 0.6
"""Share of a clone's cells that must be of one lineage for it to be named."""


def normal_types(coarse: Mapping[str, str]) -> frozenset[str]:
    """Immune, stromal and endothelial types: the normal cells of a tumor.

    Parameters
    ----------
    coarse
        Coarse lineage of each type of the shipped reference, "" for none.
    """
    found = {name for name, lineage in coarse.items() if lineage in NORMAL_LINEAGES}
    return frozenset((found | (NORMAL_STROMA & set(coarse))) - NO_REFERENCE)


def lineage_of(types: np.ndarray, coarse: Mapping[str, str]) -> str:
    """The lineage of most cells of a clone, "unclear" where no three fifths agree.

    A tumor of blood is lymphoid or is not: cells that the reference does not know are called immune cells of all kinds.

    Parameters
    ----------
    types
        (n,) names of types; those that the shipped reference does not have do not count.
    coarse
        Coarse lineage of each type.
    """
    lineages = [coarse[name] for name in types.tolist() if coarse.get(name) in LINEAGE]
    if not lineages:
        return "unclear"
    names, counts = np.unique([LINEAGE[lineage] for lineage in lineages], return_counts=True)
    found, share = str(names[counts.argmax()]), counts.max() / len(lineages)
    if found == LINEAGE["lymphocyte"]:
        n_lymphoid = lineages.count("lymphocyte")
        share = max(n_lymphoid, counts.max() - n_lymphoid) / len(lineages)
    return found if share >= CLEAR else "unclear"


def malignant_names(
    types: np.ndarray, is_malignant: np.ndarray, clone: np.ndarray, coarse: Mapping[str, str]
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
    coarse
        Coarse lineage of each type.
    """
    names = np.array(types, dtype=object)
    for number in np.unique(clone[is_malignant]):
        rows = is_malignant & (clone == number)
        names[rows] = f"malignant ({lineage_of(np.asarray(types)[rows], coarse)})"
    return names
