"""The baselines are real, are trained on the training cells alone, and the summary follows the numbers."""

import importlib.util

import numpy as np
import pytest
import scanpy as sc

import scellm
from scellm.metrics import _baselines as baselines_file
from scellm.metrics import compare_baselines

QUICK = ["logistic", "pca_knn"]


@pytest.fixture(scope="module")
def cells():
    adata = scellm.datasets.toy_cells(200, n_vars=600)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


PARTS = {"train": np.arange(120), "val": np.arange(120, 150), "test": np.arange(150, 200)}


def right(cells, share=1.0):
    """Probabilities that name the true class of a share of the test cells."""
    codes = np.unique(cells.obs["cell_type"].astype(str)[150:], return_inverse=True)[1]
    wrong = np.random.default_rng(0).random(50) > share
    return np.eye(4)[np.where(wrong, (codes + 1) % 4, codes)]


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_scores_are_those_of_scikit_learn(cells, dense):
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    X = cells.X.toarray() if dense else cells.X
    found = compare_baselines(X, cells.obs["cell_type"], **PARTS, methods=QUICK)
    truth = cells.obs["cell_type"].astype(str).to_numpy()[150:]
    classes = found.per_class.columns.to_numpy()
    for name, row in found.table.iterrows():
        predicted = classes[found.probabilities[name].argmax(1)]
        assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
        assert row["seconds"] > 0
        assert found.per_class.loc[name].mean() == pytest.approx(row["macro_f1"])
        np.testing.assert_allclose(found.probabilities[name].sum(1), 1, rtol=1e-6)
    assert found.table.loc["logistic", "macro_f1"] > 0.95


def test_test_cells_play_no_part_in_training(cells):
    changed = cells.X.toarray()
    changed[150:] = changed[150:][::-1]
    same = compare_baselines(changed, cells.obs["cell_type"], **PARTS, methods=QUICK)
    found = compare_baselines(cells.X, cells.obs["cell_type"], **PARTS, methods=QUICK)
    for name in QUICK:
        np.testing.assert_allclose(
            same.probabilities[name][::-1], found.probabilities[name], rtol=1e-4, atol=1e-6
        )


def test_shuffled_labels_are_not_learnt(cells):
    labels = np.random.default_rng(0).permutation(cells.obs["cell_type"].astype(str))
    found = compare_baselines(cells.X, labels, **PARTS, methods=QUICK)
    assert found.table["macro_f1"].max() < 0.5


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, r"mine \(1.000\) is (about as good as|better than) the best baseline"),
        (0.5, r"A simple baseline is better here: logistic regression.*method='logistic'"),
    ],
    ids=["good", "bad"],
)
def test_verdict_follows_the_numbers(cells, share, text):
    import re

    found = compare_baselines(
        cells.X, cells.obs["cell_type"], **PARTS, methods=QUICK, predictions={"mine": right(cells, share)}
    )
    assert re.search(text, found.summary)
    assert found.table["macro_f1"].is_monotonic_decreasing
    assert np.isnan(found.table.loc["mine", "seconds"])


def test_class_that_training_lacks_counts_as_missed(cells):
    labels = cells.obs["cell_type"].astype(str).to_numpy().copy()
    labels[160:165] = "rare/one"
    found = compare_baselines(cells.X, labels, **PARTS, methods=["logistic"])
    assert found.per_class.loc["logistic", "rare/one"] == 0


def test_masks_are_rows(cells):
    mask = {name: np.isin(np.arange(200), rows) for name, rows in PARTS.items()}
    a = compare_baselines(cells.X, cells.obs["cell_type"], **mask, methods=["logistic"])
    b = compare_baselines(cells.X, cells.obs["cell_type"], **PARTS, methods=["logistic"])
    assert np.array_equal(a.probabilities["logistic"], b.probabilities["logistic"])


@pytest.mark.skipif(importlib.util.find_spec("celltypist") is None, reason="celltypist is not installed")
def test_celltypist(cells):
    found = compare_baselines(
        cells.X, cells.obs["cell_type"], **PARTS, methods=["celltypist"], gene_names=cells.var_names
    )
    assert found.table.loc["celltypist", "macro_f1"] > 0.6


def test_absent_celltypist_is_named(cells, monkeypatch):
    monkeypatch.setattr(baselines_file.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'scellm\[celltypist\]'"):
        compare_baselines(cells.X, cells.obs["cell_type"], **PARTS, methods=["celltypist"])
    monkeypatch.setattr(baselines_file, "METHODS", ("logistic", "celltypist"))
    assert (
        "not installed" in compare_baselines(cells.X, cells.obs["cell_type"], **PARTS).left_out["celltypist"]
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"test": [0, 150]}, r"1 rows are in two of train, val and test"),
        ({"test": []}, r"test has no cells"),
        ({"methods": ["forest"]}, r"Unknown baselines \['forest'\]; choose from"),
        ({"predictions": {"mine": np.ones((3, 4))}}, r"'mine' have shape \(3, 4\); need \(50, 4\)"),
        ({"predictions": {"logistic": np.ones((50, 4)) / 4}}, r"have the name of a baseline"),
    ],
    ids=["overlap", "empty", "method", "shape", "name"],
)
def test_faulty_options(cells, change, text):
    options = {**PARTS, "methods": ["logistic"], **change}
    with pytest.raises(ValueError, match=text):
        compare_baselines(cells.X, cells.obs["cell_type"], **options)


def test_faulty_values(cells):
    with pytest.raises(ValueError, match=r"goes up to .*sc.pp.normalize_total"):
        compare_baselines(np.expm1(cells.X.toarray()), cells.obs["cell_type"], **PARTS, methods=QUICK)
    with pytest.raises(ValueError, match=r"There is one class, 'a'"):
        compare_baselines(cells.X, ["a"] * 200, **PARTS, methods=QUICK)
    with pytest.raises(ValueError, match=r"for 3 labels"):
        compare_baselines(cells.X, ["a", "b", "a"], **PARTS, methods=QUICK)
