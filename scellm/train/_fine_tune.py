"""Train a head, and with it the encoder or low-rank changes to it, on labeled cells.

The head is multinomial logistic regression on the standardized embedding. With `strategy="head"` that is all: the
solver finds the optimum, and the validation cells choose how strongly it is held back. Otherwise this is where gradient
descent starts :cite:p:`Kumar2022`, and the validation cells choose the epoch; the start is one of the choices.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotation._fit import macro_f1
from ..annotation._split import Split
from ..data import Tokens
from ..metrics._logistic import logistic_regression
from ..models import CellLM, encode
from ..models._encode import BAG_POSITIONS_PER_BATCH
from ..nn import encode_bag
from ..nn._lora import add_lora, merge_lora
from ._checkpoint import Checkpoint, differences, load_checkpoint, newest_checkpoint, save_checkpoint
from ._divide_and_conquer import DivideAndConquer, Encoded
from ._fine_tune_options import FineTuneConfig
from ._fine_tune_rows import BatchRows, Head, cross_entropy, digest_of, thin
from ._info_nce import supervised_contrastive

PENALTIES = (0.01, 0.1, 1.0)
"""C of the logistic regression that the validation cells choose from."""
LEARNING_RATES = {"lora": 1e-3, "full": 3e-4}
"""Defaults (ours: on labeled sets of the training corpus)."""


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Cells, each with at least one gene, their classes, and what each is for."""

    tokens: Tokens
    codes: np.ndarray
    """(n,) classes."""
    split: Split
    """Rows to train on, to choose by, and to leave alone."""
    n_classes: int


@dataclass
class FineTuned:
    """What came out: an encoder, and the head on its standardized embedding."""

    encoder: nn.Module
    head: Head
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


def fine_tune_encoder(
    model: CellLM,
    cells: LabelledTokens,
    config: FineTuneConfig,
    *,
    device: torch.device,
    checkpoint_dir: Path | None = None,
    resume: Literal["auto", "never", "must"] = "auto",
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> FineTuned:
    """Fit head and encoder on the training rows, choose by the validation rows; test rows are never looked at.

    Parameters
    ----------
    model
        Where to start; not changed.
    cells
        Tokens, classes and rows.
    config
        How.
    device
        Where to train.
    checkpoint_dir, resume
        Where to keep an epoch's state, and whether to go on from it.
    on_epoch
        Called with each row of the history.

    Raises
    ------
    FileExistsError
        `resume="never"` with a checkpoint.
    FileNotFoundError
        `resume="must"` without a checkpoint.
    ValueError
        The checkpoint is of other cells, labels or settings.
    """
    start = time.perf_counter()
    # a private copy: the caller's model stays as it is, also when this is interrupted
    own = dataclasses.replace(model, encoder=copy.deepcopy(model.encoder).to(device).eval())
    frozen = encode(own, cells.tokens, device=device)
    head, history = _fit_head(frozen, cells, config)
    for row in history:
        if on_epoch is not None:
            on_epoch(row)
    if config.strategy == "head":
        best = int(np.argmax([row["val_macro_f1"] for row in history]))
        return FineTuned(own.encoder.cpu(), head, history, best, time.perf_counter() - start)
    run = _Run(own, head.to(device), cells, config, device)
    run.restore(checkpoint_dir, resume)
    run.train(checkpoint_dir, on_epoch)
    run.take_best()
    return FineTuned(
        own.encoder.cpu().eval(),
        run.head.cpu(),
        run.history,
        run.best["epoch"],
        run.history[-1]["seconds"] if run.history else 0.0,
    )


def _fit_head(
    vectors: np.ndarray, cells: LabelledTokens, config: FineTuneConfig
) -> tuple[Head, list[dict[str, float]]]:
    """Logistic regression on the frozen embedding with the penalty that does best on the validation cells."""
    begun = time.perf_counter()
    codes, split, n_classes = cells.codes, cells.split, cells.n_classes
    sphere = F.normalize(torch.from_numpy(vectors), dim=1).numpy()
    centre = sphere[split.train].mean(axis=0)
    scale = np.maximum(sphere[split.train].std(axis=0), 1e-6)
    standard = (sphere - centre) / scale
    best, history = None, []
    for number, penalty in enumerate(PENALTIES):
        weight, bias = logistic_regression(
            standard[split.train],
            codes[split.train],
            n_classes,
            penalty,
            balanced=config.class_weight == "balanced",
        )
        logits = standard[split.val] @ weight.T + bias
        row = {
            "epoch": 0.0,
            "step": float(number),
            "penalty": penalty,
            "val_loss": cross_entropy(logits, codes[split.val]),
            "val_macro_f1": macro_f1(codes[split.val], logits.argmax(axis=1), n_classes),
            "seconds": time.perf_counter() - begun,
        }
        history.append(row)
        if best is None or (row["val_macro_f1"], -row["val_loss"]) > (
            best[0]["val_macro_f1"],
            -best[0]["val_loss"],
        ):
            best = (row, weight, bias)
    return Head(centre, scale, best[1], best[2]), history


class _Run:
    """Gradient descent from the fitted head on."""

    def __init__(
        self,
        model: CellLM,
        head: Head,
        cells: LabelledTokens,
        config: FineTuneConfig,
        device: torch.device,
    ) -> None:
        self.model, self.head, self.config, self.device = model, head, config, device
        self.tokens, self.codes, self.split = cells.tokens, cells.codes, cells.split
        self.n_classes = n_classes = cells.n_classes
        self.history: list[dict[str, float]] = []
        self.begin_state = digest_of(model.encoder.state_dict())
        encoder = model.encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            if config.strategy == "lora":
                trained = add_lora(encoder, rank=config.lora_rank)
            else:
                encoder.requires_grad_(True)
                encoder.masked_gene.requires_grad_(False)
                trained = [x for x in encoder.parameters() if x.requires_grad]
        self.trained = [*trained, *head.parameters()]
        rate = config.learning_rate or LEARNING_RATES[config.strategy]
        self.optimizer = torch.optim.AdamW(self.trained, lr=rate, weight_decay=config.weight_decay)
        self.epoch = 0
        self.before = 0.0
        counts = np.bincount(self.codes[self.split.train], minlength=n_classes).astype(float)
        weights = counts.sum() / np.maximum(counts, 1) / max((counts > 0).sum(), 1)
        self.weights = torch.tensor(
            weights if config.class_weight == "balanced" else np.ones(n_classes), dtype=torch.float32
        ).to(device)
        self.step = DivideAndConquer(
            self._encode,
            self._contrast if config.contrastive else None,
            modules=[encoder, head],
            # a bag keeps nothing per token, and each chunk costs a gradient as large as the gene table
            tokens_per_chunk=BAG_POSITIONS_PER_BATCH if model.config.is_bag else "auto",
        )
        self.best: dict[str, Any] = {}
        self._score({"epoch": 0.0, "step": 0.0})

    def train(self, folder: Path | None, on_epoch: Callable[[dict[str, float]], object] | None) -> None:
        """Epochs until the validation score has not risen for `patience` of them."""
        begun = time.perf_counter()
        while self.epoch < self.config.max_epochs and self.epoch - self.best["epoch"] < self.config.patience:
            self.epoch += 1
            losses = self._one_epoch()
            self._score(
                {"epoch": float(self.epoch), "step": float(self.epoch * self._n_steps()), **losses},
                seconds=self.before + time.perf_counter() - begun,
            )
            if folder is not None:
                self._save(folder)
            if on_epoch is not None:
                on_epoch(self.history[-1])

    def take_best(self) -> None:
        """Put the weights of the best epoch in place, changes merged."""
        self.model.encoder.load_state_dict(self.best["encoder"])
        self.head.load_state_dict(self.best["head"])
        merge_lora(self.model.encoder)

    def restore(self, folder: Path | None, resume: Literal["auto", "never", "must"]) -> None:
        """Go on from the newest checkpoint, if there is one and it is of this run."""
        newest = None if folder is None else newest_checkpoint(folder)
        if newest is not None and resume == "never":
            msg = f"resume='never', but {folder} holds {newest.name}. Choose another checkpoint_dir, or delete it."
            raise FileExistsError(msg)
        if newest is None:
            if resume == "must":
                msg = f"resume='must', but there is no checkpoint in {folder}."
                raise FileNotFoundError(msg)
            return
        saved = load_checkpoint(newest)
        if changed := differences(saved.state["run"], self._identity()):
            msg = (
                f"{newest} is of another run ({'; '.join(changed)}). Pass the same cells, labels and settings, another "
                "checkpoint_dir, or delete it to begin anew."
            )
            raise ValueError(msg)
        self.epoch = int(saved.state["step"])
        self.history = saved.state["history"]
        self.before = self.history[-1]["seconds"]
        self.model.encoder.load_state_dict(
            {k.removeprefix("now."): x for k, x in saved.encoder.items() if k.startswith("now.")}
        )
        self.head.load_state_dict(_part(saved.training, "head."))
        self.best = {
            **saved.state["best"],
            "encoder": {
                k.removeprefix("best."): x for k, x in saved.encoder.items() if k.startswith("best.")
            },
            "head": _part(saved.training, "best."),
        }
        state = self.optimizer.state_dict()
        for index in range(len(self.trained)):
            found = _part(saved.training, f"optimizer.{index}.")
            if found:
                state["state"][index] = found
        self.optimizer.load_state_dict(state)

    def _one_epoch(self) -> dict[str, float]:
        """One pass over the training cells."""
        config = self.config
        generator = np.random.default_rng((config.seed, self.epoch))
        order = generator.permutation(self.split.train)
        sums: dict[str, float] = {}
        self.model.encoder.train()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(config.seed * 1_000_003 + self.epoch)
            for rows in np.array_split(order, self._n_steps()):
                self.optimizer.zero_grad(set_to_none=True)
                for name, value in self._step(rows, generator).items():
                    sums[name] = sums.get(name, 0.0) + value * len(rows) / len(order)
                torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
                self.optimizer.step()
        self.model.encoder.eval()
        return sums

    def _step(self, rows: np.ndarray, generator: np.random.Generator) -> dict[str, float]:
        """Gradients of one batch, by the divide-and-conquer step where cells are contrasted."""
        config = self.config
        views = np.tile(rows, 2 if config.contrastive else 1)
        self.labels = torch.from_numpy(self.codes[views]).to(self.device)
        self.share = self.weights[self.labels].sum()
        thinned = thin(self.tokens[views], config.gene_dropout, generator)
        return self.step(BatchRows(thinned, self.device, is_packed=self.model.config.is_bag)).losses

    def _encode(self, some: dict[str, Tensor]) -> Encoded:
        """Embedding of some rows of the batch, and their share of the weighted mean of the cross-entropy."""
        cells, labels = self._cells(some), self.labels[some["rows"]]
        loss = F.cross_entropy(self.head(cells), labels, reduction="none")
        return Encoded(cells, {"cell_type": (loss * self.weights[labels]).sum() / self.share})

    def _contrast(self, cells: Tensor) -> Tensor:
        """Supervised contrastive loss between the two views of each cell of the batch."""
        first, second = cells.chunk(2)
        labels = self.labels[: len(first)]
        return self.config.contrastive * supervised_contrastive(
            first, second, labels, temperature=self.config.temperature
        )

    def _cells(self, some: dict[str, Tensor]) -> Tensor:
        """Embedding of some rows, with a graph."""
        if self.model.config.is_bag:
            return encode_bag(self.model.encoder, some["gene_ids"], some["values"], some["indptr"])
        return self.model.encoder(some["gene_ids"], some["values"], some["is_gene"], wanted="none").cells

    def _score(self, row: dict[str, float], *, seconds: float = 0.0) -> None:
        """Look at the validation cells, and remember the weights if they did better."""
        val = self.split.val
        vectors = encode(self.model, self.tokens[val], device=self.device)
        with torch.no_grad():
            logits = self.head(torch.from_numpy(vectors).to(self.device)).cpu().numpy()
        row = {
            **row,
            "val_loss": cross_entropy(logits, self.codes[val]),
            "val_macro_f1": macro_f1(self.codes[val], logits.argmax(axis=1), self.n_classes),
            "seconds": seconds,
        }
        self.history.append(row)
        score = (row["val_macro_f1"], -row["val_loss"])
        if not self.best or score > (self.best["val_macro_f1"], -self.best["val_loss"]):
            self.best = {
                "epoch": self.epoch,
                "val_macro_f1": row["val_macro_f1"],
                "val_loss": row["val_loss"],
                "encoder": {k: x.detach().clone() for k, x in self.model.encoder.state_dict().items()},
                "head": {k: x.detach().clone() for k, x in self.head.state_dict().items()},
            }

    def _save(self, folder: Path) -> None:
        """Everything a run needs to go on, and the best weights."""
        encoder = {f"now.{k}": x for k, x in self.model.encoder.state_dict().items()}
        encoder |= {f"best.{k}": x for k, x in self.best["encoder"].items()}
        training = {f"head.{k}": x for k, x in self.head.state_dict().items()}
        training |= {f"best.{k}": x for k, x in self.best["head"].items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            training |= {f"optimizer.{index}.{k}": torch.as_tensor(x) for k, x in state.items()}
        state = {
            "step": self.epoch,
            "run": self._identity(),
            "history": self.history,
            "best": {name: self.best[name] for name in ("epoch", "val_macro_f1", "val_loss")},
        }
        save_checkpoint(folder, Checkpoint(state, encoder, training), keep=1)

    def _identity(self) -> dict[str, Any]:
        """What must be the same to go on."""
        settings = dataclasses.asdict(self.config)
        settings.pop("max_epochs")  # more epochs than before may be asked for
        digest = hashlib.sha256()
        for array in (
            self.tokens.gene_ids,
            self.tokens.values,
            self.tokens.indptr,
            self.codes,
            *vars(self.split).values(),
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        return {
            "cells": digest.hexdigest(),
            "model": self.begin_state,
            "n_classes": self.n_classes,
            **settings,
        }

    def _n_steps(self) -> int:
        return -(-len(self.split.train) // self.config.batch_size)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
