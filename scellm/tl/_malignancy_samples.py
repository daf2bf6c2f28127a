"""Steps of `tl.malignancy`: which cells are normal, one sample after another, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from tqdm.auto import tqdm

from .._obs import has_column, read_text
from .._warn import warn
from ..annotation._annotator import unit
from ..data import Expression, ReadOptions
from ..models import CellLM
from ..tumors import (
    CALLS,
    Combination,
    CopyNumber,
    Genome,
    Panel,
    arm_table,
    call,
    combine,
    infer_copy_number,
    load_genome,
    load_panel,
    malignant_names,
    profile_windows,
    verdict,
    window_profile,
)
from ..tumors._infer import LEAST_EXPRESSION, normal_fractions

SAMPLE_NAMES = ("sample", "sample_id", "donor", "donor_id", "patient", "patient_id", "batch", "orig.ident")
"""Columns that most often hold samples."""
CELLS_PER_GROUP = 60
MOST_GROUPS = 200
SAMPLES_WITH_PROGRESS = 3
ROWS_AT_ONCE = 2_048
"""Cells of a sample that are read at once from a disk."""


@dataclass(eq=False)
class Cells:
    """What is known of the cells before copy number."""

    counts: sp.csr_array | StoredCounts | None
    """(n, P) linear expression over the genome; `None` where it says nothing, as in mice."""
    genome: Genome
    vectors: np.ndarray
    head: np.ndarray
    """(n,) log odds; NaN for empty cells."""
    lineages: np.ndarray
    """(n, L) probabilities of lineages; 0 where none is known."""
    is_normal: np.ndarray
    samples: np.ndarray
    is_known: bool = False
    """Whether the user named the normal cells."""


@dataclass(eq=False)
class Found:
    """Results of all samples."""

    probability: np.ndarray
    calls: np.ndarray
    score: np.ndarray
    clone: np.ndarray
    labels: np.ndarray
    profile: np.ndarray
    record: dict[str, Any]


def read_samples(adata: AnnData, sample_key: str | None) -> np.ndarray:
    """(n,) sample of each cell, "" for all of one; warns where a column looks like several samples.

    Raises
    ------
    ValueError
        Cells without a sample.
    """
    if sample_key is None:
        for name in SAMPLE_NAMES:
            if has_column(adata, name) and adata.obs[name].nunique() > 1:
                warn(
                    f"`adata.obs[{name!r}]` has {adata.obs[name].nunique()} values, but all cells are read as one sample. Copy number "
                    f"is compared within a sample: pass sample_key={name!r}."
                )
                break
        return np.full(adata.n_obs, "", dtype=object)
    samples = read_text(adata, sample_key)
    if (samples == "").any():
        msg = (
            f"{int((samples == '').sum()):,} cells have no sample in `adata.obs[{sample_key!r}]`. Leave them out: "
            f"adata = adata[adata.obs[{sample_key!r}].notna()].copy()."
        )
        raise ValueError(msg)
    return samples


def read_normal(
    adata: AnnData, reference: str | None, normal: str | Sequence[str] | None
) -> np.ndarray | None:
    """(n,) cells that the user says are normal; `None` if nothing was said.

    Raises
    ------
    ValueError
        A column without values, values without a column, or values that it does not have.
    """
    if reference is None:
        if normal is not None:
            msg = "normal= names values of a column; name the column with reference=."
            raise ValueError(msg)
        return None
    labels = read_text(adata, reference)
    there = sorted(set(labels) - {""})
    wanted = [normal] if isinstance(normal, str) else list(normal or [])
    missing = [value for value in wanted if value not in there]
    if missing or not wanted:
        said = (
            f"normal={missing!r} is not there"
            if missing
            else "normal= is needed: which of its values are normal cells"
        )
        msg = f"`adata.obs[{reference!r}]` has {there[:30]}; {said}."
        raise ValueError(msg)
    return np.isin(labels, wanted)


class StoredCounts:
    """Linear expression over the genome, (n, P), that stays on the disk: a sample is read when it is its turn."""

    def __init__(self, cells: Expression, genes: np.ndarray) -> None:
        self._cells, self._genes = cells, genes
        self._last: tuple[np.ndarray, sp.csr_array] | None = None
        self._total = np.zeros(len(genes))
        for _, block in cells.counts():
            self._total += block.sum(axis=0)[genes]

    def __getitem__(self, rows: np.ndarray) -> sp.csr_array:
        if self._last is None or not np.array_equal(self._last[0], rows):
            parts = [
                sp.csr_matrix(self._cells.counts_of(some))[:, self._genes]
                for some in np.array_split(rows, -(-len(rows) // ROWS_AT_ONCE))
            ]
            self._last = rows, sp.csr_array(sp.vstack(parts, format="csr"))
        return self._last[1]

    def sum(self, axis: int = 0) -> np.ndarray:
        """(P,) sums over all cells."""
        return self._total


def read_counts(
    adata: AnnData, model: CellLM, source: ReadOptions
) -> tuple[sp.csr_array | StoredCounts | None, Genome]:
    """(n, P) linear expression over the genome, of a backed object left there; `None` for genes of another organism."""
    vocabulary = model.vocabulary
    genome = load_genome(vocabulary.ensembl_ids, vocabulary.symbols)
    with Expression.open(adata, vocabulary, source) as cells:
        if cells.match.organism != "human":
            return None, genome
        if cells.is_on_disk:
            return StoredCounts(cells, genome.ids), genome
        parts = cells.map(_on_genome, genome.ids)
    return sp.csr_array(sp.vstack(parts, format="csr")), genome


def _on_genome(cells: Expression, genes: np.ndarray) -> sp.csr_matrix:
    """Linear expression of some genes, of a part of the cells."""
    return sp.vstack([sp.csr_matrix(block)[:, genes] for _, block in cells.counts()], format="csr")


def analyze(
    cells: Cells,
    symbols: np.ndarray,
    weights: Combination,
    labels: np.ndarray,
    rng: int,
    *,
    show: bool | None,
) -> Found:
    """One sample after another."""
    n = len(cells.samples)
    panel = load_panel(cells.genome, symbols)
    genes, windows, chromosome, start = _windows(cells)
    found = Found(
        probability=np.full(n, np.nan),
        calls=np.full(n, "undecided", dtype=object),
        score=np.full(n, np.nan),
        clone=np.full(n, None, dtype=object),
        labels=labels.copy(),
        profile=np.full((n, len(start)), np.nan, dtype=np.float32),
        record={"chromosome": chromosome, "start": start},
    )
    rows_of: list[dict[str, Any]] = []
    arms_of: list[pd.DataFrame] = []
    names = list(dict.fromkeys(cells.samples.tolist()))
    shown = len(names) >= SAMPLES_WITH_PROGRESS if show is None else show
    for name in tqdm(names, desc="copy number", unit="sample", disable=not shown):
        rows = np.flatnonzero(cells.samples == name)
        copies = _copies(cells, rows, panel, rng)
        row, arms = _fill(found, cells, rows, copies, weights, str(name))
        if copies is not None and copies.is_usable:
            counts = sp.csr_array(cells.counts[rows][:, genes])
            normal = normal_fractions(counts, copies, panel, genes)
            found.profile[rows] = window_profile(counts, normal, windows)
        rows_of.append(row)
        arms_of.append(arms)
    found.record["samples"] = {key: np.array([row[key] for row in rows_of]) for key in rows_of[0]}
    table = pd.concat(arms_of, ignore_index=True)
    found.record["arms"] = {
        key: table[key].to_numpy(str if table[key].dtype == object else None) for key in table
    }
    return found


def _windows(cells: Cells) -> tuple[np.ndarray, sp.csr_array, np.ndarray, np.ndarray]:
    """Genes and windows of the figure, the same for all samples."""
    none = np.zeros(0, dtype=np.int64)
    if cells.counts is None:
        return none, sp.csr_array((0, 0)), none.astype(str), none
    total = np.asarray(cells.counts.sum(axis=0)).ravel()
    expressed = 1e4 * total / max(total.sum(), 1e-12) > LEAST_EXPRESSION
    genes = np.flatnonzero(expressed & cells.genome.is_used)
    if not len(genes):
        return none, sp.csr_array((0, 0)), none.astype(str), none
    return genes, *profile_windows(cells.genome, genes)


def _copies(cells: Cells, rows: np.ndarray, panel: Panel, rng: int) -> CopyNumber | None:
    """Copy number of one sample; `None` where the genes have no place on the human genome."""
    if cells.counts is None:
        return None
    vectors = cells.vectors[rows]
    groups = np.zeros(len(rows), dtype=np.int64)
    is_full = ~np.isnan(vectors).any(axis=1)
    n_groups = int(np.clip(is_full.sum() // CELLS_PER_GROUP, 2, MOST_GROUPS))
    if is_full.sum() > 2 * n_groups:
        from sklearn.cluster import KMeans

        means = KMeans(n_groups, n_init=3, random_state=rng)
        groups[is_full] = means.fit_predict(unit(vectors[is_full]))
    return infer_copy_number(
        sp.csr_array(cells.counts[rows]),
        cells.genome,
        panel,
        groups,
        cells.is_normal[rows],
        rng,
        is_known=cells.is_known,
    )


def _fill(
    found: Found, cells: Cells, rows: np.ndarray, copies: CopyNumber | None, weights: Combination, name: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Put the results of one sample in their places; its row of the table, and its arms."""
    is_read = copies is not None and copies.is_usable
    found.probability[rows] = combine(cells.head[rows], copies, weights)
    found.calls[rows] = call(found.probability[rows], is_alone=not is_read)
    is_malignant = found.calls[rows] == "malignant"
    clone = copies.clone if copies is not None else np.full(len(rows), -1)
    found.labels[rows] = malignant_names(found.labels[rows], is_malignant, clone, cells.lineages[rows])
    arms = pd.DataFrame(arm_table(copies.clones if is_read else [], copies.segments) if is_read else {})
    arms = arms.reindex(columns=["clone", "arm", "log_ratio", "standard_error", "state"])
    if is_read:
        found.score[rows] = copies.score
        prefix = f"{name} " if name else ""
        found.clone[rows] = [None if c < 0 else f"{prefix}{c + 1}" for c in clone]
        text = verdict(copies, {key: arms[key].to_numpy() for key in arms}, is_malignant)
    elif copies is not None:
        text = verdict(copies, {}, is_malignant)
    else:
        text = "The genes are not human: copy number was not read, the calls rest on expression alone."
    arms = arms.assign(clone=[f"{name} {c + 1}".strip() for c in arms["clone"]])
    arms.insert(0, "sample", name)
    row = {"sample": name, "n_cells": len(rows)}
    row |= {f"n_{kind}": int((found.calls[rows] == kind).sum()) for kind in CALLS}
    row |= {
        "n_clones": len(copies.clones) if is_read else 0,
        "reference": copies.reference if is_read else "none",
        "n_reference": int(copies.is_reference.sum()) if is_read else 0,
        "verdict": text,
    }
    return row, arms


def write_found(
    adata: AnnData, key: str, found: Found, head: np.ndarray, samples: np.ndarray, record: dict[str, Any]
) -> None:
    """Put the results where `Returns` of `tl.malignancy` says."""
    is_malignant = found.calls == "malignant"
    samples = np.where(samples == "", "all", samples)
    adata.obs[key] = found.probability.astype(np.float32)
    adata.obs[f"{key}_call"] = pd.Categorical(found.calls, categories=list(CALLS))
    adata.obs[f"{key}_expression"] = head.astype(np.float32)
    adata.obs[f"{key}_copy_number"] = found.score.astype(np.float32)
    clones = [name for name in dict.fromkeys(found.clone.tolist()) if name is not None]
    adata.obs[f"{key}_clone"] = pd.Categorical(found.clone.tolist(), categories=sorted(clones))
    adata.obs[f"{key}_sample"] = pd.Categorical(np.where(is_malignant, samples, None))
    adata.obs[f"{key}_label"] = pd.Categorical([name or None for name in found.labels])
    adata.obsm[f"{key}_profile"] = found.profile
    adata.uns[key] = record | found.record
