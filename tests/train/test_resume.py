"""One meaning of resume=, and nothing lost or left behind."""

import shutil

import pandas as pd
import pytest
import torch

import scellm
from scellm._files import tidy_inside
from scellm.data import GeneVocabulary
from scellm.train._checkpoint import Checkpoint, save_checkpoint
from scellm.train._resume import (
    find_checkpoint,
    load_optimizer,
    optimizer_tensors,
    split_names,
)


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    save_checkpoint(
        folder, Checkpoint({"step": 3}, {"w": torch.ones(2)}, {"heads.b": torch.zeros(1)}), keep=1
    )
    return folder


@pytest.mark.parametrize("resume", ["auto", "must", "force"])
def test_a_checkpoint_is_found(saved, resume):
    path, checkpoint = find_checkpoint(saved, resume)
    assert path.name == "step-00000003"
    assert checkpoint.state["step"] == 3


def test_never_refuses_and_overwrites_nothing(saved):
    with pytest.raises(FileExistsError, match="resume='never', but .* holds step-00000003"):
        find_checkpoint(saved, "never")
    assert find_checkpoint(saved, "auto") is not None


def test_without_a_checkpoint(tmp_path):
    assert find_checkpoint(tmp_path, "auto") is find_checkpoint(None, "never") is None
    with pytest.raises(FileNotFoundError, match="resume='must', but there is no checkpoint in"):
        find_checkpoint(tmp_path, "must")
    with pytest.raises(FileNotFoundError, match="without checkpoint_dir= there is none"):
        find_checkpoint(None, "must")
    with pytest.raises(ValueError, match="resume='yes' is unknown; choose one of 'auto', 'never'"):
        find_checkpoint(tmp_path, "yes")


def test_the_state_of_an_optimizer_goes_by_names():
    parameters = {"first": torch.nn.Parameter(torch.ones(2)), "second": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.AdamW(parameters.values())
    sum(p.sum() for p in parameters.values()).backward()
    optimizer.step()
    tensors = split_names(optimizer_tensors(optimizer, parameters))["optimizer"]
    other = torch.optim.AdamW(list(parameters.values())[::-1])  # another order
    load_optimizer(other, parameters, tensors | {"exp_avg.gone": torch.zeros(1)})
    for parameter in parameters.values():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(other.state[parameter][key], value)


def test_only_leftovers_of_scellm_are_removed(saved):
    mine = saved / ".step-00000004.0a0a0a0a.scellm"
    others = [saved / ".step-00000004.notes.part", saved / ".cache.part", saved / "step-00000004.part"]
    for folder in (mine, *others):
        folder.mkdir()
        (folder / "file").write_text("x")
    (mine / "lock").touch()
    tidy_inside(saved)
    assert not mine.exists()
    assert all((folder / "file").exists() for folder in others)
    assert find_checkpoint(saved, "auto") is not None


def test_the_log_of_a_resumed_run_is_that_of_one_in_a_piece(tmp_path):
    """Also where a checkpoint lies between two lines of the log, and in every digit."""
    cells = scellm.datasets.toy_cells(80, n_vars=400)
    options = {
        "vocabulary": GeneVocabulary.default().subset(cells.var_names),
        "config": "tiny",
        "batch_size": 32,
        "max_steps": 6,
        "log_every": 5,
        "checkpoint_every": 3,
        "min_overlap": 0.5,
        "show_progress": False,
    }
    whole = scellm.tl.pretrain(cells, checkpoint_dir=tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "step-00000006")
    resumed = scellm.tl.pretrain(cells, checkpoint_dir=tmp_path / "stopped", **options)
    clock = ["seconds", "cells_per_second", "memory_gib"]
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns=clock), whole.history.drop(columns=clock), check_exact=True
    )
    logs = [pd.read_csv(tmp_path / name / "log.csv").drop(columns=clock) for name in ("whole", "stopped")]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


def test_numbers_that_are_not_finite_are_not_gone_on_from(tmp_path):
    folder = tmp_path / "run"
    good = Checkpoint({"step": 3}, {"w": torch.ones(2)}, {"optimizer.step.w": torch.tensor(3)})
    save_checkpoint(folder, good, keep=2)
    save_checkpoint(
        folder,
        Checkpoint({"step": 4}, good.encoder, {"optimizer.exp_avg.w": torch.tensor([1.0, torch.nan])}),
        keep=2,
    )
    with pytest.raises(
        ValueError, match=r"step-00000004 holds .* not finite, in optimizer.exp_avg.w. Delete this folder"
    ):
        find_checkpoint(folder, "auto")
    shutil.rmtree(folder / "step-00000004")  # as the message says
    assert find_checkpoint(folder, "auto")[0].name == "step-00000003"
