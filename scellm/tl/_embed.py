"""embed: cells -> obsm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_backed, check_free, check_key, get_matrix
from .._keys import X_SCELLM
from .._version import __version__
from .._warn import warn
from ..data import (
    GeneMatch,
    TokenConfig,
    ValueReport,
    check_finite,
    check_structure,
    check_target,
    describe_values,
    match_genes,
    open_matrix,
    row_blocks,
    tokenize,
    write_results,
)
from ..models import CellLM, load
from ..models._encode import BatchSize, choose_device, choose_precision, encode

if TYPE_CHECKING:
    import torch

ROWS_PER_BLOCK = 4096
"""Cells read and tokenised at once."""
PROGRESS_FROM = 2_000
"""Cells from which a progress bar is shown by default."""


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
    """Embed cells with a pretrained CellLM encoder :cite:p:`Zhao2023`.

    Gives every cell a vector in which cells of similar state lie close together, for neighbours, UMAP,
    clustering and classifiers. The encoder reads each cell's expressed protein-coding genes and nothing else:
    not the other cells, so there is no batch correction and no fitting, and a cell's row is the same in
    whatever company it is embedded.

    Raw counts are best. Each cell is scaled to the model's target sum over the vocabulary genes, then
    log1p-transformed. Normalised values give the same rows: log1p is undone, whatever its target sum, and the
    cell is scaled again. See `pp.check_input` for what would be done with your data.

    Parameters
    ----------
    adata
        Cells, or the path of an `.h5ad` file or `.zarr` folder, whose rows are then streamed.
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
        `model`, `revision`, `sha256` and `scellm_version`; `matrix` and `values` that were read; `n_genes`
        found and their `gene_coverage` of the vocabulary; numbers of columns that are no vocabulary gene
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
    _check_options(on_empty, batch_size, min_overlap)
    is_path = isinstance(adata, str | os.PathLike)
    if is_path and copy:
        msg = "copy=True is for AnnData in memory; for a file pass output= with the path of the copy."
        raise ValueError(msg)
    if output is not None and not is_path:
        msg = "output= is for files; with an AnnData in memory call adata.write_h5ad afterwards."
        raise ValueError(msg)
    if isinstance(adata, AnnData):
        check_backed(adata, copy=copy)
        check_free(adata, key_added, ("obsm", key_added))
    if is_path:
        source = Path(adata).resolve()  # through links: the file itself gets the results
        target = Path(output).resolve() if output is not None else source
        check_target(source, target, shutil.disk_usage)
    embedding, record = embedding_of(
        adata,
        model,
        layer=layer,
        use_raw=use_raw,
        gene_key=gene_key,
        min_overlap=min_overlap,
        on_empty=on_empty,
        batch_size=batch_size,
        device=device,
        precision=precision,
        show_progress=show_progress,
    )
    if is_path:
        write_results(source, target, {"obsm": {key_added: embedding}, "uns": {key_added: record}})
        return None
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = embedding
    adata.uns[key_added] = record
    return adata if copy else None


def embedding_of(
    adata: AnnData | str | os.PathLike[str],
    model: CellLM | str | os.PathLike[str],
    *,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    on_empty: Literal["nan", "raise"] = "nan",
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    show_progress: bool | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The (n_obs, dim) embedding and its record for `uns`, of an object or a file, which are not changed; see `embed`."""
    chosen_device = choose_device(device)
    dtype = choose_precision(precision, chosen_device)
    if not isinstance(model, CellLM):
        model = load(model)
    with _source(adata, layer, use_raw) as (X, var, where, raw_var):
        holder = "adata.raw" if use_raw else "adata"
        match = match_genes(
            var, model.vocabulary, gene_key, min_overlap=min_overlap, raw_var=raw_var, holder=holder
        )
        values = describe_values(X)
        _check_values(values, where, raw_var)
        embedding, n_truncated = _embed_rows(
            X, match, values, model, chosen_device, dtype, batch_size, show_progress
        )
    n_empty = int(np.isnan(embedding).any(axis=1).sum())
    record = _record(model, match, values, where) | {
        "n_truncated_cells": n_truncated,
        "n_empty_cells": n_empty,
        "device": chosen_device.type,
        "precision": "bf16" if "bfloat16" in str(dtype) else "fp32",
    }
    _report(n_empty, n_truncated, on_empty, model.tokens, len(embedding), where)
    return embedding, record


def _check_options(on_empty: str, batch_size: int | str, min_overlap: float) -> None:
    """Refuse options that make no sense before anything is read."""
    if on_empty not in ("nan", "raise"):
        msg = f"on_empty={on_empty!r} is unknown; choose 'nan' or 'raise'."
        raise ValueError(msg)
    is_count = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if batch_size != "auto" and not (is_count and batch_size > 0):
        msg = f"batch_size={batch_size!r} must be 'auto' or a positive whole number of cells."
        raise ValueError(msg)
    if not 0 <= min_overlap <= 1:
        msg = f"min_overlap={min_overlap!r} is a fraction of the vocabulary; it must be between 0 and 1."
        raise ValueError(msg)


@contextmanager
def _source(
    adata: AnnData | str | os.PathLike[str], layer: str | None, use_raw: bool | None
) -> Iterator[tuple[Any, pd.DataFrame, str, pd.DataFrame | None]]:
    """The matrix, its columns, what to call it, and the columns of `raw`; of an object or an open file."""
    if isinstance(adata, str | os.PathLike):
        with open_matrix(Path(adata), layer, use_raw) as file:
            yield file.X, file.var, file.where, file.raw_var
        return
    X, var, where = get_matrix(adata, layer, use_raw)
    check_structure(X, adata.n_obs, len(var), where)
    yield X, var, where, None if adata.raw is None else adata.raw.var


def _check_values(values: ValueReport, where: str, raw_var: pd.DataFrame | None) -> None:
    """Refuse values that have no linear scale behind them; warn where it had to be guessed."""
    if not values.usable:
        raw = "use_raw=True, or " if raw_var is not None and "raw" not in where else ""
        msg = (
            f"`{where}` cannot be embedded. {values.message} Pass raw counts or log1p values: {raw}"
            "layer= with the name of a layer that holds them. scellm.pp.check_input(adata) shows what is where."
        )
        raise ValueError(msg)
    if values.kind == "non_integer_counts" or not values.is_certain:
        warn(f"`{where}`: {values.message}")


def _embed_rows(
    X: Any,
    match: GeneMatch,
    values: ValueReport,
    model: CellLM,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int | Literal["auto"],
    show_progress: bool | None,
) -> tuple[np.ndarray, int]:
    """Embeddings of all rows of a matrix, (n_obs, dim), and the number of truncated cells."""
    n_obs = X.shape[0]
    result = np.empty((n_obs, model.config.dim), dtype=np.float32)
    n_truncated = 0
    show = n_obs >= PROGRESS_FROM if show_progress is None else show_progress
    home, was_training = model.encoder.norm.weight.device, model.encoder.training
    model.encoder.to(device).eval()
    batches = BatchSize(batch_size)
    try:
        with tqdm(total=n_obs, desc="embed", unit="cell", disable=not show) as progress:
            for start, block in row_blocks(X, ROWS_PER_BLOCK):
                check_finite(block, start)
                tokens = tokenize(
                    block,
                    match.ids,
                    len(model.vocabulary),
                    model.tokens,
                    linearize=values.linearize,
                )
                n_truncated += tokens.n_truncated
                result[start : start + len(tokens)] = encode(
                    model, tokens, device=device, dtype=dtype, batches=batches, on_batch=progress.update
                )
                progress.update(int((tokens.lengths == 0).sum()))
    finally:
        model.encoder.to(home).train(was_training)
    batches.report(device)
    return result, n_truncated


def _record(model: CellLM, match: GeneMatch, values: ValueReport, where: str) -> dict[str, Any]:
    """What goes to `uns`: text and numbers only, so that it survives h5ad and zarr."""
    return {
        "model": model.name,
        "revision": model.revision or "",
        "sha256": model.sha256,
        "scellm_version": __version__,
        "matrix": where,
        "values": values.message,
        "n_genes": match.n_genes,
        "gene_coverage": float(match.coverage),
        "n_dropped_columns": int((match.ids < 0).sum()),
        "n_duplicate_columns": int(match.n_duplicates),
        "n_ambiguous_names": len(match.ambiguous),
    }


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
