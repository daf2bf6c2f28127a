"""What a run is trained on: encode some rows of a batch, and compare the representations of all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..nn import CancerHead, ContrastiveHead, Encoder, MaskedValueHead, encode_bag
from ._distributed import World
from ._divide_and_conquer import Encoded
from ._info_nce import info_nce, supervised_contrastive
from ._losses import masked_gene_loss, masked_value_loss, normal_cancer_loss
from ._recipe import CONTRASTIVE, PretrainConfig


class Heads(nn.Module):
    """The networks that are needed in training only.

    Parameters
    ----------
    dim
        Size of the cell embedding.
    temperature
        Where the temperature starts; it is a parameter if `learn_temperature`.
    """

    def __init__(self, dim: int, *, temperature: float, learn_temperature: bool) -> None:
        super().__init__()
        self.contrastive = ContrastiveHead(dim, dim)
        self.masked_value = MaskedValueHead(dim)
        self.cancer = CancerHead(dim)
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(temperature)), requires_grad=learn_temperature
        )

    @property
    def temperature(self) -> Tensor:
        """Temperature of the contrastive losses; a trained one is held above 0.01."""
        temperature = self.log_temperature.exp()
        return temperature.clamp(min=0.01) if self.log_temperature.requires_grad else temperature


@dataclass(frozen=True)
class Totals:
    """Over how much the sums of a batch run, in all processes."""

    n_masked: float
    n_labelled: float


@dataclass
class Objectives:
    """`encode` and `loss` of the divide-and-conquer step for one batch after the other.

    Parameters
    ----------
    encoder, heads
        What is trained.
    recipe
        Objectives and their weights.
    device
        Where they are.
    autocast
        Type of the encoder's matrix products.
    world
        Processes that share the batch.
    """

    encoder: Encoder
    heads: Heads
    recipe: PretrainConfig
    device: torch.device
    autocast: torch.dtype
    world: World
    totals: Totals = Totals(1, 1)
    group: Tensor | None = None
    """(B,) dataset of each cell."""
    cell_type: Tensor | None = None
    """(B,) type of each cell, -1 unknown."""

    def __post_init__(self) -> None:
        self.compared: dict[str, float] = {}

    @property
    def compares(self) -> bool:
        """Whether an objective compares cells, so that two passes are needed."""
        return bool(set(CONTRASTIVE) & set(self.recipe.objectives))

    def encode(self, batch: dict[str, Any]) -> Encoded:
        """Representations (n, D), and with gradients on the sums over cells."""
        weights, is_graded = self.recipe.objectives, torch.is_grad_enabled()
        is_cancer, is_masked = batch.pop("is_cancer"), batch.get("is_masked")
        losses = {}
        masked = is_masked if is_graded and self.recipe.masks else None
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast != torch.float32):
            if "indptr" in batch:
                cells = encode_bag(self.encoder, **batch)
            else:
                wanted: Literal["masked", "none"] = "none" if masked is None else "masked"
                cells, genes = self.encoder(**batch, wanted=wanted)
                if masked is not None:
                    losses = self._masked_losses(genes, batch["values"][masked])
            if is_graded and "normal_cancer" in weights:
                logits = self.heads.cancer(cells).float().squeeze(-1)
                losses["normal_cancer"] = (
                    normal_cancer_loss(logits, is_cancer, reduction="sum") / self.totals.n_labelled
                )
            representations = self.heads.contrastive(cells) if self.compares else cells
        return Encoded(representations.float(), {name: weights[name] * loss for name, loss in losses.items()})

    def _masked_losses(self, genes: Tensor, values: Tensor) -> dict[str, Tensor]:
        """The objectives of masked genes, from hidden states (n, D) and values (n,)."""
        losses, weights = {}, self.recipe.objectives
        options = {"is_masked": torch.ones_like(values, dtype=torch.bool), "reduction": "sum"}
        if "masked_gene" in weights:
            logits = self.encoder.masked_gene(genes).float()
            losses["masked_gene"] = masked_gene_loss(logits, values, **options) / self.totals.n_masked
        if "masked_value" in weights:
            predicted = self.heads.masked_value(genes).float().squeeze(-1)
            losses["masked_value"] = masked_value_loss(predicted, values, **options) / self.totals.n_masked
        return losses

    def loss(self, representations: Tensor) -> Tensor:
        """The objectives that compare cells, weighted, from (2 B, D) representations."""
        first, second = representations.chunk(2)
        options = {
            "temperature": self.heads.temperature,
            "group": self.group if self.recipe.negatives == "dataset" else None,
            "world": self.world,
        }
        exclude = self.cell_type if self.recipe.exclude_same_type else None
        total = representations.new_zeros(())
        for name in CONTRASTIVE:
            if name not in self.recipe.objectives:
                continue
            if name == "supervised":
                loss = supervised_contrastive(first, second, self.cell_type, **options)
            else:
                loss = info_nce(first, second, exclude=exclude, **options)
            self.compared[name] = float(loss.detach())
            total = total + self.recipe.objectives[name] * loss
        return total

    @torch.no_grad()
    def guessing(self) -> float | None:
        """The contrastive loss of the last batch if all cells had one embedding, log N for N candidates; or `None`."""
        if "contrastive" not in self.recipe.objectives:
            return None
        compared, self.compared = self.compared, {}
        self.loss(torch.ones(2 * len(self.group), 1, device=self.device))
        found, self.compared = self.compared["contrastive"], compared
        return found
