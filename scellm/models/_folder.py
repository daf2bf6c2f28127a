"""A model folder is written whole or not at all, and replaces nothing but a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._files import replacing


@contextmanager
def replace_folder(target: Path, *, overwrite: bool, contents: tuple[str, ...]) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place if the block ends well, and is removed if not.

    Parameters
    ----------
    target
        The folder to make; a link is followed.
    overwrite
        Whether an existing folder may be replaced; only one that holds nothing but `contents` is.
    """

    def check(path: Path) -> None:
        check_replaceable(path, overwrite=overwrite, contents=contents)

    target = target.resolve()
    check(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, check) as folder:
        folder.mkdir()
        yield folder


def check_replaceable(target: Path, *, overwrite: bool, contents: tuple[str, ...]) -> None:
    """Refuse a target that exists, unless it is ours and may be overwritten."""
    if not target.exists():
        return
    if not target.is_dir():
        msg = f"`{target}` is a file; a model is saved as a folder. Choose another path."
        raise FileExistsError(msg)
    others = sorted(path.name for path in target.iterdir() if path.name not in contents or not path.is_file())
    if others:
        msg = f"`{target}` holds other things than a model ({', '.join(others[:5])}); choose another path."
        raise FileExistsError(msg)
    if not overwrite and any(target.iterdir()):
        msg = (
            f"`{target}` holds a model already. Pass `overwrite=True` to replace it, or choose another path."
        )
        raise FileExistsError(msg)
