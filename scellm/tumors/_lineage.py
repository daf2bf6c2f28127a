"""What lineage a cell type is of, and which types are normal cells that tumors hold."""

from __future__ import annotations

import numpy as np

_IMMUNE = """B cell|CD4-positive, alpha-beta T cell|CD8-positive, alpha-beta T cell|classical monocyte|
conventional dendritic cell|gamma-delta T cell|innate lymphoid cell|macrophage|mast cell|microglial cell|
natural killer cell|neutrophil|non-classical monocyte|plasma cell|plasmacytoid dendritic cell"""
_STROMAL = """fibroblast|pericyte|smooth muscle cell|adipocyte|hepatic stellate cell|pancreatic stellate cell|
skeletal muscle satellite cell|skeletal muscle fiber|cardiac muscle cell|decidual cell"""
_OTHER = {
    "hematopoietic": "erythroid lineage cell|hematopoietic stem cell|megakaryocyte|platelet|thymocyte",
    "endothelial": "endothelial cell|endothelial cell of lymphatic vessel",
    "melanocytic": "melanocyte|retinal pigment epithelial cell",
    "neural": """GABAergic neuron|Mueller cell|Purkinje cell|Schwann cell|amacrine cell|astrocyte|cerebellar granule cell|
chromaffin cell|dopaminergic neuron|enteric neuron|enteroglial cell|glutamatergic neuron|
neuroblast (sensu Vertebrata)|oligodendrocyte|oligodendrocyte precursor cell|retina horizontal cell|
retinal bipolar neuron|retinal cone cell|retinal ganglion cell|retinal rod cell""",
    "germ": "sperm|spermatid|spermatocyte|spermatogonium",
    "epithelial": """cholangiocyte|ciliated epithelial cell|cortical cell of adrenal gland|enterocyte|
enteroendocrine cell|goblet cell|hepatoblast|hepatocyte|keratinocyte|lens fiber cell|mesothelial cell|
pancreatic A cell|pancreatic D cell|pancreatic PP cell|pancreatic acinar cell|pancreatic ductal cell|
pancreatic epsilon cell|placental villous trophoblast|extravillous trophoblast|syncytiotrophoblast cell|
pulmonary alveolar type 1 cell|pulmonary alveolar type 2 cell|pulmonary ionocyte|squamous epithelial cell|
tuft cell|type B pancreatic cell|Leydig cell|Sertoli cell""",
}


def _names(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


LINEAGE = (
    dict.fromkeys(_names(_IMMUNE), "hematopoietic")
    | dict.fromkeys(_names(_STROMAL), "mesenchymal")
    | {name: lineage for lineage, text in _OTHER.items() for name in _names(text)}
)
"""Lineage of each type of the shipped reference."""
NORMAL_TYPES = frozenset(
    [*_names(_IMMUNE), *_names(_OTHER["endothelial"]), "fibroblast", "pericyte", "smooth muscle cell"]
)
"""Immune, stromal and endothelial types: the normal cells of a tumor."""
CLEAR = 0.6
"""Share of a clone's cells that must be of one lineage for it to be named."""


def lineage_of(types: np.ndarray) -> str:
    """The lineage of most cells of a clone, "unclear" where no three fifths agree.

    Parameters
    ----------
    types
        (n,) names of types; those that are no type of the shipped reference do not count.
    """
    found = [LINEAGE[name] for name in types.tolist() if name in LINEAGE]
    if not found:
        return "unclear"
    names, counts = np.unique(found, return_counts=True)
    return str(names[counts.argmax()]) if counts.max() >= CLEAR * len(found) else "unclear"


def malignant_names(types: np.ndarray, is_malignant: np.ndarray, clone: np.ndarray) -> np.ndarray:
    """Types of cells with malignant ones renamed "malignant (lineage)", the same for all cells of a clone, (n,).

    Parameters
    ----------
    types
        (n,) names of types.
    is_malignant
        (n,) cells that are called malignant.
    clone
        (n,) clone of each, -1 for none.
    """
    names = np.array(types, dtype=object)
    for number in np.unique(clone[is_malignant]):
        rows = is_malignant & (clone == number)
        names[rows] = f"malignant ({lineage_of(np.asarray(types)[rows])})"
    return names
