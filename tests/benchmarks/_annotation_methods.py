"""The methods that are compared, one call for all: labeled cells and unlabeled ones in, probabilities out."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

import scellm
from scellm.annotation._align import align_cells
from scellm.annotation._fit import fit_annotator
from scellm.models import CellLM
from scellm.nn import Encoder

N_GENES, N_PCS, N_NEIGHBORS = 2000, 50, 15
PENALTY = 0.1
"""C of logistic regression on standardized genes; 0.001 to 1 differ by less than 0.01 on the corpus."""


@dataclass(frozen=True)
class Pythons:
    """Interpreters of environments with methods that do not run in this one; "" leaves a method out."""

    celltypist: str = ""
    singler: str = ""

    @property
    def there(self) -> list[str]:
        """Names of the methods that can be run."""
        names = {"celltypist": self.celltypist, "SingleR": self.singler}
        return [name for name, python in names.items() if python]


NONE = Pythons()


@dataclass
class Cells:
    """Cells with all that the methods read, made once and cut into splits."""

    logged: sp.csr_matrix
    """(n, n_genes) log1p CP10k over the genes that references and query share."""
    vectors: dict[str, np.ndarray]
    """Embeddings by name of the encoder, (n, D); each cell from its own genes."""
    labels: np.ndarray
    """(n,) types, text."""
    study: np.ndarray
    """(n,) text."""

    def __getitem__(self, rows: np.ndarray) -> Cells:
        vectors = {name: x[rows] for name, x in self.vectors.items()}
        return Cells(self.logged[rows], vectors, self.labels[rows], self.study[rows])


def random_like(model: CellLM, seed: int) -> CellLM:
    """The same model with untrained weights."""
    torch.manual_seed(seed)
    return CellLM(
        encoder=Encoder(model.config).eval(),
        config=model.config,
        tokens=model.tokens,
        vocabulary=model.vocabulary,
        name=f"random {seed}",
    )


def embed(adata: ad.AnnData, model: CellLM) -> np.ndarray:
    """(n, D); cells without genes get zeros."""
    found = scellm.tl.embed(adata, model, min_overlap=0.02, show_progress=False, copy=True)
    return np.nan_to_num(found.obsm["X_scellm"])


def logged(adata: ad.AnnData, genes: list[str] | None = None) -> sp.csr_matrix:
    """log1p of counts per 10,000 over some genes."""
    part = ad.AnnData(sp.csr_matrix(adata.X if genes is None else adata[:, genes].X, dtype=np.float32))
    sc.pp.normalize_total(part, target_sum=1e4)
    sc.pp.log1p(part)
    return sp.csr_matrix(part.X)


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Over the types that the cells have."""
    return float(f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share that is right."""
    return float(accuracy_score(truth, predicted))


def scellm_annotator(encoder: str, method: str = "auto", *, align: bool | str = "auto"):
    """scellm: embedding, classifier, calibration and alignment as in `tl.annotate(reference=...)`."""

    def fit(train: Cells, test: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
        classes, codes = np.unique(train.labels, return_inverse=True)
        groups = train.study if len(np.unique(train.study)) > 2 else None
        found = fit_annotator(
            train.vectors[encoder], codes, list(classes), method=method, groups=groups, rng=seed
        )
        vectors, _ = align_cells(found, test.vectors[encoder], align)
        return found.probabilities(vectors), classes

    return fit


def variable(X: sp.csr_matrix) -> np.ndarray:
    """The 2,000 most variable genes of the training cells, or all that they express."""
    part = ad.AnnData(X)
    expressed = np.flatnonzero(X.getnnz(axis=0) >= 2)
    if len(expressed) <= N_GENES:
        return expressed
    part = part[:, expressed].copy()
    sc.pp.highly_variable_genes(part, n_top_genes=N_GENES)
    return expressed[part.var["highly_variable"].to_numpy()]


def logistic_regression(train: Cells, test: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression on standardized log-normalized variable genes of the training cells."""
    genes = variable(train.logged)
    A, B = train.logged[:, genes].toarray(), test.logged[:, genes].toarray()
    mean, scale = A.mean(0), A.std(0) + 1e-6
    A, B = ((np.clip((x - mean) / scale, -10, 10)) for x in (A, B))
    model = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000).fit(A, train.labels)
    return model.predict_proba(B), model.classes_


def pca_neighbors(train: Cells, test: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """PCA of the training cells' variable genes, then their nearest in it."""
    genes = variable(train.logged)
    A, B = train.logged[:, genes].toarray(), test.logged[:, genes].toarray()
    mean = A.mean(0)
    n_pcs = min(N_PCS, len(A) - 1, len(genes) - 1)
    pca = TruncatedSVD(n_pcs, algorithm="arpack", random_state=0).fit(A - mean)
    smallest = np.unique(train.labels, return_counts=True)[1].min()
    n_neighbors = int(min(N_NEIGHBORS, max(3, smallest)))  # no more than a type has cells
    model = KNeighborsClassifier(n_neighbors, weights="distance")
    model.fit(pca.transform(A - mean), train.labels)
    return model.predict_proba(pca.transform(B - mean)), model.classes_


CELLTYPIST = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import anndata as ad, celltypist
folder = Path(sys.argv[1])
train = ad.read_h5ad(folder / "train.h5ad")
model = celltypist.train(train, labels="cell_type", n_jobs=1, check_expression=False, max_iter=200)
for path in (folder / "test").iterdir():
    found = celltypist.annotate(ad.read_h5ad(path), model=model)
    found.probability_matrix.to_csv(folder / f"{path.stem}.csv")
"""


def celltypist_by(python: str):
    """celltypist 1.7.1, trained on the same cells over all genes, by an interpreter that has it."""

    def fit(train: Cells, test: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
        names = [f"gene{i}" for i in range(train.logged.shape[1])]
        cells, asked = (ad.AnnData(x.logged, var={"gene": names}) for x in (train, test))
        cells.obs["cell_type"] = train.labels
        found = by_celltypist(python, cells, {"set": asked})["set"]
        return found.to_numpy(), found.columns.to_numpy().astype(str)

    return fit


def by_celltypist(python: str, train: ad.AnnData, tests: dict[str, ad.AnnData]) -> dict[str, pd.DataFrame]:
    """Probabilities of the cells of each set, by celltypist trained once on log values and `obs["cell_type"]`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test").mkdir()
        train.write_h5ad(folder / "train.h5ad")
        for set_name, test in tests.items():
            test.write_h5ad(folder / "test" / f"{set_name}.h5ad")
        subprocess.run([python, "-c", CELLTYPIST, name], check=True, capture_output=True)
        return {set_name: pd.read_csv(folder / f"{set_name}.csv", index_col=0) for set_name in tests}


SINGLER = """
import sys
from pathlib import Path
import numpy as np, singler
folder = Path(sys.argv[1])
train = np.load(folder / "train.npz")
for path in (folder / "test").iterdir():
    test = np.load(path)
    found = singler.annotate_single(
        test["X"].T, train["X"].T, list(train["labels"]),
        test_features=list(test["genes"]), ref_features=list(train["genes"]),
    )
    np.save(folder / f"{path.stem}.npy", np.array(list(found["best"])))
"""


def by_singler(python: str, train: ad.AnnData, tests: dict[str, ad.AnnData]) -> dict[str, np.ndarray]:
    """Labels of the cells of each set, by SingleR on log values and `obs["cell_type"]`, with its defaults."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test").mkdir()
        labels = train.obs["cell_type"].to_numpy(str)
        np.savez(
            folder / "train.npz", X=train.X.toarray(), genes=train.var_names.to_numpy(str), labels=labels
        )
        for set_name, test in tests.items():
            genes = test.var_names.to_numpy(str)
            np.savez(folder / "test" / f"{set_name}.npz", X=test.X.toarray(), genes=genes)
        subprocess.run([python, "-c", SINGLER, name], check=True, capture_output=True)
        return {set_name: np.load(folder / f"{set_name}.npy") for set_name in tests}


def best(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The likeliest type of each cell."""
    return np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)].astype(str)


def has(python: str, package: str) -> bool:
    """Whether an interpreter has a package."""
    if not python:
        return False
    done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False)
    return done.returncode == 0


def dump(path: Path, record: dict) -> None:
    """Write JSON, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")
    part.replace(path)
