"""What was done with each file: how it ended, what was read, and what it took; as lines of JSON if they are asked for."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ._calls import noting
from ._files import replacing
from ._version import __version__

EXPECTED = (
    FloatingPointError,
    ImportError,
    KeyError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that end a file and not the others."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
PACKAGES = ("anndata", "faiss-cpu", "h5py", "numpy", "pandas", "scipy", "torch", "zarr")
"""Whose versions are noted."""


@dataclass
class Outcome:
    """How it went with one file; filled by `watched`."""

    text: str = ""
    """The summary, "" if it failed."""
    error: str = ""
    is_skipped: bool = False
    started: str = ""
    seconds: float = 0.0
    processor: float = 0.0
    memory: float = 0.0
    """GiB, the most that the process has had so far."""
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What was read and loaded; see `_calls.note`."""


@contextmanager
def watched(say: Callable[[str], str] = str, *, is_silent: bool = False) -> Iterator[Outcome]:
    """An outcome for the block to put its summary into; an error that is expected ends the block and is its text.

    Parameters
    ----------
    say
        Makes the words of the command line of the text of errors and warnings.
    is_silent
        Do not print warnings, as another process does that.
    """
    found = Outcome(started=datetime.now(UTC).isoformat(timespec="seconds"))
    start, processor = time.monotonic(), time.process_time()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        found.warnings.append(say(str(message)))
        if not is_silent:
            print_warning(found.warnings[-1])

    with noting() as facts, warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield found
        except EXPECTED as raised:
            found.text, found.error = "", say(explain(raised))
        finally:
            found.seconds, found.processor = time.monotonic() - start, time.process_time() - processor
            found.memory, found.facts = peak_memory(), dict(facts)


def explain(error: BaseException) -> str:
    """The text of an error as it was written."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, MemoryError):
        text = f"Out of memory. {text}"
    return str(text).strip() or type(error).__name__


def print_warning(text: str) -> None:
    """One line on stderr."""
    print(f"scellm: warning: {text}", file=sys.stderr)


def peak_memory() -> float:
    """GiB that this process has had at most; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def log_line(
    source: Path, tool: str, options: Mapping[str, Any], outcome: Outcome, target: Path | None
) -> dict[str, Any]:
    """All that is known of one file, as JSON holds it."""
    ended = "skipped" if outcome.is_skipped else "failed" if outcome.error else "done"
    found: dict[str, Any] = {"file": str(source), "tool": tool, "outcome": ended}
    found |= {} if target is None else {"output": str(target)}
    found |= {"error": outcome.error} if outcome.error else {}
    found |= {"summary": outcome.text} if outcome.text else {}
    if not outcome.is_skipped:
        found |= {
            "started": outcome.started,
            "seconds": round(outcome.seconds, 2),
            "processor_seconds": round(outcome.processor, 2),
            "peak_memory_gib": round(outcome.memory, 3),
            "warnings": outcome.warnings,
            **outcome.facts,
        }
    return found | {"options": json.loads(json.dumps(options, default=str)), "versions": versions()}


def versions() -> dict[str, str]:
    """Of scellm, Python and the packages behind the results."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"scellm": __version__, "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def add_option(command: argparse.ArgumentParser) -> None:
    """`--log`."""
    from ._cli_options import as_path

    command.add_argument(
        "--log",
        metavar="FILE",
        type=as_path,
        help="write a line of JSON for each file: outcome, options, versions, model, cells, genes, times, warnings",
    )


def check_place(log: Path | None) -> None:
    """That the log can be written, before anything is computed."""
    if log is not None and not log.parent.is_dir():
        msg = f"--log {log}: there is no folder {log.parent}."
        raise FileNotFoundError(msg)


def write_log(log: Path | None, lines: list[dict[str, Any]], *, goes_on: bool = False) -> None:
    """Write the lines, behind those of the run that `--skip-done` goes on with; what is skipped is in there already."""
    if log is None:
        return
    before = log.read_text(encoding="utf-8") if goes_on and log.is_file() else ""
    if before:
        lines = [line for line in lines if line["outcome"] != "skipped"]
    with replacing(log) as part:
        part.write_text(before + "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
