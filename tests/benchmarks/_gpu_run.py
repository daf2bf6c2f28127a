"""`gpu.py run`: measure, train and cut what comes of it into pieces, all within a limit of seconds."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _gpu_pieces import cut, sha256

HERE = Path(__file__).parent
CORPUS, ABOUT = HERE / "corpus.scellm.h5", HERE / "pack.json"
MEASURING, ENDING = 0.2, 0.06
"""Shares of the limit for measurements, and kept for the end."""
TRAINING = 0.92
"""Share of its time after which training ends; the rest is for the last step and for saving."""
SNAPSHOT_SECONDS = 60
"""Between pieces of what there is so far, in case the command is ended from outside."""


def check_pack() -> None:
    """That all files came as they were packed.

    Raises
    ------
    ValueError
        One did not.
    """
    for name, digest in json.loads(ABOUT.read_text(encoding="utf-8"))["files"].items():
        path = HERE / name
        if not path.is_file() or sha256(path.read_bytes()) != digest:
            msg = f"{path} is missing or not what was packed: copy the folder again, or pack it again."
            raise ValueError(msg)


def run(out: Path, limit: float, recipe: str, device: str, changes: Sequence[str]) -> int:
    """Measure and train within `limit` seconds; the pieces in `out` are the result. 0 if both ended well."""
    deadline = time.time() + limit
    ending = min(45.0, max(2.0, ENDING * limit))
    check_pack()
    work = Path(tempfile.mkdtemp(prefix="scellm-gpu-"))
    environment = _environment(work)
    common = [sys.executable, str(HERE / "gpu.py")]
    measure = [*common, "_measure", str(work / "measured.json"), "--recipe", recipe, "--device", device]
    train = [*common, "_train", str(work / "train"), "--recipe", recipe, "--device", device]
    train += [part for change in changes for part in ("--set", change)]
    found: dict[str, Any] = {"limit": limit, "recipe": recipe, "changes": list(changes)}
    found["pack"] = {k: v for k, v in json.loads(ABOUT.read_text(encoding="utf-8")).items() if k != "files"}
    phases = (("measure", measure, time.time() + MEASURING * limit), ("train", train, deadline - ending))
    for name, command, until in phases:
        found[name] = _phase(command, until, work, out, name, found, environment)
        _bundle(work, out, found)
        print(f"{name}: {found[name]['end']} after {found[name]['seconds']:.0f} s", flush=True)
    listed = _bundle(work, out, found)
    total = sum(piece["bytes"] for piece in listed["pieces"])
    print(f"{out}: {len(listed['pieces'])} pieces, {total / 1e6:.1f} MB. Next: gpu.py collect {out}")
    return int(any(found[name]["end"] != "done" for name in ("measure", "train")))


def train(out: Path, until: float, recipe: str, device: str, changes: Mapping[str, Any]) -> None:
    """Train the stages of a recipe in the time there is."""
    from scellm.tl._run_recipe import run_recipe
    from scellm.train._recipe_file import read_recipe

    limit = TRAINING * max(1.0, until - time.time())
    found = dataclasses.replace(read_recipe(recipe).changed(changes), time_limit=limit)
    run_recipe(found, [CORPUS], out, device=device, show_progress=False)


def _phase(
    command: list[str],
    until: float,
    work: Path,
    out: Path,
    name: str,
    found: dict[str, Any],
    environment: dict[str, str],
) -> dict[str, Any]:
    """Run one part as a process of its own, so that its end is not that of the others."""
    began, log = time.time(), work / f"{name}.log"
    snapshot = began + SNAPSHOT_SECONDS
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, "--until", repr(until)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
        while process.poll() is None and time.time() < until:
            time.sleep(0.2)
            if time.time() > snapshot:
                snapshot = time.time() + SNAPSHOT_SECONDS
                _bundle(work, out, found)
        is_late = process.poll() is None
        if is_late:
            process.kill()
            process.wait()
    end = "stopped by the clock" if is_late else "done" if process.returncode == 0 else "failed"
    tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    return {"end": end, "seconds": time.time() - began, "log": "" if end == "done" else tail}


def _environment(work: Path) -> dict[str, str]:
    """Of the parts: the packed package first, and wheels that came along."""
    paths = [str(HERE)]
    wheels = sorted((HERE / "wheels").glob("*.whl"))
    if wheels:
        site = work / "site"
        options = ("--quiet", "--no-index", "--no-deps", "--target", str(site))
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, wheels)], check=True)
        paths.append(str(site))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _bundle(work: Path, out: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Cut what there is: numbers and logs first, then the model or, without one, the newest weights."""
    (work / "run.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    wanted = [(name, work / name) for name in ("run.json", "measured.json", "measure.log", "train.log")]
    wanted += [(f"{path.parent.name}.csv", path) for path in sorted((work / "train").glob("*/log.csv"))]
    models = sorted(path.parent for path in (work / "train").glob("*/config.json"))
    wanted += [(f"model/{path.name}", path) for path in models]
    newest = sorted((work / "train").glob("*/step-*"), key=lambda path: path.stat().st_mtime)[-1:]
    for path in [] if models else newest:
        names = ("state.json", "encoder.safetensors")
        wanted += [(f"checkpoint/{path.parent.name}/{name}", path / name) for name in names]
    return cut(wanted, out)
