"""drug_response: cells -> predicted ln IC50 per drug in obsm, obs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_choice, check_key
from .._containers import takes_cells
from .._keys import DRUG_RESPONSE
from .._obs import read_groups
from .._warn import warn
from ..data import Expression, ReadOptions
from ..drugs import DrugModel, Panel, load_drug_model
from ..drugs._choose import choose_panel
from ..drugs._predict import GroupSums, Prediction, join_predictions, predict_cells, predict_groups
from ..drugs._projection import CellLineProjector
from ..drugs._record import DrugRecord
from ._drug_doubts import report
from ._drug_results import FEW_DRUGS, check_columns, check_places, column_name, write_response

PROGRESS_FROM = 5_000
"""Cells from which a progress bar is shown by default."""


@takes_cells
def drug_response(
    adata: AnnData,
    drugs: str | Iterable[str] | None = None,
    *,
    model: DrugModel | str | os.PathLike[str] = "scellm-drug",
    smiles: str | Iterable[str] | Mapping[str, str] | None = None,
    groupby: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.3,
    key_added: str = DRUG_RESPONSE,
    show_progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict how sensitive cells are to drugs, from how cancer cell lines of similar expression responded.

    The model knows the measured ln IC50 of 970 cell lines (GDSC) and reads 6,077 genes. It predicts a drug's
    mean, how sensitive the cell is to everything, and how sensitive to this drug; the guide page "Drug response" explains
    how. It is neither a clinical predictor nor a mechanism. Mutations are seen only if they change expression. Predictions
    for cells unlike any cancer line (`applicability` above 1), such as normal tissue, mean nothing.

    A group of cells (`groupby=`) is trustworthy where a single cell is not: a cell shows only a few of the genes.
    The fewer counts, the closer its prediction stays to the drug's mean, and the larger its standard deviation.

    Parameters
    ----------
    adata
        Human cells: counts or log1p values.
    drugs
        Names, synonyms, targets (`"EGFR"`) or classes (`"MAPK"` is none, `"ERK MAPK signaling"` is); `None` takes the
        model's panel, or with `smiles` no other.
    model
        A drug model, its name or folder.
    smiles
        SMILES of compounds the model does not know, with names if it is a mapping. Needs RDKit (extra `drug`). Even
        their mean must be guessed from similar structures, so take differences between cells, not the level.
    groupby
        Column of `obs`: the counts of each group are added up and its prediction is given to all of its cells.
    layer
        Layer with expression; `None` reads `adata.X`.
    use_raw
        Read `adata.raw.X`; `None` is `False`.
    gene_key
        Column of `var` with gene symbols or Ensembl ids; `None` finds it.
    min_overlap
        Fraction of the model's genes the data must hold.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 5,000 cells.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.obsm[key_added]` : array of shape (n_obs, n_drugs), float16, or float32 for up to 8 drugs
        Predicted ln IC50 in ln uM; NaN for cells that express none of the model's genes.
    `adata.obs[f"{key_added}_uncertainty"]` : float32
        How uncertain a cell's predictions are. Times `uns[key_added]["std_unit"]` of a drug it is the standard deviation:
        mean ± 1.645 of them held 90 % of the measurements of left-out cell lines. `get.drug_response` gives it for each.
    `adata.obs[f"{key_added}_applicability"]` : float32
        Distance to the training cell lines, above 1 is outside. The larger of two: the distance to the nearest cell
        line, of which 1 is 1.3 times that of the cell lines least similar to any other (lowest 10 %); and the way from the mean cell
        line to mean normal tissue, of which 56 % is 1. Groups are told from normal tissue far better than single cells.
        It is no test of malignancy.
    `adata.uns[key_added]` : dict
        `drugs`, `synonyms`, `drug_class`, `target`, `smiles`, `pearson` (correlation over left-out cell lines; NaN for
        new compounds), `mean` and `spread` of ln IC50 over cell lines, `std_unit`, `std_extra` (of the mean of a new compound), `units`, `groupby` ("" for cell by cell), `model`, `sha256`,
        `scellm_version`, `call`, `matrix`, `values`, `n_genes`, `median_counts`, `notes`, `columns` written to `obs`.

    Of up to 8 drugs that were asked for, the predictions also go to columns of `obs` that are named
    `drug_response:Erlotinib`, after `key_added` and the drug (`/` in a name becomes `|`).

    Raises
    ------
    ImportError
        `smiles` without RDKit.
    KeyError
        Unknown drug, layer or column.
    TypeError
        `adata` is no AnnData; names or `groupby` that are no text; `groupby` of measurements.
    ValueError
        Invalid SMILES, names of compounds that are empty or make one column, a key or column that holds something else, scaled values, mouse genes, too few genes, `groupby` without a group.

    Warns
    -----
    UserWarning
        Most cells, or any group, lie outside of what the model has seen; cells are too shallow for a prediction cell by cell, or a
        requested drug is hardly predictable; salts; cells without a group or a prediction.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(24, n_vars=19315)
    >>> import warnings
    >>> with warnings.catch_warnings():  # toy cells are no cancer
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.drug_response(adata, ["Erlotinib", "Dabrafenib"], groupby="cell_type")
    >>> adata.obsm["drug_response"].shape
    (24, 2)
    """
    check_key(key_added)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    check_choice(adata, layer, use_raw)
    check_places(adata, key_added)
    groups = None if groupby is None else _groups(adata, groupby)
    if not isinstance(model, DrugModel):
        model = load_drug_model(model)
    panel, notes = choose_panel(model, drugs, smiles)
    in_obs = (drugs is not None or smiles is not None) and len(panel.names) <= FEW_DRUGS
    columns = [column_name(key_added, name) for name in panel.names] if in_obs else []
    check_columns(adata, key_added, columns)
    with Expression.open(adata, model.vocabulary, source) as cells:
        if cells.match.organism == "mouse":
            msg = (
                f"`{cells.match.where}` holds mouse genes; the model has seen human cell lines only. To go on with "
                "one-to-one orthologs, which nothing here vouches for, take scellm.pp.harmonize_genes(adata) first."
            )
            raise ValueError(msg)
        found = _predict(cells, model, panel, groups, show_progress)
    report(found, panel, groups, notes, groupby=groupby, asked=drugs is not None)
    record = DrugRecord(
        model=model.name,
        sha256=model.sha256,
        drugs=panel.names,
        synonyms=panel.synonyms,
        drug_class=panel.drug_class,
        target=panel.target,
        smiles=panel.smiles,
        columns=columns,
        pearson=panel.pearson,
        mean=panel.mean,
        spread=panel.scale,
        std_unit=panel.std_unit,
        std_extra=panel.extra,
        groupby=groupby or "",
        matrix=cells.where,
        values=cells.values.message,
        n_genes=cells.match.n_genes,
        median_counts=float(np.median(found.depth)),
        notes=" ".join(notes),
    )
    adata = adata.copy() if copy else adata
    write_response(adata, key_added, found, record, None if groups is None else groups.codes)
    return adata if copy else None


def _linear_blocks(
    cells: Expression, present: np.ndarray, *, show: bool
) -> Iterator[tuple[np.ndarray, sp.csr_array]]:
    """Linear expression of the present genes, block by block (B, P), and the values it is made from."""
    with tqdm(total=cells.n_obs, desc="drug response", unit="cell", disable=not show) as progress:
        for _, block in cells.blocks():
            yield cells.linear(block).toarray()[:, present], block
            progress.update(block.shape[0])


def _predict(
    cells: Expression,
    model: DrugModel,
    panel: Panel,
    groups: pd.Categorical | None,
    show_progress: bool | None,
) -> Prediction:
    """Predictions of all cells, or of all groups."""
    shown = cells.n_obs >= PROGRESS_FROM if show_progress is None else show_progress
    show = "drug response" if shown else ""
    if groups is None:
        return join_predictions(cells.map(_predict_part, model, panel, bool(show), show=show))
    codes = np.asarray(groups.codes)
    sums = cells.map(_sum_part, model, codes, len(groups.categories), bool(show), show=show)
    projector = model.projector(np.flatnonzero(cells.has_gene))
    return predict_groups(reduce(add, sums), model, projector, panel)


def _predict_part(cells: Expression, model: DrugModel, panel: Panel, show: bool) -> Prediction:
    """Predictions of a part of the cells."""
    present = np.flatnonzero(cells.has_gene)
    blocks = _linear_blocks(cells, present, show=show and not cells.is_part)
    return predict_cells((linear for linear, _ in blocks), model, model.projector(present), panel)


def _sum_part(cells: Expression, model: DrugModel, codes: np.ndarray, n_groups: int, show: bool) -> GroupSums:
    """Counts of the groups in a part of the cells."""
    projector = model.projector(np.flatnonzero(cells.has_gene))
    blocks = _linear_blocks(cells, projector.present, show=show and not cells.is_part)
    counted = ((linear, _one(cells, linear, block, projector)) for linear, block in blocks)
    return GroupSums.of(counted, codes[cells.first :], n_groups, projector)


def _one(
    cells: Expression, linear: np.ndarray, block: sp.csr_array, projector: CellLineProjector
) -> np.ndarray:
    """What one count became in each cell, (B,): the smallest value, unless the cell then has more counts than it can have."""
    if cells.values.holds_counts:
        return np.ones(len(linear))
    total, smallest = linear.sum(1, dtype=np.float64), cells.values.linearize(_smallest(block))
    return total / np.maximum(projector.cell_counts(linear, total / smallest), 1e-9)


def _groups(adata: AnnData, groupby: str) -> pd.Categorical:
    """The groups of a column, those that have cells; raises as `read_groups` does.

    Raises
    ------
    ValueError
        No cell has a group.
    """
    groups = read_groups(adata, groupby)
    if not len(groups.categories):
        msg = f"No cell has a group in `adata.obs[{groupby!r}]`: all {adata.n_obs} entries are missing."
        raise ValueError(msg)
    labels = adata.obs[groupby]
    if isinstance(labels.dtype, pd.CategoricalDtype):
        used = set(labels.cat.remove_unused_categories().cat.categories)
        empty = [str(name) for name in labels.cat.categories if name not in used]
        if empty:
            warn(
                f"{len(empty)} groups of `adata.obs[{groupby!r}]` have no cell and no prediction: "
                f"{', '.join(empty[:5])}."
            )
    return groups


def _smallest(block: sp.csr_array) -> np.ndarray:
    """Smallest positive value of each row, (B,); 1 for rows without any."""
    positive = np.where(block.data > 0, block.data, np.inf)
    found = np.full(block.shape[0], np.inf)
    filled = np.flatnonzero(np.diff(block.indptr))
    if len(filled):
        found[filled] = np.minimum.reduceat(positive, block.indptr[filled])
    return np.where(np.isfinite(found), found, 1.0)
