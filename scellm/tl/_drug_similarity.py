"""drug_similarity: drugs that look alike, and drugs that act alike."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from anndata import AnnData

from .._checks import check_key
from .._keys import DRUG_RESPONSE, DRUG_SIMILARITY
from .._version import __version__
from .._warn import warn
from ..data import fingerprints, tanimoto
from ..models import DrugModel, load_drug_model
from ._rank_drugs import read_response


def drug_similarity(
    adata: AnnData,
    *,
    key: str = DRUG_RESPONSE,
    model: DrugModel | str | os.PathLike[str] = "scellm-drug",
    key_added: str = DRUG_SIMILARITY,
    copy: bool = False,
) -> AnnData | None:
    """Compare the predicted drugs with one another, by structure and by response.

    Structure: Tanimoto similarity of Morgan fingerprints. Response: correlation over the model's cell lines of what is
    predicted for them, each drug's mean and the lines' general sensitivity taken away; drugs of one target
    are close there even if they look different.

    Parameters
    ----------
    adata
        Cells with results of `tl.drug_response`: which drugs to compare.
    key
        Key of those results.
    model
        The model that made them.
    key_added
        Key of the results.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.uns[key_added]` : dict
        `drugs`; `structure` and `response`, arrays of shape (n_drugs, n_drugs), NaN for drugs without a known
        structure and, in `response`, for compounds that the model does not know; `scellm_version`.

    Raises
    ------
    ImportError
        A compound was given by SMILES and RDKit is not installed.
    KeyError
        No results under `key`.

    Warns
    -----
    UserWarning
        The results were made by another model than `model`.

    Examples
    --------
    >>> import warnings
    >>> adata = scellm.datasets.toy_cells(8, n_vars=19315)
    >>> with warnings.catch_warnings():  # toy cells are no cancer
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.drug_response(adata, drugs=["Erlotinib", "Gefitinib", "Dabrafenib"])
    >>> scellm.tl.drug_similarity(adata)
    >>> alike = adata.uns["drug_similarity"]["response"]
    >>> bool(alike[0, 1] > alike[0, 2])  # two inhibitors of EGFR, one of BRAF
    True
    """
    check_key(key_added)
    _, record = read_response(adata, key)
    found = adata.uns.get(key_added)
    if key_added in adata.uns and not (isinstance(found, dict) and "structure" in found):
        msg = (
            f"`adata.uns[{key_added!r}]` is there already and is not of tl.drug_similarity; pass key_added=."
        )
        raise ValueError(msg)
    if not isinstance(model, DrugModel):
        model = load_drug_model(model)
    _check_model(record, model)
    names = [str(name) for name in np.atleast_1d(record["drugs"])]
    result: dict[str, Any] = {
        "scellm_version": __version__,
        "drugs": np.array(names),
        "structure": _structure(model, names, [str(text) for text in np.atleast_1d(record["smiles"])]),
        "response": _response(model, names),
    }
    adata = adata.copy() if copy else adata
    adata.uns[key_added] = result
    return adata if copy else None


def _check_model(record: dict[str, Any], model: DrugModel) -> None:
    """Warn if another model made the results; one that was never saved has no checksum."""
    name, sha256 = str(record.get("model", model.name)), str(record.get("sha256", ""))
    if name != model.name or (sha256 and model.sha256 and sha256 != model.sha256):
        warn(
            f"The responses were predicted by the model {name!r} ({sha256[:8] or 'not saved'}), and are compared by "
            f"{model.name!r} ({model.sha256[:8] or 'not saved'}). Pass model= with the one that made them."
        )


def _rows(model: DrugModel, names: list[str]) -> np.ndarray:
    """Row of each drug in the model, -1 for compounds it does not know."""
    row_of = {name: row for row, name in reversed(list(enumerate(model.drugs["name"])))}
    return np.array([row_of.get(name, -1) for name in names])


def _structure(model: DrugModel, names: list[str], smiles: list[str]) -> np.ndarray:
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


def _response(model: DrugModel, names: list[str]) -> np.ndarray:
    """Correlation over lines of what is special to a drug; NaN for compounds the model does not know."""
    rows = _rows(model, names)
    known = np.flatnonzero(rows >= 0)
    alike = np.full((len(names), len(names)), np.nan, dtype=np.float32)
    special = model.tensors["response"] - model.tensors["response"].mean(1, keepdims=True)
    profiles = model._kernel().numpy() @ special[:, rows[known]]
    alike[np.ix_(known, known)] = np.atleast_2d(np.corrcoef(profiles.T))
    return alike
