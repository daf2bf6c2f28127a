"""Copy number of the cells of one sample: which groups are aneuploid, how much of it each cell shows, and clones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from ._aneuploidy import THRESHOLD, Coherence, coherence, nuisance
from ._cells import clone_share, effective_totals, mixture_odds, segment_scores
from ._clones import find_clones
from ._genome import Genome, Segments, make_segments
from ._panel import Panel

FEWEST_GENES = 1_000
FEWEST_SEGMENTS = 15
FEWEST_NORMAL = 20
"""Normal cells of the sample from which they are the reference."""
FEW_NORMAL = 100
"""Normal cells of the sample below which the panel is asked as well."""
LEAST_EXPRESSION = 0.1
"""Counts per 10,000, mean over cells, from which a gene is read."""
PANEL_SHARE = 0.9
"""Share of the panel's profiles that must have measured a gene."""
DROPPED = 10.0
"""Log likelihood ratio against the panel from which cells thought normal are not taken as reference."""
LEAST_SHARE = 0.15
"""Share of a group that must be thought normal for its normal cells to be taken as reference."""
SMALLEST_GROUP = 8
ROUNDS = 2
LARGEST_LOG_ODDS = 20.0
LEAST_NOISE = 1.5
"""Variance of a cell's score beyond that of its counts."""


@dataclass(eq=False)
class CopyNumber:
    """Copy number of the cells of one sample.

    Attributes
    ----------
    is_usable
        Whether enough genes are measured.
    reference
        "sample" or "panel": where the normal cells are from.
    is_reference
        (n,) the normal cells of the sample that were used.
    score
        (n,) 0 for cells like normal ones, 1 for those of a clone; 0 where no clone was found.
    log_odds
        (n,) of the cell's clone against none.
    clone
        (n,) the clone of each cell that shows one, -1 for the others.
    clones
        What was found of each clone against normal cells.
    statistic
        (n,) log likelihood ratio for copy number of the group of cells that each is in.
    segments
        Segments that were read.
    normal
        (Q,) what normal cells express, as fractions.
    """

    is_usable: bool
    reference: str
    is_reference: np.ndarray
    score: np.ndarray
    log_odds: np.ndarray
    clone: np.ndarray
    segments: Segments
    statistic: np.ndarray
    normal: np.ndarray
    clones: list[Coherence] = field(default_factory=list)


def infer_copy_number(
    counts: sp.csr_array,
    genome: Genome,
    panel: Panel,
    clusters: np.ndarray,
    is_normal: np.ndarray,
    rng: int = 0,
    *,
    is_known: bool = False,
) -> CopyNumber:
    """Find aneuploid cells.

    Parameters
    ----------
    counts
        (n, P) linear expression over the genes of `genome`.
    genome, panel
        Places, and normal profiles for where the sample has fewer than 20 normal cells.
    clusters
        (n,) groups of cells of similar expression.
    is_normal
        (n,) cells known or thought to be normal.
    rng
        Seed.
    is_known
        Whether the normal cells are known to be so, and not to be doubted.
    """
    counts = sp.csr_array(counts)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    mean = _pooled(counts, totals, totals > 0)
    from_panel = is_normal.sum() < FEWEST_NORMAL
    measured = 1e4 * mean > LEAST_EXPRESSION
    in_panel = panel.share(np.arange(len(genome))) >= PANEL_SHARE
    segments = make_segments(genome, measured & in_panel if from_panel else measured)
    if len(segments.genes) < FEWEST_GENES or len(segments) < FEWEST_SEGMENTS:
        return _nothing(counts.shape[0], segments)
    sample = _Sample(sp.csr_array(counts[:, segments.genes]), segments, panel)
    is_reference, kind = sample.choose_reference(is_normal, clusters, is_known=is_known)
    return sample.infer(clusters, is_reference, kind, rng)


class _Sample:
    """The cells of one sample over the genes of the segments."""

    def __init__(self, counts: sp.csr_array, segments: Segments, panel: Panel) -> None:
        self.counts, self.segments, self.panel = counts, segments, panel
        self.totals = np.asarray(counts.sum(axis=1)).ravel()
        self.directions = nuisance(panel, segments)

    def pooled(self, rows: np.ndarray) -> np.ndarray:
        """(Q,) fractions of some cells."""
        return _pooled(self.counts, self.totals, rows)

    def against_panel(self, rows: np.ndarray) -> Coherence:
        """Some cells against the normal profiles most like them."""
        profile = self.pooled(rows)
        normal = self.panel.nearest(profile[None], self.segments.genes)[0]
        return coherence(profile, normal, self.segments, self.directions)

    def choose_reference(
        self, is_normal: np.ndarray, clusters: np.ndarray, *, is_known: bool
    ) -> tuple[np.ndarray, str]:
        """Normal cells of the sample that are not aneuploid against the panel, or none where these are too few."""
        chosen = is_normal & (self.totals > 0)
        for cluster in [] if is_known else np.unique(clusters):
            rows = (clusters == cluster) & chosen
            if rows.sum() < LEAST_SHARE * (clusters == cluster).sum():  # a few odd cells of a tumor
                chosen[rows] = False
            elif rows.sum() >= SMALLEST_GROUP and self.against_panel(rows).statistic > DROPPED:
                chosen[rows] = False
        if chosen.sum() < FEWEST_NORMAL:
            return np.zeros(len(chosen), dtype=bool), "panel"
        return chosen, "sample"

    def test(self, rows: np.ndarray, is_reference: np.ndarray, normal: np.ndarray | None) -> Coherence:
        """A group against the reference and, where that is small, the panel; one of reference cells must differ from both."""
        if normal is None:
            return self.against_panel(rows)
        found = coherence(self.pooled(rows), normal, self.segments, self.directions)
        if is_reference[rows].mean() > 0.5:
            pick = min
        elif is_reference.sum() < FEW_NORMAL:
            pick = max
        else:
            return found
        return pick(found, self.against_panel(rows), key=lambda test: test.statistic)

    def infer(self, clusters: np.ndarray, is_reference: np.ndarray, kind: str, rng: int) -> CopyNumber:
        """Test groups, score cells, and do so again with groups split by their scores."""
        normal = self.pooled(is_reference) if kind == "sample" else None
        groups = np.unique(clusters, return_inverse=True)[1]
        score = np.zeros(len(groups))
        log_odds = np.zeros(len(groups))
        for turn in range(ROUNDS + 1):
            tests = self.test_groups(groups, is_reference, normal)
            is_aneuploid = np.array([test.statistic > THRESHOLD for test in tests])
            if not is_aneuploid.any():
                break
            score, log_odds = self.score(groups, tests, is_aneuploid)
            if turn < ROUNDS:
                groups = _split(groups, log_odds > 0)
        statistic = np.array([test.statistic for test in tests])[groups]
        is_clonal = (log_odds > 0) & (totals_ok := self.totals > 0)
        log_odds[~totals_ok] = 0
        everyone = (
            normal
            if normal is not None
            else self.panel.nearest(self.pooled(totals_ok)[None], self.segments.genes)[0]
        )
        clone = np.full(len(groups), -1)
        if is_clonal.any():
            clone[is_clonal] = find_clones(self.counts[is_clonal], everyone, self.segments, rng)
        clones = [self.test(clone == c, is_reference, normal) for c in range(clone.max() + 1)]
        return CopyNumber(
            is_usable=True,
            reference=kind,
            is_reference=is_reference,
            score=score,
            log_odds=log_odds,
            clone=clone,
            segments=self.segments,
            statistic=statistic,
            normal=everyone,
            clones=clones,
        )

    def test_groups(
        self, groups: np.ndarray, is_reference: np.ndarray, normal: np.ndarray | None
    ) -> list[Coherence]:
        """One test for each group; those too small say nothing."""
        n_segments = len(self.segments)
        empty = Coherence(np.zeros(n_segments), np.ones(n_segments), 0.0, np.zeros(n_segments))
        tests = []
        for group in range(groups.max() + 1):
            rows = (groups == group) & (self.totals > 0)
            tests.append(self.test(rows, is_reference, normal) if rows.sum() >= SMALLEST_GROUP else empty)
        return tests

    def score(
        self, groups: np.ndarray, tests: list[Coherence], is_aneuploid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score and log odds of each cell, for that of the aneuploid groups it is most like."""
        profiles = np.empty((len(tests), len(self.segments.genes)))
        for group, test in enumerate(tests):
            rows = (groups == group) & (self.totals > 0)
            profile = self.pooled(rows) if rows.any() else np.full(profiles.shape[1], 1 / profiles.shape[1])
            if is_aneuploid[group]:
                profile = profile / np.exp(test.estimate)[self.segments.of_gene]
            profiles[group] = profile / profile.sum()
        scores, information = segment_scores(self.counts, profiles, groups, self.segments)
        best, best_odds = np.zeros(len(groups)), np.full(len(groups), -np.inf)
        in_clone = is_aneuploid[groups]
        for group in np.flatnonzero(is_aneuploid).tolist():
            share, precision = clone_share(scores, information, tests[group].estimate)
            precision = precision / _noise(share, precision, groups == group, ~in_clone)
            odds = np.full(len(groups), -np.inf)
            for other, _ in enumerate(tests):
                if other == group or not is_aneuploid[other]:  # cells of another clone are judged by that one
                    rows = groups == other
                    odds[rows] = mixture_odds(share[rows], precision[rows], is_clone=other == group)
            better = odds > best_odds
            best[better], best_odds[better] = share[better], odds[better]
        return best, np.clip(best_odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)


def _noise(share: np.ndarray, precision: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """Variance of scores in units of that of counts: of cells of no clone around 0, else of the clone's around 1."""
    squares = share[outside] ** 2 * precision[outside]
    if outside.sum() < FEWEST_NORMAL:
        squares = (share[inside] - 1) ** 2 * precision[inside]
    return max(LEAST_NOISE, float(np.median(squares)) / 0.455)  # the median of chi-square with one degree


def _split(groups: np.ndarray, is_clonal: np.ndarray) -> np.ndarray:
    """Each group in its clonal and its other cells, where both are enough for a test."""
    new, result = 0, np.empty(len(groups), dtype=np.int64)
    for group in range(groups.max() + 1):
        rows = groups == group
        parts = [rows & is_clonal, rows & ~is_clonal]
        for part in parts if min(part.sum() for part in parts) >= SMALLEST_GROUP else [rows]:
            result[part] = new
            new += 1
    return result


def _pooled(counts: sp.csr_array, totals: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Fractions of the counts of some cells, each weighing as its believed counts."""
    chosen = np.flatnonzero(rows & (totals > 0))
    pooled = counts[chosen].T @ (effective_totals(totals[chosen]) / totals[chosen])
    return pooled / max(pooled.sum(), 1e-12)


def _nothing(n: int, segments: Segments) -> CopyNumber:
    """What is said of a sample with too few genes."""
    zeros = np.zeros(n)
    return CopyNumber(
        is_usable=False,
        reference="none",
        is_reference=np.zeros(n, dtype=bool),
        score=zeros,
        log_odds=zeros.copy(),
        clone=np.full(n, -1),
        segments=segments,
        statistic=zeros.copy(),
        normal=np.zeros(len(segments.genes)),
    )


def normal_fractions(counts: sp.csr_array, copies: CopyNumber, panel: Panel, genes: np.ndarray) -> np.ndarray:
    """What the normal cells of a sample express of some genes, or where it has none those of the panel, (Q,).

    Parameters
    ----------
    counts
        (n, Q) linear expression of `genes`.
    copies
        What was found of the sample.
    panel
        Normal profiles.
    genes
        (Q,) positions in the genome.
    """
    totals = np.asarray(counts.sum(axis=1)).ravel()
    if copies.is_reference.any():
        return _pooled(counts, totals, copies.is_reference)
    return panel.nearest(_pooled(counts, totals, totals > 0)[None], genes)[0]
