"""How alike cells and cell lines are, whatever the depth of the cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SCALE = 5_000.0
"""Counts per profile before the logarithm; between 1,000 and 30,000 measured best for shallow and deep together."""
PENALTY = 0.3
"""Ridge penalty of a reader, in units of the mean variance of a gene."""
DEPTHS = (30, 100, 300, 1_000, 3_000, 10_000, 30_000)
"""Counts over the model's genes for which there is a reader of its own; a cell takes the nearest.

Deeper sums of single cells are read as of 30,000: what parts them from bulk RNA-seq is the platform then, not counts.
"""
DEEP = 300_000
"""Depth from which a profile is read as it is, as bulk RNA-seq is."""
REPEATS = 4
"""Thinned copies of each line that a reader is fitted on."""
RANK = 128
"""Dimensions of a line's vector."""
LONELY = 0.1
"""Share of the lines, those least like any other, that lie beyond the edge of what the model has seen."""


@dataclass(frozen=True)
class Platform:
    """How single-cell sequencing sees the genes, beside bulk sequencing of the same cells."""

    factor: np.ndarray
    """(G,) how much more it sees of a gene on average, over platforms."""
    spread: np.ndarray
    """(G,) standard deviation of log2 of that between platforms and lines."""

    def see(self, linear: np.ndarray, *, rng: np.random.Generator | int) -> np.ndarray:
        """Linear bulk profiles (n, G) as a platform drawn at random would show each."""
        noise = np.random.default_rng(rng).normal(size=linear.shape)
        return linear * self.factor * np.exp2(self.spread * noise)


class LineReader:
    """Cosine similarity of cells to cell lines, estimated from however few counts a cell has.

    A line is a vector of unit length: its centred log profile, genes weighted by spread ** -0.5, in principal
    components. A cell with few counts shows such a profile through so much noise that its cosines mean little, so it
    is read by ridge regression, fitted on lines thinned to the cell's depth, as single-cell sequencing would see them.
    What cannot be known from that many counts shrinks towards the average line. Genes the data lack are left out of the regression.

    Parameters
    ----------
    statistics
        What `fit_reader` learnt.
    present
        (P,) which of the G genes the data hold; `None` for all.
    """

    def __init__(self, statistics: Mapping[str, np.ndarray], present: np.ndarray | None = None) -> None:
        self._of = statistics
        n_genes = len(statistics["mean_fraction"])
        self.present = np.arange(n_genes) if present is None else np.asarray(present)
        self.is_whole = len(self.present) == n_genes
        self.lines = statistics["line_vectors"].astype(np.float64)  # (L, R)
        self._share = float(statistics["mean_fraction"][self.present].sum(dtype=np.float64))
        self._readers: dict[int, tuple[np.ndarray, float]] = {}

    @property
    def kernel_similarity(self) -> np.ndarray:
        """(L, L) cosines between the lines themselves."""
        return np.clip(self.lines @ self.lines.T, -1, 1)

    def read(
        self, values: np.ndarray, is_bulk: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Similarity to the lines, distance from them, and depth.

        Parameters
        ----------
        values
            (B, P) linear expression of the present genes, whatever its scale.
        is_bulk
            (B,) which rows are of bulk sequencing; `None` takes those of `DEEP` counts or more. Sums of single cells are
            none, however deep.

        Returns
        -------
        similarity
            (B, L) float32, NaN for a cell without counts.
        distance
            (B,) float32, the larger of two: 1 for a cell as far from its nearest line as the most lonely tenth of lines
            is, at its depth; and 1 for a cell 60 % of the way from the mean line to mean normal tissue.
        depth
            (B,) counts, or what would have been counts: the sum in units of the smallest value.
        """
        values = np.asarray(values, dtype=np.float32)
        total = values.sum(1, dtype=np.float64)
        smallest = np.where(values > 0, values, np.inf).min(axis=1, initial=np.inf)
        depth = np.divide(total, smallest, out=np.zeros(len(values)), where=np.isfinite(smallest))
        logged = _log_fractions(values, self._share)
        similarity = np.full((len(values), len(self.lines)), np.nan, dtype=np.float32)
        distance = np.full(len(values), np.nan, dtype=np.float32)
        bins = np.abs(np.log(np.maximum(depth, 1))[:, None] - np.log(DEPTHS)).argmin(1)
        is_bulk = depth >= DEEP if is_bulk is None else is_bulk
        if self.is_whole:
            bins[is_bulk] = len(DEPTHS)
        for i in np.unique(bins[depth > 0]).tolist():
            rows = np.flatnonzero((bins == i) & (depth > 0))
            vectors, edge = self._vectors(logged[rows], i)
            similarity[rows] = np.clip(vectors @ self.lines.T.astype(np.float32), -1, 1)
            distance[rows] = (1 - similarity[rows].max(1)) / (1 - edge)
            if (way := self._way_to_normal(logged[rows], i)) is not None:
                distance[rows] = np.maximum(distance[rows], way)
        return similarity, distance, depth

    def _vectors(self, logged: np.ndarray, i: int) -> tuple[np.ndarray, float]:
        """Vectors of profiles at the depth of bin i, (B, R), and the edge there."""
        if i == len(DEPTHS):
            centered = (logged - self._of["center"][i]) * self._of["gene_weight"]
            return _unit(centered) @ self._of["loadings"], float(self._of["edge"][i])
        if i not in self._readers:
            self._readers[i] = self._solve(i)
        reader, edge = self._readers[i]
        return _at_most_unit((logged - self._of["center"][i][self.present]) @ reader), edge

    def _way_to_normal(self, logged: np.ndarray, i: int) -> np.ndarray | None:
        """Way to normal tissue, (B,), 1 where outside begins; `None` for a model fitted without normal tissue."""
        if "normal_axis" not in self._of:
            return None
        from ._normal_axis import FARTHEST, way_to_normal

        centered = logged - self._of["center"][i][self.present]
        way = way_to_normal(centered, self._of["normal_axis"][i], self._of["normal_shift"][i], self.present)
        return None if way is None else way / FARTHEST

    def _solve(self, i: int) -> tuple[np.ndarray, float]:
        """Map from the present genes to vectors, (P, R), and the edge, lower by what the missing genes cost."""
        gram = _unpack(self._of["gram"][i], len(self._of["mean_fraction"]))
        cross = self._of["cross"][i].astype(np.float64)
        reader, length = _ridge(gram[np.ix_(self.present, self.present)], cross[self.present])
        edge = float(self._of["edge"][i])
        if not self.is_whole:
            edge *= length / _ridge(gram, cross)[1]
        return reader.astype(np.float32), edge


def fit_reader(
    log2_tpm: np.ndarray, *, platform: Platform | None = None, rank: int = RANK, rng: int = 0
) -> dict[str, np.ndarray]:
    """Learn how to read cells of any depth from the profiles of lines; keeps second moments, not profiles.

    Parameters
    ----------
    log2_tpm
        (L, G) log2(TPM + 1).
    platform
        How single-cell sequencing sees genes; `None` as bulk does.
    rank
        Most dimensions of a vector.
    rng
        Seed of the thinning.

    Returns
    -------
    `line_vectors` (L, R), `loadings` (G, R), `gene_weight` and `mean_fraction` (G,); for each depth `gram`
    (K, G (G + 1) / 2) and `cross` (K, G, R), both float16; for each depth and then for bulk `center` (K + 1, G) and
    `edge` (K + 1,).
    """
    linear = np.exp2(log2_tpm.astype(np.float64)) - 1
    of_cells = linear if platform is None else linear * platform.factor
    whole = np.log2(1 + _fractions(linear) * SCALE)
    weight = np.maximum(whole.std(0), 1e-2) ** -0.5
    unit = _unit((whole - whole.mean(0)) * weight)
    rank = min(rank, *unit.shape)
    loadings = np.linalg.svd(unit, full_matrices=False)[2][:rank].T  # (G, R)
    vectors = _unit(unit @ loadings)
    centers, grams, crosses, edges = [], [], [], []
    for i, depth in enumerate(DEPTHS):
        seen = linear if platform is None else platform.see(np.tile(linear, (REPEATS, 1)), rng=rng + i)
        thinned = thin(seen, depth, repeats=REPEATS if platform is None else 1, rng=rng + i)
        logged = np.log2(1 + _fractions(thinned) * SCALE)
        centers.append(logged.mean(0))
        logged -= centers[-1]
        gram = logged.T @ logged / len(logged)
        cross = logged.T @ np.tile(vectors, (REPEATS, 1)) / len(logged)
        grams.append(_pack(gram))
        crosses.append(cross)
        edges.append(_edge(_at_most_unit(logged[: len(linear)] @ _ridge(gram, cross)[0]) @ vectors.T))
    centers.append(whole.mean(0))
    edges.append(_edge(vectors @ vectors.T))
    return {
        "line_vectors": vectors.astype(np.float32),
        "loadings": loadings.astype(np.float32),
        "gene_weight": weight.astype(np.float32),
        "mean_fraction": _fractions(of_cells).mean(0).astype(np.float32),
        "center": np.array(centers, dtype=np.float32),
        "gram": np.array(grams, dtype=np.float16),
        "cross": np.array(crosses, dtype=np.float16),
        "edge": np.array(edges, dtype=np.float32),
    }


def thin(
    linear: np.ndarray, depth: float, *, repeats: int = 1, rng: np.random.Generator | int = 0
) -> np.ndarray:
    """Poisson counts of profiles at a depth, (repeats * n, G), all profiles of one repeat after the other.

    Parameters
    ----------
    linear
        (n, G) linear expression.
    depth
        Expected sum of a row.
    repeats
        Copies of each profile.
    rng
        Seed or generator.
    """
    rng, profiles = np.random.default_rng(rng), _fractions(linear)
    return np.concatenate([rng.poisson(depth * profiles) for _ in range(repeats)]).astype(np.float64)


def _ridge(gram: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, float]:
    """Ridge regression from moments, (P, R), and the root mean square length of what it predicts."""
    penalised = gram.copy()
    penalised.flat[:: len(gram) + 1] += PENALTY * np.trace(gram) / len(gram) + 1e-9
    reader = np.linalg.solve(penalised, cross)
    return reader, float(np.sqrt(max(np.sum(reader * (gram @ reader)), 1e-12)))


def _edge(similarity: np.ndarray) -> float:
    """Similarity to the nearest other line that all but a tenth of lines reach."""
    others = np.where(np.eye(len(similarity), dtype=bool), -1, similarity).max(1)
    return float(np.quantile(others, LONELY))


def _pack(symmetric: np.ndarray) -> np.ndarray:
    """Upper triangle, row by row."""
    return symmetric[np.triu_indices(len(symmetric))]


def _unpack(packed: np.ndarray, n: int) -> np.ndarray:
    """The symmetric matrix of an upper triangle, float64."""
    whole = np.zeros((n, n))
    whole[np.triu_indices(n)] = packed
    return whole + np.triu(whole, 1).T


def _fractions(values: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; rows of zeros stay."""
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def _log_fractions(values: np.ndarray, share: float) -> np.ndarray:
    """log2(1 + counts per `SCALE`), of genes that hold a `share` of an average profile."""
    return np.log2(1 + _fractions(values) * np.float32(SCALE * share))


def _at_most_unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors cut to length 1; shorter ones, of which little is known, stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
