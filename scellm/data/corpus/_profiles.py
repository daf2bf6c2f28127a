"""Cells drawn around mean profiles of cell types."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

ROWS_AT_ONCE = 256


def draw_counts(
    profiles: np.ndarray,
    n_per_profile: int,
    *,
    rng: np.random.Generator,
    depth: float = 3000.0,
    depth_spread: float = 0.5,
    dispersion: tuple[float, float] = (0.2, 1.0),
) -> sp.csr_array:
    """Draw counts of single cells around mean profiles (ours), for training only.

    Gene by gene a gamma around the mean with a dispersion drawn per cell, then Poisson counts at a depth that is
    log-normal over cells: right means, but genes vary independently, which those of a real cell do not.

    Parameters
    ----------
    profiles
        (n_profiles, n_genes) linear expression, any scale.
    n_per_profile
        Cells of each.
    rng
        Source of randomness.
    depth, depth_spread
        Median number of counts, and the spread of its logarithm.
    dispersion
        Range of the squared coefficient of variation of a gene.

    Returns
    -------
    (n_profiles * n_per_profile, n_genes) whole numbers, the cells of one profile together.

    Raises
    ------
    ValueError
        A profile that is negative, not finite or empty.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    totals = profiles.sum(1)
    if not (np.isfinite(profiles).all() and (profiles >= 0).all() and (totals > 0).all()):
        msg = "Profiles are mean expression at linear scale: finite, not negative, and each with an expressed gene."
        raise ValueError(msg)
    share = profiles / totals[:, None]
    origin = np.repeat(np.arange(len(profiles)), n_per_profile)
    blocks = []
    for start in range(0, len(origin), ROWS_AT_ONCE):
        rows = origin[start : start + ROWS_AT_ONCE]
        shape = 1 / rng.uniform(*dispersion, size=(len(rows), 1))
        where = share[rows] > 0
        mean = np.zeros(where.shape)
        mean[where] = share[rows][where] * rng.standard_gamma(np.broadcast_to(shape, where.shape)[where])
        mean *= rng.lognormal(np.log(depth), depth_spread, (len(rows), 1)) / np.maximum(
            mean.sum(1, keepdims=True), 1e-12
        )
        counts = np.zeros(where.shape, dtype=np.float32)
        counts[where] = rng.poisson(mean[where])
        blocks.append(sp.csr_array(counts))
    return sp.csr_array(sp.vstack(blocks, format="csr"))
