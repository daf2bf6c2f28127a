"""Parts of a model beside its encoder: a reference of cell types, a head; arrays and facts, read when asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as arrays_from_bytes
from safetensors.numpy import save as bytes_of_arrays

from .._files import parse_json
from ._folder import replace_folder
from ._limits import check_finite_arrays, part_problem
from ._manifest import (
    ALL_FILES,
    FORMAT,
    MANIFEST,
    PARTS,
    WEIGHTS,
    check_format,
    check_sha256,
    part_files,
    sha256_of,
    verify,
    write_manifest,
)

_FIELDS = {"format", "weights", "meta"}


@dataclass(eq=False, kw_only=True)
class Part:
    """What a model carries beside its encoder, as plain arrays and plain facts.

    Parameters
    ----------
    tensors
        Arrays by name; any shapes, of numbers or booleans.
    meta
        What JSON can hold: class names, thresholds, how it was made.
    """

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stored:
    """A part that has not been read: its files, what the manifest says of them, and the weights they belong to."""

    folder: Path
    hashes: dict[str, str]
    weights: str
    remedy: str


class Parts(MutableMapping[str, Part]):
    """Parts of a model by name; those in a folder are read, and compared with the manifest, on first use.

    Parameters
    ----------
    parts
        Parts in memory.
    """

    def __init__(self, parts: Mapping[str, Part | _Stored] | None = None) -> None:
        self._parts: dict[str, Part | _Stored] = {}
        for name, part in (parts._parts if isinstance(parts, Parts) else parts or {}).items():
            self[name] = part

    def __getitem__(self, name: str) -> Part:
        part = self._parts[name]
        if isinstance(part, _Stored):
            part = self._parts[name] = _read(name, part)
        return part

    def __setitem__(self, name: str, part: Part | _Stored) -> None:
        check_name(name)
        if not isinstance(part, Part | _Stored):
            msg = f"The part {name!r} is a {type(part).__name__}; a Part is needed."
            raise TypeError(msg)
        self._parts[name] = part

    def __delitem__(self, name: str) -> None:
        del self._parts[name]

    def __contains__(self, name: object) -> bool:  # the inherited one would read the part
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        return f"Parts({', '.join(self._parts)})"


def check_name(name: str) -> None:
    """A part has one of the known names: files of others would be neither downloaded nor replaced."""
    if name not in PARTS:
        msg = f"No part of a model is named {name!r}; the names are {', '.join(PARTS)}."
        raise ValueError(msg)


def stored_parts(folder: Path, hashes: Mapping[str, str], *, remedy: str) -> Parts:
    """Parts of a model folder, none of them read; `hashes` is what its manifest says."""
    return Parts(
        {
            name: _Stored(folder, {file: hashes[file] for file in part_files(name)}, hashes[WEIGHTS], remedy)
            for name in PARTS
            if part_files(name)[0] in hashes
        }
    )


def save_parts(parts: Mapping[str, Part], folder: Path) -> None:
    """Write parts beside the weights, which must be there: a part is for these weights and no others."""
    for name, part in parts.items():
        check_name(name)
        arrays, facts = part_files(name)
        (folder / arrays).write_bytes(_array_bytes(name, part.tensors))
        (folder / facts).write_text(_facts(name, part.meta, sha256_of(folder / WEIGHTS)), encoding="utf-8")


def write_part(folder: str | os.PathLike[str], name: str, part: Part | None) -> None:
    """Add a part to a model folder, replace it, or take it away; an interruption leaves the folder as it was.

    Parameters
    ----------
    folder
        A model folder, all of whose files are checked first.
    name
        One of `PARTS`.
    part
        The part; `None` takes it away.
    """
    check_name(name)
    target = Path(folder)
    remedy = "Nothing was written."
    if not target.is_dir():
        msg = f"There is no model folder `{target}` to add the part {name!r} to."
        raise FileNotFoundError(msg)
    hashes = verify(target, remedy=remedy)
    kept = [file for file in hashes if file not in part_files(name)]
    others = stored_parts(target, hashes, remedy=remedy)
    for other in [other for other in others if other != name]:
        others[other]  # reading checks it: the new manifest must not vouch for a damaged one
    with replace_folder(target, overwrite=True, contents=ALL_FILES) as new:
        for file in kept:
            shutil.copy(target / file, new / file)
        if part is not None:
            save_parts({name: part}, new)
        write_manifest(new)
        shutil.copymode(target / MANIFEST, new / MANIFEST)


def _read(name: str, stored: _Stored) -> Part:
    """Read both files once, check these bytes, then parse them: no change in between can pass."""
    contents = {}
    for file, expected in stored.hashes.items():
        try:
            contents[file] = (stored.folder / file).read_bytes()
        except FileNotFoundError as error:
            msg = f"`{stored.folder / file}` is gone. {stored.remedy}"
            raise FileNotFoundError(msg) from error
        found = hashlib.sha256(contents[file]).hexdigest()
        check_sha256(found, expected, stored.folder / file, remedy=stored.remedy)
    arrays, facts = part_files(name)
    try:
        tensors = arrays_from_bytes(contents[arrays])
    except (ValueError, KeyError, SafetensorError) as error:
        msg = f"The part {name!r} in `{stored.folder}` cannot be read ({error}). {stored.remedy}"
        raise ValueError(msg) from error
    saved = parse_json(contents[facts], stored.folder / facts, stored.remedy)
    if set(saved) != _FIELDS or not isinstance(saved["meta"], dict):
        msg = f"`{stored.folder / facts}` needs the fields {sorted(_FIELDS)} and no others. {stored.remedy}"
        raise ValueError(msg)
    check_format(saved["format"], stored.folder / facts, remedy=stored.remedy)
    if saved["weights"] != stored.weights:
        msg = (
            f"The part {name!r} in `{stored.folder}` was made for weights with SHA-256 {str(saved['weights'])[:8]}, these "
            f"have {stored.weights[:8]}: its numbers mean nothing with them. {stored.remedy}"
        )
        raise ValueError(msg)
    check_finite_arrays(tensors, stored.folder / arrays, stored.remedy)
    if (problem := part_problem(name, tensors, saved["meta"])) is not None:
        msg = f"The part {name!r} in `{stored.folder}` does not fit together: {problem}. {stored.remedy}"
        raise ValueError(msg)
    return Part(tensors=tensors, meta=saved["meta"])


def _array_bytes(name: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """The safetensors file; refuses what it cannot hold and what is not finite."""
    for key, array in tensors.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            msg = f"{key!r} of the part {name!r} is {what}; arrays of numbers or booleans are needed."
            raise TypeError(msg)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            msg = f"{key!r} of the part {name!r} is not finite; such a part is not saved."
            raise ValueError(msg)
    return bytes_of_arrays({key: np.ascontiguousarray(array) for key, array in tensors.items()})


def _facts(name: str, meta: Mapping[str, Any], weights: str) -> str:
    """The JSON file."""
    try:
        content = {"format": FORMAT, "weights": weights, "meta": dict(meta)}
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        msg = f"The meta of the part {name!r} cannot be written as JSON ({error}); use text, numbers, lists and dicts."
        raise TypeError(msg) from error
