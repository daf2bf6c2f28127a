"""Sets miss the truth no more often than asked."""

import numpy as np
import pytest

from scellm.metrics._calibration import softmax
from scellm.metrics._conformal import (
    balance,
    conformal_threshold,
    nonconformity,
    prediction_sets,
    score_quantiles,
)


def draw(n, rng, *, sharpness=1.0):
    """Cells with probabilities that are not calibrated unless `sharpness` is 1."""
    logits = rng.normal(0, 1.5, (n, 5))
    truth = (rng.random((n, 1)) > softmax(logits).cumsum(1)).sum(1).clip(max=4)
    return softmax(logits * sharpness), truth


def threshold_of(probabilities, truth, error):
    scores = nonconformity(probabilities, truth)
    return conformal_threshold(score_quantiles(scores, np.ones(len(scores))), len(scores), error)


@pytest.mark.parametrize("error", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("sharpness", [0.3, 1, 5], ids="sharpness {}".format)
def test_coverage_is_as_asked_however_wrong_the_probabilities(error, sharpness):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(40):
        probabilities, truth = draw(300, rng, sharpness=sharpness)
        threshold = threshold_of(probabilities, truth, error)
        new, new_truth = draw(300, rng, sharpness=sharpness)
        covered.append(prediction_sets(new, threshold)[np.arange(300), new_truth].mean())
    assert 1 - error - 0.01 <= np.mean(covered) <= 1 - error + 0.03


def test_control_probability_mass_alone_does_not_cover():
    """Without held-out cells, classes up to 90 % of the (overconfident) probability miss far more often."""
    probabilities, truth = draw(3000, np.random.default_rng(0), sharpness=5)
    sets = 1 - probabilities <= 0.9
    assert sets[np.arange(3000), truth].mean() < 0.8


def test_threshold_is_the_order_statistic():
    scores = np.random.default_rng(0).random(199)
    quantiles = score_quantiles(scores, np.ones(199))
    exact = np.sort(scores)[int(np.ceil(200 * 0.9)) - 1]
    found = conformal_threshold(quantiles, 199, 0.1)
    assert exact <= found <= np.sort(scores)[int(np.ceil(200 * 0.9)) + 1]  # never smaller


def test_few_cells_cannot_support_a_small_error():
    scores = np.linspace(0, 1, 9)
    quantiles = score_quantiles(scores, np.ones(9))
    assert conformal_threshold(quantiles, 9, 0.05) == np.inf
    assert conformal_threshold(quantiles, 9, 0.1) == 1.0
    assert prediction_sets(np.array([[0.2, 0.8]]), np.inf).all()


def test_no_set_is_empty():
    sets = prediction_sets(np.array([[0.4, 0.35, 0.25], [0.9, 0.1, 0.0]]), 0.05)
    assert sets.tolist() == [[True, False, False], [True, False, False]]


def test_groups_weigh_the_same():
    weights = balance(np.array(["a"] * 9 + ["b"]), 10)
    assert weights[:9].sum() == pytest.approx(weights[9]) == pytest.approx(5)
    assert balance(None, 3).tolist() == [1, 1, 1]
    scores = np.array([0.0] * 9 + [1.0])
    assert score_quantiles(scores, weights)[600] == 1.0
    assert score_quantiles(scores, np.ones(10))[600] == 0.0  # control: without groups
