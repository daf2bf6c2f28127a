"""What the nearest cells of the same data say of a cell's type."""

import dataclasses

import numpy as np
import pytest

from scellm.annotation._annotator import Annotator
from scellm.annotation._decide import Thresholds, decide
from scellm.annotation._fit import fit_one
from scellm.annotation._neighbors import MOST_CELLS, Neighborhood
from scellm.annotation._smoothing import Smoothing
from scellm.metrics._calibration import softmax
from scellm.models._limits import part_problem

N, K, F = 60, 3, 8
NEIGHBORS = Thresholds(ask_neighbors=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def groups():
    return np.arange(N) % K


@pytest.fixture
def vectors(rng, groups):
    """Three groups that lie far apart."""
    return (4 * np.eye(K, F)[groups] + 0.3 * rng.normal(size=(N, F))).astype(np.float32)


@pytest.fixture
def own(rng):
    return softmax(rng.normal(size=(N, K))).astype(np.float32)


@pytest.fixture
def smoothing():
    return Smoothing(n_neighbors=4, weight=0.5, temperature=1.0, path_errors=np.linspace(0, 1, 1001))


@pytest.fixture
def annotator(vectors, groups, smoothing):
    found = fit_one("linear", vectors, groups, ["a", "b", "c"])
    found.smoothing = smoothing
    return found


def neighborhood(vectors, own, smoothing):
    return Neighborhood.of(vectors, np.ones(len(vectors), bool), smoothing, lambda rows: own[rows])


def test_mean_is_over_the_nearest_other_cells(vectors, own, smoothing):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = ((unit[:, None] - unit[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :4]
    found = neighborhood(vectors, own, smoothing).around(vectors, np.arange(N))
    np.testing.assert_allclose(found, own[nearest].mean(axis=1), rtol=1e-5)


def test_a_lone_mistake_is_corrected_by_its_neighbors(vectors, groups, smoothing):
    own = np.full((N, K), 0.05, np.float32)
    own[np.arange(N), groups] = 0.9
    own[0] = [0.3, 0.6, 0.1]  # of group 0
    found = neighborhood(vectors, own, smoothing).smooth(own, vectors, np.arange(N))
    assert (found.argmax(axis=1) == groups).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    expected = np.sqrt([0.3 * 0.9, 0.6 * 0.05, 0.1 * 0.05])
    np.testing.assert_allclose(found[0], expected / expected.sum(), rtol=1e-3)


def test_without_weight_nothing_changes(vectors, own, smoothing):
    none = dataclasses.replace(smoothing, weight=0.0)
    found = neighborhood(vectors, own, none).smooth(own, vectors, np.arange(N))
    np.testing.assert_allclose(found, own, atol=1e-6)


def test_no_more_than_a_tenth_of_the_cells_are_neighbors(vectors, own, smoothing):
    many = dataclasses.replace(smoothing, n_neighbors=15)
    assert neighborhood(vectors, own, many).n_neighbors == 6
    assert neighborhood(vectors[:9], own[:9], many) is None


def test_of_many_cells_some_are_looked_among(rng, smoothing):
    n = MOST_CELLS + 500
    vectors = rng.normal(size=(n, F)).astype(np.float32)
    own = softmax(rng.normal(size=(n, K))).astype(np.float32)
    found = neighborhood(vectors, own, smoothing)
    assert len(found.rows) == MOST_CELLS
    left_out = np.setdiff1d(np.arange(n), found.rows)
    around = found.around(vectors[left_out], left_out)
    np.testing.assert_allclose(around.sum(axis=1), 1, rtol=1e-4)


def test_empty_cells_are_no_neighbors(annotator, vectors):
    vectors = vectors.copy()
    vectors[::5] = np.nan
    found = decide(annotator, vectors, NEIGHBORS, is_shifted=False)
    alone = decide(annotator, vectors, Thresholds(), is_shifted=False)
    assert found.is_empty.sum() == 12
    assert np.isfinite(found.probabilities[~found.is_empty]).all()
    assert np.isnan(found.probabilities[found.is_empty]).all()
    assert np.abs(found.probabilities - alone.probabilities)[~found.is_empty].max() > 1e-4


def test_order_of_the_cells_does_not_matter(annotator, vectors, rng):
    order = rng.permutation(N)
    found, shuffled = (
        decide(annotator, x, NEIGHBORS, is_shifted=False).probabilities for x in (vectors, vectors[order])
    )
    np.testing.assert_allclose(shuffled, found[order], rtol=1e-3, atol=1e-6)


def test_survives_a_part(annotator, vectors):
    part = annotator.to_part()
    assert part_problem("reference", part.tensors, part.meta) is None
    back = Annotator.from_part(part)
    assert back.smoothing.to_meta() == annotator.smoothing.to_meta()
    expected = decide(annotator, vectors, NEIGHBORS, is_shifted=False)
    found = decide(back, vectors, NEIGHBORS, is_shifted=False)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"n_neighbors": 0}, "n_neighbors is 0"),
        ({"weight": 2.0}, "weight of its neighbors is 2.0"),
        ({"temperature": 0.0}, "temperature of its neighbors is 0.0"),
        ({"more": 1}, "its neighbors are not"),
    ],
)
def test_damaged_parts_are_refused(annotator, changed, problem):
    part = annotator.to_part()
    part.meta["neighbors"] |= changed
    assert problem in part_problem("reference", part.tensors, part.meta)


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="weigh 0 to 1"):
        Smoothing(n_neighbors=5, weight=1.5, temperature=1.0)


def test_own_probabilities_that_are_known_are_not_made_again(vectors, own, smoothing):
    found, asked = neighborhood(vectors[:50], own[:50], smoothing), []

    def again(rows):
        asked.append(rows.tolist())
        return own[rows]

    np.testing.assert_array_equal(found.own(np.array([3, 7]), again), own[[3, 7]])
    assert asked == []
    np.testing.assert_array_equal(found.own(np.array([3, 55]), again), own[[3, 55]])
    assert asked == [[3, 55]]
