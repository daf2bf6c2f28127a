"""The loop: batch, step, log, checkpoint, resume."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._warn import warn
from ..data import Batch, Corpus, Sampler, shard
from ..metrics import alignment, anisotropy, uniformity
from ..models import choose_precision
from ..nn import CellLMConfig, Encoder, encode_bag
from ._batch import CELLS_PER_DRAW, TrainingBatch, draw_batch
from ._checkpoint import (
    Checkpoint,
    differences,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from ._distributed import World
from ._divide_and_conquer import DivideAndConquer, StepReport
from ._log import Row, TrainingLog, peak_gib
from ._objectives import Heads, Objectives, Totals
from ._recipe import FREE, PretrainConfig

BAG_TOKENS_PER_CHUNK = 200_000
"""Tokens a bag of genes encodes at once: twice as fast on a CPU as the chunks of a transformer."""
CELLS_WATCHED = 256
"""Cells of a batch whose embeddings are looked at for each line of the log."""
IS_CANCER = {"true": 1, "cancer": 1, "malignant": 1, "tumor": 1, "tumour": 1, "1": 1}
IS_NORMAL = {"false": 0, "normal": 0, "healthy": 0, "benign": 0, "non-malignant": 0, "0": 0}
"""What a label of cancer may be called, in lower case."""


@dataclass(frozen=True)
class Prepared:
    """A batch of this process, drawn, and where the sampler stands after it."""

    batch: TrainingBatch
    dataset: np.ndarray
    """(B,) of each of its cells."""
    row: np.ndarray
    """(B,) cell number in its dataset."""
    sampler: dict[str, Any]
    totals: Totals
    """Of this process."""
    n_empty: int


class Cells:
    """Batches of a corpus for one process: which cells, their counts, their labels.

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
        self.corpus, self.recipe, self.world = corpus, recipe, world
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
        self.is_cancer = self._cancer_labels()
        self.cell_type = self._type_labels()

    def prepare(self, step: int) -> Prepared:
        """Draw the batch of the next step."""
        chosen = self.sampler.next()
        own = Batch(chosen.dataset[self.own], chosen.row[self.own])
        counts = sp.csr_array(
            sp.vstack(
                [
                    self.corpus.counts(int(d), own.row[own.dataset == d])
                    for d in dict.fromkeys(own.dataset.tolist())
                ],
                format="csr",
            )
        )
        is_cancer = np.full(len(own.row), np.nan, dtype=np.float32)
        if self.is_cancer is not None:
            is_cancer = self._of(self.is_cancer, own)
        batch = draw_batch(
            counts,
            is_cancer,
            self.recipe,
            step=step,
            first=self.own.start,
            is_packed=self.is_packed,
            device=self.device,
        )
        return Prepared(
            batch,
            own.dataset[batch.cells],
            own.row[batch.cells],
            self.sampler.state_dict(),
            Totals(float(batch.is_masked.sum()), float((~np.isnan(batch.is_cancer)).sum())),
            counts.shape[0] - len(batch.cells),
        )

    def types(self, prepared: Prepared) -> np.ndarray | None:
        """(B,) type of each cell of a batch, -1 unknown; `None` if no objective asks."""
        if self.cell_type is None:
            return None
        return self._of(self.cell_type, Batch(prepared.dataset, prepared.row))

    @staticmethod
    def _of(labels: list[np.ndarray], cells: Batch) -> np.ndarray:
        """Labels of some cells."""
        result = np.empty(len(cells.row), dtype=labels[0].dtype)
        for d in np.unique(cells.dataset):
            result[cells.dataset == d] = labels[d][cells.row[cells.dataset == d]]
        return result

    def _cancer_labels(self) -> list[np.ndarray] | None:
        if "normal_cancer" not in self.recipe.objectives:
            return None
        meaning = IS_CANCER | IS_NORMAL
        labels = [
            np.array([meaning.get(str(x).strip().lower(), np.nan) for x in column], dtype=np.float32)
            for column in self.corpus.labels(self.recipe.cancer_key)
        ]
        found = np.unique(np.concatenate(labels))
        found = found[~np.isnan(found)]
        if len(found) < 2:
            what = "no label" if not len(found) else "only cancer cells" if found[0] else "only normal cells"
            msg = (
                f"The objective 'normal_cancer' needs cells of both kinds; obs[{self.recipe.cancer_key!r}] has {what}. "
                f"Cancer is {sorted(IS_CANCER)}, normal {sorted(IS_NORMAL)}, anything else unknown. Pass cancer_key= "
                "with another column, or leave the objective out."
            )
            raise ValueError(msg)
        return labels

    def _type_labels(self) -> list[np.ndarray] | None:
        if "supervised" not in self.recipe.objectives and not self.recipe.exclude_same_type:
            return None
        columns = self.corpus.labels(self.recipe.type_key)
        types = sorted({str(x) for column in columns for x in np.unique(column)} - {""})
        if not types:
            msg = (
                f"No cell has a type in obs[{self.recipe.type_key!r}], and 'supervised' or exclude_same_type asks for "
                "it. Pass type_key= with another column, or leave that out."
            )
            raise ValueError(msg)
        code = {name: i for i, name in enumerate(types)} | {"": -1}
        return [np.array([code[str(x)] for x in column], dtype=np.int64) for column in columns]


def train(
    encoder: Encoder,
    corpus: Corpus,
    recipe: PretrainConfig,
    *,
    device: torch.device,
    world: World | None = None,
    checkpoint_dir: Path | None = None,
    resume: Literal["auto", "never", "must", "force"] = "auto",
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
        `"auto"`: go on from the newest checkpoint in the folder, if there is one. `"must"`: refuse if there is none.
        `"never"`: refuse if there is one. `"force"`: go on although corpus or recipe have changed.
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
    RuntimeError
        Another process is gone.
    """
    return Run(encoder, corpus, recipe, device, world or World.current()).train(
        checkpoint_dir, resume, show_progress=show_progress
    )


class Run:
    """One run: its networks, optimiser and position. Used once, by `train`."""

    def __init__(
        self, encoder: Encoder, corpus: Corpus, recipe: PretrainConfig, device: torch.device, world: World
    ) -> None:
        config = encoder.config
        if config.is_bag and recipe.masks:
            msg = (
                "An encoder of depth 0 cannot predict masked genes: it sees no other gene of the cell. Leave "
                "'masked_gene' and 'masked_value' out, or take a deeper one."
            )
            raise ValueError(msg)
        compares = {"contrastive", "supervised"} & set(recipe.objectives)
        if compares and recipe.views.is_identity and not config.dropout and not recipe.masks:
            msg = (
                "Both views of a cell would be equal: these views differ by dropout only, and the encoder has none. "
                "Pass dropout=0.1, or views='genes+counts'."
            )
            raise ValueError(msg)
        self.corpus, self.recipe, self.device, self.world = corpus, recipe, device, world
        self.encoder = encoder.to(device).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            heads = Heads(
                config.dim, temperature=recipe.temperature, learn_temperature=recipe.learn_temperature
            )
        self.heads = heads.to(device).train()
        self.cells = Cells(corpus, recipe, world, is_packed=config.is_bag, device=device)
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
        self.trained = self._trained_parameters()
        self.optimizer = _optimizer(self.trained, recipe)
        self.average = (
            {name: p.detach().clone() for name, p in self.trained.items()} if recipe.ema is not None else None
        )
        self.n_done = self._saved_at = 0
        self.seconds = self._logged_at = 0.0
        self.n_cells = 0  # since the last line of the log
        self._sampler_state = self.cells.sampler.state_dict()

    def train(
        self, folder: Path | None, resume: Literal["auto", "never", "must", "force"], *, show_progress: bool
    ) -> list[Row]:
        """Take all steps that are left."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._resume(folder, resume)
        is_first = self.world.rank == 0
        log = TrainingLog(folder if is_first else None, step=self.n_done)
        n_steps = self.recipe.n_steps(self.corpus.n_cells)
        self._warn_of_few_negatives()
        start, since_log = time.monotonic() - self.seconds, _Means()
        with (
            tqdm(
                total=n_steps,
                initial=self.n_done,
                desc="pretrain",
                unit="step",
                disable=not (show_progress and is_first),
            ) as progress,
            self._batches(n_steps) as batches,
            self._only_trained(),
        ):
            for prepared in batches:
                self.seconds = self._clock(time.monotonic() - start)
                share = _share(self.n_done, n_steps, self.seconds, self.recipe.max_time)
                if share >= 1:
                    break
                rate = self.recipe.peak_learning_rate * _schedule(share, self.recipe.warmup)
                row = self._take(prepared, rate, folder)
                self.n_done += 1
                self._sampler_state = prepared.sampler
                since_log.add(row)
                is_last = self.n_done == n_steps
                if self.n_done == 1 or self.n_done % self.recipe.log_every == 0 or is_last:
                    line = self._line(prepared, rate, since_log, time.monotonic() - start)
                    if is_first:
                        log.add(line)
                        progress.set_postfix(_short(line))
                progress.update()
                if self.n_done % self.recipe.checkpoint_every == 0 or is_last:
                    self.seconds = time.monotonic() - start
                    self._save(folder)
            self._save(folder)  # where the clock ended the run
        self._finish()
        return log.rows

    @contextlib.contextmanager
    def _batches(self, n_steps: int | None) -> Iterator[Iterator[Prepared]]:
        """Batches to come, each drawn while the one before is trained on."""

        def batches(executor: ThreadPoolExecutor) -> Iterator[Prepared]:
            step = self.n_done
            waiting = executor.submit(self.cells.prepare, step)
            while n_steps is None or step < n_steps:
                prepared = waiting.result()
                step += 1
                if n_steps is None or step < n_steps:
                    waiting = executor.submit(self.cells.prepare, step)
                yield prepared

        with ThreadPoolExecutor(1, thread_name_prefix="scellm-batches") as executor:
            if n_steps is not None and self.n_done >= n_steps:
                yield iter(())
            else:
                yield batches(executor)

    def _take(self, prepared: Prepared, rate: float, folder: Path | None) -> Row:
        """One optimiser step."""
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
        types = self.cells.types(prepared)
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
        if self.average is not None:
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter.detach(), 1 - recipe.ema)
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

    def _line(self, prepared: Prepared, rate: float, since_log: _Means, seconds: float) -> Row:
        """A line of the log."""
        means = since_log.take()
        quality = self._quality(prepared.batch)
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

    @torch.no_grad()
    def _quality(self, batch: TrainingBatch) -> Row:
        """Alignment, uniformity and anisotropy of the embeddings of some cells."""
        n = len(batch) // 2
        some = np.linspace(0, n - 1, min(n, CELLS_WATCHED)).astype(np.int64)  # of all datasets
        self.encoder.eval()
        objectives = self.objectives
        views = []
        for offset in (0, n):
            arguments = batch[some + offset]
            arguments.pop("is_cancer")
            arguments.pop("is_masked", None)
            with torch.autocast(
                self.device.type, objectives.autocast, enabled=objectives.autocast != torch.float32
            ):
                if batch.is_packed:
                    cells = encode_bag(self.encoder, **arguments)
                else:
                    cells = self.encoder(**arguments).cells
            views.append(cells.float().cpu().numpy())
        self.encoder.train()
        if len(some) < 2:
            return {}
        return {
            "alignment": alignment(*views),
            "uniformity": uniformity(views[0]),
            "anisotropy": anisotropy(views[0]),
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
            part = path.with_suffix(".part.npz")
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
            part.replace(path)
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
        largest = int(np.ceil(self.cells.sampler.shares.max()))
        if largest < self.recipe.batch_size / 8 and self.n_done == 0 and self.world.rank == 0:
            warn(
                f"batch_size={self.recipe.batch_size}, but negatives are within a cell's dataset, and the largest share "
                f"of one dataset is about {largest} cells: that is the contrastive batch. Pass datasets_per_batch=4 to take "
                "each batch from fewer datasets, or negatives='all'."
            )

    def _trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Parameters that change, by name; which those are is known before the first step."""
        recipe = self.recipe
        heads = {
            "contrastive": bool({"contrastive", "supervised"} & set(recipe.objectives)),
            "masked_value": "masked_value" in recipe.objectives,
            "cancer": "normal_cancer" in recipe.objectives,
            "log_temperature": recipe.learn_temperature,
        }
        unused = [] if recipe.masks else ["masked_gene.", "expression.mask_embedding"]
        trained = {
            f"encoder.{name}": p
            for name, p in self.encoder.named_parameters()
            if not name.startswith((*recipe.freeze, *unused))
        }
        names = [name for name, _ in self.encoder.named_parameters()]
        for prefix in recipe.freeze:
            if not any(name.startswith(prefix) for name in names):
                msg = f"freeze={prefix!r} is the beginning of no parameter; there are {names}."
                raise ValueError(msg)
        trained |= {
            f"heads.{name}": p for name, p in self.heads.named_parameters() if heads[name.partition(".")[0]]
        }
        if not trained:
            msg = "Nothing is left to train: freeze= names all parameters."
            raise ValueError(msg)
        return trained

    @contextlib.contextmanager
    def _only_trained(self) -> Iterator[None]:
        """Switch gradients of other parameters off for the time of the run."""
        trained = {id(p) for p in self.trained.values()}
        others = [
            p
            for module in (self.encoder, self.heads)
            for p in module.parameters()
            if id(p) not in trained and p.requires_grad
        ]
        for parameter in others:
            parameter.requires_grad_(requires_grad=False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(requires_grad=True)

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        genes = "\n".join(self.corpus.vocabulary.symbols.tolist())
        cells = hashlib.sha256(self.corpus.fingerprint.encode())
        for labels in (self.cells.is_cancer, self.cells.cell_type):
            for column in labels or []:
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
        for name, parameter in self.trained.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                training[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        if self.average is not None:
            training |= {f"average.{name}": x for name, x in self.average.items()}
        state = {
            "step": self.n_done,
            "seconds": self.seconds,
            "sampler": self._sampler_state,
            "world_size": self.world.size,
            **self._identity(),
        }
        checkpoint = Checkpoint(state, self.encoder.state_dict(), training)
        save_checkpoint(folder, checkpoint, keep=self.recipe.keep_checkpoints)

    def _resume(self, folder: Path | None, resume: str) -> None:
        """Go to where the newest checkpoint is."""
        path = None if folder is None else newest_checkpoint(folder)
        if path is None:
            if resume == "must":
                msg = f"resume='must', but there is no checkpoint in {folder}."
                raise FileNotFoundError(msg)
            return
        if resume == "never":
            msg = f"resume='never', but {folder} holds {path.name}. Choose another checkpoint_dir, or delete it."
            raise FileExistsError(msg)
        checkpoint = load_checkpoint(path)
        self._check_same_run(path, checkpoint.state, force=resume == "force")
        self.encoder.load_state_dict(checkpoint.encoder)
        parts: dict[str, dict[str, Tensor]] = {"heads": {}, "optimizer": {}, "average": {}}
        for name, value in checkpoint.training.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self.heads.load_state_dict(parts["heads"])
        for name, value in parts["optimizer"].items():
            key, _, parameter = name.partition(".")
            if parameter in self.trained:
                own = value if key == "step" else value.to(self.device)
                self.optimizer.state[self.trained[parameter]][key] = own.clone()
        if self.average is not None:
            self.average |= {name: x.to(self.device) for name, x in parts["average"].items()}
        self.cells.sampler.load_state_dict(checkpoint.state["sampler"])
        self._sampler_state = checkpoint.state["sampler"]
        self.n_done = self._saved_at = checkpoint.state["step"]
        self.seconds = self._logged_at = checkpoint.state["seconds"]

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
        if changed := differences(state["recipe"], own["recipe"], but=FREE):
            problems.append(f"the recipe has changed ({'; '.join(changed)})")
        if problems and not force:
            msg = (
                f"{path} cannot be resumed: {' and '.join(problems)}. Pass resume='force' to go on all the same, or "
                "another checkpoint_dir to start anew."
            )
            raise ValueError(msg)
        if state["world_size"] != self.world.size and self.world.rank == 0:
            warn(
                f"The run was started with {state['world_size']} processes and goes on with {self.world.size}: the "
                "batches are the same, the result is so up to rounding."
            )

    def _finish(self) -> None:
        """Leave the encoder ready for use, with the averaged weights if there are."""
        if self.average is not None:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(self.average[name])
        self.encoder.eval()


class _Means:
    """Means of numbers since they were last taken."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, row: Row) -> None:
        for name, value in row.items():
            self._values.setdefault(name, []).append(value)

    def take(self) -> Row:
        means = {name: float(np.mean(values)) for name, values in self._values.items()}
        self._values = {}
        return means


def _tokens_per_chunk(recipe: PretrainConfig, config: CellLMConfig) -> int | Literal["auto"]:
    """A bag keeps next to nothing of a token, so that larger chunks cost no memory and save the time of small ones."""
    is_auto = recipe.tokens_per_chunk == "auto"
    return BAG_TOKENS_PER_CHUNK if is_auto and config.is_bag else recipe.tokens_per_chunk


def _optimizer(parameters: Mapping[str, torch.nn.Parameter], recipe: PretrainConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices but not embeddings, norms, gains and biases."""
    is_matrix = {name: p.ndim == 2 and "embedding" not in name for name, p in parameters.items()}
    groups = [
        {
            "params": [p for name, p in parameters.items() if is_matrix[name] is chosen],
            "weight_decay": decay,
        }
        for chosen, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=recipe.peak_learning_rate, betas=(0.9, 0.98))


def _share(step: int, n_steps: int | None, seconds: float, max_time: float | None) -> float:
    """How much of the run is done, by steps or by the clock."""
    by_steps = 0.0 if n_steps is None else step / n_steps
    return by_steps if max_time is None else max(by_steps, seconds / max_time)


def _schedule(done: float, warmup: float) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if done < warmup:
        return max(done / warmup, 1e-3)
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (done - warmup) / max(1 - warmup, 1e-9)))


def _generator(seed: int, step: int) -> torch.Generator:
    """Generator of a step that all processes share."""
    state = np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


def _short(line: Row) -> dict[str, str]:
    """What the progress bar shows."""
    shown = ("contrastive", "supervised", "masked_gene", "masked_value", "normal_cancer")
    short = {name: f"{line[name]:.3f}" for name in shown if name in line}
    return short | {"cells/s": f"{line['cells_per_second']:.0f}", "GiB": f"{line['memory_gib']:.1f}"}
