"""Which types may be answered: by tissue, by name, or all but some; and which tissue the cells look like."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._annotator import Annotator
from ._looks import Looks

ANYWHERE, SOLID = "any", "solid"
"""Types that every tissue has, and those that every tissue but blood has."""
BLOOD_CELLS, ENOUGH_BLOOD, ENOUGH_MARROW, ENOUGH = "blood cell", 0.9, 0.1, 0.1
"""Shares of the cells from which they are taken for blood, for marrow, or for the tissue of the types that they are (ours)."""
MARROW = ("blood stem or progenitor cell", "erythroblast", "precursor B cell", "megakaryocyte")


def class_mask(
    annotator: Annotator,
    *,
    tissue: str | Sequence[str] | None,
    classes: Sequence[str] | str | None,
    exclude: Sequence[str] | str | None,
) -> np.ndarray | None:
    """(K,) classes that may be answered; `None` for all.

    Raises
    ------
    ValueError
        An unknown tissue or type, with the nearest; fewer than two classes left; tissues of a reference without them.
    """
    if tissue is None and classes is None and exclude is None:
        return None
    mask = np.ones(len(annotator.classes), dtype=bool)
    if tissue is not None:
        mask &= _of_tissues(annotator, _listed(tissue))
    if classes is not None:
        mask &= _any_of(annotator, _listed(classes), "classes")
    if exclude is not None:
        mask &= ~_any_of(annotator, _listed(exclude), "exclude")
    if mask.sum() < 2:
        left = [name for name, kept in zip(annotator.classes, mask, strict=True) if kept]
        msg = (
            f"tissue=, classes= and exclude= leave {left[0]!r} alone"
            if left
            else "tissue=, classes= and exclude= leave no type"
        ) + "; two are needed to tell apart. Loosen one of them."
        raise ValueError(msg)
    return mask


def guess_tissue(annotator: Annotator, looks: Looks) -> str:
    """The tissue these cells look like, "" if there is no telling; from the types that live in few tissues."""
    tree, types = annotator.tree, annotator.facts.get("types")
    if tree is None or not types or not looks.n_cells or BLOOD_CELLS not in tree.names:
        return ""
    shares = tree.sums(looks.mean[None])[0]
    if shares[tree.names.index(BLOOD_CELLS)] >= ENOUGH_BLOOD:
        marrow = sum(float(shares[tree.names.index(name)]) for name in MARROW if name in tree.names)
        return "bone marrow" if marrow >= ENOUGH_MARROW else "blood"
    blood = tree.holds[:, tree.names.index(BLOOD_CELLS)]
    mass: dict[str, float] = {}
    for k, node in enumerate(tree.node_of_class):
        listed = types[node]["tissues"]
        if listed and listed != [SOLID] and not blood[k]:
            for name in listed:
                mass[name] = mass.get(name, 0.0) + float(looks.mean[k]) / len(listed) ** 0.5
    best = max(mass, key=mass.__getitem__, default="")
    return best if best and mass[best] >= ENOUGH else ""


def tissue_mask(annotator: Annotator, tissue: str) -> np.ndarray:
    """(K,) classes that a tissue of the reference may have."""
    listed = [annotator.facts["types"][node]["tissues"] for node in annotator.tree.node_of_class]
    return np.array([not x or tissue in x or (x == [SOLID] and tissue != "blood") for x in listed])


def describe_excluded(annotator: Annotator, looks: Looks, mask: np.ndarray) -> tuple[float, str]:
    """Share of cells that look most like a type that was left out, and the types they look like, in words."""
    outside = np.where(mask, 0, looks.most)
    share = float(outside.sum() / max(looks.n_cells, 1))
    top = [k for k in np.argsort(-outside, kind="stable")[:3] if outside[k]]
    return share, ", ".join(annotator.classes[k] for k in top)


def find_nodes(annotator: Annotator, text: str) -> list[int]:
    """Nodes (or classes, without a tree) of a name, a synonym or an id."""
    names = annotator.tree.names if annotator.tree is not None else annotator.classes
    ids = annotator.tree.ids if annotator.tree is not None else []
    wanted = text.casefold().strip()
    for listed in ([x.casefold() for x in names], [x.casefold() for x in ids]):
        if found := [i for i, name in enumerate(listed) if name == wanted]:
            return found
    types = annotator.facts.get("types") or []
    return [i for i, fact in enumerate(types) if wanted in (x.casefold() for x in fact["synonyms"])]


def _any_of(annotator: Annotator, wanted: list[str], option: str) -> np.ndarray:
    """(K,) classes that are one of the named types or below it."""
    mask = np.zeros(len(annotator.classes), dtype=bool)
    for text in wanted:
        found = find_nodes(annotator, text)
        if not found:
            names = list(annotator.tree.names if annotator.tree is not None else annotator.classes)
            synonyms = {
                x: names[i]
                for i, fact in enumerate(annotator.facts.get("types") or [])
                for x in fact["synonyms"]
            }
            near = _nearest(text, [*names, *synonyms])
            msg = f"{option}= names {text!r}, which this reference does not have. {_offer([synonyms.get(x, x) for x in near], names)}"
            raise ValueError(msg)
        for i in found:
            if annotator.tree is not None:
                mask |= annotator.tree.holds[:, i]
            else:
                mask[i] = True
    return mask


def _of_tissues(annotator: Annotator, wanted: list[str]) -> np.ndarray:
    """(K,) classes that live in one of the tissues."""
    known: dict[str, str] = annotator.facts.get("tissues") or {}
    if not known:
        msg = "tissue= needs to know where types live, and this reference does not say. Pass classes= or exclude= with its types."
        raise ValueError(msg)
    by_text = {name.casefold(): name for name in known} | {
        i.casefold(): name for name, i in known.items() if i
    }
    mask = np.zeros(len(annotator.classes), dtype=bool)
    for text in wanted:
        name = by_text.get(text.casefold().strip())
        if name is None:
            msg = f"tissue={text!r} is unknown. {_offer(_nearest(text, list(known)), list(known))}"
            raise ValueError(msg)
        mask |= tissue_mask(annotator, name)
    return mask


def _nearest(text: str, names: list[str]) -> list[str]:
    plain: dict[str, Any] = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(text.casefold(), list(plain), n=3, cutoff=0.6)
    words = [plain[name] for name in plain if text.casefold() in name or name in text.casefold()]
    return list(dict.fromkeys([*(plain[name] for name in close), *words]))[:3]


def _offer(near: list[str], names: list[str]) -> str:
    if near:
        return f"The nearest: {', '.join(map(repr, dict.fromkeys(near)))}."
    return f"Choose among {', '.join(map(repr, names[:40]))}{', ...' if len(names) > 40 else ''}."


def _listed(value: str | Sequence[str]) -> list[str]:
    found = [value] if isinstance(value, str) else list(value)
    if not found or not all(isinstance(x, str) for x in found):
        msg = f"tissue=, classes= and exclude= take names, found {value!r}."
        raise ValueError(msg)
    return found
