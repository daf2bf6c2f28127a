"""Resuming a run: one meaning of `resume=`, and the state of an optimizer by the names of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ._checkpoint import Checkpoint, load_checkpoint, newest_checkpoint

Resume = Literal["auto", "never", "must", "force"]
"""`"auto"`: go on from the newest checkpoint, if there is one. `"must"`: refuse if there is none. `"never"`: refuse if
there is one. `"force"`: go on although data or settings have changed."""


def find_checkpoint(folder: Path | None, resume: Resume) -> tuple[Path, Checkpoint] | None:
    """The checkpoint to go on from, read and checked against its hashes; `None` to start anew.

    Nothing is ever overwritten: a folder with a checkpoint is resumed or refused.

    Parameters
    ----------
    folder
        Folder of checkpoints; `None` if the run keeps none.
    resume
        As in `tl.pretrain`.

    Raises
    ------
    FileNotFoundError
        `resume="must"` without a checkpoint.
    FileExistsError
        `resume="never"` with one.
    ValueError
        Another word for `resume`, a damaged checkpoint, or one with numbers that are not finite.
    """
    if resume not in get_args(Resume):
        msg = f"resume={resume!r} is unknown; choose one of {', '.join(map(repr, get_args(Resume)))}."
        raise ValueError(msg)
    path = None if folder is None else newest_checkpoint(folder)
    if path is None:
        if resume == "must":
            where = (
                "without checkpoint_dir= there is none"
                if folder is None
                else f"there is no checkpoint in {folder}"
            )
            msg = f"resume='must', but {where}."
            raise FileNotFoundError(msg)
        return None
    if resume == "never":
        msg = f"resume='never', but {folder} holds {path.name}. Choose another checkpoint_dir, or delete it."
        raise FileExistsError(msg)
    checkpoint = load_checkpoint(path)
    _refuse_not_finite(path, checkpoint)
    return path, checkpoint


def _refuse_not_finite(path: Path, checkpoint: Checkpoint) -> None:
    """A run that goes on from NaN would write NaN."""
    tensors = {**checkpoint.encoder, **checkpoint.training}
    bad = sorted(name for name, x in tensors.items() if x.is_floating_point() and not x.isfinite().all())
    if bad:
        msg = (
            f"{path} holds numbers that are not finite, in {', '.join(bad[:3])}{' and others' if len(bad) > 3 else ''}. "
            "Delete this folder to go on from the checkpoint before it, with a lower learning_rate and resume='force'."
        )
        raise ValueError(msg)


def refuse_changes(path: Path, problems: list[str], *, force: bool) -> None:
    """Stop if the checkpoint is of other data or settings, unless that is wanted.

    Parameters
    ----------
    path
        The checkpoint.
    problems
        What differs, as half sentences.
    force
        Whether `resume="force"`.

    Raises
    ------
    ValueError
        There are problems.
    """
    if problems and not force:
        msg = (
            f"{path} cannot be resumed: {' and '.join(problems)}. Pass resume='force' to go on all the same, or "
            "another checkpoint_dir to start anew."
        )
        raise ValueError(msg)


def split_names(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the first part of their name: `heads.cancer.bias` becomes `cancer.bias` of `heads`."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, Tensor]:
    """State of an optimizer as `optimizer.exp_avg.NAME` and so on.

    Parameters
    ----------
    optimizer
        The optimizer.
    parameters
        Its parameters by name.
    """
    return {
        f"optimizer.{key}.{name}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Put back what `optimizer_tensors` gave.

    Parameters
    ----------
    optimizer, parameters
        As there.
    tensors
        Its result without `optimizer.` before each name; parameters that are not trained any more are left out.
    """
    for name, value in tensors.items():
        key, _, parameter = name.partition(".")
        if parameter in parameters:
            own = value if key == "step" else value.to(parameters[parameter].device)
            optimizer.state[parameters[parameter]][key] = own.clone()
