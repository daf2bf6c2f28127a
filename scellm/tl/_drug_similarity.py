"""drug_similarity: drugs that look alike, and drugs that act alike."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from anndata import AnnData

from .._checks import check_key
from .._containers import takes_cells
from .._keys import DRUG_RESPONSE, DRUG_SIMILARITY
from .._version import __version__
from .._warn import warn
from ..drugs import DrugModel, load_drug_model
from ..drugs._record import DrugRecord
from ..drugs._similarity import similar_response, similar_structure
from ._drug_results import read_response


@takes_cells
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
    predicted for them, each drug's mean and the cell lines' general sensitivity taken away; drugs of one target
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
    ...     scellm.tl.drug_response(adata, ["Erlotinib", "Gefitinib", "Dabrafenib"])
    >>> scellm.tl.drug_similarity(adata)
    >>> alike = adata.uns["drug_similarity"]["response"]
    >>> bool(alike[0, 1] > alike[0, 2])  # two inhibitors of EGFR, one of BRAF
    True
    """
    check_key(key_added)
    _, record = read_response(adata, key)
    found = adata.uns.get(key_added)
    if key_added in adata.uns and not (isinstance(found, dict) and "structure" in found):
        msg = f"`adata.uns[{key_added!r}]` already exists and was not written by tl.drug_similarity. Choose another key_added=."
        raise ValueError(msg)
    if not isinstance(model, DrugModel):
        model = load_drug_model(model)
    _check_model(record, model)
    result: dict[str, Any] = {
        "scellm_version": __version__,
        "drugs": np.array(record.drugs, dtype=str),
        "structure": similar_structure(model, record.drugs, record.smiles),
        "response": similar_response(model, record.drugs),
    }
    adata = adata.copy() if copy else adata
    adata.uns[key_added] = result
    return adata if copy else None


def _check_model(record: DrugRecord, model: DrugModel) -> None:
    """Warn if another model made the results; one that was never saved has no checksum."""
    name, sha256 = record.model or model.name, record.sha256
    if name != model.name or (sha256 and model.sha256 and sha256 != model.sha256):
        warn(
            f"The responses were predicted by the model {name!r} ({sha256[:8] or 'not saved'}), and are compared by "
            f"{model.name!r} ({model.sha256[:8] or 'not saved'}). Pass model= with the one that made them."
        )
