"""One label per cluster, as the majority of its cells says."""

from __future__ import annotations

import numpy as np

from ._annotator import unit

CELLS_PER_CLUSTER = 50
"""Over-clustering: small clusters, so that few hold two types (ours)."""


def vote(codes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(n,) the most common code of each cell's cluster.

    Parameters
    ----------
    codes
        (n,) codes; refusals are codes too. Where one is negative and makes up half of a cluster, it wins; otherwise the
        most common of the others does, the smallest among equals.
    clusters
        (n,) cluster of each cell.
    """
    voted = codes.copy()
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        kinds, counts = np.unique(codes[rows], return_counts=True)
        refusals = kinds < 0
        if 2 * counts[refusals].sum() > len(rows) or refusals.all():
            voted[rows] = kinds[refusals][counts[refusals].argmax()]
        else:
            voted[rows] = kinds[~refusals][counts[~refusals].argmax()]
    return voted


def over_cluster(vectors: np.ndarray, rng: int) -> np.ndarray:
    """(n,) small clusters of cells, by k-means on the unit sphere."""
    from sklearn.cluster import MiniBatchKMeans

    n_clusters = int(np.clip(len(vectors) // CELLS_PER_CLUSTER, 1, 1000))
    return MiniBatchKMeans(n_clusters, random_state=rng, n_init=3, batch_size=4096).fit_predict(unit(vectors))
