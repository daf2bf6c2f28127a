"""Checkpoints of a run: weights and state as safetensors and JSON, each folder complete or not there.

`step-00000200/` holds `encoder.safetensors`, `training.safetensors` (heads, optimizer, average) and `state.json` with
the position of the run, what it was started with, and SHA-256 of both files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .._files import is_full, parse_json, replacing, tidy_inside
from .._version import __version__
from ..models._manifest import sha256_of

FORMAT = 1
ENCODER, TRAINING, STATE = "encoder.safetensors", "training.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on."""

    state: dict[str, Any]
    """Plain values: step, seconds, sampler, fingerprint, recipe, config, vocabulary."""
    encoder: dict[str, Tensor]
    training: dict[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint under a temporary name, move it into place, and remove all but the newest.

    Raises
    ------
    OSError
        It could not be written, for instance because the disk is full; older checkpoints are as they were.
    """
    step = checkpoint.state["step"]
    target = folder / f"step-{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tidy_inside(folder)
        _write(target, checkpoint)
        _to_disk(folder)
    except (OSError, SafetensorError) as error:
        newest = newest_checkpoint(folder)
        reason = "The disk is full" if is_full(error) else str(error)
        last = f"The last good checkpoint is {newest}" if newest else "There is no earlier checkpoint"
        msg = f"The checkpoint of step {step} could not be written to {folder}: {reason}. {last}."
        raise OSError(msg) from error
    for old in checkpoints(folder)[:-keep]:
        if {path.name for path in old.iterdir()} <= {ENCODER, TRAINING, STATE}:
            shutil.rmtree(old, ignore_errors=True)
    return target


def _write(target: Path, checkpoint: Checkpoint) -> None:
    """One checkpoint, whole or not at all; one of the same step is replaced: a run was resumed before it."""
    with replacing(target) as part:
        part.mkdir()
        for name, tensors in ((ENCODER, checkpoint.encoder), (TRAINING, checkpoint.training)):
            save_file({key: x.detach().cpu().contiguous() for key, x in tensors.items()}, part / name)
        hashes = {name: sha256_of(part / name) for name in (ENCODER, TRAINING)}
        state = {"format": FORMAT, "scellm_version": __version__, "sha256": hashes, **checkpoint.state}
        (part / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. What was not finished has another name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint, if there is one."""
    return next(reversed(checkpoints(folder)), None)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check it against its hashes.

    Raises
    ------
    ValueError
        A file is missing, altered or of a newer scellm.
    """
    remedy = f"Delete {path} to resume from the one before."
    try:
        state = parse_json((path / STATE).read_bytes(), path / STATE, remedy)
        if state.get("format") != FORMAT:
            msg = (
                f"{path} has the format {state.get('format')!r}; this scellm reads {FORMAT}. Upgrade scellm."
            )
            raise ValueError(msg)
        for name in (ENCODER, TRAINING):
            if sha256_of(path / name) != state["sha256"][name]:
                msg = f"{path / name} is not the file that was written: its SHA-256 differs. {remedy}"
                raise ValueError(msg)
        return Checkpoint(state, load_file(path / ENCODER), load_file(path / TRAINING))
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        msg = f"{path} is no readable checkpoint ({type(error).__name__}: {error}). {remedy}"
        raise ValueError(msg) from error


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], *, but: tuple[str, ...] = ()
) -> list[str]:
    """`name: found -> wanted` of every field that differs."""
    # through JSON, so that tuples and lists are the same
    found, wanted = (json.loads(json.dumps(x)) for x in (found, wanted))
    names = sorted((found.keys() | wanted.keys()) - set(but))
    return [
        f"{name}: {found.get(name)!r} -> {wanted.get(name)!r}"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def _to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
