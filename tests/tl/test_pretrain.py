"""From cells to a model: learning, resuming, refusing."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pandas as pd
import pytest
import torch

import scellm
from scellm.data import GeneVocabulary
from scellm.metrics import neighbor_score
from scellm.nn import CellLMConfig
from scellm.train import PretrainConfig
from scellm.train import _checkpoint as checkpoint_module
from scellm.train import _objectives as objectives_module

OPTIONS = {
    "config": "tiny",
    "dropout": 0.1,
    "batch_size": 32,
    "max_steps": 6,
    "min_overlap": 0.5,
    "show_progress": False,
    "negatives": "all",
    "checkpoint_every": 2,
    "log_every": 2,
}


@pytest.fixture(scope="module")
def cells():
    return scellm.datasets.toy_cells(80, n_vars=400)


@pytest.fixture(scope="module")
def vocabulary(cells):
    return GeneVocabulary.default().subset(cells.var_names)


@pytest.fixture(scope="module")
def data(cells):
    """Two datasets, the second with labels of cancer for some cells."""
    second = scellm.datasets.toy_cells(60, n_vars=400, rng=1)
    second.obs["malignant"] = pd.Categorical(["True", "False", "NA"] * 20)
    return {"first": cells, "second": second}


@pytest.mark.parametrize(
    ("config", "losses"), [("small", {"contrastive"}), ("tiny", {"contrastive", "masked_gene"})]
)
def test_what_an_encoder_is_trained_on_unless_told(cells, vocabulary, config, losses):
    """A bag sees no other gene of a cell, so that it cannot be asked for hidden ones."""
    options = OPTIONS | {"config": config, "max_steps": 1, "log_every": 1, "checkpoint_every": 1}
    history = scellm.tl.pretrain(cells, vocabulary=vocabulary, **options).history
    assert {"contrastive", "masked_gene", "normal_cancer", "supervised"} & set(history) == losses


def weights(model):
    return torch.cat([x.flatten() for x in model.encoder.state_dict().values()])


@pytest.fixture
def pretrain(data, vocabulary):
    def run(source=data, **options):
        return scellm.tl.pretrain(source, vocabulary=vocabulary, **{**OPTIONS, **options})

    return run


def test_it_learns_and_types_separate(pretrain, cells):
    """The bag first, then blocks on it: the course of the shipped recipe in small."""
    bag_config = CellLMConfig.named("tiny", n_genes=400)
    bag_config = dataclasses.replace(bag_config, depth=0)
    options = {"log_every": 20, "learning_rate": 2e-2, "precision": "fp32"}
    bag = pretrain(config=bag_config, objectives=["contrastive"], max_steps=80, **options)
    assert bag.history["contrastive"].iloc[-1] < bag.history["contrastive"].iloc[0] - 0.3
    assert bag.history["alignment"].iloc[-1] < 0.7 * bag.history["alignment"].iloc[0]
    assert "masked_gene" not in bag.history

    def score(model):
        adata = cells.copy()
        scellm.tl.embed(adata, model)
        return neighbor_score(adata.obsm["X_scellm"], adata.obs["cell_type"]).macro_f1

    assert score(bag) > 0.9
    model = pretrain(init=bag, max_steps=30, log_every=10, learning_rate=4e-3, freeze=["gene_embedding"])
    assert model.history["masked_gene"].iloc[-1] < 0.95 * model.history["masked_gene"].iloc[0]
    assert torch.equal(model.encoder.gene_embedding.weight, bag.encoder.gene_embedding.weight)
    assert model.encoder.blocks[1].attention.to_out.weight.abs().max() > 0
    assert all(p.requires_grad for p in model.encoder.parameters())
    assert score(model) > 0.9
    assert model.provenance["started_from"] == "pretrained-custom"  # no name of a shipped model


def test_all_objectives_together(pretrain):
    model = pretrain(
        objectives=["contrastive", "supervised", "masked_gene", "masked_value", "normal_cancer"],
        learn_temperature=True,
        temperature=0.3,
        exclude_same_type=True,
        learning_rate=1e-2,
    )
    last = model.history.iloc[-1]
    assert np.isfinite(last).all()
    assert {"contrastive", "supervised", "masked_gene", "masked_value", "normal_cancer"} <= set(last.index)
    assert last["normal_cancer"] == pytest.approx(np.log(2), abs=0.5)  # without weight, per labeled cell
    assert last["temperature"] != pytest.approx(0.3, abs=1e-5)
    assert model.encoder.masked_gene.weight.grad is not None


@pytest.mark.parametrize("views", ["dropout", "genes", "counts", "genes+counts"])
def test_views_by_name(pretrain, views):
    assert np.isfinite(pretrain(views=views, max_steps=1).history["contrastive"]).all()


def test_same_seed_same_weights_whatever_the_budget(pretrain):
    first = weights(pretrain())
    assert torch.equal(weights(pretrain()), first)
    assert not torch.equal(weights(pretrain(rng=1)), first)
    chunked = weights(pretrain(tokens_per_chunk=300, memory_budget="3MiB"))
    torch.testing.assert_close(chunked, first, rtol=1e-3, atol=2e-5)
    assert not torch.equal(chunked, first)  # control: it did run in chunks


def test_the_callers_random_state_and_data_are_left_alone(pretrain, data):
    before = {name: (x.X.copy(), x.obs.copy()) for name, x in data.items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    pretrain(max_steps=1)
    assert torch.equal(torch.rand(1), expected)
    for name, (X, obs) in before.items():
        assert (X != data[name].X).nnz == 0
        pd.testing.assert_frame_equal(obs, data[name].obs)


def test_the_model_can_be_saved_used_and_trained_on(pretrain, tmp_path, cells):
    model = pretrain(
        name="mine",
        redraw_every=2,
        config=dataclasses.replace(CellLMConfig.named("tiny", n_genes=400), attention="favor"),
    )
    scellm.models.save(model, tmp_path / "mine")
    loaded = scellm.models.load(tmp_path / "mine")
    assert torch.equal(weights(loaded), weights(model))
    assert loaded.provenance["recipe"]["redraw_every"] == 2
    assert loaded.provenance["n_cells"] == 140
    assert set(loaded.provenance["datasets"]) == {"first", "second"}
    assert loaded.config.dropout == 0.1
    adata = cells.copy()
    scellm.tl.embed(adata, loaded)
    assert np.isfinite(adata.obsm["X_scellm"]).all()
    again = pretrain(init=loaded, config=loaded.config, max_steps=1)
    assert not torch.equal(weights(again), weights(loaded))
    for change, said in (({"cell_embedding": "cls"}, "'mean' -> 'cls'"), ({"depth": 0}, r"depth \d -> 0")):
        with pytest.raises(ValueError, match=f"init has another architecture.*{said}.*only depth may grow"):
            pretrain(init=loaded, config=dataclasses.replace(loaded.config, **change))


def test_a_stopped_run_goes_on_as_if_it_had_not(pretrain, tmp_path):
    whole = pretrain(checkpoint_dir=tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir() if path.name.startswith("step"))
    assert names == ["step-00000004", "step-00000006"]  # the newest two

    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "step-00000006")
    resumed = pretrain(checkpoint_dir=tmp_path / "stopped")
    assert torch.equal(weights(resumed), weights(whole))
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "stopped")]
    same = ["step", "contrastive", "masked_gene", "gradient_norm", "uniformity"]
    pd.testing.assert_frame_equal(logs[0][same], logs[1][same])
    assert logs[0]["step"].tolist() == [1, 2, 4, 6]
    # control: without the optimizer's state it is another run
    state = checkpoint_module.load_checkpoint(tmp_path / "whole" / "step-00000004")
    assert any(name.startswith("optimizer.exp_avg_sq.encoder.blocks") for name in state.training)
    # nothing is left to do
    assert torch.equal(weights(pretrain(checkpoint_dir=tmp_path / "whole")), weights(whole))


KILLED = """
import sys, torch, scellm
from scellm.data import GeneVocabulary
cells = scellm.datasets.toy_cells(80, n_vars=400)
model = scellm.tl.pretrain(
    cells, config="tiny", dropout=0.1, batch_size=32, max_steps=40, negatives="all", checkpoint_every=1,
    vocabulary=GeneVocabulary.default().subset(cells.var_names), checkpoint_dir=sys.argv[1], show_progress=False,
    device="cpu", keep_checkpoints=3, learning_rate=1e-2,
)
torch.save(model.encoder.state_dict(), sys.argv[2])
"""


def test_killed_at_any_moment_and_resumed_gives_the_same_bits(tmp_path):
    """A real process, really killed, several times."""

    def start(name):
        arguments = [sys.executable, "-c", KILLED, str(tmp_path / name), str(tmp_path / f"{name}.pt")]
        return subprocess.Popen(arguments)

    assert start("whole").wait(timeout=300) == 0
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    n_kills = 0
    for wanted in (2, 9, 23):
        process = start("killed")
        while process.poll() is None:
            if (
                len(done := checkpoint_module.checkpoints(tmp_path / "killed"))
                and int(done[-1].name[5:]) >= wanted
            ):
                time.sleep(rng.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                n_kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.002)
    assert n_kills >= 2
    assert not (tmp_path / "killed.pt").exists()
    assert start("killed").wait(timeout=300) == 0
    whole, resumed = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_changed_run_is_not_resumed(pretrain, data, cells, tmp_path, vocabulary):
    folder = tmp_path / "run"
    pretrain(checkpoint_dir=folder, max_steps=2)
    with pytest.raises(ValueError, match=r"recipe has changed \(temperature: 0.1 -> 0.2\).*resume='force'"):
        pretrain(checkpoint_dir=folder, max_steps=2, temperature=0.2)
    changed = {"first": cells[:70].copy(), "second": data["second"]}
    with pytest.raises(ValueError, match=r"corpus is not the one.*fingerprint.*resume='force'"):
        pretrain(changed, checkpoint_dir=folder, max_steps=2)
    with pytest.raises(ValueError, match=r"another architecture \(dropout: 0.1 -> 0.2\)"):
        pretrain(checkpoint_dir=folder, max_steps=2, dropout=0.2)
    genes = vocabulary.subset(vocabulary.symbols[:399])
    with pytest.raises(ValueError, match="another architecture.*n_genes"):
        scellm.tl.pretrain(data, vocabulary=genes, **OPTIONS | {"max_steps": 2, "checkpoint_dir": folder})
    with pytest.raises(FileExistsError, match="resume='never', but .* holds step-00000002"):
        pretrain(checkpoint_dir=folder, max_steps=2, resume="never")
    with pytest.raises(FileNotFoundError, match="resume='must', but there is no checkpoint"):
        pretrain(checkpoint_dir=tmp_path / "empty", resume="must")
    longer = pretrain(checkpoint_dir=folder, max_steps=4, resume="force")
    assert longer.history["step"].tolist() == [1, 2, 4]
    # how it is computed may change
    pretrain(checkpoint_dir=folder, max_steps=4, memory_budget="1GiB", tokens_per_chunk=500, log_every=1)


def test_another_number_of_processes_is_said(pretrain, tmp_path):
    whole = pretrain(checkpoint_dir=tmp_path / "whole", max_steps=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "step-00000004")
    path = tmp_path / "other" / "step-00000002" / "state.json"
    path.write_text(path.read_text().replace('"world_size": 1', '"world_size": 2'))
    with pytest.warns(
        UserWarning, match="started with 2 processes and goes on with 1: the batches are the same"
    ):
        resumed = pretrain(checkpoint_dir=tmp_path / "other", max_steps=4)
    assert torch.equal(weights(resumed), weights(whole))


def test_half_precision_learns_about_the_same(pretrain):
    single, half = (pretrain(precision=p, dropout=0.0).history for p in ("fp32", "bf16"))
    np.testing.assert_allclose(half["contrastive"], single["contrastive"], rtol=0.02)
    assert not np.array_equal(half["contrastive"], single["contrastive"])


def test_tensorboard_gets_the_log_where_it_is_installed(pretrain, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step=None):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    pretrain(max_steps=2, checkpoint_dir=tmp_path)
    assert written[0] == (str(tmp_path / "tensorboard"), None)
    assert ("contrastive", 2) in written
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # not installed
    pretrain(max_steps=2, checkpoint_dir=tmp_path / "other")


def test_a_damaged_checkpoint_is_refused(pretrain, tmp_path):
    pretrain(checkpoint_dir=tmp_path, max_steps=2)
    path = tmp_path / "step-00000002"
    weights_file = path / "encoder.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"is not the file that was written.*Delete .*step-00000002"):
        pretrain(checkpoint_dir=tmp_path, max_steps=2)
    weights_file.unlink()
    with pytest.raises(ValueError, match="is no readable checkpoint"):
        pretrain(checkpoint_dir=tmp_path, max_steps=2)
    shutil.rmtree(path)
    left = tmp_path / ".step-00000001.0123abcd.scellm"  # what a killed process leaves
    left.mkdir()
    (left / "lock").touch()
    assert pretrain(checkpoint_dir=tmp_path, max_steps=2).history["step"].tolist() == [1, 2]
    assert not left.exists()


def test_a_full_disk_leaves_the_last_good_checkpoint(pretrain, tmp_path, monkeypatch):
    save = checkpoint_module.save_file
    n_saved = 0

    def full(tensors, path):
        nonlocal n_saved
        n_saved += 1
        if n_saved > 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(OSError, match=r"step 4 could not be written.*disk is full.*last good.*step-00000002"):
        pretrain(checkpoint_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if "step" in path.name] == ["step-00000002"]
    monkeypatch.undo()
    assert pretrain(checkpoint_dir=tmp_path).history["step"].tolist() == [1, 2, 4, 6]


def test_a_loss_that_is_not_finite_stops_the_run(pretrain, tmp_path, monkeypatch):
    encode = objectives_module.Objectives.encode
    n_calls = 0

    def broken(self, batch):
        nonlocal n_calls
        encoded = encode(self, batch)
        n_calls += 1
        if n_calls > 6:
            encoded.representations.data[1] = torch.nan
        return encoded

    monkeypatch.setattr(objectives_module.Objectives, "encode", broken)
    with pytest.raises(
        FloatingPointError, match=r"Step \d+: .*weights were not changed.*cell \d+.*not-finite"
    ) as error:
        pretrain(checkpoint_dir=tmp_path)
    (saved,) = tmp_path.glob("not-finite-*.npz")
    assert str(saved) in str(error.value)
    with np.load(saved) as batch:
        assert {"dataset", "row", "gene_ids", "values"} <= set(batch)
        assert len(batch["row"]) == 32


def test_the_clock_ends_a_run_with_a_checkpoint(pretrain, tmp_path):
    options = {"log_every": 1, "checkpoint_every": 1000, "checkpoint_dir": tmp_path}
    # a bag, whose cells are apart from the first step on, wherever the clock ends it
    model = pretrain(config="small", max_steps=None, max_time=3, **options)
    assert model.history["anisotropy"].max() < 0.9
    last = int(model.provenance["steps"])
    (path,) = checkpoint_module.checkpoints(tmp_path)
    assert int(path.name[5:]) >= last > 1
    state = json.loads((path / "state.json").read_text())
    assert state["seconds"] < 30
    assert model.history["learning_rate"].iloc[-1] < model.history["learning_rate"].max()


def test_epochs_and_the_learning_rate_are_as_stated(pretrain):
    recipe = PretrainConfig(batch_size=1024, learning_rate=1e-3)
    assert recipe.peak_learning_rate == pytest.approx(2e-3)
    assert recipe.n_steps(2048) == 20  # ten epochs
    assert PretrainConfig(batch_size=100, max_epochs=1.5).n_steps(1000) == 15
    assert PretrainConfig(max_epochs=100, max_steps=7).n_steps(10_000) == 7
    assert PretrainConfig(max_time=3).n_steps(10_000) is None
    history = pretrain(max_steps=None, max_epochs=1, log_every=1).history
    assert len(history) == 5  # 140 cells, 32 at a time


def test_files_are_read_as_memory_is(pretrain, data, tmp_path):
    for name, adata in data.items():
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    expected = weights(pretrain(max_steps=2))
    assert torch.equal(weights(pretrain(tmp_path, max_steps=2)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 500}, r"batch_size is 500, but there are only 140 cells"),
        ({"batch_size": 1}, "batch_size is 1; it must be a whole number of at least 2"),
        ({"temprature": 0.1}, "Unknown key 'temprature' in a recipe. Did you mean 'temperature'"),
        (
            {"objectives": ["contrastiv"]},
            "Unknown key 'contrastiv' in the objectives. Did you mean 'contrastive'",
        ),
        ({"objectives": {"contrastive": -1}}, "'contrastive' has the weight -1"),
        ({"objectives": {}}, "at least one objective"),
        (
            {"objectives": ["normal_cancer"], "cancer_key": "donor"},
            "needs cells of both kinds; .*'donor'.* no label",
        ),
        ({"objectives": ["supervised"], "type_key": "nothing"}, "nothing"),
        ({"memory_budget": "5KiB"}, "memory_budget is 5KiB; one row of"),
        ({"memory_budget": "much"}, "no amount of memory"),
        ({"views": "rotated"}, "No views are named 'rotated'"),
        ({"views": {"max_gene": 3}}, "Unknown key 'max_gene' in views. Did you mean 'max_genes'"),
        ({"views": "dropout", "dropout": 0.0, "objectives": ["contrastive"]}, "Both views .* would be equal"),
        ({"temperature": 0}, "temperature is 0"),
        ({"negatives": "some"}, "negatives is 'some'; choose one of"),
        ({"freeze": ["genes"]}, "freeze='genes' is the beginning of no parameter"),
        ({"config": "huge"}, "No configuration is named 'huge'"),
        ({"min_overlap": 1.0, "vocabulary": None}, "second|first"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_refused(pretrain, data, vocabulary, options, message):
    arguments = {**OPTIONS, "vocabulary": vocabulary, **options}
    with pytest.raises((ValueError, KeyError), match=message):
        scellm.tl.pretrain(data, **arguments)


def test_masked_genes_need_a_deeper_encoder(pretrain):
    config = dataclasses.replace(CellLMConfig.named("tiny", n_genes=400), depth=0)
    with pytest.raises(ValueError, match="depth 0 cannot predict masked genes"):
        pretrain(config=config, objectives=["contrastive", "masked_gene"])


def test_one_cell_and_wrong_types_are_refused(pretrain, cells):
    with pytest.raises(ValueError, match="only 1 cells"):
        pretrain(cells[:1].copy(), batch_size=2)
    with pytest.raises(TypeError, match="int"):
        pretrain(3)


def test_nan_in_one_cell_is_named(pretrain, cells):
    broken = cells.copy()
    broken.X[17].data[:] = 1  # a copy: sparse rows are
    broken.X.data[broken.X.indptr[17]] = np.nan
    with pytest.raises(ValueError, match=r"'broken': .* NaN or infinite values, the first in cell 17"):
        pretrain({"broken": broken})


def test_few_negatives_are_said(vocabulary, cells):
    many = {f"set{i:02d}": cells[i : i + 10].copy() for i in range(20)}
    with pytest.warns(UserWarning, match=r"batch_size=100.*largest share of one dataset is about 5 cells"):
        scellm.tl.pretrain(
            many,
            vocabulary=vocabulary,
            **{**OPTIONS, "negatives": "dataset", "batch_size": 100, "max_steps": 1},
        )


BARE = """
import sys
for name in ("anndata", "scanpy", "zarr", "umap", "numba", "matplotlib", "dask", "sklearn", "huggingface_hub"):
    sys.modules[name] = None  # as if it were not installed
import scellm.train
from scellm.data import Corpus
from scellm.tl import pretrain
model = pretrain(sys.argv[1], config="tiny", batch_size=32, max_steps=2, min_overlap=0.01, show_progress=False)
from scellm.models import save
save(model, sys.argv[2])
print(len(model.history))
"""


def test_a_bare_machine_trains_on_a_packed_file(data, vocabulary, tmp_path):
    """torch, numpy, h5py, scipy, pandas only, as on a borrowed GPU machine."""
    scellm.data.pack(data, tmp_path / "cells.h5", vocabulary=vocabulary, min_overlap=0.01)
    result = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path / "cells.h5"), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "2"
