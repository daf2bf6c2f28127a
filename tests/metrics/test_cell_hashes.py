"""Marks of cells and of sets of genes: the same for a cell wherever it is read, none where they would say nothing."""

import zlib
from hashlib import blake2b

import numpy as np
import pytest
import scipy.sparse as sp

from scellm.metrics._cell_hashes import FEWEST, N_PARTS, N_USED, cell_hashes, gene_set_marks, match_hashes


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


def test_marks_of_a_cell_are_of_the_order_of_its_values_in_each_part(counts):
    genes = [f"gene{i}" for i in range(1_000)]
    codes = np.array([zlib.crc32(gene.encode()) for gene in genes], dtype=np.int64)
    found, values = cell_hashes(counts, genes), counts.toarray()
    n_marks = 0
    for row in range(5):
        for part in range(N_USED):
            inside = np.flatnonzero((codes % N_PARTS == part) & (values[row] > 0))
            inside = inside[np.argsort(codes[inside])]
            ranks = np.unique(values[row, inside], return_inverse=True)[1].astype(np.int16)
            text = codes[inside].tobytes() + ranks.tobytes()
            mark = int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)
            assert found[row, part] == (mark if len(inside) >= FEWEST else 0)
            n_marks += len(inside) >= FEWEST
    assert n_marks > 10


def test_a_cell_is_matched_by_half_of_its_marks_and_by_two_at_least():
    reference = np.arange(1, 4 * N_USED + 1).reshape(4, N_USED)
    query = np.zeros((5, N_USED), dtype=int)
    query[0] = reference[2]
    query[1, :2] = reference[3, :2]
    query[2, 0] = reference[1, 0]
    query[3] = [*reference[0, :6], *(-reference[0, 6:])]
    query[4] = [*reference[0, :5], *(-reference[0, 5:])]
    assert match_hashes(query, reference).tolist() == [2, 3, -1, 0, -1]
    assert match_hashes(query, reference[:0]).tolist() == [-1] * 5
