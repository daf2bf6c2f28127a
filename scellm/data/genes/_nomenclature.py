"""What a gene name means: Ensembl ids, approved, previous and alias symbols, spreadsheet dates, mouse names.

A name is resolved to a *gene* of the packaged HGNC table, protein-coding or not, before any vocabulary is
asked: only who knows the non-coding genes can tell that an alias belongs to two genes. Genes are numbered by
their row in the tables under `genes/`: first the protein-coding ones, then the others.
"""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Literal

import numpy as np

UNKNOWN, AMBIGUOUS = -1, -2
"""In place of a gene number: no gene has this name; more than one gene has it."""

Organism = Literal["human", "mouse", "unknown"]

ENSEMBL_HUMAN = re.compile(r"ENSG[R0]\d{10}")
ENSEMBL_MOUSE = re.compile(r"ENSMUSG\d{11}")
ENSEMBL_ANY = re.compile(r"ENS[A-Z]*G\d{11}", re.IGNORECASE)
# Genome prefixes of references that hold several species (`GRCh38_CD3D`, `mm10___Xkr4`), species names with `_` only.
GENOME_PREFIX = re.compile(
    r"(?:refdata-(?:gex-|cellranger-)?)?(?:"
    r"(?P<human>(?:GRCh3[78]|hg(?:18|19|38)|T2T-CHM13)(?:\.p\d+)?(?:[-_]20\d\d[-_]A|[-_]v\d+|[-_]premrna)?(?=[_-])|(?:human|homo_sapiens|hsapiens)(?=_))"
    r"|(?P<mouse>(?:GRCm3[89]|mm(?:9|10|39))(?:\.p\d+)?(?:[-_]20\d\d[-_]A|[-_]v\d+|[-_]premrna)?(?=[_-])|(?:mouse|mus_musculus|mmusculus)(?=_))"
    r"|(?P<other>(?:rn[4-7]|Rnor_6\.0|mRatBN7\.2|dm[36]|BDGP6|GRCz1[01]|danRer1[01]|ce1[01]|WBcel235|macFas5|Mmul_10|rheMac(?:8|10)"
    r"|susScr11|Sscrofa11\.1|canFam[346]|galGal[56]|sacCer3|panTro[56]|SARS-CoV-2|rat|pig|zebrafish|monkey|macaque|fly|yeast)(?=_))"
    r")[_-]+(?=.)",
    re.IGNORECASE,
)
# `1-Mar`, `01-Mar`, `1-Mar-23`; `Mar-01`; `2023-03-01`, with or without midnight.
DATES = (
    re.compile(r"(?P<number>\d{1,2})[-/. ](?P<month>[A-Za-z]{3,9})(?:[-/. ]\d{1,4})?"),
    re.compile(r"(?P<month>[A-Za-z]{3,9})[-/. ](?P<number>\d{1,2})(?:-\d)?"),
    re.compile(r"(?:19|20)\d\d-(?P<month>\d\d)-(?P<number>\d\d)(?: 00:00:00)?"),
)
MONTH_NAMES = "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER".split()
MONTHS = tuple(name[:3] for name in MONTH_NAMES)
# Stems that spreadsheets read as a month. MARC1 was renamed MTARC1 for this reason.
MONTH_STEMS = {month: month for month in MONTHS} | {"MARC": "MAR", "MARCH": "MAR", "SEPT": "SEP"}
MONTH_OF = MONTH_STEMS | {name: name[:3] for name in MONTH_NAMES}
MADE_UNIQUE = re.compile(r"(.+)[-.]\d{1,3}")
# What tables write where there is no name, also as made unique. `NA` (alias of XK) and `NaN` (of SCN11A) are lost.
MISSING = re.compile(r"\s*(?:nan|<?na>?|#?n/a|none|null|)(?:[-.]\d{1,5})?\s*", re.IGNORECASE)


def fold(name: str) -> str:
    """Spelling-free form: case, surrounding blanks, and `.` or `_` where a table export lost the hyphen."""
    return name.strip().upper().replace(".", "-").replace("_", "-")


def is_missing(name: str) -> bool:
    """Whether this stands for no name at all: empty, `nan`, `NA`, `None`, ..., and `nan-1`."""
    return MISSING.fullmatch(name) is not None


def read_table(name: str) -> tuple[list[str], list[list[str]]]:
    """Comment lines and rows (without the line of column names) of a packaged table."""
    text = gzip.decompress((files("scellm.data") / "genes" / name).read_bytes()).decode()
    lines = text.splitlines()
    comments = [line[2:] for line in lines[:10] if line.startswith("# ")]
    return comments, [line.split("\t") for line in lines[len(comments) + 1 :]]


@dataclass(frozen=True)
class HumanNames:
    """Every human gene of the HGNC table and every name it has had."""

    ensembl_ids: list[str]
    symbols: list[str]
    n_coding: int
    source: str
    by_ensembl: dict[str, int]
    by_symbol: dict[str, int]
    previous: dict[str, tuple[int, ...]]
    alias: dict[str, tuple[int, ...]]

    @cached_property
    def by_folded(self) -> dict[str, tuple[int, ...]]:
        """Genes by `fold`-ed name: approved symbols where there are any, else previous and alias together.

        Not from names of one or two letters: those fold onto everything (`x`, `p1`).
        """
        others = _group(
            (fold(name), gene)
            for table in (self.previous, self.alias)
            for name in table
            for gene in table[name]
            if len(name) > 2
        )
        return others | self.folded_symbols

    @cached_property
    def folded_symbols(self) -> dict[str, tuple[int, ...]]:
        """Genes by `fold`-ed approved symbol."""
        return _group((fold(name), gene) for name, gene in self.by_symbol.items())

    @cached_property
    def by_date(self) -> dict[tuple[str, int], tuple[int, ...]]:
        """Genes by (month, number): those that officially had such a symbol, aliases only where none had."""
        stem_number = re.compile(r"([A-Z]+)(\d{1,2})")

        def dated(names: dict[str, tuple[int, ...]]) -> dict[tuple[str, int], tuple[int, ...]]:
            pairs = []
            for name, genes in names.items():
                found = stem_number.fullmatch(name.upper())
                if found and found[1] in MONTH_STEMS:
                    pairs += [((MONTH_STEMS[found[1]], int(found[2])), gene) for gene in genes]
            return _group(pairs)

        official = self.previous | {name: (gene,) for name, gene in self.by_symbol.items()}
        return dated(self.alias) | dated(official)


@dataclass(frozen=True)
class MouseNames:
    """Mouse names of genes with one human ortholog, as numbers of human genes."""

    by_symbol: dict[str, int]
    by_synonym: dict[str, int]
    by_ensembl: dict[str, int]
    source: str

    def gene(self, name: str) -> int:
        """Human gene of an exactly spelled mouse symbol or synonym, or `UNKNOWN`."""
        found = self.by_symbol.get(name, UNKNOWN)
        return self.by_synonym.get(name, UNKNOWN) if found == UNKNOWN else found


def _group(pairs: Iterable[tuple[object, int]]) -> dict:
    grouped = defaultdict(set)
    for key, gene in pairs:
        grouped[key].add(gene)
    return {key: tuple(sorted(genes)) for key, genes in grouped.items()}


@cache
def human_names() -> HumanNames:
    """The packaged human tables, read once."""
    comments, coding = read_table("human.tsv.gz")
    _, others = read_table("human_other.tsv.gz")
    rows = coding + others
    symbols = [row[1] for row in rows]
    by_ensembl = {row[0]: gene for gene, row in reversed(list(enumerate(rows))) if row[0]}
    by_ensembl |= {other: gene for gene, row in enumerate(coding) for other in row[4].split("|") if other}
    return HumanNames(
        ensembl_ids=[row[0] for row in rows],
        symbols=symbols,
        n_coding=len(coding),
        source=comments[0].removeprefix("source: "),
        by_ensembl=by_ensembl,
        by_symbol={symbol: gene for gene, symbol in enumerate(symbols)},
        previous=_group(
            (name, gene) for gene, row in enumerate(rows) if row[2] for name in row[2].split("|")
        ),
        alias=_group((name, gene) for gene, row in enumerate(rows) if row[3] for name in row[3].split("|")),
    )


@cache
def mouse_names() -> MouseNames:
    """The packaged table of mouse orthologs, read once."""
    comments, rows = read_table("mouse.tsv.gz")
    gene_of = human_names().by_symbol
    by_symbol, by_synonym, by_ensembl = {}, {}, {}
    for human, symbols, ensembl_id, synonyms in rows:
        gene = gene_of[human]
        by_symbol |= dict.fromkeys(symbols.split("|"), gene)
        if ensembl_id:
            by_ensembl[ensembl_id] = gene
        if synonyms:
            by_synonym |= dict.fromkeys(synonyms.split("|"), gene)
    return MouseNames(
        by_symbol, by_synonym, by_ensembl, "; ".join(c.removeprefix("source: ") for c in comments)
    )


@dataclass
class Resolved:
    """The gene behind each of n names.

    `genes` holds gene numbers, `UNKNOWN` or `AMBIGUOUS`; `match_type` one word per name (see `GeneMatch.match_type`);
    `candidates` the genes between which an ambiguous name (key: its position) could not decide.
    """

    genes: np.ndarray
    match_type: list[str]
    candidates: dict[int, tuple[int, ...]]
    namespace: str
    organism: Organism
    is_foreign: np.ndarray
    """(n,) bool: genes of another species than `organism`, by prefix, id or exact spelling."""


def split_prefix(name: str) -> tuple[str, str]:
    """Name without genome prefix, and the organism that the prefix names: "human", "mouse", "other", "" without one."""
    found = GENOME_PREFIX.match(name)
    return (name[found.end() :], found.lastgroup or "") if found else (name, "")


def detect_organism(names: list[str]) -> Organism:
    """Organism whose exactly spelled names are more frequent; human where only a change of case helps."""
    human, mouse = human_names(), mouse_names()
    unique = set(names)
    n_mouse = sum(n in mouse.by_symbol or n.startswith("ENSMUSG") for n in unique)
    n_human = sum(n in human.by_symbol or n in human.previous or n.startswith("ENSG") for n in unique)
    if n_human and n_human >= n_mouse:
        return "human"
    # Human symbols in lower case meet a few mouse symbols by chance, mouse symbols meet about as many of both.
    n_folded = sum(fold(n) in human.by_folded for n in unique)
    if n_mouse and n_mouse * 2 >= n_folded:
        return "mouse"
    return "human" if n_human or n_folded else "unknown"


def detect_namespace(names: list[str], *, organism: Organism) -> str:
    """What most names look like: "ensembl", "symbol", "number", or "unknown"."""
    n_ensembl = sum(ENSEMBL_ANY.match(name) is not None for name in names)
    n_numbers = sum(name.isdigit() for name in names)
    if names and n_ensembl * 2 >= len(names):
        return "ensembl"
    if names and n_numbers * 2 >= len(names):
        return "number"
    return "symbol" if organism != "unknown" else "unknown"


def resolve(names: list[str], *, organism: Organism | None = None) -> Resolved:
    """Find the gene behind each name; a name that several genes share is never forced onto one.

    The last few lists are remembered: tools that follow each other ask for the same one. Do not change what is returned.
    """
    return _resolve(tuple(names), organism)


@lru_cache(maxsize=4)
def _resolve(names: tuple[str, ...], organism: Organism | None) -> Resolved:
    """See `resolve`."""
    split = [split_prefix(name) for name in names]
    plain = [name for name, _ in split]
    missing = [is_missing(name) for name in plain]
    if organism is None:
        organism = detect_organism([name for name, skip in zip(plain, missing, strict=True) if not skip])
    foreign = [prefix not in ("", organism) for _, prefix in split]
    find = _find_mouse if organism == "mouse" else _find_human
    genes, match_type, candidates = find(plain, [a or b for a, b in zip(foreign, missing, strict=True)])
    namespace = detect_namespace(plain, organism=organism)
    is_foreign = [
        away or (gene == UNKNOWN and _is_of_another(name, organism))
        for name, away, gene in zip(plain, foreign, genes, strict=True)
    ]
    return Resolved(
        np.array(genes, dtype=np.int64),
        match_type,
        candidates,
        namespace,
        organism,
        np.array(is_foreign, dtype=bool),
    )


def _is_of_another(name: str, organism: Organism) -> bool:
    """Whether a name that could not be resolved is a gene of another species."""
    if organism == "unknown" or not name:
        return False
    if ENSEMBL_ANY.match(name):
        own = ENSEMBL_MOUSE if organism == "mouse" else ENSEMBL_HUMAN
        return own.match(name.upper()) is None
    return name in (human_names().by_symbol if organism == "mouse" else mouse_names().by_symbol)


def _find_mouse(names: list[str], skipped: list[bool]) -> tuple[list[int], list[str], dict]:
    """Genes of mouse names by one-to-one orthologs; human names and skipped ones are left alone."""
    mouse = mouse_names()
    present = set(names)
    genes, how = [], []
    for name, skip in zip(names, skipped, strict=True):
        gene = UNKNOWN if skip else mouse.gene(name)
        if gene == UNKNOWN and not skip and "ENSMUSG" in name:
            ids = set(ENSEMBL_MOUSE.findall(name))
            gene = mouse.by_ensembl.get(ids.pop(), UNKNOWN) if len(ids) == 1 else UNKNOWN
        if gene == UNKNOWN and not skip and (stem := _made_unique_from(name, present)):
            gene = mouse.gene(stem)
        genes.append(gene)
        how.append("unknown" if gene == UNKNOWN else "ortholog")
    return genes, how, {}


def _made_unique_from(name: str, present: set[str]) -> str:
    """`TBCE` for `TBCE-1` if `TBCE` is among the names too, as `var_names_make_unique` leaves it; else ""."""
    found = MADE_UNIQUE.fullmatch(name)
    return found[1] if found and found[1] in present else ""


def _find_human(names: list[str], skipped: list[bool]) -> tuple[list[int], list[str], dict]:
    """Genes of human names: certain names first, then those that need the others as context."""
    human = human_names()
    genes, how = [UNKNOWN] * len(names), ["unknown"] * len(names)
    candidates: dict[int, tuple[int, ...]] = {}
    left = []
    for at, name in enumerate(names):
        if skipped[at]:
            continue
        if (gene := human.by_symbol.get(name)) is not None:
            genes[at], how[at] = gene, "symbol"
        elif (gene := _by_ensembl(name, human)) is not None:
            genes[at], how[at] = gene, "ensembl"
        else:
            owners = _owners(name, human)
            if len(owners) == 1:
                genes[at], how[at] = owners.pop(), "previous" if name in human.previous else "alias"
            elif name:
                left.append(at)
    if not left:
        return genes, how, candidates

    present = set(genes)
    all_names = set(names)
    # Folding case would pour the mouse half of a mixed-species table into the human genes.
    mouse = mouse_names().by_symbol
    n_mouse = sum(names[at] in mouse for at in left)
    mixed = n_mouse * 20 > len(names)
    for at in left:
        name = names[at]
        found, word = _shared_name(name, human, present)
        if not found and not (mixed and name in mouse):
            found, word = human.by_folded.get(fold(name), ()), "case"
        if not found:
            found, word = _by_date(name, human, present), "date"
        if len(found) == 1:
            genes[at], how[at] = found[0], word
        elif found:
            genes[at], how[at], candidates[at] = AMBIGUOUS, "ambiguous", found
    # Last, so that the stem of `GENE-1` has its own answer by now.
    answer = {name: at for at, name in reversed(list(enumerate(names)))}
    for at in left:
        if genes[at] == UNKNOWN and (stem := _made_unique_from(names[at], all_names)):
            same = answer[stem]
            genes[at], how[at] = genes[same], how[same]
            if same in candidates:
                candidates[at] = candidates[same]
    return genes, how, candidates


def _by_ensembl(name: str, human: HumanNames) -> int | None:
    """Gene of an Ensembl id: bare, with version (`.12`, `_PAR_Y`), or glued to a symbol (`ENSG..._CD3D`)."""
    if (gene := human.by_ensembl.get(name.partition(".")[0])) is not None:
        return gene
    if "ENSG" not in name and "ensg" not in name:
        return None
    ids = {found.replace("ENSGR", "ENSG0") for found in ENSEMBL_HUMAN.findall(name.upper())}
    return human.by_ensembl.get(ids.pop()) if len(ids) == 1 else None


def _owners(name: str, human: HumanNames) -> set[int]:
    """Genes that have this previous or alias symbol.

    An alias such as `ndr` counts against NDR's own approved symbol too: the data may be in lower case.
    """
    alias = human.alias.get(name, ())
    symbols = human.folded_symbols.get(fold(name), ()) if alias and not name.isupper() else ()
    return {*human.previous.get(name, ()), *alias, *symbols}


def _shared_name(name: str, human: HumanNames, present: set[int]) -> tuple[tuple[int, ...], str]:
    """Genes that share a previous or alias symbol.

    One of them if it had the name officially and all the others are in the data under names of their own:
    TAZ was TAFAZZIN's symbol and is an alias of WWTR1, so next to WWTR1 it can only be TAFAZZIN.
    """
    official = human.previous.get(name, ())
    owners = _owners(name, human)
    absent = owners - present
    if len(absent) == 1 and absent <= set(official):
        return tuple(absent), "previous"
    return tuple(sorted(owners)), "ambiguous"


def _by_date(name: str, human: HumanNames, present: set[int]) -> tuple[int, ...]:
    """Genes whose symbol a spreadsheet turns into this date, without those that kept a name of their own."""
    for pattern in DATES:
        if found := pattern.fullmatch(name.strip()):
            text = found["month"].upper()
            month = MONTHS[int(text) - 1] if text.isdigit() and 1 <= int(text) <= 12 else MONTH_OF.get(text)
            genes = human.by_date.get((month, int(found["number"])), ())
            absent = tuple(gene for gene in genes if gene not in present)
            return absent if len(absent) == 1 else genes
    return ()
