"""A matrix that is stored by gene is turned around once, in little memory, and said so."""

import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scellm
from scellm.data import Expression, GeneVocabulary
from scellm.data.cells import _by_rows


@pytest.fixture
def by_gene(tmp_path):
    cells = scellm.datasets.toy_cells(60, n_vars=1950)
    cells.X = sp.csc_matrix(cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return cells, tmp_path / "cells.h5ad"


@pytest.mark.parametrize("kind", ["path", "backed"])
def test_rows_of_a_large_one_are_written_once(by_gene, kind, monkeypatch):
    cells, path = by_gene
    monkeypatch.setattr(_by_rows, "SMALL", 0)
    monkeypatch.setattr(_by_rows, "AT_ONCE", 1000)
    source = path if kind == "path" else ad.read_h5ad(path, backed="r")
    found = _opened_with_a_word(source, cells)
    with Expression.open(cells, GeneVocabulary.default()) as expected:
        assert found == expected.fingerprint


def _opened_with_a_word(source, cells):
    """The fingerprint of rows that lie in files."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Expression.open(source, GeneVocabulary.default()) as opened:
            assert np.array_equal(opened.X.toarray(), cells.X.toarray())
            assert not opened.X.data.flags.owndata  # files, not memory
            assert not opened.X.indices.flags.owndata
            assert opened.X.has_sorted_indices
            found = opened.fingerprint
    assert any("is stored by gene (CSC). It is written by cell once" in str(x.message) for x in said)
    return found


def test_a_small_one_is_turned_around_without_a_word(by_gene):
    cells, path = by_gene
    with Expression.open(path, GeneVocabulary.default()) as opened:
        assert opened.X.format == "csr"
        assert np.array_equal(opened.X.toarray(), cells.X.toarray())


def test_others_are_left_as_they_are(by_gene, tmp_path):
    cells, _ = by_gene
    cells.X = sp.csr_matrix(cells.X)
    cells.write_h5ad(tmp_path / "rows.h5ad")
    with Expression.open(tmp_path / "rows.h5ad", GeneVocabulary.default()) as opened:
        assert not sp.issparse(opened.X)


def test_a_full_disk_is_named_before_anything_is_written(by_gene, monkeypatch):
    _, path = by_gene
    monkeypatch.setattr(_by_rows, "SMALL", 0)
    monkeypatch.setattr(_by_rows.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 10})())
    with pytest.raises(OSError, match="too full"), Expression.open(path, GeneVocabulary.default()):
        pass
