import numpy as np
import pytest
import scipy.sparse as sp

from scellm.data import TokenConfig, gene_counts, tokenize

N_GENES = 30


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def counts(rng):
    counts = rng.poisson(0.8, (12, 20)).astype(np.float32)
    counts[4] = 0  # an empty cell
    return counts


@pytest.fixture
def gene_ids(rng):
    """20 columns in no order; two map to gene 3, three are no vocabulary genes."""
    ids = rng.permutation(N_GENES)[:20]
    ids = np.where(ids == 3, 4, ids)
    ids[[1, 7]] = 3
    ids[[0, 5, 11]] = -1
    return ids


def slowly(counts, gene_ids, config):
    """The same in a loop over cells and genes."""
    cells = []
    for row in counts:
        total = {}
        for value, gene_id in zip(row, gene_ids, strict=True):
            if gene_id >= 0 and value > 0:
                total[int(gene_id)] = total.get(int(gene_id), 0.0) + float(value)
        sum_ = sum(total.values())
        values = {gene: np.log1p(value * config.target_sum / sum_) for gene, value in total.items()}
        ranked = (
            sorted(values) if config.truncation == "first" else sorted(values, key=lambda g: (-values[g], g))
        )
        cells.append({gene: values[gene] for gene in sorted(ranked[: config.max_genes])})
    return cells


def as_dicts(tokens):
    return [
        dict(zip(tokens.gene_ids[a:b].tolist(), tokens.values[a:b].tolist(), strict=True))
        for a, b in zip(tokens.indptr[:-1], tokens.indptr[1:], strict=True)
    ]


@pytest.mark.parametrize("truncation", ["highest", "first"])
@pytest.mark.parametrize("max_genes", [100, 5, 1])
def test_same_as_a_slow_loop(counts, gene_ids, truncation, max_genes):
    config = TokenConfig(max_genes=max_genes, truncation=truncation)
    tokens = tokenize(counts, gene_ids, N_GENES, config)
    expected = slowly(counts, gene_ids, config)
    found = as_dicts(tokens)
    assert [list(cell) for cell in found] == [list(cell) for cell in expected]  # genes, in vocabulary order
    for cell, wanted in zip(found, expected, strict=True):
        assert cell == pytest.approx(wanted, rel=1e-6)
    longest = [len(cell) for cell in slowly(counts, gene_ids, TokenConfig())]
    assert tokens.n_truncated == sum(n > max_genes for n in longest)


FORMATS = {
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "coo_array": sp.coo_array,
    "dense": np.asarray,
    "float64": lambda x: x.astype(np.float64),
    "int64": lambda x: sp.csr_matrix(x.astype(np.int64)),
    "uint8": lambda x: sp.csr_matrix(x.astype(np.uint8)),
    "bool": lambda x: sp.csr_matrix(x > 0),
}


@pytest.mark.parametrize("convert", FORMATS.values(), ids=FORMATS.keys())
def test_any_format_gives_the_same_tokens(counts, gene_ids, convert):
    reference = (counts > 0).astype(np.float32) if convert is FORMATS["bool"] else counts
    expected = tokenize(sp.csr_array(reference), gene_ids, N_GENES, TokenConfig())
    matrix = convert(counts)
    before = matrix.copy()
    tokens = tokenize(matrix, gene_ids, N_GENES, TokenConfig())
    np.testing.assert_array_equal(tokens.gene_ids, expected.gene_ids)
    np.testing.assert_array_equal(tokens.values, expected.values)
    assert abs(before - matrix).max() == 0 if before.dtype != bool else (before != matrix).nnz == 0


def test_stored_zeros_and_unsorted_columns_do_not_matter():
    rows = sp.csr_array(([2.0, 0.0, 1.0], [2, 1, 0], [0, 3]), shape=(1, 3), dtype=np.float32)
    tokens = tokenize(rows, np.array([5, 6, 7]), N_GENES, TokenConfig())
    assert tokens.gene_ids.tolist() == [5, 7]


def test_duplicates_are_summed_on_the_linear_scale():
    values = np.log1p(np.array([[3.0, 4.0, 1.0]], dtype=np.float32))
    summed = gene_counts(values, np.array([2, 2, 9]), N_GENES, np.expm1).toarray()[0]
    assert summed[2] == pytest.approx(7, rel=1e-6)
    assert summed[9] == pytest.approx(1, rel=1e-6)


def test_without_normalization_values_keep_their_scale():
    values = np.log1p(np.array([[3.0, 0.5]], dtype=np.float32))
    tokens = tokenize(values, np.array([0, 1]), N_GENES, TokenConfig(), linearize=np.expm1, normalize=False)
    np.testing.assert_allclose(tokens.values, values[0], rtol=1e-6)


def test_ties_keep_the_first_genes():
    tokens = tokenize(np.ones((1, 20)), np.arange(20)[::-1].copy(), N_GENES, TokenConfig(max_genes=4))
    assert tokens.gene_ids.tolist() == [0, 1, 2, 3]


def test_padded_rows_are_the_packed_rows(counts, gene_ids):
    tokens = tokenize(counts, gene_ids, N_GENES, TokenConfig())
    rows = np.array([7, 4, 0])
    ids, values, is_gene = tokens.padded(rows)
    packed = tokens[rows]
    np.testing.assert_array_equal(ids[is_gene], packed.gene_ids)
    np.testing.assert_array_equal(values[is_gene], packed.values)
    np.testing.assert_array_equal(is_gene.sum(1), packed.lengths)
    assert is_gene.sum(1)[1] == 0  # the empty cell
    empty = tokenize(np.zeros((3, 20)), gene_ids, N_GENES, TokenConfig())
    assert empty.padded(np.arange(3))[2].shape == (3, 0)


def test_batches_cover_every_cell_with_genes_once(counts, gene_ids):
    tokens = tokenize(counts, gene_ids, N_GENES, TokenConfig())
    batches = list(tokens.batches(40))
    assert sorted(np.concatenate(batches)) == [i for i in range(12) if i != 4]
    assert all(len(rows) * tokens.lengths[rows].max() <= 40 for rows in batches)
    assert [len(rows) for rows in tokens.batches(40, cells_per_batch=3)] == [3, 3, 3, 2]
    assert [len(rows) for rows in tokens.batches(1)] == [1] * 11  # a budget below one cell still goes on


def test_configuration_is_checked():
    for wrong in (0, 2.5, True, "12", 10**30):
        with pytest.raises(ValueError, match="max_genes is .*; it must be a whole number from 1"):
            TokenConfig(max_genes=wrong)
    for wrong in (0, -1.0, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match="target_sum is .*; it must be a positive number"):
            TokenConfig(target_sum=wrong)
    with pytest.raises(ValueError, match="truncation is 'last'; choose"):
        TokenConfig(truncation="last")
    with pytest.raises(ValueError, match=r"Unknown token fields \['context'\]"):
        TokenConfig.from_dict({"context": 3})
    assert TokenConfig.from_dict(TokenConfig(max_genes=7).to_dict()) == TokenConfig(max_genes=7)
