"""Write a folder under a temporary name and move it into place when it is complete."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_folder(target: Path, *, overwrite: bool, contents: tuple[str, ...]) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place if the block ends well, and is removed if not.

    Parameters
    ----------
    target
        The folder to make; a link is followed.
    overwrite
        Whether an existing folder may be replaced; only one that holds nothing but `contents` is.

    Raises
    ------
    FileExistsError
        `target` may not be replaced.
    """
    target = target.resolve()
    _check_replaceable(target, overwrite=overwrite, contents=contents)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    folder.mkdir()
    try:
        yield folder
        _check_replaceable(target, overwrite=overwrite, contents=contents)  # it may have come in the meantime
        _move(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already where it was moved


def _check_replaceable(target: Path, *, overwrite: bool, contents: tuple[str, ...]) -> None:
    """Refuse a target that exists, unless it is ours and may be overwritten."""
    if not target.exists():
        return
    if not target.is_dir():
        msg = f"`{target}` is a file; a model is saved as a folder. Choose another path."
        raise FileExistsError(msg)
    others = sorted(path.name for path in target.iterdir() if path.name not in contents)
    if others:
        msg = f"`{target}` holds other things than a model ({', '.join(others[:5])}); choose another path."
        raise FileExistsError(msg)
    if not overwrite and any(target.iterdir()):
        msg = (
            f"`{target}` holds a model already. Pass `overwrite=True` to replace it, or choose another path."
        )
        raise FileExistsError(msg)


def _move(folder: Path, target: Path) -> None:
    """Put `folder` at `target`; a folder that is there is put aside first and put back if the move fails."""
    if not target.exists():
        folder.rename(target)
        return
    aside = folder.with_suffix(".old")
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
