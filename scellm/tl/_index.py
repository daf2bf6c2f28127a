"""index: embedded cells -> a folder in which cells like others are found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from tqdm.auto import tqdm

from .._containers import takes_cells
from .._formats import expand, sample_name
from ..data import ReadOptions
from ..models import CellLM, load
from ._gathering import Gathering

if TYPE_CHECKING:
    import torch


@takes_cells
def index(
    data: AnnData | str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any],
    output: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] | None = None,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    append: bool = False,
    overwrite: bool = False,
    rng: int = 0,
    show_progress: bool = True,
) -> Path:
    """Index cells, so that `tl.search` finds those that are like others among millions.

    All cells are embedded with one model, or taken from `obsm["X_scellm"]` where that is of this model and these values, and
    stored in half precision with faiss :cite:p:`Douze2024`: a folder that is opened from the disk as it is searched.

    Parameters
    ----------
    data
        Cells: an AnnData, a file or output of Cell Ranger, several of them in a list, or by name in a mapping. Names
        become the column `"dataset"`; without names it is the name of the file, or a number. A name that is in the index already
        gets a number behind it, and a warning says so.
    output
        Folder to write.
    columns
        Columns of `obs` to keep, such as cell type, tissue, disease or study. Where one of `data` has no such column, its cells
        have a missing value. With `append` those of the index. Not `"dataset"`, which holds the names of `data`.
    model
        Model for the embedding, as in `tl.embed`; a search must use the same.
    layer, use_raw, gene_key, min_overlap, device
        As in `tl.embed`, for all of `data`.
    append
        Add the cells to the index that is there, whose own cells are not embedded again; its rows keep their numbers.
    overwrite
        Replace an index that is there.
    rng
        Seed of the regions into which more than 20,000 cells are split.
    show_progress
        Show a progress bar over `data`.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        Something is there already.
    FileNotFoundError
        There is no index to append to.
    ImportError
        faiss is missing (extra `search`).
    KeyError
        None of `data` has a column, or a layer is missing.
    TypeError
        A column of numbers; no columns.
    ValueError
        Genes or values that `tl.embed` would refuse; a model that was never saved, or another one than that of the index; other columns
        than those of the index, or `"dataset"` among them.

    Examples
    --------
    >>> cells = scellm.datasets.toy_cells(60, n_vars=1950)
    >>> folder = scellm.tl.index(
    ...     cells, tmp_path / "atlas", columns="cell_type", show_progress=False
    ... )  # doctest: +SKIP
    """
    model = model if isinstance(model, CellLM) else load(model)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    work = Gathering(
        expand(output), model, columns, source, device=device, append=append, overwrite=overwrite
    )
    parts = by_name(data)
    work.check_columns(parts)
    with work:
        for name, part in tqdm(parts.items(), desc="index", unit="dataset", disable=not show_progress):
            work.add(name, part)
        work.write(rng)
    return work.target


def by_name(data: Any) -> dict[str, Any]:
    """The data by name; equal names get a number in front."""
    if isinstance(data, Mapping):
        names, many = [str(name) for name in data], list(data.values())
    else:
        many = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
        names = [
            str(i) if isinstance(part, AnnData) else sample_name(expand(part)) for i, part in enumerate(many)
        ]
    if len(set(names)) < len(names):
        names = [f"{i}-{name}" for i, name in enumerate(names)]
    return dict(zip(names, many, strict=True))
