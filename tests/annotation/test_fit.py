"""Fitted, chosen and calibrated on held-out cells; what is drawn, and what is stored."""

import numpy as np
import pytest

from scellm.annotation._annotator import Annotator
from scellm.annotation._fit import (
    METHODS,
    draw_evenly,
    fit_annotator,
    fit_one,
    folds,
    logistic_regression,
)


def clouds(n=240, n_classes=3, spread=1.0, rng=0):
    """Vectors around one center per class, and their classes."""
    rng = np.random.default_rng(rng)
    codes = np.arange(n) % n_classes
    centres = 2 * np.eye(n_classes, 8)
    return (centres[codes] + spread * rng.normal(size=(n, 8))).astype(np.float32), codes


CLASSES = ["a", "b/c", "ü"]


@pytest.mark.parametrize("method", METHODS)
def test_stored_annotator_says_the_same(method):
    vectors, codes = clouds()
    annotator = fit_annotator(vectors, codes, CLASSES, method=method)
    again = Annotator.from_part(annotator.to_part())
    new, _ = clouds(rng=1)
    np.testing.assert_allclose(again.probabilities(new), annotator.probabilities(new), atol=5e-3)
    np.testing.assert_allclose(again.outlier_score(new), annotator.outlier_score(new), rtol=2e-2, atol=2e-2)
    assert again.classes == CLASSES
    assert again.threshold(0.1) == annotator.threshold(0.1)


@pytest.mark.parametrize(("lead", "chosen"), [(0.01, "linear"), (0.05, "knn")], ids="lead {}".format)
def test_auto_leaves_the_linear_classifier_only_for_a_clear_lead(monkeypatch, lead, chosen):
    from scellm.annotation import _fit as _fit_annotator

    scores = iter([0.9, 0.8, 0.9 + lead])  # linear, prototype, knn
    monkeypatch.setattr(_fit_annotator, "macro_f1", lambda *_: next(scores, 0.0))
    vectors, codes = clouds(60)
    assert fit_annotator(vectors, codes, CLASSES).report["method"] == chosen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spread", [0.7, 1.5], ids="spread {}".format)
def test_confidence_and_sets_hold_for_new_cells(method, spread):
    from scellm.metrics import expected_calibration_error

    vectors, codes = clouds(600, spread=spread)
    annotator = fit_annotator(vectors, codes, CLASSES, method=method)
    new, truth = clouds(3000, spread=spread, rng=1)
    probabilities = annotator.probabilities(new)
    assert expected_calibration_error(probabilities, truth) < 0.06
    for error in (0.05, 0.2):
        covered = annotator.sets(probabilities, error)[np.arange(3000), truth].mean()
        assert covered >= 1 - error - 0.03
        assert annotator.report["coverage"][str(error)] == pytest.approx(covered, abs=0.06)
    assert annotator.report["ece_after"] < 0.1


@pytest.mark.parametrize("false_alarm", [0.05, 0.2])
def test_novelty_alarms_as_often_as_asked_on_new_cells_and_on_others_nearly_always(false_alarm):
    vectors, codes = clouds(900, spread=0.5)
    annotator = fit_annotator(vectors, codes, CLASSES)
    same, _ = clouds(900, spread=0.5, rng=1)
    other = same - 4 * np.eye(8)[7].astype(np.float32)
    rates = [
        (annotator.novelty_scores(annotator.outlier_score(x), false_alarm) > 1).mean() for x in (same, other)
    ]
    assert rates[0] == pytest.approx(false_alarm, abs=0.05)
    assert rates[1] > 0.95


def test_groups_that_differ_lower_what_is_claimed():
    """Donors shifted against each other: held-out cells flatter, held-out donors do not."""
    vectors, codes = clouds(400, spread=0.4)
    donors = np.arange(400) // 100
    vectors = vectors + 1.5 * np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)[donors]
    by_cell = fit_annotator(vectors, codes, CLASSES, method="linear").report
    by_donor = fit_annotator(vectors, codes, CLASSES, method="linear", groups=donors).report
    assert by_donor["macro_f1"] < by_cell["macro_f1"] - 0.1
    assert (by_donor["held_out"], by_donor["n_groups"]) == ("groups", 4)


def test_groups_are_whole_in_each_fold():
    codes, groups = np.arange(60) % 3, np.arange(60) // 6
    found = list(folds(codes, groups, 5, 0))
    assert len(found) == 5
    assert all(not set(groups[train]) & set(groups[test]) for train, test in found)
    assert sorted(np.concatenate([test for _, test in found])) == list(range(60))


def test_class_of_one_group_is_reported():
    vectors, codes = clouds(120)
    groups = np.where(codes == 2, "only here", np.array(["x", "y"])[np.arange(120) // 60])
    report = fit_annotator(vectors, codes, CLASSES, groups=groups).report
    assert report["never_held_out"] == ["ü"]
    assert report["coverage_by_class"]["0.1"][2] == -1


def test_too_few_groups():
    vectors, codes = clouds(60)
    with pytest.raises(ValueError, match="There is one group"):
        fit_annotator(vectors, codes, CLASSES, groups=np.zeros(60))
    with pytest.raises(ValueError, match="Every class is in one group alone"):
        fit_annotator(vectors, codes, CLASSES, groups=codes)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_regression_is_that_of_scikit_learn(n_classes):
    from sklearn.linear_model import LogisticRegression

    vectors, codes = clouds(n_classes=n_classes)
    weight, bias = logistic_regression(vectors, codes, n_classes + 1)
    fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200, tol=1e-3).fit(vectors, codes)
    logits = vectors @ weight.T + bias
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    np.testing.assert_allclose(share[:, :n_classes], fitted.predict_proba(vectors), atol=1e-5)
    assert (share[:, n_classes] == 0).all()  # a class without cells


@pytest.mark.parametrize("n", [10, 60, 61, 200])
def test_cells_are_drawn_evenly_over_classes(n):
    codes = np.repeat([0, 1, 2], [100, 30, 5])
    rows = draw_evenly(codes, n, 0)
    counts = np.bincount(codes[rows], minlength=3)
    limit = counts.max()
    assert len(rows) <= n
    assert counts.tolist() == np.minimum([100, 30, 5], limit).tolist()
    if n < 135:
        assert np.minimum([100, 30, 5], limit + 1).sum() > n  # no more would fit


def test_distances_are_those_of_a_loop():
    vectors, codes = clouds(50)
    annotator = fit_one("knn", vectors, codes, CLASSES)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    new = clouds(7, rng=3)[0]
    spread = [np.sort(1 - unit @ x)[1:6].mean() for x in unit]
    for cell, found in zip(new, annotator.outlier_score(new), strict=True):
        distance = 1 - unit @ (cell / np.linalg.norm(cell))
        near = np.argsort(distance)[:5]
        expected = distance[near].mean() / np.sqrt(np.mean([spread[i] for i in near]))
        assert found == pytest.approx(expected, rel=1e-4)
