"""Drug models as folders: saved complete or not at all, every file checked when loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .._version import __version__
from ..data import GeneVocabulary
from ..models._folder import replace_folder
from ..models._hub import shipped_folder
from ..models._manifest import (
    CARD,
    CONFIG,
    CONTENTS,
    FORMAT,
    GENES,
    MANIFEST,
    WEIGHTS,
    read_json,
    verify,
    write_manifest,
)
from ._model import DrugModel
from ._profiles import DEPTHS
from ._structures import FINGERPRINT_BITS, N_DESCRIPTORS

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
        (folder / CARD).write_text(model.card or f"# {name}\n", encoding="utf-8")
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
        write_manifest(folder)
    return target


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
    saved = read_json(folder / CONFIG, remedy=remedy)
    encoder = saved.get("encoder", {})
    if not isinstance(encoder, dict) or encoder.get("kind") != KIND:
        msg = f"`{folder}` is a model of cells, not of drug response; pass 'scellm-drug', or load it with scellm.models.load."
        raise ValueError(msg)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        msg = f"`{folder / WEIGHTS}` is not a safetensors file ({error}). {remedy}"
        raise ValueError(msg) from error
    drugs = pd.DataFrame(encoder["drugs"])
    drugs["pearson"] = drugs["pearson"].astype(float)
    model = DrugModel(
        vocabulary=GeneVocabulary.from_tsv(folder / GENES),
        lines=pd.DataFrame(encoder["lines"]),
        drugs=drugs,
        tensors=tensors,
        settings=encoder["settings"],
        provenance=saved["provenance"],
        name=saved["name"],
        sha256=hashes[WEIGHTS],
        card=(folder / CARD).read_text(encoding="utf-8"),
    )
    if wrong := _inconsistent(model):
        msg = f"The files of the drug model in `{folder}` are not of one model: {wrong}. {remedy}"
        raise ValueError(msg)
    return model


def _inconsistent(model: DrugModel) -> str:
    """What in a model does not fit the rest: arrays that are missing, of another shape or not finite; "" if nothing."""
    n_genes, n_lines, n_drugs = len(model.vocabulary), len(model.lines), len(model.drugs)
    vectors = model.tensors.get("line_vectors")
    rank = vectors.shape[-1] if vectors is not None and vectors.ndim else 0
    n_depths, n_pairs = len(DEPTHS), n_genes * (n_genes + 1) // 2
    shapes = {
        "mean_fraction": (n_genes,),
        "gene_weight": (n_genes,),
        "line_vectors": (n_lines, rank),
        "loadings": (n_genes, rank),
        "gram": (n_depths, n_pairs),
        "cross": (n_depths, n_genes, rank),
        "center": (n_depths + 1, n_genes),
        "edge": (n_depths + 1,),
        **dict.fromkeys(("response", "dual"), (n_lines, n_drugs)),
        **dict.fromkeys(("mean", "scale", "error", "structure_mean", "structure_scale"), (n_drugs,)),
        "fingerprints": (n_drugs, FINGERPRINT_BITS // 8),
        "descriptors": (n_drugs, N_DESCRIPTORS),
        **dict.fromkeys(("descriptor_center", "descriptor_spread"), (N_DESCRIPTORS,)),
    }
    if "normal_axis" in model.tensors:
        shapes |= dict.fromkeys(("normal_axis", "normal_shift"), (n_depths + 1, n_genes))
    for name, shape in shapes.items():
        array = model.tensors.get(name)
        if array is None:
            return f"the weights lack {name!r}"
        if array.shape != shape:
            return (
                f"{name!r} has the shape {array.shape}, where {n_genes} genes, {n_lines} cell lines and {n_drugs} drugs "
                f"need {shape}"
            )
        if not np.isfinite(array).all():
            return f"{name!r} holds values that are not finite"
    return ""
