"""DrugModel: measured responses of cell lines, and what is needed to predict those of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .._cluster import Weights
from ..data import GeneVocabulary
from ._panel import Panel
from ._process import cell_line_kernel, inv_cholesky, posterior_variance
from ._projection import CellLineProjector
from ._structures import descriptors, fingerprints, structure_kernel


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
        The D drugs, with the columns `DRUG_COLUMNS`, `panel` (bool), `n_lines` and `pearson`.
    tensors
        What `CellLineProjector` needs; `response` (L, D) weights of the kernel of cell lines; `dual` (L, D) weights of pairs;
        `mean`, `scale`, `error` (D,); `structure_mean`, `structure_scale` (D,) weights of the kernel of structures;
        `fingerprints` (D, 256) packed bits, zero where the structure is not known; `descriptors` (D, 9), standardized by
        `descriptor_center` and `descriptor_spread` (9,).
    settings
        Numbers of the fit, see `DrugResponseConfig`, and of its calibration.
    provenance
        What it was fitted on.
    name, sha256, source, card
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
    source: str = ""
    card: str = ""

    def __repr__(self) -> str:
        return (
            f"DrugModel {self.name!r}: {len(self.drugs)} drugs, {len(self.lines)} cell lines, "
            f"{len(self.vocabulary)} genes, {f'sha256 {self.sha256[:8]}' if self.sha256 else 'not saved'}"
        )

    def for_workers(self) -> Weights:
        """What the workers of a cluster load the model from."""
        from ._files import load_drug_model

        return Weights(load_drug_model, self.source, self.sha256, self.name)

    def projector(self, present: np.ndarray | None = None) -> CellLineProjector:
        """Projector of cells that have the `present` genes of the vocabulary, (P,)."""
        key = b"" if present is None else present.tobytes()
        if key not in self._projectors:
            self._projectors.clear()  # one at a time
            self._projectors[key] = CellLineProjector(self.tensors, present)
        return self._projectors[key]

    @cached_property
    def _projectors(self) -> dict[bytes, CellLineProjector]:
        """The last projector by its genes: the maps it has solved serve the next part of the cells too."""
        return {}

    def panel(self, rows: np.ndarray) -> Panel:
        """Drugs of the model."""
        drugs = self.drugs.iloc[rows]
        return Panel(
            names=drugs["name"].tolist(),
            synonyms=drugs["synonyms"].tolist(),
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
            synonyms=[""] * n,
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

    def predict(self, similarity: np.ndarray, panel: Panel) -> np.ndarray:
        """Predicted ln IC50 (ln uM), (B, D) float32; NaN where the similarity is.

        Parameters
        ----------
        similarity
            (B, L) from `CellLineProjector.project`.
        panel
            The drugs.
        """
        known = np.isfinite(similarity).all(1)
        cross = cell_line_kernel(similarity[known])
        mean = np.full((len(similarity), len(panel.names)), np.nan, dtype=np.float32)
        mean[known] = cross @ (panel.response * panel.scale).astype(np.float32) + panel.mean
        return mean

    def uncertainty(self, similarity: np.ndarray) -> np.ndarray:
        """Standard deviation in units of each drug's own (`Panel.std_unit`), (B,) float32; NaN where the similarity is.

        Parameters
        ----------
        similarity
            As of `predict`.
        """
        known = np.isfinite(similarity).all(1)
        found = np.full(len(similarity), np.nan, dtype=np.float32)
        found[known] = np.sqrt(self.variance(cell_line_kernel(similarity[known])))
        return found

    def variance(self, cross: np.ndarray) -> np.ndarray:
        """Expected squared error, in units of a drug's spread, before the drug's own factor; (B,)."""
        left = posterior_variance(self._inv_cholesky, cross)
        return np.maximum(self.settings["variance_base"] + self.settings["variance_slope"] * left, 1e-4)

    @cached_property
    def kernel(self) -> np.ndarray:
        """(L, L) kernel of the cell lines, float64."""
        return cell_line_kernel(CellLineProjector(self.tensors).kernel_similarity)

    @cached_property
    def _inv_cholesky(self) -> np.ndarray:
        """(L, L) of `posterior_variance`, float32."""
        return inv_cholesky(self.kernel, self.settings["noise"]).astype(np.float32)
