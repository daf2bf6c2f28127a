"""The one door for files: what is written is there whole or not at all, and what others wrote is never deleted.

Whatever is written goes first into a work folder beside its target, `.NAME.<8 hex digits>.scellm`, which holds the
part, a `lock` and, while a folder is replaced, the old one as `NAME.old`. The lock is held as long as the process
lives. A work folder whose lock is free was left by a run that was killed: the next run that writes to the same place
puts the old folder back where it is missing, and removes the rest.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: nothing tells a live run from a dead one, so leftovers stay
    fcntl = None  # type: ignore[assignment]

MARK = ".scellm"
"""End of the names of work folders."""
LOCK = "lock"
FEW_FILES = 64
"""Files of a folder up to which each is waited for until it is on the disk; zarr may have a hundred thousand."""
MAX_JSON = 64 * 2**20
"""Bytes of the largest JSON file that is read."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITTEN: ContextVar[list[Path] | None] = ContextVar("scellm_written", default=None)


# -- writing ----------------------------------------------------------------------------------------------------


@contextmanager
def recording() -> Iterator[list[Path]]:
    """Collect the files and folders that are written inside, by this process."""
    found: list[Path] = []
    token = _WRITTEN.set(found)
    try:
        yield found
    finally:
        _WRITTEN.reset(token)


@contextmanager
def replacing(target: Path, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield the path of a file or folder to write; it takes the place of `target` if the block ends well, and only then.

    Parameters
    ----------
    target
        Where it shall be. A folder that is there is replaced in two renames, and back if the second fails.
    check
        Called with `target` just before it is replaced; it raises if what is there must not go.
    """
    with _work_folder(target) as work:
        part = work / target.name
        try:
            yield part
            _to_disk(part)
            if check is not None:
                check(target)
            _move(part, target, work)
            if (written := _WRITTEN.get()) is not None:
                written.append(target)
        except (OSError, RuntimeError) as error:  # RuntimeError: of HDF5
            if not is_full(error):
                raise
            msg = f"The disk is full: {target} could not be written. It is as it was; make room, or write elsewhere."
            raise OSError(errno.ENOSPC, msg) from error


def tidy(target: Path) -> None:
    """Clean up after runs that were killed while they wrote `target`; those that still write are left alone."""
    _tidy(target.parent, re.escape(target.name))


def tidy_inside(folder: Path) -> None:
    """Clean up after runs that were killed while they wrote anything into a folder."""
    _tidy(folder, ".+")


def _tidy(folder: Path, names: str) -> None:
    pattern = re.compile(rf"\.({names})\.[0-9a-f]{{8}}{re.escape(MARK)}")
    try:
        found = [(path, match) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return
    for work, match in found:
        if work.is_dir() and not work.is_symlink() and (lock := _try_lock(work)) is not None:
            with lock:
                _clear(work, folder / match[1])


def restore(target: Path) -> None:
    """Put a folder back that a killed run had put aside, if nothing is in its place."""
    if not target.exists() and target.parent.is_dir():
        tidy(target)


def check_room(target: Path, needed: int, free: int) -> None:
    """That a disk has room for so many bytes."""
    if free < needed:
        msg = (
            f"The disk is too full to write {target}: {needed / 1e6:,.0f} MB are needed beside what is there, "
            f"{free / 1e6:,.0f} MB are free. Make room, or write elsewhere."
        )
        raise OSError(errno.ENOSPC, msg)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full; HDF5 says so in its text alone."""
    return getattr(error, "errno", None) in _FULL or any(
        f"errno = {number}," in str(error) or os.strerror(number) in str(error) for number in _FULL
    )


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, locked; it is removed in the end, whatever happens."""
    tidy(target)
    work, lock = _new_work_folder(target)
    try:
        yield work
    finally:
        with lock:
            _clear(work, target)


def _new_work_folder(target: Path) -> tuple[Path, IO[str]]:
    while True:
        work = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{MARK}")
        work.mkdir()
        try:
            lock = (work / LOCK).open("x")
        except FileNotFoundError:  # tidied by another run, before there was a lock
            continue
        _lock(lock, wait=True)
        if os.fstat(lock.fileno()).st_nlink or fcntl is None:
            lock.write("scellm writes here. If no run of scellm is active, this folder can be deleted.\n")
            lock.flush()
            return work, lock
        lock.close()  # tidied between its making and its locking


def _lock(lock: IO[str], *, wait: bool) -> bool:
    """Lock an open file, if the system and the file system can."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _try_lock(work: Path) -> IO[str] | None:
    """The lock of a work folder that no process holds; `None` if one does, or if that cannot be known."""
    try:
        lock = (work / LOCK).open("r")
    except FileNotFoundError:
        if not any(work.iterdir()):
            shutil.rmtree(work, ignore_errors=True)
        return None
    except OSError:
        return None
    if _lock(lock, wait=False):
        return lock
    lock.close()
    return None


def _clear(work: Path, target: Path) -> None:
    """Put back what a folder replaced, if nothing came in its place, and remove the work folder."""
    old = work / f"{target.name}.old"
    if old.exists() and not target.exists():
        old.replace(target)  # if this fails the folder stays, with the old one in it
    shutil.rmtree(work, ignore_errors=True)


def _move(part: Path, target: Path, work: Path) -> None:
    """Put `part` at `target`. No system replaces a folder in one step: the old one is put aside first."""
    if not target.is_dir() or target.is_symlink():
        part.replace(target)
        return
    old = work / f"{target.name}.old"
    target.replace(old)
    try:
        part.replace(target)
    except BaseException:
        old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the files of a folder of few, are on the disk: a rename may overtake their contents."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files if len(files) <= FEW_FILES else []:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if is_full(error) or error.errno == errno.EIO:
                raise
        finally:
            os.close(descriptor)


# -- reading ----------------------------------------------------------------------------------------------------


def check_folder(path: Path) -> int:
    """That a folder holds folders and plain files alone; links and devices lead out of it. Returns its size in bytes."""
    size, folders = 0, [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(Path(entry.path))
                elif stat.S_ISREG(status.st_mode):
                    size += status.st_size
                else:
                    what = (
                        f"a link to {Path(entry.path).readlink()}"
                        if entry.is_symlink()
                        else "a device or pipe"
                    )
                    inside = Path(entry.path).relative_to(path)
                    msg = (
                        f"{path} holds {what} ({inside}), which scellm does not follow. Delete it, or put a copy of what "
                        "you want from there in its place."
                    )
                    raise ValueError(msg)
    return size


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object from a file."""
    if (size := path.stat().st_size) > MAX_JSON:
        msg = f"`{path}` has {size / 1e6:,.0f} MB; scellm reads JSON files up to {MAX_JSON / 1e6:,.0f} MB. {remedy}"
        raise ValueError(msg)
    return parse_json(path.read_bytes(), path, remedy)


def parse_json(content: bytes, path: Path, remedy: str) -> dict[str, Any]:
    """As `read_json`, of what was read; `path` names it in messages."""
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        msg = f"`{path}` is not readable JSON ({reason}). {remedy}"
        raise ValueError(msg) from error
    if not isinstance(found, dict):
        msg = f"`{path}` holds a JSON {type(found).__name__}; a JSON object is needed. {remedy}"
        raise ValueError(msg)
    return found


def _no_number(text: str) -> None:
    msg = f"{text} is no number of JSON; a model holds finite numbers, not NaN or infinity"
    raise ValueError(msg)
