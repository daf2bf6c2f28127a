"""Tools over many files: `scellm annotate`, `malignancy`, `drug-response`, `rank-drugs`, `search` and `report`."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._cli_notes import difference, write_note
from ._cli_options import as_path, found
from ._cli_signature import add_options, in_words_of_the_shell, read_tool
from ._cluster import Weights, check_workers
from ._files import replacing
from ._formats import sample_name
from ._warn import without_lines

if TYPE_CHECKING:
    from anndata import AnnData

TOOLS = {
    "annotate": "name the type of every cell",
    "malignancy": "tell malignant from normal cells",
    "drug_response": "predict the response to drugs",
    "rank_drugs": "compare groups of cells by predicted drug response",
    "search": "find the cells of an index that are most like these",
}
"""Functions of `scellm.tl` that are commands, and what `scellm --help` says of them."""
EXPECTED = (
    FloatingPointError,
    ImportError,
    KeyError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that end a file and not the others."""
EXAMPLES = """\
examples:
  scellm {name} sample.h5ad -o labeled.h5ad{more}
  scellm {name} 'samples/*.h5ad' cellranger/outs -o results{more}
  scellm {name} *.h5ad -o results --table csv --jobs 2{more}

Files: .h5ad, .zarr, .loom, folders and .h5 files of Cell Ranger. Inputs are left as they are. A file that fails does not
stop the others; it is named at the end.

exit codes: 0 all done, 1 some file failed (reasons on stderr), 2 wrong usage, 130 interrupted
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
            epilog=EXAMPLES.format(name=word, more=more),
            formatter_class=style,
        )
        command.set_defaults(run=run, tool=name)
        _add_files(command)
        add_options(command.add_argument_group(f"options of scellm.tl.{name}"), tool)
    _add_report(commands, style)


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


def _add_files(command: argparse.ArgumentParser, *, tables: bool = True) -> None:
    """Inputs, output and how the files are gone through."""
    command.add_argument(
        "inputs", metavar="IN", nargs="+", help="files, folders of 10x output, or patterns like 'a/*.h5ad'"
    )
    command.add_argument(
        "-o",
        dest="to",
        metavar="OUT",
        type=as_path,
        required=True,
        help="folder for the results, or a file if IN is one file",
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
        "--jobs", metavar="N", type=int, default=1, help="files at once, each in a process (default: 1)"
    )
    command.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="work on a dask cluster: address of its scheduler, whose workers see the same files",
    )
    command.add_argument(
        "--log", metavar="FILE", type=as_path, help="write what was done with each file, as lines of JSON"
    )
    command.add_argument(
        "--quiet", action="store_true", help="no progress bars and no summaries; warnings stay"
    )


@dataclass(frozen=True)
class Job:
    """One file."""

    tool: str
    source: Path
    target: Path
    options: dict[str, Any]
    quiet: bool
    threads: int | None = None
    has_note: bool = False
    weights: Weights | None = None
    """The model, for a worker of a cluster."""


def run(options: argparse.Namespace) -> int:
    """Go through all files."""
    jobs = list(_jobs(options))
    for job in jobs:
        if job.has_note:
            write_note(job.target, job.tool, job.source, job.options)
    done = _done_on(options.cluster, jobs) if options.cluster and jobs else _done(jobs, options.jobs)
    failed, log = [], []
    for job, (seconds, text, error) in zip(jobs, done, strict=True):
        log.append({"file": str(job.source), "output": str(job.target), "seconds": round(seconds, 2)})
        log[-1] |= {"error": error} if error else {"summary": text}
        if error:
            failed.append(job.source)
            print(f"scellm: {job.source}: {error}", file=sys.stderr)
        elif not options.quiet:
            print(text, flush=True)
    if options.log:
        with replacing(options.log) as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    if failed and len(jobs) > 1:
        print(
            f"scellm: {len(failed)} of {len(jobs)} files failed: {', '.join(map(str, failed))}.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    """What to do, refused as a whole before anything is read."""
    sources = list(dict.fromkeys(found(options.inputs)))
    is_folder = len(sources) > 1 or options.to.is_dir() or not options.to.suffix
    if len(sources) > 1 and options.to.is_file():
        msg = f"-o {options.to} is a file, but there are {len(sources)} inputs. Name a folder."
        raise ValueError(msg)
    targets: dict[Path, Path] = {}
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
    given = {
        x.name: getattr(options, x.name) for x in read_tool(options.tool).options if hasattr(options, x.name)
    }
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
    threads = None if options.jobs == 1 else 1
    for target, source in targets.items():
        if target not in done:
            yield Job(options.tool, source, target, given, options.quiet, threads, has_note=is_folder)


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


def _done(jobs: list[Job], at_once: int) -> Iterator[tuple[float, str, str]]:
    """Seconds, summary and error of each job, in order."""
    if at_once < 2 or len(jobs) < 2:
        yield from map(do, jobs)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(at_once, len(jobs)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(do, jobs)


def _done_on(address: str, jobs: list[Job]) -> Iterator[tuple[float, str, str]]:
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
        for future in client.map(do, absolute, pure=False):
            try:
                yield future.result()
            except KilledWorker:
                yield 0.0, "", "the workers that took it died, most likely because they ran out of memory"


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


def do(job: Job) -> tuple[float, str, str]:
    """One file, whose error is text."""
    start = time.monotonic()
    try:
        text = _do(job)
    except EXPECTED as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        said = in_words_of_the_shell(str(reason), read_tool(job.tool)) or type(error).__name__
        return time.monotonic() - start, "", said.removeprefix(f"{job.source}: ")
    return time.monotonic() - start, text, ""


def _do(job: Job) -> str:
    """Read, compute, write."""
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    if job.tool == "report":
        from ._report import report

        page = report(job.source, job.target, **job.options)
        return f"{job.source} -> {page}, {page.stat().st_size / 1e6:.1f} MB"
    from . import tl
    from ._containers import read_any

    options = {
        name: read_any(value) if isinstance(value, Path) else value for name, value in job.options.items()
    }
    if job.weights is not None:
        options["model"] = job.weights.get()
    if job.quiet and "show_progress" in inspect.signature(getattr(tl, job.tool)).parameters:
        options["show_progress"] = False
    adata = read_any(job.source, backed=True)
    before = {slot: set(getattr(adata, slot).keys()) for slot in ("obs", "obsm", "uns")}
    with without_lines():
        getattr(tl, job.tool)(adata, **options)
    results = _results(adata, before, options.get("key_added", _key(job.tool)))
    if job.target.suffix in (".csv", ".parquet"):
        _write_table(adata, results, job.target)
    else:
        _write(adata, job, results)
    record = results["uns"].get(options.get("key_added", _key(job.tool)), {})
    record = record if isinstance(record, dict) else {}
    said = record.get("summary") or f"{adata.n_obs:,} cells. {record.get('message', '')}"
    return f"{job.source} -> {job.target}: {said}".strip()


def _key(tool: str) -> str:
    """The key a tool writes to if none is asked for."""
    return next(str(x.default) for x in read_tool(tool).options if x.name == "key_added")


def _results(adata: AnnData, before: dict[str, set[str]], key: str) -> dict[str, dict[str, Any]]:
    """What a tool has written: new keys, and its own that were there before."""
    return {
        slot: {
            name: getattr(adata, slot)[name]
            for name in getattr(adata, slot).keys()
            if name not in had or name == key or str(name).startswith(f"{key}_")
        }
        for slot, had in before.items()
    }


def _write(adata: AnnData, job: Job, results: dict[str, dict[str, Any]]) -> None:
    """A copy of the input with the results; what was another format becomes h5ad."""
    from .data import check_target, write_results

    if job.source.suffix == job.target.suffix and job.source.suffix in (".h5ad", ".zarr"):
        if adata.isbacked:
            adata.file.close()
        check_target(job.source.resolve(), job.target.resolve())
        write_results(job.source.resolve(), job.target.resolve(), results)
        return
    if job.target.suffix != ".h5ad":
        msg = f"{job.target}: results of {job.source.name} are written as .h5ad. Name the output so."
        raise ValueError(msg)
    with replacing(job.target) as part:
        adata.write_h5ad(part)


def _write_table(adata: AnnData, results: dict[str, dict[str, Any]], target: Path) -> None:
    """Columns of cells, with their names."""
    table = adata.obs[list(results["obs"])]
    if table.empty:
        msg = "This tool writes no columns of cells, so there is no table of them. Leave --table out and use scellm.get."
        raise ValueError(msg)
    with replacing(target) as part:
        if target.suffix == ".csv":
            table.to_csv(part, index_label="cell")
        else:
            table.to_parquet(part)
