import numpy as np
import pytest

from scellm.data import GeneVocabulary
from scellm.datasets import toy_cells
from scellm.datasets._toy import HOUSEKEEPING, MARKERS


def test_raw_counts_over_vocabulary_genes():
    adata = toy_cells(40)
    assert adata.shape == (40, 3000)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert (adata.X.data > 0).all()
    assert (adata.X.data == np.round(adata.X.data)).all()
    vocabulary = GeneVocabulary.default()
    assert adata.var_names.is_unique
    assert set(adata.var_names) <= set(vocabulary.symbols)
    ensembl_of = dict(zip(vocabulary.symbols, vocabulary.ensembl_ids, strict=True))
    assert all(ensembl_of[symbol] == ensembl for symbol, ensembl in adata.var["ensembl_id"].items())


def test_no_empty_cells_and_usual_depth():
    totals = np.asarray(toy_cells(200).X.sum(axis=1)).ravel()
    assert totals.min() > 500
    assert 1500 < np.median(totals) < 2700


@pytest.mark.parametrize("cell_type", MARKERS)
def test_markers_mark_their_type(cell_type):
    adata = toy_cells(80)
    own = (adata.obs["cell_type"] == cell_type).to_numpy()
    for gene in MARKERS[cell_type]:
        counts = adata[:, gene].X.toarray().ravel()
        assert counts[own].mean() > 5 * counts[~own].mean()


def test_housekeeping_genes_do_not_mark_a_type():
    adata = toy_cells(400)
    means = [
        adata[(adata.obs["cell_type"] == cell_type).to_numpy(), list(HOUSEKEEPING)].X.toarray().mean()
        for cell_type in MARKERS
    ]
    assert max(means) < 1.3 * min(means)


def test_donors_and_types_are_crossed():
    obs = toy_cells(80, n_donors=3).obs
    assert obs.groupby(["cell_type", "donor"], observed=False).size().min() >= 6


def test_same_seed_same_cells():
    first, again, other = (
        toy_cells(10, rng=1),
        toy_cells(10, rng=np.random.default_rng(1)),
        toy_cells(10, rng=2),
    )
    assert (first.X != again.X).nnz == 0
    assert (first.X != other.X).nnz > 0


@pytest.mark.parametrize("n_vars", [40, 1001, 19000])
def test_number_of_genes(n_vars):
    adata = toy_cells(4, n_vars=n_vars)
    assert adata.n_vars == n_vars
    assert {"CD3D", "LYZ", "ACTB"} <= set(adata.var_names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_obs": 0}, "n_obs is 0"),
        ({"n_donors": 0}, "n_donors is 0"),
        ({"n_vars": 39}, r"n_vars is 39; toy_cells has 40 to \d+ genes"),
        ({"n_vars": 10**6}, "n_vars is 1000000"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy_cells(**arguments)
