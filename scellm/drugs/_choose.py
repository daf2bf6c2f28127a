"""Drugs that were asked for: names, targets and classes of the model, and new compounds by SMILES."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from ._model import DrugModel
from ._names import find_drugs
from ._panel import Panel
from ._structures import read_smiles


def choose_panel(
    model: DrugModel,
    drugs: str | Iterable[str] | None,
    smiles: str | Iterable[str] | Mapping[str, str] | None,
) -> tuple[Panel, list[str]]:
    """Drugs that were asked for, by name and by structure, and notes about them."""
    parts, notes = [], []
    if drugs is not None:
        parts.append(model.panel(find_drugs(model.drugs, drugs)))
    elif smiles is None:
        parts.append(model.panel(np.flatnonzero(model.drugs["panel"].to_numpy(bool))))
    if smiles is not None:
        read = {name: read_smiles(text) for name, text in _compounds(smiles)}
        notes += [f"{name}: {structure.note}." for name, structure in read.items() if structure.note]
        for name, structure in read.items():
            known = model.drugs.loc[model.drugs["inchikey"] == structure.inchikey, "name"]
            if len(known):
                notes.append(f"{name} is {known.iloc[0]}, which the model knows: ask for it by name.")
        structures = [structure.smiles for structure in read.values()]
        parts.append(model.compounds(list(read), structures))
    panel = parts[0] if len(parts) == 1 else Panel.join(parts)
    places = [column_text(name) for name in panel.names]
    if len(set(places)) < len(places):
        twice = sorted(
            {name for name, place in zip(panel.names, places, strict=True) if places.count(place) > 1}
        )
        msg = f"{twice} would name two columns; give the compounds of smiles= other names."
        raise ValueError(msg)
    return panel, notes


def column_text(name: str) -> str:
    """Name of a drug within that of a column; files take `/` for folders."""
    return name.replace("/", "|")


def _compounds(smiles: str | Iterable[str] | Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and SMILES; without names, or with row numbers for names, each is named by its SMILES.

    Raises
    ------
    TypeError
        Neither text nor several.
    ValueError
        None is given, or a name is empty or given twice.
    """
    if isinstance(smiles, pd.Series) and pd.api.types.is_integer_dtype(smiles.index):
        smiles = smiles.tolist()
    if isinstance(smiles, str):
        smiles = [smiles]
    if not isinstance(smiles, Iterable):
        msg = f"smiles= takes SMILES, or a mapping of names to SMILES; found {smiles!r} ({type(smiles).__name__})."
        raise TypeError(msg)
    named = isinstance(smiles, Mapping | pd.Series)
    items = smiles.items() if named else ((text, text) for text in smiles)
    pairs = [(str(name), text) for name, text in items]
    if not pairs:
        msg = "smiles= is empty; pass at least one SMILES, or leave it out."
        raise ValueError(msg)
    names = [name for name, _ in pairs]
    if named and not all(name.strip() for name in names):
        msg = f"A compound of smiles= has an empty name: {dict(pairs)}."
        raise ValueError(msg)
    if named and len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"{twice} would name two columns; give the compounds of smiles= other names."
        raise ValueError(msg)
    return pairs
