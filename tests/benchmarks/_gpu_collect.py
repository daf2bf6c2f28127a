"""`gpu.py collect`: pieces -> model folder and page."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from _gpu_pieces import joined
from _report import write

TEXT = """\
One borrowed GPU for minutes, by one command (see {doc}`../dev/gpu`): ceilings of the device, encoders forwards and backwards,
memory of the divide-and-conquer step against the batch at one budget for graphs, and a pretraining run. Shares are of
the dense bf16 peak. Operations are two per multiplication with a weight and of attention, three times the forward
pass; what FAVOR+ computes again in its backward pass is not counted."""
REHEARSAL = """

**This run was on a CPU**: a rehearsal of the command with a small encoder in place of the published one and a few
steps of training. It shows that every part works; the numbers say nothing about a GPU."""


def collect(folder: Path, models: Path | None, *, page: bool) -> dict[str, Any]:
    """Join the pieces, put the model into `models`, and write the page if asked."""
    with tempfile.TemporaryDirectory() as place:
        target = Path(place)
        listed = joined(folder, target)
        run = json.loads((target / "run.json").read_text(encoding="utf-8"))
        measured_at = target / "measured.json"
        measured = json.loads(measured_at.read_text(encoding="utf-8")) if measured_at.exists() else None
        logs = {path.stem: pd.read_csv(path) for path in sorted(target.glob("*.csv"))}
        installed = None
        if models is not None:
            installed = _install(target, models, run["recipe"])
        if page and measured is not None:
            _page(run, measured, logs)
    return {"installed": installed, "run": run, "measured": measured, "left_out": listed["left_out"]}


def _install(target: Path, models: Path, recipe: str) -> Path | None:
    """Copy the model, or make one of the newest weights; `None` without either."""
    made = next(iter(sorted((target / "model").glob("*"))), None)
    if made is None:
        made = _model_of_weights(target, recipe)
    if made is None:
        return None
    from scellm.models import load

    load(made)  # refuses what is damaged before anything is replaced
    models.mkdir(parents=True, exist_ok=True)
    if (models / made.name).exists():
        shutil.rmtree(models / made.name)
    return Path(shutil.copytree(made, models / made.name))


def _model_of_weights(target: Path, recipe: str) -> Path | None:
    """The model of a run that was ended before it could save one, from its newest checkpoint."""
    from safetensors.torch import load_file

    from scellm.data import GeneVocabulary, TokenConfig
    from scellm.models import CellLM, save
    from scellm.nn import CellLMConfig, Encoder
    from scellm.train._recipe_file import read_recipe

    states = sorted((target / "checkpoint").glob("*/state.json"))
    if not states or not (states[-1].parent / "encoder.safetensors").exists():
        return None
    state = json.loads(states[-1].read_text(encoding="utf-8"))
    config = CellLMConfig.from_dict(state["config"])
    encoder = Encoder(config)
    encoder.load_state_dict(load_file(states[-1].parent / "encoder.safetensors"))
    found = read_recipe(recipe)
    model = CellLM(
        encoder=encoder.eval(),
        config=config,
        tokens=TokenConfig(target_sum=state["recipe"]["views"]["target_sum"], max_genes=found.max_genes),
        vocabulary=GeneVocabulary.default(),
        name=found.name,
        provenance={"description": f"Ended by the clock at step {state['step']}.", "recipe": state["recipe"]},
    )
    save(model, target / "rescued" / found.name)
    return target / "rescued" / found.name


def _page(run: dict[str, Any], measured: dict[str, Any], logs: dict[str, pd.DataFrame]) -> None:
    """Write `docs/benchmarks/gpu.md`."""
    tables = {"Ceilings": pd.DataFrame([_readable(measured["ceilings"])])}
    for heading, rows in (
        ("Encoders", measured["encoders"]),
        ("Memory against the batch", measured["batches"]),
    ):
        if rows:
            tables[heading] = pd.DataFrame([_readable(row) for row in rows])
    stages = []
    for name, log in logs.items():
        last = log.iloc[-1]
        stages.append(
            {
                "stage": name,
                "steps": f"{last['step']:.0f}",
                "seconds": f"{last['seconds']:.0f}",
                "cells/s (median of lines)": f"{log['cells_per_second'].median():,.0f}",
                "contrastive loss, first and last": f"{log['contrastive'].iloc[0]:.3f} {last['contrastive']:.3f}",
                "anisotropy": f"{last['anisotropy']:.3f}",
                "memory (GiB)": f"{last['memory_gib']:.1f}",
            }
        )
    if stages:
        tables["Training"] = pd.DataFrame(stages)
    parts = [{"part": name, "end": run[name]["end"], "seconds": f"{run[name]['seconds']:.0f}"}
             for name in ("measure", "train") if name in run]  # fmt: skip
    tables["The command"] = pd.DataFrame(parts)
    pack = run["pack"]
    text = TEXT + (REHEARSAL if measured["facts"]["gpu"] == "none" else "")
    text += (
        f"\n\nThe pack: {pack['bytes'] / 1e6:.1f} MB with {pack['cells']:,} of {pack['cells_of_the_corpus']:,} cells of "
        f"{pack['datasets']} datasets, at most {pack['max_cells']:,} of each, thinned to {pack['max_counts']:,.0f} counts. "
        f"The limit was {run['limit']:.0f} seconds."
    )
    if measured["left_out"]:
        text += "\n\nNot measured: " + "; ".join(measured["left_out"]) + "."
    write("gpu", "One GPU for minutes", text, tables, {"run": run, "measured": measured}, measured["facts"])


def _readable(row: dict[str, Any]) -> dict[str, str]:
    """Numbers with their units in powers of a thousand."""

    def shown(name: str, x: Any) -> str:
        if isinstance(x, str):
            return x
        if name.startswith("of "):
            return f"{x:.1%}"
        for unit, size in ((" T", 1e12), (" G", 1e9)):
            if x >= size:
                return f"{x / size:.3g}{unit}"
        return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"

    return {name: shown(name, x) for name, x in row.items()}
