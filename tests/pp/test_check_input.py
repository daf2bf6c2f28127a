"""check_input: one table that says what embed would do, whatever the data."""

import re
import tracemalloc
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import scellm
from scellm._checks import check_key, get_matrix
from scellm.data import describe_values
from scellm.pp import check_input
from scellm.pp._check_input import _n_empty


@pytest.fixture
def adata():
    return scellm.datasets.toy_cells(40)


def test_raw_counts(adata, capsys):
    table = check_input(adata)
    assert table.index.tolist() == ["X"]
    row = table.loc["X"]
    assert row["values"] == "raw counts"
    assert row["genes"] == "human symbols in var_names"
    assert (row["n_genes"], row["percent_of_vocabulary"]) == (3000, 15.5)
    assert row["embed"] == "normalizes"
    assert row["what_to_type"] == "scellm.tl.embed(adata)"
    printed = capsys.readouterr().out
    assert "40 cells" in printed
    assert "> X" in printed
    assert "3000 (15.5 %)" in printed
    assert "3000 approved symbol" in printed


def test_scaled_x_points_to_the_counts(adata, capsys):
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.raw = adata.copy()
    adata.X = adata.X.toarray()
    sc.pp.scale(adata)
    table = check_input(adata)
    assert table["values"].to_dict() == {
        "X": "scaled",
        "layers['counts']": "raw counts",
        "raw.X": "log1p, base e, 10,000 per cell",
    }
    assert table.loc["X", "embed"] == "refuses: scaled values"
    assert table.loc["X", "what_to_type"] == "scellm.tl.embed(adata, layer='counts')"
    assert table.loc["raw.X", "what_to_type"] == "scellm.tl.embed(adata, use_raw=True)"
    assert table.loc["raw.X", "embed"] == "undoes the logarithm, normalizes"
    assert "Instead: scellm.tl.embed(adata, layer='counts')" in capsys.readouterr().out
    check_input(adata, layer="counts")
    assert "> layers['counts']" in capsys.readouterr().out
    check_input(adata, use_raw=True)
    assert "> raw.X" in capsys.readouterr().out


def test_scaled_x_alone_says_how_to_go_on(adata):
    sc.pp.log1p(adata)
    adata.X = adata.X.toarray()
    sc.pp.scale(adata)
    assert "run embed before sc.pp.scale" in check_input(adata).loc["X", "what_to_type"]


def test_gene_key_is_in_the_call(adata):
    adata.var_names = [f"g{i}_" for i in range(adata.n_vars)]
    table = check_input(adata, gene_key="ensembl_id")
    assert table.loc["X", "genes"] == "human Ensembl ids in var['ensembl_id']"
    assert table.loc["X", "what_to_type"] == "scellm.tl.embed(adata, gene_key='ensembl_id')"


def test_empty_cells_are_counted(adata):
    adata.X = sp.diags_array(np.r_[1, 1, 1, 0, 0, np.ones(35)]).tocsr() @ adata.X
    assert check_input(adata).loc["X", "embed"] == "normalizes; NaN for 2 empty cells"
    adata.X = adata.X.toarray()
    assert check_input(adata).loc["X", "embed"] == "normalizes; NaN for 2 empty cells"


@pytest.fixture
def many():
    """2,300 cells, more than are examined; three of them empty."""
    adata = scellm.datasets.toy_cells(2300)
    keep = np.ones(2300, np.float32)
    keep[[5, 1100, 2299]] = 0
    adata.X = sp.diags_array(keep).tocsr() @ adata.X
    return adata


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, np.asfortranarray])
def test_cells_in_memory_are_all_asked_whether_they_are_empty(many, container):
    counts = many.X.toarray()
    X = container(counts)
    is_read = np.arange(many.n_vars) != 3
    counts[17] = 0
    counts[17, 3] = 1  # only a gene that is not read
    assert _n_empty(X, np.ones(many.n_vars, bool)) == 3
    assert _n_empty(container(counts), is_read) == 4
    assert _n_empty(container(counts), np.ones(many.n_vars, bool)) == 3


def test_dense_matrices_are_not_copied_to_count_empty_cells():
    X = np.zeros((20_000, 500), np.float32)
    X[1:, 0] = 1
    tracemalloc.start()
    assert _n_empty(X, np.ones(500, bool)) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 5  # a mask of all values would take a quarter


def test_details_say_how_many_cells_were_examined(many, tmp_path, capsys):
    row = check_input(many).loc["X"]
    assert row["embed"] == "normalizes; NaN for 3 empty cells"
    assert row["details"].endswith(" 2,000 of 2,300 cells examined, all for NaN and negative values.")
    few = check_input(many[:2000].copy()).loc["X"]
    assert "examined" not in few["details"]
    many.write_h5ad(tmp_path / "a.h5ad")
    capsys.readouterr()
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    row = check_input(backed).loc["X"]
    backed.file.close()
    assert row["embed"] == "normalizes"
    assert row["details"].endswith(" 2,000 of 2,300 cells examined. Empty cells were not counted.")
    assert "2,000 of 2,300 cells examined." in " ".join(capsys.readouterr().out.split())


def test_empty_cells_of_small_files_are_counted(many, tmp_path):
    many[:1500].write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    row = check_input(backed).loc["X"]
    backed.file.close()
    assert row["embed"] == "normalizes; NaN for 2 empty cells"
    assert "counted" not in row["details"]


def test_cells_with_unread_genes_only_are_empty(adata):
    adata.X = adata.X.toarray()
    adata.X[3] = 0
    adata.X[3, 7] = 5
    names = adata.var_names.tolist()
    names[7] = "MALAT1"
    adata.var_names = names
    assert check_input(adata).loc["X", "embed"] == "normalizes; NaN for 1 empty cells"


def test_logs_with_genes_missing_are_normalized_again(adata):
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    table = check_input(adata[:, :2500].copy())
    assert table.loc["X", "values"] == "log1p, base e"
    assert table.loc["X", "embed"] == "undoes the logarithm, normalizes"


def test_nan_is_located_by_name(adata):
    adata.X = adata.X.toarray()
    adata.X[2, 1] = np.nan
    table = check_input(adata)
    assert table.loc["X", "embed"] == "refuses: invalid values"
    assert f"cell 'cell2', gene '{adata.var_names[1]}'" in table.loc["X", "details"]


def test_few_genes_and_raw_that_has_more(adata):
    adata.raw = adata.copy()
    table = check_input(adata[:, :300].copy())
    assert table.loc["X", "embed"] == "refuses: too few genes, or names that are none"
    assert table.loc["X", "what_to_type"] == "scellm.tl.embed(adata, use_raw=True)"


def test_mouse(capsys):
    symbols = [s.capitalize() for s in scellm.data.GeneVocabulary.default().symbols[::5] if s.isalnum()]
    adata = ad.AnnData(np.ones((2, len(symbols)), np.float32), var=pd.DataFrame(index=symbols))
    table = check_input(adata)
    assert table.loc["X", "genes"] == "mouse symbols in var_names"
    assert "mouse gene with one human ortholog" in capsys.readouterr().out


def test_headings_of_the_how_to_are_real_messages(many):
    page = Path(__file__).parents[2] / "docs" / "howto" / "refused-input.md"
    if not page.is_file():
        pytest.skip("the documentation is not beside the tests")
    few = ad.AnnData(many.X[:, :12], var=pd.DataFrame(index=many.var_names[:12]))
    log = np.random.default_rng(0).gamma(1.0, 1.0, (50, 60))
    said = [describe_values(X).message for X in (-log, log)] + [check_input(few).loc["X", "what_to_type"]]
    said += check_input(many).loc["X", ["details", "embed"]].tolist()
    headings = re.findall(r'^## "(.*)"$', page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == 5
    for heading in headings:
        parts = [re.escape(part) for part in re.sub(r"[\d,]*\d", "#", heading).split("...")]
        found = [re.search(".*".join(parts), re.sub(r"[\d,]*\d", "#", text)) for text in said]
        assert any(found), heading


@pytest.mark.parametrize(
    ("X", "values"),
    [
        (None, "absent"),
        (np.full((3, 2), -1.0), "scaled"),
        (np.zeros((3, 2)), "empty"),
        (np.array([[np.inf, 1]] * 3), "invalid"),
        (sp.csc_matrix(np.ones((3, 2), np.int8)), "raw counts"),
        (np.array([[1.0019, 2.0038], [3.0057, 1.0019], [1.0019, 5.0095]]), "counts, not whole"),
    ],
    ids=["None", "negative", "zeros", "infinite", "csc-int8", "1.0019"],
)
def test_bad_data_is_reported_not_raised(X, values):
    adata = ad.AnnData(X, obs=pd.DataFrame(index=list("abc")), var=pd.DataFrame(index=["q1_", "q2_"]))
    row = check_input(adata).loc["X"]
    assert row["values"] == values
    assert row["embed"].startswith("refuses")
    assert (row["n_genes"], row["percent_of_vocabulary"]) == (0, 0)


@pytest.mark.filterwarnings("ignore:Transforming to str index")  # anndata 0.11, no cells
def test_no_cells_and_one_cell(adata):
    assert check_input(adata[:0].copy()).loc["X", "values"] == "empty"
    assert check_input(adata[:1].copy()).loc["X", "values"] == "raw counts"


def test_numbers_as_names(adata):
    adata.var = pd.DataFrame(index=adata.var_names)
    adata.var.index = pd.Index(range(adata.n_vars))
    row = check_input(adata).loc["X"]
    assert row["genes"] == "names are not genes"
    assert "name 0 is 0 (int)" in row["what_to_type"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "counts"}, KeyError, r"Layer 'counts' is not in `adata.layers`, which has \[\]"),
        (
            {"gene_key": "x"},
            KeyError,
            r"gene_key='x' is not a column of `adata.var`, which has \['ensembl_id'\]",
        ),
        ({"use_raw": True}, ValueError, "use_raw=True, but `adata.raw` is None. Leave use_raw out"),
    ],
    ids=["layer", "gene_key", "raw"],
)
def test_wrong_keys_are_errors(adata, options, error, message):
    with pytest.raises(error, match=message):
        check_input(adata, **options)


def test_nothing_is_written(adata):
    adata.layers["counts"] = adata.X.copy()
    before = adata.copy()
    check_input(adata)
    assert adata.var.equals(before.var)
    assert adata.obs.equals(before.obs)
    assert list(adata.uns) == list(before.uns)
    assert (adata.X != before.X).nnz == 0


# -- the shared checks ----------------------------------------------------------------------------------------


def test_get_matrix_returns_what_is_named(adata):
    adata.layers["counts"] = adata.X * 2
    adata.raw = adata[:, :5].copy()
    assert get_matrix(adata)[2] == "adata.X"
    X, var, where = get_matrix(adata, "counts")
    assert (X.sum(), where) == (adata.X.sum() * 2, "adata.layers['counts']")
    X, var, where = get_matrix(adata, None, True)
    assert (X.shape, len(var), where) == ((40, 5), 5, "adata.raw.X")


@pytest.mark.parametrize(
    "key", ["a/b", "/x", "", ".", "..", "a\0b", "\0", "a\nb", "a\tb", "\x7f", "\x85", "a\ud800"], ids=ascii
)
def test_keys_that_h5ad_cannot_hold(key):
    with pytest.raises(ValueError, match="cannot be written to h5ad"):
        check_key(key)


def test_check_key():
    for key in ("X_scellm", "X.1", "...", "Zellen für später", "X 2"):
        assert check_key(key) == key
    with pytest.raises(ValueError, match="Use for instance 'X_scellm'"):
        check_key("..")
    with pytest.raises(ValueError, match="control character. Use for instance 'X_2'"):
        check_key("X\n2")
    with pytest.raises(ValueError, match="Use for instance 'a_b'"):
        check_key("a/b")
    with pytest.raises(TypeError, match=r"found 3 \(int\)"):
        check_key(3)


def test_says_whether_the_genes_suffice_for_copy_number(capsys):
    vocabulary = scellm.data.GeneVocabulary.default()
    for n, expected in (
        (900, "too few: tl.malignancy needs 1,000"),
        (3000, "enough if most"),
        (9000, "enough."),
    ):
        adata = scellm.datasets.toy_cells(4, n_vars=1950)
        genes = [str(name) for name in vocabulary.symbols[::2][:n]]
        wide = ad.AnnData(np.ones((4, n), dtype=np.float32), obs=adata.obs, var=pd.DataFrame(index=genes))
        scellm.pp.check_input(wide)
        found = " ".join(capsys.readouterr().out.split())
        assert "Copy number: " in found
        assert expected in found
