"""`scellm completion`: what a shell needs to complete commands, options and names of files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
FILES = {"IN", "OUT", "FILE", "DIR", "INDEX"}
"""What stands for files and folders in the help."""
EXAMPLES = """\
examples:
  scellm completion bash > ~/.local/share/bash-completion/completions/scellm
  scellm completion zsh > ~/.zsh/completions/_scellm     this folder must be in fpath

Needs shtab: pip install 'scellm[completion]'
"""


def add_command(
    commands: Any, style: type[argparse.HelpFormatter], parser: Callable[[], argparse.ArgumentParser]
) -> None:
    """The command; `parser` makes the parser of all commands."""
    help_ = "print what a shell needs to complete commands and options"
    command = commands.add_parser(
        "completion", help=help_, description=f"{help_.capitalize()}.", epilog=EXAMPLES, formatter_class=style
    )
    command.add_argument("shell", choices=SHELLS, help="the shell")
    command.set_defaults(run=lambda options: run(options, parser()))


def run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print it."""
    try:
        import shtab
    except ImportError as error:
        msg = "Completion needs shtab. Install it with: pip install 'scellm[completion]'"
        raise ImportError(msg) from error
    _mark_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell=options.shell))
    return 0


def _mark_files(parser: argparse.ArgumentParser, mark: Any) -> None:
    """Say which words are names of files, in all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_files(command, mark)
        elif action.metavar in FILES:
            action.complete = mark  # type: ignore[attr-defined]
