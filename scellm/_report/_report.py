"""report: all results of some cells as one page to hand on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._checks import check_anndata
from .._containers import cells_of, read_any
from .._files import replacing
from .._formats import expand
from .._obs import read_groups
from .._version import __version__
from ..annotation._records import AnnotationRecord
from ._found import Results, find_results
from ._html import Markup, Section, bullets, sentence, tag, text
from ._input import input_section
from ._labels import labels_section
from ._opening import opening
from ._others import methods_section, search_section, training_section
from ._provenance import provenance_section
from ._style import STYLE
from ._tumor import drugs_section, malignancy_section

if TYPE_CHECKING:
    from anndata import AnnData

MARK = '<meta name="generator" content="scellm'
"""What tells our pages from other files."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing from elsewhere, and no script."""


def report(
    adata: AnnData | str | os.PathLike[str],
    output: str | os.PathLike[str] = "report.html",
    *,
    title: str | None = None,
    sample_key: str | None = None,
    figures: bool = True,
) -> Path:
    """Write all results of these cells to one HTML page that needs nothing else: to read, print, archive and hand on.

    The page has the input check, models, versions, hashes, settings and calls, cell types by lineage and sample with confidence
    and markers, what is unknown, malignant cells, drugs, the figures, warnings in plain words, and text for a methods
    section. It reads what `tl.embed`, `tl.annotate`, `tl.malignancy`, `tl.drug_response`, `tl.rank_drugs`, `tl.search`,
    `tl.fine_tune` and `tl.gene_importance` left, under any key, computes nothing, and says what to type for what is not there.

    Parameters
    ----------
    adata
        Cells with results, or the path of an `.h5ad`, `.zarr` or other file that `scellm annotate` takes.
    output
        File to write. An earlier report is replaced, any other file refused.
    title
        Heading of the page; `None` takes the name of the file.
    sample_key
        Column of `obs` with samples; `None` takes the one `tl.malignancy` or `tl.rank_drugs` was given, else a column
        with a name such as `sample` or `donor`.
    figures
        Draw figures. Those of cells need coordinates, such as a UMAP in `obsm["X_umap"]`.

    Returns
    -------
    Path of the page. `adata` is left as it is.

    Raises
    ------
    FileNotFoundError
        No file at the path, or no folder for `output`.
    KeyError
        `sample_key` is not in `adata.obs`.
    TypeError
        `adata` is neither AnnData nor a path; `sample_key` of measurements.
    ValueError
        `output` is a folder or a file that is no report; a file of another format.

    Examples
    --------
    >>> import tempfile
    >>> adata = scellm.datasets.toy_cells(24, n_vars=1950)
    >>> scellm.tl.embed(adata)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scellm.report(adata, f"{folder}/report.html").name
    'report.html'
    """
    target = expand(output)
    check_output(target)
    source = expand(adata) if isinstance(adata, str | os.PathLike) else None
    cells = read_any(source) if source is not None else cells_of(adata)
    check_anndata(cells)
    if sample_key is not None:
        read_groups(cells, sample_key)
    name = source.name if source is not None else "an AnnData in memory"
    heading = title or (source.name if source is not None else "Report on cells")
    page = page_of(cells, find_results(cells, sample_key), heading, name, source, figures=figures)
    with replacing(target) as part:
        part.write_text(page, encoding="utf-8")
    return target


def check_output(target: Path) -> None:
    """That a report can be written there without taking anything else away."""
    if not target.parent.is_dir():
        msg = f"There is no folder {target.parent} to write {target.name} to. Make it first: mkdir {str(target.parent)!r}."
        raise FileNotFoundError(msg)
    if target.is_dir():
        msg = f"{target} is a folder. Name a file in it: {str(target / 'report.html')!r}."
        raise ValueError(msg)
    if target.exists():
        with target.open("rb") as file:
            start = file.read(4096)
        if start and MARK.encode() not in start:
            msg = f"{target} is there and is no report of scellm, so it is not replaced. Name another file with output=."
            raise ValueError(msg)


def page_of(
    adata: AnnData, found: Results, heading: str, name: str, source: Path | None, *, figures: bool
) -> str:
    """The page as text."""
    makers: tuple[tuple[str, str, Callable[[], Section | None]], ...] = (
        ("input", "Input check", lambda: input_section(adata, found, name)),
        ("provenance", "Model, versions and settings", lambda: provenance_section(adata, found, source)),
        ("labels", "Cell types", lambda: labels_section(adata, found, figures=figures)),
        ("malignancy", "Malignant cells", lambda: malignancy_section(adata, found, figures=figures)),
        ("drugs", "Drugs", lambda: drugs_section(adata, found, figures=figures)),
        ("search", "Search in an index", lambda: search_section(adata, found)),
        ("training", "Models of your own, and genes", lambda: training_section(adata, found)),
        ("methods", "Text for a methods section", lambda: methods_section(adata, found)),
    )
    made = [_made(*maker) for maker in makers]
    sections = [section for section in made if section is not None]
    summary = _summary(adata, found, sections)
    links = [tag("li", tag("a", one.title, href=f"#{one.id}")) for one in (summary, *sections)]
    body = [
        tag("a", "Skip to the results", href="#summary", class_="skip"),
        tag(
            "header",
            tag("h1", heading),
            tag(
                "p",
                f"{adata.n_obs:,} cells × {adata.n_vars:,} genes, {name}; scellm {__version__}",
                class_="soft",
            ),
            tag("nav", tag("ul", *links), aria_label="Sections"),
        ),
        tag("main", *(one.html for one in (summary, *sections))),
        tag(
            "footer",
            tag(
                "p",
                f"Made by scellm {__version__}. The page holds no script and loads nothing. Research results, not for diagnosis.",
            ),
        ),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Markup(f'{MARK} {text(__version__)}">'),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{heading} – scellm report"),
        tag("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def _made(id: str, title: str, make: Callable[[], Section | None]) -> Section | None:
    """A section; where its records are damaged, the reason in its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make()
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = error.args[0] if error.args else error
            said = f"This part could not be read: {reason} Run the tool again to replace its results."
            return Section(id, title, warnings=[said])


def _summary(adata: AnnData, found: Results, sections: list[Section]) -> Section:
    """What was found, in a few lines, and all warnings with their places."""
    section = Section("summary", "At a glance", [opening(adata, found, sections)])
    if not found.keys:
        section.body.append(
            sentence(
                "This file holds no results of scellm. Each part below says what to type; `scellm.tl.annotate(adata)` is a good start."
            )
        )
    lines = _made("summary", "At a glance", lambda: Section("lines", "", [bullets(_lines(adata, found))]))
    section.body += lines.body if lines is not None else []
    warned = [
        tag("li", _inline(words), " ", tag("a", one.title, href=f"#{one.id}"))
        for one in sections
        for words in one.warnings
    ]
    if warned:
        section.body += [tag("h3", "Read this first"), tag("ul", *warned)]
    return section


def _lines(adata: AnnData, found: Results) -> list[str]:
    """One for each result."""
    lines = []
    for key in found.labels:
        record = AnnotationRecord.from_uns(adata.uns[key])
        if record is not None:
            which = "" if len(found.labels) == 1 else f" ({key!r})"
            lines.append(f"Cell types{which}: {record.summary or record.message}")
    for key in found.malignant:
        calls = adata.obs[f"{key}_call"].astype(str).value_counts()
        lines.append(f"Malignant cells: {', '.join(f'{n:,} {call}' for call, n in calls.items())}")
    for key in found.drugs:
        by = str(adata.uns[key].get("groupby", "") or "")
        level = f"groups of obs[{by!r}]" if by else "each cell"
        lines.append(f"Drugs: response to {np.size(adata.uns[key]['drugs']):,} drugs, predicted for {level}")
    lines += [f"Search: {adata.uns[key].get('message', '')}" for key in found.searches]
    return lines


def _inline(words: str) -> Markup:
    """A warning without its paragraph."""
    return Markup(sentence(words)[3:-4])
