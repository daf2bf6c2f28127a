"""The one door for warnings: they point at the line of the caller, however deep inside the package they arise."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

_PACKAGE = str(Path(__file__).parent)
_is_silent: ContextVar[bool] = ContextVar("_is_silent", default=False)


def tell(message: str) -> None:
    """A line about a result on stderr, beside progress bars, unless `without_lines` holds."""
    from tqdm.auto import tqdm

    if not _is_silent.get():
        tqdm.write(message, file=sys.stderr)


@contextmanager
def without_lines() -> Iterator[None]:
    """Inside, `tell` is silent: the command line prints a line of its own for each file."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside the package that called it.

    The level is found, not counted: a function that moves or is wrapped would point elsewhere without a word.
    """
    frame: FrameType | None = sys._getframe()
    level, found = 1, 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE + os.sep):
            found = level + 1  # the caller of the outermost frame of ours: helpers of libraries lie between
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=found)
