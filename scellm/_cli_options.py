"""The options of the commands, and how their words are read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._files import restore


def shows_bars(*, quiet: bool) -> bool:
    """Whether to show progress bars: on a terminal, unless they are not wanted. In a file each step would be a line."""
    return not quiet and sys.stderr.isatty()


def add_matrix_options(command: argparse.ArgumentParser) -> None:
    """Which of the matrices of a file to read."""
    matrix = command.add_mutually_exclusive_group()
    matrix.add_argument("--layer", help="layer with counts or log1p values (default: X)")
    matrix.add_argument("--use-raw", action="store_true", help="read raw.X")
    command.add_argument(
        "--gene-key", metavar="COLUMN", help="column of var with symbols or Ensembl ids (default: found)"
    )


def add_pack_options(command: argparse.ArgumentParser) -> None:
    """All of `pack`."""
    command.add_argument(
        "inputs",
        metavar="IN",
        nargs="+",
        type=as_path,
        help=".h5ad file, folder of .h5ad files, packed .h5 file, or .zarr folder",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=as_path,
        required=True,
        help="file to write, for instance corpus.scellm.h5",
    )
    add_matrix_options(command)
    command.add_argument(
        "--labels",
        metavar="COLUMNS",
        type=_names,
        help="columns of obs to keep, separated by commas (default: all of text, categories, or true and false)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    command.add_argument(
        "--min-overlap",
        metavar="FRACTION",
        type=_fraction,
        default=0.10,
        help="refuse files with less than this fraction of the vocabulary's genes (default: %(default)s)",
    )
    command.add_argument(
        "--quiet", action="store_true", help="no progress bars and no summary; warnings stay"
    )


def as_path(text: str) -> Path:
    """A path, `~` expanded where the shell did not: `--output=~/cells.h5ad`."""
    return Path(text).expanduser()


def as_setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as TOML has it; text needs no quotes."""
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        msg = f"{text!r} is not KEY=VALUE"
        raise argparse.ArgumentTypeError(msg)
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _names(text: str) -> list[str]:
    """Parse names separated by commas."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        msg = f"{text!r} is not a list of names separated by commas"
        raise argparse.ArgumentTypeError(msg)
    return names


def _fraction(text: str) -> float:
    """A number from 0 to 1."""
    msg = f"{text!r} is not a number from 0 to 1"
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(msg) from error
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(msg)
    return value


def found(words: list[str]) -> Iterator[Path]:
    """Paths, patterns expanded where the shell did not."""
    for word in words:
        if not word.strip():
            msg = "An input has no name. In an array of jobs, the number may lie beyond the last file: check the list of files."
            raise ValueError(msg)
        path = as_path(word)
        restore(path)
        if path.exists() or not set("*?[") & set(word):
            yield path
            continue
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not matches:
            msg = f"No file is like {word!r}."
            raise FileNotFoundError(msg)
        yield from matches
