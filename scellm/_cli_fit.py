"""Commands that make a model of cells: `scellm adapt`, `few-shot`, `fine-tune` and `fit-reference`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ._cli_log import add_option, check_place, log_line, watched, write_log
from ._cli_options import as_path
from ._cli_signature import add_options, in_words_of_the_shell, read_tool

FITS = {
    "adapt": "adapt a model to your cells, without labels",
    "few_shot": "learn classes from a few labeled cells",
    "fine_tune": "train a model on the labels of your cells",
    "fit_reference": "make a reference of labeled cells for `scellm annotate`",
}
"""Functions of `scellm.tl` that are commands, and what `scellm --help` says of them."""
EXAMPLES = """\
examples:
  scellm {name} cells.h5ad -o my-model --labels cell_type --val-by donor
  scellm annotate new.h5ad -o labeled.h5ad --model my-model

The cells are left as they are. The folder holds the model with its head, and what was measured, in README.md.

exit codes: 0 done, 1 refused (the reason is on stderr), 2 wrong usage, 130 interrupted
"""

ADAPT_EXAMPLES = """\
examples:
  scellm adapt cells.h5ad -o my-model --batch-key donor
  scellm embed cells.h5ad -o embedded.h5ad --model my-model

The cells are left as they are.

exit codes: 0 done, 1 refused (the reason is on stderr), 2 wrong usage, 130 interrupted
"""


def add_commands(commands: Any, style: type[argparse.HelpFormatter]) -> None:
    """One command for each function."""
    for name, help_ in FITS.items():
        tool = read_tool(name)
        word = name.replace("_", "-")
        command = commands.add_parser(
            word,
            help=help_,
            description=tool.summary,
            epilog=ADAPT_EXAMPLES if name == "adapt" else EXAMPLES.format(name=word),
            formatter_class=style,
        )
        command.set_defaults(run=run, tool=name)
        command.add_argument(
            "input", metavar="IN", type=as_path, help=".h5ad, .zarr, .loom, or output of Cell Ranger"
        )
        command.add_argument(
            "-o", dest="to", metavar="OUT", type=as_path, required=True, help="model folder to write"
        )
        command.add_argument("--overwrite", action="store_true", help="replace a model that is there")
        command.add_argument("--quiet", action="store_true", help="no summary; warnings stay")
        add_option(command)
        add_options(command.add_argument_group(f"options of scellm.tl.{name}"), tool)


def run(options: argparse.Namespace) -> int:
    """Make the model; an error is told as it is logged."""
    check_place(options.log)
    tool = read_tool(options.tool)
    with watched(lambda text: in_words_of_the_shell(text, tool)) as outcome:
        outcome.text = _fit(options)
    given = {x.name: getattr(options, x.name) for x in tool.options if hasattr(options, x.name)}
    write_log(options.log, [log_line(options.input, options.tool, given, outcome, options.to)])
    if outcome.error:
        print(f"scellm: {outcome.error}", file=sys.stderr)
        return 1
    if not options.quiet:
        print(outcome.text)
    return 0


def _fit(options: argparse.Namespace) -> str:
    """All work is the function's. Returns what it says."""
    if options.to.exists() and not options.overwrite:
        msg = f"{options.to} is there already. Pass --overwrite to replace it, or choose another name."
        raise FileExistsError(msg)
    tool = read_tool(options.tool)
    given = {x.name: getattr(options, x.name) for x in tool.options if hasattr(options, x.name)}
    if given.get("baseline") == ["none"]:
        given["baseline"] = False
    from . import tl
    from ._containers import opened
    from .models import save

    if "training" in given:
        given["training"] = _training(given["training"])
    with opened(options.input) as adata:
        model = getattr(tl, options.tool)(adata, **given)
    save(model, options.to, overwrite=options.overwrite)
    keys = [str(x.default) for x in tool.options if x.name == "key_added"]
    summary = (
        adata.uns[given.get("key_added", keys[0])]["summary"]
        if keys
        else f"{len(adata.obs):,} cells; pass it to scellm {'embed' if options.tool == 'adapt' else 'annotate'} as --model."
    )
    return f"{options.to}: {model.name}. {summary}"


def _training(pairs: list[tuple[str, Any]]) -> Any:
    """Options of training from KEY=VALUE."""
    import dataclasses

    from .train import FineTuneOptions

    names = [field.name for field in dataclasses.fields(FineTuneOptions)]
    unknown = sorted({name for name, _ in pairs} - set(names))
    if unknown:
        msg = f"--training has no {', '.join(map(repr, unknown))}; there are {', '.join(names)}."
        raise ValueError(msg)
    return FineTuneOptions(**dict(pairs))
