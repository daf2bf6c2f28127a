"""The command `scellm`: what it writes, what it prints, how it exits."""

import inspect
import io
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import scellm
from scellm._cli import main
from scellm._containers import opened
from scellm._files import replacing
from scellm.data import GeneVocabulary, TokenConfig
from scellm.models import CellLM, save
from scellm.nn import CellLMConfig, Encoder

N_OBS = 24


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A saved tiny model of random weights over the default vocabulary."""
    vocabulary = GeneVocabulary.default()
    config = CellLMConfig.named("tiny", n_genes=len(vocabulary))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(config).eval()
    model = CellLM(encoder=encoder, config=config, tokens=TokenConfig(), vocabulary=vocabulary, name="tiny")
    return str(save(model, tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def adata():
    """Counts in a layer and in raw, scaled values in X."""
    adata = scellm.datasets.toy_cells(N_OBS)
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata.copy()
    scaled = adata.X.toarray()
    adata.X = (scaled - scaled.mean(0)).astype(np.float32)
    return adata


def write(adata, path):
    """Write h5ad or zarr."""
    if path.suffix == ".zarr":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Writing zarr v2 data")
            adata.write_zarr(path)
    else:
        adata.write_h5ad(path)
    return path


def read(path):
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


@pytest.fixture(params=["h5ad", "zarr"])
def path(adata, tmp_path, request):
    return write(adata, tmp_path / f"cells.{request.param}")


@pytest.fixture
def h5ad(adata, tmp_path):
    return write(adata, tmp_path / "cells.h5ad")


# -- embed --------------------------------------------------------------------------------------------------------


def test_embed_adds_to_the_file_itself(path, adata, model_folder, capsys):
    assert main(["embed", str(path), "--model", model_folder, "--layer", "counts"]) == 0
    written = read(path)
    expected = scellm.tl.embed(adata, model_folder, layer="counts", copy=True).obsm["X_scellm"]
    np.testing.assert_allclose(written.obsm["X_scellm"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(written.X, adata.X)
    out = capsys.readouterr().out
    assert f"obsm['X_scellm'] holds {N_OBS} cells x 16" in out
    assert "by tiny; 3000 genes, 15." in out


def test_embed_into_another_file_leaves_the_input(path, model_folder):
    output = path.with_name(f"embedded{path.suffix}")
    arguments = [
        "embed",
        str(path),
        "-o",
        str(output),
        "--model",
        model_folder,
        "--use-raw",
        "--key-added",
        "X_mine",
    ]
    assert main(arguments) == 0
    assert "X_mine" in read(output).obsm
    assert list(read(path).obsm) == []
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, output.name])


def test_all_options_reach_embed(h5ad, monkeypatch):
    received = {}

    def embed(adata, **options):
        received.update(options, shape=adata.shape)
        adata.obsm["X_a"] = np.zeros((N_OBS, 2))
        adata.uns["X_a"] = {"matrix": "X", "model": "m", "n_genes": 1, "gene_coverage": 0.5}

    embed.__signature__ = inspect.signature(scellm.tl.embed)
    monkeypatch.setattr(scellm.tl, "embed", embed)
    words = (
        "--model org/name --layer counts --gene-key symbol --batch-size 7 --device cpu --precision bf16 "
        f"--key-added X_a --min-overlap 0.3 --on-empty raise --quiet -o {h5ad.parent / 'out.h5ad'}"
    )
    assert main(["embed", str(h5ad), *words.split()]) == 0
    assert received == {
        "shape": (N_OBS, 3000),
        "model": "org/name",
        "layer": "counts",
        "gene_key": "symbol",
        "batch_size": 7,
        "device": "cpu",
        "precision": "bf16",
        "key_added": "X_a",
        "min_overlap": 0.3,
        "on_empty": "raise",
        "show_progress": False,
    }
    assert "X_a" in read(h5ad.parent / "out.h5ad").obsm


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
def test_bars_are_for_terminals(h5ad, model_folder, monkeypatch, is_terminal):
    said = io.StringIO()
    said.isatty = lambda: is_terminal
    monkeypatch.setattr("scellm.tl._embed.PROGRESS_FROM", 1)
    monkeypatch.setattr(sys, "stderr", said)
    words = ["embed", str(h5ad), "--layer", "counts", "--model", model_folder, "-o"]
    assert main([*words, str(h5ad.parent / "a.h5ad")]) == 0
    assert ("embed: 100%" in said.getvalue()) == is_terminal
    if not is_terminal:
        assert said.getvalue() == ""
    assert main([*words, str(h5ad.parent / "b.h5ad"), "--quiet"]) == 0
    assert said.getvalue().count("embed: 100%") == is_terminal


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-o", "out", "--skip-done"], ""),
        (["--skip-done"], "--skip-done looks for results in another place"),
    ],
    ids=["folder", "in place"],
)
def test_many_files_and_a_bad_one_are_embedded(h5ad, model_folder, capsys, monkeypatch, words, text):
    monkeypatch.chdir(h5ad.parent)
    shutil.copy(h5ad, "other.h5ad")
    Path("bad.h5ad").write_text("no cells")
    command = ["embed", "*.h5ad", "--model", model_folder, "--layer", "counts", *words]
    assert main(command) == 1
    out, err = capsys.readouterr()
    if text:
        assert text in err
        return
    assert "scellm: 1 of 3 files failed: bad.h5ad.\n" in err
    assert "other.h5ad -> out/other.h5ad: obsm['X_scellm'] holds 24 cells x 16" in out
    assert sorted(file.name for file in Path("out").glob("*.h5ad")) == ["cells.h5ad", "other.h5ad"]
    assert "X_scellm" not in read(h5ad).obsm
    assert main(command) == 1
    assert (
        "cells.h5ad: skipped, out/cells.h5ad is there, made with the same options" in capsys.readouterr().out
    )


def test_quiet_prints_nothing(h5ad, model_folder, capfd):
    assert main(["embed", str(h5ad), "--model", model_folder, "--layer", "counts", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line_on_stderr(tmp_path, model_folder, capsys):
    counts = scellm.datasets.toy_cells(N_OBS)
    counts.X = counts.X.multiply(np.arange(N_OBS)[:, None] != 3).tocsr().astype(np.float32)
    arguments = ["embed", str(write(counts, tmp_path / "empty.h5ad")), "--model", model_folder]
    assert main(arguments) == 0
    assert "scellm: warning: 1 of 24 cells" in capsys.readouterr().err


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "cannot be read as expression"),
        (["--layer", "nope"], "Layer 'nope' is not in"),
        (["--layer", "counts", "--model", "scellm-none"], "No model is named 'scellm-none'"),
        (["--layer", "counts", "--min-overlap", "0.9"], "need 90"),
        (["--layer", "counts", "--device", "tpu"], "--device tpu is not a device"),
        (["--layer", "counts", "--key-added", "a/b"], "The key 'a/b' cannot be written"),
        (["--layer", "counts", "-o", "out.txt"], "must end in '.h5ad'"),
        (["--layer", "counts", "--use-raw"], "name two matrices"),
        (["--layer", "counts", "--batch-size", "0"], "--batch-size 0 must be"),
        (["--layer", "counts", "--min-overlap", "nan"], "it must be between 0 and 1"),
    ],
    ids=["scaled", "layer", "model", "overlap", "device", "key", "output", "two", "batch", "nan"],
)
def test_refusal_is_one_message_and_leaves_the_file(h5ad, model_folder, capsys, monkeypatch, words, text):
    monkeypatch.chdir(h5ad.parent)
    before = h5ad.read_bytes()
    model = [] if "--model" in words else ["--model", model_folder]
    assert main(["embed", str(h5ad), *model, *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scellm: ")
    assert text in err
    assert "Traceback" not in err
    assert h5ad.read_bytes() == before
    assert [file.name for file in h5ad.parent.iterdir()] == [h5ad.name]


@pytest.mark.parametrize("command", ["embed", "check"])
def test_file_that_is_not_there(tmp_path, capsys, command):
    assert main([command, str(tmp_path / "none.h5ad")]) == 1
    path = tmp_path / "none.h5ad"
    assert f"scellm: {path}: There is no file {path}." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["embed", "check"])
def test_file_of_another_kind(tmp_path, model_folder, capsys, command):
    (tmp_path / "cells.h5ad").write_text("a,b\n1,2\n")
    extra = ["--model", model_folder] if command == "embed" else []
    assert main([command, str(tmp_path / "cells.h5ad"), *extra]) == 1
    assert "is neither an .h5ad file nor a .zarr folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["embed", "check"])
@pytest.mark.parametrize("name", ["obs", "var"])
def test_file_without_a_table(h5ad, capsys, model_folder, command, name):
    with h5py.File(h5ad, "r+") as file:
        del file[name]
    extra = ["--model", model_folder] if command == "embed" else []
    assert main([command, str(h5ad), *extra]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"scellm: {h5ad}: cells.h5ad holds no AnnData: it has [")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["embed", "check"])
@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
def test_file_of_an_old_anndata(tmp_path, capsys, model_folder, command, is_sparse):
    path = tmp_path / "cells.h5ad"
    table = np.array([(b"CD3D",), (b"LYZ",)], dtype=[("index", "S4")])
    with h5py.File(path, "w") as file:
        file["obs"] = file["var"] = table
        if is_sparse:
            file.create_group("X").attrs["h5sparse_format"] = "csr"
            file["X/data"], file["X/indices"], file["X/indptr"] = [1.0, 2.0], [0, 1], [0, 1, 2]
        else:
            file["X"] = np.eye(2)
    extra = ["--model", model_folder] if command == "embed" else []
    assert main([command, str(path), *extra]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "was written by an old version of anndata. Read and write it again: anndata.read_h5ad(" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "Out of memory."),
        (MemoryError("Unable to allocate 9 GiB"), "Out of memory. Unable to allocate 9 GiB"),
        (RuntimeError("CUDA error"), "CUDA error"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["memory", "memory-text", "runtime", "runtime-no-text"],
)
def test_errors_of_the_machine_are_one_message(h5ad, monkeypatch, capsys, error, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(scellm.tl, "embed", fail)
    assert main(["embed", str(h5ad)]) == 1
    assert capsys.readouterr().err == f"scellm: {h5ad}: {text}\n"


def test_our_own_mistakes_are_not_hidden(h5ad, monkeypatch):
    def mistake(*_, **__):
        raise AssertionError("a bug")

    monkeypatch.setattr(scellm.tl, "embed", mistake)
    with pytest.raises(AssertionError, match="a bug"):
        main(["embed", str(h5ad)])


def test_interruption(h5ad, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scellm.tl, "embed", interrupt)
    assert main(["embed", str(h5ad)]) == 130
    assert capsys.readouterr().err == "scellm: interrupted; no file was changed.\n"


# -- check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 1), (["--layer", "counts"], 0), (["--use-raw"], 0), (["--use-raw", "--gene-key", "ensembl_id"], 0)],
    ids=["scaled", "layer", "raw", "gene-key"],
)
def test_check_exits_as_embed_would(path, model_folder, capsys, words, code):
    assert main(["check", str(path), *words]) == code
    out = capsys.readouterr().out
    assert f"{N_OBS} cells; > marks what embed reads" in out
    marked = next(line for line in out.splitlines() if line.startswith("> "))
    assert ("refuses" in marked) == bool(code)
    assert main(["embed", str(path), "--model", model_folder, *words]) == code


def test_check_leaves_matrices_on_the_disk(path):
    with opened(path) as adata:
        for matrix in (adata.X, adata.layers["counts"], adata.raw.X):
            assert not isinstance(matrix, np.ndarray)
            assert not hasattr(matrix, "data")  # scipy's in-memory values
        assert adata.shape == (N_OBS, 3000)


def test_check_agrees_with_check_input_in_memory(path, adata, capsys):
    table = scellm.pp.check_input(adata, layer="counts")
    printed = capsys.readouterr().out
    assert main(["check", str(path), "--layer", "counts"]) == 0
    assert capsys.readouterr().out == printed
    assert table.loc["X", "embed"].startswith("refuses")


def test_check_without_x(adata, tmp_path, capsys):
    del adata.raw
    adata.X = None
    path = write(adata, tmp_path / "cells.h5ad")
    assert main(["check", str(path)]) == 1
    assert main(["check", str(path), "--layer", "counts"]) == 0
    assert "there are no values" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--layer", "nope"], ": Layer 'nope' is not in `adata.layers`, which has ['counts']."),
        (["--gene-key", "nope"], ": --gene-key nope is not a column of `adata.var`, which has ["),
    ],
    ids=["layer", "gene-key"],
)
def test_check_of_a_wrong_name(h5ad, capsys, words, text):
    assert main(["check", str(h5ad), *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"scellm: {h5ad}{text}")


# -- models -------------------------------------------------------------------------------------------------------


def test_models(monkeypatch, capsys, model_folder):
    table = scellm.models.list_models().iloc[:0].copy()
    table.loc[0] = [
        "lab/cells",
        "cached",
        "0123456789abcdef",
        12.5,
        1234567,
        128,
        19000,
        2048,
        "Blood cells.",
    ]
    monkeypatch.setattr(scellm.models, "list_models", lambda: table)
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("lab/cells", "cached", "01234567 ", "12.5", "1,234,567", "128", "2048")
    )
    assert "lab/cells: Blood cells.\n" in out


def test_models_say_which_types_and_tissues_they_know(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "cell types of human cells in 15 lineages: " in out
    assert "lymphocyte" in out
    assert "Tissues: adipose, " in out
    assert "pancreas" in out


def test_no_models(monkeypatch, capsys):
    table = scellm.models.list_models().iloc[:0]
    monkeypatch.setattr(scellm.models, "list_models", lambda: table)
    assert main(["models"]) == 0
    assert "No models on this machine." in capsys.readouterr().out


# -- usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["embed"],
        ["embed", "a.h5ad", "--batch-size", "many"],
        ["embed", "a.h5ad", "--precision", "fp8"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    assert "usage: scellm" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["embed"], ["check"]], ids=["scellm", "embed", "check"])
def test_help_has_examples(words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  scellm " in out
    assert "%(" not in out


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"scellm {scellm.__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from scellm._cli import main\n"
        "try: main(['embed', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'anndata', 'scanpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interruption_names_what_was_written(h5ad, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        with replacing(tmp_path / "part.txt") as part:
            part.write_text("done")
        raise KeyboardInterrupt

    monkeypatch.setattr(scellm.tl, "embed", interrupt)
    assert main(["embed", str(h5ad), "-o", str(tmp_path / "out"), "--log", str(tmp_path / "log")]) == 130
    assert capsys.readouterr().err == f"scellm: interrupted; written before: {tmp_path / 'part.txt'}.\n"


def test_ctrl_c_of_a_running_command(h5ad, model_folder):
    before = h5ad.read_bytes()
    code = (
        "import signal, sys, time, scellm.tl\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs of a shell
        "from scellm._cli import main\n"
        "def slow(*_, **__): print('running', flush=True); time.sleep(60)\n"
        "scellm.tl.embed = slow\n"
        f"sys.exit(main(['embed', {str(h5ad)!r}]))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "scellm: interrupted; no file was changed.\n"
    assert h5ad.read_bytes() == before


# -- readers that go away, files of another kind ------------------------------------------------------------------


def test_a_closed_pipe_is_no_error(h5ad):
    command = [sys.executable, "-m", "scellm", "check", str(h5ad)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.close()
        said = run.stderr.read()
    assert said == ""
    assert run.returncode == 141


def write_10x(path, adata):
    """As Cell Ranger 3 does."""
    counts = sp.csr_matrix(adata.layers["counts"]).astype(np.int32)
    ids = dict(
        zip(*(getattr(GeneVocabulary.default(), name) for name in ("symbols", "ensembl_ids")), strict=True)
    )
    features = {
        "id": [ids[name] for name in adata.var_names],
        "name": adata.var_names,
        "feature_type": ["Gene Expression"] * adata.n_vars,
        "genome": ["GRCh38"] * adata.n_vars,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(counts, name)
        file["matrix/shape"] = counts.shape[::-1]
        file["matrix/barcodes"] = np.array(adata.obs_names, dtype="S")
        for name, values in features.items():
            file[f"matrix/features/{name}"] = np.array(values, dtype="S")


@pytest.mark.parametrize("name", ["sample.h5", "outs/filtered_feature_bc_matrix.h5"])
def test_10x_output_is_checked_and_embedded(tmp_path, adata, capsys, model_folder, name):
    given = tmp_path / name
    write_10x(given, adata)
    given = given.parent if given.parent.name == "outs" else given
    assert main(["check", str(given)]) == 0
    assert "human Ensembl ids" in capsys.readouterr().out
    words = ["embed", str(given), "--model", model_folder]
    assert main(words) == 1
    assert "are written as .h5ad. Name a file or folder for them with -o" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "out.h5ad")]) == 0
    expected = adata.copy()
    scellm.tl.embed(expected, model_folder, layer="counts")
    found = ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_scellm"]
    np.testing.assert_allclose(found, expected.obsm["X_scellm"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("command", [["check"], ["annotate", "-o", "labeled"]], ids=lambda words: words[0])
def test_a_file_that_was_cut_off_is_said_to_be(h5ad, capsys, monkeypatch, command):
    monkeypatch.chdir(h5ad.parent)
    h5ad.write_bytes(h5ad.read_bytes()[: h5ad.stat().st_size // 2])
    assert main([command[0], str(h5ad), *command[1:]]) == 1
    said = capsys.readouterr().err
    assert re.search(r"is cut off: [\d.]+ of [\d.]+ MB are there. Copy or download it again.", said)
    assert said.count(str(h5ad)) <= 2


@pytest.mark.filterwarnings("always:Pass align")
def test_advice_is_in_the_words_of_the_command(h5ad, capsys, monkeypatch):
    def refuse(*_, **__):
        warnings.warn("Pass align=False, or reference= with cells.", stacklevel=2)
        raise ValueError("pass min_overlap=0.02, use_raw=True or gene_key='ids': tl.embed(adata, layer='x')")

    monkeypatch.setattr("scellm.tl.annotate", refuse)
    assert main(["annotate", str(h5ad), "-o", str(h5ad.with_name("out.h5ad"))]) == 1
    said = capsys.readouterr().err
    assert "pass --min-overlap 0.02, --use-raw or --gene-key ids: tl.embed(adata, layer='x')" in said
    assert "warning: Pass --align False, or --reference with cells." in said


@pytest.mark.parametrize("command", ["embed", "check"])
def test_damaged_10x_output(tmp_path, capsys, command):
    with h5py.File(tmp_path / "sample.h5", "w") as file:
        file.create_group("matrix/features")
    out = ["-o", str(tmp_path / "out.h5ad")] if command == "embed" else []
    assert main([command, str(tmp_path / "sample.h5"), *out]) == 1
    assert "sample.h5 is damaged, or no 10x output after all: " in capsys.readouterr().err
    assert not (tmp_path / "out.h5ad").exists()


def test_check_of_several_files_names_those_that_are_refused(h5ad, capsys):
    other = write(scellm.datasets.toy_cells(12), h5ad.parent / "good.h5ad")
    assert main(["check", str(h5ad), str(other)]) == 1
    out, err = capsys.readouterr()
    assert f"{other}\n12 cells; > marks" in out
    assert f"scellm: {h5ad}: embed refuses" in err
    assert f"scellm: 1 of 2 files failed: {h5ad}.\n" in err


def test_home_folder_in_paths(h5ad, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(h5ad.parent))
    main(["check", f"~/{h5ad.name}"])
    out, err = capsys.readouterr()
    assert "vocabulary genes present" in out
    assert "There is no file" not in err


@pytest.mark.filterwarnings("ignore::UserWarning:anndata")
def test_a_folder_that_a_killed_run_put_aside_is_put_back(tmp_path, capsys):
    pytest.importorskip("zarr")
    path = tmp_path / "cells.zarr"
    scellm.datasets.toy_cells(12, n_vars=1950).write_zarr(path)
    work = tmp_path / ".cells.zarr.0123abcd.scellm"
    work.mkdir()
    (work / "lock").touch()
    path.rename(work / "cells.zarr.old")
    main(["check", str(path)])
    assert path.is_dir()
    assert not work.exists()
    assert "no file" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("advice", "typed"),
    [
        ("Pass columns=['cell type', 'tissue'].", "Pass --columns 'cell type' --columns tissue."),
        ("Pass columns='cell type', or append=True.", "Pass --columns 'cell type', or --append."),
        ("Pass min_overlap=0.02.", "Pass --min-overlap 0.02."),
    ],
)
def test_advice_can_be_typed(advice, typed):
    from scellm._cli_signature import in_words_of_the_shell, read_tool

    assert in_words_of_the_shell(advice, read_tool("index")) == typed
