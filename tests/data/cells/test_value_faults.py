"""Values that are not what they seem are named, and sound ones are left alone."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scellm.data import describe_values
from scellm.data.cells._cell_checks import SpeciesCheck, foreign_cells
from scellm.data.cells._value_faults import separating_column
from scellm.data.genes._gene_match import GeneMatch


def draw(n=60, genes=400, seed=0):
    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 1.5, genes)
    depth = rng.lognormal(np.log(3000), 0.4, (n, 1))
    return rng.poisson(depth * profile / profile.sum()).astype(np.float64)


def normal(X, total=1e4):
    return X * (total / X.sum(1, keepdims=True))


SCALES = {
    "counts": lambda X: X,
    "log1p (base e)": lambda X: np.log1p(normal(X)),
    "log1p (base 2)": lambda X: np.log2(1 + normal(X)),
    "log1p (base 10)": lambda X: np.log10(1 + normal(X)),
    "linear": normal,
}
PAIRS = [
    (a, b) for i, a in enumerate(SCALES) for b in list(SCALES)[i + 1 :] if {a, b} != {"counts", "linear"}
]


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_two_scales_in_one_matrix(one, two, share):
    n = int(100 * share)
    X = np.vstack([SCALES[one](draw(100 - n)), SCALES[two](draw(n, seed=1))])
    obs = pd.DataFrame(
        {"depth": X.sum(1), "study": ["a"] * (100 - n) + ["b"] * n, "id": np.arange(100).astype(str)}
    )
    order = np.random.default_rng(0).permutation(100)
    report = describe_values(sp.csr_matrix(X[order]), obs=obs.iloc[order])
    assert (report.kind, report.usable) == ("mixed", False)
    assert "Two kinds of values are mixed" in report.message
    assert "`adata.obs['study']` tells them apart" in report.message
    assert f"{n} " in report.message


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_one_scale_is_no_mixture(kind, seed):
    X = SCALES[kind](draw(seed=seed))
    assert describe_values(X).usable
    assert describe_values(X[:, :150]).kind != "mixed"  # genes removed: no common sum any more
    two_studies = np.vstack(
        [SCALES[kind](draw(30, seed=seed)), SCALES[kind](draw(30, seed=seed + 9) // 4 + 0)]
    )
    assert describe_values(two_studies[two_studies.sum(1) > 0]).kind != "mixed"


def test_scaled_cells_beside_counts():
    X = draw()
    scaled = (X - X.mean(0)) / (X.std(0) + 1e-9)
    report = describe_values(np.vstack([X[:30], scaled[30:]]))
    assert report.kind == "mixed"
    assert "30 scaled, with negative values" in report.message
    assert describe_values(scaled).kind == "scaled"


def test_counts_beside_normalized_values_are_named_but_read():
    report = describe_values(np.vstack([draw(50), normal(draw(50, seed=1))]))
    assert (report.usable, report.is_certain) == (True, False)
    assert "Both are linear" in report.message


def test_separating_column():
    obs = pd.DataFrame(
        {
            "half": [0, 0, 1, 1] * 5,
            "fine": [0, 2, 1, 3] * 5,
            "same": 1,
            "number": np.arange(20.0),
            "gap": [None, 0, 1, 1] * 5,
        }
    )
    first, second = np.flatnonzero(obs["half"] == 0), np.flatnonzero(obs["half"] == 1)
    assert separating_column(obs, first, second) == ("half", [0])
    assert separating_column(obs[["fine", "same"]], first, second) == ("fine", [0, 2])
    assert separating_column(obs[["same", "number", "gap"]], first, second) is None


# -- NaN ----------------------------------------------------------------------------------------------------------


def test_genes_that_a_study_lacks():
    a, b = (
        ad.AnnData(draw(20, 300, seed), obs=pd.DataFrame(index=[f"{seed}{i}" for i in range(20)]))
        for seed in (0, 1)
    )
    both = ad.concat([a[:, :200].copy(), b[:, 100:].copy()], join="outer", keys=["x", "y"], label="study")
    report = describe_values(both.X, obs=both.obs)
    assert (report.kind, report.n_bad) == ("invalid", 4000)
    assert "20 of the 40 cells examined" in report.message
    assert "are NaN in the same 100 genes: anndata.concat(join='outer')" in report.message
    assert "`adata.obs['study']`: " in report.message
    assert "Keep the 100 genes that all cells have" in report.way_out


def test_single_nan_is_no_outer_join():
    X = draw()
    X[[1, 7], [2, 9]] = np.nan
    report = describe_values(X)
    assert (report.n_bad, report.first_bad, report.way_out) == (2, (1, 2), "")


# -- no zeros, one value, rounding --------------------------------------------------------------------------------


@pytest.mark.parametrize("added", [1, 0.5, -3])
@pytest.mark.parametrize("kind", ["counts", "log1p (base e)"])
def test_a_number_that_was_added(kind, added):
    X = SCALES[kind](draw(genes=2000))
    report = describe_values(X + added)
    assert (report.kind, report.usable) == ("offset", False)
    assert report.way_out == "Take it out: adata.X = adata.X - adata.X.min()."
    assert describe_values(X + added - (X + added).min()).usable


def test_logarithm_with_another_number_than_one():
    X = np.log2(normal(draw(genes=2000)) + 0.01)
    assert describe_values(X).kind == "offset"
    again = describe_values(X - X.min())
    assert (again.kind, again.base) == ("log1p", 2.0)


def test_imputed_values_are_named():
    rng = np.random.default_rng(0)
    X = normal(draw() + rng.gamma(1, 0.3, (60, 400)))
    for values, kind in ((X, "normalized"), (np.log1p(X), "log1p")):
        report = describe_values(values)
        assert (report.kind, report.is_certain) == (kind, False)
        assert "Hardly a value is 0: denoised or imputed" in report.message
    assert describe_values(normal(draw())).is_certain


def test_binary_values_are_named():
    X = (draw() > 0).astype(np.float32)
    report = describe_values(X)
    assert (report.kind, report.is_certain) == ("counts", False)
    assert "Only 0 and 1" in report.message
    assert describe_values(X[:, :20]).is_certain  # shallow counts may be so
    for values in (np.log1p(normal(X)), normal(X), X * 255, X * 0.5):
        report = describe_values(values)
        if values.max() != 255:
            assert "one value beside 0" in report.message
        assert not report.is_certain


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csc_matrix], ids=lambda c: c.__name__)
def test_negative_values_of_rounding_are_zero(container):
    X = np.log1p(normal(draw()))
    X[0, :3], X[5, 7] = -1e-9, -1e-12
    report = describe_values(container(X))
    assert (report.kind, report.is_certain, report.n_tiny_negative) == ("log1p", False, 4)
    assert "4 values are negative by rounding (smallest -1e-09) and are read as 0" in report.message
    cleaned = report.clean(sp.csr_array(X))
    assert cleaned.data.min() == 0
    np.testing.assert_array_equal(cleaned.toarray(), np.maximum(X, 0))
    assert report.linearize(np.array([-1e-9, 0.0])).tolist() == [0, 0]
    X[3, 3] = -0.01
    assert describe_values(container(X)).kind == "scaled"
    sound = describe_values(np.abs(X))
    rows = sp.csr_array(X)
    assert sound.clean(rows) is rows  # nothing to clean, no copy


# -- other species ------------------------------------------------------------------------------------------------


def test_cells_of_another_species_are_emptied_and_counted():
    names = np.array(["A", "B", "mm10_A", "mm10_B", "tag"], dtype=object)
    match = GeneMatch(
        names=names,
        ids=np.array([0, 1, -1, -1, -1]),
        match_type=np.array(["symbol"] * 5),
        symbols=names,
        namespace="symbol",
        organism="human",
        n_vocabulary=2,
        is_foreign=np.array([0, 0, 1, 1, 0], dtype=bool),
        is_other=np.array([0, 0, 0, 0, 1], dtype=bool),
    )
    X = sp.csr_array(
        np.array([[5, 5, 1, 0, 99], [1, 0, 5, 5, 99], [0, 0, 0, 0, 9], [3, 0, 3, 0, 0]], dtype=np.float32)
    )
    species = SpeciesCheck(match, describe_values(X))
    kept = species.keep(X).toarray()
    assert species.n_foreign == 1
    np.testing.assert_array_equal(kept[[0, 2, 3]], X.toarray()[[0, 2, 3]])
    assert not kept[1].any()
    assert (
        "1 of 4 cells in `adata.X` have most of their counts in 2 columns of another species"
        in species.message("adata.X", 4)
    )
    slow = [row[2] + row[3] > row[0] + row[1] for row in X.toarray()]
    assert foreign_cells(X, match.is_foreign, match.is_other).tolist() == slow
    match.is_foreign[:] = False
    assert SpeciesCheck(match, describe_values(X)).keep(X) is X
