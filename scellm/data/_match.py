"""From gene names to gene ids, with an account of how each name was understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._nomenclature import UNKNOWN, Organism, human_names, resolve

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
            row = vocabulary._row_of_name.get(names[at], UNKNOWN)
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
