"""Marks of sets of genes: the same for a cell wherever it is read, none where all genes are expressed."""

import numpy as np
import pytest
import scipy.sparse as sp

from scellm.metrics._cell_hashes import gene_set_marks


@pytest.fixture
def counts():
    """Forty cells that express a third of 600 of 1,000 genes."""
    values = np.random.default_rng(0).poisson(0.4, size=(40, 1_000))
    values[:, 600:] = 0
    return sp.csr_array(values.astype(np.float32))


def test_a_mark_does_not_depend_on_scale_nor_on_other_cells(counts):
    marks = gene_set_marks(counts)
    assert (marks != 0).all()
    assert len(set(marks.tolist())) == 40
    assert (gene_set_marks(sp.csr_array(np.log1p(counts))) == marks).all()
    alone = [gene_set_marks(counts[[i]])[0] for i in range(40)]
    assert alone == marks.tolist()


@pytest.mark.parametrize(("n_measured", "n_cells"), [(600, 40), (1_000, 40), (1_000, 1)])
def test_cells_that_express_nearly_all_genes_have_no_mark(n_measured, n_cells):
    values = np.random.default_rng(0).uniform(0.1, 2, size=(n_cells, 1_000))
    values[:, n_measured:] = 0
    values[:, :5] = 0
    assert (gene_set_marks(sp.csr_array(values)) == 0).all()


def test_one_imputed_cell_among_sparse_ones_has_no_mark(counts):
    dense = counts.toarray()
    dense[3, :600] += 1
    marks = gene_set_marks(sp.csr_array(dense))
    assert np.flatnonzero(marks == 0).tolist() == [3]


def test_cells_with_few_genes_have_no_mark():
    values = np.zeros((1, 1_000))
    values[0, :19] = 1
    assert gene_set_marks(sp.csr_array(values)).tolist() == [0]
    values[0, 19] = 1
    assert gene_set_marks(sp.csr_array(values))[0] != 0
