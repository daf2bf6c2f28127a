"""The section on the input: what the file holds, and what tools would do with it."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd
from anndata import AnnData

from .._obs import read_groups
from ..pp import check_input
from ._found import Results
from ._html import Section, bullets, facts, sentence, table

FEW_GENES = 50.0
"""Percent of the vocabulary below which a word is due."""


def input_section(adata: AnnData, found: Results, name: str) -> Section:
    """Cells, genes, samples and the table of `pp.check_input`."""
    section = Section("input", "Input check")
    section.body.append(
        facts(
            {
                "File": name,
                "Cells": adata.n_obs,
                "Genes": adata.n_vars,
                "Layers": ", ".join(str(layer) for layer in adata.layers if layer is not None),
                "Raw": "yes" if adata.raw is not None else "",
                "Samples": _samples(adata, found.sample_key),
            },
            "What was given.",
        )
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            checked = check_input(adata)
    except (KeyError, TypeError, ValueError) as error:
        section.warn(f"The values could not be checked: {error.args[0] if error.args else error}")
        return section
    shown = pd.DataFrame(
        {
            "matrix": checked.index,
            "values": checked["values"].to_numpy(),
            "gene names": checked["genes"].to_numpy(),
            "known genes": checked["n_genes"].to_numpy(),
            "% of the vocabulary": checked["percent_of_vocabulary"].to_numpy(),
            "tl.embed": checked["embed"].to_numpy(),
        }
    )
    section.body.append(table(shown, "Every matrix, as scellm.pp.check_input sees it now."))
    section.body.append(
        bullets([f"{where}: {words}" for where, words in checked["details"].items() if words])
    )
    _doubts(section, checked, adata)
    return section


def _samples(adata: AnnData, key: str | None) -> str:
    if key is None:
        return ""
    groups = read_groups(adata, key)
    return f"{len(groups.categories):,} in obs[{key!r}]"


def _doubts(section: Section, checked: pd.DataFrame, adata: AnnData) -> None:
    """What a reader should know of the input before anything else."""
    usable = checked[~checked["embed"].str.startswith("refuses")]
    if usable.empty:
        section.warn(
            "No matrix in this file can be read as expression any more. Results below were made before; keep the counts in a "
            "layer to be able to repeat them."
        )
        return
    share = usable["percent_of_vocabulary"].max()
    if share < FEW_GENES:
        section.warn(
            f"The data holds {share:.0f} % of the genes that the model knows. Labels are weaker with "
            "fewer genes; if genes were filtered, go back to the file that has all of them.",
            f"the data holds {share:.0f} % of the genes that the model knows",
        )
    if np.unique(adata.obs_names).size < adata.n_obs:
        section.body.append(
            sentence("Names of cells are not unique: `adata.obs_names_make_unique()` makes them so.")
        )
