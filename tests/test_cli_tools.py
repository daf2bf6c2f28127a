"""Commands over many files: options made from the functions, results as files, one bad file among good ones."""

import inspect
import json
import re
import subprocess
import sys
import warnings
from contextlib import ExitStack

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

import scellm
from scellm._cli import main
from scellm._cli_fit import FITS
from scellm._cli_signature import NOT_OPTIONS, read_tool
from scellm._cli_tools import TOOLS
from scellm._cli_work import _said
from scellm._formats import sample_name

pytestmark = pytest.mark.filterwarnings("ignore:These cells do not fit")  # toy cells are of no tissue


@pytest.fixture(scope="module")
def cells():
    """Forty cells of three types with a column of the user's."""
    adata = scellm.datasets.toy_cells(40, n_vars=1950)
    adata.obs["mine"] = pd.Categorical(["x", "y"] * 20)
    return adata


@pytest.fixture
def folder(cells, tmp_path):
    cells.write_h5ad(tmp_path / "one.h5ad")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2 data")
        cells[:30].copy().write_zarr(tmp_path / "two.zarr")
    _write_10x(cells[:20], tmp_path / "three" / "filtered_feature_bc_matrix")
    (tmp_path / "bad.h5ad").write_text("no AnnData")
    return tmp_path


def _write_10x(cells, folder):
    folder.mkdir(parents=True)
    scipy.io.mmwrite(folder / "matrix.mtx", sp.csr_matrix(cells.X.T).astype(np.int64))
    (folder / "barcodes.tsv").write_text("\n".join(cells.obs_names) + "\n")
    ids = scellm.data.GeneVocabulary.default()
    known = dict(zip(ids.symbols, ids.ensembl_ids, strict=True))
    genes = [f"{known[name]}\t{name}\tGene Expression" for name in cells.var_names]
    (folder / "features.tsv").write_text("\n".join(genes) + "\n")
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        subprocess.run(["gzip", str(folder / name)], check=True)


@pytest.mark.parametrize("name", TOOLS)
def test_options_are_those_of_the_function(name):
    parameters = inspect.signature(getattr(scellm.tl, name)).parameters
    tool = read_tool(name)
    assert [x.name for x in tool.options] == [x for x in parameters if x not in NOT_OPTIONS]
    for option in tool.options:
        assert option.help, f"{name}: {option.name} is not described"
        if not option.is_required:
            assert option.default == parameters[option.name].default
    assert inspect.getdoc(getattr(scellm.tl, name)).startswith(tool.summary.split(".")[0][:40])


@pytest.mark.parametrize("name", TOOLS)
def test_help_needs_nothing_heavy(name):
    code = f"import sys\nfrom scellm._cli import main\ntry:\n    main([{name.replace('_', '-')!r}, '--help'])\nexcept SystemExit:\n    print({{'torch', 'anndata', 'pandas', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")
    assert f"options of scellm.tl.{name}" in done.stdout


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_several_formats_and_one_bad_file(cells, folder, capsys):
    inputs = [str(folder / name) for name in ("one.h5ad", "two.zarr", "three", "bad.h5ad")]
    before = (folder / "one.h5ad").read_bytes()
    out = folder / "out"
    code = main(["annotate", *inputs, "-o", str(out), "--log", str(folder / "log.json"), "--quiet"])
    assert code == 1
    told = capsys.readouterr().err
    assert "bad.h5ad" in told
    assert "1 of 4 files failed" in told
    assert sorted(path.name for path in out.glob("[!.]*")) == ["one.h5ad", "three.h5ad", "two.zarr"]
    assert (folder / "one.h5ad").read_bytes() == before
    expected = cells.copy()
    scellm.tl.annotate(expected)
    one, two, three = (
        ad.read_h5ad(out / "one.h5ad"),
        ad.io.read_zarr(out / "two.zarr"),
        ad.read_h5ad(out / "three.h5ad"),
    )
    key = "scellm_cell_type"
    assert one.obs[key].astype(str).tolist() == expected.obs[key].astype(str).tolist()
    assert one.obs["mine"].tolist() == cells.obs["mine"].tolist()
    assert set(expected.uns) <= set(one.uns)
    assert (two.n_obs, three.n_obs) == (30, 20)
    assert key in two.obs
    assert key in three.obs
    lines = [json.loads(line) for line in (folder / "log.json").read_text().splitlines()]
    assert ["error" in line for line in lines] == [False, False, False, True]


def test_nothing_is_overwritten_unasked(folder, capsys):
    out = folder / "labeled.h5ad"
    words = ["annotate", str(folder / "one.h5ad"), "-o", str(out), "--quiet"]
    assert main(words) == 0
    stamp = out.stat().st_mtime_ns
    assert main(words) == 1
    assert "Pass --overwrite to replace it, or --skip-done" in capsys.readouterr().err
    assert main([*words, "--skip-done"]) == 0
    assert out.stat().st_mtime_ns == stamp
    assert main([*words, "--overwrite"]) == 0
    assert out.stat().st_mtime_ns > stamp
    assert main(["annotate", str(out), "-o", str(out), "--overwrite"]) == 1
    assert "is the input itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("donor1/outs", "donor1"),
        ("donor1/outs/filtered_feature_bc_matrix", "donor1"),
        ("donor1/outs/filtered_feature_bc_matrix.h5", "donor1"),
        ("run/outs/per_sample_outs/donor2/count/sample_filtered_feature_bc_matrix", "donor2"),
        ("old/outs/filtered_gene_bc_matrices/GRCh38", "old"),
        ("a.b.h5ad", "a.b"),
        ("outs.h5ad", "outs"),
        ("plain", "plain"),
    ],
)
def test_results_are_named_by_the_sample(tmp_path, path, name):
    assert sample_name(tmp_path / path) == name


def test_samples_of_cell_ranger_do_not_share_an_output(cells, tmp_path, capsys):
    for name in ("a", "b"):
        _write_10x(cells[:20], tmp_path / name / "outs" / "filtered_feature_bc_matrix")
    out = tmp_path / "out"
    words = ["annotate", str(tmp_path / "*" / "outs"), "-o", str(out), "--table", "csv"]
    assert main(words) == 0
    assert sorted(path.name for path in out.glob("*.csv")) == ["a.csv", "b.csv"]
    told = capsys.readouterr()
    assert f"{tmp_path / 'a' / 'outs'} -> {out / 'a.csv'}: 20 cells: " in told.out
    assert "20 cells: " not in told.err  # once is enough


def test_an_empty_name_of_an_array_is_refused(tmp_path, capsys):
    assert main(["annotate", "", "-o", str(tmp_path / "out")]) == 1
    assert "An input has no name. In an array of jobs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_of_a_list_are_named_in_the_singular():
    done = subprocess.run(
        [sys.executable, "-m", "scellm", "annotate", "--help"], capture_output=True, text=True, check=True
    )
    assert "--classes CLASS]" in done.stdout
    assert "--columns COLUMN]" in " ".join(
        subprocess.run(
            [sys.executable, "-m", "scellm", "search", "--help"], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_inputs_that_would_share_an_output(folder, capsys):
    (folder / "b").mkdir()
    (folder / "b" / "one.h5ad").write_bytes((folder / "one.h5ad").read_bytes())
    words = ["annotate", str(folder / "one.h5ad"), str(folder / "b" / "one.h5ad"), "-o", str(folder / "out")]
    assert main(words) == 1
    assert "would both be written to" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_table_and_a_pattern(folder):
    code = main(["drug-response", str(folder / "o*.h5ad"), "-o", str(folder / "t"), "--drugs", "Erlotinib", "--min-overlap", "0.01", "--table", "csv", "--quiet"])  # fmt: skip
    assert code == 0
    table = pd.read_csv(folder / "t" / "one.csv", index_col="cell")
    assert len(table) == 40
    assert any("Erlotinib" in name for name in table)
    assert main(["annotate", str(folder / "z*.h5ad"), "-o", str(folder / "t")]) == 1


def test_results_of_loom_need_a_place(folder, capsys):
    (folder / "cells.loom").write_bytes(b"0")
    assert main(["embed", str(folder / "cells.loom")]) == 1
    assert (
        "Results of cells.loom are written as .h5ad. Name a file or folder for them with -o."
        in capsys.readouterr().err
    )


def test_large_output_of_cell_ranger_is_converted_and_read_by_rows(folder, capsys, monkeypatch):
    from scellm import _containers
    from scellm.data.cells import _rows

    plain, streamed = str(folder / "plain"), str(folder / "streamed")
    assert main(["embed", str(folder / "three"), "-o", plain, "--quiet"]) == 0
    monkeypatch.setattr(_containers, "LARGE", 0)
    monkeypatch.setattr(_containers, "read_any", None)  # nothing is read as a whole
    with ExitStack() as stack:
        with pytest.warns(UserWarning, match=r"is large .* It is written as \.h5ad once"):
            X = stack.enter_context(_containers.opened(folder / "three")).X
        assert not isinstance(X, np.ndarray)
        assert not sp.issparse(X)
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=".*is large and cannot be read by cells")
        assert main(["embed", str(folder / "three"), "-o", streamed, "--quiet"]) == 0
    assert "scellm: warning: " in capsys.readouterr().err
    one, two = (ad.read_h5ad(f"{place}/three.h5ad") for place in (plain, streamed))
    np.testing.assert_allclose(one.obsm["X_scellm"], two.obsm["X_scellm"], atol=1e-6)
    assert one.uns["X_scellm"]["fingerprint"] == two.uns["X_scellm"]["fingerprint"]
    assert (one.X != two.X).nnz == 0
    pd.testing.assert_frame_equal(one.var, two.var)
    assert _rows.check_readable(folder / "streamed" / "three.h5ad")
    monkeypatch.setattr(_containers.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 10})())
    assert main(["embed", str(folder / "three"), "-o", str(folder / "full")]) == 1
    assert "The disk is too full" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["one.h5ad", "two.zarr"])
def test_matrices_stay_on_the_disk(folder, monkeypatch, name):
    from scellm._containers import opened
    from scellm.data.cells import _expression

    seen = []
    plain = _expression.row_blocks
    monkeypatch.setattr(_expression, "row_blocks", lambda X, n: seen.append(X) or plain(X, n))
    with opened(folder / name) as adata:
        quiet(scellm.tl.annotate, adata)
        quiet(scellm.tl.malignancy, adata, show_progress=False)
        assert "scellm_malignant" in adata.obs
    assert len(seen) > 1
    assert not any(sp.issparse(X) or isinstance(X, np.ndarray) for X in seen)


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(*args, **options)


def test_columns_are_in_the_order_of_the_file(folder):
    out = folder / "labeled.h5ad"
    assert main(["annotate", str(folder / "one.h5ad"), "-o", str(out), "--quiet"]) == 0
    with h5py.File(out) as file:
        order = list(file["obs"].attrs["column-order"])
    assert order.index("mine") < order.index("scellm_cell_type")
    assert len(order) == len(set(order))


def test_a_table_is_not_written_into_a_file_of_another_kind(folder, capsys):
    words = ["annotate", str(folder / "one.h5ad"), "-o", str(folder / "out.h5ad"), "--table", "csv"]
    assert main(words) == 1
    assert "out.h5ad is none. Name it out.csv, or a folder." in capsys.readouterr().err
    assert not (folder / "out.h5ad").exists()


def test_malignancy_says_its_verdict():
    samples = {"sample": ["a"], "verdict": ["an aneuploid population"]}
    results = {"uns": {"scellm_malignant": {"message": "", "samples": samples}}}
    assert _said("malignancy", results, "scellm_malignant", 5) == "5 cells. an aneuploid population"


@pytest.mark.filterwarnings("always:40 of 40 cells are in the index")
def test_an_index_and_a_search(folder, capsys):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    index = str(folder / "index")
    assert main(["index", str(folder / "one.h5ad"), "-o", index, "--columns", "cell_type"]) == 0
    assert "40 cells of 1 files; columns: cell_type, dataset" in capsys.readouterr().out
    words = ["search", str(folder / "one.h5ad"), "-o", str(folder / "s.h5ad"), "--index", index, "--k", "3"]
    assert main(words) == 0
    assert "warning: 40 of 40 cells are in the index themselves" in capsys.readouterr().err
    assert main([*words, "--no-exclude-self", "--overwrite"]) == 0
    found = ad.read_h5ad(folder / "s.h5ad")
    assert (
        found.obs["scellm_search_cell_type"].astype(str).tolist()
        == found.obs["cell_type"].astype(str).tolist()
    )
    assert main(["index", str(folder / "one.h5ad"), "-o", index, "--columns", "cell_type"]) == 1


@pytest.mark.filterwarnings(
    "ignore:Writing zarr v2 data", "always:'one-2' holds the same values", "always:The index has a dataset"
)
def test_an_index_of_files_of_which_one_is_damaged(folder, capsys):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    from scellm.atlas import open_index

    inputs = [str(folder / name) for name in ("one.h5ad", "bad.h5ad", "three")]
    log = folder / "log.jsonl"
    words = ["-o", str(folder / "index"), "--columns", "cell_type", "--log", str(log)]
    assert main(["index", *inputs, *words]) == 1
    told = capsys.readouterr()
    assert "60 cells of 2 files" in told.out
    assert told.err.count("bad.h5ad") >= 2  # the reason, and at the end
    assert "1 of 3 files failed" in told.err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["done", "failed", "done"]
    assert [line.get("cells") for line in lines] == [40, None, 20]
    index = open_index(folder / "index")
    assert index.column("dataset").tolist() == ["one"] * 40 + ["three"] * 20
    assert index.column("cell_type")[:40].notna().all()

    again = ["index", inputs[0], str(folder / "two.zarr"), *words, "--skip-done"]
    assert main(again) == 0
    told = capsys.readouterr().out
    assert "one.h5ad: skipped, it is in" in told
    assert "90 cells of 3 files" in told
    assert main(again) == 0
    assert "cells of" not in capsys.readouterr().out.replace("is in", "")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["done", "failed", "done", "done"]
    assert main([*again, "--min-overlap", "0.05"]) == 1
    assert "made otherwise; what differs: --min-overlap" in capsys.readouterr().err
    assert main(["index", inputs[1], "-o", str(folder / "none"), "--columns", "cell_type"]) == 1
    assert not (folder / "none").exists()
    assert main(["index", inputs[0], "-o", str(folder / "index"), "--append", "--quiet"]) == 0
    told = capsys.readouterr().err
    assert "'one-2' holds the same values as 'one'" in told
    assert "The index has a dataset 'one' already; this one is named 'one-2' in it." in told
    names = open_index(folder / "index").column("dataset")
    assert names.value_counts().to_dict() == {"one": 40, "one-2": 40, "three": 20, "two": 30}


def test_columns_of_an_index_are_refused_before_files_are_read(folder, monkeypatch, capsys):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    from scellm.tl._gathering import Gathering

    inputs = [str(folder / name) for name in ("one.h5ad", "bad.h5ad", "three")]
    words = ["index", *inputs, "-o", str(folder / "index"), "--columns", "mine"]
    with monkeypatch.context() as patch:
        patch.setattr(Gathering, "add", pytest.fail)
        assert main([*words, "--columns", "tissue"]) == 1
    told = capsys.readouterr().err
    assert "None of the data has obs['tissue'], so nothing was read. Columns there are: one: [" in told
    assert "'mine']; three: []." in told
    assert main(words) == 1  # because of the bad file alone
    told = capsys.readouterr()
    assert f"{inputs[2]}: lacks mine; its cells have no value there." in told.out
    assert f"{inputs[0]}: lacks" not in told.out
    assert "1 of 3 files failed" in told.err


def _index_log(folder, *words):
    """The exit code and the lines of the log of `scellm index` on two files."""
    log = folder / "log.jsonl"
    inputs = [str(folder / name) for name in ("one.h5ad", "three")]
    code = main(["index", *inputs, "-o", str(folder / "index"), "--log", str(log), "--quiet", *words])
    return code, [json.loads(line) for line in log.read_text().splitlines()]


def test_the_log_of_an_index_names_the_model(folder):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    model = scellm.models.load("scellm-small")
    code, lines = _index_log(folder, "--columns", "cell_type")
    assert (code, [line["outcome"] for line in lines]) == (0, ["done", "done"])
    assert {(line["model"], line["model_sha256"]) for line in lines} == {(model.name, model.sha256)}
    code, lines = _index_log(folder, "--columns", "cell_type", "--model", str(folder / "no-model"))
    assert (code, [line["outcome"] for line in lines]) == (1, ["failed", "failed"])
    assert all("no-model" in line["error"] for line in lines)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError("no room"), 1, "The index was not written: no room"),
        (KeyboardInterrupt(), 130, "The index was not written: interrupted"),
    ],
)
@pytest.mark.parametrize("place", ["write", "add"])
def test_the_log_says_when_the_index_was_not_written(folder, monkeypatch, place, error, code, message):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    from scellm.tl._gathering import Gathering

    add = Gathering.add

    def fails(self, *args, **kwargs):
        if place == "write" or args[0] == "three":
            raise error
        return add(self, *args, **kwargs)

    monkeypatch.setattr(Gathering, place, fails)
    found, lines = _index_log(folder, "--columns", "cell_type")
    assert found == code
    if place == "add":  # what is through is kept
        assert [line["outcome"] for line in lines] == ["done", "failed"][: 2 if code == 1 else 1]
        assert [line.get("error") for line in lines] == [None, "no room"][: len(lines)]
        assert (folder / "index").exists()
        return
    assert [(line["outcome"], line["error"]) for line in lines] == [("failed", message)] * 2
    assert lines[0]["cells"] == 40
    assert lines[0]["model"] == "scellm-small"
    assert not any("summary" in line for line in lines)
    assert not (folder / "index").exists()


def test_an_interrupted_index_keeps_the_files_that_are_through(folder, monkeypatch, capsys):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    from scellm.atlas import open_index
    from scellm.tl._gathering import Gathering

    add = Gathering.add

    def fails(self, *args, **kwargs):
        if args[0] == at:
            raise KeyboardInterrupt
        return add(self, *args, **kwargs)

    monkeypatch.setattr(Gathering, "add", fails)
    inputs = [str(folder / name) for name in ("one.h5ad", "bad.h5ad", "three")]
    words = ["-o", str(folder / "index"), "--columns", "cell_type", "--quiet"]
    at = "one"
    assert main(["index", *inputs, *words]) == 130
    assert "interrupted; no file was changed" in capsys.readouterr().err
    assert not (folder / "index").exists()
    at = "three"
    assert main(["index", *inputs, *words]) == 130
    told = capsys.readouterr().err
    assert f"interrupted; 1 of 3 files are in {folder / 'index'}. Go on with --skip-done." in told
    assert open_index(folder / "index").n_cells == 40
    stamp = (folder / "index" / "manifest.json").stat().st_mtime_ns
    assert main(["index", *inputs, *words, "--skip-done"]) == 130  # nothing new: it stays as it is
    assert (folder / "index" / "manifest.json").stat().st_mtime_ns == stamp
    assert main(["index", *inputs, *words, "--overwrite"]) == 130  # the whole index is not replaced by a part
    assert (folder / "index" / "manifest.json").stat().st_mtime_ns == stamp
    monkeypatch.undo()
    assert main(["index", inputs[0], inputs[2], *words, "--skip-done"]) == 0
    assert open_index(folder / "index").column("dataset").tolist() == ["one"] * 40 + ["three"] * 20


def test_the_log_of_an_index_that_was_written_before_the_interruption(folder, monkeypatch):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    from scellm.tl._gathering import Gathering

    write = Gathering.write

    def interrupted(self, rng):
        write(self, rng)
        raise KeyboardInterrupt

    monkeypatch.setattr(Gathering, "write", interrupted)
    code, lines = _index_log(folder, "--columns", "cell_type")
    assert code == 130
    assert [line["outcome"] for line in lines] == ["done", "done"]
    assert (folder / "index").exists()


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_columns_of_an_index_may_be_typed_or_not(folder, capsys):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    one, two, index = (str(folder / name) for name in ("one.h5ad", "two.zarr", "index"))
    words = ["-o", index, "--quiet"]
    assert main(["index", one, *words, "--columns", "mine", "--columns", "cell_type"]) == 0
    assert main(["index", two, *words, "--append"]) == 0
    same = ["--skip-done", "--columns", "cell_type", "--columns", "mine"]
    assert main(["index", one, two, *words, *same]) == 0
    assert main(["index", one, two, *words, "--skip-done"]) == 0
    capsys.readouterr()
    assert main(["index", one, two, *words, "--skip-done", "--columns", "mine"]) == 1
    assert "made otherwise; what differs: --columns" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--append", "--skip-done"])
def test_the_advice_for_an_index_of_another_format_works(folder, capsys, option):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    words = ["index", str(folder / "one.h5ad"), "-o", str(folder / "index"), "--columns", "cell_type"]
    assert main(words) == 0
    assert main(words) == 1
    assert "Pass --append to add to it, or --overwrite to replace it." in capsys.readouterr().err
    (folder / "index" / "manifest.json").write_text(json.dumps({"format": 1}))
    assert main([*words, option]) == 1
    told = capsys.readouterr().err
    assert "has format 1" in told
    assert f"Build the index again with scellm index and --overwrite instead of {option}." in told
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_log_says_what_was_done_with_each_file(folder, capsys, jobs):
    model = scellm.models.load("scellm-small")
    strange = ad.read_h5ad(folder / "one.h5ad")
    strange.var_names = strange.var_names[np.random.default_rng(0).permutation(strange.n_vars)]
    strange.write_h5ad(folder / "one.h5ad")
    log = folder / "log.jsonl"
    inputs = [str(folder / name) for name in ("one.h5ad", "two.zarr", "bad.h5ad")]
    words = [*inputs, "-o", str(folder / "out"), "--log", str(log), "--min-overlap", "0.05", "--jobs", jobs]
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="These cells do not fit")
        assert main(["annotate", *words]) == 1
    one, two, bad = (json.loads(line) for line in log.read_text().splitlines())
    assert (one["file"], one["output"], one["tool"]) == (
        inputs[0],
        str(folder / "out" / "one.h5ad"),
        "annotate",
    )
    assert [line["outcome"] for line in (one, two, bad)] == ["done", "done", "failed"]
    assert (one["cells"], two["cells"]) == (40, 30)
    assert one["genes_matched"] == two["genes_matched"] == 1950
    assert 0 < one["gene_coverage"] < 1
    assert (one["model"], one["model_sha256"]) == ("scellm-small", model.sha256)
    assert one["options"] == {"min_overlap": 0.05}
    assert one["versions"]["scellm"] == scellm.__version__
    assert {"python", "torch", "anndata", "numpy"} <= set(one["versions"])
    assert one["summary"].startswith(inputs[0])
    assert 0 < one["processor_seconds"] < 600
    assert one["seconds"] > 0
    assert 0.1 < one["peak_memory_gib"] < 100
    told = capsys.readouterr().err
    assert one["warnings"]  # of cells that do not fit
    assert all(f"scellm: warning: {text}" in told for text in (*one["warnings"], *two["warnings"]))
    assert bad["error"]
    assert f"scellm: {inputs[2]}: {bad['error']}" in told
    assert "summary" not in bad
    log.unlink()
    assert main(["annotate", *words[:2], *words[3:], "--skip-done"]) == 0
    assert [json.loads(line)["outcome"] for line in log.read_text().splitlines()] == ["skipped", "skipped"]


def test_the_log_of_a_model(folder, capsys):
    log = folder / "log.jsonl"
    words = ["fit-reference", str(folder / "one.h5ad"), "-o", str(folder / "types"), "--log", str(log)]
    assert main([*words, "--labels", "nothing"]) == 1
    line = json.loads(log.read_text())
    assert line["outcome"] == "failed"
    assert line["error"] in capsys.readouterr().err
    assert main([*words, "--labels", "cell_type", "--method", "linear", "--min-overlap", "0.01"]) == 0
    line = json.loads(log.read_text())
    assert (line["outcome"], line["cells"], line["output"]) == ("done", 40, str(folder / "types"))
    assert line["options"] == {"labels": "cell_type", "method": "linear", "min_overlap": 0.01}


def test_a_reference_of_ones_own(cells, folder, capsys):
    words = ["fit-reference", str(folder / "one.h5ad"), "-o", str(folder / "types"), "--labels", "cell_type"]
    assert main([*words, "--method", "linear", "--min-overlap", "0.01"]) == 0
    assert "40 cells; pass it to scellm annotate as --model" in capsys.readouterr().out
    out = folder / "labeled.h5ad"
    words = [*words[:3], str(folder / "types")]
    assert main(["annotate", str(folder / "one.h5ad"), "-o", str(out), "--model", words[-1], "--min-overlap", "0.01", "--quiet"]) == 0  # fmt: skip
    found = ad.read_h5ad(out)
    assert found.uns["scellm_cell_type"]["mode"] == "reference"
    assert set(found.uns["scellm_cell_type"]["classes"]) == set(cells.obs["cell_type"])
    assert main([*words, "--labels", "cell_type"]) == 1
    assert "Pass --overwrite to replace it" in capsys.readouterr().err


def test_wrong_words(folder, capsys):
    with pytest.raises(SystemExit):
        main(["annotate", str(folder / "one.h5ad"), "-o", "x", "--target-error", "much"])
    assert "'much' is not a number" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["rank-drugs", str(folder / "one.h5ad"), "-o", "x"])
    assert "--groupby" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_an_interrupted_run_goes_on_with_the_same_options_alone(folder, capsys, monkeypatch):
    words = ["annotate", str(folder / "one.h5ad"), str(folder / "two.zarr"), "-o", str(folder / "out")]
    monkeypatch.setattr("scellm._cli_tools.do", _do_first_only())
    with pytest.raises(SystemExit):
        main(words)
    monkeypatch.undo()
    stamp = (folder / "out" / "one.h5ad").stat().st_mtime_ns
    assert main([*words, "--skip-done"]) == 0
    told = capsys.readouterr().out
    assert "one.h5ad: skipped" in told
    assert "made with the same options" in told
    assert (folder / "out" / "one.h5ad").stat().st_mtime_ns == stamp
    assert (folder / "out" / "two.zarr").is_dir()
    assert main([*words, "--skip-done", "--min-confidence", "0.9"]) == 1
    assert "one.h5ad was made otherwise; what differs: --min-confidence" in capsys.readouterr().err
    (folder / "one.h5ad").touch()
    assert main([*words, "--skip-done"]) == 1
    assert "content of the input" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_what_is_inside_of_folders_counts_as_changed(folder, capsys, tmp_path):
    model = scellm.models.save(scellm.models.load("scellm-small"), tmp_path / "model")
    words = ["embed", str(folder / "two.zarr"), "-o", str(folder / "out"), "--model", str(model), "--quiet"]
    assert main(words) == 0
    assert main([*words, "--skip-done"]) == 0
    next((folder / "two.zarr" / "obs").rglob(".zattrs"), folder / "two.zarr" / "obs" / "zarr.json").touch()
    assert main([*words, "--skip-done"]) == 1
    assert "what differs: content of the input." in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    (model / "README.md").write_text("another model under the same name")
    assert main([*words, "--skip-done"]) == 1
    assert "what differs: content of --model." in capsys.readouterr().err


def test_an_option_typed_with_its_default_is_the_same_as_left_out(folder, capsys):
    words = ["embed", str(folder / "one.h5ad"), "-o", str(folder / "out"), "--quiet"]
    typed = ["--model", "scellm-small", "--min-overlap", "0.1"]
    assert main([*words, *typed]) == 0
    assert main([*words, "--skip-done"]) == 0
    assert main([*words, "--overwrite"]) == 0
    assert main([*words, *typed, "--skip-done"]) == 0
    assert main([*words, "--min-overlap", "0.2", "--skip-done"]) == 1
    assert "what differs: --min-overlap" in capsys.readouterr().err


def test_an_interruption_keeps_the_log_and_says_how_to_go_on(folder, capsys, monkeypatch):
    log = folder / "log.jsonl"
    words = [
        "embed",
        str(folder / "one.h5ad"),
        str(folder / "two.zarr"),
        "-o",
        str(folder / "out"),
        "--log",
        str(log),
    ]
    monkeypatch.setattr("scellm._cli_tools.do", _do_first_only(KeyboardInterrupt))
    assert main(words) == 130
    assert "interrupted; 1 of 2 files are through. Go on with --skip-done." in capsys.readouterr().err
    assert [json.loads(line)["file"] for line in log.read_text().splitlines()] == [words[1]]
    monkeypatch.undo()
    assert main([*words, "--skip-done"]) == 0
    assert [json.loads(line)["file"] for line in log.read_text().splitlines()] == words[1:3]
    assert main([*words[:-1], str(folder / "none" / "log.jsonl"), "--overwrite"]) == 1
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("names", [("one.h5ad",), ("one.h5ad", "two.zarr")], ids=["one", "two"])
def test_an_interruption_says_that_workers_may_still_write(folder, capsys, monkeypatch, names):
    def interrupted(address, jobs):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("scellm._cli_tools._done_on", interrupted)
    words = ["embed", *(str(folder / name) for name in names), "-o", str(folder / "out"), "--cluster", "a:1"]
    assert main(words) == 130
    assert capsys.readouterr().err == (
        f"scellm: interrupted; 0 of {len(names)} files are through. "
        "Workers of the cluster may still write the files they are at.\n"
    )


def test_after_ctrl_c_no_process_takes_another_file(monkeypatch):
    from scellm import _cli_work

    def interrupted(job, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_cli_work, "do", interrupted)
    monkeypatch.setattr(_cli_work, "_is_stopped", False)
    with pytest.raises(KeyboardInterrupt):
        _cli_work.do_unless_stopped(None)
    monkeypatch.setattr(_cli_work, "do", lambda job, **_: "done")
    with pytest.raises(KeyboardInterrupt):
        _cli_work.do_unless_stopped(None)


def _do_first_only(end=SystemExit):
    from scellm._cli_tools import do

    seen = []

    def first(job):
        if seen:
            raise end
        seen.append(job)
        return do(job)

    return first


def test_a_result_that_is_to_be_replaced_is_not_taken_for_done(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "one.h5ad").write_bytes((folder / "one.h5ad").read_bytes())
    words = ["annotate", str(folder / "one.h5ad"), "-o", str(folder / "out"), "--quiet"]
    assert main([*words, "--skip-done"]) == 1
    assert "not known to be a result of scellm" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert main([*words, "--skip-done"]) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_from_labels(folder, cells, capsys):
    path, out = folder / "one.h5ad", folder / "model"
    words = ["few-shot", str(path), "-o", str(out), "--labels", "cell_type", "--baseline", "none"]
    before = path.read_bytes()
    assert main(words) == 0
    assert "Macro-F1" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert main(words) == 1
    assert "Pass --overwrite" in capsys.readouterr().err
    assert scellm.models.load(out).parts["cell_type"].meta["classes"]
    tuned = [
        "fine-tune",
        str(path),
        "-o",
        str(folder / "tuned"),
        "--labels",
        "cell_type",
        "--baseline",
        "none",
    ]
    assert main([*tuned, "--strategy", "lora", "--training", "max_epochs=1", "--test-size", "0"]) == 0
    assert main([*tuned, "--overwrite", "--training", "epochs=1"]) == 1
    assert "--training has no 'epochs'; there are class_weight, max_epochs" in capsys.readouterr().err


@pytest.mark.parametrize("name", FITS)
def test_options_of_models_are_those_of_the_function(name):
    parameters = inspect.signature(getattr(scellm.tl, name)).parameters
    tool = read_tool(name)
    assert [x.name for x in tool.options] == [x for x in parameters if x not in NOT_OPTIONS]
    assert all(option.help for option in tool.options)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_all_commands(shell, capsys):
    pytest.importorskip("shtab", reason="needs shtab (extra completion)")
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("annotate", "few-shot", "--labels", "index"):
        assert word in text
    assert "_files" in text if shell == "zsh" else "_shtab_compgen_files" in text


def test_files_on_a_cluster(folder, capsys):
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed (extra dask)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster:
            out = folder / "out"
            words = ["annotate", str(folder / "one.h5ad"), str(folder / "bad.h5ad"), "-o", str(out)]
            assert main([*words, "--cluster", cluster.scheduler_address]) == 1
    told = capsys.readouterr()
    assert "40 cells" in told.out
    assert "bad.h5ad" in told.err
    assert "scellm_cell_type" in ad.read_h5ad(out / "one.h5ad").obs


def test_the_line_of_annotate_is_its_summary(folder, capsys):
    source, target = folder / "one.h5ad", folder / "labeled.h5ad"
    assert main(["annotate", str(source), "-o", str(target)]) == 0
    summary = ad.read_h5ad(target).uns["scellm_cell_type"]["summary"]
    assert re.match(r"40 cells: \d+ types? in \d+ lineages?, ", summary)
    assert capsys.readouterr().out == f"{source} -> {target}: {summary}\n"


def test_models_are_listed_without_torch():
    code = "import sys\nfrom scellm._cli import main\nmain(['models'])\nprint({'torch', 'anndata', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "scellm-small" in done.stdout
    assert done.stdout.strip().endswith("set()")
