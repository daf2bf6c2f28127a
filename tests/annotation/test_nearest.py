"""The largest values of rows, by groups of columns."""

import numpy as np
import pytest

from scellm.annotation._nearest import largest, means_of


@pytest.mark.parametrize(("n_columns", "k"), [(3, 3), (40, 5), (161, 5), (1_003, 5), (4_001, 15)])
def test_largest_values_are_those_of_sorting(n_columns, k):
    values = np.random.default_rng(n_columns).normal(size=(9, n_columns)).astype(np.float32)
    found, columns = largest(values, k)
    expected = np.argsort(-values, axis=1)[:, :k]
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(values, expected, axis=1))


def test_equal_values_are_each_taken_once():
    values = np.zeros((2, 2_000), np.float32)
    values[:, 1_990:] = 1
    found, columns = largest(values, 15)
    assert found.sum(axis=1).tolist() == [10, 10]
    assert all(len(set(row)) == 15 for row in columns.tolist())


def test_means_are_over_the_rows_at_the_places():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = means_of(values, np.array([[0, 1], [3, 3]]))
    np.testing.assert_array_equal(found, [[1.5, 2.5, 3.5], [9, 10, 11]])


def test_none_of_none_are_the_largest():
    found, columns = largest(np.zeros((3, 0), np.float32), 0)
    assert found.shape == columns.shape == (3, 0)
