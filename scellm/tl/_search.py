"""search: cells and an index -> the cells of the index that are like them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_anndata, check_backed, check_free, check_key
from .._containers import takes_cells
from .._formats import expand
from .._keys import SEARCH
from .._records import SearchRecord
from .._room import row_slices
from .._warn import warn
from ..atlas import AtlasIndex, open_index, vote
from ..data import ReadOptions
from ..models import CellLM, load
from ._embed import PROGRESS_FROM, EncodeOptions
from ._vectors import vectors_and_marks

if TYPE_CHECKING:
    import torch

SHIPPED = Path(__file__).parents[1] / "atlas" / "scellm-corpus"
"""The index that comes with scellm; `tests/benchmarks/exemplar_index.py` makes it."""
FAR, MANY_FAR = 0.99, 0.5
"""Cells farther than this share of the index's own are unlike it; the share of such cells that is worth a word (ours)."""


@takes_cells
def search(
    adata: AnnData,
    index: str | os.PathLike[str] = "scellm-corpus",
    *,
    k: int = 15,
    columns: str | Sequence[str] | None = None,
    model: CellLM | str | os.PathLike[str] | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    exclude_self: bool = True,
    key_added: str = SEARCH,
    copy: bool = False,
    show_progress: bool | None = None,
) -> AnnData | None:
    """Find for each cell the cells of an index that are most like it.

    Cells are compared by the cosine of their embeddings. More than 20,000 indexed cells are split into regions of which only the
    nearest are searched: as many as find 97 % of the true neighbors of a sample of the index's own cells.

    Parameters
    ----------
    adata
        Cells. `obsm["X_scellm"]` is used if it is of the index's model and of these values, else they are embedded.
    index
        Folder that `tl.index` wrote; `"scellm-corpus"` comes with scellm: exemplars of the corpus behind
        `scellm-small` and its reference of types, with their type, tissue, disease, study and paper.
    k
        Neighbors of each cell.
    columns
        Columns of the index to vote on; `None` takes all.
    model
        Model of the index; `None` loads the one whose name the index has.
    layer, use_raw, gene_key, min_overlap, device
        As in `tl.embed`.
    exclude_self
        Do not count a cell of the index as a neighbor of itself. It is the same cell if it expresses exactly the same genes of the
        model's vocabulary, whatever the scale of the values and the names. Cells with fewer than 20 of them or with nearly all (imputed
        and denoised data), cells that express the same genes as more than 20 others, and cells of which genes have been removed are not
        recognized. How many cells are in the index is said in a warning.
    key_added
        Key of the results.
    copy
        Return a copy with the results instead of changing `adata`.
    show_progress
        Show progress bars; `None` shows them from 2,000 cells on.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.obs[f"{key_added}_{columns}"]` : categorical
        For each of the columns the most frequent value among the neighbors, of equally frequent ones that of the nearest.
    `adata.obs[f"{key_added}_{columns}_share"]` : float32
        Share of the neighbors with it. Not calibrated.
    `adata.obs[f"{key_added}_distance"]` : float32
        Mean distance (1 - cosine) of the neighbors.
    `adata.obs[f"{key_added}_unusual"]` : float32
        Share of the index's own cells whose 15th neighbor is nearer: above 0.99 nothing like this cell is in the index.
    `adata.obs[f"{key_added}_in_index"]` : bool
        Whether the very cell is in the index.
    `adata.obsm[f"{key_added}_neighbors"]` : array of shape (n_obs, k), int64
        Rows of the index, nearest first; -1 for cells without genes, and where there is no other cell.
    `adata.obsm[f"{key_added}_distances"]` : array of shape (n_obs, k), float32
        Their distances.
    `adata.uns[key_added]` : dict
        `index`, `model`, `sha256`, `k`, `columns`, `n_indexed`, `n_in_index`, `message`, `call`.

    Raises
    ------
    FileNotFoundError
        There is no index.
    ImportError
        faiss is missing (extra `search`).
    KeyError
        The index has no such column.
    ValueError
        A damaged index, another model than the index was made with, or fewer indexed cells than `k`.

    Examples
    --------
    >>> scellm.tl.search(adata)  # doctest: +SKIP
    >>> scellm.tl.search(adata, "my-atlas")  # doctest: +SKIP
    >>> scellm.get.search(adata, groupby="leiden")  # doctest: +SKIP
    """
    check_key(key_added)
    check_anndata(adata)
    check_backed(adata, copy=copy)
    check_free(adata, key_added, ("obsm", f"{key_added}_neighbors"), of="tl.search", field="n_indexed")
    opened = open_index(_folder_of(index))
    names = opened.columns if columns is None else [columns] if isinstance(columns, str) else list(columns)
    labels = {name: opened.column(name) for name in names}
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= opened.n_cells:
        msg = f"k is {k!r}; it must be a whole number from 1 to the {opened.n_cells:,} cells of the index."
        raise ValueError(msg)
    model = _model_of(opened, model)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    encoding = EncodeOptions(device=device, show_progress=show_progress)
    vectors, marks, _ = vectors_and_marks(adata, model, source, encoding)
    marks = opened.telling(marks)
    is_there = (marks != 0) & np.isin(marks, opened.marks)
    show = len(marks) >= PROGRESS_FROM if show_progress is None else show_progress
    rows, distances = _neighbors(opened, vectors, marks if exclude_self else None, int(k), show=show)
    adata = adata.copy() if copy else adata
    for name, values in labels.items():
        result = vote(rows, values)
        adata.obs[f"{key_added}_{name}"] = result.label.remove_unused_categories()
        adata.obs[f"{key_added}_{name}_share"] = result.share
    unusual = opened.unusual(distances)
    n_found = (rows >= 0).sum(axis=1)
    total = np.nansum(distances, axis=1, dtype=np.float64)
    adata.obs[f"{key_added}_distance"] = np.where(n_found > 0, total / np.maximum(n_found, 1), np.nan).astype(
        np.float32
    )
    adata.obs[f"{key_added}_unusual"] = unusual
    adata.obs[f"{key_added}_in_index"] = is_there
    adata.obsm[f"{key_added}_neighbors"], adata.obsm[f"{key_added}_distances"] = rows, distances
    far = float(np.mean(unusual > FAR))
    message = f"{adata.n_obs:,} cells among {opened.n_cells:,}: {far:.0%} are unlike all of them"
    adata.uns[key_added] = SearchRecord(
        index=str(opened.folder),
        model=str(opened.manifest.get("model", "")),
        sha256=opened.manifest["sha256"],
        k=int(k),
        columns=names,
        n_indexed=opened.n_cells,
        n_in_index=int(is_there.sum()),
        message=message,
    ).to_uns()
    _say_if_known(int(is_there.sum()), adata.n_obs, exclude_self=exclude_self)
    if far > MANY_FAR:
        warn(f"{message}. Their neighbors say little: index cells of the same tissue and kind of sample.")
    return adata if copy else None


def _neighbors(
    index: AtlasIndex, vectors: np.ndarray, marks: np.ndarray | None, k: int, *, show: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances (n, k), some thousand cells at a time; with marks, cells of the same mark are no neighbors."""
    rows = np.empty((len(vectors), k), np.int64)
    distances = np.empty((len(vectors), k), np.float32)
    with tqdm(total=len(vectors), desc="search", unit="cell", disable=not show) as progress:
        for some in row_slices(len(vectors), vectors):
            part = vectors[some]
            found = index.search(part, k) if marks is None else index.search_others(part, marks[some], k)
            rows[some], distances[some] = found
            progress.update(len(part))
    return rows, distances


def _say_if_known(n_known: int, n: int, *, exclude_self: bool) -> None:
    """That cells are in the index themselves: a score of their votes would say nothing about new cells."""
    if not n_known:
        return
    how = (
        "None counts as a neighbor of itself, but cells of its own study do"
        if exclude_self
        else "Each is its own nearest neighbor; exclude_self=True leaves it out"
    )
    warn(
        f"{n_known:,} of {n:,} cells are in the index themselves, marked in obs by the column that ends in '_in_index'. {how}: "
        "what their neighbors say is no test of new cells."
    )


def _folder_of(index: str | os.PathLike[str]) -> Path:
    """The folder that is meant: one that is there, or the one that comes with scellm."""
    folder = expand(index)
    return SHIPPED if str(index) == SHIPPED.name and not folder.exists() else folder


def _model_of(index: AtlasIndex, model: CellLM | str | os.PathLike[str] | None) -> CellLM:
    """The model the index was made with."""
    name = index.manifest.get("model", "")
    found = model if isinstance(model, CellLM) else load(model or name)
    if found.sha256 != index.manifest["sha256"]:
        msg = (
            f"The index {index.folder} was made with {name!r} (sha256 {index.manifest['sha256'][:8]}), and this is "
            f"{found.name!r} (sha256 {found.sha256[:8] or 'none: not saved'}). Pass the same model=, or build the index again."
        )
        raise ValueError(msg)
    return found
