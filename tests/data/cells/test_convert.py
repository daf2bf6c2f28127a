"""Output of Cell Ranger and loom as h5ad: the same cells as when they are read as a whole, in bounded memory."""

import gzip
import tracemalloc

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scellm._formats import read_cells
from scellm.data.cells import _by_rows, _convert

N_CELLS, N_GENES, N_ANTIBODIES = 23, 30, 4


@pytest.fixture
def counts():
    """(cells, genes and antibodies), one cell and one gene without any."""
    rng = np.random.default_rng(0)
    values = rng.poisson(0.4, size=(N_CELLS, N_GENES + N_ANTIBODIES))
    values[5], values[:, 7] = 0, 0
    return sp.csr_matrix(values)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(_convert, "ROWS", 4)
    monkeypatch.setattr(_convert, "ENTRIES", 17)
    monkeypatch.setattr(_by_rows, "AT_ONCE", 13)


def _features():
    kinds = ["Gene Expression"] * N_GENES + ["Antibody Capture"] * N_ANTIBODIES
    return [f"ENSG{i:011d}" for i in range(len(kinds))], [f"gene{i // 2}" for i in range(len(kinds))], kinds


def _write_h5(path, counts, version):
    ids, names, kinds = _features()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        group["data"] = counts.data.astype(np.int32)
        group["indices"] = counts.indices.astype(np.int64)
        group["indptr"] = counts.indptr.astype(np.int64)
        group["shape"] = np.array(counts.shape[::-1], np.int32)
        group["barcodes"] = np.array([f"cell{i}-1" for i in range(len(counts.indptr) - 1)], "S")
        features = group.create_group("features") if version == 3 else group
        features["id" if version == 3 else "genes"] = np.array(ids, "S")
        features["name" if version == 3 else "gene_names"] = np.array(names, "S")
        if version == 3:
            features["feature_type"] = np.array(kinds, "S")
            features["genome"] = np.array(["GRCh38"] * len(ids), "S")


def _write_mtx(folder, counts, *, by_gene=False, prefix="", zipped=True):
    folder.mkdir()
    entries = counts.tocoo()
    order = np.lexsort((entries.row, entries.col) if by_gene else (entries.col, entries.row))
    lines = ["%%MatrixMarket matrix coordinate integer general", "%comment"]
    lines += [f"{counts.shape[1]} {counts.shape[0]} {counts.nnz}"]
    lines += [f"{entries.col[i] + 1} {entries.row[i] + 1} {entries.data[i]}" for i in order]
    texts = {
        "matrix.mtx": lines,
        "barcodes.tsv": [f"cell{i}-1" for i in range(counts.shape[0])],
        "features.tsv" if zipped else "genes.tsv": [
            "\t".join(one) for one in zip(*_features()[: 3 if zipped else 2], strict=True)
        ],
    }
    for name, text in texts.items():
        content = ("\n".join(text) + "\n").encode()
        path = folder / f"{prefix}{name}{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)


def _check_same(path, tmp_path):
    whole = read_cells(path)
    found = ad.read_h5ad(_convert.convert(path, tmp_path / "out.h5ad"))
    pd.testing.assert_frame_equal(found.obs, whole.obs, check_column_type=False)  # there is no column
    pd.testing.assert_frame_equal(found.var.astype(str), whole.var.astype(str))
    assert found.X.format == "csr"
    assert found.X.dtype == np.float32
    assert found.X.has_canonical_format
    assert (found.X != sp.csr_matrix(whole.X)).nnz == 0
    return found


@pytest.mark.parametrize("version", [2, 3])
def test_h5_of_cell_ranger(counts, tmp_path, version):
    _write_h5(tmp_path / "cells.h5", counts, version)
    found = _check_same(tmp_path / "cells.h5", tmp_path)
    n_genes = (
        N_GENES if version == 3 else N_GENES + N_ANTIBODIES
    )  # of version 2 nobody knows which are antibodies
    assert (found.X.toarray() == counts.toarray()[:, :n_genes]).all()
    assert found.var_names[0] == "ENSG00000000000"


@pytest.mark.parametrize("by_gene", [False, True], ids=["by cell", "by gene"])
@pytest.mark.parametrize(("prefix", "zipped"), [("", True), ("GSM1_", True), ("", False)])
def test_folder_of_cell_ranger(counts, tmp_path, by_gene, prefix, zipped):
    _write_mtx(tmp_path / "cells", counts, by_gene=by_gene, prefix=prefix, zipped=zipped)
    found = _check_same(tmp_path / "cells", tmp_path)
    n_genes = N_GENES if zipped else N_GENES + N_ANTIBODIES
    assert (found.X.toarray() == counts.toarray()[:, :n_genes]).all()


@pytest.mark.parametrize("spelling", ["{}\t{}\t{}", "{} {} {} ", "{}  {}   {}", " {} {}\t{}.0"])
def test_spellings_of_a_matrix(counts, tmp_path, spelling):
    _write_mtx(tmp_path / "cells", counts, zipped=False)
    path = tmp_path / "cells" / "matrix.mtx"
    head, note, *lines = path.read_text().splitlines()
    lines[1:] = [spelling.format(*line.split()) for line in lines[1:]]
    path.write_text("\n".join([head, note, *lines]) + "\n")
    found = _check_same(tmp_path / "cells", tmp_path)
    assert (found.X.toarray() == counts.toarray()).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2", "entry 21 of the matrix is '1 2'"),
        ("1 2 3 4", "entry 21 of the matrix is '1 2 3 4'"),
        ("1 2 3 4 5", "matrix cannot be read after entry 17"),
        ("35 1 1", "'35 1 1', which is none of 34 genes and 23 cells"),
        ("1 24 1", "'1 24 1', which is none of"),
        ("0 1 1", "'0 1 1', which is none of"),
        ("1 1 nan", "'1 1', which is none of"),
        ("1.5 1 1", "cannot be read after entry 17"),
        ("1", "cannot be read after entry 17"),
        ("one 1 1", "cannot be read after entry 17.*'one'"),
    ],
)
def test_lines_that_are_no_entries_are_refused(counts, tmp_path, line, message):
    _write_mtx(tmp_path / "cells", counts, zipped=False)
    path = tmp_path / "cells" / "matrix.mtx"
    lines = path.read_text().splitlines()
    lines[3 + 20] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        _convert.convert(tmp_path / "cells", tmp_path / "out.h5ad")


@pytest.mark.parametrize("n_entries", [0, 37])
def test_a_text_that_ends_too_early_is_refused(counts, tmp_path, n_entries):
    _write_mtx(tmp_path / "cells", counts, zipped=False)
    path = tmp_path / "cells" / "matrix.mtx"
    path.write_text("\n".join(path.read_text().split("\n")[: 3 + n_entries]) + "\n")
    with pytest.raises(ValueError, match=rf"ends after {n_entries} of \d+ entries"):
        _convert.convert(tmp_path / "cells", tmp_path / "out.h5ad")


def test_loom(counts, tmp_path):
    dense = counts.toarray()
    with h5py.File(tmp_path / "cells.loom", "w") as file:
        file.create_dataset("matrix", data=dense.T.astype(np.float32), chunks=(8, 8))
        file["col_attrs/CellID"] = np.array([f"cell{i}" for i in range(N_CELLS)], h5py.string_dtype())
        file["col_attrs/depth"] = dense.sum(1)
        file["col_attrs/map"] = np.zeros((N_CELLS, 2))
        file["row_attrs/Gene"] = np.array(_features()[1], h5py.string_dtype())
        file["layers/twice"] = 2 * dense.T
    path = _convert.convert(tmp_path / "cells.loom", tmp_path / "out.h5ad")
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        found = ad.read_h5ad(path)
    assert (found.X.toarray() == dense).all()
    assert (found.layers["twice"].toarray() == 2 * dense).all()
    assert found.obs_names[3] == "cell3"
    assert found.obs["depth"].tolist() == dense.sum(1).tolist()
    assert found.var_names[2] == "gene1"


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_convert, "ROWS", 500)
    counts = sp.random(20_000, 500, density=0.2, format="csr", random_state=0)
    counts.data[:] = 1
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"] = counts.data.astype(np.int32), counts.indices.astype(np.int64)
        group["indptr"], group["shape"] = counts.indptr.astype(np.int64), np.array([500, 20_000])
        group["barcodes"] = np.array([f"cell{i}" for i in range(20_000)], "S")
        for name in ("id", "name", "feature_type", "genome"):
            values = ["Gene Expression"] * 500 if name == "feature_type" else [f"g{i}" for i in range(500)]
            group[f"features/{name}"] = np.array(values, "S")
        n_bytes = 12 * counts.nnz
    read_cells(tmp_path / "cells.h5")  # imports
    tracemalloc.start()
    try:
        _convert.convert(tmp_path / "cells.h5", tmp_path / "out.h5ad")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_bytes == 24_000_000
    assert peak < n_bytes / 2
    assert ad.read_h5ad(tmp_path / "out.h5ad", backed="r").X[0].nnz == counts[0].nnz
