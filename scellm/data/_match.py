"""From gene names to gene ids, with an account of how each name was understood."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._nomenclature import UNKNOWN, Organism, human_names, is_missing, resolve

if TYPE_CHECKING:
    from ._vocabulary import GeneVocabulary

HOW = {
    "ensembl": "Ensembl id",
    "symbol": "approved symbol",
    "previous": "previous symbol",
    "alias": "alias symbol",
    "case": "other case or lost hyphen",
    "date": "turned into a date by a spreadsheet",
    "ortholog": "mouse gene with one human ortholog",
    "outside": "known gene outside the vocabulary (non-coding, pseudogene, ...)",
    "ambiguous": "shared by several genes, left out",
    "unknown": "no known gene name, left out",
}
"""Every value of `GeneMatch.how`, in words. The last three have no gene id."""


@dataclass(eq=False)
class GeneMatch:
    """How n names map to the genes of a vocabulary.

    Attributes
    ----------
    names
        The names as given, shape (n,).
    ids
        Gene id of each name, -1 where it has none, int64, shape (n,). Several names may have one id.
    how
        How each name was understood, a key of `HOW`, shape (n,).
    symbols
        Vocabulary symbol of each name, "" where it has none, shape (n,).
    namespace
        What the names are: "ensembl", "symbol", "number" or "unknown".
    organism
        "human", "mouse" (matched by one-to-one orthologs) or "unknown".
    n_vocabulary
        Number of genes in the vocabulary.
    candidates
        For each ambiguous name, the symbols of the genes that share it.
    where
        Where the names were found, for messages.
    n_other_features
        Columns that are no genes (antibodies, peaks; `var["feature_types"]`) and were left out.
    """

    names: np.ndarray
    ids: np.ndarray
    how: np.ndarray
    symbols: np.ndarray
    namespace: str
    organism: Organism
    n_vocabulary: int
    candidates: dict[str, list[str]] = field(default_factory=dict)
    where: str = "the names"
    n_other_features: int = 0

    @property
    def n_genes(self) -> int:
        """Number of different vocabulary genes found."""
        return len(np.unique(self.ids[self.ids >= 0]))

    @property
    def n_duplicates(self) -> int:
        """Names that map to a gene that another, earlier name maps to as well."""
        return int((self.ids >= 0).sum()) - self.n_genes

    @property
    def ambiguous(self) -> list[str]:
        """Names left out because several genes share them."""
        return list(self.candidates)

    @property
    def coverage(self) -> float:
        """Fraction of the vocabulary genes that are present."""
        return self.n_genes / self.n_vocabulary

    @property
    def recognised(self) -> float:
        """Fraction of names that are known genes, inside or outside the vocabulary; 0 without names."""
        known = (self.ids >= 0) | (self.how == "outside")
        return float(known.mean()) if len(known) else 0.0

    def summary(self) -> str:
        """A few lines for people: what the names are, how many genes, what was left out and why."""
        names = {"ensembl": "Ensembl ids", "symbol": "symbols", "number": "numbers"}.get(
            self.namespace, "names"
        )
        lines = [
            f"{len(self.names)} columns, {self.organism} gene {names} in {self.where}: {self.n_genes} of "
            f"{self.n_vocabulary} vocabulary genes present ({100 * self.coverage:.1f} %)"
        ]
        counts = Counter(self.how.tolist())
        lines += [f"  {counts[how]:>6} {words}" for how, words in HOW.items() if counts[how]]
        if self.n_duplicates:
            lines.append(
                f"  {self.n_duplicates:>6} columns map to a gene that another column holds too; summed"
            )
        if self.n_other_features:
            lines.append(
                f"  {self.n_other_features:>6} columns are no gene expression (feature_types); left out"
            )
        for name, genes in list(self.candidates.items())[:5]:
            lines.append(f"         {name!r} may be {' or '.join(genes)}")
        if len(self.candidates) > 5:
            lines.append(f"         and {len(self.candidates) - 5} more ambiguous names")
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """One row per name: `name`, `gene_id`, `symbol`, `how`, `candidates`."""
        candidates = ["|".join(self.candidates.get(name, ())) for name in self.names.tolist()]
        columns = {"name": self.names, "gene_id": self.ids, "symbol": self.symbols, "how": self.how}
        return pd.DataFrame(columns | {"candidates": candidates})


def match_names(
    names: Iterable[str], vocabulary: GeneVocabulary, *, organism: Organism | None = None
) -> GeneMatch:
    """Match names to a vocabulary; see `GeneVocabulary.match`."""
    if organism not in (None, "human", "mouse"):
        msg = f"organism={organism!r}; need 'human', 'mouse' or None (decide from the names)."
        raise ValueError(msg)
    names = check_text(names)
    resolved = resolve(names, organism=organism)
    known = resolved.genes >= 0
    ids = np.full(len(names), UNKNOWN, dtype=np.int64)
    ids[known] = vocabulary._row_of_gene[resolved.genes[known]]
    how = np.array(resolved.how, dtype="U9")
    how[known & (ids < 0)] = "outside"
    ids[ids < 0] = UNKNOWN

    symbols_of = human_names().symbols
    candidates = {}
    for at, genes in resolved.candidates.items():
        if (vocabulary._row_of_gene[list(genes)] == UNKNOWN).all():
            how[at] = "outside"
        else:
            candidates[names[at]] = [symbols_of[gene] for gene in genes]
    # A vocabulary may hold genes that HGNC does not know: their own names always find them.
    if resolved.organism != "mouse":
        for at in np.flatnonzero(ids < 0).tolist():
            row = UNKNOWN if is_missing(names[at]) else vocabulary._row_of_name.get(names[at], UNKNOWN)
            if row >= 0:
                ids[at], how[at] = row, "symbol" if vocabulary.symbols[row] == names[at] else "ensembl"
                candidates.pop(names[at], None)
    return GeneMatch(
        names=np.array(names, dtype=object),
        ids=ids,
        how=how,
        symbols=np.where(ids >= 0, vocabulary.symbols[np.maximum(ids, 0)], ""),
        namespace=resolved.namespace,
        organism=resolved.organism,
        n_vocabulary=len(vocabulary),
        candidates=candidates,
    )


def check_text(names: Iterable[str]) -> list[str]:
    """The names as a list, or a `TypeError` that says which of them is no text."""
    names = [names] if isinstance(names, str) else list(names)
    for at, name in enumerate(names):
        if not isinstance(name, str):
            msg = (
                f"Gene names must be text; name {at} is {name!r} ({type(name).__name__}). "
                "Pass `gene_key=` with the column of `var` that holds symbols or Ensembl ids, or set `adata.var_names`."
            )
            raise TypeError(msg)
    return names


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
    from ._vocabulary import GeneVocabulary

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
    match = match_names(np.where(is_other, "", names).tolist(), vocabulary, organism=organism)
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
