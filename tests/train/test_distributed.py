"""Two real processes give what one gives; one that dies ends the other with a message."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from scellm.train import World

STEP = """
import json, sys
import torch
from scellm.train import DivideAndConquer, World, info_nce, processes, supervised_contrastive

N = 13  # 8 in one process and 5 in the other
generator = torch.Generator().manual_seed(0)
cells = torch.randn(2, N, 6, generator=generator, dtype=torch.float64)
group = torch.arange(N) % 3
types = torch.tensor([0, 1, -1, 0, 2, 2, 1, -1, 0, 0, 1, 2, -1])

def losses(own, world, log_temperature):
    def options(**more):
        return {"world": world, "temperature": log_temperature.exp(), **more}

    yield "one direction", lambda a, b: info_nce(a, b, **options(symmetric=False))
    yield "both", lambda a, b: info_nce(a, b, **options(group=group[own], exclude=types[own]))
    yield "supervised", lambda a, b: supervised_contrastive(a, b, types[own], **options(group=group[own]))

result = {}
with processes(timeout=60) as world:
    own = slice(0, N) if world.size == 1 else (slice(0, 8), slice(8, N))[world.rank]
    log_temperature = torch.nn.Parameter(torch.tensor(-1.2, dtype=torch.float64))
    for name, loss in losses(own, world, log_temperature):
        torch.manual_seed(1)
        encoder = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()
        log_temperature.grad = None
        step = DivideAndConquer(
            encoder, lambda r: loss(*r.chunk(2)), tokens_per_chunk=4, memory_budget=sys.argv[1]
        )
        report = step(cells[:, own].reshape(-1, 6))
        parameters = [*encoder.parameters(), log_temperature]
        world.sum_gradients(parameters)
        result[name] = {
            "loss": report.losses["contrastive"],
            "kept": report.n_kept / report.n_chunks,
            "gradient": torch.cat([p.grad.flatten() for p in parameters]).tolist(),
        }
        if name == "both" and world.size > 1:  # hosted by torch's own wrapper, the same
            found = [p.grad.clone() for p in encoder.parameters()]
            hosted = torch.nn.parallel.DistributedDataParallel(encoder)
            hosted.zero_grad(set_to_none=True)
            DivideAndConquer(
                hosted, lambda r: loss(*r.chunk(2)), tokens_per_chunk=4, memory_budget=sys.argv[1],
                no_sync=hosted.no_sync,
            )(cells[:, own].reshape(-1, 6))
            world.sum_gradients(encoder.parameters())
            for p, expected in zip(encoder.parameters(), found):
                torch.testing.assert_close(p.grad, expected, rtol=1e-12, atol=1e-14)
    print(json.dumps(result) if world.rank == 0 else "")
"""

LOOP = """
import json, sys
import torch, scellm
from scellm.data import GeneVocabulary
from scellm.train import processes

cells = scellm.datasets.toy_cells(150, n_vars=400)
other = scellm.datasets.toy_cells(90, n_vars=400, rng=1)
other.obs["malignant"] = ["True", "False", "NA"] * 30
with processes(timeout=60) as world:
    model = scellm.tl.pretrain(
        {"cells": cells, "other": other}, config="tiny", dropout=0.2, batch_size=150, max_steps=4,
        objectives=["contrastive", "masked_gene", "normal_cancer"], device="cpu", log_every=1, learning_rate=1e-2,
        vocabulary=GeneVocabulary.default().subset(cells.var_names), show_progress=False, checkpoint_dir=sys.argv[1],
    )
    if world.rank == 0:
        print(json.dumps({"weights": torch.cat([p.flatten() for p in model.encoder.parameters()]).tolist(),
                          "history": model.history[["contrastive", "masked_gene", "normal_cancer"]].values.tolist()}))
"""

DYING = """
import os, signal, sys, torch
from scellm.train import World, processes
with processes(timeout=20) as world:
    for step in range(1000):
        if world.rank == 1 and step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        world.sum(torch.ones(3))
"""


def launch(script, n_processes, *arguments):
    """Start processes as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(n_processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_processes)
    ]


def run(script, n_processes, *arguments):
    """Result of process 0."""
    started = launch(script, n_processes, *arguments)
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * n_processes, "\n".join(x[1] for x in outputs)
    return json.loads(outputs[0][0])


@pytest.mark.parametrize("budget", ["1GiB", "1KiB"], ids=["kept", "replayed"])
def test_two_processes_give_the_gradients_of_one(budget):
    """Uneven shards, an asymmetric loss, masks over processes, a trained temperature."""
    one, two = run(STEP, 1, budget), run(STEP, 2, budget)
    for name, expected in one.items():
        found = two[name]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12), name
        gradients = [torch.tensor(x["gradient"], dtype=torch.float64) for x in (found, expected)]
        assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-12, name
        assert gradients[1].norm() > 1e-3
    assert {x["kept"] == 1 for x in two.values()} == {budget == "1GiB"}


def test_a_run_on_two_processes_is_the_run_on_one(tmp_path):
    """Same batches, views, masks, dropout, whatever the number of processes."""
    one, two = run(LOOP, 1, tmp_path / "one"), run(LOOP, 2, tmp_path / "two")
    torch.testing.assert_close(
        torch.tensor(two["history"]), torch.tensor(one["history"]), rtol=2e-4, atol=1e-5
    )
    torch.testing.assert_close(
        torch.tensor(two["weights"]), torch.tensor(one["weights"]), rtol=1e-3, atol=1e-3
    )
    # a run of one process goes on with two, and says so
    newest = sorted(path for path in (tmp_path / "one").iterdir() if path.name.startswith("step"))[-1]
    assert newest.name == "step-00000004"
    assert not list((tmp_path / "two").glob(".*"))


def test_a_killed_process_ends_the_run_with_a_message():
    started = time.monotonic()
    processes = launch(DYING, 2)
    _, errors = processes[0].communicate(timeout=120)
    processes[1].communicate(timeout=10)
    assert processes[1].returncode == -signal.SIGKILL
    assert processes[0].returncode not in (0, -signal.SIGKILL)
    assert "Another process of this run ended or stopped answering" in errors
    assert "resumes from its newest checkpoint" in errors
    assert time.monotonic() - started < 100


def test_alone_every_exchange_gives_back_what_it_got():
    world, rows = World(), torch.randn(4, 3)
    assert world.sizes(4, rows.device) == [4]
    assert torch.equal(world.gather(rows, [4]), rows)
    assert torch.equal(world.reduce_scatter(rows, [4]), rows)
    assert torch.equal(world.sum(rows), rows)
    layer = torch.nn.Linear(2, 2)
    world.sum_gradients(layer.parameters())
    assert layer.weight.grad is None
    assert World.current() == World()
