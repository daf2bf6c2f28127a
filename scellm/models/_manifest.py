"""The manifest of a model folder: SHA-256 and size of every file, checked before it is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .._files import read_json

FORMAT = 1
"""Version of the folder's layout. Raise it when an older scellm could misread a newer folder."""

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
GENES = "genes.tsv"
CARD = "README.md"
CONTENTS = (WEIGHTS, CONFIG, GENES, CARD)
"""The files every bundle has besides the manifest."""
PARTS = ("reference", "cell_type", "malignancy", "drug_response")
"""Names of what a bundle may hold beside the encoder, each in two files."""


def part_files(name: str) -> tuple[str, str]:
    """The files of a part: arrays and facts."""
    return f"{name}.safetensors", f"{name}.json"


PART_FILES = tuple(file for name in PARTS for file in part_files(name))
ALL_FILES = (*CONTENTS, MANIFEST, *PART_FILES)
"""Every file a bundle may hold."""

_CONFIG_FIELDS = {"format", "name", "encoder", "tokens", "provenance", "n_parameters", "scellm_version"}
PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
CONVERT = (
    "scellm does not unpickle models. Convert a published CellLM checkpoint once with "
    "`scellm.models.convert_openbiomed(checkpoint, gene_list, out)` and load `out`."
)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Record size and SHA-256 of the four files in `folder`, and of its parts."""
    files = {
        name: {"sha256": sha256_of(folder / name), "size": (folder / name).stat().st_size}
        for name in (*CONTENTS, *PART_FILES)
        if name in CONTENTS or (folder / name).exists()
    }
    text = json.dumps({"format": FORMAT, "files": files}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def verify(
    folder: Path, names: tuple[str, ...] = CONTENTS, *, remedy: str, parts: bool = True
) -> dict[str, str]:
    """Check that the files of a bundle are there and unaltered.

    Parameters
    ----------
    folder
        The bundle.
    names
        Files to hash; all four must be present in any case.
    remedy
        What to do about a damaged folder; the last sentence of every error.
    parts
        Whether to look at the parts too: that they are there and whole. They are hashed when they are read.

    Returns
    -------
    SHA-256 of each of `names`; for the files of parts, what it should be.
    """
    _check_present(folder, remedy=remedy)
    files = _read_manifest(folder, remedy=remedy)
    hashes = {name: _check_file(folder / name, files[name], remedy=remedy) for name in names}
    if parts:
        for name in [name for name in PART_FILES if name in files]:
            _check_size(folder / name, files[name], remedy=remedy)
            hashes[name] = files[name]["sha256"]
    return hashes


def listed_files(folder: Path) -> list[str]:
    """Names a manifest lists, as far as it can be read; nothing is checked."""
    try:
        files = read_json(folder / MANIFEST, "")["files"]
    except (OSError, ValueError, KeyError):
        return []
    return list(files) if isinstance(files, dict) else []


def check_format(found: Any, path: Path, *, remedy: str) -> None:
    """Refuse formats this version cannot read."""
    if isinstance(found, int) and not isinstance(found, bool) and found > FORMAT:
        msg = (
            f"`{path}` has bundle format {found}; this version of scellm reads formats up to {FORMAT}. "
            "Upgrade with `pip install --upgrade scellm`."
        )
        raise ValueError(msg)
    if found != FORMAT or isinstance(found, bool):
        msg = f"`{path}` has bundle format {found!r}; {FORMAT} is needed. {remedy}"
        raise ValueError(msg)


def _check_present(folder: Path, *, remedy: str) -> None:
    """Refuse folders that lack one of the five files."""
    missing = [name for name in (*CONTENTS, MANIFEST) if not (folder / name).is_file()]
    if not missing:
        return
    present = sorted(path.name for path in folder.iterdir())
    pickles = [name for name in present if Path(name).suffix.lower() in PICKLES]
    if pickles and WEIGHTS in missing:
        msg = f"`{folder}` holds {', '.join(map(repr, pickles))} and no '{WEIGHTS}'. {CONVERT}"
        raise ValueError(msg)
    holds = (
        ", ".join(map(repr, present[:10])) + (", ..." if len(present) > 10 else "") if present else "nothing"
    )
    msg = f"`{folder}` is not a whole model: {', '.join(map(repr, missing))} missing; it holds {holds}. {remedy}"
    raise FileNotFoundError(msg)


def _read_manifest(folder: Path, *, remedy: str) -> dict[str, Any]:
    """The `files` of a manifest: an entry for each of the four and for both files of every part."""
    path = folder / MANIFEST
    manifest = read_json(path, remedy)
    check_format(manifest.get("format"), path, remedy=remedy)
    files = manifest.get("files")
    files = files if isinstance(files, dict) else {}
    listed = sorted(files)
    held = [name for name in PARTS if {*part_files(name)} & {*listed}]
    needed = sorted([*CONTENTS, *(file for name in held for file in part_files(name))])
    if listed != needed or not all(_is_entry(entry) for entry in files.values()):
        msg = f"`{path}` must give 'sha256' and 'size' of {needed}; it lists {listed}. {remedy}"
        raise ValueError(msg)
    return files


def _is_entry(entry: Any) -> bool:
    """Whether this is `{"sha256": str, "size": int}`."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("size"), int)
        and not isinstance(entry["size"], bool)
    )


def _check_size(path: Path, entry: dict[str, Any], *, remedy: str) -> None:
    """That a file is there and not cut short."""
    if not path.is_file():
        msg = f"`{path}` is missing, though the manifest lists it. {remedy}"
        raise FileNotFoundError(msg)
    size = path.stat().st_size
    if size < entry["size"]:
        msg = f"`{path}` is truncated: {size} of {entry['size']} bytes. {remedy}"
        raise ValueError(msg)


def _check_file(path: Path, entry: dict[str, Any], *, remedy: str) -> str:
    """Compare one file with its entry; returns the SHA-256."""
    _check_size(path, entry, remedy=remedy)
    return check_sha256(sha256_of(path), entry["sha256"], path, remedy=remedy)


def check_sha256(found: str, expected: str, path: Path, *, remedy: str) -> str:
    """That a file is the one of the manifest; returns its SHA-256."""
    if found != expected:
        msg = f"`{path}` is not the file the manifest describes: SHA-256 is {found}, expected {expected}. {remedy}"
        raise ValueError(msg)
    return found


def read_config(folder: Path, *, remedy: str) -> dict[str, Any]:
    """`config.json`, with exactly the fields of this format; hash it first."""
    path = folder / CONFIG
    saved = read_json(path, remedy)
    check_format(saved.get("format"), path, remedy=remedy)
    unknown, missing = sorted(set(saved) - _CONFIG_FIELDS), sorted(_CONFIG_FIELDS - set(saved))
    if unknown or missing:
        msg = f"`{path}`: unknown fields {unknown}, missing fields {missing}. {remedy}"
        raise ValueError(msg)
    kinds = {"encoder": dict, "tokens": dict, "provenance": dict, "name": str, "n_parameters": int}
    for section, kind in kinds.items():
        if not isinstance(saved[section], kind) or isinstance(saved[section], bool):
            what = {dict: "an object", str: "text", int: "a whole number"}[kind]
            msg = f"`{path}`: {section!r} is a {type(saved[section]).__name__}; {what} is needed. {remedy}"
            raise ValueError(msg)
    return saved
