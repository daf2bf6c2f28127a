"""The trainer: batch, step, log, checkpoint."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from .._files import replacing, tidy_inside
from .._warn import warn
from ..data import Corpus
from ..models import choose_precision
from ..nn import CellLMConfig, Encoder
from ._checkpoint import Checkpoint, differences, save_checkpoint
from ._collapse import REMEDIES, CollapseWatch, collapse
from ._corpus_batches import CorpusBatches, Prepared
from ._distributed import World
from ._divide_and_conquer import DivideAndConquer, StepReport
from ._log import Means, Row, TrainingLog, peak_gib, short
from ._objectives import Heads, Objectives, Totals
from ._optimizer import adamw, only_trained, rate_factor, share_done, trained_parameters
from ._quality import embedding_quality
from ._recipe import CONTRASTIVE, FREE, PretrainConfig
from ._resume import (
    Resume,
    find_checkpoint,
    load_optimizer,
    optimizer_tensors,
    refuse_changes,
    split_names,
)

BAG_TOKENS_PER_CHUNK = 200_000
"""Tokens a bag of genes encodes at once: twice as fast on a CPU as the chunks of a transformer."""


def train(
    encoder: Encoder,
    corpus: Corpus,
    recipe: PretrainConfig,
    *,
    device: torch.device,
    world: World | None = None,
    checkpoint_dir: Path | None = None,
    resume: Resume = "auto",
    show_progress: bool = True,
) -> list[Row]:
    """Train an encoder in place.

    Everything random comes from the seed and the number of the step, so a run that was stopped at a checkpoint and
    goes on gives the same weights as one that was not, bit for bit on the same machine.

    Parameters
    ----------
    encoder
        The encoder.
    corpus
        The cells.
    recipe
        The recipe.
    device
        Where to train.
    world
        Processes that share each batch, with the same arguments; `None` is `World.current()`.
    checkpoint_dir
        Folder for checkpoints and `log.csv`; `None` writes nothing.
    resume
        As in `tl.pretrain`.
    show_progress
        Show a progress bar (process 0).

    Returns
    -------
    The log: a dictionary of numbers per line.

    Raises
    ------
    FileNotFoundError, FileExistsError
        `resume` and the folder do not fit.
    FloatingPointError
        A loss or gradient is not finite.
    KeyError, ValueError
        Labels, batch size, budget, or a checkpoint that does not fit.
    OSError
        A checkpoint could not be written.
    CollapseError
        Cells cannot be told apart any more.
    RuntimeError
        Another process is gone.
    """
    return Trainer(encoder, corpus, recipe, device, world or World.current()).train(
        checkpoint_dir, resume, show_progress=show_progress
    )


class Trainer:
    """One run: its networks, optimizer and position. Used once, by `train`."""

    def __init__(
        self, encoder: Encoder, corpus: Corpus, recipe: PretrainConfig, device: torch.device, world: World
    ) -> None:
        config = encoder.config
        _check(config, recipe)
        self.corpus, self.recipe, self.device, self.world = corpus, recipe, device, world
        self.encoder = encoder.to(device).train()
        self.heads = _new_heads(config.dim, recipe).to(device).train()
        self.batches = CorpusBatches(corpus, recipe, world, is_packed=config.is_bag, device=device)
        self.objectives = Objectives(
            self.encoder,
            self.heads,
            recipe,
            device=device,
            autocast=choose_precision(recipe.precision, device),
            world=world,
        )
        self.step = DivideAndConquer(
            self.objectives.encode,
            self.objectives.loss if self.objectives.compares else None,
            modules=[self.encoder, self.heads],
            memory_budget=recipe.memory_budget,
            tokens_per_chunk=_tokens_per_chunk(recipe, config),
        )
        self.trained = trained_parameters(self.encoder, self.heads, recipe)
        self.optimizer = adamw(self.trained, recipe)
        self.n_done = self._saved_at = 0
        self.seconds = self._logged_at = 0.0
        self.n_cells = 0  # since the last line of the log
        self.since_log = Means()
        self._sampler_state = self.batches.sampler.state_dict()

    def train(self, folder: Path | None, resume: Resume, *, show_progress: bool) -> list[Row]:
        """Take all steps that are left."""
        is_first = self.world.rank == 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if is_first:
                tidy_inside(folder)
        self._resume(folder, resume)
        log = TrainingLog(folder if is_first else None, step=self.n_done)
        n_steps = self.recipe.n_steps(self.corpus.n_cells)
        self._warn_of_few_negatives()
        with tqdm(
            total=n_steps,
            initial=self.n_done,
            desc="pretrain",
            unit="step",
            disable=not (show_progress and is_first),
        ) as progress:
            self._take_steps(n_steps, folder, log, progress)
        self.encoder.eval()
        return log.rows

    def _take_steps(self, n_steps: int | None, folder: Path | None, log: TrainingLog, progress: tqdm) -> None:
        """Steps with their lines of the log and checkpoints, up to the last or until the clock ends the run."""
        recipe, start = self.recipe, time.monotonic() - self.seconds
        watch = CollapseWatch(math.ceil(recipe.warmup * (n_steps or 0)))
        with (
            self.batches.upcoming(self.n_done, n_steps) as batches,
            only_trained(self.trained, (self.encoder, self.heads)),
        ):
            for prepared in batches:
                self.seconds = self._clock(time.monotonic() - start)
                share = share_done(self.n_done, n_steps, self.seconds, recipe.max_time)
                if share >= 1:
                    break
                rate = recipe.peak_learning_rate * rate_factor(share, recipe.warmup)
                self.since_log.add(self._take(prepared, rate, folder))
                self.n_done += 1
                self._sampler_state = prepared.sampler
                is_last = self.n_done == n_steps
                if self.n_done == 1 or self.n_done % recipe.log_every == 0 or is_last:
                    line = self._line(prepared, rate, time.monotonic() - start)
                    if self.world.rank == 0:
                        log.add(line)
                        progress.set_postfix(short(line))
                    self._stop_if_collapsed(watch, line)
                progress.update()
                if self.n_done % recipe.checkpoint_every == 0 or is_last:
                    self.seconds = time.monotonic() - start
                    self._save(folder)
            self._save(folder)  # where the clock ended the run
        if self.world.rank == 0 and (reason := watch.at_end()):
            warn(f"The run may have collapsed: {reason}, too few to be sure. {REMEDIES}")

    def _take(self, prepared: Prepared, rate: float, folder: Path | None) -> Row:
        """One optimizer step."""
        recipe, objectives = self.recipe, self.objectives
        if recipe.redraw_every and self.n_done and self.n_done % recipe.redraw_every == 0:
            self.encoder.redraw_projections(_generator(recipe.seed, self.n_done))
        if not len(prepared.batch.cells):
            msg = (
                f"All cells of the batch of step {self.n_done} are empty: no vocabulary gene in either view."
            )
            raise ValueError(msg)
        counts = torch.tensor(
            [prepared.totals.n_masked, prepared.totals.n_labelled, prepared.n_empty],
            dtype=torch.float64,
            device=self._wide_device,
        )
        n_masked, n_labelled, n_empty = self.world.sum(counts).tolist()
        objectives.totals = Totals(max(n_masked, 1.0), max(n_labelled, 1.0))
        objectives.group = torch.from_numpy(prepared.dataset.astype(np.int64)).to(self.device)
        types = self.batches.types(prepared)
        objectives.cell_type = None if types is None else torch.from_numpy(types).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        report = self.step(prepared.batch)
        parameters = list(self.trained.values())
        self.world.sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        losses = self._losses(report)
        if not math.isfinite(float(norm) + sum(losses.values())):
            self._not_finite(prepared, report, losses, float(norm), folder)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.n_cells += recipe.batch_size
        return losses | {
            "gradient_norm": float(norm),
            "kept_chunks": report.n_kept / report.n_chunks,
            "n_empty": n_empty,
        }

    def _losses(self, report: StepReport) -> Row:
        """Each objective by itself, without its weight, over all processes."""
        weights = self.recipe.objectives
        sums = {name: report.losses[name] / weights[name] for name in weights if name in report.losses}
        sums.pop("contrastive", None)
        if sums:
            values = torch.tensor(list(sums.values()), dtype=torch.float64, device=self._wide_device)
            sums = dict(zip(sums, self.world.sum(values).tolist(), strict=True))
        found = self.objectives.compared | sums
        return {name: found[name] for name in weights if name in found}

    @property
    def _wide_device(self) -> torch.device:
        """Where exchanges of double precision are made: MPS has none, and exchanges nothing."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def _line(self, prepared: Prepared, rate: float, seconds: float) -> Row:
        """A line of the log."""
        means = self.since_log.take()
        quality = embedding_quality(self.encoder, prepared.batch, self.objectives.autocast)
        n_cells, self.n_cells = self.n_cells, 0
        elapsed = max(seconds - self._logged_at, 1e-9)
        self._logged_at = seconds
        return {
            "step": float(self.n_done),
            "seconds": seconds,
            "learning_rate": rate,
            **means,
            "temperature": float(self.heads.temperature.detach()),
            **quality,
            "cells_per_second": n_cells / elapsed,
            "memory_gib": peak_gib(self.device),
        }

    def _not_finite(
        self, prepared: Prepared, report: StepReport, losses: Row, norm: float, folder: Path | None
    ) -> None:
        """Stop, and leave the batch for a look."""
        bad = ~report.representations.isfinite().all(1).cpu().numpy()
        n = len(prepared.row)
        cells = [
            f"{self.corpus.names[prepared.dataset[i]]} cell {prepared.row[i]}"
            for i in np.flatnonzero(bad[:n] | bad[n:])[:5]
        ]
        where = ""
        if folder is not None:
            path = folder / f"not-finite-step-{self.n_done:08d}-rank-{self.world.rank}.npz"
            tokens = prepared.batch.tokens
            with replacing(path) as part:
                np.savez_compressed(
                    part,
                    dataset=np.array([self.corpus.names[d] for d in prepared.dataset]),
                    row=prepared.row,
                    gene_ids=tokens.gene_ids,
                    values=tokens.values,
                    indptr=tokens.indptr,
                    is_masked=prepared.batch.is_masked,
                    representations=report.representations.cpu().numpy(),
                )
            where = f" The batch is in {path}."
        msg = (
            f"Step {self.n_done}: a loss or the gradient is not finite ({losses}, gradient norm {norm}); weights were "
            f"not changed. Representations that are not finite: {', '.join(cells) or 'none'}.{where} Try a lower "
            "learning_rate, precision='fp32', or a higher temperature; the run resumes from its newest checkpoint."
        )
        raise FloatingPointError(msg)

    def _clock(self, seconds: float) -> float:
        """Seconds of process 0, so that all end at the same step."""
        if self.recipe.max_time is None or self.world.size == 1:
            return seconds
        own = seconds if self.world.rank == 0 else 0.0
        return float(self.world.sum(torch.tensor(own, dtype=torch.float64, device=self._wide_device)))

    def _warn_of_few_negatives(self) -> None:
        """Say when the batch is large but no cell has many others to be told from."""
        if self.recipe.negatives != "dataset" or not self.objectives.compares or len(self.corpus) == 1:
            return
        largest = int(np.ceil(self.batches.sampler.shares.max()))
        if largest < self.recipe.batch_size / 8 and self.n_done == 0 and self.world.rank == 0:
            warn(
                f"batch_size={self.recipe.batch_size}, but negatives are within a cell's dataset, and the largest share "
                f"of one dataset is about {largest} cells: that is the contrastive batch. Pass datasets_per_batch=4 to take "
                "each batch from fewer datasets, or negatives='all'."
            )

    def _stop_if_collapsed(self, watch: CollapseWatch, line: Row) -> None:
        """Stop all processes where the first sees a collapse."""
        reason = watch.look(line, self.objectives.compared.get("contrastive"), self.objectives.guessing())
        found = float(reason is not None and self.world.rank == 0)
        if self.world.sum(torch.tensor(found, dtype=torch.float64, device=self._wide_device)):
            raise collapse(self.n_done, reason or "as process 0 found")

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        genes = "\n".join(self.corpus.vocabulary.symbols.tolist())
        cells = hashlib.sha256(self.corpus.fingerprint.encode())
        for column in self.batches.labels:
            cells.update(column.tobytes())
        return {
            "config": self.encoder.config.to_dict(),
            "vocabulary": hashlib.sha256(genes.encode()).hexdigest(),
            "corpus": cells.hexdigest(),
            "recipe": self.recipe.to_dict(),
        }

    def _save(self, folder: Path | None) -> None:
        """Write a checkpoint (process 0), unless this step has one."""
        if self.world.rank != 0 or folder is None or self._saved_at == self.n_done:
            return
        self._saved_at = self.n_done
        training = {f"heads.{name}": x for name, x in self.heads.state_dict().items()}
        training |= optimizer_tensors(self.optimizer, self.trained)
        state = {
            "step": self.n_done,
            "seconds": self.seconds,
            "sampler": self._sampler_state,
            "since_log": {
                "values": self.since_log.values,
                "n_cells": self.n_cells,
                "seconds": self._logged_at,
            },
            "world_size": self.world.size,
            "views_on": self.batches.views_on,
            **self._identity(),
        }
        checkpoint = Checkpoint(state, self.encoder.state_dict(), training)
        save_checkpoint(folder, checkpoint, keep=self.recipe.keep_checkpoints)

    def _resume(self, folder: Path | None, resume: Resume) -> None:
        """Go to where the newest checkpoint is."""
        found = find_checkpoint(folder, resume)
        if found is None:
            return
        path, checkpoint = found
        state = checkpoint.state
        self._check_same_run(path, state, force=resume == "force")
        self.encoder.load_state_dict(checkpoint.encoder)
        parts = split_names(checkpoint.training)
        self.heads.load_state_dict(parts["heads"])
        load_optimizer(self.optimizer, self.trained, parts.get("optimizer", {}))
        self.batches.sampler.load_state_dict(state["sampler"])
        self._sampler_state = state["sampler"]
        self.n_done = self._saved_at = state["step"]
        self.seconds = self._logged_at = state["seconds"]
        if "since_log" in state:  # steps that no line of the log holds yet
            self.since_log.values = {name: list(x) for name, x in state["since_log"]["values"].items()}
            self.n_cells = state["since_log"]["n_cells"]
            self._logged_at = state["since_log"]["seconds"]

    def _check_same_run(self, path: Path, state: Mapping[str, Any], *, force: bool) -> None:
        """Refuse to go on with something else; say so where it only changes rounding."""
        own = self._identity()
        if changed := differences(state["config"], own["config"]):
            msg = f"{path} is of another architecture ({'; '.join(changed)}). Choose another checkpoint_dir."
            raise ValueError(msg)
        if state["vocabulary"] != own["vocabulary"]:
            msg = f"{path} was trained over another gene vocabulary. Choose another checkpoint_dir."
            raise ValueError(msg)
        problems = []
        if state["corpus"] != own["corpus"]:
            problems.append("the corpus is not the one the run was started with (its fingerprint differs)")
        before = {
            **PretrainConfig().to_dict(),
            **state["recipe"],
        }  # what an older scellm did not have is as by default
        if changed := differences(before, own["recipe"], but=FREE):
            problems.append(f"the recipe has changed ({'; '.join(changed)})")
        refuse_changes(path, problems, force=force)
        drawn_on = state.get("views_on", "host")
        if drawn_on != self.batches.views_on and self.world.rank == 0:
            warn(
                f"The run drew its views on the {drawn_on} and goes on drawing them on the {self.batches.views_on}: other "
                f"views of the same kind. For the same ones pass views_on={drawn_on!r} from the start."
            )
        if state["world_size"] != self.world.size and self.world.rank == 0:
            warn(
                f"The run was started with {state['world_size']} processes and goes on with {self.world.size}: the "
                "batches are the same, the result is so up to rounding."
            )


def _check(config: CellLMConfig, recipe: PretrainConfig) -> None:
    """Refuse a recipe that this architecture cannot learn from."""
    if config.is_bag and recipe.masks:
        msg = (
            "An encoder of depth 0 cannot predict masked genes: it sees no other gene of the cell. Leave "
            "'masked_gene' and 'masked_value' out, or take a deeper one."
        )
        raise ValueError(msg)
    compares = set(CONTRASTIVE) & set(recipe.objectives)
    if compares and recipe.views.is_identity and not config.dropout and not recipe.masks:
        msg = (
            "Both views of a cell would be equal: these views differ by dropout only, and the encoder has none. "
            "Pass dropout=0.1, or views='genes+counts'."
        )
        raise ValueError(msg)


def _new_heads(dim: int, recipe: PretrainConfig) -> Heads:
    """Heads that depend on the seed alone; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Heads(dim, temperature=recipe.temperature, learn_temperature=recipe.learn_temperature)


def _tokens_per_chunk(recipe: PretrainConfig, config: CellLMConfig) -> int | Literal["auto"]:
    """A bag keeps next to nothing of a token, so that larger chunks cost no memory and save the time of small ones."""
    is_auto = recipe.tokens_per_chunk == "auto"
    return BAG_TOKENS_PER_CHUNK if is_auto and config.is_bag else recipe.tokens_per_chunk


def _generator(seed: int, step: int) -> torch.Generator:
    """Generator of a step that all processes share."""
    state = np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)
