"""Options of `tl.fine_tune`, checked when they are made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """How long and how strongly `tl.fine_tune` trains.

    Parameters
    ----------
    class_weight
        `"balanced"`: each class weighs the same. `None`: each cell does.
    max_epochs, patience
        Epochs at most, and epochs without a better validation score after which training stops.
    batch_size
        Cells per step.
    learning_rate
        Of AdamW; `None` is 1e-3 for LoRA, 3e-4 for all weights.
    weight_decay
        Of AdamW.
    lora_rank
        Rank of the changes.
    gene_dropout
        Share of the genes of a cell that is left out, drawn per cell between 0 and this (ours).
    contrastive
        Weight of a supervised contrastive loss between two such draws of each cell; 0 leaves it out.
    temperature
        Of that loss.
    min_cells
        Classes with fewer cells are excluded, with a warning.

    Raises
    ------
    ValueError
        A value out of range.
    """

    class_weight: Literal["balanced"] | None = "balanced"
    max_epochs: int = 30
    patience: int = 5
    batch_size: int = 128
    learning_rate: float | None = None
    weight_decay: float = 0.01
    lora_rank: int = 8
    gene_dropout: float = 0.2
    contrastive: float = 0.0
    temperature: float = 0.1
    min_cells: int = 5

    def __post_init__(self) -> None:
        for name, choices in (("class_weight", ("balanced", None)),):
            if getattr(self, name) not in choices:
                msg = f"{name}={getattr(self, name)!r} is unknown; choose one of {list(choices)}."
                raise ValueError(msg)
        for name in ("max_epochs", "patience", "batch_size", "lora_rank", "min_cells"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                msg = f"{name}={value!r} must be a whole number of at least 1."
                raise ValueError(msg)
        if not 0 <= self.gene_dropout < 1 or self.contrastive < 0 or self.temperature <= 0:
            msg = (
                f"gene_dropout={self.gene_dropout!r} must be in [0, 1), contrastive={self.contrastive!r} not negative and "
                f"temperature={self.temperature!r} positive."
            )
            raise ValueError(msg)
        if self.learning_rate is not None and not self.learning_rate > 0:
            msg = f"learning_rate={self.learning_rate!r} must be positive."
            raise ValueError(msg)

    def check_acts(self, strategy: str) -> None:
        """Refuse options that have no effect with a strategy.

        Raises
        ------
        ValueError
            One differs from its default and would do nothing.
        """
        acting = {"class_weight", "min_cells"}
        idle = {
            "head": {field.name for field in dataclasses.fields(FineTuneOptions)} - acting,
            "full": {"lora_rank"},
        }.get(strategy, set())
        if not self.contrastive:
            idle = idle | {"temperature"}
        named = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(FineTuneOptions)
            if field.name in idle and getattr(self, field.name) != field.default
        ]
        if named:
            why = f"strategy={strategy!r}" if strategy != "lora" else "contrastive=0"
            msg = f"{', '.join(named)} {'has' if len(named) == 1 else 'have'} no effect with {why}; leave out what does nothing."
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(FineTuneOptions):
    """The options, what is trained (`"head"` alone, `"lora"`: low-rank changes, `"full"`: all weights), and the seed."""

    strategy: Literal["head", "lora", "full"] = "lora"
    seed: int = 0
