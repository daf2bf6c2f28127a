"""Options of a command made from the function behind it: its source is read, not imported, so that `--help` is immediate."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ._cli_options import as_path, as_setting

NOT_OPTIONS = {"adata", "copy", "data", "output", "overwrite", "show_progress"}
"""Parameters that the command line has in its own way."""
_NO_DEFAULT = object()


@dataclass(frozen=True)
class Option:
    """A parameter of a tool."""

    name: str
    annotation: str
    default: Any
    help: str

    @property
    def is_required(self) -> bool:
        """Whether the function has no default for it."""
        return self.default is _NO_DEFAULT


@dataclass(frozen=True)
class Tool:
    """A function of `scellm.tl` as its source describes it."""

    name: str
    summary: str
    options: tuple[Option, ...]


@cache
def read_tool(name: str) -> Tool:
    """The tool of this name, from `tl/_NAME.py`; `report` and `check_input` from their own folders."""
    folder = Path(__file__).parent / {"report": "_report", "check_input": "pp"}.get(name, "tl")
    tree = ast.parse((folder / f"_{name}.py").read_text(encoding="utf-8"))
    function = next(x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == name)
    text = ast.get_docstring(function) or ""
    described = _described(text)
    if name != "embed":  # whose words the others refer to
        known = {option.name: option.help for option in read_tool("embed").options}
        described |= {
            key: known[key]
            for key, text in described.items()
            if "as in tl.embed" in text.lower() and key in known
        }
    options = tuple(
        Option(
            arg.arg,
            ast.unparse(arg.annotation) if arg.annotation else "str",
            default,
            described.get(arg.arg, ""),
        )
        for arg, default in _parameters(function.args)
        if arg.arg not in NOT_OPTIONS
    )
    return Tool(name, " ".join(text.split("\n\n")[0].split()), options)


def _parameters(arguments: ast.arguments) -> Iterator[tuple[ast.arg, Any]]:
    """Parameters with their defaults."""
    plain = arguments.args
    missing = [None] * (len(plain) - len(arguments.defaults))
    for arg, default in (
        *zip(plain, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ):
        yield arg, _NO_DEFAULT if default is None else _value(default)


def _value(node: ast.expr) -> Any:
    """A default as it is shown: itself, or the name of a constant of `_keys`."""
    if isinstance(node, ast.Name):
        from . import _keys

        return getattr(_keys, node.id, node.id)
    return ast.literal_eval(node)


def _described(docstring: str) -> dict[str, str]:
    """First sentence that a numpy docstring has for each parameter."""
    found = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", docstring, re.MULTILINE | re.DOTALL)
    texts: dict[str, str] = {}
    for names, body in re.findall(
        r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)+)", found.group(1) if found else "", re.MULTILINE
    ):
        text = re.sub(r":\w+:\w+:`[^`]*`", "", " ".join(body.split())).replace("`", "").replace("%", "%%")
        sentence = re.split(r"(?<=[.;]) (?=[A-Z\"(])|; None ", text)[0].rstrip(".;")
        texts |= {name.strip(): sentence for name in names.split(",")}
    return texts


def add_options(command: argparse.ArgumentParser, tool: Tool) -> None:
    """One option for each parameter. Those that are not given are left to the function."""
    for option in tool.options:
        shown = (
            "" if option.is_required or option.default in (None, False) else f" (default: {option.default})"
        )
        command.add_argument(
            f"--{option.name.replace('_', '-')}",
            dest=option.name,
            required=option.is_required,
            default=argparse.SUPPRESS,
            help=f"{option.help}{shown}",
            **_reading(option),
        )


def _reading(option: Option) -> dict[str, Any]:
    """How the words of an option are read."""
    kinds = {kind.strip() for kind in re.sub(r"Literal\[[^]]*\]", "Literal", option.annotation).split("|")}
    words = [
        word
        for group in re.findall(r"Literal\[([^]]*)\]", option.annotation)
        for word in ast.literal_eval(f"[{group}]")
    ]
    if kinds <= {"bool", "None"}:
        return {"action": argparse.BooleanOptionalAction if option.default is True else "store_true"}
    if kinds == {"Literal"} or kinds == {"Literal", "None"}:
        return {"choices": words}
    if "AnnData" in kinds:
        return {"metavar": "FILE", "type": as_path}
    if any(kind.startswith(("Sequence", "Iterable")) for kind in kinds):
        return {"action": "append", "metavar": _singular(option.name).upper()}
    if any(kind.endswith("Options") for kind in kinds):
        return {"action": "append", "metavar": "KEY=VALUE", "type": as_setting}
    numbers = [cast for word, cast in (("int", int), ("float", float), ("bool", _truth)) if word in kinds]
    words += ["none"] * ("None" in kinds and option.default is not None)
    if numbers:
        return {"type": _one_of(numbers, words, is_text="str" in kinds), "metavar": option.name.upper()}
    return {"metavar": option.name.upper()}


def _singular(name: str) -> str:
    """What one word of a list is."""
    return name.removesuffix("es") if name.endswith("sses") else name.removesuffix("s")


def in_words_of_the_shell(text: str, tool: Tool) -> str:
    """Advice to pass an argument, `min_overlap=0.02`, as the option `--min-overlap 0.02`, a list as several; code in brackets stays."""
    names = "|".join(option.name for option in tool.options)

    def option(found: re.Match[str]) -> str:
        before = text[: found.start()]
        if before.count("(") > before.count(")") or before.count("`") % 2:
            return found.group()
        value = (found.group(2) or "").strip("'\"")
        word = f"--{found.group(1).replace('_', '-')}"
        if value.startswith("["):
            return " ".join(f"{word} {shlex.quote(one)}" for one in re.findall(r"['\"]([^'\"]*)['\"]", value))
        return word if value in ("", "True") else f"{word} {shlex.quote(value)}"

    return re.sub(rf"(?<![\w.])({names})=('[^']*'|\"[^\"]*\"|\[[^\]]*\]|[\w.]*\w)?", option, text)


def _truth(text: str) -> bool:
    """Yes or no."""
    if text.lower() not in ("yes", "no", "true", "false"):
        raise ValueError(text)
    return text.lower() in ("yes", "true")


def _one_of(
    casts: Sequence[Callable[[str], Any]], words: Sequence[str], *, is_text: bool
) -> Callable[[str], Any]:
    """A word of the list, or what the first cast that takes it makes of it."""

    def read(text: str) -> Any:
        if text in words:
            return None if text == "none" else text
        for cast in casts:
            try:
                return cast(text)
            except ValueError:
                continue
        if is_text:
            return text
        kinds = {int: "a whole number", float: "a number", _truth: "yes or no"}
        needed = [*map(repr, words), *(kinds[cast] for cast in casts)]
        msg = f"{text!r} is not {' or '.join(needed)}"
        raise argparse.ArgumentTypeError(msg)

    return read
