"""From a table of genes to gene ids: which column holds the names, and what to do where too few are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..._warn import warn
from ._feature_types import FeatureTypes, feature_types, word_kind
from ._gene_match import GeneMatch, check_text
from ._match_advice import way_out, what_they_look_like
from ._nomenclature import Organism
from ._vocabulary import GeneVocabulary

NAME_COLUMNS = (
    "gene_ids",
    "gene_id",
    "ensembl_id",
    "ensembl_ids",
    "ensembl",
    "feature_id",
    "gene_symbols",
    "gene_symbol",
    "symbol",
    "symbols",
    "feature_name",
    "gene_name",
    "gene_names",
    "gene",
)
"""Columns of `var` that are tried when `var_names` are not gene names, in any case."""
MIN_OVERLAP = 0.10
"""Fraction of the vocabulary genes that data must hold to be embedded."""
SHARED_END = re.compile(r"(?P<name>.+)[-_.:](?P<end>[A-Za-z0-9]{1,12})")
SHARED_START = re.compile(r"(?P<end>[A-Za-z0-9]{1,12})[_:](?P<name>.+)")
"""What `anndata.concat` and MuData put behind or before names: `CD3D-rna`, `rna:CD3D`."""


def gene_names(
    var: pd.DataFrame, gene_key: str | None = None, *, holder: str = "adata"
) -> tuple[np.ndarray, str]:
    """The gene names of a `var` table, and where they were found.

    Without `gene_key` these are `var_names`; if fewer than half of them are known genes and a column such as
    `gene_ids` or `feature_name` names more vocabulary genes, that column.

    Parameters
    ----------
    var
        Table of n genes.
    gene_key
        Column with symbols or Ensembl ids; `None` decides as above.
    holder
        What owns the table, for messages: "adata" or "adata.raw".

    Returns
    -------
    Names of shape (n,), dtype object, "" for features that are not gene expression, and for instance
    "adata.var_names".

    Raises
    ------
    KeyError
        `gene_key` is not a column of `var`.
    TypeError
        The names are not text.
    ValueError
        Two columns are named `gene_key`.
    """
    match = best_match(var, GeneVocabulary.default(), gene_key, holder=holder, organism=None)
    return match.names, match.where


def match_genes(
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    gene_key: str | None = None,
    *,
    min_overlap: float = MIN_OVERLAP,
    organism: Organism | None = None,
    raw_var: pd.DataFrame | None = None,
    holder: str = "adata",
    obs_names: Iterable[str] | None = None,
) -> GeneMatch:
    """Match a `var` table to a vocabulary, and refuse tables that hold too little of it.

    Warns where `var` names kinds of features of which it is not clear whether they are genes.

    Parameters
    ----------
    var
        Table of n genes.
    vocabulary
        The genes of the model.
    gene_key
        Column with the names; `None` finds it, see `gene_names`.
    min_overlap
        Fraction of the vocabulary that must be present. 0 asks for one gene.
    organism
        "human" or "mouse"; `None` decides from the names.
    raw_var
        `adata.raw.var`, for a hint where that holds more genes.
    holder
        What owns `var`, for messages: "adata" or "adata.raw".
    obs_names
        Names of the cells, for a hint where these are the genes.

    Returns
    -------
    The match of the n columns.

    Raises
    ------
    KeyError
        `gene_key` is not a column of `var`.
    TypeError
        The names are not text.
    ValueError
        Two columns are named `gene_key`. All features are antibodies, peaks or the like. Too few vocabulary genes:
        how many, what the names look like, what to pass.
    """
    match = best_match(var, vocabulary, gene_key, holder=holder, organism=organism)
    check_match(
        match,
        var,
        vocabulary,
        gene_key,
        min_overlap=min_overlap,
        raw_var=raw_var,
        holder=holder,
        obs_names=obs_names,
    )
    for note in match.notes:
        warn(note)
    return match


def check_match(
    match: GeneMatch,
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    gene_key: str | None = None,
    *,
    min_overlap: float = MIN_OVERLAP,
    raw_var: pd.DataFrame | None = None,
    holder: str = "adata",
    obs_names: Iterable[str] | None = None,
) -> None:
    """Refuse a match that holds too little of the vocabulary; see `match_genes`."""
    types = feature_types(var)
    if types.only:
        column = f"{holder}.var[{types.column!r}]"
        msg = (
            f"`{column}` says that all {len(var)} columns are {types.only!r}, which are not genes. Pass the object with "
            f"gene expression (of a MuData, mdata.mod['rna']); if these are genes, remove the column: del {column}."
        )
        raise ValueError(msg)
    if match.n_genes and match.coverage >= min_overlap:
        return
    way = way_out(
        match,
        _alternatives(var, vocabulary, gene_key, raw_var=raw_var, holder=holder, obs_names=obs_names),
        min_overlap=min_overlap,
        columns=[str(column) for column in var.columns],
        holder=holder,
    )
    msg = (
        f"`{match.where}` holds {match.n_genes} of the {match.n_vocabulary} vocabulary genes "
        f"({100 * match.coverage:.1f} %, need {f'{100 * min_overlap:g} %' if min_overlap else 'one'}). "
        f"{what_they_look_like(match)}{way}"
    )
    raise ValueError(msg)


def _alternatives(
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    gene_key: str | None,
    *,
    raw_var: pd.DataFrame | None,
    holder: str,
    obs_names: Iterable[str] | None,
) -> dict[str, GeneMatch]:
    """Other places that may hold the genes, by what to type: columns of `var`, `raw`, and the rows."""
    types = feature_types(var)
    found = {}
    for column in _single_columns(var):
        if str(column) != gene_key and _is_text(var[column]):
            found[f"gene_key={str(column)!r}"] = _match_column(
                var, column, vocabulary, types, holder=holder, organism=None
            )
    if raw_var is not None and len(raw_var) > len(var):
        found["use_raw=True"] = best_match(raw_var, vocabulary, None, holder="adata.raw", organism=None)
    if obs_names is not None and all(isinstance(name, str) for name in obs_names):
        found["adata.T.copy()"] = vocabulary.match(obs_names)
    return found


def best_match(
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    gene_key: str | None,
    *,
    holder: str,
    organism: Organism | None,
) -> GeneMatch:
    """Match of the named column, else of `var_names`, else of the column that names the most genes."""
    types = feature_types(var)
    if gene_key is not None:
        if gene_key not in var.columns:
            msg = f"gene_key={gene_key!r} is not a column of `{holder}.var`, which has {[str(c) for c in var.columns]}."
            raise KeyError(msg)
        if (n := int((var.columns == gene_key).sum())) > 1:
            msg = (
                f"gene_key={gene_key!r} is the name of {n} columns of `{holder}.var`, so that it is not clear which "
                "one is meant. Give each column a name of its own."
            )
            raise ValueError(msg)
        return _match_column(var, gene_key, vocabulary, types, holder=holder, organism=organism)
    options = {"types": types, "holder": holder, "organism": organism}
    is_text = all(isinstance(name, str) for name in var.index)
    match = _match_column(var, None, vocabulary, **options) if is_text else None
    if match is not None and match.recognized >= 0.5:
        return match
    columns = [c for c in _single_columns(var) if _plain(c) in PLAIN_NAME_COLUMNS and _is_text(var[c])]
    columns = sorted(columns, key=lambda column: PLAIN_NAME_COLUMNS.index(_plain(column)))
    others = [_match_column(var, column, vocabulary, **options) for column in columns]
    best = max(others, key=lambda other: other.n_genes, default=None)
    if best is not None and best.n_genes > (match.n_genes if match is not None else 0):
        return best
    if match is None:
        check_text(var.index)
    return match


def _plain(column: Any) -> str:
    """Name of a column without case, punctuation, and the `-0`, `-1` that old ways of joining objects put behind it."""
    return re.sub(r"[\W_]+", "", re.sub(r"(-\d+)+$", "", str(column)).lower())


PLAIN_NAME_COLUMNS = [_plain(column) for column in NAME_COLUMNS]


def _is_text(values: pd.Series) -> bool:
    """Whether all entries that are there are text."""
    return all(isinstance(value, str) for value in values.dropna().astype(object))


def _single_columns(var: pd.DataFrame) -> list[Any]:
    """Names of the columns that no other column has: where one comes twice, nobody can say which is meant."""
    return var.columns[~var.columns.duplicated(keep=False)].tolist()


def _match_column(
    var: pd.DataFrame,
    column: str | None,
    vocabulary: GeneVocabulary,
    types: FeatureTypes,
    *,
    holder: str,
    organism: Organism | None,
) -> GeneMatch:
    """Match `var_names` (`None`) or a column; missing entries and other features become ""."""
    values = var.index.to_series() if column is None else var[column]
    if column is not None:
        values = values.astype(object).where(values.notna(), "")
    names = np.array(check_text(values), dtype=object)
    is_other = types.is_other
    match = vocabulary.match(np.where(is_other, "", names).tolist(), organism=organism)
    if match.recognized < 0.5 and (parts := _without_shared_ends(names)) is not None:
        plain, is_more = parts
        again = vocabulary.match(np.where(is_other | is_more, "", plain).tolist(), organism=organism)
        if again.n_genes > 2 * match.n_genes:
            match, is_other = again, is_other | is_more
    match.names = np.where(is_other, "", names)
    match.where = f"{holder}.var_names" if column is None else f"{holder}.var[{column!r}]"
    match.is_other = is_other
    match.notes = _notes(match, types, holder)
    return match


def _without_shared_ends(names: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Names without an ending or beginning that all of them share or take turns in, and which of those are not genes."""
    filled = [name for name in names.tolist() if name]
    for form in (SHARED_END, SHARED_START):
        found = [form.fullmatch(name) for name in names.tolist()]
        counts = Counter(one["end"] for one in found if one)
        ends = {end for end, n in counts.items() if n >= 0.01 * len(filled) or word_kind(end) == "other"}
        if not filled or sum(counts[end] for end in ends) < 0.95 * len(filled) or len(ends) > 20:
            continue
        kept = [one if one and one["end"] in ends else None for one in found]
        plain = [one["name"] if one else name for one, name in zip(kept, names.tolist(), strict=True)]
        is_other = [one is not None and word_kind(one["end"]) == "other" for one in kept]
        return np.array(plain, dtype=object), np.array(is_other, dtype=bool)
    return None


def _notes(match: GeneMatch, types: FeatureTypes, holder: str) -> list[str]:
    """What to warn of: kinds of features of which nobody can say whether they are genes."""
    column = f"{holder}.var[{types.column!r}]"
    notes = []
    read = [(word, int((at & (match.ids >= 0)).sum())) for word, at in types.unknown]
    read = [(word, n) for word, n in read if n]
    if len(read) > 1:
        kinds = " and ".join(f"{n} of {word!r}" for word, n in read)
        notes.append(
            f"`{column}` names kinds of features that are not known: {kinds} were read as genes. If some are none, leave "
            f"them out: adata[:, {holder}.var[{types.column!r}] == {read[0][0]!r}]."
        )
    if types.left_out:
        kinds = ", ".join(f"{n} of {word!r}" for word, n in types.left_out)
        notes.append(
            f"`{column}` names genes beside kinds of features that are not known, which were left out: {kinds}. If they "
            f"are genes, remove the column: del {column}."
        )
    return notes
