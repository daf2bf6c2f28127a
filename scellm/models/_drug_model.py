"""DrugModel: what is needed to predict responses of cells to drugs, saved and loaded as one checked folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .._files import read_json
from .._version import __version__
from ..data import GeneVocabulary
from ..data._drugs import descriptors, fingerprints, structure_kernel
from ..nn import line_kernel, unexplained, whitener
from ._folder import replace_folder
from ._hub import shipped_folder
from ._limits import check_drug_model
from ._line_reader import LineReader
from ._manifest import (
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

KIND = "drug_response"
"""`config["encoder"]["kind"]` of these folders; those of encoders have none."""


@dataclass(frozen=True)
class Panel:
    """Drugs to predict: D columns of everything that is needed."""

    names: list[str]
    drug_class: list[str]
    target: list[str]
    smiles: list[str]
    response: np.ndarray
    """(L, D) weights of the lines' kernel, in units of `scale`."""
    mean: np.ndarray
    """(D,) ln IC50 over lines."""
    scale: np.ndarray
    """(D,) spread of ln IC50 over lines."""
    error: np.ndarray
    """(D,) factor of the standard deviation; and what is added for a compound whose mean is not known."""
    extra: np.ndarray
    """(D,) standard deviation, in ln uM, of a mean that was predicted from the structure; 0 if it was measured."""
    pearson: np.ndarray
    """(D,) correlation over lines that were held out; NaN where it was not measured."""


@dataclass(eq=False, repr=False, kw_only=True)
class DrugModel:
    """Measured responses of cell lines, as a Gaussian process that predicts those of other cells.

    Parameters
    ----------
    vocabulary
        The G genes it reads.
    lines
        The L cell lines: `line`, `name`, `tissue`.
    drugs
        The D drugs, with the columns `data.DRUG_COLUMNS`, `panel` (bool), `n_lines` and `pearson`.
    tensors
        What `LineReader` needs; `response` (L, D) weights of the kernel of lines; `dual` (L, D) weights of pairs;
        `mean`, `scale`, `error` (D,); `structure_mean`, `structure_scale` (D,) weights of the kernel of structures;
        `fingerprints` (D, 256) packed bits, zero where the structure is not known; `descriptors` (D, 9), standardised by
        `descriptor_center` and `descriptor_spread` (9,).
    settings
        Numbers of the fit, see `train.DrugResponseConfig`, and of its calibration.
    provenance
        What it was fitted on.
    name, sha256, card
        As of `CellLM`.
    """

    vocabulary: GeneVocabulary
    lines: pd.DataFrame
    drugs: pd.DataFrame
    tensors: dict[str, np.ndarray]
    settings: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    sha256: str = ""
    card: str = ""

    def __repr__(self) -> str:
        return (
            f"DrugModel {self.name!r}: {len(self.drugs)} drugs, {len(self.lines)} cell lines, "
            f"{len(self.vocabulary)} genes, {f'sha256 {self.sha256[:8]}' if self.sha256 else 'not saved'}"
        )

    def reader(self, present: np.ndarray) -> LineReader:
        """Reader of cells that have the `present` genes of the vocabulary, (P,)."""
        return LineReader(self.tensors, present)

    def panel(self, rows: np.ndarray) -> Panel:
        """Drugs of the model."""
        drugs = self.drugs.iloc[rows]
        return Panel(
            names=drugs["name"].tolist(),
            drug_class=drugs["drug_class"].tolist(),
            target=drugs["target"].tolist(),
            smiles=drugs["smiles"].tolist(),
            response=self.tensors["response"][:, rows],
            mean=self.tensors["mean"][rows],
            scale=self.tensors["scale"][rows],
            error=self.tensors["error"][rows],
            extra=np.zeros(len(rows), dtype=np.float32),
            pearson=drugs["pearson"].to_numpy(np.float32),
        )

    def compounds(self, names: list[str], smiles: list[str]) -> Panel:
        """Compounds that are not in the model, by their resemblance to those that are, as in the screen of the panel.

        Parameters
        ----------
        names, smiles
            n of them; valid SMILES.

        Raises
        ------
        ImportError
            RDKit is not installed.
        """
        settings, tensors = self.settings, self.tensors
        bits = np.unpackbits(tensors["fingerprints"], axis=1).astype(bool)
        numbers = (descriptors(smiles) - tensors["descriptor_center"]) / tensors["descriptor_spread"]
        alike = structure_kernel((fingerprints(smiles), numbers), (bits, tensors["descriptors"]))  # (n, D)
        screens, panel = self.drugs["screen"], self.drugs["panel"]
        main = screens[panel if panel.any() else ~panel].mode().iloc[0]
        general = np.where(screens == main, 1.0, settings["between_screens"])
        everything = tensors["dual"] @ general[:, None]  # (L, 1)
        response = (
            settings["line_kernel"] * everything + settings["drug_structure"] * tensors["dual"] @ alike.T
        )
        n = len(names)
        return Panel(
            names=names,
            drug_class=[""] * n,
            target=[""] * n,
            smiles=smiles,
            response=response.astype(np.float32),
            mean=(settings["structure_mean"] + alike @ tensors["structure_mean"]).astype(np.float32),
            scale=np.exp(settings["structure_scale"] + alike @ tensors["structure_scale"]).astype(np.float32),
            error=np.full(n, settings["error"], dtype=np.float32),
            extra=np.full(n, settings["compound_error"], dtype=np.float32),
            pearson=np.full(n, np.nan, dtype=np.float32),
        )

    def predict(self, similarity: np.ndarray, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
        """Predicted ln IC50 (ln uM) and its standard deviation, (B, D) float32; NaN where the similarity is.

        Parameters
        ----------
        similarity
            (B, L) from `LineReader.read`.
        panel
            The drugs.
        """
        known = np.isfinite(similarity).all(1)
        cross = line_kernel(torch.from_numpy(np.ascontiguousarray(similarity[known])))
        mean, std = (np.full((len(similarity), len(panel.names)), np.nan, dtype=np.float32) for _ in range(2))
        response = torch.from_numpy(np.ascontiguousarray(panel.response * panel.scale, dtype=np.float32))
        mean[known] = (cross @ response).numpy() + panel.mean
        spread = np.sqrt(self.variance(cross))[:, None] * (panel.scale * panel.error)
        std[known] = np.sqrt(spread**2 + panel.extra**2) if panel.extra.any() else spread
        return mean, std

    def variance(self, cross: torch.Tensor) -> np.ndarray:
        """Expected squared error, in units of a drug's spread, before the drug's own factor; (B,)."""
        if "_whitener" not in self.__dict__:
            self.__dict__["_whitener"] = whitener(self._kernel(), self.settings["noise"]).float()
        left = unexplained(self.__dict__["_whitener"], cross).numpy()
        return np.maximum(self.settings["variance_base"] + self.settings["variance_slope"] * left, 1e-4)

    def _kernel(self) -> torch.Tensor:
        """(L, L) kernel of the lines, float64; made once."""
        if "_kernel_of_lines" not in self.__dict__:
            similarity = LineReader(self.tensors).kernel_similarity
            self.__dict__["_kernel_of_lines"] = line_kernel(torch.from_numpy(similarity))
        return self.__dict__["_kernel_of_lines"]


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
    >>> scellm.models.load_drug_model()
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
    return DrugModel(
        vocabulary=vocabulary,
        lines=pd.DataFrame(encoder["lines"]),
        drugs=drugs,
        tensors=tensors,
        settings=encoder["settings"],
        provenance=saved["provenance"],
        name=saved["name"],
        sha256=hashes[WEIGHTS],
        card=(folder / CARD).read_text(encoding="utf-8"),
    )
