"""The command `scellm`. Heavy imports happen inside the commands, so that `--help` is immediate."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import _cli_completion, _cli_fit, _cli_index, _cli_log, _cli_pretrain, _cli_tools
from ._cli_notes import FOLDER
from ._cli_options import add_pack_options, shows_bars
from ._cli_signature import in_words_of_the_shell, read_tool
from ._files import recording, restore
from ._version import __version__

REFUSED = 1
"""Exit code: the input was refused, or could not be read or written. argparse exits with 2 on wrong usage."""
BROKEN_PIPE = 141
"""Exit code where nobody reads the output any more, as shells have it."""
MOST_NAMED = 5
"""Files that are named after an interruption."""

_EXAMPLES = """\
examples:
  scellm check cells.h5ad                       what is in this file, and would embed take it?
  scellm embed cells.h5ad                       add obsm["X_scellm"] to the file itself
  scellm embed *.h5ad -o embedded               leave the inputs as they are, a file each in a folder
  scellm annotate *.h5ad -o labeled             cell types of many samples, a file each in a folder
  scellm report labeled/a.h5ad -o report.html   all results of a file as one page
  scellm pack a.h5ad b.h5ad -o corpus.scellm.h5  one file to train on
  scellm pretrain tiny cells.h5ad -o run        train an encoder by a recipe
  scellm models                                 models on this machine
"""
_PACK_EXAMPLES = """\
examples:
  scellm pack blood.h5ad brain.h5ad -o corpus.scellm.h5
  scellm pack folder_of_h5ad_files -o corpus.scellm.h5 --layer counts
  scellm pack cells.h5ad -o corpus.scellm.h5 --labels cell_type,malignant --overwrite

exit codes: 0 done, 1 refused (the reason is on stderr), 2 wrong usage, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        Words after `scellm`; `None` takes those of the process.

    Returns
    -------
    The exit code: 0 done, 1 refused, 130 interrupted. Wrong usage exits with 2.
    """
    options = _parser().parse_args(arguments)
    written: list[Path] = []
    try:
        with recording() as written, _warnings_in_one_line(options):
            code = options.run(options)
            sys.stdout.flush()  # here, where a reader that has gone away can still be dealt with
            return code
    except BrokenPipeError:
        return _without_reader()
    except KeyboardInterrupt:
        print(f"scellm: interrupted; {_changed(written, options)}.", file=sys.stderr)
        return _cli_log.INTERRUPTED
    except _cli_log.EXPECTED as error:
        print(f"scellm: {_in_words(_cli_log.explain(error), options)}", file=sys.stderr)
        return REFUSED


def _changed(written: Sequence[Path], options: argparse.Namespace) -> str:
    """What was written before an interruption, without logs and notes."""
    found = [
        str(path)
        for path in dict.fromkeys(written)
        if path.parent.name != FOLDER and path != getattr(options, "log", None)
    ]
    if not found:
        return "no file was changed"
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"written before: {', '.join(found[-MOST_NAMED:])}{more}"


def _in_words(text: str, options: argparse.Namespace) -> str:
    """Advice in the words of the command that ran."""
    return in_words_of_the_shell(text, read_tool(getattr(options, "tool", "embed")))


def _without_reader() -> int:
    """Whoever read the output has gone, as `head` does after its lines: end as other programs do, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
    return BROKEN_PIPE


def _parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="scellm",
        description="Cell types, malignant cells, drug response and embeddings of single cells, from counts.",
        epilog=_EXAMPLES,
        formatter_class=style,
    )
    parser.add_argument("--version", action="version", version=f"scellm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, help_, epilog, add_options in (
        (
            "pack",
            _pack,
            "write cells of several files into one to train on",
            _PACK_EXAMPLES,
            add_pack_options,
        ),
        (
            "pretrain",
            _cli_pretrain.run,
            "train an encoder by a recipe",
            _cli_pretrain.EXAMPLES,
            _cli_pretrain.add_options,
        ),
        ("models", _models, "list the models on this machine", None, None),
    ):
        command = commands.add_parser(
            name, help=help_, description=f"{help_.capitalize()}.", epilog=epilog, formatter_class=style
        )
        command.set_defaults(run=run)
        if add_options is not None:
            add_options(command)
    _cli_tools.add_commands(commands, style)
    _cli_fit.add_commands(commands, style)
    _cli_index.add_command(commands, style)
    _cli_completion.add_command(commands, style, _parser)
    return parser


def _pack(options: argparse.Namespace) -> int:
    """`scellm pack`: all work is `data.pack`'s."""
    for path in options.inputs:
        _check_exists(path)
    from .data import Corpus, pack

    path = pack(
        options.inputs,
        options.output,
        label_keys=options.labels,
        layer=options.layer,
        use_raw=options.use_raw or None,
        gene_key=options.gene_key,
        min_overlap=options.min_overlap,
        overwrite=options.overwrite,
        show_progress=None if shows_bars(quiet=options.quiet) else False,
    )
    if not options.quiet:
        corpus = Corpus.build(path, in_memory=False)
        labels = ", ".join(corpus.label_keys) or "none"
        print(
            f"{path}: {corpus.n_cells} cells of {len(corpus)} dataset{'s'[: len(corpus) > 1]} over "
            f"{len(corpus.vocabulary)} genes, {path.stat().st_size / 2**20:.1f} MB; labels: {labels}."
        )
    return 0


def _models(_: argparse.Namespace) -> int:
    """`scellm models`: the table of `models.list_models`, for a terminal."""
    from .models import list_models

    table = list_models()
    if table.empty:
        print("No models on this machine. `scellm embed --model organization/name` downloads one.")
        return 0
    shown = table.assign(
        revision=table["revision"].str[:8], n_parameters=table["n_parameters"].map("{:,}".format)
    )
    print(shown.drop(columns="description").to_string(index=False))
    print()
    for name, description in zip(table["name"], table["description"], strict=True):
        print(f"{name}: {description}")
        if types := _types_of(name):
            print(types)
    return 0


def _types_of(name: str) -> str:
    """The types and tissues that a shipped model knows, in short; "" for one without a reference."""
    import json

    from .models._hub import shipped_folder

    path = shipped_folder() / name / "reference.json"
    if not path.exists():
        return ""
    meta = json.loads(path.read_text(encoding="utf-8"))["meta"]
    tissues, tree = meta["facts"].get("tissues", {}), meta.get("tree")
    if tree is None:
        return f"  {len(meta['classes'])} cell types"
    lineages = [x for x, is_one in zip(tree["names"], tree["is_lineage"], strict=True) if is_one]
    return (
        f"  {len(meta['classes'])} cell types of human cells in {len(lineages)} lineages: {', '.join(lineages)}.\n"
        f"  Tissues: {', '.join(tissues)}.\n"
        "  All types by tissue: the page 'All cell types' of the documentation."
    )


def _check_exists(path: Path) -> None:
    """Refuse a mistyped path before anything heavy is imported."""
    restore(path)
    if not path.exists():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)


@contextmanager
def _warnings_in_one_line(options: argparse.Namespace) -> Iterator[None]:
    """Print warnings without the line of code they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _cli_log.print_warning(_in_words(str(message), options))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
