"""`scellm pack`: what it writes, what it prints, how it exits."""

import inspect

import numpy as np
import pytest

import scellm
from scellm import _cli
from scellm._cli import main
from scellm.data import Corpus, pack


@pytest.fixture
def folder(tmp_path):
    """Two files with counts in X and in a layer."""
    (tmp_path / "in").mkdir()
    for rng, name in enumerate(["a", "b"]):
        adata = scellm.datasets.toy_cells(20, rng=rng)
        adata.layers["counts"] = adata.X.copy()
        adata.obs["malignant"] = "True"
        adata.write_h5ad(tmp_path / "in" / f"{name}.h5ad")
    return tmp_path / "in"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "corpus.scellm.h5"


def test_files_and_folders_are_packed(folder, output, capsys):
    assert main(["pack", str(folder), "-o", str(output)]) == 0
    corpus = Corpus.build(output)
    assert corpus.names == ("a", "b")
    assert corpus.fingerprint == Corpus.build(folder).fingerprint
    n_genes = len(corpus.vocabulary)
    out, err = capsys.readouterr()
    assert out.startswith(f"{output}: 40 cells of 2 datasets over {n_genes} genes, 0.")
    assert out.endswith(" MB; labels: cell_type, donor, malignant.\n")
    assert err == ""

    one = output.with_name("one.h5")
    assert main(["pack", str(folder / "b.h5ad"), str(folder / "a.h5ad"), "-o", str(one)]) == 0
    assert Corpus.build(one).fingerprint == corpus.fingerprint


def test_all_options_reach_pack(folder, output, monkeypatch):
    received = {}
    monkeypatch.setattr(scellm.data, "pack", lambda *args, **options: received.update(options, args=args))
    words = (
        "--layer counts --gene-key symbol --labels cell_type,malignant --min-overlap 0.3 --overwrite --quiet"
    )
    assert main(["pack", str(folder), "-o", str(output), *words.split()]) == 0
    assert received.pop("args") == ([folder], output)
    assert received == {
        "label_keys": ["cell_type", "malignant"],
        "layer": "counts",
        "use_raw": None,
        "gene_key": "symbol",
        "min_overlap": 0.3,
        "overwrite": True,
        "show_progress": False,
    }


def test_defaults_are_those_of_pack():
    options = vars(_cli._parser().parse_args(["pack", "a.h5ad", "-o", "c.h5"]))
    parameters = inspect.signature(pack).parameters
    for option, name in {"labels": "label_keys", "layer": "layer", "gene_key": "gene_key"}.items():
        assert options[option] == parameters[name].default
    assert options["min_overlap"] == parameters["min_overlap"].default
    assert options["overwrite"] == parameters["overwrite"].default


def test_labels_and_quiet(folder, output, capfd):
    assert main(["pack", str(folder), "-o", str(output), "--labels", "cell_type", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert Corpus.build(output).label_keys == ("cell_type",)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "is there already; pass overwrite=True (--overwrite)"),
        (["--overwrite", "--labels", "nope"], "No dataset has the column 'nope'. There are ['cell_type'"),
        (["--overwrite", "--layer", "nope"], "Dataset 'a': Layer 'nope' is not in a.h5ad"),
        (["--overwrite", "--min-overlap", "0.9"], "Dataset 'a': `adata.var_names` holds 3000"),
        (["--overwrite", "-o", "corpus.csv"], "must end in '.h5'"),
    ],
    ids=["there", "labels", "layer", "overlap", "suffix"],
)
def test_refusal_is_one_message_and_leaves_the_file(folder, output, capsys, words, text):
    assert main(["pack", str(folder), "-o", str(output)]) == 0
    capsys.readouterr()
    before = output.read_bytes()
    assert main(["pack", str(folder), "-o", str(output), *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scellm: ")
    assert text in err
    assert "Traceback" not in err
    assert output.read_bytes() == before
    assert sorted(file.name for file in output.parent.iterdir()) == [output.name, "in"]


def test_a_bad_cell_is_named(folder, output, capsys):
    adata = scellm.datasets.toy_cells(20)
    adata.X.data[0] = np.nan
    adata.write_h5ad(folder / "c.h5ad")
    assert main(["pack", str(folder), "-o", str(output)]) == 1
    assert (
        "scellm: Dataset 'c': `adata.X` cannot be read as expression. 1 NaN or infinite values, the first in cell 0"
        in capsys.readouterr().err
    )


def test_file_that_is_not_there(output, tmp_path, capsys):
    assert main(["pack", str(tmp_path / "none.h5ad"), "-o", str(output)]) == 1
    assert capsys.readouterr().err == f"scellm: There is no file {tmp_path / 'none.h5ad'}.\n"


def test_interruption(folder, output, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scellm.data, "pack", interrupt)
    assert main(["pack", str(folder), "-o", str(output)]) == 130
    assert capsys.readouterr().err == "scellm: interrupted; no file was changed.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["pack"],
        ["pack", "a.h5ad"],
        ["pack", "-o", "c.h5"],
        ["pack", "a.h5ad", "-o", "c.h5", "--labels", "a,,b"],
        ["pack", "a.h5ad", "-o", "c.h5", "--layer", "x", "--use-raw"],
        ["pack", "a.h5ad", "-o", "c.h5", "--min-overlap", "30"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    assert "usage: scellm pack" in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["pack", "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  scellm pack " in out
    assert "%(" not in out
