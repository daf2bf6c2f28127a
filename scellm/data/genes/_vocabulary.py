"""GeneVocabulary: the ordered genes of a model. Gene ids are made here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from ..._files import replacing
from ._gene_match import GeneMatch, check_text
from ._nomenclature import AMBIGUOUS, UNKNOWN, Organism, human_names, is_missing, resolve

COLUMNS = ("gene_id", "ensembl_id", "symbol")
"""Columns of a saved vocabulary."""


@dataclass(frozen=True, eq=False)
class GeneVocabulary:
    """The genes a model knows, in the order of its gene ids.

    Gene i has id i; behind the genes come the two special ids `cls_id` and `pad_id`.

    Parameters
    ----------
    ensembl_ids
        Ensembl gene id of each gene without version, "" where none is known. Shape (n_genes,).
    symbols
        Gene symbol of each gene, all different. Shape (n_genes,).
    source
        Where the list comes from, with its release.

    Raises
    ------
    ValueError
        Different lengths, no gene, an empty symbol, or a symbol or Ensembl id that comes twice.

    Examples
    --------
    >>> from scellm.data import GeneVocabulary
    >>> vocabulary = GeneVocabulary.default()
    >>> vocabulary.match(["CD3D", "ENSG00000156738.18", "SEPT9", "no such gene"]).symbols.tolist()
    ['CD3D', 'MS4A1', 'SEPTIN9', '']
    """

    ensembl_ids: np.ndarray
    symbols: np.ndarray
    source: str = "not given"

    def __post_init__(self) -> None:
        ensembl_ids, symbols = (
            np.array([str(n) for n in values]) for values in (self.ensembl_ids, self.symbols)
        )
        if len(ensembl_ids) != len(symbols):
            msg = f"{len(ensembl_ids)} Ensembl ids for {len(symbols)} symbols; need one id ('' if unknown) per symbol."
            raise ValueError(msg)
        if not len(symbols):
            msg = "A vocabulary needs at least one gene."
            raise ValueError(msg)
        for values, what in ((symbols, "symbol"), (ensembl_ids[ensembl_ids != ""], "Ensembl id")):
            unique, counts = np.unique(values, return_counts=True)
            if counts.size and counts.max() > 1:
                msg = f"Every {what} may be in a vocabulary once; {unique[counts > 1][:3].tolist()} come more often."
                raise ValueError(msg)
        if (symbols == "").any():
            msg = f"Every gene needs a symbol; gene {int(np.argmax(symbols == ''))} has none."
            raise ValueError(msg)
        for name, values in (("ensembl_ids", ensembl_ids), ("symbols", symbols)):
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GeneVocabulary):
            return NotImplemented
        return np.array_equal(self.symbols, other.symbols) and np.array_equal(
            self.ensembl_ids, other.ensembl_ids
        )

    def __hash__(self) -> int:
        return hash((len(self), self.symbols[0], self.symbols[-1]))

    def __repr__(self) -> str:
        return f"GeneVocabulary({len(self)} genes, {self.symbols[0]} to {self.symbols[-1]}; {self.source})"

    @property
    def n_genes(self) -> int:
        """Number of genes, special ids not counted."""
        return len(self)

    @property
    def cls_id(self) -> int:
        """Id of the cell token."""
        return len(self)

    @property
    def pad_id(self) -> int:
        """Id of padded positions."""
        return len(self) + 1

    @classmethod
    def default(cls) -> GeneVocabulary:
        """The packaged human protein-coding genes, ordered by approved symbol.

        HGNC's locus type "gene with protein product" with an Ensembl id, and the protein-coding parts of
        complex loci (UGT1A1, PCDHGA12, ...). `scellm/data/genes/README.md` has the release and the rule.
        """
        return _default_vocabulary()

    @classmethod
    def from_tsv(cls, path: str | os.PathLike[str]) -> GeneVocabulary:
        """Read a vocabulary that `to_tsv` wrote.

        Raises
        ------
        ValueError
            The columns are not `gene_id`, `ensembl_id`, `symbol`, or the ids do not count up from 0.
        """
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        comments = [line for line in lines if line.startswith("#")]
        table = [line.split("\t") for line in lines if line and not line.startswith("#")]
        if not table or tuple(table[0]) != COLUMNS:
            found = table[0] if table else []
            msg = f"{path} has the columns {found}; a vocabulary needs {list(COLUMNS)}, separated by tabs."
            raise ValueError(msg)
        for number, row in enumerate(table[1:]):
            if len(row) != len(COLUMNS) or row[0] != str(number):
                msg = f"{path}: gene {number} should be '{number}<tab>ensembl_id<tab>symbol', found {row}."
                raise ValueError(msg)
        sources = [
            line.removeprefix("# source:").strip() for line in comments if line.startswith("# source:")
        ]
        return cls(
            ensembl_ids=[row[1] for row in table[1:]],
            symbols=[row[2] for row in table[1:]],
            source=sources[0] if sources else "not given",
        )

    def to_tsv(self, path: str | os.PathLike[str]) -> None:
        """Write gene_id, ensembl_id and symbol as text; the source goes into a comment line."""
        rows = [f"{i}\t{e}\t{s}" for i, (e, s) in enumerate(zip(self.ensembl_ids, self.symbols, strict=True))]
        text = "\n".join([f"# source: {self.source}", "\t".join(COLUMNS), *rows]) + "\n"
        with replacing(Path(path)) as part:
            part.write_text(text, encoding="utf-8")

    def subset(self, genes: Iterable[str]) -> GeneVocabulary:
        """The vocabulary of these symbols or Ensembl ids, in this vocabulary's order, with new ids.

        Raises
        ------
        KeyError
            A name is neither a symbol nor an Ensembl id of this vocabulary.
        """
        genes = list(genes)
        rows = [self._row_of_name.get(gene, UNKNOWN) for gene in genes]
        if missing := [gene for gene, row in zip(genes, rows, strict=True) if row == UNKNOWN]:
            msg = f"{len(missing)} of {len(genes)} names are not in the vocabulary: {missing[:5]}."
            raise KeyError(msg)
        keep = np.unique(np.array(rows, dtype=np.int64))
        return GeneVocabulary(
            self.ensembl_ids[keep], self.symbols[keep], f"{len(keep)} genes of: {self.source}"
        )

    def match(self, names: Iterable[str], *, organism: Organism | None = None) -> GeneMatch:
        """Find the gene id of each name.

        Ensembl ids (with or without version), approved, previous and alias symbols, other case or lost
        hyphens (`HLA.A`), spreadsheet dates (`1-Mar`), genome prefixes (`GRCh38_CD3D`), suffixes of
        `var_names_make_unique`, and mouse genes through one-to-one orthologs. A name that several genes
        share is never forced onto one of them.

        Parameters
        ----------
        names
            Gene names, n of them.
        organism
            "human" or "mouse"; `None` decides by which exactly spelled names are more frequent.

        Returns
        -------
        The match; its arrays have shape (n,).

        Raises
        ------
        TypeError
            A name is not text.
        ValueError
            `organism` is neither "human" nor "mouse".
        """
        return _match_names(names, self, organism=organism)

    @cached_property
    def _row_of_name(self) -> dict[str, int]:
        """Row of each own Ensembl id and symbol."""
        rows = {ensembl_id: row for row, ensembl_id in enumerate(self.ensembl_ids.tolist()) if ensembl_id}
        return rows | {symbol: row for row, symbol in enumerate(self.symbols.tolist())}

    @cached_property
    def _row_of_gene(self) -> np.ndarray:
        """Row of each gene of the packaged naming table, `UNKNOWN` where absent, `AMBIGUOUS` where twice."""
        human = human_names()
        rows = np.full(len(human.symbols), UNKNOWN, dtype=np.int64)
        genes = resolve(self.symbols.tolist(), organism="human").genes
        by_id = [human.by_ensembl.get(ensembl_id, UNKNOWN) for ensembl_id in self.ensembl_ids.tolist()]
        genes = np.where(np.array(by_id) >= 0, by_id, genes)
        for row, gene in enumerate(genes.tolist()):
            if gene < 0:
                continue
            if rows[gene] == UNKNOWN or self.symbols[row] == human.symbols[gene]:
                rows[gene] = row
            elif self.symbols[rows[gene]] != human.symbols[gene]:
                rows[gene] = AMBIGUOUS
        return rows


def _match_names(
    names: Iterable[str], vocabulary: GeneVocabulary, *, organism: Organism | None = None
) -> GeneMatch:
    """See `GeneVocabulary.match`."""
    if organism not in (None, "human", "mouse"):
        msg = f"organism={organism!r}; need 'human', 'mouse' or None (decide from the names)."
        raise ValueError(msg)
    names = check_text(names)
    resolved = resolve(names, organism=organism)
    known = resolved.genes >= 0
    ids = np.full(len(names), UNKNOWN, dtype=np.int64)
    ids[known] = vocabulary._row_of_gene[resolved.genes[known]]
    match_type = np.array(resolved.match_type, dtype="U9")
    match_type[known & (ids < 0)] = "outside"
    ids[ids < 0] = UNKNOWN

    symbols_of = human_names().symbols
    candidates = {}
    for at, genes in resolved.candidates.items():
        if (vocabulary._row_of_gene[list(genes)] == UNKNOWN).all():
            match_type[at] = "outside"
        else:
            candidates[names[at]] = [symbols_of[gene] for gene in genes]
    # A vocabulary may hold genes that HGNC does not know: their own names always find them.
    if resolved.organism != "mouse":
        for at in np.flatnonzero(ids < 0).tolist():
            row = UNKNOWN if is_missing(names[at]) else vocabulary._row_of_name.get(names[at], UNKNOWN)
            if row >= 0:
                ids[at], match_type[at] = row, "symbol" if vocabulary.symbols[row] == names[at] else "ensembl"
                candidates.pop(names[at], None)
    return GeneMatch(
        names=np.array(names, dtype=object),
        ids=ids,
        match_type=match_type,
        symbols=np.where(ids >= 0, vocabulary.symbols[np.maximum(ids, 0)], ""),
        namespace=resolved.namespace,
        organism=resolved.organism,
        n_vocabulary=len(vocabulary),
        candidates=candidates,
        is_foreign=resolved.is_foreign & (ids < 0),
    )


@cache
def _default_vocabulary() -> GeneVocabulary:
    human = human_names()
    n = human.n_coding
    return GeneVocabulary(
        human.ensembl_ids[:n], human.symbols[:n], f"human protein-coding genes; {human.source}"
    )
