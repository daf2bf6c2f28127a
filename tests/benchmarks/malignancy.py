"""Train the head of `tl.malignancy`, and measure it on studies it has not seen.

    python tests/benchmarks/malignancy.py DATA [--model scellm-small] [--write]

DATA has the folders `corpus`, `corpus_wide`, `profiles`, `benchmarks` and `drug/single_cell`. Writes
`docs/benchmarks/malignancy.md`, `.json` and `.png`; with `--write` also the part `malignancy` into the model's folder.
Two to three minutes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from _report import DOCS, write
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from training_corpus import drawn

import scellm
from scellm.data import describe_values, gene_counts, match_genes
from scellm.models._hub import shipped_folder
from scellm.models._parts import Part, write_part
from scellm.nn import Encoder

MOST = 150
"""Cells of one study and class that are used, drawn at random."""
PER_PROFILE = 2
RANDOM_SEEDS = 3
STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Inverse penalties that are tried, for each kind of features by itself."""
SAME_STUDY = {
    "scmixology": "Tian 2019 (scmixology)",
    "zheng": "Zheng 2017",
    "enge_pancreas": "Enge 2017",
    "drawn_FUMA_GSE81547": "Enge 2017",
}
"""Datasets whose names begin so are one study, and are left out together."""
SHARED_LINES = ("A549", "K562")
"""Cell lines that several studies have: never in training and test at once."""
UNSEEN = {
    "pollen2014": "benchmarks/pollen2014",
    "pc9": "drug/single_cell/pc9_erlotinib_gse149383",
    "pbmc3k": "benchmarks/pbmc3k",
    "baron_h1_pancreas": "benchmarks/baron_h1_pancreas",
    "darmanis_brain": "benchmarks/darmanis_brain",
    "lawlor_islets": "benchmarks/lawlor_islets",
}
"""Sets on which neither head nor embedding was trained, with cells of at least one class."""


@dataclass
class Cells:
    """All cells of a table: features by method, class, study, line."""

    features: dict[str, object]
    malignant: np.ndarray
    study: np.ndarray
    dataset: np.ndarray
    line: np.ndarray
    n_genes: np.ndarray
    is_real: np.ndarray
    """Measured, not drawn around a profile: drawn cells are for training only."""

    def __len__(self) -> int:
        return len(self.malignant)


def read_labelled(path: Path, most: int, rng: np.random.Generator) -> ad.AnnData | None:
    """Human cells with a known class, at most `most` of each."""
    adata = ad.read_h5ad(path)
    if "mouse" in " ".join(adata.obs["organism"].astype(str).unique() if "organism" in adata.obs else []):
        return None
    label = adata.obs["malignant"].astype(str).to_numpy()
    chosen = [
        rng.choice(rows, min(most, len(rows)), replace=False)
        for rows in (np.flatnonzero(label == value) for value in ("True", "False"))
        if len(rows)
    ]
    if not chosen:
        return None
    adata = adata[np.sort(np.concatenate(chosen))].copy()
    adata.X = adata.X.astype(np.float32)
    return adata


def random_like(model: scellm.models.CellLM, seed: int) -> scellm.models.CellLM:
    """The same model with untrained weights."""
    torch.manual_seed(seed)
    return scellm.models.CellLM(
        encoder=Encoder(model.config).eval(),
        config=model.config,
        tokens=model.tokens,
        vocabulary=model.vocabulary,
        name=f"random {seed}",
    )


def embedded(adata: ad.AnnData, model: scellm.models.CellLM) -> np.ndarray:
    """Embeddings scaled to length 1; zero for cells without genes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectors = scellm.tl.embed(adata, model, min_overlap=0.02, show_progress=False, copy=True).obsm[
            "X_scellm"
        ]
    vectors = np.nan_to_num(vectors)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def genes(adata: ad.AnnData, model: scellm.models.CellLM) -> sp.csr_array:
    """log1p of counts per 10,000 over the vocabulary, scaled to length 1: what the baseline reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = match_genes(adata.var, model.vocabulary, min_overlap=0.02).ids
        linearize = describe_values(adata.X).linearize
    counts = gene_counts(adata.X, ids, len(model.vocabulary), linearize).astype(np.float64)
    counts = sp.diags_array(1e4 / np.maximum(counts.sum(1), 1)) @ counts
    counts.data = np.log1p(counts.data)
    return sp.csr_array(sp.diags_array(1 / np.maximum(np.sqrt((counts**2).sum(1)), 1e-12)) @ counts)


def table(sets: dict[str, ad.AnnData], models: dict[str, scellm.models.CellLM], first: str) -> Cells:
    """Features and labels of several datasets."""
    parts: dict[str, list] = {name: [] for name in ("genes", *models)}
    malignant, study, dataset, line, n_genes = [], [], [], [], []
    for name, adata in sets.items():
        for key, model in models.items():
            parts[key].append(embedded(adata, model))
        parts["genes"].append(genes(adata, models[first]))
        malignant.append(adata.obs["malignant"].astype(str).to_numpy() == "True")
        origin = next((value for prefix, value in SAME_STUDY.items() if name.startswith(prefix)), name)
        study += [origin] * adata.n_obs
        dataset += [name] * adata.n_obs
        kinds = adata.obs["cell_type"].astype(str)
        line += [next((known for known in SHARED_LINES if kind.startswith(known)), "") for kind in kinds]
        n_genes.append(np.diff(parts["genes"][-1].indptr))
    features: dict[str, object] = {key: np.vstack(parts[key]) for key in models}
    features["genes"] = sp.csr_matrix(sp.vstack(parts["genes"]))
    labels = np.concatenate(malignant)
    names = np.array(dataset)
    return Cells(
        features=features,
        malignant=labels,
        study=np.array(study),
        dataset=names,
        line=np.array(line),
        n_genes=np.concatenate(n_genes),
        is_real=~np.char.startswith(names, "drawn_"),
    )


def balanced(cells: Cells, rows: np.ndarray) -> np.ndarray:
    """Weight of each cell: both classes weigh the same, and so do all studies of a class."""
    weights = np.zeros(len(rows))
    for value in (True, False):
        of_class = cells.malignant[rows] == value
        studies = np.unique(cells.study[rows][of_class])
        for one in studies:
            here = of_class & (cells.study[rows] == one)
            weights[here] = 0.5 / len(studies) / here.sum()
    return weights * len(rows)


def fit(cells: Cells, key: str, rows: np.ndarray, strength: float) -> LogisticRegression:
    """Logistic regression on some of the cells."""
    model = LogisticRegression(C=strength, max_iter=2000)
    return model.fit(cells.features[key][rows], cells.malignant[rows], sample_weight=balanced(cells, rows))


def cancer_studies(cells: Cells) -> list[str]:
    """Studies with measured cancer cells."""
    return sorted(set(cells.study[cells.malignant & cells.is_real]))


def folds(cells: Cells) -> list[np.ndarray]:
    """Test rows: one study with cancer cells each, with a share of the studies that have none."""
    with_cancer = cancer_studies(cells)
    without = sorted(set(cells.study) - set(with_cancer))
    without = list(np.random.default_rng(0).permutation(without))
    return [
        np.flatnonzero(np.isin(cells.study, [one, *without[i :: len(with_cancer)]]))
        for i, one in enumerate(with_cancer)
    ]


def without_lines_of(cells: Cells, train: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Training rows that are of none of the cell lines that are tested."""
    return train[~np.isin(cells.line[train], [name for name in set(lines) if name])]


def held_out_logits(cells: Cells, key: str, strength: float) -> np.ndarray:
    """Each cell's log-odds from a model that has seen neither its study nor its cell line."""
    logits = np.empty(len(cells))
    for test in folds(cells):
        train = np.setdiff1d(np.arange(len(cells)), test)
        train = without_lines_of(cells, train, cells.line[test])
        logits[test] = fit(cells, key, train, strength).decision_function(cells.features[key][test])
    return logits


def platt(logits: np.ndarray, malignant: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that make probabilities of log-odds."""
    model = LogisticRegression(C=1e6).fit(logits[:, None], malignant, sample_weight=weights)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def log_loss(logits: np.ndarray, malignant: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -ln p(truth)."""
    return float(np.average(np.logaddexp(0, np.where(malignant, -logits, logits)), weights=weights))


def calibrated(cells: Cells, logits: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Held-out probabilities, each calibrated on the other folds, and the calibration of all of them."""
    result = np.empty(len(cells))
    real = np.flatnonzero(cells.is_real)
    for test in folds(cells):
        rest = np.setdiff1d(real, test)
        slope, intercept = platt(logits[rest], cells.malignant[rest], balanced(cells, rest))
        result[test] = 1 / (1 + np.exp(-slope * logits[test] - intercept))
    return result, platt(logits[real], cells.malignant[real], balanced(cells, real))


def auc(malignant: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; NaN with one class only."""
    return float(roc_auc_score(malignant, score)) if 0 < malignant.sum() < len(malignant) else np.nan


def rates(malignant: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """AUC, and how much of each class is on its side of 0.5."""
    return {
        "AUC": auc(malignant, probability),
        "cancer > 0.5": float((probability[malignant] > 0.5).mean()) if malignant.any() else np.nan,
        "normal < 0.5": float((probability[~malignant] < 0.5).mean()) if (~malignant).any() else np.nan,
    }


def reliability(cells: Cells, probability: np.ndarray, n_bins: int = 10) -> tuple[float, pd.DataFrame]:
    """Expected calibration error with balanced weights, and the bins it is made of."""
    real = np.flatnonzero(cells.is_real)
    weights, probability = balanced(cells, real) / len(real), probability[real]
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    frame = pd.DataFrame(
        {"bin": bins, "w": weights, "p": probability * weights, "y": cells.malignant[real] * weights}
    )
    sums = frame.groupby("bin").sum()
    sums["said"], sums["found"] = sums["p"] / sums["w"], sums["y"] / sums["w"]
    return float((sums["w"] * (sums["said"] - sums["found"]).abs()).sum()), sums[["w", "said", "found"]]


def draw(bins: dict[str, pd.DataFrame], path: Path) -> None:
    """Reliability curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    for (name, table), colour in zip(bins.items(), ("#0072B2", "#E69F00"), strict=True):
        axes.plot(table["said"], table["found"], color=colour, lw=1.2, label=name)
        axes.scatter(table["said"], table["found"], s=20 + 400 * table["w"], color=colour, lw=0)
    axes.set(
        xlabel="probability of being malignant", ylabel="fraction that is", xlim=(0, 1), ylim=(-0.02, 1.02)
    )
    axes.legend(frameon=False, title="studies not seen in training")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


TEXT = """
{{func}}`scellm.tl.malignancy` is a logistic regression on the embedding. Can it tell cancer cells from normal ones in a
study that it has not seen?

{verdict}

**What it is worth.** Nearly all cancer cells of the training data are cell lines or come from a handful of tumours, and
nearly every study has only one of the two classes: which study a cell is from gives the answer away, so a random
split would show an AUC near 1 and mean nothing. Here every cell is judged by a model that has seen no cell of its study and
none of its cell line. Only {n_both} of the sets have both classes, and only there does an AUC exist that no difference between
laboratories can feed. Treat the probability as a hint to be checked by copy numbers and marker genes, in particular for
dividing normal cells, embryonic cells and cells in culture.

- **scellm**: embedding of `{model}` scaled to length 1, logistic regression.
- **genes**: the same regression on log-normalised genes of the vocabulary, scaled to length 1, on the same split.
- **random weights**: the same regression on embeddings of untrained encoders, mean of {seeds}.
- **number of genes**: no model at all; the AUC of counting the genes that a cell expresses. Far from 0.5 means that the two
  classes differ in library size, which a model can use.

"cancer > 0.5" is the part of the cancer cells with a probability above 0.5, "normal < 0.5" that of the normal cells below.
In training both classes weigh the same, and so do all studies of a class; at most {most} cells of each study and class are
used. The penalty of each method is the one of {n_strengths} with the least loss over these held-out cells, which flatters all methods
alike. The encoder itself was trained on the cells of these studies, except on the sets marked *, on which neither it nor the head was trained.

Calibration error over held-out cells, with the weights of the training (lower is better): {calibration}. A line above the
diagonal means too modest, below too bold.

![Reliability](malignancy.png)
"""


def measure(cells: Cells, methods: dict[str, list[str]]) -> tuple[dict, dict, dict]:
    """Best strength, held-out logits and calibration of each kind of features."""
    strengths, logits, calibration = {}, {}, {}
    real = np.flatnonzero(cells.is_real)
    truth, weights = cells.malignant[real], balanced(cells, real)
    for keys in methods.values():
        for key in keys:
            best = np.inf
            for strength in STRENGTHS:
                found = held_out_logits(cells, key, strength)
                slope, intercept = platt(found[real], truth, weights)
                loss = log_loss(slope * found[real] + intercept, truth, weights)
                if loss < best:
                    best, strengths[key], logits[key] = loss, strength, found
            calibration[key] = calibrated(cells, logits[key])
            print(f"{key}: penalty 1/{strengths[key]:g}, loss {best:.3f}", flush=True)
    return strengths, logits, calibration


def measured(
    cells: Cells, here: np.ndarray, probabilities: dict[str, np.ndarray], methods: dict[str, list[str]]
) -> dict[str, float]:
    """The cells of one study, judged by each method."""
    truth = cells.malignant[here]
    row = {"cancer": int(truth.sum()), "normal": int((~truth).sum())}
    for name, keys in methods.items():
        found = pd.DataFrame([rates(truth, probabilities[key][here]) for key in keys]).mean()
        row |= {f"{name}: {column}": value for column, value in found.items()}
    return row | {"number of genes: AUC": auc(truth, cells.n_genes[here])}


def tables(everything: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What of it is printed."""
    sizes = ["set", "cancer", "normal"]
    both = everything[everything["scellm: AUC"].notna()]
    names = ("scellm", "genes", "random weights", "number of genes")
    areas = both[sizes].assign(**{name: both[f"{name}: AUC"] for name in names})
    mean = {"set": "mean", **areas[list(names)].mean().to_dict()}
    areas[sizes] = areas[sizes].astype(str)  # whole numbers, with an empty one below them
    areas = pd.concat([areas, pd.DataFrame([mean])]).fillna("")
    columns = {
        f"{name}: {column}": f"{column}, {name}"
        for column in ("cancer > 0.5", "normal < 0.5")
        for name in names[:2]
    }
    halves = everything[[*sizes, *columns]].rename(columns=columns).fillna("")
    return {"AUC, where both classes come from one study": areas, "On the right side of 0.5": halves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--most", type=int, default=MOST, help="cells of one study and class")
    parser.add_argument("--write", action="store_true", help="put the head into the folder of the model")
    options = parser.parse_args()
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    model = scellm.models.load(options.model)
    models = {"scellm": model} | {f"random {seed}": random_like(model, seed) for seed in range(RANDOM_SEEDS)}
    methods = {
        "scellm": ["scellm"],
        "genes": ["genes"],
        "random weights": [name for name in models if name != "scellm"],
    }

    paths = [
        path
        for folder in ("corpus", "corpus_wide")
        for path in sorted((options.data / folder).glob("*.h5ad"))
    ]
    sets = {path.stem: read_labelled(path, options.most, rng) for path in paths}
    sets |= drawn(options.data / "profiles" / "human_celltypes.h5ad", PER_PROFILE, rng)
    cells = table({name: adata for name, adata in sets.items() if adata is not None}, models, "scellm")
    unseen = {
        name: read_labelled(options.data / f"{path}.h5ad", options.most, rng) for name, path in UNSEEN.items()
    }
    other = table(unseen, models, "scellm")
    print(
        f"{len(cells)} cells of {len(set(cells.study))} studies, {time.perf_counter() - start:.0f} s",
        flush=True,
    )

    strengths, _, calibration = measure(cells, methods)
    held_out = {key: found[0] for key, found in calibration.items()}
    rows = [
        {"set": study, **measured(cells, cells.is_real & (cells.study == study), held_out, methods)}
        for study in cancer_studies(cells)
    ]
    normal_only = cells.is_real & ~np.isin(cells.study, cancer_studies(cells))
    n_normal = len(set(cells.study[normal_only]))
    rows.append(
        {"set": f"{n_normal} studies of normal cells", **measured(cells, normal_only, held_out, methods)}
    )

    train = without_lines_of(cells, np.arange(len(cells)), other.line)
    new = {}
    for key, (_, (slope, intercept)) in calibration.items():
        logits = fit(cells, key, train, strengths[key]).decision_function(other.features[key])
        new[key] = 1 / (1 + np.exp(-slope * logits - intercept))
    rows += [{"set": f"{name} *", **measured(other, other.dataset == name, new, methods)} for name in unseen]
    everything = pd.DataFrame(rows)

    errors, bins = {}, {}
    for name in ("scellm", "genes"):
        errors[name], bins[name] = reliability(cells, held_out[name])
    verdict = say(everything)
    both = everything["scellm: AUC"].notna()
    text = TEXT.format(
        verdict=verdict,
        model=model.name,
        seeds=RANDOM_SEEDS,
        most=options.most,
        n_strengths=len(STRENGTHS),
        n_both=int(both.sum()),
        calibration=", ".join(f"{name} {error:.3f}" for name, error in errors.items()),
    )
    draw(bins, DOCS / "malignancy.png")
    facts = {
        "model": model.name,
        "sha256": model.sha256,
        "verdict": verdict,
        "strengths": strengths,
        "calibration_error": errors,
        "reliability": {name: table.to_dict(orient="records") for name, table in bins.items()},
        "seconds": time.perf_counter() - start,
    }
    print(write("malignancy", "Malignant cells", text, tables(everything), facts))
    if options.write:
        write_head(
            cells, model, strengths["scellm"], calibration["scellm"][1], errors["scellm"], options.model
        )
    print(f"{time.perf_counter() - start:.0f} s")


def say(everything: pd.DataFrame) -> str:
    """Who wins, and what goes wrong, in words made from the numbers."""
    both = everything[everything["scellm: AUC"].notna()]
    means = {
        name: both[f"{name}: AUC"].mean() for name in ("scellm", "genes", "random weights", "number of genes")
    }
    better = "better than" if means["scellm"] > means["genes"] else "**worse than**"
    worse_on = both.loc[both["scellm: AUC"] < both["genes: AUC"], "set"].tolist()
    cancer = everything.loc[everything["cancer"] > 0, "scellm: cancer > 0.5"]
    normal = everything[everything["set"].str.contains("studies of normal")].iloc[0]
    worst = everything[everything["normal"] > 0].sort_values("scellm: normal < 0.5").head(3)
    wrong = ", ".join(
        f"{100 * (1 - row['scellm: normal < 0.5']):.0f} % of {row['set'].removesuffix(' *')}"
        for _, row in worst.iterrows()
    )
    return (
        f"On average over the {len(both)} sets with both classes, the AUC of scellm ({means['scellm']:.2f}) is {better} that of "
        f"logistic regression on genes ({means['genes']:.2f}), and worse on {', '.join(worse_on) or 'none of them'}. Untrained "
        f"encoders reach {means['random weights']:.2f}, counting genes {means['number of genes']:.2f}.\n\n"
        f"Of the cancer cells of a study not seen, {100 * cancer.min():.0f} % to {100 * cancer.max():.0f} % have a "
        f"probability above 0.5, depending on the study; of the cells of left-out studies of normal tissue "
        f"{100 * (1 - normal['scellm: normal < 0.5']):.0f} % have, too (genes: {100 * (1 - normal['genes: normal < 0.5']):.0f} %). "
        f"**Normal cells called malignant most often: {wrong}.**"
    )


def write_head(
    cells: Cells,
    model: scellm.models.CellLM,
    strength: float,
    calibration: tuple[float, float],
    error: float,
    name: str,
) -> None:
    """Fit on all cells and put the head into the model's folder."""
    slope, intercept = calibration
    head = fit(cells, "scellm", np.arange(len(cells)), strength)
    studies = sorted(set(cells.study[cells.malignant]))
    trained_on = (
        f"{int(cells.malignant.sum())} malignant cells of {len(studies)} studies ({', '.join(studies)}) and "
        f"{int((~cells.malignant).sum())} normal ones of {len(set(cells.study[~cells.malignant]))}, cells drawn around "
        "mean profiles included"
    )
    part = Part(
        tensors={
            "weight": (slope * head.coef_[0]).astype(np.float32),
            "bias": np.array([slope * head.intercept_[0] + intercept], dtype=np.float32),
        },
        meta={
            "trained_on": trained_on,
            "penalty": f"L2, C = {strength:g}",
            "calibration": "Platt scaling on cells of studies left out; both classes weigh the same",
            "calibration_error": round(error, 4),
            "made_by": "tests/benchmarks/malignancy.py",
        },
    )
    folder = Path(name) if Path(name).is_dir() else shipped_folder() / name
    write_part(folder, "malignancy", part)
    print(f"wrote the part 'malignancy' of {folder}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
