"""A recipe file from data to a saved model; what `scellm pretrain` runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data import Corpus
from ..models import CellLM, save
from ..models._folder import check_replaceable
from ..models._manifest import ALL_FILES
from ..train import World
from ..train._recipe_file import RecipeFile
from ..train._resume import Resume
from ._pretrain import pretrain


def run_recipe(
    recipe: RecipeFile,
    data: Sequence[str | Path],
    out: Path,
    *,
    resume: Resume = "auto",
    device: str = "auto",
    layer: str | None = None,
    gene_key: str | None = None,
    show_progress: bool = True,
) -> CellLM:
    """Train all stages of a recipe, each in its own folder of `out`, and save the model there under its name.

    A stage that is done is not trained again: its newest checkpoint is its end.

    Parameters
    ----------
    recipe
        The recipe; of its `time_limit`, seconds from now, reading and starting count, saving comes on top.
    data
        What `tl.pretrain` takes; empty for the data the recipe names.
    out
        Folder for checkpoints, logs and the model.
    resume, device, layer, gene_key, show_progress
        As in `tl.pretrain`.
    """
    began, time_limit = time.monotonic(), recipe.time_limit
    sources = list(data) or list(recipe.data)
    if not sources:
        msg = "No data: name files or folders on the command line, or in the recipe as data = ['corpus.h5']."
        raise ValueError(msg)
    wanted = [stage.recipe.max_time or 0.0 for stage in recipe.stages]
    if time_limit is not None and not sum(wanted):
        msg = f"A time limit of {time_limit:g} seconds needs a stage that may be shortened: give one a max_time."
        raise ValueError(msg)
    # refused now, not after training
    check_replaceable(out / recipe.name, overwrite=True, contents=ALL_FILES)
    corpus = Corpus.build(sources, layer=layer, gene_key=gene_key, min_overlap=recipe.min_overlap)
    for stage in recipe.stages:
        if stage.recipe.batch_size > corpus.n_cells:
            msg = (
                f"Stage {stage.name!r} has a batch_size of {stage.recipe.batch_size}, but there are only {corpus.n_cells} cells; "
                f"make it smaller, as with --set batch_size={corpus.n_cells}, or give more data."
            )
            raise ValueError(msg)
    model: CellLM | None = None
    stages: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(recipe.stages):
        settings = stage.recipe
        if time_limit is not None and wanted[number]:
            left = max(time_limit - (time.monotonic() - began), 1.0)
            share = wanted[number] / sum(wanted[number:])
            settings = dataclasses.replace(settings, max_time=left * share)
        config = recipe.architecture(stage, len(corpus.vocabulary))
        fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        model = pretrain(
            corpus,
            config=config,
            init=model,
            gene_init=stage.gene_init,
            rng=fields.pop("seed"),
            max_genes=recipe.max_genes,
            device=device,
            checkpoint_dir=out / stage.name,
            resume=resume,
            name=recipe.name,
            show_progress=show_progress,
            **fields,
        )
        stages[stage.name] = model.provenance
    # one account of the data, and of each stage what is its own
    shared = ("datasets", "n_cells", "corpus_fingerprint", "versions", "date", "device")
    model.provenance = {name: stages[recipe.stages[-1].name][name] for name in ("description", *shared)} | {
        "minutes": round(sum(stage["minutes"] for stage in stages.values()), 1),
        "stages": {
            name: {key: x for key, x in stage.items() if key not in (*shared, "description")}
            for name, stage in stages.items()
        },
    }
    if World.current().rank == 0:
        dtype = None if recipe.dtype == "float32" else getattr(torch, recipe.dtype)
        save(model, out / recipe.name, overwrite=True, dtype=dtype)
    return model
