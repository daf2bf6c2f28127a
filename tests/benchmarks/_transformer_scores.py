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
LOGGED = [
    "step",
    "contrastive",
    "supervised",
    "masked_gene",
    "normal_cancer",
    "anisotropy",
    "learning_rate",
    "cells_per_second",
]
"""Columns of a log that are kept."""


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
        self.seed, self.steps = int(stage["recipe"]["seed"]), int(stage["steps"])
        self.log = pd.read_csv(folder / "blocks" / "log.csv")

    @property
    def bag(self) -> CellLM:
        """The first stage, which reads as many genes."""
        config = dataclasses.replace(self.model.config, depth=0)
        return self._with(_encoder(config, _last(self.folder / "bag")))

    def _with(self, encoder: Encoder) -> CellLM:
        return dataclasses.replace(self.model, encoder=encoder, config=encoder.config, sha256="", name="")


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is left of a run on the page: its log and its scores."""

    seed: int
    steps: int
    log: pd.DataFrame
    scores: dict[str, dict[str, Found]]
    """Of the model and of its bag: left-out, benchmark and few."""

    @classmethod
    def of(cls, run: Run, store: Store) -> Trained:
        """Measured, where the store does not know it."""
        models = {"transformer": run.model, "its bag": run.bag}
        kinds = {"left-out": store.left_out, "benchmark": store.benchmark, "few": store.few_labels}
        scores = {
            name: {kind: measure(model) for kind, measure in kinds.items()} for name, model in models.items()
        }
        return cls(run.seed, run.steps, run.log, scores)

    @classmethod
    def from_dict(cls, kept: Found) -> Trained:
        """As `to_dict` made it."""
        return cls(kept["seed"], kept["steps"], pd.DataFrame(kept["log"]), kept["scores"])

    def to_dict(self) -> Found:
        """For JSON: the page can be made again when the run is gone."""
        log = self.log[[name for name in LOGGED if name in self.log]]
        return {"seed": self.seed, "steps": self.steps, "log": log.to_dict("list"), "scores": self.scores}


def difference_of(one: CellLM, other: CellLM) -> float:
    """Largest difference of a weight, as a share of the root mean square of that tensor."""
    found = 0.0
    theirs = other.encoder.state_dict()
    for name, value in one.encoder.state_dict().items():
        size = float(value.float().square().mean().sqrt())
        found = max(found, float((value.float() - theirs[name].float()).abs().max()) / max(size, 1e-12))
    return found


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
