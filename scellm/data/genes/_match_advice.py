"""What to say, and what to type, where a table holds too few known genes."""

from __future__ import annotations

import math
import re

from ._gene_match import GeneMatch

FORMS = {
    "Ensembl transcript ids": r"ENS[A-Z]*T\d{11}",
    "human Ensembl ids": r"ENSG\d{11}",
    "mouse Ensembl ids": r"ENSMUSG\d{11}",
    "Ensembl ids of a species that is neither human nor mouse": r"ENS[A-Z]+G\d{11}|FBgn\d|WBGene\d",
    "RefSeq ids": r"[NX][MR]_\d",
    "microarray probes": r"\S+_at$",
    "genomic regions": r"(chr)?[\dXY]{1,2}[:-]\d+-\d+",
    "numbers": r"\d+$",
    "cell barcodes": r"(.*[_:#-])?[ACGTN]{12,}([-_]\w+)?$",
}
"""Kinds of names by their form; the first that fits the first names."""


def what_they_look_like(match: GeneMatch) -> str:
    """One sentence on the names, with examples."""
    some = [name for name in match.names.tolist() if name][:2]
    shown = ", ".join(repr(name) for name in some) or "all empty"
    for kind, form in FORMS.items():
        if some and all(re.match(form, name) for name in some):
            return f"They look like {kind} ({shown})"
    if match.recognized >= 0.5:
        return f"They are {match.organism} genes ({shown}), but only {len(match.names)} columns"
    if not match.recognized:
        return f"They look like {shown}; none is a known gene"
    return f"They look like {shown}, of which {100 * match.recognized:.0f} % are known {match.organism} genes"


def way_out(
    match: GeneMatch,
    alternatives: dict[str, GeneMatch],
    *,
    min_overlap: float,
    columns: list[str],
    holder: str,
) -> str:
    """What to pass instead. Only what would be accepted is named.

    Parameters
    ----------
    match
        The match that is refused.
    alternatives
        What to type for another place of the names, and its match.
    min_overlap
        Fraction of the vocabulary that must be present.
    columns
        Columns of `var`.
    holder
        What owns `var`.
    """
    enough = {
        code: other
        for code, other in alternatives.items()
        if other.n_genes > 2 * match.n_genes and other.coverage >= min_overlap
    }
    for code, other in enough.items():
        if code.startswith("adata.T"):
            return f"; the genes are the rows: `adata.obs_names` holds {other.n_genes}. Pass {code}, with cells as rows."
        where = f", where `{other.where}` holds" if code == "use_raw=True" else ", which holds"
        return f"; pass {code}{where} {other.n_genes}."
    if match.recognized >= 0.5:
        least = math.floor(1000 * match.coverage) / 1000
        fewer = f", or min_overlap={least:g} if this is all there is" if match.n_genes else ""
        return f"; pass the data as it was before genes were selected{fewer}."
    if what_they_look_like(match).startswith("They look like cell barcodes"):
        return "; if the genes are the rows, pass adata.T.copy(), with cells as rows."
    needed = "human or mouse gene symbols or Ensembl ids"
    may_be_rows = not match.n_genes and "adata.T.copy()" not in alternatives
    rows = " If the genes are the rows, pass adata.T.copy()." if may_be_rows else ""
    if not columns:
        return (
            f"; set `{holder}.var_names` to {needed}: `{holder}.var` has no columns to take them from.{rows}"
        )
    return (
        f"; pass `gene_key=` with a column of {needed}, or set `{holder}.var_names`. `{holder}.var` has the columns "
        f"{columns}.{rows}"
    )
