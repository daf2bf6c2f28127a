"""Matrices that are not what they say are refused before scipy follows their pointers."""

import numpy as np
import pytest
import scipy.sparse as sp

import scellm
from scellm.data import check_structure, row_blocks


def matrix(kind: str = "csr") -> sp.csr_array:
    dense = np.random.default_rng(0).random((6, 5))
    return sp.csr_array(np.where(dense > 0.5, dense, 0)).asformat(kind)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_whole_matrices_pass(kind):
    check_structure(matrix(kind), 6, 5, "X")
    check_structure(matrix(kind).toarray(), 6, 5, "X")


def test_another_shape_than_obs_and_var():
    with pytest.raises(ValueError, match=r"`X` has the shape \(6, 5\), obs has 7 rows and var 5"):
        check_structure(matrix(), 7, 5, "X")


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize(
    "change",
    [lambda p: p.__setitem__(2, 10**6), lambda p: p.__setitem__(0, 1), lambda p: p.__setitem__(-1, 2)],
)
def test_pointers_that_lie(kind, change):
    X = matrix(kind)
    change(X.indptr)
    with pytest.raises(ValueError, match="X is damaged: its row pointer"):
        check_structure(X, 6, 5, "X")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
@pytest.mark.parametrize("index", [-1, 99])
def test_indices_outside(kind, index):
    X = matrix(kind)
    (X.col if kind == "coo" else X.indices)[0] = index
    with pytest.raises(
        ValueError, match=f"is damaged: it has a value outside its . (columns|rows), at {index}"
    ):
        list(row_blocks(X, 4))


def test_negative_columns_of_cells_in_memory_are_not_counted_from_the_end():
    cells = scellm.datasets.toy_cells(30, n_vars=6000)
    cells.X.indices[:3] = -1
    with pytest.raises(ValueError, match="outside its 6000 columns, at -1"):
        scellm.tl.embed(cells)
