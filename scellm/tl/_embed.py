"""embed: cells -> obsm."""

from __future__ import annotations

import dataclasses
import os
import shutil
from copy import deepcopy as copy_of
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from tqdm.auto import tqdm

from .._calls import current_call
from .._checks import check_backed, check_choice, check_free, check_key
from .._containers import takes_cells
from .._keys import X_SCELLM
from .._room import let_go, make_room
from .._version import __version__
from .._warn import warn
from ..data import Expression, ReadOptions, TokenConfig, as_tokens, check_target, write_results
from ..data.cells._expression import CP10K
from ..data.cells._fingerprint import fingerprint_of
from ..models import CellLM, load
from ..models._encode import BatchSize, choose_device, choose_precision, encode

if TYPE_CHECKING:
    import torch

PROGRESS_FROM = 2_000
"""Cells from which a progress bar is shown by default."""


@takes_cells
def embed(
    adata: AnnData | str | os.PathLike[str],
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    *,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    on_empty: Literal["nan", "raise"] = "nan",
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    key_added: str = X_SCELLM,
    show_progress: bool | None = None,
    output: str | os.PathLike[str] | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Embed cells with a pretrained encoder :cite:p:`Zhao2023`.

    The default encoder is a bag of genes, not the published transformer. It gives every cell a vector in which cells of
    similar state lie close together, for neighbors, UMAP, clustering and classifiers. The encoder reads each cell's
    expressed protein-coding genes and nothing else: not the other cells, so there is no batch correction and no fitting,
    and a cell's row is the same in whatever company it is embedded.

    Raw counts are best. Each cell is scaled to the model's target sum over the vocabulary genes, then
    log1p-transformed. Normalized values give the same rows: log1p is undone, whatever its target sum, and the
    cell is scaled again. See `pp.check_input` for what would be done with your data.

    Parameters
    ----------
    adata
        Cells, or the path of an `.h5ad` file or `.zarr` folder, whose rows are then streamed. Of a dask array the chunks are
        embedded where they are, if there is a client of a cluster (`dask.distributed`).
    model
        Name of a model in `models.list_models()`, a model folder, a Hugging Face repository, or a loaded model.
    layer
        Layer with expression; `None` reads `adata.X`.
    use_raw
        Read `adata.raw.X`; `None` is `False`.
    gene_key
        Column of `var` with gene symbols or Ensembl ids; `None` takes `var_names`, or if fewer than half of them
        are known genes, the column that names more.
    min_overlap
        Fraction of the model's genes the data must hold. With less, the embedding means little.
    on_empty
        What to do with cells that express no vocabulary gene: `"nan"` gives them a row of NaN and warns,
        `"raise"` refuses.
    batch_size
        Cells encoded at once; `"auto"` fits as many as a budget of gene positions holds. Changes memory and
        speed; the result only by rounding.
    device
        `"auto"` takes CUDA, then MPS, then the CPU.
    precision
        `"fp32"` or `"bf16"`; `"auto"` is bf16 on a GPU that has it, fp32 elsewhere.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 2,000 cells.
    output
        For a path: the file to write, a copy of the input with the results; `None` adds them to the input.
    copy
        Return a copy with the results instead of changing `adata`. Not for paths.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.obsm[key_added]` : array of shape (n_obs, dim), float32
        Row i is cell i.
    `adata.uns[key_added]` : dict
        `model`, `revision`, `sha256`, `scellm_version` and the `call` as it was typed; `matrix` and `values` that were read, a `fingerprint` of
        them and one of the embedding, by which later steps know whether it is still of these cells; `n_genes` found and their `gene_coverage` of the vocabulary; numbers of columns that are no vocabulary gene
        (`n_dropped_columns`), that were summed (`n_duplicate_columns`), and of names left out as ambiguous
        (`n_ambiguous_names`); numbers of `n_truncated_cells` and `n_empty_cells`; `device` and `precision`.

    Raises
    ------
    KeyError
        `layer` is not in `adata.layers`, or `gene_key` not in `var`.
    TypeError
        `adata` is neither AnnData nor a path, gene names are not text.
    ValueError
        Too few vocabulary genes; values that are scaled, negative or not finite; no cells; an unknown model,
        device or precision; empty cells with `on_empty="raise"`; a key that files cannot hold, or that holds
        something else; a copy or view of a backed AnnData; a file of an old anndata.
    FileNotFoundError
        No file at the path, or no folder for `output`.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(24, n_vars=1950)
    >>> scellm.tl.embed(adata)
    >>> adata.obsm["X_scellm"].shape[0] == adata.n_obs
    True
    """
    check_key(key_added)
    options = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    encoding = EncodeOptions(
        on_empty=on_empty,
        batch_size=batch_size,
        device=device,
        precision=precision,
        show_progress=show_progress,
    )
    is_path = isinstance(adata, str | os.PathLike)
    if is_path and copy:
        msg = "copy=True is for AnnData in memory; for a file pass output= with the path of the copy."
        raise ValueError(msg)
    if output is not None and not is_path:
        msg = "output= is for files; with an AnnData in memory call adata.write_h5ad afterwards."
        raise ValueError(msg)
    if not is_path:
        check_choice(adata, layer, use_raw)
        check_backed(adata, copy=copy)
        check_free(adata, key_added, ("obsm", key_added))
    if is_path:
        source = Path(adata).expanduser().resolve()  # through links: the file itself gets the results
        target = Path(output).expanduser().resolve() if output is not None else source
        check_target(source, target, shutil.disk_usage)
    model = model if isinstance(model, CellLM) else load(model)
    with Expression.open(source if is_path else adata, model.vocabulary, options) as cells:
        found, record = embed_cells(cells, model, encoding)
    if is_path:
        write_results(source, target, {"obsm": {key_added: found.embedding}, "uns": {key_added: record}})
        return None
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = found.embedding
    adata.uns[key_added] = record
    return adata if copy else None


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How cells are encoded; as in `tl.embed`. Checked when made, before anything is read."""

    on_empty: Literal["nan", "raise"] = "nan"
    batch_size: int | Literal["auto"] = "auto"
    device: torch.device | str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    show_progress: bool | None = None

    def __post_init__(self) -> None:
        if self.on_empty not in ("nan", "raise"):
            msg = f"on_empty={self.on_empty!r} is unknown; choose 'nan' or 'raise'."
            raise ValueError(msg)
        size = self.batch_size
        is_count = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if size != "auto" and not (is_count and size > 0):
            msg = f"batch_size={size!r} must be 'auto' or a positive whole number of cells."
            raise ValueError(msg)


class Beside(Protocol):
    """What else is made of the rows while they are read, (n_obs, n_columns) numbers."""

    @property
    def n_columns(self) -> int:
        """How many numbers a cell has."""

    def of(self, cells: Expression, logged: sp.csr_array) -> np.ndarray:
        """(B, n_columns) of rows as `cells.log1p` gives them."""


def embed_cells(
    cells: Expression, model: CellLM, encoding: EncodeOptions, beside: Beside | None = None
) -> tuple[Embedded, dict[str, Any]]:
    """Open cells embedded, with what is made beside that, and the record for `uns`, from one pass over the rows."""
    show = cells.n_obs >= PROGRESS_FROM if encoding.show_progress is None else encoding.show_progress
    encoding = dataclasses.replace(encoding, show_progress=show)
    parts = cells.map(_embed_rows, model, encoding, beside, show="embed" if show else "")
    embedding = join([part.embedding for part in parts])
    n_truncated = sum(part.n_truncated for part in parts)
    n_empty = sum(part.n_empty for part in parts) - (cells.n_foreign or 0)
    record = {
        "model": model.name,
        "revision": model.revision or "",
        "sha256": model.sha256,
        "scellm_version": __version__,
        "call": current_call(),
        **cells.record(),
        "embedding_fingerprint": fingerprint_of(embedding),
        "n_truncated_cells": n_truncated,
        "n_empty_cells": n_empty,
        "device": parts[0].device,
        "precision": parts[0].precision,
    }
    _report(n_empty, n_truncated, encoding.on_empty, model.tokens, len(embedding), cells.where)
    found = dataclasses.replace(
        parts[0],
        embedding=embedding,
        beside=None if beside is None else join([part.beside for part in parts if part.beside is not None]),
    )
    return found, record


def join(parts: list[np.ndarray]) -> np.ndarray:
    """Consecutive rows; those of one part as they are, as they may be in a temporary file."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_eval(model: CellLM, device: torch.device, *, own: bool = False) -> CellLM:
    """The model on a device and in eval mode: itself if it is, else a copy, as other threads may be using it.

    `own` asks for a copy in any case, whose parameters the caller may change.
    """
    encoder = model.encoder
    is_there = all(
        x.device.type == device.type and device.index in (None, x.device.index)
        for x in (*encoder.parameters(), *encoder.buffers())
    )
    if not own and is_there and not any(module.training for module in encoder.modules()):
        return model
    return dataclasses.replace(model, encoder=copy_of(encoder).to(device).eval())


@dataclass(frozen=True)
class Embedded:
    """What the encoder made of some consecutive cells."""

    embedding: np.ndarray
    """(n, dim)."""
    n_truncated: int
    n_empty: int
    device: str
    precision: str
    beside: np.ndarray | None = None
    """(n, n_columns), if asked for."""


def _embed_rows(cells: Expression, model: CellLM, encoding: EncodeOptions, beside: Beside | None) -> Embedded:
    """Embed all cells, or a part of them where they are."""
    device = choose_device(encoding.device)
    dtype = choose_precision(encoding.precision, device)
    model = in_eval(model, device)
    result = make_room((cells.n_obs, model.config.dim), np.float32, on_disk=cells.is_on_disk)
    more = None
    if beside is not None:
        more = make_room((cells.n_obs, beside.n_columns), np.float32, on_disk=cells.is_on_disk)
    n_truncated, n_empty = 0, 0
    batches = BatchSize(encoding.batch_size)
    show = bool(encoding.show_progress) and not cells.is_part
    with tqdm(total=cells.n_obs, desc="embed", unit="cell", disable=not show) as progress:
        for start, block in cells.blocks():
            logged = cells.log1p_of(block, model.tokens.target_sum)
            tokens = as_tokens(logged, model.tokens)
            if beside is not None and more is not None:
                if model.tokens.target_sum != CP10K:
                    logged = cells.log1p_of(block)
                more[start : start + len(tokens)] = beside.of(cells, logged)
                let_go(more)
            n_truncated += tokens.n_truncated
            result[start : start + len(tokens)] = encode(
                model, tokens, device=device, dtype=dtype, batches=batches, on_batch=progress.update
            )
            let_go(result)
            n_empty += (none := int((tokens.lengths == 0).sum()))
            progress.update(none)
    batches.report(device)
    name = "bf16" if "bfloat16" in str(dtype) else "fp32"
    return Embedded(result, n_truncated, n_empty, device.type, name, more)


def _report(
    n_empty: int, n_truncated: int, on_empty: str, tokens: TokenConfig, n_obs: int, where: str
) -> None:
    """Say which cells were not embedded in full."""
    if n_empty:
        msg = f"{n_empty} of {n_obs} cells in `{where}` express no vocabulary gene"
        if on_empty == "raise":
            msg += "; filter them with sc.pp.filter_cells(adata, min_genes=1), or pass on_empty='nan'."
            raise ValueError(msg)
        warn(f"{msg}; their rows are NaN. sc.pp.filter_cells(adata, min_genes=1) removes them.")
    if n_truncated:
        read = "most expressed" if tokens.truncation == "highest" else "first in the order of the vocabulary"
        warn(
            f"{n_truncated} of {n_obs} cells express more than {tokens.max_genes} genes; of each, the {tokens.max_genes} "
            f"{read} were read."
        )
