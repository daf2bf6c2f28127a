"""The recipe of a pretraining run: every choice but the data and the architecture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .._fields import check_fields
from ._memory import parse_bytes
from ._views import ViewConfig

OBJECTIVES = ("contrastive", "supervised", "masked_gene", "masked_value", "normal_cancer")
"""What a run can be trained on, see `PretrainConfig.objectives`."""
CONTRASTIVE = ("contrastive", "supervised")
"""Objectives that compare cells; the others are sums over cells."""
FREE = ("memory_budget", "tokens_per_chunk", "log_every", "checkpoint_every", "keep_checkpoints", "max_time")
"""Fields that may differ between a run and its resumption: they do not change the weights."""
DEFAULT_WEIGHTS = {
    "contrastive": 1.0,
    "supervised": 0.7,
    "masked_gene": 0.3,
    "masked_value": 0.3,
    "normal_cancer": 0.1,
}
"""Weights of objectives that are asked for by name alone (ours)."""
GeneInit = Literal["random", "pca", "lda"]
"""Where gene embeddings of a new encoder start."""
REFERENCE_BATCH = 256
"""Batch size for which `learning_rate` is given."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Recipe of one pretraining run (ours, where the paper gives no number).

    Parameters
    ----------
    objectives
        Losses and their weights. `"contrastive"`: two views of a cell against other cells (paper, section 3.2.3).
        `"supervised"`: cells of one type together. `"masked_gene"`: expression bins of masked genes by cross-entropy
        (section 3.2.1); `"masked_value"`: their log1p values by squared error (ours). `"normal_cancer"`: normal
        against cancer cells, those without a label left out (section 3.2.2). A sequence of names takes the weights
        1, 0.7, 0.3, 0.3 and 0.1.
    batch_size
        Cells contrasted together, over all processes; each batch mixes datasets.
    max_steps, max_epochs, max_time
        The run ends with the first that is reached: optimizer steps; epochs, each drawing as many cells as the corpus
        has; seconds. With none of them it is 10 epochs. `max_time` shortens the learning-rate schedule by the clock,
        so such a run is not the same twice.
    temperature, learn_temperature
        Temperature of both contrastive losses, and whether it is trained.
    negatives
        `"dataset"`: only cells of one dataset are negatives of each other; telling datasets apart would be too easy.
        `"all"`: all cells, as published.
    exclude_same_type
        Cells of the same known type are no negatives of each other.
    mask_rate
        Share of the second view's genes whose value is hidden, with an objective that wants it.
    views
        How views are drawn: a `ViewConfig` or one of its names.
    dataset_power
        A dataset of n cells takes a share of each batch in proportion to n to this power.
    datasets_per_batch
        Each batch takes cells of this many datasets; `None` takes cells of all. With negatives within a dataset, it is
        `batch_size / datasets_per_batch` cells that are contrasted.
    learning_rate
        Peak of the schedule for a batch of 256; multiplied by sqrt(batch_size / 256), the rule for Adam.
    warmup, weight_decay, clip_norm
        Linear warm-up as a share of the run, then a cosine to 2 %; AdamW's decay of matrices; largest norm of the
        gradient.
    redraw_every
        Optimizer steps between new random projections of FAVOR+; 0 keeps them.
    freeze
        Beginnings of names of parameters that are not trained.
    type_key, cancer_key
        Columns of `obs` with cell types and with what is cancer ("True", "cancer", "tumor", ... or "False", "normal",
        ...; anything else is no label).
    precision
        Of the encoder's matrix products: `"fp32"`, `"bf16"`, or `"auto"`, bf16 on a GPU that has it. Losses and
        weights are always fp32.
    views_on
        Where views are drawn. `"host"`: on the CPU, beside the step. `"device"`: where the encoder is, with the corpus kept
        in its memory. `"auto"`: there on a CUDA GPU that has room. The two draw other views of the same kind.
    memory_budget, tokens_per_chunk
        As in `DivideAndConquer`. They change time and memory; the result only by rounding.
    seed
        Of everything random.
    log_every, checkpoint_every, keep_checkpoints
        Steps between lines of the log; steps between checkpoints, and how many of the newest are kept.

    Raises
    ------
    ValueError
        A field out of its range, or an unknown objective.
    """

    objectives: Mapping[str, float] = field(
        default_factory=lambda: {name: DEFAULT_WEIGHTS[name] for name in ("contrastive", "masked_gene")}
    )
    batch_size: int = 4096
    max_steps: int | None = None
    max_epochs: float | None = None
    max_time: float | None = None
    temperature: float = 0.1
    learn_temperature: bool = False
    negatives: Literal["dataset", "all"] = "dataset"
    exclude_same_type: bool = False
    mask_rate: float = 0.2
    views: ViewConfig = field(default_factory=ViewConfig)
    dataset_power: float = 0.5
    datasets_per_batch: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    redraw_every: int = 0
    freeze: tuple[str, ...] = ()
    type_key: str = "cell_type"
    cancer_key: str = "malignant"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    views_on: Literal["auto", "host", "device"] = "auto"
    memory_budget: int | float | str = "auto"
    tokens_per_chunk: int | Literal["auto"] = "auto"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 200
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", _objectives(self.objectives))
        object.__setattr__(self, "freeze", tuple(self.freeze))
        views = self.views
        if isinstance(views, str):
            views = ViewConfig.named(views)
        elif isinstance(views, Mapping):
            views = ViewConfig.from_dict(views)
        object.__setattr__(self, "views", views)
        if self.memory_budget != "auto":
            parse_bytes(self.memory_budget)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not low <= value <= high or (name in _WHOLE and value != int(value)):
                kind = "a whole number" if name in _WHOLE else "a number"
                limit = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
                msg = f"{name} is {value!r}; it must be {kind} {limit}."
                raise ValueError(msg)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                msg = f"{name} is {getattr(self, name)!r}; choose one of {choices}."
                raise ValueError(msg)

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the peak of the schedule, for this batch size."""
        return self.learning_rate * math.sqrt(self.batch_size / REFERENCE_BATCH)

    @property
    def masks(self) -> bool:
        """Whether an objective looks at masked genes."""
        return bool({"masked_gene", "masked_value"} & set(self.objectives))

    def n_steps(self, n_cells: int) -> int | None:
        """Steps of a run over so many cells; `None` if only the clock ends it."""
        limits = []
        if self.max_steps is not None:
            limits.append(self.max_steps)
        if self.max_epochs is not None or (self.max_steps is None and self.max_time is None):
            limits.append(math.ceil((self.max_epochs or 10) * n_cells / self.batch_size))
        return min(limits) if limits else None

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain values, for JSON."""
        return {**dataclasses.asdict(self), "objectives": dict(self.objectives), "freeze": list(self.freeze)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PretrainConfig:
        """Build from plain values; unknown fields are an error that names the nearest known one.

        Raises
        ------
        ValueError
            Unknown fields, or values that make no recipe.
        """
        check_fields(fields, [x.name for x in dataclasses.fields(cls)], "a recipe")
        return cls(**fields)


def check_gene_init(gene_init: str) -> GeneInit:
    """The choice, if it is one.

    Raises
    ------
    ValueError
        It is none.
    """
    if gene_init not in get_args(GeneInit):
        msg = f"gene_init is {gene_init!r}; choose 'random', 'pca' or 'lda'."
        raise ValueError(msg)
    return gene_init


def _objectives(asked: Mapping[str, float] | Sequence[str] | str) -> dict[str, float]:
    """Names and weights, checked; those of weight 0 are left out."""
    if isinstance(asked, str):
        asked = [asked]
    if not isinstance(asked, Mapping):
        check_fields(dict.fromkeys(asked), OBJECTIVES, "the objectives")
        asked = {name: DEFAULT_WEIGHTS[name] for name in asked}
    check_fields(asked, OBJECTIVES, "the objectives")
    for name, weight in asked.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            msg = f"The objective {name!r} has the weight {weight!r}; it must be a number of at least 0."
            raise ValueError(msg)
    objectives = {name: float(asked[name]) for name in OBJECTIVES if asked.get(name)}
    if not objectives:
        msg = f"A recipe needs at least one objective with a weight above 0; known are {list(OBJECTIVES)}."
        raise ValueError(msg)
    return objectives


_RANGES = {
    "batch_size": (2, math.inf),
    "max_steps": (1, math.inf),
    "max_epochs": (1e-6, math.inf),
    "max_time": (1e-6, math.inf),
    "temperature": (1e-4, math.inf),
    "mask_rate": (1e-3, 0.95),
    "dataset_power": (0, 1),
    "datasets_per_batch": (1, math.inf),
    "learning_rate": (1e-12, math.inf),
    "warmup": (0, 1),
    "weight_decay": (0, math.inf),
    "clip_norm": (1e-12, math.inf),
    "redraw_every": (0, math.inf),
    "seed": (0, 2**63 - 1),
    "log_every": (1, math.inf),
    "checkpoint_every": (1, math.inf),
    "keep_checkpoints": (1, math.inf),
}
_WHOLE = {
    "batch_size",
    "datasets_per_batch",
    "max_steps",
    "redraw_every",
    "seed",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
}
_CHOICES = {
    "negatives": ("dataset", "all"),
    "precision": ("auto", "fp32", "bf16"),
    "views_on": ("auto", "host", "device"),
}
