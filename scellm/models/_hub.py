"""Where a model name comes from: a local folder, the package, or the Hugging Face Hub and its cache."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._calls import note
from .._warn import warn
from ._card import first_paragraph
from ._download import cache_folder, cached_snapshots, download
from ._manifest import CARD, CONFIG, CONTENTS, MANIFEST, PART_FILES, PICKLES, read_config, verify

if TYPE_CHECKING:
    import pandas as pd

    from ._bundle import CellLM

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_REMEDY_LOCAL = (
    "Copy the folder again from where it came from, or save the model again with `scellm.models.save`."
)
_REMEDY_SHIPPED = "Repair the installation with `pip install --force-reinstall --no-deps scellm`."
_COLUMNS = (
    "name",
    "where",
    "revision",
    "size_mb",
    "n_parameters",
    "dim",
    "n_genes",
    "context",
    "description",
)


def load(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None
) -> CellLM:
    """Load a model from a folder, from the package, or from the Hugging Face Hub.

    Every file is compared with the SHA-256 in the manifest before it is read, and nothing is unpickled. Parts
    such as the reference of cell types are read when they are first used.

    Parameters
    ----------
    name_or_path
        Looked up in this order: a model folder; the name of a model that comes with scellm; a Hugging Face
        repository `"organization/name"`. `list_models` shows what is on this machine.
    revision
        Branch, tag or commit of the repository; `None` is its main branch. Only for repositories.
    local_files_only
        `True`: use the copy in the cache and no network. `False`: fail where the Hub cannot be reached.
        `None`: ask the Hub, and fall back to the copy in the cache with a warning. With `HF_HUB_OFFLINE=1`,
        `None` means `True`. `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_CACHE` are followed.

    Returns
    -------
    The model, on the CPU, in float32 and in eval mode.

    Raises
    ------
    TypeError
        Neither text nor a path, such as `None` or an `Encoder`.
    FileNotFoundError
        No such folder, a file of the model is missing, or no copy in the cache with `local_files_only=True`.
    ValueError
        Unknown name or repository; a truncated, altered or newer file; tensors that do not fit; a folder
        with a pickle instead; `revision` for something that is not a repository.
    ConnectionError
        The Hub cannot be reached or broke off, and there is no complete copy in the cache.

    Warns
    -----
    UserWarning
        The Hub cannot be reached and the copy in the cache is used.

    Examples
    --------
    >>> scellm.models.load("scellm-small")  # doctest: +SKIP
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise _no_name(name_or_path)
    if name_or_path == "":  # pathlib would take it for the current folder
        raise _not_found(name_or_path)
    from ._bundle import read_bundle  # here, with torch: `list_models` needs neither

    folder = _local_folder(name_or_path)
    if folder is not None:
        remedy = _REMEDY_SHIPPED if folder.parent == shipped_folder() else _REMEDY_LOCAL
        _check_no_revision(name_or_path, revision)
        is_shipped = folder.parent == shipped_folder()
        source = folder.name if is_shipped else str(folder.resolve())
        return _noted(replace(read_bundle(folder, remedy=remedy), source=source))
    name = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or not _REPOSITORY.fullmatch(name):
        raise _not_found(name_or_path)
    snapshot = download(
        name,
        files=(*CONTENTS, MANIFEST),
        optional=PART_FILES,
        revision=revision,
        local_files_only=local_files_only,
    )
    found = read_bundle(snapshot.folder, remedy=snapshot.remedy, name=name, revision=snapshot.commit)
    return _noted(replace(found, source=name))


def _noted(model: CellLM) -> CellLM:
    """The model, after saying to a log which it is."""
    note(model=model.name, model_sha256=model.sha256)
    return model


def list_models() -> pd.DataFrame:
    """Models on this machine: those that come with scellm and those in the Hugging Face cache.

    Reads configurations and cards only; no encoder is built and no network used.

    Returns
    -------
    One row per model with the columns

    `name`, `where`, `revision`
        What `load` takes; "shipped" or "cached"; the commit of a cached model, "" for shipped ones.
    `size_mb`, `n_parameters`
        Size of the folder in MB (10^6 bytes); number of weights.
    `dim`, `n_genes`, `context`
        Size of the embedding; genes in the vocabulary; most expressed genes of a cell that are read.
    `description`
        From the provenance, or the first paragraph of the card.

    Warns
    -----
    UserWarning
        A damaged model was left out.

    Examples
    --------
    >>> scellm.models.list_models().columns[:2].tolist()  # doctest: +SKIP
    ['name', 'where']
    """
    import pandas as pd

    rows = []
    for name in shipped_names():
        rows.append(_describe(name, "shipped", "", shipped_folder() / name, _REMEDY_SHIPPED))
    for snapshot in cached_snapshots(cache_folder(), (*CONTENTS, MANIFEST)):
        rows.append(
            _describe(snapshot.repository, "cached", snapshot.commit, snapshot.folder, snapshot.remedy)
        )
    return pd.DataFrame([row for row in rows if row is not None], columns=list(_COLUMNS))


def shipped_folder() -> Path:
    """The folder of the models that come with the package."""
    return Path(str(resources.files("scellm.models"))) / "weights"


def shipped_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in shipped_folder().glob(f"*/{MANIFEST}"))


def _local_folder(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The folder a name or path means, or `None` if there is none.

    A folder without any file of a model does not hide the shipped model of its name: people call the
    folder of their results "scellm-small".
    """
    path = Path(name_or_path)
    is_shipped = isinstance(name_or_path, str) and name_or_path in shipped_names()
    if path.is_dir() and not (
        is_shipped and not any((path / name).is_file() for name in (*CONTENTS, MANIFEST))
    ):
        return path
    if path.is_file():
        raise _is_a_file(path)
    return shipped_folder() / path if is_shipped else None


def _check_no_revision(name_or_path: str | os.PathLike[str], revision: str | None) -> None:
    """Folders have no revisions."""
    if revision is not None:
        msg = (
            f"revision={revision!r} was given for {os.fspath(name_or_path)!r}, which is a folder on this machine; "
            "only Hugging Face repositories have revisions. Leave it out."
        )
        raise ValueError(msg)


def _is_a_file(path: Path) -> ValueError:
    """The error for a file where a folder is needed."""
    if path.suffix.lower() in PICKLES:
        way_out = (
            "convert a published CellLM checkpoint once with "
            "`scellm.models.convert_openbiomed(checkpoint, gene_list, out)` and load `out`"
        )
    else:
        way_out = f"pass the folder that holds it, `{path.parent}`"
    return ValueError(f"`{path}` is a file; a model is a folder: {way_out}.")


def _no_name(given: Any) -> TypeError:
    """The error for something that is neither text nor a path."""
    shown = " ".join(repr(given).split())[:60]  # an Encoder shows all its layers
    return TypeError(
        f"A model is given by name or path, found {shown} ({type(given).__name__}). Pass a name from "
        f"`scellm.models.list_models()` ({', '.join(map(repr, shipped_names())) or 'none is shipped'}), the path of "
        "a model folder, or a Hugging Face repository 'organization/name'."
    )


def _not_found(name_or_path: str | os.PathLike[str]) -> Exception:
    """The error for something that is neither a folder nor a known name."""
    name = os.fspath(name_or_path)
    known = shipped_names() + sorted(
        {snapshot.repository for snapshot in cached_snapshots(cache_folder(), (*CONTENTS, MANIFEST))}
    )
    if not isinstance(name_or_path, str) or {"/", "\\", os.sep} & set(name) or name.startswith("~"):
        return FileNotFoundError(f"There is no model folder `{name}` (looked for `{Path(name).absolute()}`).")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(
        f"No model is named {name!r}.{hint} Known on this machine: {', '.join(map(repr, known)) or 'none'}; "
        "a folder or a Hugging Face repository 'organization/name' can be given as well."
    )


def _describe(name: str, where: str, revision: str, folder: Path, remedy: str) -> dict[str, Any] | None:
    """One row of `list_models`; `None`, with a warning, for a damaged model."""
    try:
        verify(folder, (CONFIG, CARD), remedy=remedy, parts=False)
        config = read_config(folder, remedy=remedy)
    except (OSError, ValueError) as error:
        warn(f"{name!r} was left out of the list: {error}")
        return None
    return {
        "name": name,
        "where": where,
        "revision": revision,
        "size_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 2),
        "n_parameters": config["n_parameters"],
        "dim": config["encoder"].get("dim"),
        "n_genes": config["encoder"].get("n_genes"),
        "context": config["tokens"].get("max_genes"),
        "description": config["provenance"].get("description")
        or first_paragraph((folder / CARD).read_text(encoding="utf-8")),
    }
