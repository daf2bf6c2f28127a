"""A model adapted to the cells it embeds, beside the model as it is, PCA, scVI and CONCORD: python tests/benchmarks/adapt.py DATA --held-out MODEL.

    python tests/benchmarks/adapt.py DATA --held-out MODEL [--again] [--trained]
    python tests/benchmarks/adapt.py DATA --held-out MODEL --page     # only writes the page

DATA is the folder with `corpus` and `benchmarks` in it. MODEL is a bag trained without the eight datasets of `validation.py`; on these the
options were chosen. The benchmark sets are measured with `scellm-small` and chose nothing. Sets that are measured already are kept in
`--cache`. NMI and ARI need scib-metrics; `--trained` trains scVI (scvi-tools) and CONCORD (concord-sc) on each benchmark set that has
counts. Writes `docs/benchmarks/adapt.md`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _annotation_parts as parts
import _embedding_methods as methods
import anndata as ad
import batches
import embedding
import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import validation
from _report import DOCS, write

import scellm
from scellm.models import CellLM

NAME = "adapt"
MOST_CELLS = 1_500
"""Cells of a validation dataset."""
OPTIONS = {
    "adapted": {},
    "weight 0.75": {"weight": 0.75},
    "weight 3": {"weight": 3.0},
    "10 components": {"n_components": 10},
    "50 components": {"n_components": 50},
}
OLD, NEW = "scellm", "adapted"
TRAINED = ("scVI", "CONCORD")
"""What is trained on the cells of each set."""


def adapted(adata: ad.AnnData, model: CellLM, other: ad.AnnData | None = None, **options: Any) -> np.ndarray:
    """Embedding of cells by the model adapted to them, or to others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = scellm.tl.adapt(adata if other is None else other, model, min_overlap=0.05, **options)
    return embed(adata, own)


def embed(adata: ad.AnnData, model: CellLM, min_overlap: float = 0.05) -> np.ndarray:
    """Embedding by a model, also of sets of few genes."""
    cells = adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.embed(cells, model, min_overlap=min_overlap, show_progress=False)
    return np.asarray(cells.obsm["X_scellm"])


def of_options(data: Path, name: str, model: CellLM) -> dict[str, Any]:
    """Macro-F1 on a dataset that the model has not seen, options beside each other."""
    adata = validation.read(data, name)
    rows = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:MOST_CELLS])
    adata, labels = adata[rows].copy(), adata.obs["cell_type"].iloc[rows].astype(str)
    vectors = {"PCA": methods.pca(adata), OLD: embed(adata, model)}
    vectors |= {option: adapted(adata, model, **fields) for option, fields in OPTIONS.items()}
    return {key: embedding.score(part, labels, 2)["macro_f1"] for key, part in vectors.items()}


def timed(make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """Vectors, and seconds of the processor."""
    torch.set_num_threads(1)  # numba sets it, and two threads wait for each other
    began = time.process_time()
    return make(), time.process_time() - began


def of_trained(path: Path, model: CellLM) -> dict[str, Any]:
    """Numbers of what is trained on the cells of a benchmark set, none without counts, and how long each way takes."""
    import concord  # noqa: F401  so that importing is not timed
    import scvi  # noqa: F401

    adata, labels = embedding.read(path)
    adata.obs["a batch"] = "one"
    found: dict[str, Any] = {}
    ways = {"PCA": lambda: methods.pca(adata), NEW: lambda: adapted(adata, model)}
    seconds = {key: timed(make)[1] for key, make in ways.items()}
    if scellm.data.describe_values(adata.X).kind == "counts":
        ways = {
            "scVI": lambda: methods.scvi(adata, 0)[0],
            "CONCORD": lambda: batches.concord_latent(adata),
        }
        for key, make in ways.items():
            vectors, seconds[key] = timed(make)
            found[key] = embedding.score(vectors, labels) | embedding.structure(vectors, labels)
    return found | {"seconds": seconds}


def of_set(path: Path, model: CellLM) -> dict[str, Any]:
    """All numbers of a benchmark set."""
    adata, labels = embedding.read(path)
    half = np.random.default_rng(0).permutation(adata.n_obs) < adata.n_obs // 2
    vectors = {"PCA": methods.pca(adata), OLD: embed(adata, model), NEW: adapted(adata, model)}
    found: dict[str, Any] = {
        key: embedding.score(part, labels) | embedding.structure(part, labels)
        for key, part in vectors.items()
    }
    if half.sum() >= 40:
        rest, known = adata[~half].copy(), labels[~half]
        ways = {"PCA of that half": methods.pca(rest), OLD: embed(rest, model)}
        ways[NEW] = adapted(rest, model, adata[half].copy())
        found["halves"] = {key: embedding.score(part, known, 2)["macro_f1"] for key, part in ways.items()}
    return found | {"cells": adata.n_obs}


def few_labels(model: CellLM, seeds: int = 3) -> dict[str, Any]:
    """Macro-F1 from 5, 10 and 50 labeled cells of each type, as on the page of cell types, before and adapted to all cells of the set."""
    rows = []
    for name in parts.data.HELD_OUT:
        adata = parts.data.read(name)
        own = scellm.tl.adapt(adata, model, min_overlap=0.02)
        spaces = {
            OLD: parts.cells_of(adata, model, n_random=0),
            NEW: parts.cells_of(parts.data.read(name), own, n_random=0),
        }
        for shots in parts.SHOTS:
            scores = {
                key: [from_few(cells, shots, seed) for seed in range(seeds)] for key, cells in spaces.items()
            }
            if not np.isnan(scores[OLD]).any():
                means = {key: float(np.mean(found)) for key, found in scores.items()}
                rows.append({"dataset": parts.data.short(name), "cells per type": shots, **means})
    return {"rows": rows}


def from_few(cells: Any, shots: int, seed: int) -> float:
    """One draw of labeled cells."""
    train, test = parts.draw_shots(cells.labels, shots, np.random.default_rng(seed))
    if len(np.unique(cells.labels[train])) < 3:
        return float("nan")
    test = test[parts.data.thin(cells.labels[test], parts.MOST_TESTED)]
    fit = parts.scellm_annotator("scellm")
    return float(parts.macro_f1(cells[test].labels, parts.best(*fit(cells[train], cells[test], seed))))


def kept(path: Path, make: Any, *, again: bool) -> dict[str, Any]:
    """A result from its file, or made and written there."""
    if again or not path.exists():
        found = make()
        path.write_text(json.dumps(found))
        print(path.stem, json.dumps(found)[:400], flush=True)
    return json.loads(path.read_text())


def with_mean(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A row for each dataset, and their mean."""
    table = pd.DataFrame(rows).T
    table.loc["mean"] = table.mean()
    return table.rename_axis("dataset").reset_index()


def draw(table: pd.DataFrame, path: Path) -> None:
    """Macro-F1 of each set before and after, PCA beside."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    places = np.arange(len(table))
    ax.plot(places, table["PCA"], "x", color="0.5", label="PCA")
    ax.plot(places, table[OLD], "o", color="0.7", label="scellm-small")
    ax.plot(places, table[NEW], "o", color="C0", label="adapted")
    ax.vlines(places, table[OLD], table[NEW], color="C0", lw=1)
    ax.set_xticks(places, [name.replace("_", " ") for name in table["dataset"]], rotation=25, ha="right")
    ax.set(ylabel="macro-F1 of 15 neighbors")
    ax.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def beside_trained(f1: pd.DataFrame, sets: dict[str, dict[str, Any]]) -> str:
    """What training on the same cells reaches, and for how long."""
    rows, ways = f1.iloc[:-1], [way for way in TRAINED if way in f1]
    if not ways:
        return "scVI and CONCORD were not run."
    words = []
    for way in ways:
        has = rows[way].notna()
        words.append(
            f"{way} {rows.loc[has, way].mean():.3f} (adapted {rows.loc[has, NEW].mean():.3f}, and above it on {int((rows[NEW] > rows[way])[has].sum())} of {int(has.sum())})"
        )
    without = [name for name, found in sets.items() if not any(way in found for way in TRAINED)]
    seconds = pd.DataFrame([found["trained_seconds"] for found in sets.values()]).mean()
    times = ", ".join(f"{way} {seconds[way]:.1f}" for way in (NEW, "PCA", *ways))
    return (
        f"**Beside what is trained on the same cells**, macro-F1: {'; '.join(words)}. Both have the 2,000 most variable genes and one seed: CONCORD its defaults, scVI those of the page {{doc}}`embedding` "
        f"(stopped after some {methods.SCVI_STEPS} steps, so a lower bound on the larger sets). Seconds of the processor, mean of the sets: {times}."
        + (f" Without counts, and so without them: {', '.join(without)}." if without else "")
    )


def page(
    options: dict[str, dict[str, float]], sets: dict[str, dict[str, Any]], few: list[dict[str, Any]]
) -> Path:
    """Tables, figure and text."""
    chosen = with_mean(options)
    measures = [
        key
        for key in ("macro_f1", "nmi", "ari", "silhouette")
        if all(key in found[NEW] for found in sets.values())
    ]
    names = [key for key in ("PCA", OLD, NEW, *TRAINED) if any(key in found for found in sets.values())]
    tables, of = {}, {}
    titles = {
        "macro_f1": "Macro-F1",
        "nmi": "NMI of Leiden",
        "ari": "ARI of Leiden",
        "silhouette": "Silhouette",
    }
    for key in measures:
        of[key] = with_mean(
            {
                name: {way: found.get(way, {}).get(key, np.nan) for way in names}
                for name, found in sets.items()
            }
        )
        tables[f"{titles[key]}, benchmark sets"] = of[key]
    if all("trained_seconds" in found for found in sets.values()):
        tables["Seconds of the processor"] = with_mean(
            {name: found["trained_seconds"] for name, found in sets.items()}
        )
    halves = with_mean({name: found["halves"] for name, found in sets.items() if "halves" in found})
    tables["Adapted to one half of the cells, measured on the other: macro-F1"] = halves
    labeled = pd.DataFrame(few)
    tables["From few labeled cells: macro-F1"] = labeled
    five = labeled[labeled["cells per type"] == 5]
    tables["Options on datasets left out of training: macro-F1"] = chosen
    draw(of["macro_f1"], DOCS / f"{NAME}.png")
    mean = {key: table.iloc[-1] for key, table in of.items()}
    f1, rows = mean["macro_f1"], of["macro_f1"].iloc[:-1]
    held = chosen.iloc[-1]
    more = "".join(
        f" {titles[key]}: {mean[key][NEW]:.3f}, before {mean[key][OLD]:.3f}, PCA {mean[key]['PCA']:.3f}."
        for key in ("nmi", "ari")
        if key in mean
    )
    worse = rows[rows[NEW] < rows[OLD] - 0.005]
    gain = (rows[NEW] - rows[OLD]).to_numpy()
    most, rest = rows["dataset"].iloc[int(gain.argmax())], np.delete(gain, gain.argmax()).mean()
    text = (
        f"Does `scellm.tl.adapt` help to tell cell types of one's own dataset apart? On the seven benchmark sets, of which the model has seen no cell, macro-F1 of 15 "
        f"neighbors is **{f1[NEW]:.3f} adapted, {f1[OLD]:.3f} before, {f1['PCA']:.3f} with PCA** fitted to each set"
        + f"; adapted it is above PCA on {int((rows[NEW] > rows['PCA']).sum())} of {len(rows)} sets. On the eight datasets on which the options were chosen, with a model that was trained without "
        f"them: {held[NEW]:.3f}, before {held[OLD]:.3f}, PCA {held['PCA']:.3f}. From five labeled cells of each type `tl.annotate` reaches {five[NEW].mean():.3f} on the embedding "
        f"adapted to all cells, labeled or not, {five[OLD].mean():.3f} before.{more}"
        + f"\n\nThe gain is uneven: {gain.mean():+.3f} on average, {gain.max():+.3f} on {most}, and {rest:+.3f} on the others together."
        + (
            f" Worse than before by more than 0.005 on: {', '.join(worse['dataset'])}. Adapt for neighbors and maps of your own cells, and look at both."
            if len(worse)
            else ""
        )
        + f"\n\n{beside_trained(of['macro_f1'], sets)}"
        + "\n\nAdapted to one half of the cells of a set, the other half is embedded as new cells: the last column of that table beside the model as it is."
        f"\n\n![Macro-F1 of each set]({NAME}.png)\n\nThe new coordinates are principal components of what the bag multiplies its gene embeddings with, 25 of them "
        "and 1.5 times as long as the old ones. PCA is fitted to the same cells; no method sees labels. CONCORD was not told of batches: these sets have one each."
    )
    facts = {"sets": {name: found["cells"] for name, found in sets.items()}}
    return write(NAME, "Adapting to your own cells", text, tables, facts)


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--held-out", required=True, help="a bag trained without the validation datasets")
    parser.add_argument("--cache", type=Path, default=Path("adapt-cache"))
    parser.add_argument("--trained", action="store_true", help="train scVI and CONCORD where it is not done")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    held_out, model = scellm.models.load(options.held_out), scellm.models.load("scellm-small")
    chosen = {
        Path(name).name: kept(
            options.cache / f"options-{Path(name).name}.json",
            lambda name=name: of_options(options.data, name, held_out),
            again=options.again and not options.page,
        )
        for name in validation.SETS
    }
    sets = {
        path.stem: kept(
            options.cache / f"set-{path.stem}.json",
            lambda path=path: of_set(path, model),
            again=options.again and not options.page,
        )
        for path in sorted((options.data / "benchmarks").glob("*.h5ad"))
    }
    for path in sorted((options.data / "benchmarks").glob("*.h5ad")):
        file = options.cache / f"trained-{path.stem}.json"
        if file.exists() or (options.trained and not options.page):
            found = kept(
                file,
                lambda path=path: of_trained(path, model),
                again=options.again and options.trained and not options.page,
            )
            sets[path.stem] |= {key: found[key] for key in TRAINED if key in found}
            sets[path.stem]["trained_seconds"] = found["seconds"]
    few = kept(
        options.cache / "few.json", lambda: few_labels(model), again=options.again and not options.page
    )
    print(page(chosen, sets, few["rows"]))


if __name__ == "__main__":
    main()
