"""How similar cells and cell lines are, whatever the depth of the cells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from ._normal_axis import FARTHEST, position_on_axis
from ._profiles import (
    BULK_SHOWS,
    COUNTS_PER_SHOWN,
    DEEP,
    DEPTHS,
    at_most_unit,
    expected_genes,
    log_fractions,
    to_unit,
)

TRUST = 0.2
"""Weight of a gene's evidence: below 1, for what genes have in common beyond the vectors is no independent noise."""
NEAREST = 1.3
"""Distance from the nearest cell line at which a cell is outside, in units of that of the cell lines least similar to any other:
sums of single cells of lines that the model has seen lie up to 1.28 from their nearest (`docs/benchmarks/drug_response.md`)."""


class CellLineProjector:
    """Similarity of cells to cell lines, cosine over all genes as far as principal components hold it, estimated from however few counts a cell has.

    A cell line is its centered log profile, genes weighted by spread ** -0.5, of unit length, in principal
    components; what these leave out makes the vector shorter. A cell with few counts shows such a profile through so much noise that its cosines mean little, so its vector
    is the posterior mean of a factor model, fitted on cell lines downsampled to the cell's depth, as single-cell sequencing would
    see them. What cannot be known from that many counts shrinks towards the average cell line. Genes the data lack are left out.

    Parameters
    ----------
    statistics
        What `fit_projector` learned.
    present
        (P,) which of the G genes the data hold; `None` for all.
    """

    def __init__(self, statistics: Mapping[str, np.ndarray], present: np.ndarray | None = None) -> None:
        self._of = statistics
        n_genes = len(statistics["mean_fraction"])
        self.present = np.arange(n_genes) if present is None else np.asarray(present)
        self.is_whole = len(self.present) == n_genes
        self.lines = statistics["line_vectors"].astype(np.float64)  # (L, R)
        self._lengths = np.maximum(np.linalg.norm(self.lines, axis=1), 1e-12).astype(np.float32)
        self._share = float(statistics["mean_fraction"][self.present].sum(dtype=np.float64))
        self._maps: dict[int, tuple[np.ndarray, float]] = {}

    @property
    def kernel_similarity(self) -> np.ndarray:
        """(L, L) similarity of the cell lines among themselves."""
        return np.clip(self.lines @ self.lines.T, -1, 1)

    def project(
        self, values: np.ndarray, is_bulk: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Similarity to the cell lines, distance from them, and depth.

        Parameters
        ----------
        values
            (B, P) linear expression of the present genes, whatever its scale.
        is_bulk
            (B,) which rows are of bulk sequencing; `None` takes what `is_bulk` says. Sums of single cells are none, however
            deep.

        Returns
        -------
        similarity
            (B, L) float32, NaN for a cell without counts.
        distance
            (B,) float32, the larger of two: 1 for a cell `NEAREST` times as far from its nearest cell line as the cell lines least similar
            to any other (lowest 10 %) are, at its depth; and 1 for a cell 56 % of the way from the mean cell line to
            mean normal tissue.
        depth
            (B,) counts, or what would have been counts: the sum in units of the smallest value, of cells as
            `cell_counts` has it.
        """
        values = np.asarray(values, dtype=np.float32)
        depth = sums_in_smallest(values)
        is_bulk = self.is_bulk(values) if is_bulk is None else is_bulk
        depth = np.where(is_bulk, depth, self.cell_counts(values, depth))
        logged = log_fractions(values, self._share, len(self._of["mean_fraction"]))
        similarity = np.full((len(values), len(self.lines)), np.nan, dtype=np.float32)
        distance = np.full(len(values), np.nan, dtype=np.float32)
        bins = np.abs(np.log(np.maximum(depth, 1))[:, None] - np.log(DEPTHS)).argmin(1)
        if self.is_whole:
            bins[is_bulk] = len(DEPTHS)
        for i in np.unique(bins[depth > 0]).tolist():
            rows = np.flatnonzero((bins == i) & (depth > 0))
            vectors, edge = self._vectors(logged[rows], i)
            similarity[rows] = np.clip(vectors @ self.lines.T.astype(np.float32), -1, 1)
            distance[rows] = (1 - (similarity[rows] / self._lengths).max(1)) / (1 - edge) / NEAREST
            if (way := self._normal_position(logged[rows], i)) is not None:
                distance[rows] = np.maximum(distance[rows], way)
        return similarity, distance, depth

    def is_bulk(self, values: np.ndarray) -> np.ndarray:
        """Which profiles (B, P) are of bulk sequencing, (B,): `DEEP`, and they show as many genes as bulk does.

        Fractions of reads, as of RSEM or TPM, make the smallest value of a single cell tiny, and its sum in units of it `DEEP`.
        """
        return (self._shown(values) >= BULK_SHOWS * len(self.present)) & (sums_in_smallest(values) >= DEEP)

    def cell_counts(self, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """Counts that single cells (B, P) have, `counted` (B,) unless these are too many for the genes that the cells show."""
        usual, most = COUNTS_PER_SHOWN
        shown = self._shown(values)
        return np.where(counted > np.maximum(most * shown, DEPTHS[-1]), usual * shown, counted)

    def _shown(self, values: np.ndarray) -> np.ndarray:
        """(B,) counts of the average cell line that show as many genes as profiles (B, P) do."""
        depths, n_genes = self._expected_genes
        return np.interp((values > 0).sum(1), n_genes, depths)

    @cached_property
    def _expected_genes(self) -> tuple[np.ndarray, np.ndarray]:
        """`expected_genes` of the average cell line."""
        fraction = self._of["mean_fraction"][self.present].astype(np.float64)
        return expected_genes(fraction / fraction.sum())

    def _vectors(self, logged: np.ndarray, i: int) -> tuple[np.ndarray, float]:
        """Vectors of profiles at the depth of bin i, (B, R), and the edge there."""
        if i == len(DEPTHS):
            centered = (logged - self._of["center"][i]) * self._of["gene_weight"]
            return to_unit(centered) @ self._of["loadings"].astype(np.float32), float(self._of["edge"][i])
        if i not in self._maps:
            self._maps[i] = self._solve(i)
        linear_map, edge = self._maps[i]
        return at_most_unit((logged - self._of["center"][i][self.present]) @ linear_map), edge

    def _normal_position(self, logged: np.ndarray, i: int) -> np.ndarray | None:
        """Way to normal tissue, (B,), 1 where outside begins; `None` for a model fitted without normal tissue."""
        if "normal_axis" not in self._of:
            return None
        centered = logged - self._of["center"][i][self.present]
        way = position_on_axis(
            centered, self._of["normal_axis"][i], self._of["normal_shift"][i], self.present
        )
        return None if way is None else way / FARTHEST

    def _solve(self, i: int) -> tuple[np.ndarray, float]:
        """Map from the present genes to vectors, (P, R), and the edge, lower by what the missing genes cost."""
        signal = self._of["signal"].astype(np.float64) * self._of["gain"][i].astype(np.float64)[:, None]
        noise, prior = self._of["noise"][i].astype(np.float64), self._of["prior"].astype(np.float64)
        linear_map, length = reader_of(signal[self.present], noise[self.present], prior)
        edge = float(self._of["edge"][i])
        if not self.is_whole:
            edge *= length / reader_of(signal, noise, prior)[1]
        return linear_map.astype(np.float32), edge


def sums_in_smallest(values: np.ndarray) -> np.ndarray:
    """(B,) sum of each row in units of its smallest positive value; 0 for rows without any."""
    smallest = np.where(values > 0, values, np.inf).min(axis=1, initial=np.inf)
    total = values.sum(1, dtype=np.float64)
    return np.divide(total, smallest, out=np.zeros(len(values)), where=np.isfinite(smallest))


def reader_of(signal: np.ndarray, noise: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
    """Posterior mean of a vector given a cell's genes, as a map (P, R), and the root mean square length of what it predicts.

    Parameters
    ----------
    signal
        (P, R) how genes follow the vector.
    noise, prior
        (P,) and (R,) variances of the genes' own noise and of the vector.
    """
    weighted = signal * (TRUST / noise)[:, None]
    left = np.linalg.inv(signal.T @ weighted + np.diag(1 / np.maximum(prior, 1e-9)))
    return weighted @ left, float(np.sqrt(max((prior - left.diagonal()).sum(), 1e-12)))
