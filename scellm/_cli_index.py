"""`scellm index`: cells of many files become one folder; a file that fails is left out and named."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._calls import note, noting
from ._cli_log import INTERRUPTED, Outcome, add_option, check_place, explain, log_line, watched, write_log
from ._cli_notes import asked, differences
from ._cli_options import as_path, found, shows_bars
from ._cli_signature import add_options, in_words_of_the_shell, read_tool

EXAMPLES = """\
examples:
  scellm index 'atlas/*.h5ad' -o atlas-index --columns cell_type --columns tissue
  scellm index 'more/*.h5ad' -o atlas-index --append
  scellm index 'atlas/*.h5ad' -o atlas-index --columns cell_type --columns tissue --skip-done

A file that fails does not stop the others; it is named at the end. The index is written when all files are through, or after
Ctrl-C with those that are: go on with --skip-done.

exit codes: 0 all done, 1 some file failed (reasons on stderr), 2 wrong usage, 130 interrupted
"""
STOPPING = (
    "scellm: interrupted; the index of the files that are through is written. Ctrl-C again leaves it out."
)


def add_command(commands: Any, style: type[argparse.HelpFormatter]) -> None:
    """The command and its options."""
    tool = read_tool("index")
    command = commands.add_parser(
        "index",
        help="index the cells of files for `scellm search`",
        description=tool.summary,
        epilog=EXAMPLES,
        formatter_class=style,
    )
    command.set_defaults(run=run, tool="index")
    command.add_argument(
        "inputs", metavar="IN", nargs="+", help="files, folders of 10x output, or patterns like 'a/*.h5ad'"
    )
    command.add_argument("-o", dest="to", metavar="OUT", type=as_path, required=True, help="folder to write")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is there")
    command.add_argument(
        "--skip-done",
        action="store_true",
        help="leave files out that are in the index already, made with the same options, and add the others",
    )
    add_option(command)
    command.add_argument(
        "--quiet", action="store_true", help="no progress bar and no summaries; warnings stay"
    )
    add_options(command.add_argument_group("options of scellm.tl.index"), tool)


def run(options: argparse.Namespace) -> int:
    """Add file after file, then write the index of those that could be read."""
    check_place(options.log)
    tool = read_tool("index")
    given = {x.name: getattr(options, x.name) for x in tool.options if hasattr(options, x.name)}
    sources = list(dict.fromkeys(found(options.inputs)))
    with _in_words(options):
        done = _done_before(options.to, sources, given) if options.skip_done else set()
    outcomes: dict[Path, Outcome] = {source: Outcome(is_skipped=True) for source in sorted(done)}
    for source in outcomes:
        if not options.quiet:
            print(f"{source}: skipped, it is in {options.to}, made with the same options.", flush=True)
    failed: list[Path] = []
    is_stopped = False
    todo = [source for source in sources if source not in done]
    before = _state(options.to)
    try:
        if todo:
            with _in_words(options):
                failed, is_stopped = _index(options, given, todo, outcomes)
    except BaseException as error:
        if _state(options.to) == before:
            _all_failed(todo, outcomes, error)
        raise
    finally:
        lines = [
            log_line(source, "index", given, outcome, options.to) for source, outcome in outcomes.items()
        ]
        write_log(options.log, lines, goes_on=options.skip_done)
    if failed and len(todo) > 1:
        names = ", ".join(map(str, failed))
        print(f"scellm: {len(failed)} of {len(todo)} files failed: {names}.", file=sys.stderr)
    if is_stopped:
        n = sum(source in outcomes and source not in failed for source in todo)
        print(
            f"scellm: interrupted; {n} of {len(todo)} files are in {options.to}. Go on with --skip-done.",
            file=sys.stderr,
        )
        return INTERRUPTED
    return 1 if failed else 0


@contextmanager
def _in_words(options: argparse.Namespace) -> Iterator[None]:
    """Advice to overwrite in the words of this command, whose options otherwise ask to add to the index."""
    try:
        yield
    except (ValueError, FileExistsError) as error:
        text = str(error)
        if "overwrite=True" not in text:
            raise
        asked_for = (
            "--skip-done" if options.skip_done else "--append" if getattr(options, "append", False) else ""
        )
        how = f"--overwrite instead of {asked_for}" if asked_for else "--overwrite"
        text = text.replace("scellm.tl.index and overwrite=True", f"scellm index and {how}")
        raise type(error)(text.replace("overwrite=True", how)) from error


def _state(target: Path) -> tuple[int, int] | None:
    """What tells a folder from one that replaces it."""
    if not target.exists():
        return None
    status = target.stat()
    return status.st_ino, status.st_mtime_ns


def _all_failed(todo: list[Path], outcomes: dict[Path, Outcome], error: BaseException) -> None:
    """Say of all files that they are not in the index, which was not written."""
    why = explain(error) if isinstance(error, Exception) else "interrupted"
    why = f"The index was not written: {in_words_of_the_shell(why, read_tool('index'))}"
    for source in todo:
        outcome = outcomes.setdefault(source, Outcome())
        outcome.text, outcome.error = "", outcome.error or why


def _index(
    options: argparse.Namespace, given: dict[str, Any], todo: list[Path], outcomes: dict[Path, Outcome]
) -> tuple[list[Path], bool]:
    """Make the index, or add to it; after Ctrl-C of the files that are through.

    Returns the files that failed (if all did, nothing is written), and whether it was interrupted.
    """
    from tqdm.auto import tqdm

    from .data import ReadOptions
    from .models import load
    from .tl._gathering import Gathering
    from .tl._index import by_name

    defaults = {x.name: x.default for x in read_tool("index").options}
    values = defaults | given
    append = bool(given.get("append")) or (options.skip_done and options.to.exists())
    reading = ReadOptions(**{name: values[name] for name in ("layer", "use_raw", "gene_key", "min_overlap")})
    failed: list[Path] = []
    with noting() as of_model:
        model = load(values["model"])
    with Gathering(
        options.to,
        model,
        given.get("columns"),
        reading,
        device=values["device"],
        append=append,
        overwrite=options.overwrite,
    ) as work:
        is_stopped = False
        parts = by_name(todo)
        for name, lacks in work.check_columns(parts).items() if not options.quiet else ():
            print(f"{parts[name]}: lacks {', '.join(lacks)}; its cells have no value there.", flush=True)
        for name, source in tqdm(
            parts.items(), desc="index", unit="file", disable=not shows_bars(quiet=options.quiet)
        ):
            try:
                with watched(lambda text: in_words_of_the_shell(text, read_tool("index"))) as outcome:
                    note(**of_model)
                    made_of = asked("index", source, _lasting(given, work.columns))
                    outcome.text = f"{source}: {work.add(name, source, asked=made_of):,} cells"
            except KeyboardInterrupt:
                replaces = options.to.exists() and not append  # the whole index that is there
                if replaces or len(failed) == sum(source in outcomes for source in todo):
                    raise
                print(STOPPING, file=sys.stderr)
                is_stopped = True
                break
            outcomes[source] = outcome
            if outcome.error:
                failed.append(source)
                tqdm.write(f"scellm: {source}: {outcome.error}", file=sys.stderr)
            elif not options.quiet:
                print(outcome.text, flush=True)
        if len(failed) == len(todo):
            return failed, False
        index = work.write(int(values["rng"]))
    if not options.quiet:
        n_files = len(index.manifest["sources"])
        print(
            f"{options.to}: {index.n_cells:,} cells of {n_files} files; columns: {', '.join(index.columns)}."
        )
    return failed, is_stopped


def _done_before(target: Path, sources: list[Path], given: dict[str, Any]) -> set[Path]:
    """The files that are in the index already; refused if one of them was read otherwise."""
    if not target.exists():
        return set()
    from .atlas import open_index

    index = open_index(target, check=False)
    columns = [name for name in index.columns if name != "dataset"]
    notes = [one.get("asked", {}) for one in index.manifest.get("sources", [])]
    known = {note.get("input"): note | {"--columns": sorted(columns)} for note in notes}
    done = set()
    for source in sources:
        made = known.get(str(source.resolve()))
        if made is None or not source.exists():
            continue
        differs = differences(made, asked("index", source, _lasting(given, given.get("columns") or columns)))
        if differs:
            msg = (
                f"{source} is in {target}, but made otherwise; what differs: {differs}. Pass --overwrite instead of --skip-done "
                "to make all anew, or name another folder with -o."
            )
            raise FileExistsError(msg)
        done.add(source)
    return done


def _lasting(given: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """Options on which what is stored of a file depends, with the columns that are kept."""
    found = {name: value for name, value in given.items() if name not in ("append", "rng", "device")}
    return found | {"columns": sorted(set(columns))}
