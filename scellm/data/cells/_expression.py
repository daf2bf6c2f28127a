"""The one reader of expression: an AnnData or a file becomes tokens, counts or log values over a vocabulary."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from tqdm.auto import tqdm

from ..._calls import note
from ..._cluster import Weights, client_of, map_rows
from ..._room import stays_on_disk
from ..._warn import warn
from ..genes._gene_match import GeneMatch
from ..genes._match import MIN_OVERLAP, match_genes
from ..genes._vocabulary import GeneVocabulary
from ._by_rows import by_rows
from ._cell_checks import SpeciesCheck
from ._fingerprint import Fingerprint
from ._rows import check_finite, open_matrix, row_blocks, to_csr
from ._structure import check_structure
from ._tokens import TokenConfig, Tokens, as_tokens, gene_counts, log_normalize
from ._values import ValueReport, describe_values

if TYPE_CHECKING:
    from anndata import AnnData

ROWS_PER_BLOCK = 2048
"""Cells read at once. Part of the fingerprint: another number makes all that were stored unknown."""
CP10K = 1e4
"""Target sum of log1p values, as scanpy's tutorials have it."""
ELSEWHERE = "Pass raw counts or log1p values with layer= or use_raw=."
"""The way out where it is not known what else there is."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Which matrix of an AnnData, and how its genes are found; as in `tl.embed`."""

    layer: str | None = None
    use_raw: bool | None = None
    gene_key: str | None = None
    min_overlap: float = MIN_OVERLAP

    def __post_init__(self) -> None:
        if not 0 <= self.min_overlap <= 1:
            msg = f"min_overlap={self.min_overlap!r} is a fraction of the model's genes; it must be between 0 and 1."
            raise ValueError(msg)

    @property
    def slot(self) -> str:
        """Where files keep the matrix."""
        return "raw/X" if self.use_raw else "X" if self.layer is None else f"layers/{self.layer}"

    @property
    def where(self) -> str:
        """What messages call the matrix of an AnnData."""
        return {"raw/X": "adata.raw.X", "X": "adata.X"}.get(self.slot, f"adata.layers[{self.layer!r}]")


@dataclass(frozen=True, eq=False)
class Harmonizer:
    """How stored rows of one matrix become linear expression over the vocabulary; knows no file and can be pickled."""

    dataset: str | None
    """Name of the dataset, for messages."""
    gene_ids: np.ndarray
    """(n_vars,) vocabulary id of each column, -1 outside."""
    n_genes: int
    values: ValueReport
    match: GeneMatch | None = None
    """Genes of the columns; `None` where no column can be of another species."""

    @classmethod
    def learn(
        cls,
        dataset: str,
        X: Any,
        var: pd.DataFrame,
        vocabulary: GeneVocabulary,
        options: ReadOptions,
        raw_var: pd.DataFrame | None = None,
    ) -> Harmonizer:
        """Match the genes and find out what the values are."""
        with naming(dataset):
            match = _match(var, vocabulary, options, raw_var)
            values = judge_values(X, options.where, var.index)
        _say_if_guessed(values, options.where, dataset)
        return cls(dataset, match.ids, len(vocabulary), values, match)

    def check(self, rows: sp.csr_array, cells: int | np.ndarray) -> None:
        """Refuse NaN, infinite and negative values; `cells` is the number of the first row, or (B,) of each."""
        check_finite(rows, cells, dataset=self.dataset)

    def counts(self, rows: sp.csr_array, cells: int | np.ndarray) -> sp.csr_array:
        """(B, n_vars) as stored -> (B, n_genes) linear; `cells` as in `check`.

        Cells of another species come as empty rows, with a warning.
        """
        rows = self.values.clean(rows)
        self.check(rows, cells)
        if self.match is not None:
            species = SpeciesCheck(self.match, self.values)
            rows = species.keep(rows)
            if species.n_foreign:
                # The same text for every block, so that Python shows it once.
                warn(
                    f"Dataset {self.dataset!r}: cells with most of their counts in columns of another species "
                    f"are read as empty; the others are read as {self.match.organism}."
                )
        return self.linear(rows)

    def linear(self, rows: sp.csr_array) -> sp.csr_array:
        """`counts` of rows that have been checked."""
        return gene_counts(rows, self.gene_ids, self.n_genes, self.values.linearize)


class Expression:
    """Cells of an AnnData or a file over a vocabulary: genes matched and values judged once, rows read in blocks.

    Made by `Expression.open`. Nothing is read but what is asked for, and nothing is changed.

    Attributes
    ----------
    X
        The matrix as stored, (n_obs, n_vars).
    var
        Its columns.
    where
        What messages call it.
    match, values
        How the columns map to the vocabulary, and what the values are.
    """

    def __init__(
        self,
        X: Any,
        var: pd.DataFrame,
        where: str,
        match: GeneMatch,
        values: ValueReport,
        *,
        slot: str = "X",
        dataset: str | None = None,
    ) -> None:
        self.X, self.var, self.where, self.match, self.values = X, var, where, match, values
        self.harmonizer = Harmonizer(dataset, match.ids, match.n_vocabulary, values)
        self._slot = slot
        self._fingerprint: str | None = None
        self.first = 0
        """Number of the first cell, in a part of more."""
        self._log: list[bytes] | None = None
        self.n_foreign: int | None = None
        """Cells of another species, whose rows come empty; known after a full pass."""

    @classmethod
    @contextmanager
    def open(
        cls,
        cells: AnnData | str | os.PathLike[str],
        vocabulary: GeneVocabulary,
        source: ReadOptions | None = None,
        *,
        dataset: str | None = None,
    ) -> Iterator[Expression]:
        """Open the cells, match their genes and judge their values; warn where the scale had to be guessed.

        Parameters
        ----------
        cells
            An AnnData in memory, backed or of dask arrays, or the path of an `.h5ad` file or `.zarr` folder.
        vocabulary
            Genes of the columns.
        source
            Which matrix and which names of genes; `None` takes the defaults of `tl.embed`.
        dataset
            Name of the cells, for messages.

        Raises
        ------
        FileNotFoundError
            No file at the path.
        KeyError
            No such layer, or `gene_key` is not a column of `var`.
        TypeError
            Neither an AnnData nor a path: what to pass instead. Gene names that are not text.
        ValueError
            No such matrix or no cells; too few vocabulary genes; values that are scaled, negative, not finite or all 0.
        """
        source = source or ReadOptions()
        if isinstance(cells, str | os.PathLike):
            with ExitStack() as stack:
                with naming(dataset):
                    path = Path(cells).expanduser()
                    file = stack.enter_context(open_matrix(path, source.layer, source.use_raw))
                    match = _match(file.var, vocabulary, source, file.raw_var)
                    X = stack.enter_context(by_rows(file.X, file.where))
                    values = judge_values(X, file.where, file.var.index)
                _say_if_guessed(values, file.where, dataset)
                yield cls(X, file.var, file.where, match, values, slot=source.slot, dataset=dataset)._noted()
            return
        from ..._checks import get_matrix

        with ExitStack() as stack:
            with naming(dataset):
                X, var, where = get_matrix(cells, source.layer, source.use_raw)
                check_structure(X, cells.n_obs, len(var), where)
                match = _match(
                    var, vocabulary, source, None if cells.raw is None else cells.raw.var, cells.obs
                )
                X = stack.enter_context(by_rows(X, where))
                values = judge_values(X, where, var.index, lambda: _readable(cells, source), cells.obs)
            _say_if_guessed(values, where, dataset)
            yield cls(X, var, where, match, values, slot=source.slot, dataset=dataset)._noted()

    def _noted(self) -> Expression:
        """These cells, after saying what they are to a log."""
        note(
            cells=self.n_obs,
            matrix=self.where,
            values=self.values.message,
            genes_matched=self.match.n_genes,
            gene_coverage=round(float(self.match.coverage), 4),
        )
        return self

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.X.shape[0]

    @property
    def is_on_disk(self) -> bool:
        """Whether rows are read from a file."""
        return stays_on_disk(self.X)

    @property
    def is_part(self) -> bool:
        """Whether these are some of the cells that were opened."""
        return self._log is not None

    @property
    def has_gene(self) -> np.ndarray:
        """Which genes of the vocabulary have a column, (n_genes,) bool."""
        has = np.zeros(self.match.n_vocabulary, dtype=bool)
        has[self.match.ids[self.match.ids >= 0]] = True
        return has

    def blocks(self) -> Iterator[tuple[int, sp.csr_array]]:
        """Consecutive rows as stored, (B, n_vars), with the number of the first.

        Raises
        ------
        ValueError
            NaN, infinite or negative values: in which cell and column.
        """
        found, species = Fingerprint(self._facts(), self._log), SpeciesCheck(self.match, self.values)
        for start, stored in row_blocks(self.X, ROWS_PER_BLOCK):
            block = self.values.clean(stored)
            self.harmonizer.check(block, self.first + start)
            found.add_rows(block)
            yield start, species.keep(block)
        self._end(found, species)

    def map(self, function: Callable[..., Any], *shared: Any, show: str = "") -> list[Any]:
        """What a function makes of all cells, in consecutive parts: `function(part, *shared)`, with a part of this class.

        There is one part, these cells themselves. Only of a dask array with a client of a cluster there are several: the
        function runs where the chunks are, and all it returns comes back.

        Parameters
        ----------
        function
            Of a module, as workers import it. It reads the whole part once.
        shared
            What it needs; a model is loaded by each worker itself.
        show
            Name of a progress bar over the parts; "" shows none.
        """
        client = client_of(self.X)
        if client is None:
            return [function(self, *shared)]
        shared = tuple(one.for_workers() if hasattr(one, "for_workers") else one for one in shared)
        parts = map_rows(client, self.X, ROWS_PER_BLOCK, _of_part, function, self._part(None, 0), *shared)
        found = {}
        n_parts = len(self.X.chunks[0])
        for start, result in tqdm(parts, total=n_parts, desc=show, unit="part", disable=not show):
            found[start] = result
        ordered = [found[start] for start in sorted(found)]
        total, species = Fingerprint(self._facts()), SpeciesCheck(self.match, self.values)
        for _, condensed, n_foreign in ordered:
            total.add_hashed(condensed)
            species.n_foreign += n_foreign
        self._end(total, species)
        return [result for result, _, _ in ordered]

    def _end(self, found: Fingerprint, species: SpeciesCheck) -> None:
        """After a full pass: its fingerprint, and a word about cells of another species."""
        self._fingerprint = found.hexdigest()
        if species.n_foreign and self.n_foreign is None and not self.is_part:
            warn(species.message(self.where, self.n_obs))
        self.n_foreign = species.n_foreign

    def _part(self, X: Any, first: int) -> Expression:
        """Some consecutive rows of these cells as cells of their own; without rows it can be sent."""
        part = copy(self)
        part.X, part.var, part.first, part._log = X, self.var[:0], first, []
        part._fingerprint, part.n_foreign = None, None
        return part

    def linear(self, block: sp.csr_array) -> sp.csr_array:
        """Rows as `blocks` gives them -> (B, n_genes) linear expression, float32, sorted, without stored zeros."""
        return self.harmonizer.linear(block)

    def counts(self) -> Iterator[tuple[int, sp.csr_array]]:
        """Consecutive rows as linear expression, (B, n_genes); see `linear`."""
        for start, block in self.blocks():
            yield start, self.linear(block)

    def log1p(self, target_sum: float = CP10K) -> Iterator[tuple[int, sp.csr_array]]:
        """Consecutive rows as ln(1 + x) of cells scaled to `target_sum` over the vocabulary genes, (B, n_genes)."""
        for start, block in self.blocks():
            yield start, self.log1p_of(block, target_sum)

    def log1p_of(self, block: sp.csr_array, target_sum: float = CP10K) -> sp.csr_array:
        """Rows as `blocks` gives them, as `log1p` gives them."""
        return log_normalize(self.linear(block), target_sum)

    def tokens(self, config: TokenConfig) -> Iterator[tuple[int, Tokens]]:
        """Consecutive rows as tokens."""
        for start, block in self.blocks():
            yield start, self.tokens_in(block, config)

    def tokens_of(self, rows: np.ndarray, config: TokenConfig) -> Tokens:
        """Some cells as tokens, in the order asked for; read in stored order, as files want it."""
        order = np.argsort(rows, kind="stable")
        return self.tokens_in(self._stored(rows[order]), config)[np.argsort(order, kind="stable")]

    def counts_of(self, rows: np.ndarray) -> sp.csr_array:
        """Some cells, by ascending number, as linear expression, (B, n_genes)."""
        return self.linear(self._stored(rows))

    def _stored(self, rows: np.ndarray) -> sp.csr_array:
        """Some rows as `blocks` gives them, by ascending number."""
        block = self.X[rows]
        block = to_csr(block.compute() if hasattr(block, "compute") else block)  # dask
        block = self.values.clean(block)
        self.harmonizer.check(block, rows)
        return SpeciesCheck(self.match, self.values).keep(block)

    @property
    def fingerprint(self) -> str:
        """Hash of what was read: the matrix's place, shape and every value, the gene names and their column.

        The same for the same values in memory or in a file, sparse or dense, whatever the number type (compared as
        float32). Names of cells are not read and do not count. Known after any full pass over the blocks; else it takes
        one, which costs the reading and a few percent of an embedding.
        """
        if self._fingerprint is None:
            self.map(_read)
        return self._fingerprint

    def record(self) -> dict[str, Any]:
        """What was read, for `uns`: text and numbers only, so that it survives h5ad and zarr."""
        return {
            "matrix": self.where,
            "values": self.values.message,
            "n_genes": self.match.n_genes,
            "gene_coverage": float(self.match.coverage),
            "n_dropped_columns": int((self.match.ids < 0).sum()),
            "n_duplicate_columns": int(self.match.n_duplicates),
            "n_ambiguous_names": len(self.match.ambiguous),
            "fingerprint": self.fingerprint,
            "n_foreign_cells": self.n_foreign,
        }

    def tokens_in(self, block: sp.csr_array, config: TokenConfig) -> Tokens:
        """Rows as `blocks` gives them -> tokens."""
        return as_tokens(self.log1p_of(block, config.target_sum), config)

    def _facts(self) -> Iterator[str]:
        """What makes the same rows mean something else."""
        yield from (self._slot, str(tuple(self.X.shape)), self.match.where, str(self.match.organism))
        yield from (str(name) for name in self.match.names)


def _read(cells: Expression) -> None:
    """A full pass."""
    for _ in cells.blocks():
        pass


def _of_part(
    rows: Any, start: int, function: Callable[..., Any], cells: Expression, *shared: Any
) -> tuple[Any, bytes, int]:
    """On a worker: what a function makes of some rows, what is hashed of them, and how many are of another species."""
    part = cells._part(rows, start)
    result = function(part, *(one.get() if isinstance(one, Weights) else one for one in shared))
    return result, b"".join(part._log or []), part.n_foreign or 0


def judge_values(
    X: Any,
    where: str,
    columns: pd.Index | None = None,
    readable: Callable[[], list[str]] | None = None,
    obs: pd.DataFrame | None = None,
) -> ValueReport:
    """What the values are; those with no linear scale behind them are refused.

    Parameters
    ----------
    X
        Matrix as stored, (n_obs, n_vars).
    where
        What to call it in messages.
    columns
        Names of its columns, for messages.
    readable
        Finds what to type for other matrices that can be read; `None` where nothing is known of others.
    obs
        Table of the cells, for messages.
    """
    values = describe_values(X, obs=obs)
    if not values.usable:
        found = values.message.replace("adata.X", where) if where.startswith("adata.") else values.message
        if values.first_bad is not None and columns is not None:
            found += f" That gene is {columns[values.first_bad[1]]!r}."
        msg = f"`{where}` cannot be read as expression. {found} {'' if values.way_out else _way_out(readable)}".rstrip()
        raise ValueError(msg)
    return values


def _say_if_guessed(values: ValueReport, where: str, dataset: str | None) -> None:
    """Warn where there is no proof of the scale."""
    if values.kind == "non_integer_counts" or not values.is_certain:
        warn(f"{'' if dataset is None else f'Dataset {dataset!r}: '}`{where}`: {values.message}")


@contextmanager
def naming(dataset: str | None) -> Iterator[None]:
    """Put the name of the dataset before refusals; one of several has to be told from the others."""
    try:
        yield
    except (KeyError, OSError, TypeError, ValueError) as error:
        said = str(error.args[0]) if len(error.args) == 1 else str(error)
        prefix = f"Dataset {dataset!r}: "
        if dataset is None or isinstance(error, FileNotFoundError) or said.startswith(prefix):
            raise
        kind = next(kind for kind in (KeyError, OSError, TypeError, ValueError) if isinstance(error, kind))
        msg = f"{prefix}{said}"
        raise kind(msg) from error


def _match(
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    source: ReadOptions,
    raw_var: pd.DataFrame | None,
    obs: pd.DataFrame | None = None,
) -> GeneMatch:
    return match_genes(
        var,
        vocabulary,
        source.gene_key,
        min_overlap=source.min_overlap,
        raw_var=None if source.use_raw else raw_var,
        holder="adata.raw" if source.use_raw else "adata",
        obs_names=None if obs is None else obs.index,
    )


def _readable(adata: AnnData, source: ReadOptions) -> list[str]:
    """What to type for each other matrix that can be read."""
    from ..._checks import layer_names

    others = {f"layer={name!r}": adata.layers[name] for name in layer_names(adata) if name != source.layer}
    if adata.raw is not None and not source.use_raw:
        others["use_raw=True"] = adata.raw.X
    if source.slot != "X":
        others["neither layer= nor use_raw="] = adata.X
    return [typed for typed, X in others.items() if X is not None and describe_values(X).usable]


def _way_out(readable: Callable[[], list[str]] | None) -> str:
    """The next thing to type."""
    if readable is None:
        return ELSEWHERE
    ways = readable()
    if ways:
        return f"Pass {' or '.join(ways)}, whose values can be read."
    return (
        "The object holds no other matrix that can be read: go back to the one with raw counts or log1p values. "
        "scellm.pp.check_input(adata) shows what is where."
    )
