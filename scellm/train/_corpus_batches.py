"""Batches of a corpus: which cells, their counts, their labels, and the batch to come drawn ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch

from ..data import Batch, Corpus, Sampler, shard
from ._batch import CELLS_PER_DRAW, TrainingBatch, draw_batch
from ._distributed import World
from ._objectives import Totals
from ._recipe import PretrainConfig
from ._resident import ResidentBatch, resident

IS_CANCER = {"true": 1, "cancer": 1, "malignant": 1, "tumor": 1, "tumour": 1, "1": 1}
IS_NORMAL = {"false": 0, "normal": 0, "healthy": 0, "benign": 0, "non-malignant": 0, "0": 0}
"""What a label of cancer may be called, in lower case."""


@dataclass(frozen=True)
class Prepared:
    """A batch of this process, drawn, and where the sampler stands after it."""

    batch: TrainingBatch | ResidentBatch
    dataset: np.ndarray
    """(B,) of each of its cells."""
    row: np.ndarray
    """(B,) cell number in its dataset."""
    sampler: dict[str, Any]
    totals: Totals
    """Of this process."""
    n_empty: int


class CorpusBatches:
    """Batches of a corpus for one process.

    Parameters
    ----------
    corpus
        The cells.
    recipe
        What is asked of them.
    world
        Processes that share a batch.
    is_packed, device
        As in `TrainingBatch`.

    Raises
    ------
    KeyError
        No dataset has a column of labels that an objective needs.
    ValueError
        A batch larger than the corpus, or labels without any known one.
    """

    def __init__(
        self, corpus: Corpus, recipe: PretrainConfig, world: World, *, is_packed: bool, device: torch.device
    ) -> None:
        self.corpus, self.recipe = corpus, recipe
        self.is_packed, self.device = is_packed, device
        self.sampler = Sampler(
            corpus.sizes,
            corpus.block_sizes,
            batch_size=recipe.batch_size,
            power=recipe.dataset_power,
            datasets_per_batch=recipe.datasets_per_batch,
            seed=recipe.seed,
        )
        self.own = shard(recipe.batch_size, world.rank, world.size, block=CELLS_PER_DRAW)
        self.is_cancer = _cancer_labels(corpus, recipe)
        self.cell_type = _type_labels(corpus, recipe)
        self.resident = resident(corpus, recipe.views_on, device)

    @property
    def views_on(self) -> Literal["host", "device"]:
        """Where views are drawn."""
        return "host" if self.resident is None else "device"

    def prepare(self, step: int) -> Prepared:
        """Draw the batch of the next step."""
        chosen = self.sampler.next()
        own = Batch(chosen.dataset[self.own], chosen.row[self.own])
        is_cancer = np.full(len(own.row), np.nan, dtype=np.float32)
        if self.is_cancer is not None:
            is_cancer = _of(self.is_cancer, own)
        place = {"step": step, "first": self.own.start, "is_packed": self.is_packed}
        batch: TrainingBatch | ResidentBatch
        if self.resident is not None:
            batch = self.resident.draw(own, is_cancer, self.recipe, **place)
        else:
            batch = draw_batch(self._counts(own), is_cancer, self.recipe, device=self.device, **place)
        return Prepared(
            batch,
            own.dataset[batch.cells],
            own.row[batch.cells],
            self.sampler.state_dict(),
            Totals(float(batch.is_masked.sum()), float((~np.isnan(batch.is_cancer)).sum())),
            len(own.row) - len(batch.cells),
        )

    def _counts(self, own: Batch) -> sp.csr_array:
        """Counts of cells that lie dataset by dataset."""
        parts = [
            self.corpus.counts(int(d), own.row[own.dataset == d]) for d in dict.fromkeys(own.dataset.tolist())
        ]
        return sp.csr_array(sp.vstack(parts, format="csr"))

    @contextlib.contextmanager
    def upcoming(self, step: int, n_steps: int | None) -> Iterator[Iterator[Prepared]]:
        """Batches from a step on, each drawn while the one before is trained on; without end if `n_steps` is `None`."""

        def batches(executor: ThreadPoolExecutor) -> Iterator[Prepared]:
            coming = step
            waiting = executor.submit(self.prepare, coming)
            while n_steps is None or coming < n_steps:
                prepared = waiting.result()
                coming += 1
                if n_steps is None or coming < n_steps:
                    waiting = executor.submit(self.prepare, coming)
                yield prepared

        with ThreadPoolExecutor(1, thread_name_prefix="scellm-batches") as executor:
            is_done = n_steps is not None and step >= n_steps
            yield iter(()) if is_done else batches(executor)

    def types(self, prepared: Prepared) -> np.ndarray | None:
        """(B,) type of each cell of a batch, -1 unknown; `None` if no objective asks."""
        if self.cell_type is None:
            return None
        return _of(self.cell_type, Batch(prepared.dataset, prepared.row))

    @property
    def labels(self) -> list[np.ndarray]:
        """All labels the objectives ask for, by dataset."""
        return [*(self.is_cancer or []), *(self.cell_type or [])]


def _of(labels: list[np.ndarray], cells: Batch) -> np.ndarray:
    """Labels of some cells."""
    result = np.empty(len(cells.row), dtype=labels[0].dtype)
    for d in np.unique(cells.dataset):
        result[cells.dataset == d] = labels[d][cells.row[cells.dataset == d]]
    return result


def _cancer_labels(corpus: Corpus, recipe: PretrainConfig) -> list[np.ndarray] | None:
    """1, 0 or NaN of each cell of each dataset."""
    if "normal_cancer" not in recipe.objectives:
        return None
    meaning = IS_CANCER | IS_NORMAL
    labels = [
        np.array([meaning.get(str(x).strip().lower(), np.nan) for x in column], dtype=np.float32)
        for column in corpus.labels(recipe.cancer_key)
    ]
    found = np.unique(np.concatenate(labels))
    found = found[~np.isnan(found)]
    if len(found) < 2:
        what = "no label" if not len(found) else "only cancer cells" if found[0] else "only normal cells"
        msg = (
            f"The objective 'normal_cancer' needs cells of both kinds; obs[{recipe.cancer_key!r}] has {what}. "
            f"Cancer is {sorted(IS_CANCER)}, normal {sorted(IS_NORMAL)}, anything else unknown. Pass cancer_key= "
            "with another column, or leave the objective out."
        )
        raise ValueError(msg)
    return labels


def _type_labels(corpus: Corpus, recipe: PretrainConfig) -> list[np.ndarray] | None:
    """Number of the type of each cell of each dataset, -1 unknown."""
    if "supervised" not in recipe.objectives and not recipe.exclude_same_type:
        return None
    columns = corpus.labels(recipe.type_key)
    types = sorted({str(x) for column in columns for x in np.unique(column)} - {""})
    if not types:
        msg = (
            f"No cell has a type in obs[{recipe.type_key!r}], and 'supervised' or exclude_same_type asks for "
            "it. Pass type_key= with another column, or leave that out."
        )
        raise ValueError(msg)
    code = {name: i for i, name in enumerate(types)} | {"": -1}
    return [np.array([code[str(x)] for x in column], dtype=np.int64) for column in columns]
