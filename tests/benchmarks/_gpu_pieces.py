"""Results in pieces: an archive that is cut, with hashes, so that it passes where only few small files may."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PIECE_BYTES, MOST_FILES, MOST_BYTES = 16_000_000, 8, 60_000_000
"""Of the results: largest file, files with the list of them, and all together."""
LIST = "pieces.json"


def sha256(content: bytes) -> str:
    """Of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def cut(
    wanted: Sequence[tuple[str, Path]],
    out: Path,
    *,
    piece_bytes: int = PIECE_BYTES,
    most_bytes: int = MOST_BYTES,
) -> dict[str, Any]:
    """Write files and folders into `out` as pieces of one archive; what came before is replaced when all are there.

    Parameters
    ----------
    wanted
        Names in the archive and where they are, the most important first. What does not fit any more is left out and
        listed.
    out
        Folder.
    piece_bytes, most_bytes
        Largest piece, and all of them.
    """
    most = min(most_bytes, piece_bytes * (MOST_FILES - 1)) - 20_480  # the end of an archive is filled up
    archive, left_out, used = io.BytesIO(), [], 0
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, path in wanted:
            if not path.exists():
                continue
            members = list(_members(name, path))
            size = sum(1024 + member.stat().st_size for _, member in members)
            if used + size > most:
                left_out.append(f"{name} ({size / 1e6:.1f} MB)")
                continue
            used += size
            for own, member in members:
                tar.add(member, own, recursive=False)
    content = archive.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    pieces = []
    for start in range(0, len(content), piece_bytes):
        piece = content[start : start + piece_bytes]
        digest = sha256(piece)
        name = f"piece-{start // piece_bytes}-{digest[:8]}.bin"
        _write(out / name, piece)
        pieces.append({"name": name, "bytes": len(piece), "sha256": digest})
    found = {"pieces": pieces, "sha256": sha256(content), "bytes": len(content), "left_out": left_out}
    _write(out / LIST, json.dumps(found, indent=1).encode())
    for old in out.glob("piece-*.bin"):
        if old.name not in {piece["name"] for piece in pieces}:
            old.unlink()
    return found


def joined(folder: Path, target: Path) -> dict[str, Any]:
    """Unpack the archive whose pieces are in `folder` into `target`.

    Raises
    ------
    FileNotFoundError
        No list, or a piece is missing.
    ValueError
        A piece is not what was written.
    """
    if not (folder / LIST).is_file():
        msg = f"{folder} has no {LIST}; give the folder that `run --out` wrote, with all its files."
        raise FileNotFoundError(msg)
    found = json.loads((folder / LIST).read_text(encoding="utf-8"))
    parts = []
    for piece in found["pieces"]:
        path = folder / Path(piece["name"]).name
        if not path.is_file():
            msg = f"{path} is missing; bring all files of the folder back."
            raise FileNotFoundError(msg)
        parts.append(path.read_bytes())
        if sha256(parts[-1]) != piece["sha256"]:
            msg = f"{path} is not what was written: its SHA-256 differs. Bring it back again."
            raise ValueError(msg)
    content = b"".join(parts)
    if sha256(content) != found["sha256"]:
        msg = f"The pieces in {folder} do not make the archive {LIST} names; bring them back again."
        raise ValueError(msg)
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(target, filter="data")
    return found


def _members(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Files of a file or folder, with their names in the archive."""
    if path.is_file():
        yield name, path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield f"{name}/{file.relative_to(path).as_posix()}", file


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, path)  # noqa: PTH105
