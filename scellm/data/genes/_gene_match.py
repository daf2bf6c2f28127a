"""GeneMatch: how names map to the genes of a vocabulary, with an account of how each was understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ._nomenclature import Organism

MATCH_TYPES = {
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
"""Every value of `GeneMatch.match_type`, in words. The last three have no gene id."""


@dataclass(eq=False)
class GeneMatch:
    """How n names map to the genes of a vocabulary.

    Attributes
    ----------
    names
        The names as given, shape (n,).
    ids
        Gene id of each name, -1 where it has none, int64, shape (n,). Several names may have one id.
    match_type
        How each name was understood, a key of `MATCH_TYPES`, shape (n,).
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
    is_other
        Columns that are not genes (antibodies, peaks; `var["feature_types"]`) and were left out, bool, shape (n,).
    is_foreign
        Columns that are genes of another species than `organism`, bool, shape (n,).
    notes
        What should be warned of, in sentences.
    """

    names: np.ndarray
    ids: np.ndarray
    match_type: np.ndarray
    symbols: np.ndarray
    namespace: str
    organism: Organism
    n_vocabulary: int
    candidates: dict[str, list[str]] = field(default_factory=dict)
    where: str = "the names"
    is_other: np.ndarray | None = None
    is_foreign: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        nothing = np.zeros(len(self.names), dtype=bool)
        self.is_other = nothing if self.is_other is None else self.is_other
        self.is_foreign = nothing if self.is_foreign is None else self.is_foreign

    @property
    def n_other_features(self) -> int:
        """Number of columns that are not genes."""
        return int(self.is_other.sum())

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
    def recognized(self) -> float:
        """Fraction of names that are known genes, inside or outside the vocabulary; 0 without names."""
        known = (self.ids >= 0) | (self.match_type == "outside")
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
        counts = Counter(self.match_type.tolist())
        lines += [f"  {counts[kind]:>6} {words}" for kind, words in MATCH_TYPES.items() if counts[kind]]
        if self.n_duplicates:
            lines.append(
                f"  {self.n_duplicates:>6} columns map to a gene that another column holds too; summed"
            )
        if self.n_other_features:
            lines.append(
                f"  {self.n_other_features:>6} columns are not gene expression (feature_types); left out"
            )
        if n := int(self.is_foreign.sum()):
            lines.append(f"  {n:>6} columns are genes of another species; left out")
        for name, genes in list(self.candidates.items())[:5]:
            lines.append(f"         {name!r} may be {' or '.join(genes)}")
        if len(self.candidates) > 5:
            lines.append(f"         and {len(self.candidates) - 5} more ambiguous names")
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """One row per name: `name`, `gene_id`, `symbol`, `match_type`, `candidates`."""
        candidates = ["|".join(self.candidates.get(name, ())) for name in self.names.tolist()]
        columns = {
            "name": self.names,
            "gene_id": self.ids,
            "symbol": self.symbols,
            "match_type": self.match_type,
        }
        return pd.DataFrame(columns | {"candidates": candidates})


def check_text(names: Iterable[str]) -> list[str]:
    """The names as a list, or a `TypeError` that says which of them is not text."""
    names = [names] if isinstance(names, str) else list(names)
    for at, name in enumerate(names):
        if not isinstance(name, str):
            msg = (
                f"Gene names must be text; name {at} is {name!r} ({type(name).__name__}). "
                "Pass `gene_key=` with the column of `var` that holds symbols or Ensembl ids, or set `adata.var_names`."
            )
            raise TypeError(msg)
    return names
