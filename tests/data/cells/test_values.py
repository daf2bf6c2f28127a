"""What describe_values makes of counts, logarithms, scaled and broken values."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scellm.data import describe_values

SHARED = Path(__file__).parents[4] / "shared" / "data"
FOLDERS = ("corpus", "corpus_wide", "benchmarks", "drug/single_cell")
BASES = {"e": np.e, "2": 2.0, "10": 10.0}


def draw_counts(n=60, genes=400, depth=3000, seed=0):
    """Molecule counts: few genes high, most low, cells of different depth."""
    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 1.5, genes)
    mean = rng.lognormal(np.log(depth), 0.4, (n, 1)) * profile / profile.sum()
    return sp.csr_matrix(rng.poisson(mean), dtype=np.float32)


@pytest.fixture
def counts():
    return draw_counts()


def normalized(counts, target_sum):
    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=target_sum)
    return adata.X


def logged(X, base):
    X = X.copy()
    X.data = (np.log1p(X.data) / np.log(base)).astype(np.float32)
    return X


# -- counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize(
    "container",
    [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_matrix, np.asarray],
    ids=lambda c: c.__name__,
)
def test_counts_of_every_dtype_and_container(counts, dtype, container):
    X = counts.minimum(100).toarray().astype(dtype)
    report = describe_values(container(X))
    assert report.kind == "counts"
    assert report.usable
    assert report.holds_counts
    assert report.share_off_integer == 0
    assert report.max == X.max()
    assert report.share_nonzero == pytest.approx((X != 0).mean())
    assert report.n_rows == 60
    if dtype == "bool":
        assert "Only 0 and 1" in report.message


def test_float_counts_off_by_a_little(counts):
    X = counts.copy()
    X.data[::3] += 0.0019
    report = describe_values(X)
    assert report.kind == "non_integer_counts"
    assert report.usable
    assert report.share_off_integer == pytest.approx(1 / 3, abs=0.01)
    assert "not whole (33.3 % of the values are off, such as" in report.message


def test_counts_times_a_constant(counts):
    report = describe_values(counts * 1.0019)
    assert report.kind == "non_integer_counts"


def test_estimated_counts_without_whole_ones(counts):
    X = counts.copy()
    X.data *= np.random.default_rng(1).uniform(0.5, 1.0, X.nnz).astype(np.float32)
    assert describe_values(X).kind == "non_integer_counts"


# -- normalized and logged --------------------------------------------------------------------------------


@pytest.mark.parametrize("target_sum", [1, 1e4, 50000, 1e6], ids="{:g}".format)
def test_normalized_values(counts, target_sum):
    report = describe_values(normalized(counts, target_sum))
    assert (report.kind, report.target_sum) == ("normalized", target_sum)


@pytest.mark.parametrize("target_sum", [1e4, 50000, 1e6, None], ids=lambda t: f"{t:g}" if t else "median")
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_log1p_of_normalized_values(counts, base, target_sum):
    linear = normalized(counts, target_sum)
    report = describe_values(logged(linear, base))
    assert (report.kind, report.base, report.is_certain) == ("log1p", base, True)
    assert report.target_sum == pytest.approx(float(np.median(np.asarray(linear.sum(1)))), rel=1e-5)
    assert report.usable


def test_scanpys_own_log1p(counts):
    adata = ad.AnnData(normalized(counts, 1e4))
    sc.pp.log1p(adata)
    assert describe_values(adata.X).message == "log1p (base e) of values normalized to 10000 per cell."
    adata = ad.AnnData(normalized(counts, 1e4))
    sc.pp.log1p(adata, base=2)
    assert describe_values(adata.X).base == 2


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_log1p_of_raw_counts(counts, base):
    report = describe_values(logged(counts, base))
    assert (report.kind, report.base, report.target_sum, report.holds_counts) == ("log1p", base, None, True)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_log1p_with_genes_removed_keeps_the_base_but_not_the_sum(counts, base):
    report = describe_values(logged(normalized(counts, 1e4), base)[:, :200])
    assert (report.kind, report.base, report.target_sum) == ("log1p", base, None)
    assert "genes are missing" in report.message


def test_values_printed_with_four_digits(counts):
    X = logged(normalized(counts, 1e4), np.e)
    X.data = np.round(X.data, 4)
    assert describe_values(X).target_sum == pytest.approx(1e4, rel=1e-3)


@pytest.mark.parametrize("base", [np.e, 2.0], ids=["e", "2"])
def test_log_tpm_of_many_genes_without_repeated_values(base):
    rng = np.random.default_rng(0)
    tpm = rng.lognormal(2, 2, 7000) * rng.lognormal(0, 1.2, (30, 7000)) * (rng.random((30, 7000)) < 0.5)
    tpm = tpm / tpm.sum(1, keepdims=True) * rng.uniform(0.8, 0.9, (30, 1)) * 1e6
    report = describe_values(np.log1p(tpm) / np.log(base))
    assert (report.kind, report.base, report.is_certain) == ("log1p", base, False)


def test_one_cell(counts):
    assert describe_values(counts[:1]).kind == "counts"
    report = describe_values(logged(normalized(counts, 1e4), np.e)[:1])
    assert (report.kind, report.base, report.target_sum) == ("log1p", np.e, 1e4)
    assert describe_values(logged(normalized(counts, 5346), np.e)[:1]).target_sum is None


def test_pbmc68k_reduced():
    adata = sc.datasets.pbmc68k_reduced()
    assert describe_values(adata.X).kind == "scaled"
    report = describe_values(adata.raw.X)
    assert (report.kind, report.base, report.target_sum, report.is_certain) == ("log1p", np.e, None, True)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_linearize_undoes_the_logarithm(counts, base):
    linear = normalized(counts, 1e4)
    values = logged(linear, base)
    report = describe_values(values)
    again = report.linearize(values.data)
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, linear.data, rtol=1e-4)
    assert report.linearize(np.zeros(2, np.float32)).tolist() == [0, 0]


def test_linearize_leaves_counts_alone_and_refuses_scaled(counts):
    data = counts.data.astype(np.uint16)
    assert describe_values(counts).linearize(data) is data
    with pytest.raises(ValueError, match="no linear values behind this: Negative values"):
        describe_values(-counts).linearize(data)


# -- scaled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"max_value": 10}, {"zero_center": False}, {"zero_center": False, "max_value": 3}],
    ids=str,
)
def test_scaled_values(options):
    adata = ad.AnnData(logged(normalized(draw_counts(200), 1e4), np.e).toarray())
    sc.pp.scale(adata, **options)
    report = describe_values(adata.X)
    assert report.kind == "scaled"
    assert not report.usable


def test_values_between_zero_and_one_per_gene(counts):
    X = logged(normalized(counts, 1e4), np.e).toarray()
    assert describe_values(X / np.maximum(X.max(0), 1e-9)).kind == "scaled"


def test_square_roots(counts):
    report = describe_values(counts.sqrt())
    assert report.kind == "scaled"
    assert "adata.X**2" in report.message


def test_a_single_negative_value_among_many_cells():
    X = draw_counts(3000, 20, depth=40).toarray()
    X[2345, 3] = -0.5  # in memory all cells are scanned, not only the sampled ones
    report = describe_values(X, max_rows=100)
    assert (report.kind, report.min) == ("scaled", -0.5)


# -- broken and empty ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    "container", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray], ids=lambda c: c.__name__
)
def test_nan_and_infinity_are_counted_and_located(counts, bad, container):
    X = counts.toarray()
    X[7, 11] = X[50, 0] = bad
    report = describe_values(container(X), max_rows=20)
    assert (report.kind, report.n_bad, report.usable) == ("invalid", 2, False)
    assert report.first_bad in ((7, 11), (50, 0))  # the first in the order of storage
    assert report.message.startswith("2 NaN or infinite values, the first in cell")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5, 4)], ids=str)
def test_empty(shape):
    for X in (np.zeros(shape), sp.csr_matrix(shape)):
        report = describe_values(X)
        assert (report.kind, report.usable) == ("empty", False)


def test_explicit_zeros_are_zeros():
    X = sp.csr_matrix(np.ones((3, 3)))
    X.data[:] = 0
    assert describe_values(X).kind == "empty"


def test_text_is_no_number():
    assert "not numbers" in describe_values(np.array([["a", "b"]])).message


def test_nothing_is_changed(counts):
    X = logged(normalized(counts, 1e4), np.e)
    X.data[0] = 0
    before = X.copy()
    describe_values(X)
    assert X.nnz == before.nnz
    assert np.array_equal(X.data, before.data)


def test_backed_and_sampled_rows(counts, tmp_path):
    X = logged(normalized(draw_counts(300), 1e4), np.e)
    ad.AnnData(X).write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    report = describe_values(backed.X, max_rows=50)
    assert (report.kind, report.target_sum, report.n_rows) == ("log1p", 1e4, 50)
    backed.file.close()


# -- real data ----------------------------------------------------------------------------------------------

TRUTH = {
    "gbm_mgh136": ("log1p", 2),
    "luad_kim_mini": ("log1p", 2),
    "maits_mast": ("log1p", 2),
    "breast_tumour_chung_mini": ("log1p", 2),
    "melanoma_tirosh_mini": ("log1p", 2),
    "oligodendroglioma_tirosh": ("non_integer_counts", None),
    "mouse_lung_immune_zilionis": ("log1p", None),  # "log-normalized", base not said
    "sciplex3_mini": ("log1p", None),
    "sc_scad_A375": ("scaled", None),
    "sc_scad_JHU006": ("scaled", None),
}
"""Of the files that do not hold counts; by their own notes."""


@pytest.mark.skipif(not SHARED.is_dir(), reason="the optional folder ../shared/data is not here")
def test_real_data_sets():
    files = sorted(file for folder in FOLDERS for file in (SHARED / folder).glob("*.h5ad"))
    assert len(files) > 40
    wrong = []
    for file in files:
        adata = ad.read_h5ad(file)
        report = describe_values(adata.X)
        kind, base = TRUTH.get(file.stem, ("counts", None))
        if adata.uns.get("x_kind") == "counts" and kind != "counts":
            wrong.append((file.stem, "the file says counts"))
        if report.kind != kind or (base is not None and report.base != base):
            wrong.append((file.stem, report.message))
    assert wrong == []
