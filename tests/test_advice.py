"""Each line that an error tells people to type is typed here, and leads on."""

import re
import shutil
from types import SimpleNamespace

import anndata
import h5py
import numpy as np
import pandas
import pytest
import scanpy
import scipy.io
import scipy.sparse as sp

import scellm
from scellm._checks import check_anndata, check_key
from scellm._formats import check_readable
from scellm.data import GeneVocabulary, describe_values, match_genes

NAMES = {"anndata": anndata, "np": np, "pandas": pandas, "scanpy": scanpy}
pytestmark = pytest.mark.filterwarnings("ignore:.*names are not unique", "ignore:.*deprecated:FutureWarning")


@pytest.fixture(scope="module")
def toy():
    return scellm.datasets.toy_cells(24, n_vars=4000)


@pytest.fixture
def cells(toy):
    return toy.copy()


def dense(adata):
    adata.X = adata.X.toarray().astype(np.float32)
    return adata


def read(adata, **options):
    """What every tool does first: match the genes, then judge the values."""
    use_raw = options.pop("use_raw", None)
    check_anndata(adata)
    var, X = (adata.raw.var, adata.raw.X) if use_raw else (adata.var, adata.X)
    raw_var = None if use_raw or adata.raw is None else adata.raw.var
    vocabulary = GeneVocabulary.default()
    match = match_genes(var, vocabulary, raw_var=raw_var, obs_names=adata.obs_names, **options)
    values = describe_values(X, obs=adata.obs)
    if not values.usable:
        raise ValueError(values.message)
    return match, values


def joined(toy, **options):
    """Two studies that lack some genes of each other, as dense matrices."""
    parts = [dense(toy[:12, :3500].copy()), dense(toy[12:, 500:].copy())]
    return anndata.concat(parts, keys=["a", "b"], label="study", join="outer", **options)


def genes_in_a_column(adata):
    adata.var = pandas.DataFrame({"label": adata.var_names}, index=[f"q{i}q" for i in range(adata.n_vars)])


def few_genes_beside_raw(adata):
    adata.raw = adata
    return adata[:, :500].copy()


def two_scales(adata):
    counts, logged = adata[:12].copy(), adata[12:].copy()
    scanpy.pp.normalize_total(logged, target_sum=1e4)
    scanpy.pp.log1p(logged)
    return anndata.concat([counts, logged], keys=["a", "b"], label="study")


def log_of_an_offset(adata):
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    adata.X = np.log2(adata.X.toarray().astype(np.float64) + 0.5)


def nothing_but(adata, index, value):
    dense(adata).X[index] = value


def masked(adata):
    X = dense(adata).X
    return SimpleNamespace(X=np.ma.masked_array(X, mask=X > 40), adata=adata)


def antibodies(adata):
    adata.var["feature_types"] = "Antibody Capture"


def barcodes_as_columns(adata):
    adata.obs_names = [
        f"{''.join('ACGT'[int(d)] for d in np.base_repr(i, 4).zfill(16))}-1" for i in range(adata.n_obs)
    ]
    return adata.T.copy()


FAULTS = {
    "transposed": (lambda a: a.T.copy(), "adata.T.copy()"),
    "transposed, barcodes": (barcodes_as_columns, "adata.T.copy()"),
    "genes missing in a study": (joined, "adata[:, ~np.isnan(adata.X).any(axis=0)].copy()"),
    "genes without a value": (
        lambda a: nothing_but(a, np.s_[:, 3:9], np.nan),
        "adata[:, ~np.isnan(adata.X).all(axis=0)].copy()",
    ),
    "cells without a value": (
        lambda a: nothing_but(a, np.s_[2:5], np.nan),
        "adata[~np.isnan(adata.X).all(axis=1)].copy()",
    ),
    "two scales": (two_scales, "adata[adata.obs['study'] == 'a'].copy()"),
    "offset": (lambda a: nothing_but(a, ..., a.X.toarray() + 1), "adata.X = adata.X - adata.X.min()"),
    "offset in a logarithm": (log_of_an_offset, "adata.X = adata.X - adata.X.min()"),
    "antibodies alone": (antibodies, "del adata.var['feature_types']"),
}


@pytest.mark.parametrize(("make", "code"), FAULTS.values(), ids=FAULTS)
def test_what_an_error_says_of_an_object_works(cells, make, code):
    made = make(cells)
    adata = cells if made is None else made
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the code is looked for below
        read(adata)
    assert code in str(refusal.value)
    scope = {**NAMES, "adata": adata}
    exec(code if code.startswith(("del", "adata.X =")) else f"adata = {code}", scope)
    match, values = read(scope["adata"])
    assert match.n_genes >= 3000
    assert values.kind in ("counts", "log1p")


OPTIONS = {
    "a column of names": (genes_in_a_column, "gene_key='label'"),
    "raw has the genes": (few_genes_beside_raw, "use_raw=True"),
    "few genes": (lambda a: a[:, :500].copy(), r"min_overlap=[\d.]+"),
}


@pytest.mark.parametrize(("make", "form"), OPTIONS.values(), ids=OPTIONS)
def test_what_an_error_says_to_pass_works(cells, make, form):
    made = make(cells)
    adata = cells if made is None else made
    with pytest.raises(ValueError, match=form) as refusal:
        scellm.tl.embed(adata)
    option = re.search(form, str(refusal.value)).group().rstrip(".")
    exec(f"scellm.tl.embed(adata, {option})", {"scellm": scellm, "adata": adata})
    assert np.isfinite(adata.obsm["X_scellm"]).all()


def test_fill_value_is_said_where_it_helps(toy):
    with pytest.raises(ValueError, match="fill_value=0"):
        read(joined(toy))
    assert read(joined(toy, fill_value=0))[1].kind == "counts"
    parts = [dense(toy[:12, :2000].copy()), dense(toy[12:, 2000:].copy())]
    apart = anndata.concat(parts, join="outer")
    with pytest.raises(ValueError, match="No gene is in all cells: join with fill_value=0") as refusal:
        read(apart)
    assert "inner" not in str(refusal.value)


def test_masked_values_and_values_that_are_no_numbers(cells):
    found = masked(cells)
    said = describe_values(found.X)
    assert (said.kind, said.n_bad > 0) == ("invalid", True)
    assert "adata.X = adata.X.filled(0)" in said.way_out
    assert describe_values(found.X.filled(0)).kind == "counts"
    X = found.X.data.astype(object)
    assert "adata.X.astype('float32')" in describe_values(X).way_out
    assert describe_values(X.astype("float32")).kind == "counts"
    assert describe_values(np.array([["a", "b"]], dtype=object)).way_out == ""


def test_another_matrix(cells):
    cells.layers["counts"] = cells.X.copy()
    cells.X = None
    with pytest.raises(ValueError, match="Pass layer='counts'"):
        scellm.tl.embed(cells)
    scellm.tl.embed(cells, layer="counts")
    with pytest.raises(ValueError, match=r"Use for instance 'a_b'"):
        check_key("a/b")
    assert check_key("a_b") == "a_b"


def test_two_unknown_kinds_of_features(cells):
    cells.var["feature_types"] = ["A"] * 3000 + ["B"] * 1000
    with pytest.warns(UserWarning, match="not known") as said:
        read(cells)
    code = re.search(r"adata\[:, .*\]", str(said[0].message)).group()
    assert read(eval(code, {"adata": cells}))[0].n_genes == 3000


# -- objects of another kind --------------------------------------------------------------------------------------

OBJECTS = {
    "table": (lambda a: a.to_df(), "anndata.AnnData(table)", "table"),
    "table of genes": (lambda a: a.to_df().T, "anndata.AnnData(table.T)", "table"),
    "array": (lambda a: a.X.toarray(), "anndata.AnnData(X, var=pandas.DataFrame(index=gene_names))", "X"),
    "sparse": (lambda a: a.X, "anndata.AnnData(X, var=pandas.DataFrame(index=gene_names))", "X"),
    "several": (lambda a: [a[:9].copy(), a[9:].copy()], "anndata.concat(adatas, index_unique='-')", "adatas"),
    "raw": (few_genes_beside_raw, "adata.raw.to_adata()", "adata"),
}


@pytest.mark.parametrize(("make", "code", "name"), OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("tool", [scellm.tl.embed, scellm.pp.check_input, scellm.tl.drug_response])
def test_objects_of_another_kind(cells, tool, make, code, name):
    thing = make(cells)
    given = thing.raw if name == "adata" else thing
    with pytest.raises(TypeError, match=r"Need an AnnData object, found \w+") as refusal:
        tool(given)
    assert code in str(refusal.value)
    assert read(eval(code, {**NAMES, name: thing, "gene_names": cells.var_names}))[0].n_genes == 4000


def test_none_and_classes():
    with pytest.raises(TypeError, match="in place return None"):
        check_anndata(None)
    with pytest.raises(TypeError, match="the class AnnData, not an object"):
        check_anndata(anndata.AnnData)


# -- files of another kind ----------------------------------------------------------------------------------------


def write_10x_h5(path, adata, version):
    X = sp.csr_matrix(adata.X)
    names = [name.encode() for name in adata.var_names]
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "hg19")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(X, key).astype(np.int32)
        group["shape"] = np.array([X.shape[1], X.shape[0]])
        group["barcodes"] = [name.encode() for name in adata.obs_names]
        if version == 2:
            group["genes"], group["gene_names"] = names, names
            return
        group["features/id"], group["features/name"] = names, names
        group["features/feature_type"] = [b"Gene Expression"] * len(names)
        group["features/genome"] = [b"GRCh38"] * len(names)


def write_10x_folder(folder, adata, version, prefix=""):
    folder.mkdir(parents=True)
    table, kinds = ("genes.tsv", "") if version == 2 else ("features.tsv", "\tGene Expression")
    rows = "".join(f"{name}\t{name}{kinds}\n" for name in adata.var_names)
    barcodes = "".join(f"{name}\n" for name in adata.obs_names)
    scipy.io.mmwrite(folder / f"{prefix}matrix.mtx", sp.coo_matrix(adata.X.T))
    for name, text in ((table, rows), ("barcodes.tsv", barcodes)):
        (folder / f"{prefix}{name}").write_text(text)
    if version == 3:
        import gzip

        for name in ("matrix.mtx", "features.tsv", "barcodes.tsv"):
            plain = folder / f"{prefix}{name}"
            (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()


FILES = {
    "10x h5": lambda place, a: write_10x_h5(place / "b.h5", a, 3),
    "10x h5 of version 2": lambda place, a: write_10x_h5(place / "b.h5", a, 2),
    "10x folder": lambda place, a: write_10x_folder(place / "b", a, 3),
    "10x folder of version 2": lambda place, a: write_10x_folder(place / "b/hg19", a, 2),
    "10x folder with a sample's name": lambda place, a: write_10x_folder(place / "b", a, 3, "GSM1_"),
    "10x run": lambda place, a: write_10x_folder(place / "b/outs/filtered_feature_bc_matrix", a, 3),
    "csv": lambda place, a: a.to_df().to_csv(place / "b.csv"),
}


@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_files_of_another_kind(tmp_path, cells, write):
    write(tmp_path, cells)
    path = next(one for one in tmp_path.iterdir())
    with pytest.raises(ValueError, match="Read it and write it as .h5ad: ") as refusal:
        check_readable(path)
    code = str(refusal.value).split(".h5ad: ", 1)[1].removesuffix(".")
    eval(code, NAMES)
    written = tmp_path / "b.h5ad"
    assert check_readable(written) == written
    assert read(anndata.read_h5ad(written))[0].n_genes == 4000
    with pytest.raises(TypeError, match="Read it first: ") as refusal:
        scellm.tl.drug_response(str(path))
    adata = eval(str(refusal.value).split("adata = ", 1)[1].removesuffix("."), NAMES)
    assert adata.shape == cells.shape


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet"])
@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_tables_of_results_are_not_read_as_cells(tmp_path, name, kind):
    path, values = tmp_path / name, {"text": "B cell", "numbers": 0.5}[kind]
    column = {"text": "my_types", "numbers": "scellm_malignant"}[kind]
    table = pandas.DataFrame({"scores": [1.0], column: [values]}, index=pandas.Index(["c1"], name="cell"))
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if name.endswith(".tsv") else ",")
    with pytest.raises(ValueError, match="it is a table of results or labels, not of counts") as refusal:
        check_readable(path)
    assert "anndata.io" not in str(refusal.value)
    code = re.search(r"(pandas\..*\))\.$", str(refusal.value)).group(1)
    assert eval(code, NAMES).equals(table)
    with pytest.raises(TypeError, match="not of counts"):
        scellm.tl.drug_response(str(path))


def test_paths_where_objects_are_wanted(tmp_path, cells, monkeypatch):
    cells.write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "a.h5ad", "~/a.h5ad"):
        with pytest.raises(TypeError, match="read_h5ad") as refusal:
            scellm.pp.check_input(path)
        assert eval(str(refusal.value).split("adata = ", 1)[1].removesuffix("."), NAMES).shape == cells.shape
    assert check_readable("~/a.h5ad") == tmp_path / "a.h5ad"
    with pytest.raises(FileNotFoundError, match=r"There is a\.h5ad"):
        check_readable(tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*/none either"):
        check_readable(tmp_path / "none" / "a.h5ad")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        scellm.pp.check_input("none.h5ad")
    shutil.copy(tmp_path / "a.h5ad", tmp_path / "a.h5")
    assert check_readable(tmp_path / "a.h5").suffix == ".h5"  # an AnnData under another name


def test_folders_of_files(tmp_path, cells):
    with pytest.raises(ValueError, match="a folder without any"):
        check_readable(tmp_path)
    cells.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="holds 1 of them") as refusal:
        check_readable(tmp_path)
    assert check_readable(re.search(r"'(.*)'", str(refusal.value)).group(1)).name == "a.h5ad"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.loom", "read_loom"), ("a.h5mu", r'mudata.read_h5mu\(.*\).mod\["rna"\]'), ("a.rds", "anndataR")],
)
def test_files_that_need_other_packages(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=text):
        check_readable(tmp_path / name)
