"""Tools over many files: `scellm check`, `embed`, `annotate`, `malignancy`, `drug-response`, `rank-drugs`, `search`, `report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ._cli_log import INTERRUPTED, Outcome, add_option, check_place, log_line, print_warning, write_log
from ._cli_notes import difference, write_note
from ._cli_options import as_path, found
from ._cli_signature import add_options, read_tool
from ._cli_work import CHECK, Job, do, do_unless_stopped
from ._cluster import Weights, check_workers
from ._formats import sample_name

TOOLS = {
    "embed": "add embeddings to files of cells",
    "annotate": "name the type of every cell",
    "malignancy": "tell malignant from normal cells",
    "drug_response": "predict the response to drugs",
    "rank_drugs": "compare groups of cells by predicted drug response",
    "search": "find the cells of an index that are most like these",
}
"""Functions of `scellm.tl` that are commands, and what `scellm --help` says of them."""
EXAMPLES = """\
examples:
  scellm {name} sample.h5ad -o labeled.h5ad{more}
  scellm {name} 'samples/*.h5ad' cellranger/outs -o results{more}
  scellm {name} *.h5ad -o results{table} --jobs 2{more}

Files: .h5ad, .zarr, .loom, folders and .h5 files of Cell Ranger. Inputs are left as they are. A file that fails does not
stop the others; it is named at the end.

exit codes: 0 all done, 1 some file failed (reasons on stderr), 2 wrong usage, 130 interrupted
"""

CHECK_EXAMPLES = """\
examples:
  scellm check cells.h5ad
  scellm check 'samples/*.h5ad' cellranger/outs --layer counts
  scellm check cells.h5ad && scellm embed cells.h5ad

exit codes: 0 embed would take the matrix marked with > of all files, 1 it would refuse one, 2 wrong usage, 130 interrupted
"""
REPORT_EXAMPLES = """\
examples:
  scellm report results.h5ad -o report.html
  scellm report 'labeled/*.h5ad' -o reports --sample-key donor

exit codes: 0 all done, 1 some file failed (reasons on stderr), 2 wrong usage, 130 interrupted
"""


def add_commands(commands: Any, style: type[argparse.HelpFormatter]) -> None:
    """One command for each tool."""
    for name, help_ in TOOLS.items():
        tool = read_tool(name)
        word = name.replace("_", "-")
        more = "".join(f" --{x.name.replace('_', '-')} COLUMN" for x in tool.options if x.is_required)
        command = commands.add_parser(
            word,
            help=help_,
            description=tool.summary,
            epilog=EXAMPLES.format(name=word, more=more, table="" if name == "embed" else " --table csv"),
            formatter_class=style,
        )
        command.set_defaults(run=run, tool=name, table=None)
        _add_files(command, tables=name != "embed", in_place=name == "embed")
        add_options(command.add_argument_group(f"options of scellm.tl.{name}"), tool)
    _add_check(commands, style)
    _add_report(commands, style)


def _add_check(commands: Any, style: type[argparse.HelpFormatter]) -> None:
    """`scellm check`: a table for each file, and nothing written."""
    tool = read_tool(CHECK)
    command = commands.add_parser(
        "check",
        help="say what files hold and what embed would do with them",
        description=tool.summary,
        epilog=CHECK_EXAMPLES,
        formatter_class=style,
    )
    command.set_defaults(run=run, tool=CHECK, table=None, cluster=None)
    _add_inputs(command)
    _add_running(command)
    add_options(command.add_argument_group(f"options of scellm.pp.{CHECK}"), tool)


def _add_report(commands: Any, style: type[argparse.HelpFormatter]) -> None:
    """`scellm report`: a page for each file."""
    tool = read_tool("report")
    command = commands.add_parser(
        "report",
        help="write all results of a file as one HTML page",
        description=tool.summary,
        epilog=REPORT_EXAMPLES,
        formatter_class=style,
    )
    command.set_defaults(run=run, tool="report", table=None)
    _add_files(command, tables=False)
    add_options(command.add_argument_group("options of scellm.report"), tool)


def _add_inputs(command: argparse.ArgumentParser) -> None:
    """Files to read."""
    command.add_argument(
        "inputs", metavar="IN", nargs="+", help="files, folders of 10x output, or patterns like 'a/*.h5ad'"
    )


def _add_files(command: argparse.ArgumentParser, *, tables: bool = True, in_place: bool = False) -> None:
    """Inputs, output and how the files are gone through."""
    _add_inputs(command)
    command.add_argument(
        "-o",
        dest="to",
        metavar="OUT",
        type=as_path,
        required=not in_place,
        help="folder for the results, or a file if IN is one file" + " (default: add to IN)" * in_place,
    )
    command.add_argument("--overwrite", action="store_true", help="replace results that are there")
    command.add_argument(
        "--skip-done",
        action="store_true",
        help="leave files out whose results are there, made with the same options: go on after an interruption",
    )
    if tables:
        command.add_argument(
            "--table",
            choices=("csv", "parquet"),
            help="write the columns of cells as a table, not a copy of IN",
        )
    command.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="work on a dask cluster: address of its scheduler, whose workers see the same files",
    )
    _add_running(command)


def _add_running(command: argparse.ArgumentParser) -> None:
    """How many at once, and what is said."""
    command.add_argument(
        "--jobs", metavar="N", type=int, default=1, help="files at once, each in a process (default: 1)"
    )
    add_option(command)
    command.add_argument(
        "--quiet", action="store_true", help="no progress bars and no summaries; warnings stay"
    )


def run(options: argparse.Namespace) -> int:
    """Go through all files."""
    jobs = list(_jobs(options))
    for job in jobs:
        if job.has_note and job.source.exists():
            write_note(job.target, job.tool, job.source, job.options)
    todo = [job for job in jobs if not job.is_done]
    done = _done_on(options.cluster, todo) if options.cluster and todo else _done(todo, options.jobs)
    failed: list[Path] = []
    log = [_line(job, Outcome(is_skipped=True)) for job in jobs if job.is_done]
    n_before = len(log)
    try:
        for job, outcome in zip(todo, done, strict=True):
            log.append(_line(job, outcome))
            if outcome.text and not options.quiet:
                heading = f"{job.source}\n" if job.tool == CHECK and len(todo) > 1 else ""
                print(f"{heading}{outcome.text}", flush=True)
            if outcome.error:
                failed.append(job.source)
                print(f"scellm: {job.source}: {outcome.error}", file=sys.stderr)
    except KeyboardInterrupt:
        if len(todo) == 1 and not options.cluster:
            raise
        n = len(log) - n_before
        more = " Workers of the cluster may still write the files they are at." if options.cluster else ""
        more += " Go on with --skip-done." if n and todo[0].has_note else ""
        print(f"scellm: interrupted; {n} of {len(todo)} files are through.{more}", file=sys.stderr)
        return INTERRUPTED
    finally:
        write_log(options.log, log, goes_on=getattr(options, "skip_done", False))
    if failed and len(todo) > 1:
        print(
            f"scellm: {len(failed)} of {len(todo)} files failed: {', '.join(map(str, failed))}.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _line(job: Job, outcome: Outcome) -> dict[str, Any]:
    """A line of the log."""
    target = None if job.tool == CHECK else job.target
    return log_line(job.source, job.tool, job.options, outcome, target)


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    """What to do, refused as a whole before anything is read."""
    check_place(options.log)
    sources = list(dict.fromkeys(found(options.inputs)))
    given = {
        x.name: getattr(options, x.name) for x in read_tool(options.tool).options if hasattr(options, x.name)
    }
    threads = None if options.jobs == 1 else 1
    if getattr(options, "to", None) is None:
        if getattr(options, "skip_done", False):
            msg = "--skip-done looks for results in another place than the inputs. Name it with -o."
            raise ValueError(msg)
        for source in sources:
            yield Job(options.tool, source, source, given, options.quiet, threads)
        return
    targets, is_folder = _targets(options, sources)
    done = {target for target in targets if target.exists() and not options.overwrite}
    if not options.skip_done and done:
        msg = f"{min(done)} is there already. Pass --overwrite to replace it, or --skip-done to go on with the others."
        raise FileExistsError(msg)
    if is_folder:
        options.to.mkdir(parents=True, exist_ok=True)
        for target in sorted(done):
            _check_same(target, options.tool, targets[target], given)
    for target in sorted(done if not options.quiet else ()):
        same = ", made with the same options" if is_folder else ""
        print(f"{targets[target]}: skipped, {target} is there{same}.", flush=True)
    for target, source in targets.items():
        is_done = target in done
        yield Job(
            options.tool,
            source,
            target,
            given,
            options.quiet,
            threads,
            has_note=is_folder and not is_done,
            is_done=is_done,
        )


def _targets(options: argparse.Namespace, sources: list[Path]) -> tuple[dict[Path, Path], bool]:
    """The input of each result, and whether results go to a folder."""
    is_folder = len(sources) > 1 or options.to.is_dir() or not options.to.suffix
    if len(sources) > 1 and options.to.is_file():
        msg = f"-o {options.to} is a file, but there are {len(sources)} inputs. Name a folder."
        raise ValueError(msg)
    targets: dict[Path, Path] = {}
    if not is_folder and options.table and options.to.suffix != f".{options.table}":
        msg = f"--table {options.table} writes a table, and -o {options.to} is none. Name it {options.to.stem}.{options.table}, or a folder."
        raise ValueError(msg)
    for source in sources:
        suffix = f".{options.table}" if options.table else _suffix(options.tool, source)
        target = options.to / f"{sample_name(source)}{suffix}" if is_folder else options.to
        if target in targets:
            msg = f"{targets[target]} and {source} would both be written to {target}. Run them into two folders."
            raise ValueError(msg)
        targets[target] = source
    for target, source in targets.items():
        if target.resolve() == source.resolve():
            msg = f"{target} is the input itself. Name another place with -o."
            raise ValueError(msg)
    return targets, is_folder


def _check_same(target: Path, tool: str, source: Path, given: dict[str, Any]) -> None:
    """That a result that is there is what this run would make."""
    differs = difference(target, tool, source, given)
    if differs is None:
        msg = f"{target} is there, but not known to be a result of scellm {tool}. Move it away, or pass --overwrite."
        raise FileExistsError(msg)
    if differs:
        msg = (
            f"{target} was made otherwise; what differs: {differs}. Pass --overwrite instead of --skip-done to make all "
            "anew, or name another folder with -o."
        )
        raise FileExistsError(msg)


def _suffix(tool: str, source: Path) -> str:
    """Ending of the result of a file."""
    return ".html" if tool == "report" else ".zarr" if source.suffix == ".zarr" else ".h5ad"


def _done(jobs: list[Job], at_once: int) -> Iterator[Outcome]:
    """How each job went, in order."""
    if at_once < 2 or len(jobs) < 2:
        yield from map(do, jobs)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(min(at_once, len(jobs)), mp_context=get_context("spawn"))
    try:
        yield from map(_with_warnings, pool.map(do_unless_stopped, jobs))
    finally:
        pool.shutdown(cancel_futures=True)


def _with_warnings(outcome: Outcome) -> Outcome:
    """Print the warnings of another process."""
    for text in outcome.warnings:
        print_warning(text)
    return outcome


def _done_on(address: str, jobs: list[Job]) -> Iterator[Outcome]:
    """The same on the workers of a dask cluster; a file whose worker is lost is done by another."""
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        msg = "--cluster needs dask.distributed. Install it with: pip install 'scellm[dask]'"
        raise ImportError(msg) from error
    weights = _weights(jobs[0])
    absolute = [
        replace(job, source=job.source.resolve(), target=job.target.resolve(), weights=weights)
        for job in jobs
    ]
    with Client(address) as client:
        check_workers(client)
        for future in client.map(do, absolute, pure=False, is_silent=True):
            try:
                yield _with_warnings(future.result())
            except KilledWorker:
                yield Outcome(
                    error="the workers that took it died, most likely because they ran out of memory"
                )


def _weights(job: Job) -> Weights | None:
    """The model that is asked for, as workers load it."""
    default = next((x.default for x in read_tool(job.tool).options if x.name == "model"), None)
    name = job.options.get("model", default)
    if name is None:
        return None
    if job.tool == "drug_response":
        from .drugs import load_drug_model

        return load_drug_model(name).for_workers()
    from .models import load

    return load(name).for_workers()
