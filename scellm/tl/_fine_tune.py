"""fine_tune: labeled cells -> a model with a head for their classes."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .._checks import check_choice, check_free, check_key
from .._containers import takes_cells
from .._keys import FINE_TUNE
from .._records import FitRecord
from .._warn import warn
from ..annotation._measure import measured
from ..metrics._calibration import softmax
from ..models import CellLM, choose_device, load
from ..train._fine_tune import LabelledTokens, fine_tune_encoder
from ..train._fine_tune_options import FineTuneConfig, FineTuneOptions
from ._fine_tune_parts import Parts, annotator_of, compare, report_of, split_labelled
from ._fine_tuned import cell_marks, labelled_tokens, warn_of_copies, with_head
from ._read_labels import read_labels

if TYPE_CHECKING:
    import torch

STRATEGIES = ("head", "lora", "full")
logger = logging.getLogger(__name__)


@takes_cells
def fine_tune(
    adata: AnnData,
    labels: str,
    *,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    strategy: Literal["lora", "head", "full"] = "lora",
    training: FineTuneOptions | None = None,
    val_by: str | None = None,
    test_by: str | None = None,
    val_size: float = 0.1,
    test_size: float = 0.2,
    calibrate: bool = True,
    baseline: bool | Sequence[str] = True,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never", "must"] = "auto",
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    device: torch.device | str = "auto",
    rng: int = 0,
    key_added: str = FINE_TUNE,
) -> CellLM:
    """Train a model on the labels of your cells, and say whether that was worth it.

    The cells are split three ways. The head, and with `strategy` the encoder, is fitted on the training cells; the
    validation cells choose the epoch and calibrate the confidence; the test cells are looked at once, at the end. With
    `val_by` whole donors or batches are held out, so that the numbers are those for new donors. For a few labeled cells
    among many, such as responders to a drug, see `tl.few_shot`.

    Simple baselines are trained on the same split, and if one is better, the report and a warning say so: for many data
    sets logistic regression on the genes is hard to beat :cite:p:`Boiarsky2024`.

    The result is a model of its own, with the head in its `parts`: `tl.annotate(other, result)` uses it, `models.save` and
    `models.load` keep it.

    Parameters
    ----------
    adata
        Labeled cells; cells without a label are left out.
    labels
        Column of `adata.obs` with the classes.
    model
        Where to start: a name, a folder or a loaded model. It is not changed.
    strategy
        `"head"`: logistic regression on the frozen embedding, seconds. `"lora"`: from there, low-rank changes of the
        encoder's embeddings and layers too :cite:p:`Hu2022`. `"full"`: all of its weights. The frozen start is kept if
        no epoch is better on the validation cells.
    training
        How long and how strongly it is trained: `train.FineTuneOptions(max_epochs=10)`; `None` takes its defaults.
    val_by
        Column of `adata.obs` with donors or batches; whole groups are held out for validation. `None` holds out cells.
    test_by
        The same for the test cells; `None` takes `val_by`.
    val_size, test_size
        Share of the labeled cells in each part, about; `test_size=0` makes no test part.
    calibrate
        Fit temperature, prediction sets and novelty on the validation cells. Without, `tl.annotate` gives plain softmax
        scores and no sets.
    baseline
        Baselines to train on the same split, names of `metrics.compare_baselines`. `True` is logistic regression and
        PCA with neighbors, which take seconds.
    checkpoint_dir
        Folder for the state after each epoch. A call with the same cells and settings continues there and ends with the
        weights it would have had without the stop. Not with `strategy="head"`, which has no epochs.
    resume
        As in `tl.pretrain`: `"auto"` continues from a checkpoint in `checkpoint_dir` if there is one, `"must"` refuses if
        there is none, `"never"` refuses if there is one.
    layer, use_raw, gene_key, min_overlap, device
        As in `tl.embed`.
    rng
        Seed of the split and of all that is drawn.
    key_added
        Key of the report.

    Returns
    -------
    The fine-tuned model, with its `history` for `pl.training_history`. Sets, when all is done:

    `adata.uns[key_added]` : dict
        `classes`, `settings`, `n_train`, `n_val`, `n_test`, `excluded_classes`; under `test` (or, without test cells, under
        `val`, which is too good, as these chose the epoch) macro-F1, accuracy, balanced accuracy, calibration error
        before and after, F1 and number of cells of each class, and coverage of the prediction sets at target errors
        `target_errors`; under `baselines` the same scores for each method in `methods`; `summary` in words; the split
        as `split`, (n_obs,) text "train", "val", "test" or "".

    Raises
    ------
    FileExistsError
        `resume="never"` with a checkpoint.
    FileNotFoundError
        `resume="must"` without a checkpoint.
    KeyError
        A column or layer is not there.
    TypeError
        `adata` is not an AnnData; labels are measurements.
    ValueError
        Fewer than two classes; names that differ only by case; too few groups; a checkpoint of other cells or settings;
        options out of range, or without effect with this `strategy`; data that `tl.embed` would refuse.

    Warns
    -----
    UserWarning
        Cells or classes were left out; groups that a random split tears apart; held-out cells that are copies of training
        cells; too few cells to calibrate on; a baseline is better.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(200, n_vars=1950)
    >>> model = scellm.tl.fine_tune(
    ...     adata, "cell_type", val_by="donor", test_size=0, strategy="head", baseline=False
    ... )
    >>> new = scellm.datasets.toy_cells(12, n_vars=1950)
    >>> scellm.tl.annotate(new, model)
    >>> new.obs["scellm_cell_type"].tolist()[:2]
    ['B cell', 'CD4 T cell']
    """
    training = FineTuneOptions() if training is None else training
    check_choice(adata, layer, use_raw)
    check_key(key_added)
    check_resume(strategy, checkpoint_dir, resume)
    training.check_acts(strategy)
    config = FineTuneConfig(strategy=strategy, seed=rng, **vars(training))
    held_out = Parts(val_by, test_by or val_by, val_size, test_size, rng)
    check_free(adata, key_added)
    chosen_device = choose_device(device)
    read = read_labels(adata, labels, name="adata", min_cells=max(training.min_cells, 2))
    model = model if isinstance(model, CellLM) else load(model)
    data = {"layer": layer, "use_raw": use_raw, "gene_key": gene_key, "min_overlap": min_overlap}
    tokens, rows = labelled_tokens(adata, read, model, data)
    cells = split_labelled(adata, read, rows, held_out)
    warn_of_copies(cell_marks(tokens, model), cells.split.train, cells.split.held_out)
    with _bar(config, len(rows)) as on_epoch:
        tuned = fine_tune_encoder(
            model,
            LabelledTokens(tokens, cells.codes, cells.split, len(cells.classes)),
            config,
            device=chosen_device,
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
            resume=resume,
            on_epoch=on_epoch,
        )
    result = dataclasses.replace(model, encoder=tuned.encoder)
    annotator, logits = annotator_of(result, tokens, cells, tuned, chosen_device, calibrated=calibrate)
    judged = "test" if len(cells.split.test) else "val"
    found = measured(annotator, logits[judged], cells.codes[getattr(cells.split, judged)])
    methods = ("logistic", "pca_knn") if baseline is True else baseline
    comparison = None
    if methods:
        predicted = softmax(logits[judged] / annotator.calibration.temperature)
        comparison = compare(adata, rows, model, data, cells, predicted, methods, rng)
    record = FitRecord(
        labels=labels,
        settings={name: "" if value is None else value for name, value in dataclasses.asdict(config).items()},
        n_unlabeled=read.n_unlabeled,
        excluded_classes=sorted(read.excluded_classes),
        best_epoch=int(tuned.best_epoch),
        seconds=float(tuned.seconds),
        **report_of(adata.n_obs, rows, cells, found, comparison),
    )
    result = with_head(model, tuned.encoder, annotator, record)
    result.history = pd.DataFrame(tuned.history)
    adata.uns[key_added] = record.to_uns()
    logger.info(record.summary)
    if comparison is not None and "better here" in comparison.summary:
        warn(comparison.summary)
    return result


@contextmanager
def _bar(config: FineTuneConfig, n_cells: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """A progress bar, from 2,000 cells on and on a terminal or in a notebook, and what is called after each epoch."""
    is_head = config.strategy == "head"
    total = 0 if is_head else config.max_epochs
    with tqdm(
        total=total, desc="fine-tune", unit="epoch", disable=is_head or n_cells < 2000 or None
    ) as progress:

        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"]:
                progress.n = int(row["epoch"])
                shown = ("cell_type", "val_loss", "val_macro_f1")
                progress.set_postfix({name: f"{row[name]:.3f}" for name in shown if name in row})

        yield on_epoch


def check_resume(strategy: str, checkpoint_dir: str | os.PathLike[str] | None, resume: str) -> None:
    """Refuse checkpoints where there are none."""
    if strategy not in STRATEGIES:
        msg = f"strategy={strategy!r} is unknown; choose one of {list(STRATEGIES)}, or call tl.few_shot for few labeled cells."
        raise ValueError(msg)
    if resume not in ("auto", "never", "must"):
        msg = f"resume={resume!r} is unknown; choose 'auto', 'never' or 'must'."
        raise ValueError(msg)
    if resume != "auto" and checkpoint_dir is None:
        msg = f"resume={resume!r} has no effect without checkpoint_dir=; pass a folder, or leave resume out."
        raise ValueError(msg)
    if strategy == "head" and checkpoint_dir is not None:
        msg = "checkpoint_dir has no effect with strategy='head', which has no epochs; leave it out."
        raise ValueError(msg)
