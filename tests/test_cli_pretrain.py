"""`scellm pretrain`: a recipe file from cells to a model, alone and under torchrun."""

import os
import subprocess
import sys

import pandas as pd
import pytest

import scellm
from scellm._cli import main
from scellm.train import PretrainConfig
from scellm.train._recipe_file import PACKAGED, parse_recipe, read_recipe

RECIPE = """
name = "mine"
config = { base = "tiny", dropout = 0.1 }
min_overlap = 0.01
max_genes = 300
dtype = "float16"

[[stage]]
name = "bag"
config = { depth = 0 }
objectives = { contrastive = 1.0 }
batch_size = 32
max_steps = 3
checkpoint_every = 2

[[stage]]
name = "blocks"
batch_size = 32
max_steps = 2
freeze = ["gene_embedding", "expression.bias"]
"""


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "cells.h5ad"
    scellm.datasets.toy_cells(80, n_vars=400).write_h5ad(path)
    return path


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def test_two_stages_make_a_model_and_run_once(recipe, cells, tmp_path, capsys):
    arguments = [
        "pretrain",
        str(recipe),
        str(cells),
        "-o",
        str(tmp_path / "run"),
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main(arguments) == 0
    model = scellm.models.load(tmp_path / "run" / "mine")
    assert model.config.depth == 2
    assert model.tokens.max_genes == 300
    assert {name: stage["steps"] for name, stage in model.provenance["stages"].items()} == {
        "bag": 3,
        "blocks": 2,
    }
    assert model.provenance["datasets"]["cells"]["cells"] == 80
    bag = pd.read_csv(tmp_path / "run" / "bag" / "log.csv")
    assert bag["step"].tolist() == [1, 3]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "bag").rglob("*.safetensors")}
    assert main([*arguments, "--resume", "must"]) == 0  # nothing is left to do
    assert times == {path: path.stat().st_mtime_ns for path in times}
    again = scellm.models.load(tmp_path / "run" / "mine")
    assert again.sha256 == model.sha256
    assert (
        main(
            [
                "embed",
                str(cells),
                "--model",
                str(tmp_path / "run" / "mine"),
                "--min-overlap",
                "0.01",
                "--quiet",
            ]
        )
        == 0
    )


def test_the_packaged_tiny_recipe_runs(cells, tmp_path):
    arguments = [
        "pretrain",
        "tiny",
        str(cells),
        "-o",
        str(tmp_path / "run"),
        "--quiet",
        "--set",
        "batch_size=64",
    ]
    assert main([*arguments, "--set", "max_steps=2"]) == 1  # 2 % of the genes are too few
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        (PACKAGED / "tiny.toml").read_text().replace("min_overlap = 0.05", "min_overlap = 0.01")
    )
    assert main([arguments[0], str(recipe), *arguments[2:], "--set", "max_steps=2"]) == 0
    assert scellm.models.load(tmp_path / "run" / "scellm-tiny").n_parameters > 0


def test_keys_can_be_set(recipe, cells, tmp_path, capsys):
    arguments = ["pretrain", str(recipe), str(cells), "-o", str(tmp_path / "run"), "--quiet"]
    assert main([*arguments, "--set", "max_steps=1", "--set", "negatives=all"]) == 0
    assert pd.read_csv(tmp_path / "run" / "blocks" / "log.csv")["step"].tolist() == [1]
    assert main([*arguments, "--set", "temprature=1"]) == 1
    assert "Unknown key 'temprature' in a recipe. Did you mean 'temperature'" in capsys.readouterr().err
    assert main([*arguments]) == 1
    assert "the recipe has changed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--set", "max_steps"])


def test_stages_share_a_time_limit(recipe, cells, tmp_path, capsys):
    arguments = [
        "pretrain",
        str(recipe),
        str(cells),
        "-o",
        str(tmp_path / "run"),
        "--quiet",
        "--time-limit",
        "3",
    ]
    assert main(arguments) == 1
    assert "needs a stage that may be shortened: give one a max_time" in capsys.readouterr().err
    recipe.write_text(RECIPE.replace("max_steps = 3", "max_steps = 100000\nmax_time = 10000"))
    assert main(arguments) == 0
    assert pd.read_csv(tmp_path / "run" / "bag" / "log.csv")["step"].iloc[-1] < 100_000


def test_a_place_that_is_taken_is_refused_before_training(recipe, cells, tmp_path, capsys):
    (tmp_path / "run" / "mine").mkdir(parents=True)
    (tmp_path / "run" / "mine" / "thesis.txt").write_text("mine")
    assert main(["pretrain", str(recipe), str(cells), "-o", str(tmp_path / "run"), "--quiet"]) == 1
    assert "holds other things than a model (thesis.txt)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_what_is_missing_is_said(recipe, tmp_path, capsys):
    assert main(["pretrain", str(recipe), "-o", str(tmp_path / "run")]) == 1
    assert "No data: name files or folders" in capsys.readouterr().err
    assert main(["pretrain", "smal", "-o", str(tmp_path / "run")]) == 1
    assert (
        "no recipe 'smal': pass a .toml file, or one of ['gpu', 'small', 'tiny', 'transformer']"
        in capsys.readouterr().err
    )
    assert main(["pretrain", "other.toml", "-o", str(tmp_path / "run")]) == 1
    assert "There is no file other.toml" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_steps = 3", "max_stesp = 3"), "'max_stesp' in stage 1 of here. Did you mean 'max_steps'"),
        (('dtype = "float16"', 'dtyp = "float16"'), "'dtyp' in here. Did you mean 'dtype'"),
        (("dropout = 0.1", "droput = 0.1"), "'droput' in an encoder configuration. Did you mean 'dropout'"),
        (('name = "blocks"', 'name = "bag"'), "two stages have one name"),
        (('name = "blocks"', 'name = "Bag"'), "two stages have one name"),
        (('name = "mine"', 'name = "bag"'), "the model and a stage are both named 'bag'"),
        (
            ("batch_size = 32\nmax_steps = 2", "gene_init = 'PCA'"),
            "gene_init is 'PCA'; choose 'random', 'pca' or 'lda'",
        ),
        (('name = "mine"', ""), "here has no name"),
        (("[[stage]]", "[stage]"), "no TOML|no \\[\\[stage\\]\\]"),
        (('"float16"', '"int8"'), "dtype is 'int8'"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_mistakes_in_a_recipe(change, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(RECIPE.replace(*change), "here")


@pytest.mark.parametrize(
    "name", [x.name.removesuffix(".toml") for x in PACKAGED.iterdir() if x.name.endswith(".toml")]
)
def test_packaged_recipes_are_sound(name):
    recipe = read_recipe(name)
    assert recipe.name == f"scellm-{name}"
    assert all(isinstance(stage.recipe, PretrainConfig) for stage in recipe.stages)


def test_torchrun_starts_it(recipe, cells, tmp_path):
    """Two processes on this machine, one model."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "scellm",
    ]
    result = subprocess.run(
        [
            *command,
            "pretrain",
            str(recipe),
            str(cells),
            "-o",
            str(tmp_path / "run"),
            "--set",
            "batch_size=80",
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    model = scellm.models.load(tmp_path / "run" / "mine")
    assert "2 processes" in model.provenance["device"]
    assert result.stdout.count("the model. Use it with") == 1


def test_what_a_later_stage_cannot_do_is_refused_before_the_first_is_trained(recipe, cells, tmp_path, capsys):
    arguments = ["pretrain", str(recipe), str(cells), "-o", str(tmp_path / "run"), "--quiet"]
    last = RECIPE.rindex("batch_size = 32")
    recipe.write_text(RECIPE[:last] + RECIPE[last:].replace("batch_size = 32", "batch_size = 128"))
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "Stage 'blocks' has a batch_size of 128, but there are only 80 cells" in said
    recipe.write_text(RECIPE + 'config = { cell_embedding = "cls", cell_depth = 2 }\n')
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "stage 'blocks' cannot go on from the one before (cell_embedding 'mean' -> 'cls')" in said
    assert not (tmp_path / "run" / "bag").exists()
    recipe.write_text(RECIPE)
    assert main([*arguments, "--set", "batch_size=80", "--set", "max_steps=1"]) == 0  # the advice
