"""Build the reference of cell types that comes with a model, and judge it on studies that are left out.

    python tests/benchmarks/reference.py DATA [--model scellm-small] [--out FOLDER] [--page]

DATA has the folders `corpus`, `corpus_wide`, `profiles` and `knowledge`. Cells are measured ones of the labelled human
studies, and cells drawn around the mean profiles of others; labels become names of the Cell Ontology by
`reference_types.tsv`, and those not listed there are left out: broad ("Myeloid cells"), of cell lines, of tumours. Nothing
of `benchmarks` is read. The part `reference` is written into the model's folder, beside its weights. `--page` also writes
`docs/benchmarks/reference.md`. Run it again whenever the weights change.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _report import write
from training_corpus import drawn

import scellm
from scellm.annotation._fit import METHODS, calibrate, draw_evenly, fit_one, macro_f1
from scellm.metrics._conformal import balance
from scellm.models._hub import shipped_folder
from scellm.models._parts import write_part

TYPES = Path(__file__).with_name("reference_types.tsv")
PER_PROFILE = 12
PER_TYPE = 60
"""Measured cells of one type in one study, at most."""
N_FITTED = 5_000
N_EXEMPLARS = 2_500
MIN_OVERLAP = 0.05
TEXT = """
`scellm.tl.annotate(adata)` without a reference uses the one inside `{model}`: {n_types} types with names of the Cell
Ontology, from {n_real} measured cells of {n_studies} human studies and {n_drawn} cells drawn around the mean profiles of
{n_profiled} others. Types that the sources give only broadly (epithelium of most organs, kidney, "T cells", "myeloid cells")
are missing, as are tumours and cell lines; CD4 T cells include regulatory ones. Mouse cells were not used.

Each of the studies below was left out in turn, the reference built from all others, and its cells annotated; the
temperature and the distances that count as novel come from the other studies of the table. Macro-F1 is over the types of
the study, among all {n_types}. None of them is of the benchmark.
The encoder itself was trained on these studies, with their labels (see its recipe): the numbers, the temperature and the
distances are too good for a new study, by how much is not known here. The
benchmark of cell types is on sets that no part of the model has seen.

{verdict}
"""


def types() -> dict[str, str]:
    """Label of a source -> name in the Cell Ontology."""
    table = pd.read_csv(TYPES, sep="\t")
    return {
        label.strip(): name
        for name, labels in zip(table["type"], table["labels"], strict=True)
        for label in labels.split(";")
    }


def ontology_ids(names: list[str]) -> list[str]:
    """Ids of the Cell Ontology, "" for a name it does not have (now)."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    found = [parser.get_term_id_by_label(name, "CL") or "" for name in names]
    return found


def is_human(path: Path) -> bool:
    """By name: mouse sets are called so."""
    return "mouse" not in path.stem and "tabula_muris" not in path.stem


def measured(data: Path, names: dict[str, str], rng: np.random.Generator) -> list[ad.AnnData]:
    """Labelled human cells of the corpus, at most `PER_TYPE` of a type and study, tumours and cell lines left out."""
    found = []
    for folder in ("corpus", "corpus_wide"):
        for path in filter(is_human, sorted((data / folder).glob("*.h5ad"))):
            adata = ad.read_h5ad(path)
            label = adata.obs["cell_type"].astype(str).map(names)
            label[adata.obs["malignant"].astype(str) == "True"] = np.nan
            if path.stem == "pdac_moncada":  # from a tumour; the types it names are not of the tumour
                label = adata.obs["cell_type"].astype(str).map(names)
            rows = np.concatenate(
                [
                    rng.permutation(np.flatnonzero(label == name))[:PER_TYPE]
                    for name in label.dropna().unique()
                ]
                or [np.zeros(0, int)]
            )
            if not len(rows):
                continue
            part = adata[np.sort(rows)].copy()
            part.X = part.X.astype(np.float32)
            part.obs = pd.DataFrame({"type": label.iloc[np.sort(rows)].astype(str)})
            part.uns = {"name": path.stem, "is_real": True}
            found.append(part)
    return found


def around_profiles(data: Path, names: dict[str, str], rng: np.random.Generator) -> list[ad.AnnData]:
    """Cells drawn around the mean profiles of the listed types, a dataset per study."""
    found = []
    for name, adata in drawn(data / "profiles" / "human_celltypes.h5ad", PER_PROFILE, rng).items():
        label = adata.obs["cell_type"].map(names)
        label[adata.obs["malignant"] == "True"] = np.nan
        if label.notna().any():
            part = adata[label.notna().to_numpy()].copy()
            part.obs = pd.DataFrame({"type": label.dropna().astype(str)})
            part.uns = {"name": name, "is_real": False}
            found.append(part)
    return found


def embed_all(
    datasets: list[ad.AnnData], model: scellm.models.CellLM
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, types, datasets, and which cells were measured."""
    vectors, labels, origin, is_real = [], [], [], []
    for adata in datasets:
        scellm.tl.embed(adata, model, min_overlap=MIN_OVERLAP, show_progress=False)
        found = adata.obsm["X_scellm"]
        good = np.isfinite(found).all(axis=1)
        vectors.append(found[good])
        labels.append(adata.obs["type"].to_numpy(dtype=object)[good])
        origin.append(np.full(good.sum(), adata.uns["name"], dtype=object))
        is_real.append(np.full(good.sum(), adata.uns["is_real"]))
    return tuple(np.concatenate(x) for x in (vectors, labels, origin, is_real))


def main() -> None:
    """Build, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--out", type=Path, help="folder of the model; the shipped one by default")
    parser.add_argument("--page", action="store_true", help="write the page of the documentation too")
    options = parser.parse_args()
    folder = options.out or shipped_folder() / options.model
    model = scellm.models.load(folder)
    rng = np.random.default_rng(0)
    names = types()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # estimated counts of some sources
        datasets = measured(options.data, names, rng) + around_profiles(options.data, names, rng)
        vectors, labels, origin, is_real = embed_all(datasets, model)
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    classes = [str(name) for name in classes]

    logits = defaultdict(lambda: np.full((len(codes), len(classes)), -np.inf))
    strange, tested = np.zeros(len(codes)), np.zeros(len(codes), dtype=bool)
    for study in np.unique(origin[is_real]):
        train = np.flatnonzero(origin != study)
        train = train[draw_evenly(codes[train], N_FITTED, 0)]
        test = np.flatnonzero((origin == study) & np.isin(codes, codes[train]))
        for method in METHODS:
            fitted = fit_one(method, vectors[train], codes[train], classes, max_exemplars=N_EXEMPLARS)
            logits[method][test] = fitted.logits(vectors[test])
        strange[test], tested[test] = fitted.outlier_score(vectors[test]), True
        print(study, len(test), flush=True)
    rows = np.flatnonzero(tested)
    by_method = {
        method: float(
            np.mean(
                [
                    macro_f1(
                        codes[rows][origin[rows] == s], found[rows].argmax(1)[origin[rows] == s], len(classes)
                    )
                    for s in np.unique(origin[rows])
                ]
            )
        )
        for method, found in logits.items()
    }
    best = max(METHODS, key=by_method.__getitem__)
    everything = draw_evenly(codes, N_FITTED, 0)
    annotator = fit_one(best, vectors[everything], codes[everything], classes, max_exemplars=N_EXEMPLARS)
    report = calibrate(
        annotator,
        logits[best][rows],
        codes[rows],
        strange[rows],
        balance(origin[rows], len(rows)),
        parts=np.unique(origin[rows], return_inverse=True)[1],
    )
    annotator.report = {
        **report,
        "method": best,
        "macro_f1_by_method": by_method,
        "held_out": "studies",
        "n_groups": len(np.unique(origin[rows])),
        "n_cells": len(codes),
        "n_fitted": len(everything),
        "never_held_out": [name for code, name in enumerate(classes) if code not in codes[rows]],
    }
    annotator.facts = {
        "ontology": "Cell Ontology (CC BY 4.0)",
        "ontology_ids": ontology_ids(classes),
        "studies": sorted({str(name) for name in origin[is_real]}),
        "profiles": sorted({str(name).removeprefix("drawn_") for name in origin[~is_real]}),
        "made_by": "tests/benchmarks/reference.py",
    }
    write_part(folder, "reference", annotator.to_part())
    table = by_study(annotator, logits[best][rows], codes[rows], origin[rows], strange[rows])
    size = sum((folder / f"reference.{kind}").stat().st_size for kind in ("safetensors", "json"))
    verdict = (
        f"Best of {', '.join(f'{name} {score:.3f}' for name, score in by_method.items())} (mean macro-F1 over studies): "
        f"{best}. Calibration error {report['ece_after']:.3f} (before scaling {report['ece_before']:.3f}); sets at a target "
        f"error of 10 % hold the true type for {100 * report['coverage']['0.1']:.1f} % of the cells, with "
        f"{report['set_size']['0.1']:.1f} types on average. {len(annotator.report['never_held_out'])} types are in one study "
        f"only or in drawn cells only, so nothing here says how well they are found. The part is {size / 1e6:.1f} MB."
    )
    print(table.to_string(), verdict, sep="\n")
    if options.page:
        text = TEXT.format(
            model=model.name,
            n_types=len(classes),
            n_real=int(is_real.sum()),
            n_studies=len(np.unique(origin[is_real])),
            n_drawn=int((~is_real).sum()),
            n_profiled=len(np.unique(origin[~is_real])),
            verdict=verdict,
        )
        facts = {"model": model.name, "sha256": model.sha256, "report": annotator.report}
        print(write("reference", "The reference of cell types", text, {"Studies left out": table}, facts))


def by_study(
    annotator, logits: np.ndarray, codes: np.ndarray, origin: np.ndarray, strange: np.ndarray
) -> pd.DataFrame:
    """One row per study that was left out."""
    from scellm.metrics._calibration import softmax

    probabilities = softmax(logits / annotator.temperature)
    found = []
    for study in np.unique(origin):
        rows = origin == study
        right = probabilities[rows].argmax(1) == codes[rows]
        found.append(
            {
                "study": study,
                "cells": int(rows.sum()),
                "types": len(np.unique(codes[rows])),
                "macro-F1": macro_f1(codes[rows], probabilities[rows].argmax(1), probabilities.shape[1]),
                "accuracy": float(right.mean()),
                "confidence": float(probabilities[rows].max(1).mean()),
                "novel": float((annotator.novelty_scores(strange[rows], 0.05) > 1).mean()),
                "set holds the type (90 %)": float(
                    annotator.sets(probabilities[rows], 0.1)[np.arange(rows.sum()), codes[rows]].mean()
                ),
            }
        )
    return pd.DataFrame(found)


if __name__ == "__main__":
    main()
