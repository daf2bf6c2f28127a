"""The section on provenance: which model read what, with which settings, and how to run it again."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._version import __version__
from ..data.cells._fingerprint import fingerprint_of
from ._found import Results
from ._html import Section, bullets, code, facts, number_text, sentence, table

PACKAGES = ("anndata", "numpy", "pandas", "scanpy", "scikit-learn", "scipy", "torch")
TOOLS = {
    "embeddings": "tl.embed",
    "labels": "tl.annotate",
    "malignant": "tl.malignancy",
    "drugs": "tl.drug_response",
    "ranks": "tl.rank_drugs",
    "searches": "tl.search",
    "fits": "tl.fine_tune",
    "importance": "tl.gene_importance",
}
SETTINGS = (
    "mode",
    "method",
    "device",
    "precision",
    "target_error",
    "min_confidence",
    "novelty_error",
    "majority_vote",
    "n_neighbors",
    "names_replaced",
    "batch_shift",
    "sample_key",
    "groupby",
    "reference",
    "replicates",
    "level",
    "k",
    "index",
    "n_steps",
    "embedding_reused",
)
"""Fields of records that say how something was computed."""


def provenance_section(adata: AnnData, found: Results, source: Path | None) -> Section:
    """Models, versions, hashes, settings, and the calls."""
    section = Section("provenance", "Model, versions and settings")
    records = list(_records(adata, found))
    if not records:
        section.body.append(sentence("Nothing of scellm is in this file yet, so there is nothing to repeat."))
    else:
        section.body.append(
            table(_models(records), "What was computed, by which model and version, from which values.")
        )
        section.body.append(table(_settings(records), "Settings, as the records hold them."))
        _calls(section, records)
        _hashes(section, adata, found)
        _differences(section, records)
    section.body.append(
        facts(_machine(source), "Where this report was made; results may have been computed elsewhere.")
    )
    return section


def _records(adata: AnnData, found: Results) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Tool, key and record."""
    for kind, tool in TOOLS.items():
        for key in getattr(found, kind):
            yield tool, key, adata.uns[key]


def _models(records: list[tuple[str, str, Mapping[str, Any]]]) -> pd.DataFrame:
    """A row for each result."""
    return pd.DataFrame(
        [
            {
                "tool": tool,
                "key": key,
                "model": _text(record, "model"),
                "sha256": _text(record, "sha256")[:16],
                "scellm": _text(record, "scellm_version"),
                "read": _text(record, "matrix"),
                "genes": number_text(int(record["n_genes"])) if "n_genes" in record else "–",
                "values": _text(record, "values"),
            }
            for tool, key, record in records
        ]
    )


def _settings(records: list[tuple[str, str, Mapping[str, Any]]]) -> pd.DataFrame:
    """A row for each result, its settings in one line."""
    rows = []
    for tool, key, record in records:
        found = {
            name: _plain(record[name])
            for name in SETTINGS
            if name in record and not isinstance(record[name], Mapping)
        }
        said = "; ".join(f"{name} {number_text(value)}" for name, value in found.items() if str(value) != "")
        rows.append({"tool": tool, "key": key, "settings": said or "–"})
    return pd.DataFrame(rows)


def _calls(section: Section, records: list[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Lines to type again; older records have none."""
    calls = list(dict.fromkeys(call for _, _, record in records if (call := _text(record, "call"))))
    older = [f"`{tool}` under {key!r}" for tool, key, record in records if not _text(record, "call")]
    if calls:
        section.body.append(
            sentence(
                "The calls, in the order of the results:"
                if not any("<" in call for call in calls)
                else "The calls, in the order of the results. What is in angle brackets was in memory and is not in this file; put yours there:"
            )
        )
        section.body.append(code("import scellm\n\n" + "\n".join(calls)))
    if older:
        section.body.append(
            sentence(
                f"Made before calls were recorded: {', '.join(older)}. The settings above are what is known of them."
            )
        )


def _hashes(section: Section, adata: AnnData, found: Results) -> None:
    """Fingerprints, and whether embeddings are still those that were computed."""
    lines = []
    for key in found.embeddings:
        record = adata.uns[key]
        same = fingerprint_of(np.asarray(adata.obsm[key])) == _text(record, "embedding_fingerprint")
        lines.append(
            f"`obsm[{key!r}]`: fingerprint of the values read {_text(record, 'fingerprint')}, of the embedding "
            f"{_text(record, 'embedding_fingerprint')}, {'unchanged since' if same else 'changed since'}"
            + (f"; model sha256 {_text(record, 'sha256')}" if _text(record, "sha256") else "")
        )
        if not same:
            section.warn(
                f"`obsm[{key!r}]` is not the embedding that its record describes: cells were left out, joined or reordered, which does no "
                "harm, or values changed. In that case run `scellm.tl.embed(adata)` again before you rely on what was computed from it.",
                f"the embedding {key!r} has changed since it was computed",
            )
    section.body.append(bullets(lines))


def _differences(section: Section, records: list[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Results that do not belong together."""
    versions = sorted({_text(record, "scellm_version") for *_, record in records} - {""})
    if len(versions) > 1:
        section.warn(
            f"The results were made by several versions of scellm ({', '.join(versions)}). Run the tools again with one of them "
            "before you compare their numbers.",
            "results of several versions of scellm stand side by side",
        )
    hashes: dict[str, set[str]] = {}
    for tool, _, record in records:
        if _text(record, "model") and _text(record, "sha256") and tool != "tl.drug_response":
            hashes.setdefault(_text(record, "model"), set()).add(_text(record, "sha256"))
    for model, several in hashes.items():
        if len(several) > 1:
            section.warn(
                f"Results name the model {model!r}, but its weights were {len(several)} different ones (see sha256). Run the tools again "
                "with one model.",
                f"results of several models called {model!r} stand side by side",
            )


def _machine(source: Path | None) -> dict[str, Any]:
    """Versions here, now."""
    pairs: dict[str, Any] = {
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "scellm": __version__,
        "Python": platform.python_version(),
        "Packages": ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))),
        "System": f"{platform.system()} {platform.machine()}",
    }
    if source is not None and source.is_file():
        with source.open("rb") as file:
            pairs["File sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return pairs


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _text(record: Mapping[str, Any], name: str) -> str:
    return str(record.get(name, "") or "")


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python, lists as text."""
    value = np.asarray(value)
    return value.item() if value.ndim == 0 else ", ".join(map(str, value.ravel()[:20]))
