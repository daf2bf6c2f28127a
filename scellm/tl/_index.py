"""index: embedded cells -> a folder in which cells like others are found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .._containers import cells_of, opened, takes_cells
from .._formats import expand
from .._obs import read_text
from ..atlas import AtlasIndex, build_index, open_index
from ..data import ReadOptions
from ..models import CellLM, load
from ._embed import EncodeOptions
from ._vectors import cell_vectors

if TYPE_CHECKING:
    import torch

DATASET = "dataset"
"""Column with the names of the data."""
MOST_CATEGORIES = 10_000
"""Different values of a column beyond which it is no label."""


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
        become the column `"dataset"`; without names it is the name of the file, or a number.
    output
        Folder to write.
    columns
        Columns of `obs` to keep, such as cell type, tissue, disease or study. Where one of `data` has no such column, its cells
        have a missing value. With `append` those of the index.
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
        than those of the index.

    Examples
    --------
    >>> cells = scellm.datasets.toy_cells(60, n_vars=1950)
    >>> folder = scellm.tl.index(
    ...     cells, tmp_path / "atlas", columns="cell_type", show_progress=False
    ... )  # doctest: +SKIP
    """
    target = expand(output)
    model = model if isinstance(model, CellLM) else load(model)
    if not model.sha256:
        msg = "The model was never saved, so a search could not tell it from others. Save it with scellm.models.save and load it."
        raise ValueError(msg)
    old = _old(target, model, columns) if append else None
    if old is None:
        _check_target(target, overwrite=overwrite)
    names = _names(columns, old)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    vectors: list[np.ndarray] = []
    tables: list[pd.DataFrame] = []
    parts = _parts(data)
    for name, part in tqdm(parts.items(), desc="index", unit="dataset", disable=not show_progress):
        part = cells_of(part)
        with nullcontext(part) if isinstance(part, AnnData) else opened(part) as adata:
            found, _ = cell_vectors(adata, model, source, EncodeOptions(device=device, show_progress=False))
            vectors.append(found.astype(np.float16))
            tables.append(_table(adata, names, name))
    if old is not None:
        vectors.insert(0, old.stored())
        tables.insert(0, pd.DataFrame({name: old.column(name).astype(object) for name in old.columns}))
    table = pd.concat(tables, ignore_index=True)
    for column in names:
        if table[column].isna().all():
            msg = f"None of the data has values in obs[{column!r}]. Its columns: {sorted(map(str, adata.obs.columns))}."
            raise KeyError(msg)
    about = {"model": model.name, "revision": model.revision or "", "sha256": model.sha256}
    build_index(vectors, {name: table[name] for name in table}, target, about=about, rng=rng)
    return target


def _names(columns: str | Sequence[str] | None, old: AtlasIndex | None) -> list[str]:
    """Columns to keep, without that of the datasets."""
    if old is not None:
        return [name for name in old.columns if name != DATASET]
    if columns is None or not len(columns):
        msg = "columns= is needed: columns of obs to keep with the cells, for instance columns=['cell_type', 'tissue']."
        raise TypeError(msg)
    return [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))


def _old(target: Path, model: CellLM, columns: str | Sequence[str] | None) -> AtlasIndex:
    """The index to append to."""
    old = open_index(target)
    if old.manifest["sha256"] != model.sha256:
        msg = (
            f"The index {target} was made with {old.manifest.get('model')!r} (sha256 {old.manifest['sha256'][:8]}), this is "
            f"{model.name!r} (sha256 {model.sha256[:8]}). Pass the same model=, or build another index."
        )
        raise ValueError(msg)
    wanted = set() if columns is None else {columns} if isinstance(columns, str) else set(columns)
    if wanted - set(old.columns):
        msg = f"The index {target} has the columns {old.columns}; {sorted(wanted - set(old.columns))} cannot be added."
        raise ValueError(msg)
    return old


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but an index, and that only if asked to."""
    if not target.exists():
        return
    is_index = (target / "manifest.json").is_file() and (target / "vectors.faiss").is_file()
    if not is_index:
        msg = f"{target} is there already and is not an index. Choose another name."
        raise FileExistsError(msg)
    if not overwrite:
        msg = f"There is an index in {target} already. Pass append=True to add to it, or overwrite=True to replace it."
        raise FileExistsError(msg)


def _parts(data: Any) -> dict[str, Any]:
    """The data by name."""
    if isinstance(data, Mapping):
        return {str(name): part for name, part in data.items()}
    many = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    names = [str(i) if isinstance(part, AnnData) else expand(part).stem for i, part in enumerate(many)]
    if len(set(names)) < len(names):
        names = [f"{i}-{name}" for i, name in enumerate(names)]
    return dict(zip(names, many, strict=True))


def _table(adata: AnnData, names: list[str], dataset: str) -> pd.DataFrame:
    """The columns of one dataset as text, with its name."""
    columns: dict[str, Any] = {}
    for name in names:
        values = read_text(adata, name) if name in adata.obs else np.full(adata.n_obs, "", dtype=object)
        if len(set(values)) > MOST_CATEGORIES:
            msg = f"obs[{name!r}] has {len(set(values)):,} different values: names of cells, not labels. Leave it out of columns."
            raise TypeError(msg)
        columns[name] = np.where(values == "", None, values)
    return pd.DataFrame({**columns, DATASET: [dataset] * adata.n_obs})
