"""Drug models as folders: saved complete or not at all, every file checked when loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .._calls import note
from .._files import read_json
from .._version import __version__
from ..models._card import FOLDER, model_card
from ..models._folder import replace_folder
from ..models._hub import shipped_folder
from ..models._limits import check_drug_model
from ..models._manifest import (
    CARD,
    CONFIG,
    CONTENTS,
    FORMAT,
    GENES,
    MANIFEST,
    WEIGHTS,
    verify,
    write_manifest,
)
from ._model import DrugModel

KIND = "drug_response"
"""`config["encoder"]["kind"]` of these folders; those of encoders have none."""


def save_drug_model(model: DrugModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Save a drug model as a folder of the same five files as other models.

    Parameters
    ----------
    model
        The model.
    path
        The folder to make; written under a temporary name and moved into place.
    overwrite
        Replace a model that is there.

    Returns
    -------
    `path`.

    Raises
    ------
    FileExistsError
        `path` exists and may not be replaced.
    ValueError
        A number is not finite.
    """
    if bad := [key for key, array in model.tensors.items() if not np.isfinite(array).all()]:
        msg = (
            f"{', '.join(bad)} of the drug model {model.name!r} hold NaN or infinite values; it is not saved."
        )
        raise ValueError(msg)
    target = Path(path)
    name = model.name or target.resolve().name
    drugs = model.drugs.astype(object).where(model.drugs.notna(), None)
    config = {
        "format": FORMAT,
        "name": name,
        "encoder": {
            "kind": KIND,
            "n_genes": len(model.vocabulary),
            "settings": model.settings,
            "lines": model.lines.to_dict(orient="list"),
            "drugs": drugs.to_dict(orient="list"),
        },
        "tokens": {},
        "provenance": model.provenance,
        "n_parameters": int(sum(array.size for array in model.tensors.values())),
        "scellm_version": __version__,
    }
    with replace_folder(target, overwrite=overwrite, contents=(*CONTENTS, MANIFEST)) as folder:
        save_file(
            {key: np.ascontiguousarray(array) for key, array in model.tensors.items()}, folder / WEIGHTS
        )
        (folder / CONFIG).write_text(json.dumps(config, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        model.vocabulary.to_tsv(folder / GENES)
        (folder / CARD).write_text(model.card or _default_card(model, name), encoding="utf-8")
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
        write_manifest(folder)
    return target


def _default_card(model: DrugModel, name: str) -> str:
    """A card with what it knows and how well it predicts."""
    use = f'scellm.tl.drug_response(adata, model="{FOLDER}")  # adds adata.obsm["drug_response"], ln IC50'
    facts = {
        "drugs": f"{len(model.drugs):,}",
        "cell lines": f"{len(model.lines):,}",
        "genes": f"{len(model.vocabulary):,}",
    }
    if "pearson" in model.drugs:
        facts["correlation on left-out lines, median of drugs"] = f"{model.drugs['pearson'].median():.2f}"
    said = {
        "description": "Drug response of cell lines (ln IC50), from expression. Not a clinical prediction."
    }
    return model_card(name, facts, said | model.provenance, use)


def load_drug_model(name_or_path: str | os.PathLike[str] = "scellm-drug") -> DrugModel:
    """Load a drug model that came with scellm or was saved by `save_drug_model`; every file is checked.

    Parameters
    ----------
    name_or_path
        Name of a shipped model, or a folder.

    Returns
    -------
    The model.

    Raises
    ------
    FileNotFoundError
        No such model, or a file is missing.
    ValueError
        A file was altered, or the folder holds another kind of model.

    Examples
    --------
    >>> scellm.drugs.load_drug_model()
    DrugModel 'scellm-drug': ...
    """
    folder = Path(name_or_path)
    shipped = shipped_folder() / folder
    if not folder.is_dir() and isinstance(name_or_path, str) and (shipped / MANIFEST).is_file():
        folder, remedy = shipped, "Reinstall scellm: pip install --force-reinstall scellm."
    elif folder.is_dir():
        remedy = "Save the model again, or copy the folder again."
    else:
        msg = f"There is no drug model {os.fspath(name_or_path)!r}; pass 'scellm-drug', which comes with scellm, or a folder."
        raise FileNotFoundError(msg)
    hashes = verify(folder, remedy=remedy)
    saved = read_json(folder / CONFIG, remedy)
    encoder = saved.get("encoder", {})
    if not isinstance(encoder, dict) or encoder.get("kind") != KIND:
        msg = f"`{folder}` is a model of cells, not of drug response; pass 'scellm-drug', or load it with scellm.models.load."
        raise ValueError(msg)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        msg = f"`{folder / WEIGHTS}` is not a safetensors file ({error}). {remedy}"
        raise ValueError(msg) from error
    vocabulary = check_drug_model(folder, encoder, tensors, remedy)
    drugs = pd.DataFrame(encoder["drugs"])
    drugs["pearson"] = drugs["pearson"].astype(float)
    note(model=saved["name"], model_sha256=hashes[WEIGHTS])
    return DrugModel(
        vocabulary=vocabulary,
        lines=pd.DataFrame(encoder["lines"]),
        drugs=drugs,
        tensors=tensors,
        settings=encoder["settings"],
        provenance=saved["provenance"],
        name=saved["name"],
        sha256=hashes[WEIGHTS],
        source=folder.name if folder.parent == shipped_folder() else str(folder.resolve()),
        card=(folder / CARD).read_text(encoding="utf-8"),
    )
