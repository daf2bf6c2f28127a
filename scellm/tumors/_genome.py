"""Where the genes of a vocabulary are on the genome, and segments of neighboring genes."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

TABLES = Path(__file__).parent / "tables"
CLUSTERED = re.compile(
    r"(HLA-|IG[HKL][VDJC]|TR[ABDG][VDJC]|RP[LS]\d|H[1-4][ABC-]|HIST|KRT|PCDH|OR\d|MT-|HB[ABDEGMQZ])"
)
"""Families of neighboring genes that one cell type turns on together: no sign of copy number."""
GENES_PER_SEGMENT = 100
FEWEST_PER_SEGMENT = 30
SEGMENTS_WANTED = 45
"""Where few genes are measured, segments are shorter, so that there are about as many."""


@dataclass(frozen=True, eq=False)
class Genome:
    """Genes of a vocabulary that have a place, in the order of the genome.

    Attributes
    ----------
    ids
        (P,) vocabulary id of each.
    chromosome, arm
        (P,) "1" to "22" or "X"; "1p" to "Xq".
    start
        (P,) first base, hg38.
    is_used
        (P,) whether copy number is read from it: autosomal, and of no family of neighbors turned on together.
    """

    ids: np.ndarray
    chromosome: np.ndarray
    arm: np.ndarray
    start: np.ndarray
    is_used: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Segments:
    """Neighboring genes of one arm, read together.

    Attributes
    ----------
    genes
        (Q,) genes that are in a segment, as positions in a `Genome`, ascending.
    of_gene
        (Q,) the segment of each.
    arm
        (S,) arm of each segment.
    """

    genes: np.ndarray
    of_gene: np.ndarray
    arm: np.ndarray

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def sizes(self) -> np.ndarray:
        """(S,) genes of each segment."""
        return np.bincount(self.of_gene, minlength=len(self))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(Q,) values of genes -> (S,) means."""
        return np.bincount(self.of_gene, values, len(self)) / self.sizes


@cache
def _positions() -> dict[str, tuple[str, str, int]]:
    """Chromosome, arm and start by Ensembl id and by symbol."""
    with gzip.open(TABLES / "positions.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    places = {}
    for ensembl_id, symbol, chromosome, start, arm in rows:
        places[symbol] = places[ensembl_id] = (chromosome, arm, int(start))
    return places


def load_genome(ensembl_ids: np.ndarray, symbols: np.ndarray) -> Genome:
    """Places of a vocabulary's genes, by Ensembl id or else by symbol.

    Parameters
    ----------
    ensembl_ids, symbols
        (n_genes,) of the vocabulary.
    """
    known = _positions()
    found = [
        (i, known.get(str(ensembl_id)) or known.get(str(symbol)))
        for i, (ensembl_id, symbol) in enumerate(zip(ensembl_ids, symbols, strict=True))
    ]
    ids = np.array([i for i, place in found if place], dtype=np.int64)
    chromosome = np.array([place[0] for _, place in found if place])
    arm = np.array([place[1] for _, place in found if place])
    start = np.array([place[2] for _, place in found if place], dtype=np.int64)
    number = np.array([23 if name == "X" else int(name) for name in chromosome], dtype=np.int64)
    order = np.lexsort((start, number))
    clustered = np.array([CLUSTERED.match(str(symbols[i])) is not None for i in ids], dtype=bool)
    is_used = ~clustered & (number < 23)
    return Genome(ids[order], chromosome[order], arm[order], start[order], is_used[order])


def make_segments(genome: Genome, is_measured: np.ndarray) -> Segments:
    """Cut each arm into segments of about 100 measured genes; arms with fewer than 30 are left out.

    Parameters
    ----------
    genome
        Places.
    is_measured
        (P,) genes expressed enough to be read.
    """
    usable = is_measured & genome.is_used
    size = int(np.clip(usable.sum() / SEGMENTS_WANTED, FEWEST_PER_SEGMENT, GENES_PER_SEGMENT))
    genes: list[np.ndarray] = []
    of_gene: list[np.ndarray] = []
    arms: list[str] = []
    for arm in dict.fromkeys(genome.arm.tolist()):
        here = np.flatnonzero(usable & (genome.arm == arm))
        if len(here) < FEWEST_PER_SEGMENT:
            continue
        for piece in np.array_split(here, max(1, round(len(here) / size))):
            genes.append(piece)
            of_gene.append(np.full(len(piece), len(arms)))
            arms.append(arm)
    if not arms:
        return Segments(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype="<U3"))
    return Segments(np.concatenate(genes), np.concatenate(of_gene), np.array(arms))
