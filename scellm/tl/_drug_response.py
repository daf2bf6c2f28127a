"""drug_response: cells -> predicted ln IC50 per drug in obsm, obs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_choice, check_free, check_key
from .._keys import DRUG_RESPONSE
from .._version import __version__
from .._warn import warn
from ..data import Expression, ReadOptions, find_drugs, read_smiles
from ..models import DrugModel, Panel, load_drug_model
from ..models._line_reader import DEEP

PROGRESS_FROM = 5_000
"""Cells from which a progress bar is shown by default."""
FEW_DRUGS = 8
"""Requested drugs up to which each gets a column of `obs`."""
SHALLOW = 300
"""Counts over the model's genes below which single cells say little; see the card of the model."""
WEAK = 0.2
"""Correlation over left-out lines below which a drug counts as hardly predictable."""
UNITS = "ln IC50, ln uM: lower = more sensitive"


def drug_response(
    adata: AnnData,
    *,
    model: DrugModel | str | os.PathLike[str] = "scellm-drug",
    drugs: str | Iterable[str] | None = None,
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

    The model knows the measured ln IC50 of 580 cell lines (GDSC) and reads 618 cancer genes. It predicts a drug's
    mean, how sensitive the cell is to everything, and how sensitive to this drug: see `docs/guide`. It is no clinical
    predictor and no mechanism, mutations are seen only as far as they show in expression, and cells unlike any
    cancer line (`applicability` above 1), such as normal tissue, get numbers that mean nothing.

    A group of cells (`groupby=`) is trustworthy where a single cell is not: a cell shows only a few of the genes.
    The fewer counts, the closer its prediction stays to the drug's mean, and the larger its standard deviation.

    Parameters
    ----------
    adata
        Human cells: counts or log1p values.
    model
        A drug model, its name or folder.
    drugs
        Names, synonyms, targets (`"EGFR"`) or classes (`"MAPK"` is none, `"ERK MAPK signaling"` is); `None` takes the
        model's panel, or with `smiles` no other.
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

    `adata.obsm[key_added]` : array of shape (n_obs, n_drugs), float32
        Predicted ln IC50 in ln uM; NaN for cells that express none of the model's genes.
    `adata.obsm[f"{key_added}_std"]` : array of shape (n_obs, n_drugs), float32
        Standard deviation: mean ± 1.645 of them held 90 % of the measurements of left-out lines.
    `adata.obs[f"{key_added}_applicability"]` : float32
        Distance to the training lines, above 1 is outside: the larger of the distance to the nearest line, in units of
        that of the most lonely tenth of lines, and of the way from the mean line to mean normal tissue, of which 60 % is
        1. Groups are told from normal tissue far better than single cells. It is no test of malignancy.
    `adata.uns[key_added]` : dict
        `drugs`, `drug_class`, `target`, `smiles`, `pearson` (correlation over left-out lines; NaN for new
        compounds), `spread` of ln IC50 over lines, `units`, `groupby` ("" for cell by cell), `model`, `sha256`, `scellm_version`, `matrix`, `values`,
        `n_genes`, `median_counts`, `notes`, `columns` written to `obs`.

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
    ...     scellm.tl.drug_response(adata, drugs=["Erlotinib", "Dabrafenib"], groupby="cell_type")
    >>> adata.obsm["drug_response"].shape
    (24, 2)
    """
    check_key(key_added)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    check_choice(adata, layer, use_raw)
    places = [("obsm", key_added), ("obsm", f"{key_added}_std"), ("obs", f"{key_added}_applicability")]
    check_free(adata, key_added, *places, of="tl.drug_response", field="drugs")
    groups = None if groupby is None else _groups(adata, groupby)
    if not isinstance(model, DrugModel):
        model = load_drug_model(model)
    panel, notes = choose_panel(model, drugs, smiles)
    in_obs = (drugs is not None or smiles is not None) and len(panel.names) <= FEW_DRUGS
    columns = [_column(key_added, name) for name in panel.names] if in_obs else []
    _check_columns(adata, key_added, columns)
    with Expression.open(adata, model.vocabulary, source) as cells:
        if cells.match.organism == "mouse":
            msg = (
                f"`{cells.match.where}` holds mouse genes; the model has seen human cell lines only. To go on with "
                "one-to-one orthologs, which nothing here vouches for, take scellm.pp.harmonize_genes(adata) first."
            )
            raise ValueError(msg)
        mean, std, distance, depth = _predict(cells, model, panel, groups, show_progress)
    _report(distance, depth, panel, groups, notes, groupby=groupby, asked=drugs is not None)
    record = {
        "scellm_version": __version__,
        "model": model.name,
        "sha256": model.sha256,
        "drugs": np.array(panel.names, dtype=str),
        "drug_class": np.array(panel.drug_class, dtype=str),
        "target": np.array(panel.target, dtype=str),
        "smiles": np.array(panel.smiles, dtype=str),
        "columns": np.array(columns, dtype=str),
        "pearson": np.asarray(panel.pearson, dtype=np.float32),
        "spread": np.asarray(panel.scale, dtype=np.float32),
        "units": UNITS,
        "groupby": groupby or "",
        "matrix": cells.where,
        "values": cells.values.message,
        "n_genes": cells.match.n_genes,
        "median_counts": float(np.median(depth)),
        "notes": " ".join(notes),
    }
    adata = adata.copy() if copy else adata
    _remove_old(adata, key_added)
    rows = slice(None) if groups is None else groups.codes
    adata.obsm[key_added] = _take(mean, rows)
    adata.obsm[f"{key_added}_std"] = _take(std, rows)
    adata.obs[f"{key_added}_applicability"] = _take(distance, rows)
    for i, column in enumerate(columns):
        adata.obs[column] = adata.obsm[key_added][:, i]
    adata.uns[key_added] = record
    return adata if copy else None


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
    panel = parts[0] if len(parts) == 1 else _join(parts)
    places = [_column("", name) for name in panel.names]
    if len(set(places)) < len(places):
        twice = sorted(
            {name for name, place in zip(panel.names, places, strict=True) if places.count(place) > 1}
        )
        msg = f"{twice} would name two columns; give the compounds of smiles= other names."
        raise ValueError(msg)
    return panel, notes


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


def _join(parts: list[Panel]) -> Panel:
    """Several panels side by side."""
    joined: dict[str, Any] = {}
    for field in ("names", "drug_class", "target", "smiles"):
        joined[field] = [value for part in parts for value in getattr(part, field)]
    for field in ("response", "mean", "scale", "error", "extra", "pearson"):
        joined[field] = np.concatenate([getattr(part, field) for part in parts], axis=-1)
    return Panel(**joined)


def _groups(adata: AnnData, groupby: str) -> pd.Categorical:
    """The groups of a column, those that have cells.

    Raises
    ------
    KeyError
        No such column.
    TypeError
        The column holds measurements, or its name is no text.
    ValueError
        No cell has a group.
    """
    if not isinstance(groupby, str):
        msg = f"groupby= names one column of `adata.obs`, found {groupby!r} ({type(groupby).__name__})."
        raise TypeError(msg)
    if groupby not in adata.obs:
        msg = f"groupby={groupby!r} is no column of `adata.obs`, which has {[str(c) for c in adata.obs.columns]}."
        raise KeyError(msg)
    labels = adata.obs[groupby]
    if labels.dtype.kind in "fcmM" and labels.notna().any():
        msg = f"`adata.obs[{groupby!r}]` holds {labels.dtype} numbers, not groups; name a column of clusters or labels."
        raise TypeError(msg)
    groups = pd.Categorical(labels.astype(object).where(labels.notna(), None))
    if not len(groups.categories):
        msg = f"No cell has a group in `adata.obs[{groupby!r}]`: all {adata.n_obs} entries are missing."
        raise ValueError(msg)
    if isinstance(labels.dtype, pd.CategoricalDtype):
        empty = [str(name) for name in labels.cat.categories if name not in set(groups.categories)]
        if empty:
            warn(
                f"{len(empty)} groups of `adata.obs[{groupby!r}]` have no cell and no prediction: "
                f"{', '.join(empty[:5])}."
            )
    return groups


def _predict(
    cells: Expression,
    model: DrugModel,
    panel: Panel,
    groups: pd.Categorical | None,
    show_progress: bool | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation (n, D), distance and depth (n,) of all cells, or of all groups."""
    present = np.flatnonzero(cells.has_gene)
    reader = model.reader(present)
    n = cells.n_obs if groups is None else len(groups.categories)
    mean, std = (np.full((n, len(panel.names)), np.nan, dtype=np.float32) for _ in range(2))
    distance, depth = np.full(n, np.nan, dtype=np.float32), np.zeros(n)
    sums = None if groups is None else np.zeros((n, len(present)))
    n_cells, n_bulk = np.zeros(n), np.zeros(n)

    def predict(linear: np.ndarray, rows: slice, is_bulk: np.ndarray | None = None) -> None:
        similarity, distance[rows], depth[rows] = reader.read(linear, is_bulk)
        mean[rows], std[rows] = model.predict(similarity, panel)

    show = cells.n_obs >= PROGRESS_FROM if show_progress is None else show_progress
    with tqdm(total=cells.n_obs, desc="drug response", unit="cell", disable=not show) as progress:
        for start, block in cells.blocks():
            linear = cells.linear(block).toarray()[:, present]
            if groups is None:
                predict(linear, slice(start, start + len(linear)))
            else:
                codes = groups.codes[start : start + len(linear)]
                kept = np.flatnonzero(codes >= 0)
                member = sp.csr_array((np.ones(len(kept)), (codes[kept], kept)), shape=(n, len(linear)))
                one = (
                    np.ones(len(linear))
                    if cells.values.holds_counts
                    else cells.values.linearize(_smallest(block))
                )
                counts, is_bulk = _as_counts(linear, one)
                sums += member @ counts
                n_cells += member.sum(1)
                n_bulk += member @ is_bulk
            progress.update(len(linear))
    if sums is not None:
        predict(sums, slice(None), n_bulk > n_cells / 2)
    return mean, std, distance, depth


def _as_counts(linear: np.ndarray, one: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B, P) as they were counted, to be added up, and which are bulk; `one` (B,) is what one count became.

    Bulk profiles weigh the same.
    """
    total = linear.sum(1, dtype=np.float64)
    smallest = np.where(linear > 0, linear, np.inf).min(axis=1, initial=np.inf)
    is_bulk = (total > 0) & (total >= DEEP * smallest)
    unit = np.where(is_bulk, total / DEEP, one)
    return np.where(total[:, None] > 0, linear / np.where(total > 0, unit, 1.0)[:, None], 0.0), is_bulk


def _smallest(block: sp.csr_array) -> np.ndarray:
    """Smallest positive value of each row, (B,); 1 for rows without any."""
    positive = np.where(block.data > 0, block.data, np.inf)
    found = np.full(block.shape[0], np.inf)
    filled = np.flatnonzero(np.diff(block.indptr))
    if len(filled):
        found[filled] = np.minimum.reduceat(positive, block.indptr[filled])
    return np.where(np.isfinite(found), found, 1.0)


def _take(values: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
    """Rows of groups for their cells; NaN for a code of -1."""
    if isinstance(rows, slice):
        return values
    taken = values[rows]
    taken[rows < 0] = np.nan
    return taken


def _report(
    distance: np.ndarray,
    depth: np.ndarray,
    panel: Panel,
    groups: pd.Categorical | None,
    notes: list[str],
    *,
    groupby: str | None,
    asked: bool,
) -> None:
    """Warn of what should not be believed."""
    what = "cells" if groups is None else "groups"
    for note in notes:
        warn(note)
    if groups is not None and (n := int((groups.codes < 0).sum())):
        warn(f"{n} cells have no group in `adata.obs[{groupby!r}]`; their rows are NaN.")
    if n := int(np.isnan(distance).sum()):
        names = (
            "" if groups is None else f" ({', '.join(map(str, groups.categories[np.isnan(distance)][:5]))})"
        )
        warn(f"{n} of {len(distance)} {what}{names} express none of the model's genes; their rows are NaN.")
    outside = distance > 1
    n, of = int(outside.sum()), int(np.isfinite(distance).sum())
    if n > (0.5 * of if groups is None else 0):
        if groups is None:
            share = f"{100 * n / of:.0f} % of the cells"
        else:
            names = ", ".join(map(str, groups.categories[outside][:5]))
            share = f"{n} of {of} groups ({names}{', ...' if n > 5 else ''})"
        warn(
            f"{share} are unlike any cancer cell line the model has seen (applicability above 1): normal cells, or data of "
            "another kind. Do not rely on their predictions."
        )
    if groups is None and np.median(depth) < SHALLOW:
        warn(
            f"Half of the cells have fewer than {np.median(depth):.0f} counts over the model's genes: their predictions stay near "
            "each drug's mean. Pass groupby= with clusters or samples, whose counts are added up."
        )
    weak = [name for name, r in zip(panel.names, panel.pearson, strict=True) if r < WEAK]
    if weak and asked:
        warn(
            f"Hardly predictable from expression (correlation over left-out lines below {WEAK}): {', '.join(weak)}."
        )


def _column(key: str, name: str) -> str:
    """Name of a drug's column in `obs`; files take `/` for folders."""
    return f"{key}:{name.replace('/', '|')}"


def _remove_old(adata: AnnData, key: str) -> None:
    """Columns of drugs that an earlier call wrote and this one may not write again."""
    for column in _written(adata, key):
        if column in adata.obs:
            del adata.obs[column]


def _written(adata: AnnData, key: str) -> list[str]:
    """Columns of drugs in `obs` that an earlier call wrote; records of before 'columns' was kept name few drugs."""
    record = adata.uns.get(key, {})
    if "columns" in record:
        return [str(column) for column in np.atleast_1d(record["columns"])]
    names = np.atleast_1d(record.get("drugs", []))
    return [_column(key, str(name)) for name in names] if len(names) <= FEW_DRUGS else []


def _check_columns(adata: AnnData, key: str, columns: list[str]) -> None:
    """Refuse columns of drugs that an earlier call has not written."""
    known = _written(adata, key)
    if key not in adata.uns:  # as after anndata.concat, which drops uns
        known += [
            column for column in columns if column in adata.obs and adata.obs[column].dtype == np.float32
        ]
    if taken := [column for column in columns if column in adata.obs and column not in known]:
        msg = (
            f"`adata.obs[{taken[0]!r}]` is there already and is not of tl.drug_response; it is not overwritten. Pass "
            "key_added= with another key, or delete it."
        )
        raise ValueError(msg)
