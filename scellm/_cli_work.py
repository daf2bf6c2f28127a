"""What is done with one file, by this process, another one or a worker of a cluster."""

from __future__ import annotations

import inspect
import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._calls import note
from ._cli_log import Outcome, watched
from ._cli_options import shows_bars
from ._cli_signature import in_words_of_the_shell, read_tool
from ._cluster import Weights
from ._files import replacing
from ._formats import check_exists
from ._warn import without_lines

if TYPE_CHECKING:
    from anndata import AnnData

CHECK = "check_input"
"""The tool that writes nothing."""
TABLES = (".csv", ".parquet")


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
    is_done: bool = False
    """Left out: its result is there."""
    weights: Weights | None = None
    """The model, for a worker of a cluster."""


def do(job: Job, *, is_silent: bool = False) -> Outcome:
    """One file, whose error is text."""

    def say(text: str) -> str:
        return in_words_of_the_shell(text, read_tool(job.tool)).removeprefix(f"{job.source}: ")

    with watched(say, is_silent=is_silent) as outcome:
        if job.tool == CHECK:
            outcome.text, outcome.error = _check(job)
        else:
            outcome.text = _do(job)
    return outcome


_is_stopped = False


def do_unless_stopped(job: Job) -> Outcome:
    """`do` in a process of many, which after Ctrl-C must not take the next file that waits for it."""
    global _is_stopped
    if _is_stopped:
        raise KeyboardInterrupt
    try:
        return do(job, is_silent=True)
    except KeyboardInterrupt:
        _is_stopped = True
        raise


def _check(job: Job) -> tuple[str, str]:
    """The table of `pp.check_input`, and the refusal of the matrix that is asked for."""
    check_exists(job.source)
    from ._containers import opened
    from .pp import check_input

    printed = io.StringIO()
    with opened(job.source) as adata, redirect_stdout(printed):
        table = check_input(adata, **job.options)
    layer, use_raw = job.options.get("layer"), job.options.get("use_raw")
    found = table.loc["raw.X" if use_raw else "X" if layer is None else f"layers[{layer!r}]", "embed"]
    return printed.getvalue().removesuffix("\n"), f"embed {found}" if found.startswith("refuses") else ""


def _do(job: Job) -> str:
    """Read, compute, write."""
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    if job.tool == "report":
        from ._report import report

        page = report(job.source, job.target, **job.options)
        return f"{job.source} -> {page}, {page.stat().st_size / 1e6:.1f} MB"
    check_exists(job.source)
    from ._containers import streamed

    with streamed(job.source) as source:
        return _do_with(job, source)


def _do_with(job: Job, source: Path | None) -> str:
    """Read `source`, which is the input or a copy that is read by rows, compute, write."""
    is_copied = _check_target(job, source)
    from . import tl
    from ._containers import opened, read_any

    options = {
        name: read_any(value) if isinstance(value, Path) else value for name, value in job.options.items()
    }
    if job.weights is not None:
        options["model"] = job.weights.get()
        note(model=job.weights.name, model_sha256=job.weights.sha256)
    function = getattr(tl, job.tool)
    if not shows_bars(quiet=job.quiet) and "show_progress" in inspect.signature(function).parameters:
        options["show_progress"] = False
    key = options.get("key_added", _key(job.tool))
    with opened(source or job.source) as adata:
        before = {slot: set(getattr(adata, slot).keys()) for slot in ("obs", "obsm", "uns")}
        with without_lines():
            function(adata, **options)
        results = _results(adata, before, key)
        if job.target.suffix in TABLES:
            _write_table(adata, results, job.target)
        elif not is_copied:
            with replacing(job.target) as part:
                adata.write_h5ad(part)
    if is_copied and source is not None:
        from .data import write_results

        write_results(source.resolve(), job.target.resolve(), results)
    return f"{job.source} -> {job.target}: {_said(job.tool, results, key, len(adata.obs))}"


def _said(tool: str, results: dict[str, dict[str, Any]], key: str, n_cells: int) -> str:
    """What a tool says of its results, in one line."""
    record = results["uns"].get(key)
    record = record if isinstance(record, dict) else {}
    if tool != "embed":
        verdicts = record.get("samples", {}).get("verdict", ()) if tool == "malignancy" else ()
        said = " ".join([str(record.get("message", "")), *map(str, verdicts)]).strip()
        return str(record.get("summary") or f"{n_cells:,} cells. {said}".strip())
    n_obs, dim = results["obsm"][key].shape
    return (
        f"obsm[{key!r}] holds {n_obs} cells x {dim}, from {record['matrix']} by {record['model']}; "
        f"{record['n_genes']} genes, {100 * record['gene_coverage']:.1f} % of the vocabulary."
    )


def _check_target(job: Job, source: Path | None) -> bool:
    """Whether the result is a copy of the input with results in it; refuse what could not be written, before it is computed."""
    if job.target.suffix in TABLES:
        return False
    is_streamed = source is not None and source == job.source
    if not is_streamed and (job.target.suffix != ".h5ad" or job.target == job.source):
        msg = f"Results of {job.source.name} are written as .h5ad. Name a file or folder for them with -o."
        raise ValueError(msg)
    if source is None:
        return False
    from .data import check_target

    check_target(source.resolve(), job.target.resolve())
    return True


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


def _write_table(adata: AnnData, results: dict[str, dict[str, Any]], target: Path) -> None:
    """Columns of cells, with their names."""
    table = adata.obs[list(results["obs"])]
    if table.empty:
        msg = "This tool writes no columns of cells, so there is no table of them. Name the output .h5ad, without --table, and use scellm.get."
        raise ValueError(msg)
    with replacing(target) as part:
        if target.suffix == ".csv":
            table.to_csv(part, index_label="cell")
        else:
            table.to_parquet(part)
