"""The majority of a cluster, and when a refusal is one."""

import numpy as np
import pytest

from scellm.annotation._vote import over_cluster, vote


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([1, 1, 0], 1),
        ([0, 1], 0),
        ([1, -1, 1, -1, 0], 1),
        ([0, -1, -1], -1),
        ([0, -2, -2, -1], -2),
        ([2, -2], 2),
        ([-1], -1),
    ],
    ids=str,
)
def test_vote(codes, expected):
    assert vote(np.array(codes), np.zeros(len(codes))).tolist() == [expected] * len(codes)


def test_clusters_do_not_mix():
    assert vote(np.array([0, 1, 1, 2, 2, 2]), np.array(list("aabbbb"))).tolist() == [0, 0, 2, 2, 2, 2]


def test_small_clusters_of_like_cells():
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(3), 100, axis=0) + 0.05 * rng.normal(size=(300, 3))
    clusters = over_cluster(vectors.astype(np.float32), 0)
    assert 3 <= len(np.unique(clusters)) <= 6
    assert all(len({i // 100 for i in np.flatnonzero(clusters == c)}) == 1 for c in np.unique(clusters))
    assert len(over_cluster(vectors[:3].astype(np.float32), 0)) == 3
