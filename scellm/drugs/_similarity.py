"""How alike drugs are: by structure, and by the responses that are predicted for cell lines."""

from __future__ import annotations

import numpy as np

from ._model import DrugModel
from ._structures import fingerprints, tanimoto


def _rows(model: DrugModel, names: list[str]) -> np.ndarray:
    """Row of each drug in the model, -1 for compounds it does not know."""
    row_of = {name: row for row, name in reversed(list(enumerate(model.drugs["name"])))}
    return np.array([row_of.get(name, -1) for name in names])


def similar_structure(model: DrugModel, names: list[str], smiles: list[str]) -> np.ndarray:
    """Tanimoto similarities; NaN where a structure is not known."""
    rows = _rows(model, names)
    bits = np.unpackbits(model.tensors["fingerprints"][np.maximum(rows, 0)], axis=1).astype(bool)
    new = np.flatnonzero(rows < 0)
    if len(new):
        bits[new] = fingerprints([smiles[i] for i in new])
    alike = tanimoto(bits, bits)
    unknown = ~bits.any(1)
    alike[unknown], alike[:, unknown] = np.nan, np.nan
    return alike


def similar_response(model: DrugModel, names: list[str]) -> np.ndarray:
    """Correlation over cell lines of what is special to a drug; NaN for compounds the model does not know."""
    rows = _rows(model, names)
    known = np.flatnonzero(rows >= 0)
    alike = np.full((len(names), len(names)), np.nan, dtype=np.float32)
    special = model.tensors["response"] - model.tensors["response"].mean(1, keepdims=True)
    profiles = model.kernel @ special[:, rows[known]]
    alike[np.ix_(known, known)] = np.atleast_2d(np.corrcoef(profiles.T))
    return alike
