import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from scellm.metrics import neighbor_score


@pytest.fixture
def blobs():
    """Three overlapping directions of 30, 40 and 50 cells, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [30, 40, 50])
    centres = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [0.4, 0.8, 0, 0]}
    return np.array([centres[label] for label in labels]) + rng.normal(0, 0.35, (120, 4)), labels


def slow_macro_f1(vectors, labels, n_neighbors, n_folds, seed):
    """The same by loops over cells."""
    predicted = np.empty(len(labels), dtype=object)
    for train, test in StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(vectors, labels):
        for i in test:
            cosine = (
                vectors[train]
                @ vectors[i]
                / np.linalg.norm(vectors[train], axis=1)
                / np.linalg.norm(vectors[i])
            )
            votes = labels[train][np.argsort(-cosine)[:n_neighbors]]
            names, counts = np.unique(votes, return_counts=True)
            predicted[i] = names[counts.argmax()]
    return f1_score(labels, predicted.astype(str), average="macro")


@pytest.mark.parametrize("n_neighbors", [1, 15])
def test_is_the_vote_of_the_nearest_by_cosine(blobs, n_neighbors):
    vectors, labels = blobs
    score = neighbor_score(vectors, labels, n_neighbors=n_neighbors)
    assert score.macro_f1 == pytest.approx(slow_macro_f1(vectors, labels, n_neighbors, 5, 0), abs=1e-12)
    assert 0.5 < score.macro_f1 < 0.98
    assert score.macro_f1 == pytest.approx(np.mean(list(score.f1.values())))


def test_lengths_of_vectors_do_not_count(blobs):
    vectors, labels = blobs
    scales = np.random.default_rng(1).uniform(0.1, 10, (120, 1))
    assert neighbor_score(vectors * scales, labels).f1 == neighbor_score(vectors, labels).f1


def test_separated_types_score_one_and_shuffled_labels_chance(blobs):
    _, labels = blobs
    apart = pd.get_dummies(pd.Series(labels)).to_numpy(dtype=float)
    assert neighbor_score(apart, labels).macro_f1 == 1
    shuffled = np.random.default_rng(0).permutation(labels)
    assert (
        neighbor_score(apart + np.random.default_rng(0).normal(0, 1e-3, apart.shape), shuffled).macro_f1 < 0.5
    )


def test_small_types_and_unlabelled_cells_are_counted(blobs):
    vectors, labels = blobs
    labels = labels.astype(object)
    labels[:22] = None
    score = neighbor_score(vectors, pd.Series(labels))
    assert score.left_out == {"a": 8}
    assert score.n_unlabeled == 22
    assert score.n_cells == 90
    assert set(score.f1) == {"b", "c"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, n: (v[:-1], n), r"shape \(119, 4\) for 120 labels"),
        (
            lambda v, n: (np.where(np.arange(120)[:, None] < 2, np.nan, v), n),
            "2 of 120 vectors are not finite",
        ),
        (lambda v, n: (v, np.repeat("a", 120)), "1 of 1 types have at least 10 cells"),
    ],
    ids=["lengths", "nan", "one-type"],
)
def test_unusable_input(blobs, change, message):
    with pytest.raises(ValueError, match=message):
        neighbor_score(*change(*blobs))


def test_more_folds_than_cells(blobs):
    with pytest.raises(ValueError, match="min_cells is 3: with 5 folds a type needs at least 5 cells"):
        neighbor_score(*blobs, min_cells=3)
