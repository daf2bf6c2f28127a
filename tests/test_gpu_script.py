"""tests/benchmarks/gpu.py from pack to model, as on a machine without anndata; and what it refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scellm
from scellm.datasets import toy_cells
from scellm.nn import CellLMConfig, Encoder
from scellm.train import PretrainConfig
from scellm.train._checkpoint import Checkpoint, save_checkpoint

SCRIPTS = Path(__file__).parent / "benchmarks"
BARE = """
import sys
for name in ("anndata", "scanpy", "zarr", "umap", "numba", "matplotlib", "dask", "huggingface_hub"):
    sys.modules[name] = None  # as if it were not installed
"""
RECIPE = """
name = "scellm-rehearsed"
config = { base = "tiny", dropout = 0.1 }
min_overlap = 0.02
[[stage]]
batch_size = 32
max_steps = 3
max_time = 60
views = { max_genes = 32 }
"""
MOST_MB = 4.0


def loaded(name):
    """A module of the scripts."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pieces = loaded("_gpu_pieces")


def call(script, *arguments, bare=None):
    paths = [str(Path(scellm.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": str(bare) if bare else paths[0], "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    cells = toy_cells(160, n_vars=1950)
    cells.obs["malignant"] = ["True" if i % 2 else "False" for i in range(160)]
    parts = {"one": cells[:80].copy(), "two": cells[80:].copy()}
    scellm.data.pack(parts, folder / "cells.h5", min_overlap=0.02)
    result = call(SCRIPTS / "gpu.py", "pack", folder / "cells.h5", folder / "pack", "--mb", MOST_MB)
    assert result.returncode == 0, result.stderr
    return folder / "pack"


def test_a_pack_holds_the_cells_and_keeps_to_its_size(packed):
    files = [path for path in packed.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_MB * 1e6
    about = json.loads((packed / "pack.json").read_text())
    assert (about["cells"], about["datasets"]) == (160, 2)
    corpus = scellm.data.Corpus.build(packed / "corpus.scellm.h5")
    assert corpus.fingerprint == about["fingerprint"]
    assert set(corpus.labels("malignant")[0]) == {"True", "False"}


def test_one_command_gives_a_model_without_anndata(packed, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(BARE)
    (tmp_path / "quick.toml").write_text(RECIPE)
    options = ("--limit", 240, "--recipe", tmp_path / "quick.toml")
    out = tmp_path / "out"
    result = call(packed / "gpu.py", "run", "--out", out, *options, bare=tmp_path / "bare")
    assert "train: done" in result.stdout, result.stdout + result.stderr
    assert 2 <= len(list(out.iterdir())) <= pieces.MOST_FILES
    assert max(path.stat().st_size for path in out.iterdir()) <= pieces.PIECE_BYTES

    collected = call(SCRIPTS / "gpu.py", "collect", out, "--models", tmp_path / "models")
    assert collected.returncode == 0, collected.stderr
    model = scellm.models.load(tmp_path / "models" / "scellm-rehearsed")
    assert model.provenance["stages"]["stage1"]["steps"] == 3


def test_a_changed_file_of_a_pack_is_refused(packed, tmp_path):
    script = packed / "_operations.py"
    before = script.read_text()
    script.write_text(before + "\n")
    result = call(packed / "gpu.py", "run", "--out", tmp_path / "out", "--limit", 5)
    script.write_text(before)
    assert result.returncode == 1
    assert "_operations.py is missing or not what was packed" in result.stderr


def test_pieces_keep_their_size_and_are_checked(tmp_path):
    for name, size in (("first.bin", 2500), ("model/a.bin", 3000), ("large.bin", 90_000)):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    wanted = [(name, tmp_path / "work" / name) for name in ("first.bin", "model", "large.bin", "none.bin")]
    out = tmp_path / "out"
    found = pieces.cut(wanted, out, piece_bytes=8_000, most_bytes=50_000)
    assert found["left_out"] == ["large.bin (0.1 MB)"]
    assert all(path.stat().st_size <= 8_000 for path in out.iterdir())
    pieces.joined(out, tmp_path / "back")
    for name in ("first.bin", "model/a.bin"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "work" / name).read_bytes()

    first = sorted(out.glob("piece-*"))[0]
    first.write_bytes(b"x" + first.read_bytes()[1:])
    with pytest.raises(ValueError, match="is not what was written: its SHA-256 differs"):
        pieces.joined(out, tmp_path / "again")
    first.unlink()
    with pytest.raises(FileNotFoundError, match="is missing; bring all files of the folder back"):
        pieces.joined(out, tmp_path / "again")
    pieces.cut(wanted[:1], out, piece_bytes=50_000)  # what came before is replaced
    assert len(list(out.iterdir())) == 2


def test_a_run_that_was_ended_leaves_a_model(tmp_path):
    loaded("_report")
    collect = loaded("_gpu_collect")
    config = CellLMConfig.named("tiny", n_genes=len(scellm.data.GeneVocabulary.default()))
    encoder = Encoder(config)
    state = {"step": 7, "config": config.to_dict(), "recipe": PretrainConfig().to_dict()}
    saved = save_checkpoint(tmp_path, Checkpoint(state, encoder.state_dict(), {}), keep=1)
    work, out = tmp_path / "checkpoint" / "blocks", tmp_path / "out"
    work.mkdir(parents=True)
    for name in ("state.json", "encoder.safetensors"):
        (saved / name).rename(work / name)
    (tmp_path / "run.json").write_text(json.dumps({"recipe": "gpu"}))
    pieces.cut([("run.json", tmp_path / "run.json"), ("checkpoint", tmp_path / "checkpoint")], out)
    found = collect.collect(out, tmp_path / "models", page=False)
    model = scellm.models.load(found["installed"])
    assert model.name == "scellm-gpu"
    assert (model.encoder.gene_embedding.weight == encoder.gene_embedding.weight).all()
