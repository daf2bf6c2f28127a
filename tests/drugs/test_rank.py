"""One group beside another: effects, tests where units are replicates, intervals that cover."""

import numpy as np
import pytest
from scipy import stats

from scellm.drugs import _rank
from scellm.drugs._rank import Moments, compare_cells, compare_samples, moments_of


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def samples(means: np.ndarray) -> Moments:
    """A cell in each sample that is not NaN."""
    known = np.isfinite(means).all(1)
    values = np.where(known[:, None], means, 0)
    return Moments(known.astype(float), values, values**2, np.zeros(means.shape[1]))


def test_moments_are_sums_over_cohorts_block_by_block(rng, monkeypatch):
    values, codes = rng.normal(5, 1, (50, 3)), rng.integers(-1, 4, 50)
    values[3, 1] = np.nan
    monkeypatch.setattr(_rank, "ROWS_PER_BLOCK", 7)
    found = moments_of(values, codes, 4)
    for cohort in range(4):
        here = values[(codes == cohort) & np.isfinite(values).all(1)]
        assert found.n[cohort] == len(here)
        np.testing.assert_allclose(found.sums[cohort] + len(here) * found.center, here.sum(0))
        np.testing.assert_allclose(found.squares[cohort], ((here - found.center) ** 2).sum(0))


def test_an_unpaired_test_is_that_of_welch(rng):
    a, b = np.full((2, 10, 3), np.nan)
    a[:5], b[5:] = rng.normal(0, 1, (5, 3)), rng.normal(1, 2, (5, 3))
    found = compare_samples(samples(a), samples(b), level=0.9)
    expected = stats.ttest_ind(a[:5], b[5:], equal_var=False)
    np.testing.assert_allclose(found.p_value, expected.pvalue)
    interval = expected.confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], interval)
    assert found.n_units == (5, 5)


def test_three_samples_of_both_kinds_are_compared_in_pairs(rng):
    a, b = rng.normal(0, 1, (2, 5, 3))
    b[3:] = np.nan
    found = compare_samples(samples(a), samples(b), level=0.95)
    np.testing.assert_allclose(found.p_value, stats.ttest_rel(a[:3], b[:3]).pvalue)
    assert found.n_units == (3, 3)


def test_cells_are_compared_without_a_test(rng):
    a, b = rng.normal(0, 1, (40, 3)), rng.normal(1, 2, (30, 3))
    moments = moments_of(np.concatenate([a, b]), np.repeat([0, 1], [40, 30]), 2)
    found = compare_cells(moments.added(np.array([[1, 0]])), moments.added(np.array([[0, 1]])), level=0.9)
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], interval)
    np.testing.assert_allclose(found.effect, a.mean(0) - b.mean(0))
    assert np.isnan(found.p_value).all()


def test_what_is_no_replicate_has_an_effect_only(rng):
    found = compare_samples(
        samples(rng.normal(size=(4, 2))), samples(rng.normal(size=(4, 2))), level=0.9, with_test=False
    )
    assert np.isfinite(found.effect).all()
    assert np.isnan([found.low, found.high, found.p_value]).all()


def test_predictions_that_do_not_vary_have_no_p_value(rng):
    a, b = rng.normal(0, 1, (2, 5, 3))
    a[:, 0], b[:, 0] = 1.7, 2.3
    found = compare_samples(samples(a), samples(b), level=0.9)
    assert np.isnan([found.p_value[0], found.low[0]]).all()
    assert np.isfinite(found.p_value[1:]).all()
    assert found.effect[0] == pytest.approx(-0.6)


@pytest.mark.parametrize("n", [3, 5, 12], ids="{}donors".format)
def test_nine_in_ten_intervals_hold_the_truth(rng, n):
    found = compare_samples(
        samples(rng.normal(1, 1, (n, 4000))), samples(rng.normal(0, 1, (n, 4000))), level=0.9
    )
    assert 0.88 < ((found.low <= 1) & (found.high >= 1)).mean() < 0.92
