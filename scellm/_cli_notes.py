"""What was asked for each result of a run over many files, so that a second run knows what is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ._cli_signature import read_tool
from ._files import read_json, replacing
from ._version import __version__

FOLDER = ".scellm"
"""Folder of the notes, in that of the results."""


def write_note(target: Path, tool: str, source: Path, options: dict[str, Any]) -> None:
    """Note what `target` is about to be made of; it counts once another file than the present one is there."""
    path = _path(target)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part:
        part.write_text(
            json.dumps({"asked": asked(tool, source, options), "replaces": _stamp(target)}, indent=1) + "\n",
            encoding="utf-8",
        )


def difference(target: Path, tool: str, source: Path, options: dict[str, Any]) -> str | None:
    """In what the result that is there differs from what is asked for: "" in nothing, `None` where nothing is known."""
    path = _path(target)
    if not path.is_file():
        return None
    note = read_json(path, f"Delete {path}.")
    if note.get("replaces") == _stamp(target):  # the run that was to make it was interrupted
        return None
    return differences(note.get("asked", {}), asked(tool, source, options))


def differences(made: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Names of what is not the same, "" for nothing."""
    return ", ".join(sorted(name for name in {*made, *wanted} if made.get(name) != wanted.get(name)))


def _path(target: Path) -> Path:
    return target.parent / FOLDER / f"{target.name}.json"


def asked(tool: str, source: Path, options: dict[str, Any]) -> dict[str, Any]:
    """All that the result depends on, as JSON holds it; an option with the value that it has anyway is as if it were left out."""
    defaults = {x.name: x.default for x in read_tool(tool).options}
    found: dict[str, Any] = {"tool": tool, "scellm": __version__, "input": str(source.resolve())}
    found |= {"content of the input": _extent(source)}
    for name, value in (defaults | options).items():
        if name not in defaults or value != defaults[name]:
            found[f"--{name.replace('_', '-')}"] = value
        is_asked = name in options or name == "model"
        if (
            is_asked and isinstance(value, str | Path) and Path(value).exists()
        ):  # a model, an index, a reference
            found[f"content of --{name.replace('_', '-')}"] = _extent(Path(value))
    return json.loads(json.dumps(found, default=str))


def _extent(path: Path) -> list[int]:
    """Number, bytes and latest change of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in files]
    return [len(stats), sum(x.st_size for x in stats), max((x.st_mtime_ns for x in stats), default=0)]


def _stamp(target: Path) -> list[int] | None:
    """What tells a file from one that replaces it."""
    if not target.exists():
        return None
    status = target.stat()
    return [status.st_ino, status.st_mtime_ns]
