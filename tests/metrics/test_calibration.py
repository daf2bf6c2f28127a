"""Calibration error and temperature are what their definitions say."""

import numpy as np
import pytest

from scellm.metrics import expected_calibration_error
from scellm.metrics._calibration import fit_temperature, softmax


@pytest.fixture
def cells():
    """Logits of 3,000 cells, and truth drawn from their own probabilities: calibrated by construction."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3000, 4))
    cumulative = softmax(logits).cumsum(1)
    return logits, (rng.random((3000, 1)) > cumulative).sum(1).clip(max=3)


def by_loop(probabilities, truth, n_bins):
    """The definition, bin by bin."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    total = 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_error_is_the_definition(cells, n_bins):
    probabilities, truth = softmax(cells[0] * 3), cells[1]
    found = expected_calibration_error(probabilities, truth, n_bins=n_bins)
    assert found == pytest.approx(by_loop(probabilities, truth, n_bins), abs=1e-12)


def test_calibrated_cells_have_little_error_and_others_much(cells):
    logits, truth = cells
    assert expected_calibration_error(softmax(logits), truth) < 0.03
    assert expected_calibration_error(softmax(logits * 4), truth) > 0.15


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 4.0])
def test_temperature_undoes_a_scale(cells, sharpness):
    logits, truth = cells
    temperature = fit_temperature(logits * sharpness, truth)
    assert temperature == pytest.approx(sharpness, rel=0.1)


def test_temperature_of_weighted_cells(cells):
    logits, truth = cells
    half = len(truth) // 2
    mixed = np.concatenate([logits[:half] * 4, logits[half:]])
    weights = np.concatenate([np.zeros(half), np.ones(len(truth) - half)])
    assert fit_temperature(mixed, truth, weights) == pytest.approx(1, rel=0.15)
    assert fit_temperature(mixed, truth) > 1.3  # control


def test_impossible_classes_are_no_trouble():
    logits = np.array([[0.0, 1.0, -np.inf], [2.0, 0.0, -np.inf]])
    assert np.isfinite(fit_temperature(logits, np.array([1, 0])))
    assert (softmax(logits)[:, 2] == 0).all()


def test_faulty_input():
    with pytest.raises(ValueError, match=r"Probabilities have shape \(2, 2\), the truth \(3,\)"):
        expected_calibration_error([[0.5, 0.5], [1, 0]], [0, 1, 1])
    with pytest.raises(ValueError, match="these look like scores"):
        expected_calibration_error([[3.0, -2.0]], [0])
    assert np.isnan(expected_calibration_error(np.zeros((0, 2)), []))
