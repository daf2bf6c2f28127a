"""Commands that make a folder of cells: `scellm adapt`, `few-shot`, `fine-tune` and `fit-reference` a model, `index` an index."""

from __future__ import annotations

import argparse
from typing import Any

from ._cli_options import as_path, found
from ._cli_signature import add_options, read_tool

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
        add_options(command.add_argument_group(f"options of scellm.tl.{name}"), tool)
    _add_index(commands, style)


def run(options: argparse.Namespace) -> int:
    """All work is the function's."""
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
    if not options.quiet:
        keys = [str(x.default) for x in tool.options if x.name == "key_added"]
        summary = (
            adata.uns[given.get("key_added", keys[0])]["summary"]
            if keys
            else f"{len(adata.obs):,} cells; pass it to scellm {'embed' if options.tool == 'adapt' else 'annotate'} as --model."
        )
        print(f"{options.to}: {model.name}. {summary}")
    return 0


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


def _add_index(commands: Any, style: type[argparse.HelpFormatter]) -> None:
    """`scellm index`: many files become one folder."""
    tool = read_tool("index")
    command = commands.add_parser(
        "index",
        help="index the cells of files for `scellm search`",
        description=tool.summary,
        epilog="example:\n  scellm index 'atlas/*.h5ad' -o atlas-index --columns cell_type --columns tissue\n",
        formatter_class=style,
    )
    command.set_defaults(run=_run_index)
    command.add_argument(
        "inputs", metavar="IN", nargs="+", help="files, folders of 10x output, or patterns like 'a/*.h5ad'"
    )
    command.add_argument("-o", dest="to", metavar="OUT", type=as_path, required=True, help="folder to write")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is there")
    command.add_argument("--quiet", action="store_true", help="no progress bar and no summary; warnings stay")
    add_options(command.add_argument_group("options of scellm.tl.index"), tool)


def _run_index(options: argparse.Namespace) -> int:
    """All work is `tl.index`'s."""
    given = {x.name: getattr(options, x.name) for x in read_tool("index").options if hasattr(options, x.name)}
    sources = list(dict.fromkeys(found(options.inputs)))
    from . import tl

    tl.index(sources, options.to, overwrite=options.overwrite, show_progress=not options.quiet, **given)
    if not options.quiet:
        from .atlas import open_index

        index = open_index(options.to, check=False)
        print(
            f"{options.to}: {index.n_cells:,} cells of {len(sources)} files; columns: {', '.join(index.columns)}."
        )
    return 0
