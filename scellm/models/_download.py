"""Get the files of a model from the Hugging Face Hub, or from its cache on this machine."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from .._warn import warn
from ._manifest import CONVERT, MANIFEST, PICKLES, WEIGHTS, listed_files

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """Files of one repository at one commit, in the cache."""

    repository: str
    commit: str
    folder: Path

    @property
    def remedy(self) -> str:
        """What to do when the files turn out to be damaged."""
        stored = self.folder.parent.parent
        return (
            f"Delete `{stored}` and load {self.repository!r} again; if the error comes back, the repository itself is "
            "damaged: tell its owner, or pass an earlier `revision=`."
        )


def cache_folder() -> Path:
    """The cache of the Hub. `HF_HUB_CACHE` and `HF_HOME` are read now, not when huggingface_hub was imported."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expandvars(folder)).expanduser()
    if folder := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(folder)).expanduser() / "hub"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_snapshots(cache: Path, files: tuple[str, ...]) -> list[Snapshot]:
    """Repositories in the cache with all of `files`, by name and commit."""
    found = []
    for manifest in sorted(cache.glob(f"models--*--*/snapshots/*/{MANIFEST}")):
        folder = manifest.parent
        if all((folder / name).is_file() for name in files):
            repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
            found.append(Snapshot(repository, folder.name, folder))
    return found


def download(
    repository: str,
    *,
    files: tuple[str, ...],
    optional: tuple[str, ...] = (),
    revision: str | None,
    local_files_only: bool | None,
) -> Snapshot:
    """Bring the files of a repository into the cache, or find them there.

    Parameters
    ----------
    repository
        "organization/name".
    files
        Files the repository must have.
    optional
        Files taken where it has them; no others are.
    revision, local_files_only
        As in `scellm.models.load`.
    """
    if local_files_only is None and _is_offline():
        local_files_only = True
    if local_files_only or (revision is not None and _COMMIT.fullmatch(revision)):
        cached = _cached(repository, files, revision)
        if cached is not None:
            return cached  # a commit never changes, so there is nothing to ask
        if local_files_only:
            raise _not_cached(repository, revision)
    try:
        _check_repository(repository, files, revision)
    except _unreachable() as error:
        cached = None if local_files_only is False else _cached(repository, files, revision)
        if cached is None:
            raise _no_connection(repository, error, asked=local_files_only is None) from error
        msg = (
            f"{_endpoint()} cannot be reached ({_reason(error)}); {repository!r} comes from the "
            f"cache, commit {cached.commit}, which may not be the newest. Pass `local_files_only=True` to "
            "use the cache without asking."
        )
        warn(msg)
        return cached
    return _fetch(repository, (*files, *optional), revision)


def _check_repository(repository: str, files: tuple[str, ...], revision: str | None) -> None:
    """Ask the Hub whether the repository is there, open to us, and a model of scellm."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = _endpoint()
    refusals = {  # the first is a case of the second
        GatedRepoError: f"{repository!r} is restricted. Accept its conditions on {hub}/{repository} and log in with "
        "`hf auth login`.",
        RepositoryNotFoundError: f"No model {repository!r}: there is no folder of that name here and no repository on "
        f"{hub} that you may read. Check the spelling; for a private one log in with `hf auth login`.",
        RevisionNotFoundError: f"The repository {repository!r} has no revision {revision!r}; see "
        f"{hub}/{repository}/commits/main.",
        HFValidationError: f"No model {repository!r}: no folder of that name, and not a repository name (%s).",
    }
    try:
        info = HfApi(endpoint=hub).model_info(
            repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except tuple(refusals) as error:
        msg = next(text for kind, text in refusals.items() if isinstance(error, kind))
        raise ValueError(msg.replace("%s", str(error))) from error
    _check_contents(repository, files, [sibling.rfilename for sibling in info.siblings or []])


def _check_contents(repository: str, files: tuple[str, ...], present: list[str]) -> None:
    """Refuse repositories that are not models of scellm before anything is downloaded."""
    missing = [name for name in files if name not in present]
    if not missing:
        return
    msg = (
        f"The repository {repository!r} is not a scellm model: {', '.join(map(repr, missing))} missing; it holds "
        f"{', '.join(map(repr, present[:10])) or 'nothing'}."
    )
    if WEIGHTS in missing and any(Path(name).suffix.lower() in PICKLES for name in present):
        msg += f" {CONVERT}"
    raise ValueError(msg)


def _fetch(repository: str, files: tuple[str, ...], revision: str | None) -> Snapshot:
    """Download what the cache lacks."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(files),
            cache_dir=cache_folder(),
            endpoint=_endpoint(),
        )
    except _unreachable() as error:
        msg = (
            f"The download of {repository!r} from {_endpoint()} broke off ({_reason(error)}). "
            "Nothing was loaded; call again, complete files are not downloaded twice."
        )
        raise ConnectionError(msg) from error
    return Snapshot(repository, Path(folder).name, Path(folder))


def _cached(repository: str, files: tuple[str, ...], revision: str | None) -> Snapshot | None:
    """The complete copy of a revision in the cache, if there is one."""
    stored = cache_folder() / f"models--{repository.replace('/', '--')}"
    commit = revision or "main"
    reference = stored / "refs" / commit
    if not _COMMIT.fullmatch(commit):
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    folder = stored / "snapshots" / commit
    if not commit or not all((folder / name).is_file() for name in (*files, *listed_files(folder))):
        return None
    return Snapshot(repository, commit, folder)


def _endpoint() -> str:
    """Address of the Hub. `HF_ENDPOINT` is read now, not when huggingface_hub was imported."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _is_offline() -> bool:
    """Whether the user switched the network off with `HF_HUB_OFFLINE`."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {
        "1",
        "ON",
        "YES",
        "TRUE",
    }


def _unreachable() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when the network or the server fails.

    Its own errors and those of requests (versions before 1) are OSErrors; those of httpx (1) and
    httpx2 (2) have their own root. What is not JSON came from a proxy or a login page.
    """
    errors: list[type[Exception]] = [OSError, json.JSONDecodeError]
    errors += [sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(errors)


def _reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _not_cached(repository: str, revision: str | None) -> FileNotFoundError:
    """The error for a model that must come from the cache and is not there."""
    which = repr(repository) + (f" at revision {revision!r}" if revision else "")
    return FileNotFoundError(
        f"No folder {repository!r} here, and no complete copy of the repository {which} in `{cache_folder()}`. Load it once with a connection, without "
        "`local_files_only=True` and without HF_HUB_OFFLINE."
    )


def _no_connection(repository: str, error: Exception, *, asked: bool) -> ConnectionError:
    """The error for a model that cannot be downloaded now."""
    lacking = f", and `{cache_folder()}` holds no complete copy of {repository!r}" if asked else ""
    return ConnectionError(
        f"There is no folder {repository!r} here. {_endpoint()} cannot be reached ({_reason(error)}){lacking}. Check the connection "
        "(HF_ENDPOINT sets another address), or copy the model's folder to this machine and load it by its path."
    )
