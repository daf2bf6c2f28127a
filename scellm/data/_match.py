"""From a table of genes to gene ids: which column holds the names, and what to do where too few are known."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from ._gene_match import GeneMatch, check_text
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
"""Columns of `var` that are tried when `var_names` are no gene names, in any case."""
MIN_OVERLAP = 0.10
"""Fraction of the vocabulary genes that data must hold to be embedded."""
GENE_EXPRESSION = "Gene Expression"
"""Value of 10x' `var["feature_types"]` for genes; the others are antibodies, guides, peaks."""


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
    Names of shape (n,), dtype object, "" for features that are no gene expression, and for instance
    "adata.var_names".

    Raises
    ------
    KeyError
        `gene_key` is no column of `var`.
    TypeError
        The names are no text.
    ValueError
        Two columns are named `gene_key`.
    """
    match = _best_match(var, GeneVocabulary.default(), gene_key, holder=holder, organism=None)
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
) -> GeneMatch:
    """Match a `var` table to a vocabulary, and refuse tables that hold too little of it.

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

    Returns
    -------
    The match of the n columns.

    Raises
    ------
    KeyError
        `gene_key` is no column of `var`.
    TypeError
        The names are no text.
    ValueError
        Two columns are named `gene_key`. Too few vocabulary genes: how many, what the names look like, what to pass.
    """
    match = _best_match(var, vocabulary, gene_key, holder=holder, organism=organism)
    if match.n_genes and match.coverage >= min_overlap:
        return match
    msg = (
        f"`{match.where}` holds {match.n_genes} of the {match.n_vocabulary} vocabulary genes "
        f"({100 * match.coverage:.1f} %, need {f'{100 * min_overlap:g} %' if min_overlap else 'one'}). "
        f"{_what_they_look_like(match)}{_way_out(match, var, vocabulary, gene_key, raw_var=raw_var, holder=holder)}"
    )
    raise ValueError(msg)


def _best_match(
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    gene_key: str | None,
    *,
    holder: str,
    organism: Organism | None,
) -> GeneMatch:
    """Match of the named column, else of `var_names`, else of the column that names the most genes."""
    if gene_key is not None:
        if gene_key not in var.columns:
            msg = f"gene_key={gene_key!r} is no column of `{holder}.var`, which has {[str(c) for c in var.columns]}."
            raise KeyError(msg)
        if (n := int((var.columns == gene_key).sum())) > 1:
            msg = (
                f"gene_key={gene_key!r} is the name of {n} columns of `{holder}.var`, so that it is not clear which "
                "one is meant. Give each column a name of its own."
            )
            raise ValueError(msg)
        return _match_column(var, gene_key, vocabulary, holder=holder, organism=organism)
    is_text = all(isinstance(name, str) for name in var.index)
    match = _match_column(var, None, vocabulary, holder=holder, organism=organism) if is_text else None
    if match is not None and match.recognised >= 0.5:
        return match
    columns = [c for c in _single_columns(var) if str(c).lower() in NAME_COLUMNS]
    columns = sorted(columns, key=lambda column: NAME_COLUMNS.index(str(column).lower()))
    others = [_match_column(var, column, vocabulary, holder=holder, organism=organism) for column in columns]
    best = max(others, key=lambda other: other.n_genes, default=None)
    if best is not None and best.n_genes > (match.n_genes if match is not None else 0):
        return best
    if match is None:
        check_text(var.index)
    return match


def _single_columns(var: pd.DataFrame) -> list[Any]:
    """Names of the columns that no other column has: where one comes twice, nobody can say which is meant."""
    return var.columns[~var.columns.duplicated(keep=False)].tolist()


def _match_column(
    var: pd.DataFrame,
    column: str | None,
    vocabulary: GeneVocabulary,
    *,
    holder: str,
    organism: Organism | None,
) -> GeneMatch:
    """Match `var_names` (`None`) or a column; missing entries and other features become ""."""
    values = var.index.to_series() if column is None else var[column]
    if column is not None:
        values = values.astype(object).where(values.notna(), "")
    names = np.array(check_text(values), dtype=object)
    is_other = _is_other_feature(var)
    match = vocabulary.match(np.where(is_other, "", names).tolist(), organism=organism)
    match.names = np.where(is_other, "", names)
    match.where = f"{holder}.var_names" if column is None else f"{holder}.var[{column!r}]"
    match.n_other_features = int(is_other.sum())
    return match


def _is_other_feature(var: pd.DataFrame) -> np.ndarray:
    """Which columns are antibodies, guides or peaks beside genes; an antibody `CD4` is not the gene CD4."""
    if "feature_types" not in _single_columns(var):
        return np.zeros(len(var), dtype=bool)
    is_gene = (var["feature_types"].astype(str) == GENE_EXPRESSION).to_numpy()
    return ~is_gene if is_gene.any() else np.zeros(len(var), dtype=bool)


def _what_they_look_like(match: GeneMatch) -> str:
    """One sentence on the names, with examples."""
    some = [name for name in match.names.tolist() if name][:2]
    shown = ", ".join(repr(name) for name in some) or "all empty"
    kinds = {  # by the form of the first names; the first that fits
        "Ensembl transcript ids": r"ENS[A-Z]*T\d{11}",
        "human Ensembl ids": r"ENSG\d{11}",
        "mouse Ensembl ids": r"ENSMUSG\d{11}",
        "Ensembl ids of a species that is neither human nor mouse": r"ENS[A-Z]+G\d{11}|FBgn\d|WBGene\d",
        "RefSeq ids": r"[NX][MR]_\d",
        "microarray probes": r"\S+_at$",
        "genomic regions": r"(chr)?[\dXY]{1,2}[:-]\d+-\d+",
        "numbers": r"\d+$",
    }
    for kind, form in kinds.items():
        if some and all(re.match(form, name) for name in some):
            return f"They look like {kind} ({shown})"
    if match.recognised >= 0.5:
        return f"They are {match.organism} genes ({shown}), but only {len(match.names)} columns"
    known = (
        f"{100 * match.recognised:.0f} % are known {match.organism} genes"
        if match.recognised
        else "none is a known gene"
    )
    return (
        f"They look like {shown}, of which {known}"
        if match.recognised
        else f"They look like {shown}; {known}"
    )


def _way_out(
    match: GeneMatch,
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    gene_key: str | None,
    *,
    raw_var: pd.DataFrame | None,
    holder: str,
) -> str:
    """What to pass instead: another column, raw, or other data."""
    for column in _single_columns(var):
        if str(column) == gene_key or var[column].dtype.kind not in "OSUT":
            continue
        if all(isinstance(value, str) for value in var[column].dropna().astype(object)):
            other = _match_column(var, column, vocabulary, holder=holder, organism=None)
            if other.n_genes > 2 * match.n_genes:
                return f"; pass gene_key={str(column)!r}, which holds {other.n_genes}."
    if raw_var is not None and len(raw_var) > len(var):
        other = _best_match(raw_var, vocabulary, None, holder="adata.raw", organism=None)
        if other.n_genes > match.n_genes:
            return f"; pass use_raw=True, where `{other.where}` holds {other.n_genes}."
    if match.recognised >= 0.5:
        return "; pass the data as it was before genes were selected, or a smaller min_overlap= if this is all there is."
    columns = [str(column) for column in var.columns]
    has = f"`{holder}.var` has the columns {columns}" if columns else f"`{holder}.var` has no columns"
    return f"; pass `gene_key=` with a column of human or mouse gene symbols or Ensembl ids. {has}."
