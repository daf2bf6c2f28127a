"""find_leakage: the same measurement is found through normalization and loss of genes, and new cells are not accused."""

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import scellm
from scellm.metrics import find_leakage
from scellm.metrics._cell_hashes import cell_hashes, match_hashes

CELLS = scellm.datasets.toy_cells(120, n_vars=4000)


@pytest.fixture
def parts():
    return CELLS[40:].copy(), CELLS[:80].copy()


def test_the_same_cells_and_no_others(parts):
    found = find_leakage(*parts)
    assert found.n_same == 40
    assert found.same[:40].tolist() == list(range(40, 80))
    assert (found.same[40:] == -1).all()
    assert found.message.startswith("40 of 80 cells are the same measurement")


def test_normalized_logged_and_fewer_genes(parts):
    adata, reference = parts
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    kept = np.random.default_rng(0).random(adata.n_vars) > 0.2
    found = find_leakage(adata[:, kept].copy(), reference)
    assert found.n_same == 40
    adata.X = adata.X.toarray()
    assert find_leakage(adata, reference).n_same == 40


def test_marks_of_before_find_cells_that_lost_a_few_genes(parts):
    """As for the shipped reference, whose genes are marked once and for all."""
    adata, reference = parts
    marks = cell_hashes(reference.X, list(reference.var_names))
    kept = np.sort(np.random.default_rng(0).permutation(adata.n_vars)[: adata.n_vars - 20])
    few = adata[:, kept]
    found = match_hashes(cell_hashes(few.X, list(few.var_names)), marks)
    assert (found[:40] >= 0).mean() > 0.9
    assert (found[40:] == -1).all()


def test_near_duplicates(parts):
    adata, reference = parts
    adata.X = sp.csr_matrix(adata.X.toarray() + np.eye(80, adata.n_vars))  # a count more in one gene each
    noisy = adata.copy()
    noisy.X = sp.csr_matrix(np.random.default_rng(0).poisson(adata.X.toarray()).astype(np.float32))
    assert find_leakage(adata, reference).n_same + find_leakage(adata, reference).n_near >= 40
    assert find_leakage(noisy, reference).n_same == 0


def test_names_and_samples(parts):
    adata, reference = parts
    adata.obs["donor"], reference.obs["donor"] = "d1", "d1"
    reference.obs_names = [f"{name}-1" for name in reference.obs_names]
    found = find_leakage(adata, reference, find_near=False)
    assert found.shared_samples == {"donor": ["d1"]}
    assert found.shared_barcodes == 0.5
    assert "donor has 1 entries in both (d1)" in found.message


def test_refusals(parts):
    adata, reference = parts
    with pytest.raises(KeyError, match="'counts' is not in `reference.layers`"):
        find_leakage(adata, reference, reference_layer="counts")
    adata.var_names = [f"g{i}" for i in range(adata.n_vars)]
    with pytest.raises(ValueError, match="The two have 0 genes in common"):
        find_leakage(adata, reference)
