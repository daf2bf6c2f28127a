"""One group beside another: effects, tests where units are replicates, silence of libraries."""

import warnings

import numpy as np
import pytest
from scipy import stats

from scellm.drugs._rank import compare, units_of


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sides(rng, n=5, n_drugs=3):
    return [dict(enumerate(rng.normal(i, 1, (n, n_drugs)), start=10 * i)) for i in range(2)]


def test_units_are_means_over_samples():
    values = np.arange(8.0).reshape(4, 2)
    inside, samples = np.array([True, True, True, False]), np.array([0, 0, -1, 1])
    (unit,) = units_of(values, inside, samples).items()
    assert unit[0] == 0
    np.testing.assert_array_equal(unit[1], [1, 2])
    assert len(units_of(values, inside, None)) == 3


def test_an_unpaired_test_is_that_of_welch(rng):
    a, b = sides(rng)
    found = compare(a, b, n_bootstraps=50, with_test=True, rng=rng)
    A, B = np.array(list(a.values())), np.array(list(b.values()))
    np.testing.assert_allclose(found.p_value, stats.ttest_ind(A, B, equal_var=False).pvalue)
    np.testing.assert_allclose(found.effect, A.mean(0) - B.mean(0))
    assert ((found.low < found.effect) & (found.effect < found.high)).all()
    assert found.n_units == (5, 5)


def test_what_is_no_replicate_is_not_resampled(rng):
    a, b = sides(rng)
    before = rng.bit_generator.state
    found = compare(a, b, n_bootstraps=0, with_test=True, rng=rng)
    assert np.isfinite(found.effect).all()
    assert np.isnan([found.low, found.high, found.p_value]).all()
    assert rng.bit_generator.state == before


def test_predictions_that_do_not_vary_have_no_p_value_and_no_warning(rng):
    a, b = sides(rng)
    for side, value in ((a, 1.7), (b, 2.3)):
        for unit in side:
            side[unit][0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(a, b, n_bootstraps=20, with_test=True, rng=rng)
    assert np.isnan(found.p_value[0])
    assert np.isfinite(found.p_value[1:]).all()
    assert found.effect[0] == pytest.approx(-0.6)
