"""Cells with a known class for the benchmark of `tl.malignancy`: read, embedded, copy number inferred; studies left out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from training_corpus import drawn

import scellm
from scellm.data import ReadOptions, describe_values, gene_counts, match_genes
from scellm.tl._malignancy_samples import Cells as SampleCells
from scellm.tl._malignancy_samples import _copies, read_counts
from scellm.tl._malignancy_types import OwnTypes, read_with_types
from scellm.tumors import CopyNumber, load_panel

MOST = 1200
"""Cells of one dataset."""
MOST_TRAINING = 150
"""Cells of one study and class that the head is trained on."""
PER_PROFILE = 3
FOLDERS = ("corpus", "corpus_wide", "corpus_more", "benchmarks", "drug/single_cell")
LEFT_OUT = ("sc_scad", "sciplex3")
"""No classes, or one line on a panel."""
STUDY = {
    "scmixology": "Tian 2019",
    "zheng": "Zheng 2017",
    "pbmc3k": "Zheng 2017",
    "enge_pancreas": "Enge 2017",
    "drawn_FUMA_GSE81547": "Enge 2017",
    "drawn_CPL_Human__Adult__Pancreas": "Enge 2017",
    "copykat": "Gao 2021",
    "thyroid_atc2": "Gao 2021",
    "dengue": "Zanini 2018",
    "drawn_landmarks_Zanini": "Zanini 2018",
}
"""Datasets whose names begin so are one study, and are left out together."""
SHARED_LINES = ("A549", "K562", "MCF7")
"""Cell lines that several studies have: never in training and test at once."""
HEAPS = ("copykat_tnbc", "thyroid_atc2_copykat")
"""Tumors without labels: of two heaps by expression, the one with fewer immune, stromal and endothelial cells is called malignant."""


@dataclass(eq=False)
class Dataset:
    """One dataset: what the methods read, and the truth."""

    name: str
    study: str
    is_benchmark: bool
    adata: ad.AnnData
    vectors: np.ndarray
    genes: sp.csr_matrix
    truth: np.ndarray
    """(n,) 1 malignant, 0 normal, -1 unknown."""
    kinds: np.ndarray
    line: np.ndarray
    copies: CopyNumber | None = None
    is_normal: np.ndarray | None = None
    results: dict[str, np.ndarray] = field(default_factory=dict)
    """(n,) log odds or scores of each method."""

    @property
    def n_measured(self) -> int:
        """Genes that some cell expresses."""
        return int((np.asarray(self.adata.X.sum(axis=0)).ravel() > 0).sum())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; NaN becomes 0."""
    vectors = np.nan_to_num(vectors)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def log_genes(adata: ad.AnnData, model: scellm.models.CellLM) -> sp.csr_matrix:
    """log1p of counts per 10,000 over the vocabulary, scaled to length 1."""
    ids = match_genes(adata.var, model.vocabulary, min_overlap=0.01).ids
    counts = gene_counts(adata.X, ids, len(model.vocabulary), describe_values(adata.X).linearize)
    counts = sp.diags_array(1e4 / np.maximum(counts.sum(1), 1)) @ counts.astype(np.float64)
    counts.data = np.log1p(counts.data)
    return sp.csr_matrix(sp.diags_array(1 / np.maximum(np.sqrt((counts**2).sum(1)), 1e-12)) @ counts)


def study_of(name: str) -> str:
    """The study a dataset is from."""
    return next((study for prefix, study in STUDY.items() if name.startswith(prefix)), name)


def classes(
    adata: ad.AnnData, name: str, types: np.ndarray, is_normal: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """(n,) 1 malignant, 0 normal, -1 unknown."""
    text = adata.obs["malignant"].astype(str).to_numpy()
    truth = np.where(text == "True", 1, np.where(text == "False", 0, -1))
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    if name == "luad_kim_mini":
        truth[kinds == "Epithelial cells"] = 1  # of the tumor itself, T34
    if name == "melanoma_tirosh_mini":
        truth = np.where(kinds != "NA", 0, np.where(types == "melanocyte", 1, -1))
    if name == "breast_lines_gambardella":
        truth[kinds == "MCF12A"] = -1  # immortalized, with gains and losses, and no tumor: neither
    if name in HEAPS:
        from sklearn.cluster import KMeans

        heap = KMeans(2, n_init=5, random_state=0).fit_predict(vectors)
        share = [is_normal[heap == side].mean() for side in (0, 1)]
        truth = (heap == int(np.argmin(share))).astype(int)
    return truth


def read_dataset(path: Path, model: scellm.models.CellLM, *, with_copies: bool = True) -> Dataset | None:
    """A dataset with all that the methods read; `None` for mice and for sets without classes."""
    adata = ad.read_h5ad(path)
    organism = " ".join(adata.obs["organism"].astype(str).unique()) if "organism" in adata.obs else ""
    if "mouse" in organism or "malignant" not in adata.obs:
        return None
    rng = np.random.default_rng(0)
    if adata.n_obs > MOST:
        adata = adata[np.sort(rng.choice(adata.n_obs, MOST, replace=False))].copy()
    adata.X = sp.csr_matrix(adata.X).astype(np.float32)
    return of_cells(adata, path.stem, "benchmarks" in path.parts, model, with_copies=with_copies)


def of_cells(
    adata: ad.AnnData, name: str, is_benchmark: bool, model: scellm.models.CellLM, *, with_copies: bool
) -> Dataset:
    """The same of cells in memory."""
    source = ReadOptions(min_overlap=0.01)
    raw, _, types = read_with_types(adata, model, {"min_overlap": 0.01, "show_progress": False})
    vectors = unit(raw)
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    truth = classes(adata, name, types.names, types.is_normal, vectors)
    copies = infer(adata, raw, types, model, source) if with_copies else None
    return Dataset(
        name=name,
        study=study_of(name),
        is_benchmark=is_benchmark,
        adata=adata,
        vectors=vectors,
        genes=log_genes(adata, model),
        truth=truth,
        kinds=kinds,
        line=np.array([next((line for line in SHARED_LINES if kind.startswith(line)), "") for kind in kinds]),
        copies=copies,
        is_normal=types.is_normal,
    )


def infer(
    adata: ad.AnnData,
    vectors: np.ndarray,
    types: OwnTypes,
    model: scellm.models.CellLM,
    source: ReadOptions,
) -> CopyNumber | None:
    """Copy number as `tl.malignancy` infers it, all cells as one sample."""
    counts, genome = read_counts(adata, model, source)
    cells = SampleCells(
        counts=counts,
        genome=genome,
        vectors=vectors,
        head=np.zeros(adata.n_obs),
        lineages=types.lineages,
        is_normal=types.is_normal,
        samples=np.zeros(adata.n_obs, dtype=object),
    )
    return _copies(cells, np.arange(adata.n_obs), load_panel(genome, model.vocabulary.symbols), 0)


def read_all(data: Path, model: scellm.models.CellLM) -> tuple[list[Dataset], list[Dataset]]:
    """Measured datasets, and cells drawn around mean profiles of normal types (for training only)."""
    measured = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in FOLDERS:
            for path in sorted((data / folder).glob("*.h5ad")):
                if path.stem.startswith(LEFT_OUT):
                    continue
                found = read_dataset(path, model)
                if found is not None:
                    measured.append(found)
                    print(f"{found.name}: {found.adata.n_obs} cells", flush=True)
        rng = np.random.default_rng(0)
        around = {}
        for name in ("human_celltypes", "human_celltypes_more"):
            around |= drawn(data / "profiles" / f"{name}.h5ad", PER_PROFILE, rng)
        extra = []
        for name, adata in around.items():
            adata.X = sp.csr_matrix(adata.X).astype(np.float32)
            extra.append(of_cells(adata, name, False, model, with_copies=False))
    return measured, extra


@dataclass(eq=False)
class Training:
    """Cells that heads are trained on."""

    features: dict[str, object]
    malignant: np.ndarray
    study: np.ndarray
    line: np.ndarray


def training_cells(measured: list[Dataset], extra: list[Dataset]) -> Training:
    """At most 150 of each study and class; never of the benchmarks."""
    rng = np.random.default_rng(0)
    parts: dict[str, list] = {"head": [], "genes": []}
    malignant, study, line = [], [], []
    for dataset in [*measured, *extra]:
        if dataset.is_benchmark:
            continue
        for value in (0, 1):
            rows = np.flatnonzero(dataset.truth == value)
            rows = rng.choice(rows, min(MOST_TRAINING, len(rows)), replace=False)
            parts["head"].append(dataset.vectors[rows])
            parts["genes"].append(dataset.genes[rows])
            malignant.append(np.full(len(rows), value == 1))
            study.append(np.full(len(rows), dataset.study, dtype=object))
            line.append(dataset.line[rows].astype(object))
    features = {"head": np.vstack(parts["head"]), "genes": sp.csr_matrix(sp.vstack(parts["genes"]))}
    return Training(features, np.concatenate(malignant), np.concatenate(study), np.concatenate(line))


def balanced(malignant: np.ndarray, study: np.ndarray) -> np.ndarray:
    """Weight of each cell: both classes weigh the same, and so do all studies of a class; the mean is 1."""
    weights = np.zeros(len(malignant))
    for value in (True, False):
        of_class = malignant == value
        studies = np.unique(study[of_class])
        for one in studies:
            here = of_class & (study == one)
            weights[here] = 0.5 / len(studies) / here.sum()
    return weights * len(weights) / max(weights.sum(), 1e-12)


def fit(cells: Training, key: str, rows: np.ndarray, strength: float) -> LogisticRegression:
    """Logistic regression on some of the cells."""
    model = LogisticRegression(C=strength, max_iter=1000)
    weights = balanced(cells.malignant[rows], cells.study[rows])
    return model.fit(cells.features[key][rows], cells.malignant[rows], sample_weight=weights)


def folds(measured: list[Dataset], n: int) -> list[list[Dataset]]:
    """Datasets that are left out together: whole studies, those with malignant cells spread over the folds."""
    studies = sorted({dataset.study for dataset in measured})
    with_cancer = [s for s in studies if any((d.truth == 1).any() for d in measured if d.study == s)]
    order = [*with_cancer, *(study for study in studies if study not in with_cancer)]
    return [[d for d in measured if d.study in order[i::n]] for i in range(n)]
