"""Scores of `transformer.py`: models of a run, what they reach, and files in which that is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _annotation_parts as parts
import embedding
import numpy as np
import pandas as pd
import validation
from _embedding_methods import pca as benchmark_pca
from adapt import embed, from_few
from safetensors.torch import load_file

import scellm
from scellm.metrics import anisotropy, neighbor_score
from scellm.models import CellLM
from scellm.nn import Encoder

SHOTS, DRAWS = 5, 3
"""Labeled cells of each type, and how often they are drawn."""
Found = dict[str, Any]


class Run:
    """A folder of `scellm pretrain scellm-transformer`.

    Parameters
    ----------
    folder
        With the stages *bag* and *blocks* in it, and the model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = scellm.models.load(folder / "scellm-transformer")
        stage = self.model.provenance["stages"]["blocks"]
        self.seed, self.share = int(stage["recipe"]["seed"]), float(stage["recipe"]["keep_start"])
        self.steps = int(stage["steps"])
        self.log = pd.read_csv(folder / "blocks" / "log.csv")

    @property
    def bag(self) -> CellLM:
        """The first stage, which reads as many genes."""
        config = dataclasses.replace(self.model.config, depth=0)
        return self._with(_encoder(config, _last(self.folder / "bag")))

    def with_start(self, share: float) -> CellLM:
        """The block with another share of its start in the weights; the start itself is on the line from the end to the model.

        A run that keeps nothing of its start does not know it.
        """
        if share == self.share:
            return self.model
        mixed = self.model.encoder.state_dict()
        for name, end in _last(self.folder / "blocks").items():
            if end.is_floating_point():
                mixed[name] = end.lerp(mixed[name].to(end.dtype), share / self.share)
        return self._with(_encoder(self.model.config, mixed))

    def _with(self, encoder: Encoder) -> CellLM:
        return dataclasses.replace(self.model, encoder=encoder, config=encoder.config, sha256="", name="")


def finished(folder: Path) -> bool:
    """Whether a run has left its model."""
    return (folder / "scellm-transformer" / "manifest.json").is_file()


def _last(stage: Path) -> dict[str, Any]:
    return load_file(sorted(stage.glob("step-*"))[-1] / "encoder.safetensors")


def _encoder(config: Any, weights: dict[str, Any]) -> Encoder:
    encoder = Encoder(config)
    encoder.load_state_dict(weights)
    return encoder.eval()


def reading(model: CellLM, max_genes: int) -> CellLM:
    """The model with another context."""
    return dataclasses.replace(
        model, tokens=dataclasses.replace(model.tokens, max_genes=max_genes), sha256="", name=""
    )


class Store:
    """Scores by weights and context, kept in files.

    Parameters
    ----------
    data
        The folder with `corpus` and `benchmarks` in it.
    cache
        Where scores are kept.
    """

    def __init__(self, data: Path, cache: Path) -> None:
        self.data, self.cache = data, cache
        cache.mkdir(parents=True, exist_ok=True)

    def left_out(self, model: CellLM | None) -> Found:
        """Macro-F1 on the datasets of `validation.py`, and anisotropy; `None` is PCA fitted to each."""
        return self._kept("left-out", model, self._left_out)

    def benchmark(self, model: CellLM | None) -> Found:
        """Macro-F1, NMI and ARI on the benchmark sets, as on the page of the embedding."""
        return self._kept("benchmark", model, self._benchmark)

    def few_labels(self, model: CellLM) -> Found:
        """Macro-F1 of `tl.annotate` that knows few cells of each type of the benchmark sets, as on the page of adapting."""
        return self._kept("few", model, self._few_labels)

    def _kept(self, kind: str, model: CellLM | None, make: Callable[[CellLM | None], Found]) -> Found:
        path = self.cache / f"{kind}-{'pca' if model is None else digest(model)}.json"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = make(model)
            path.write_text(json.dumps(found))
            print(path.name, json.dumps(found)[:200], flush=True)
        return json.loads(path.read_text())

    def _left_out(self, model: CellLM | None) -> Found:
        found: Found = {}
        for name in validation.SETS:
            adata = validation.read(self.data, name)
            vectors = validation.pca(adata) if model is None else embed(adata, model)
            found[name] = neighbor_score(vectors, adata.obs["cell_type"]).macro_f1
            if name == "zheng_sorted_same":
                spread = anisotropy(vectors[:1000])
        return {"macro_f1": found, "anisotropy": spread}

    def _benchmark(self, model: CellLM | None) -> Found:
        found: Found = {}
        for path in sorted((self.data / "benchmarks").glob("*.h5ad")):
            adata, labels = embedding.read(path)
            vectors = benchmark_pca(adata) if model is None else embed(adata, model)
            measured = embedding.score(vectors, labels) | embedding.structure(vectors, labels)
            for key in ("macro_f1", "nmi", "ari"):
                found.setdefault(key, {})[path.stem] = measured[key]
        return found

    def _few_labels(self, model: CellLM) -> Found:
        found = {}
        for name in parts.data.HELD_OUT:
            cells = parts.cells_of(parts.data.read(name), model, n_random=0)
            found[name] = float(np.mean([from_few(cells, SHOTS, seed) for seed in range(DRAWS)]))
        return {"macro_f1": found}


def digest(model: CellLM) -> str:
    """Of the weights and the context."""
    found = hashlib.sha256(str((model.tokens, model.config)).encode())
    for name, value in sorted(model.encoder.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def mean(found: Found, what: str = "macro_f1") -> float:
    """Over datasets."""
    return float(np.mean(list(found[what].values())))


def beside(columns: dict[str, Found], what: str = "macro_f1") -> pd.DataFrame:
    """A row for each dataset and their mean, a column for each model."""
    table = pd.DataFrame({key: pd.Series(found[what]) for key, found in columns.items()})
    table.loc["mean"] = table.mean()
    return table.rename_axis("dataset").reset_index()


def averaged(found: Iterable[Found], what: str = "macro_f1") -> Found:
    """Mean over trainings."""
    table = pd.DataFrame([one[what] for one in found])
    return {what: table.mean().to_dict()}
