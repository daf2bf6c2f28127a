"""check_input: what these values look like and what embed would do with them."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .._checks import check_choice, layer_names
from .._containers import takes_cells
from ..data import GeneMatch, GeneVocabulary, ValueReport, describe_values, row_blocks
from ..data.cells._cell_checks import SpeciesCheck
from ..data.cells._value_scales import base_name
from ..data.genes._match import MIN_OVERLAP, best_match, check_match
from ..tumors import FEWEST_GENES, load_genome

COLUMNS = ("values", "genes", "n_genes", "percent_of_vocabulary", "embed", "what_to_type", "details")
ROWS_AT_ONCE = 1000
MANY_GENES = 4000
"""Genes with a place from which copy number is read well."""


@takes_cells
def check_input(
    adata: AnnData, *, layer: str | None = None, use_raw: bool | None = None, gene_key: str | None = None
) -> pd.DataFrame:
    """Say what the values and genes look like, and what `tl.embed` would do with them.

    Looks at `X`, every layer and `raw`, prints a table and returns it. Bad data is reported, never an error. Says too
    whether the genes suffice for the copy number of `tl.malignancy`.

    Parameters
    ----------
    adata
        Cells x genes.
    layer, use_raw
        As they would be given to `tl.embed`; the matrix they name is marked in the printed table.
    gene_key
        Column of `var` with symbols or Ensembl ids; `None` finds the names as `tl.embed` does.

    Returns
    -------
    One row per matrix, named "X", "layers['counts']", "raw.X", with the columns

    `values` : str
        Raw counts, log1p with base and target sum, scaled, ...
    `genes` : str
        Organism and namespace of the gene names and where they are.
    `n_genes`, `percent_of_vocabulary` : int, float
        Vocabulary genes present.
    `embed` : str
        What `tl.embed` does with the matrix; begins with "refuses" where it raises an error. All values are
        scaled to the model's target sum over its genes, log1p values after undoing the logarithm.
    `what_to_type` : str
        The call that reads this matrix, or the way out of a refusal.
    `details` : str
        What the verdict on the values rests on, and on how many cells: up to 2,000 are examined. NaN, negative
        values and empty cells are looked for in all cells of a matrix in memory, but of a larger one on the disk
        or in dask only in those.

    Raises
    ------
    KeyError
        `layer` is not in `adata.layers`, or `gene_key` is a column of neither `var` nor `raw.var`.
    TypeError
        `adata` is not an AnnData.
    ValueError
        Both `layer` and `use_raw`, or `use_raw` without `adata.raw`.

    Examples
    --------
    >>> import scellm
    >>> adata = scellm.datasets.toy_cells(40)
    >>> table = scellm.pp.check_input(adata)  # doctest: +ELLIPSIS
    40 cells; > marks what embed reads with these arguments
    ...
    >>> table.loc["X", "values"]
    'raw counts'
    """
    check_choice(adata, layer, use_raw)
    _check_gene_key(adata, gene_key)
    raw_var = None if adata.raw is None else adata.raw.var
    genes = {"adata": _genes(adata, gene_key, raw_var=raw_var, holder="adata")}
    if raw_var is not None:
        genes["adata.raw"] = _genes(adata, gene_key, raw_var=None, holder="adata.raw")

    matrices = {"X": adata.X} | {f"layers[{key!r}]": adata.layers[key] for key in layer_names(adata)}
    if adata.raw is not None:
        matrices["raw.X"] = adata.raw.X
    rows = {}
    for name, matrix in matrices.items():
        var, of = (raw_var, "adata.raw") if name == "raw.X" else (adata.var, "adata")
        rows[name] = _row(name, matrix, *genes[of], adata=adata, var=var, gene_key=gene_key)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    table = _point_to_the_best(table)
    chosen = "raw.X" if use_raw else "X" if layer is None else f"layers[{layer!r}]"
    print(_text(table, chosen, adata, [match for match, _ in genes.values() if match is not None]))
    return table


def _check_gene_key(adata: AnnData, gene_key: str | None) -> None:
    """That one of the `var` tables has the column."""
    columns = [str(column) for column in adata.var.columns]
    columns += [] if adata.raw is None else [str(c) for c in adata.raw.var.columns if str(c) not in columns]
    if gene_key is not None and gene_key not in columns:
        msg = f"gene_key={gene_key!r} is not a column of `adata.var`, which has {columns}."
        raise KeyError(msg)


def _genes(
    adata: AnnData, gene_key: str | None, *, raw_var: pd.DataFrame | None, holder: str
) -> tuple[GeneMatch | None, str]:
    """The match, and why embed would refuse it ("" if it would not)."""
    var = adata.var if holder == "adata" else adata.raw.var
    if gene_key is not None and gene_key not in var.columns:
        return (
            None,
            f"gene_key={gene_key!r} is not a column of `{holder}.var`, which has {list(var.columns)}.",
        )
    vocabulary = GeneVocabulary.default()
    options = {"raw_var": raw_var, "holder": holder, "obs_names": adata.obs_names}
    try:
        match = best_match(var, vocabulary, gene_key, holder=holder, organism=None)
        check_match(match, var, vocabulary, gene_key, min_overlap=0, **options)
    except (TypeError, ValueError) as error:
        return None, str(error)
    try:
        check_match(match, var, vocabulary, gene_key, **options)
    except ValueError as error:
        return match, str(error)
    return match, ""


def _row(
    name: str,
    matrix: Any,
    match: GeneMatch | None,
    refusal: str,
    *,
    adata: AnnData,
    var: pd.DataFrame,
    gene_key: str | None,
) -> tuple[str, str, int, float, str, str, str]:
    """The columns of one matrix, in the order of `COLUMNS`."""
    where = "names are not genes"
    if match is not None:
        names = {"ensembl": "Ensembl ids", "symbol": "symbols"}.get(match.namespace, "names")
        where = f"{match.organism} {names} in {match.where.removeprefix('adata.')}"
    overlap = (0, 0.0) if match is None else (match.n_genes, round(100 * match.coverage, 1))
    if matrix is None:
        return "absent", where, *overlap, "refuses: there are no values", "", f"`adata.{name}` is None."
    values = describe_values(matrix, obs=adata.obs)
    details = _with_names(values, adata, var) + _how_many(values, matrix)
    if values.usable and not refusal:
        is_known = _is_in_memory(matrix) or values.n_rows == matrix.shape[0]
        empty = _n_empty(matrix, match.ids >= 0) if is_known else None
        does = _what_embed_does(values) + (f"; NaN for {empty} empty cells" if empty else "")
        details += "" if empty is not None else " Empty cells were not counted."
        details += "".join(f" {note}" for note in match.notes)
        if is_known and (foreign := _foreign(matrix, match, values, name)):
            does += "; no result for cells of another species"
            details += f" {foreign}"
        return _short(values), where, *overlap, does, _call(name, gene_key), details
    reason = "too few genes, or names that are none" if refusal else f"{_short(values)} values"
    way_out = " ".join(filter(None, (refusal, "" if values.usable else _value_way_out(values))))
    return _short(values), where, *overlap, f"refuses: {reason}", way_out, details


def _short(values: ValueReport) -> str:
    """Two to six words for a table."""
    if values.kind == "log1p":
        total = (
            f", {values.target_sum:,.0f} per cell"
            if values.target_sum
            else ", of raw counts" * values.holds_counts
        )
        return f"log1p, base {base_name(values.base)}{'' if values.is_certain else '?'}{total}"
    if values.kind == "normalized" and values.target_sum:
        return f"normalized, {values.target_sum:,.0f} per cell"
    return {
        "counts": "raw counts",
        "non_integer_counts": "counts, not whole",
        "normalized": "normalized",
    }.get(values.kind, values.kind)


def _what_embed_does(values: ValueReport) -> str:
    doubt = "" if values.is_certain and values.kind != "non_integer_counts" else ", with a warning"
    return f"{'undoes the logarithm, ' if values.kind == 'log1p' else ''}normalizes{doubt}"


def _value_way_out(values: ValueReport) -> str:
    """What to do about values that embed refuses."""
    general = {
        "scaled": "Pass the layer with raw counts, or use_raw=True if `adata.raw` was kept; "
        "scaling cannot be undone, so run embed before sc.pp.scale.",
        "invalid": "Leave out the cells or genes with such entries, for instance "
        "adata[:, ~np.isnan(adata.X).any(axis=0)].copy().",
        "empty": "Load the counts; there are none here.",
    }
    return values.way_out or general.get(values.kind, "")


def _with_names(values: ValueReport, adata: AnnData, var: pd.DataFrame) -> str:
    """The message, with the names of the first broken entry."""
    if values.first_bad is None:
        return values.message
    cell, gene = values.first_bad
    return f"{values.message} That is cell {adata.obs_names[cell]!r}, gene {var.index[gene]!r}."


def _is_in_memory(matrix: Any) -> bool:
    return isinstance(matrix, np.ndarray) or sp.issparse(matrix)


def _how_many(values: ValueReport, matrix: Any) -> str:
    """How many cells the verdict rests on, if not on all."""
    if not 0 < values.n_rows < matrix.shape[0]:
        return ""
    text = f" {values.n_rows:,} of {matrix.shape[0]:,} cells examined"
    return f"{text}, all for NaN and negative values." if _is_in_memory(matrix) else f"{text}."


def _foreign(matrix: Any, match: GeneMatch, values: ValueReport, name: str) -> str:
    """A sentence on the cells of another species, "" where there are none."""
    if not match.is_foreign.any():
        return ""
    species = SpeciesCheck(match, values)
    for _, block in row_blocks(matrix, ROWS_AT_ONCE):
        species.keep(block)
    return species.message(f"adata.{name}", matrix.shape[0]) if species.n_foreign else ""


def _n_empty(matrix: Any, is_read: np.ndarray) -> int:
    """Cells without a value in the columns that are read."""
    has_value = np.zeros(matrix.shape[0], dtype=bool)
    if sp.issparse(matrix) and matrix.format == "csc":  # gene by gene: as CSR it would be copied
        for start, block in row_blocks(matrix.T, ROWS_AT_ONCE):
            is_used = np.repeat(is_read[start : start + block.shape[0]], np.diff(block.indptr))
            has_value[block.indices[is_used & (block.data != 0)]] = True
    else:
        for start, block in row_blocks(matrix, ROWS_AT_ONCE):
            row = np.repeat(np.arange(start, start + block.shape[0]), np.diff(block.indptr))
            has_value[row[is_read[block.indices] & (block.data != 0)]] = True
    return int((~has_value).sum())


def _call(name: str, gene_key: str | None) -> str:
    """How to have embed read a matrix."""
    arguments = ["adata"]
    if name == "raw.X":
        arguments.append("use_raw=True")
    elif name != "X":
        arguments.append(f"layer={name.removeprefix('layers[').removesuffix(']')}")
    if gene_key is not None:
        arguments.append(f"gene_key={gene_key!r}")
    return f"scellm.tl.embed({', '.join(arguments)})"


def _point_to_the_best(table: pd.DataFrame) -> pd.DataFrame:
    """Where embed refuses a matrix and takes another, say which: raw counts before the others."""
    refused = table["embed"].str.startswith("refuses")
    taken = table[~refused]
    if taken.empty:
        return table
    best = taken.assign(counts=taken["values"] == "raw counts").sort_values(
        "counts", ascending=False, kind="stable"
    )
    table.loc[refused, "what_to_type"] = best["what_to_type"].iloc[0]
    return table


def _copy_number(match: GeneMatch) -> str:
    """Whether the genes are enough for `tl.malignancy` to read copy number."""
    if match.organism != "human":
        return "Copy number: not read in tl.malignancy, as the genes are not human."
    vocabulary = GeneVocabulary.default()
    genome = load_genome(vocabulary.ensembl_ids, vocabulary.symbols)
    n_placed = int(np.isin(genome.ids[genome.is_used], match.ids).sum())
    if n_placed < FEWEST_GENES:
        verdict = f"too few: tl.malignancy needs {FEWEST_GENES:,} that are expressed"
    elif n_placed < MANY_GENES:
        verdict = "enough if most are expressed, though whole arms may be missed"
    else:
        verdict = "enough"
    return f"Copy number: {n_placed:,} genes with a place on the autosomes, {verdict}."


def _text(table: pd.DataFrame, chosen: str, adata: AnnData, matches: list[GeneMatch]) -> str:
    """The printed form: a narrow table, then the reasons and the calls."""
    shown = table[["values", "genes"]].copy()
    shown.insert(0, "matrix", [("> " if name == chosen else "  ") + name for name in table.index])
    shown["in vocabulary"] = [
        f"{n} ({p:.1f} %)" for n, p in zip(table["n_genes"], table["percent_of_vocabulary"], strict=True)
    ]
    shown["embed"] = table["embed"]
    columns = [[name, *values] for name, values in shown.astype(str).items()]
    widths = [max(map(len, column)) for column in columns]
    lines = [f"{adata.n_obs} cells; > marks what embed reads with these arguments", ""]
    for line in zip(*columns, strict=True):
        lines.append("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    lines.append("")
    for name in table.index:
        details, way, embed = table.loc[name, ["details", "what_to_type", "embed"]]
        lines += textwrap.wrap(f"{name}: {details}", 100, subsequent_indent="    ")
        lines += textwrap.wrap(
            f"{'Instead' if embed.startswith('refuses') else 'Type'}: {way}",
            100,
            initial_indent="    ",
            subsequent_indent="    ",
        )
    if len(matches) == 2 and np.array_equal(matches[0].names, matches[1].names):
        matches = matches[:1]
    for match in matches:
        lines += ["", match.summary(), *textwrap.wrap(_copy_number(match), 100)]
    if table["embed"].str.startswith("refuses").all():
        lines += [
            "",
            f"Needed: raw counts or log1p values, and {100 * MIN_OVERLAP:.0f} % of the vocabulary genes.",
        ]
    return "\n".join(lines)
