import numpy as np
import pytest
import scipy.sparse as sp

from scellm.train import ViewConfig, draw_view

EVERYTHING = {"keep_counts": (1.0, 1.0), "drop_genes": (0.0, 0.0), "max_genes": 10_000, "max_counts": 1e12}


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return sp.csr_array(rng.poisson(2.0, (40, 300)).astype(np.float32))


def test_keeping_everything_gives_the_cell_itself(counts):
    view = draw_view(counts, ViewConfig(**EVERYTHING), np.random.default_rng(0))
    scaled = counts.toarray() * (1e4 / counts.sum(1))[:, None]
    np.testing.assert_allclose(view.values, np.log1p(scaled[scaled > 0]), rtol=1e-6)
    np.testing.assert_array_equal(view.gene_ids, np.nonzero(scaled)[1])


def test_shares_are_those_asked_for(counts):
    config = ViewConfig(**{**EVERYTHING, "drop_genes": (0.5, 0.5)})
    kept = np.mean([len(draw_view(counts, config, np.random.default_rng(i)).values) for i in range(20)])
    assert kept / counts.nnz == pytest.approx(0.5, abs=0.01)
    config = ViewConfig(**{**EVERYTHING, "max_genes": 30})
    lengths = draw_view(counts, config, np.random.default_rng(0)).lengths
    assert lengths.mean() == pytest.approx(30, abs=3)


def test_counts_are_thinned_to_the_depth_asked_for(counts):
    config = ViewConfig(**{**EVERYTHING, "max_counts": 100})
    view = draw_view(counts, config, np.random.default_rng(0))
    smallest = [view.values[a:b].min() for a, b in zip(view.indptr[:-1], view.indptr[1:], strict=True)]
    totals = 1e4 / np.expm1(smallest)  # the smallest value is one count
    assert totals.mean() == pytest.approx(100, abs=6)


def test_estimated_counts_are_drawn_too(counts):
    view = draw_view(counts * np.float32(0.7), ViewConfig(**EVERYTHING), np.random.default_rng(0))
    assert 0.7 * counts.nnz < len(view.values) < counts.nnz


def test_views_differ_and_seeds_repeat(counts):
    first, again = (draw_view(counts, ViewConfig(), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.values, again.values)
    rng = np.random.default_rng(3)
    draw_view(counts, ViewConfig(), rng)
    assert len(draw_view(counts, ViewConfig(), rng).values) != len(first.values)


def test_the_cells_are_left_alone(counts):
    before = counts.copy()
    draw_view(counts, ViewConfig(), np.random.default_rng(0))
    assert abs(counts - before).max() == 0
    assert counts.nnz == before.nnz
