"""Fit a drug model: a Gaussian process on measured responses, calibrated on cell lines that were left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data import GeneVocabulary
from ._calibrate import calibrate, compound_error
from ._config import DrugResponseConfig
from ._fit_normal_axis import fit_normal_axis
from ._fit_projection import fit_projector
from ._grid import ResponseGrid
from ._model import DrugModel
from ._names import shared_targets
from ._projection import CellLineProjector
from ._solve import solve_response
from ._structures import structure_kernel, structures
from ._tables import check_tables, read_platform


def fit_drug_response(
    log2_tpm: pd.DataFrame,
    responses: pd.DataFrame,
    drugs: pd.DataFrame,
    *,
    lines: pd.DataFrame | None = None,
    normal: Sequence[pd.DataFrame] = (),
    platform: pd.DataFrame | None = None,
    config: DrugResponseConfig | None = None,
    name: str = "drug-model",
    provenance: dict[str, Any] | None = None,
    rng: int = 0,
) -> DrugModel:
    """Fit a model of drug response to measured cell lines.

    Parameters
    ----------
    log2_tpm
        log2(TPM + 1), cell lines x genes; the index names the cell lines, the columns are approved gene symbols.
    responses
        Columns `line`, `drug` and `ln_ic50` (ln uM).
    drugs
        Columns `drug`, `name`, `synonyms`, `target`, `drug_class`, `screen`, `smiles` and `inchikey`; more are kept. Every drug of `responses` is in `drug`.
    lines
        Columns `line`, `name` and `tissue`; `None` knows names only.
    normal
        Tables of linear expression as bulk RNA-seq sees it, normal tissues or cell types x genes, each weighing the same:
        applicability then says of cells like these that they are outside. Genes that a table lacks count as not expressed.
    platform
        How single-cell sequencing sees genes, by gene symbol, from cell lines that were measured both ways: `factor`, how much more
        of the gene than bulk RNA-seq does, and `spread`, the standard deviation of its log2. Other genes are seen alike, with
        the median spread. `None` takes cells for downsampled bulk.
    config
        Weights; `None` takes those of the shipped model.
    name, provenance
        For the model's card.
    rng
        Seed of folds and downsampling.

    Returns
    -------
    The model, calibrated by cross-validation over cell lines (and over drugs, for compounds it does not know).

    Raises
    ------
    ImportError
        RDKit is not installed: structures are turned into fingerprints.
    KeyError
        Columns are missing, also of `platform`, or a cell line or drug of `responses` is not in the other tables.
    TypeError
        A table is no DataFrame, expression or responses are no numbers, or names, targets or SMILES no text.
    ValueError
        Fewer than two folds, or than two cell lines or drugs a fold, cell lines or drugs of one name, an invalid SMILES, values that
        are not finite, negative expression, factors of `platform` that are not positive.
    """
    config = config or DrugResponseConfig()
    check_tables(log2_tpm, responses, drugs, lines)
    _check_folds(config, len(log2_tpm), len(drugs))
    drugs = drugs.reset_index(drop=True)
    if lines is None:
        lines = pd.DataFrame({"line": log2_tpm.index, "name": log2_tpm.index, "tissue": ""})
    vocabulary, expression = _expression(log2_tpm)
    seen = None if platform is None else read_platform(platform, vocabulary.symbols)
    projection = fit_projector(expression, platform=seen, rng=rng)
    if normal:
        of_genes = {"columns": vocabulary.symbols, "fill_value": 0}
        profiles = [table.reindex(**of_genes).to_numpy(np.float64) for table in normal]
        projection |= fit_normal_axis(expression, profiles, projection, platform=seen, rng=rng)
    similarity = CellLineProjector(projection).kernel_similarity
    grid = ResponseGrid.from_table(responses, pd.Index(log2_tpm.index), pd.Index(drugs["drug"]))
    bits, numbers, center, spread = structures(drugs["smiles"].tolist())
    structure = structure_kernel((bits, numbers), (bits, numbers)).astype(np.float64)
    action, screens = shared_targets(drugs).astype(np.float64), drugs["screen"].to_numpy(dtype=str)
    fit = solve_response(similarity, grid, structure, action, config, screens=screens)
    calibration, error, pearson = calibrate(
        expression, grid, structure, action, config, screens=screens, platform=seen, rng=rng
    )
    has_structure = (drugs["smiles"] != "").to_numpy()
    compound = compound_error(grid, structure, config, has_structure, rng=rng)
    table = drugs.assign(n_lines=grid.measured.sum(0), pearson=pearson)
    if "panel" not in table:
        table["panel"] = True
    of_structure = {f"structure_{what}": fit.structure[f"structure_{what}"] for what in ("mean", "scale")}
    fitted = {name: getattr(fit, name) for name in ("response", "dual", "mean", "scale")} | {"error": error}
    described = {"descriptors": numbers, "descriptor_center": center, "descriptor_spread": spread}
    weights = {key: weights for key, (_, weights) in of_structure.items()}
    numeric = {key: array.astype(np.float32) for key, array in (fitted | described | weights).items()}
    centers = {key: center for key, (center, _) in of_structure.items()}
    return DrugModel(
        vocabulary=vocabulary,
        lines=lines.set_index("line").loc[log2_tpm.index].reset_index(names="line"),
        drugs=table,
        tensors={**projection, **numeric, "fingerprints": np.packbits(bits, axis=1)},
        settings={**dataclasses.asdict(config), **calibration, "compound_error": compound, **centers},
        provenance=provenance or {},
        name=name,
    )


def _check_folds(config: DrugResponseConfig, n_lines: int, n_drugs: int) -> None:
    """That there are folds, with two cell lines and two drugs in each; raises as `fit_drug_response` does."""
    if config.folds < 2:
        msg = f"DrugResponseConfig(folds={config.folds}) leaves nothing out; need at least 2."
        raise ValueError(msg)
    if min(n_lines, n_drugs) < 2 * config.folds:
        msg = (
            f"{n_lines} cell lines and {n_drugs} drugs are too few for {config.folds} folds; need two of each per "
            "fold. Pass config=DrugResponseConfig(folds=...) with fewer."
        )
        raise ValueError(msg)


def _expression(log2_tpm: pd.DataFrame) -> tuple[GeneVocabulary, np.ndarray]:
    """The genes of a table in the order of the vocabulary, and their values (L, G).

    Raises
    ------
    ValueError
        A column is no protein-coding gene.
    """
    vocabulary = GeneVocabulary.default()
    match = vocabulary.match(log2_tpm.columns)
    if (match.symbols == "").any():
        unknown = log2_tpm.columns[match.symbols == ""][:5].tolist()
        msg = f"{int((match.symbols == '').sum())} columns are no protein-coding genes: {unknown}."
        raise ValueError(msg)
    order = np.argsort(match.ids)
    return vocabulary.subset(match.symbols), log2_tpm.to_numpy(np.float64)[:, order]
