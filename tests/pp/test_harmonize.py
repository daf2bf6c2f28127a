"""harmonize_genes: columns become vocabulary genes, and nothing else changes."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import scellm
from scellm.data import GeneVocabulary
from scellm.pp import harmonize_genes

V = GeneVocabulary.default()
NAMES = ["LYZ", "CD3D", "SEPT9", "1-Mar", "no_gene", "CD3D-1", "ENSG00000167286.3", "actb"]
KEPT = ["ACTB", "CD3D", "LYZ", "SEPTIN9"]


def small(container=sp.csr_matrix, dtype="float32"):
    """Five cells, one column per entry of NAMES; three of them are CD3D."""
    X = np.random.default_rng(0).poisson(2.0, (5, len(NAMES))).astype(dtype)
    adata = ad.AnnData(container(X), var=pd.DataFrame({"n": range(len(NAMES))}, index=NAMES))
    adata.obs["batch"] = list("ababa")
    adata.obsm["X_pca"] = np.arange(10.0).reshape(5, 2)
    adata.uns["note"] = {"a": 1}
    return adata


def dense(X):
    return X.toarray() if sp.issparse(X) else np.asarray(X)


def expected(X):
    """A slow loop: sums of the columns of each gene."""
    X = dense(X)
    columns = {"ACTB": [7], "CD3D": [1, 5, 6], "LYZ": [0], "SEPTIN9": [2]}
    return np.stack([X[:, columns[gene]].sum(1) for gene in KEPT], axis=1)


@pytest.mark.parametrize(
    "container", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray], ids=lambda c: c.__name__
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_duplicate_columns_are_summed(container, dtype):
    adata = small(container, dtype)
    result = harmonize_genes(adata)
    assert result.var_names.tolist() == KEPT
    assert np.array_equal(dense(result.X), expected(adata.X))
    assert result.X.dtype == adata.X.dtype
    assert type(result.X) is type(adata.X)


def test_small_integers_do_not_overflow():
    adata = small(dtype="uint8")
    adata.X.data[:] = 200
    result = harmonize_genes(adata)
    assert np.array_equal(dense(result.X), expected(adata.X.astype(int)))
    assert result.X.max() > 255


def test_var_and_report():
    result = harmonize_genes(small())
    assert result.var["ensembl_id"].tolist() == [V.ensembl_ids[i] for i in result.var["gene_id"]]
    assert V.symbols[result.var["gene_id"]].tolist() == KEPT
    assert result.var["original_name"].tolist() == ["actb", "CD3D|CD3D-1|ENSG00000167286.3", "LYZ", "SEPT9"]
    assert result.var["n"].tolist() == [7, 1, 0, 2]
    report = result.uns["scellm_harmonize"]
    assert report["ambiguous"].tolist() == ["1-Mar"]
    assert report["match_type"] == {
        "symbol": 3,
        "previous": 1,
        "ambiguous": 1,
        "unknown": 1,
        "ensembl": 1,
        "case": 1,
    }
    assert {key: report[key] for key in ("n_columns", "n_genes", "n_duplicates", "organism", "where")} == {
        "n_columns": 8,
        "n_genes": 4,
        "n_duplicates": 2,
        "organism": "human",
        "where": "adata.var_names",
    }


def test_the_input_is_untouched():
    adata = small()
    adata.layers["counts"] = adata.X.copy()
    before = adata.copy()
    result = harmonize_genes(adata)
    result.obs["new"] = 1
    result.obsm["X_pca"][:] = 0
    result.uns["note"]["a"] = 2
    result.X.data[:] = 0
    assert adata.var.equals(before.var)
    assert adata.obs.equals(before.obs)
    assert dict(adata.uns) == dict(before.uns)
    assert (adata.X != before.X).nnz == 0
    assert np.array_equal(adata.obsm["X_pca"], before.obsm["X_pca"])


@pytest.mark.parametrize(
    "container", [np.array, sp.csr_matrix, sp.csc_matrix, sp.csr_array], ids=lambda c: c.__name__
)
def test_duplicates_of_a_view_are_summed_and_its_object_is_untouched(container):
    whole = small(container)
    whole.layers["counts"] = whole.X.copy()
    before = whole.copy()
    view = whole[:3]
    result = harmonize_genes(view)
    summed = expected(before.X)[:3]
    assert np.array_equal(dense(result.X), summed)
    assert np.array_equal(dense(result.layers["counts"]), summed)
    for matrix in (result.X, result.layers["counts"], result.obsm["X_pca"]):
        (matrix.data if sp.issparse(matrix) else matrix)[:] = 0
    assert view.is_view
    for adata, n in ((whole, 5), (view, 3)):
        assert np.array_equal(dense(adata.X), dense(before.X)[:n])
        assert np.array_equal(dense(adata.layers["counts"]), dense(before.X)[:n])
        assert np.array_equal(adata.obsm["X_pca"], before.obsm["X_pca"][:n])


def test_log_values_are_summed_at_linear_scale():
    adata = scellm.datasets.toy_cells(20, n_vars=300)
    names = adata.var_names.tolist()
    names[:3] = ["CD3D", "CD3D", "CD3D"]
    adata.var_names = names
    adata.var_names_make_unique()
    sc.pp.normalize_total(adata, target_sum=1e4)
    linear = harmonize_genes(adata)
    sc.pp.log1p(adata)
    logs = harmonize_genes(adata)
    np.testing.assert_allclose(np.expm1(logs.X.toarray()), linear.X.toarray(), rtol=1e-4, atol=1e-4)
    naive = adata[:, :3].X.sum(1)
    assert not np.allclose(naive, logs[:, "CD3D"].X.toarray())  # control


def test_scaled_duplicates_keep_the_first_column_with_a_warning():
    adata = small(np.asarray)
    adata.X = adata.X - 1
    with pytest.warns(
        UserWarning, match="2 columns belong to genes that have a column already. They cannot be summed"
    ):
        result = harmonize_genes(adata)
    assert np.array_equal(result.X, adata.X[:, [7, 1, 0, 2]])


def test_layers_follow():
    adata = small()
    adata.layers["counts"] = adata.X.astype("int64")
    result = harmonize_genes(adata)
    assert np.array_equal(dense(result.layers["counts"]), expected(adata.layers["counts"]))


def test_a_layer_becomes_x():
    adata = small()
    adata.layers["twice"] = adata.X * 2
    result = harmonize_genes(adata, layer="twice")
    assert np.array_equal(dense(result.X), expected(adata.X) * 2)


def test_raw_has_its_own_genes():
    adata = small()
    adata.raw = adata.copy()
    adata = adata[:, ["LYZ", "CD3D"]].copy()
    result = harmonize_genes(adata, use_raw=True)
    assert result.var_names.tolist() == KEPT
    assert result.uns["scellm_harmonize"]["where"] == "adata.raw.var_names"
    assert np.array_equal(dense(result.X), expected(adata.raw.X))


def test_mouse_becomes_human():
    adata = ad.AnnData(
        np.ones((2, 4), np.float32), var=pd.DataFrame(index=["Cd3d", "Ptprc", "mt-Nd1", "Gm1234"])
    )
    result = harmonize_genes(adata)
    assert result.var_names.tolist() == ["CD3D", "MT-ND1", "PTPRC"]
    assert result.uns["scellm_harmonize"]["organism"] == "mouse"


def test_gene_key_and_found_column():
    adata = scellm.datasets.toy_cells(8, n_vars=100)
    symbols = adata.var_names.copy()
    adata.var_names = [f"g{i}_x" for i in range(100)]
    for options in ({}, {"gene_key": "ensembl_id"}):
        result = harmonize_genes(adata, **options)
        assert sorted(result.var_names) == sorted(symbols)
        assert result.uns["scellm_harmonize"]["where"] == "adata.var['ensembl_id']"


def test_order_of_columns_does_not_matter():
    adata = scellm.datasets.toy_cells(8, n_vars=100)
    shuffled = adata[:, np.random.default_rng(0).permutation(100)].copy()
    one, other = harmonize_genes(adata), harmonize_genes(shuffled)
    assert one.var_names.equals(other.var_names)
    assert (one.X != other.X).nnz == 0


def test_views_backed_files_and_other_vocabularies(tmp_path):
    adata = scellm.datasets.toy_cells(8, n_vars=100)
    vocabulary = V.subset(adata.var_names[:10])
    assert harmonize_genes(adata[:4], vocabulary=vocabulary).shape == (4, 10)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    result = harmonize_genes(backed)
    backed.file.close()
    assert (result.X != adata.X).nnz == 0
    result.write_h5ad(tmp_path / "harmonized.h5ad")
    assert ad.read_h5ad(tmp_path / "harmonized.h5ad").uns["scellm_harmonize"]["n_genes"] == 100


@pytest.mark.filterwarnings("ignore:Transforming to str index")  # anndata 0.11, no cells
@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (None, {"layer": "raw"}, KeyError, r"Layer 'raw' is not in `adata.layers`, which has \['counts'\]"),
        (
            None,
            {"gene_key": "symbol"},
            KeyError,
            r"gene_key='symbol' is not a column of `adata.var`, which has \['n'\]",
        ),
        (None, {"use_raw": True}, ValueError, r"`adata.raw` is None. Pass layer='counts'"),
        (None, {"use_raw": True, "layer": "counts"}, ValueError, "name two matrices"),
        ("X", {}, ValueError, r"`adata.X` is None. Pass layer='counts'"),
        (
            "names",
            {},
            ValueError,
            r"`adata.var_names` holds 0 of the 19315 vocabulary genes \(0.0 %, need one\)",
        ),
        ("cells", {}, ValueError, "`adata.X` has 0 cells and 8 genes; need at least one of each"),
        (None, {"organism": "rat"}, ValueError, "organism='rat'"),
    ],
    ids=["layer", "gene_key", "raw", "both", "X-is-None", "no-overlap", "no-cells", "organism"],
)
def test_bad_input(change, options, error, message):
    adata = small()
    adata.layers["counts"] = adata.X.copy()
    if change == "X":
        adata.X = None
    elif change == "names":
        adata.var_names = [f"q{i}_" for i in range(adata.n_vars)]
    elif change == "cells":
        adata = adata[:0].copy()
    with pytest.raises(error, match=message):
        harmonize_genes(adata, **options)


def test_not_an_anndata():
    with pytest.raises(TypeError, match="Need an AnnData object, found DataFrame"):
        harmonize_genes(pd.DataFrame())
