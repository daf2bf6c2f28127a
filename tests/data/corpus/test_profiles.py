import importlib.util
from pathlib import Path

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location(
    "_profiles", Path(__file__).parents[2] / "benchmarks" / "_profiles.py"
)
_profiles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_profiles)
draw_counts = _profiles.draw_counts


def test_means_depths_and_spread_are_those_asked_for():
    profiles = np.array([[10.0, 5, 0, 1], [0, 1, 1, 0]])
    counts = draw_counts(
        profiles, 4000, rng=np.random.default_rng(0), depth=500, depth_spread=0.1, dispersion=(0.5, 0.5)
    ).toarray()
    assert counts.shape == (8000, 4)
    assert (counts == np.rint(counts)).all()
    first, second = counts[:4000], counts[4000:]
    assert np.median(first.sum(1)) == pytest.approx(500, rel=0.02)
    assert (first[:, 2] == 0).all()
    assert (second[:, [0, 3]] == 0).all()
    np.testing.assert_allclose((second / second.sum(1, keepdims=True)).mean(0), [0, 0.5, 0.5, 0], atol=0.01)
    # the ratio of two independent gammas of shape 2 has a wide spread; with little dispersion it is narrow
    tight = draw_counts(profiles, 500, rng=np.random.default_rng(0), dispersion=(1e-3, 1e-3)).toarray()[500:]
    assert (tight[:, 1] / tight.sum(1)).std() < 0.03 < (second[:, 1] / second.sum(1)).std()


def test_same_seed_same_cells():
    profiles = np.random.default_rng(1).random((3, 50))
    first, again = (draw_counts(profiles, 5, rng=np.random.default_rng(2)) for _ in range(2))
    assert (first != again).nnz == 0


@pytest.mark.parametrize(
    "bad", [[[0.0, 0.0]], [[1.0, -1.0]], [[np.nan, 1.0]]], ids=["empty", "negative", "nan"]
)
def test_refused(bad):
    with pytest.raises(ValueError, match="Profiles are mean expression"):
        draw_counts(np.array(bad), 2, rng=np.random.default_rng(0))
