"""The command `scellm`. Heavy imports happen inside the commands, so that `--help` is immediate."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _cli_completion, _cli_fit, _cli_pretrain, _cli_tools
from ._cli_options import add_embed_options, add_matrix_options, add_pack_options, as_path
from ._cli_signature import in_words_of_the_shell, read_tool
from ._files import replacing, restore
from ._formats import check_exists, check_readable, is_cells
from ._version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

REFUSED = 1
"""Exit code: the input was refused, or could not be read or written. argparse exits with 2 on wrong usage."""
BROKEN_PIPE = 141
"""Exit code where nobody reads the output any more, as shells have it."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_EXAMPLES = """\
examples:
  scellm check cells.h5ad                       what is in this file, and would embed take it?
  scellm embed cells.h5ad                       add obsm["X_scellm"] to the file itself
  scellm embed cells.h5ad -o embedded.h5ad      leave the input as it is
  scellm annotate *.h5ad -o labeled             cell types of many samples, a file each in a folder
  scellm report labeled/a.h5ad -o report.html   all results of a file as one page
  scellm pack a.h5ad b.h5ad -o corpus.scellm.h5  one file to train on
  scellm pretrain tiny cells.h5ad -o run        train an encoder by a recipe
  scellm models                                 models on this machine
"""
_EMBED_EXAMPLES = """\
examples:
  scellm embed cells.h5ad
  scellm embed cells.zarr -o embedded.zarr --layer counts
  scellm embed cells.h5ad --use-raw --gene-key gene_ids --device cuda
  scellm embed cells.h5ad --model organization/name --key-added X_other

exit codes: 0 done, 1 refused (the reason is on stderr), 2 wrong usage, 130 interrupted
"""
_CHECK_EXAMPLES = """\
examples:
  scellm check cells.h5ad
  scellm check cells.zarr --layer counts
  scellm check cells.h5ad && scellm embed cells.h5ad

exit codes: 0 embed would take the matrix marked with >, 1 it would refuse it, 2 wrong usage, 130 interrupted
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
    try:
        with _warnings_in_one_line(options):
            code = options.run(options)
            sys.stdout.flush()  # here, where a reader that has gone away can still be dealt with
            return code
    except BrokenPipeError:
        return _without_reader()
    except KeyboardInterrupt:
        print("scellm: interrupted; no file was changed.", file=sys.stderr)
        return INTERRUPTED
    except _cli_tools.EXPECTED as error:
        # the text of a KeyError as written, not in quotes
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, MemoryError):
            text = f"Out of memory. {text}".strip()
        print(f"scellm: {_in_words(str(text), options) or type(error).__name__}", file=sys.stderr)
        return REFUSED


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
        ("embed", _embed, "add embeddings to an h5ad or zarr file", _EMBED_EXAMPLES, add_embed_options),
        ("check", _check, "say what a file holds and what embed would do with it", _CHECK_EXAMPLES, None),
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
        if name in ("embed", "check"):
            command.add_argument(
                "input",
                metavar="IN",
                type=as_path,
                help=".h5ad file or .zarr folder, cells x genes, or 10x output",
            )
            add_matrix_options(command)
        if add_options is not None:
            add_options(command)
    _cli_tools.add_commands(commands, style)
    _cli_fit.add_commands(commands, style)
    _cli_completion.add_command(commands, style, _parser)
    return parser


def _embed(options: argparse.Namespace) -> int:
    """`scellm embed`: all work is `tl.embed`'s."""
    restore(options.input)  # a killed run may have put it aside
    other = _read_other(options.input)
    if other is not None and (options.output is None or options.output.suffix != ".h5ad"):
        msg = f"{options.input} is of another format, which is never written to. Name a new file: -o {options.input.stem}.h5ad."
        raise ValueError(msg)
    from .tl import embed

    if options.quiet:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    embed(
        options.input if other is None else other,
        options.model,
        layer=options.layer,
        use_raw=options.use_raw or None,
        gene_key=options.gene_key,
        min_overlap=options.min_overlap,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
        key_added=options.key_added,
        show_progress=False if options.quiet else None,
        output=options.output if other is None else None,
    )
    if other is not None:
        with replacing(options.output) as part:
            other.write_h5ad(part)
    if not options.quiet:
        print(_summary(options.output or options.input, options.key_added))
    return 0


def _summary(path: Path, key: str) -> str:
    """What was written, read back from the file."""
    from anndata.io import read_elem

    from .data import open_store

    with open_store(path, "r") as store:
        n_obs, dim = store["obsm"][key].shape
        record = read_elem(store["uns"][key])
    return (
        f"{path}: obsm[{key!r}] holds {n_obs} cells x {dim}, from {record['matrix']} by {record['model']}; "
        f"{record['n_genes']} genes, {100 * record['gene_coverage']:.1f} % of the vocabulary."
    )


def _check(options: argparse.Namespace) -> int:
    """`scellm check`: the table of `pp.check_input`, and its verdict as exit code."""
    restore(options.input)  # a killed run may have put it aside
    other = _read_other(options.input)
    from .pp import check_input

    with _opened(options.input) if other is None else nullcontext(other) as adata:
        table = check_input(
            adata, layer=options.layer, use_raw=options.use_raw or None, gene_key=options.gene_key
        )
    matrix = "raw.X" if options.use_raw else "X" if options.layer is None else f"layers[{options.layer!r}]"
    return REFUSED if table.loc[matrix, "embed"].startswith("refuses") else 0


def _read_other(path: Path) -> AnnData | None:
    """The cells of a file of 10x, loom or MuData; `None` for h5ad and zarr, which are read where they lie."""
    check_exists(path)
    if is_cells(path) or not (path.is_dir() or path.suffix.lower() in (".h5", ".loom", ".h5mu")):
        check_readable(path)
        return None
    from ._containers import read_any

    return read_any(path)


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
        show_progress=False if options.quiet else None,
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
def _opened(path: Path) -> Iterator[AnnData]:
    """The tables of a file in memory and its matrices left on the disk, h5ad and zarr alike."""
    from anndata import AnnData
    from anndata.io import read_elem

    from .data import open_store
    from .data.cells._rows import check_encoding

    with open_store(path, "r") as store:
        check_encoding(store, path)
        raw = None
        if "raw" in store:
            raw = {"X": _on_disk(store["raw/X"]), "var": read_elem(store["raw/var"])}
        yield AnnData(
            X=_on_disk(store["X"]) if "X" in store else None,
            obs=read_elem(store["obs"]),
            var=read_elem(store["var"]),
            layers={name: _on_disk(store["layers"][name]) for name in store.get("layers", {})},
            raw=raw,
        )


def _on_disk(element: Any) -> Any:
    """A matrix that is read as far as it is looked at; `None` where the file says there is none."""
    from anndata.io import sparse_dataset

    kind = str(element.attrs.get("encoding-type", ""))
    if kind == "null":
        return None
    return sparse_dataset(element) if kind in ("csr_matrix", "csc_matrix") else element


@contextmanager
def _warnings_in_one_line(options: argparse.Namespace) -> Iterator[None]:
    """Print warnings without the line of code they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"scellm: warning: {_in_words(str(message), options)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
