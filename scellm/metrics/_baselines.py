"""What simple methods reach on the same cells: logistic regression, PCA with neighbors, celltypist."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ._calibration import fit_temperature, softmax
from ._logistic import logistic_regression
from ._scores import f1_by_class, scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

METHODS = ("logistic", "pca_knn", "celltypist")
NAMES = {
    "logistic": "logistic regression on 2,000 variable genes",
    "pca_knn": "PCA and nearest neighbors",
    "celltypist": "celltypist",
}
PENALTIES = (0.01, 1.0)
"""C of logistic regression, chosen on the validation cells; without those the second, scikit-learn's default."""
CLOSE = 0.005
"""Macro-F1 within which two methods are called equal."""


@dataclass(frozen=True)
class Comparison:
    """Result of `compare_baselines`.

    Parameters
    ----------
    table
        One row per method, the best first: `macro_f1`, `accuracy`, `balanced_accuracy`, `ece`, `seconds` (NaN for
        predictions that were handed in).
    per_class
        F1 of each class (columns) by method (rows); NaN for classes that are not among the test cells.
    probabilities
        (n_test, K) of each method, columns as in `per_class`.
    summary
        Who won, in a sentence.
    left_out
        Methods that could not be run, and why.
    """

    table: pd.DataFrame
    per_class: pd.DataFrame
    probabilities: dict[str, np.ndarray]
    summary: str
    left_out: dict[str, str]


def compare_baselines(
    X: Any,
    labels: Sequence[object] | pd.Series,
    *,
    train: ArrayLike,
    test: ArrayLike,
    val: ArrayLike | None = None,
    predictions: Mapping[str, ArrayLike] | None = None,
    methods: Sequence[str] | None = None,
    gene_names: Sequence[str] | None = None,
    n_genes: int = 2000,
    rng: int = 0,
) -> Comparison:
    """Score simple classifiers, and predictions of your own, on one split.

    - `"logistic"`: multinomial logistic regression with balanced classes on the most variable genes, standardized.
    - `"pca_knn"`: a vote of 15 neighbors, weighted by distance, among 50 principal components of those genes, not standardized.
    - `"celltypist"`: what `celltypist.train` makes of all genes :cite:p:`DominguezConde2022`, with its own choice of
      genes and by stochastic gradient descent (its other solver asks for scikit-learn below 1.8); needs the extra
      `celltypist`.

    Genes are chosen, scaled and rotated on the training cells alone. With validation cells, the penalty of the logistic
    regression is chosen and the temperature of all is fitted on them.

    Parameters
    ----------
    X
        (n_obs, n_vars) log1p of counts per 10,000, sparse or dense.
    labels
        (n_obs,) class of each cell.
    train, test, val
        Rows of each part, as numbers or as (n_obs,) masks; disjoint.
    predictions
        Name -> (n_test, K) probabilities, columns in alphabetical order of the classes of all rows used, such as those
        of a fine-tuned model.
    methods
        Baselines to run; `None` runs all, without celltypist where it is not installed.
    gene_names
        Names of the columns, for celltypist; `None` numbers them.
    n_genes
        Variable genes.
    rng
        Seed.

    Returns
    -------
    The comparison.

    Raises
    ------
    ImportError
        celltypist is asked for and not installed.
    ValueError
        Raw counts; rows in two parts; unknown methods; predictions of another shape; fewer than two classes.

    Examples
    --------
    >>> import scanpy as sc
    >>> adata = scellm.datasets.toy_cells(160, n_vars=1000)
    >>> sc.pp.normalize_total(adata, target_sum=1e4)
    >>> sc.pp.log1p(adata)
    >>> found = scellm.metrics.compare_baselines(
    ...     adata.X, adata.obs["cell_type"], train=range(100), test=range(100, 160), methods=["logistic"]
    ... )
    >>> bool(found.table.loc["logistic", "macro_f1"] > 0.9)
    True
    """
    X = sp.csr_matrix(X) if sp.issparse(X) else np.asarray(X)
    labels = np.asarray(labels, dtype=object).astype(str)
    parts = _parts(X, labels, train, test, val)
    classes, codes = np.unique(labels[np.concatenate(list(parts.values()))], return_inverse=True)
    of_row = dict(zip(np.concatenate(list(parts.values())).tolist(), codes.tolist(), strict=True))
    y = {name: np.array([of_row[row] for row in rows], dtype=int) for name, rows in parts.items()}
    chosen, left_out = _methods(methods)
    _check(X, classes, predictions, len(parts["test"]), chosen)

    probabilities: dict[str, np.ndarray] = {
        name: np.asarray(given, dtype=np.float64) for name, given in (predictions or {}).items()
    }
    seconds: dict[str, float] = dict.fromkeys(probabilities, float("nan"))
    data = _Data(X, parts, y, len(classes), n_genes, rng, gene_names)
    for name in chosen:
        begun = time.perf_counter()
        probabilities[name] = _calibrated(*_RUN[name](data), y.get("val"))
        seconds[name] = time.perf_counter() - begun
    rows = {
        name: {**scores(found, y["test"]), "seconds": seconds[name]} for name, found in probabilities.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values(
        "macro_f1", ascending=False, kind="stable"
    )
    per_class = pd.DataFrame(
        {name: f1_by_class(found, y["test"]) for name, found in probabilities.items()}, index=classes
    ).T.loc[table.index]
    ours = list(predictions or {})
    return Comparison(table, per_class, probabilities, summary(table, ours), left_out)


def summary(table: pd.DataFrame, ours: Sequence[str]) -> str:
    """Who won, and whether a baseline did better than the predictions handed in."""
    best, score = str(table.index[0]), float(table["macro_f1"].iloc[0])
    text = f"Best macro-F1 on the test cells: {NAMES.get(best, best)} ({score:.3f})."
    if not ours or len(table) == len(ours):
        return text
    mine = table.loc[list(ours), "macro_f1"].idxmax()
    others = table.drop(index=list(ours))["macro_f1"]
    rival, gap = str(others.idxmax()), float(others.max() - table.loc[mine, "macro_f1"])
    if gap > CLOSE:
        way = (
            " Use it: scellm.tl.fit_reference(..., method='logistic') gives it the same confidence, sets and novelty."
            if rival == "logistic"
            else ""
        )
        return (
            f"A simple baseline is better here: {NAMES.get(rival, rival)} has macro-F1 {others.max():.3f}, {mine} "
            f"{table.loc[mine, 'macro_f1']:.3f}.{way}"
        )
    word = "about as good as" if gap > -CLOSE else "better than"
    return (
        f"{mine} ({table.loc[mine, 'macro_f1']:.3f}) is {word} the best baseline, {NAMES.get(rival, rival)} "
        f"({others.max():.3f})."
    )


def variable_genes(logged: Any, allowed: np.ndarray | None = None, n: int = 2000) -> np.ndarray:
    """Columns of the genes that vary most for their mean, ascending; of those allowed (scanpy's default flavor)."""
    import scanpy as sc
    from anndata import AnnData

    is_expressed = np.asarray(logged.mean(axis=0)).ravel() > 0
    candidates = np.flatnonzero(is_expressed if allowed is None else is_expressed & allowed)
    if len(candidates) <= n:
        return candidates
    cells = logged[:, candidates]
    cells = AnnData(sp.csr_matrix(cells) if sp.issparse(cells) else cells)
    table = sc.pp.highly_variable_genes(cells, n_top_genes=n, inplace=False)
    return candidates[table["highly_variable"].to_numpy()]


@dataclass
class _Data:
    """One split, as the baselines take it."""

    X: Any
    parts: dict[str, np.ndarray]
    y: dict[str, np.ndarray]
    n_classes: int
    n_genes: int
    rng: int
    gene_names: Sequence[str] | None

    def __post_init__(self) -> None:
        self._logged: dict[str, np.ndarray] = {}

    @property
    def logged(self) -> dict[str, np.ndarray]:
        """Variable genes of each part."""
        if not self._logged:
            genes = variable_genes(self.X[self.parts["train"]], n=self.n_genes)
            self._logged = {
                name: _dense(self.X[rows][:, genes]).astype(np.float32) for name, rows in self.parts.items()
            }
        return self._logged

    @property
    def standard(self) -> dict[str, np.ndarray]:
        """The same, standardized by the training cells."""
        train = self.logged["train"]
        mean, spread = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-3)
        return {name: np.clip((x - mean) / spread, -10, 10) for name, x in self.logged.items()}

    def spread(self, found: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Probabilities of the classes that were trained on, in the columns of all."""
        wide = np.zeros((len(found), self.n_classes))
        wide[:, classes] = found
        return wide


def _logistic(data: _Data) -> tuple[np.ndarray, np.ndarray | None]:
    cells, best = data.standard, None
    for penalty in PENALTIES if "val" in data.parts else PENALTIES[1:]:
        weight, bias = logistic_regression(cells["train"], data.y["train"], data.n_classes, penalty)
        found = {part: softmax(cells[part] @ weight.T + bias) for part in ("test", "val") if part in cells}
        score = float(np.nanmean(f1_by_class(found["val"], data.y["val"]))) if "val" in found else 0.0
        if best is None or score > best[0]:
            best = (score, found["test"], found.get("val"))
    return best[1], best[2]


def _pca_knn(data: _Data) -> tuple[np.ndarray, np.ndarray | None]:
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsClassifier

    # not standardized, which lets the noise of rare genes in
    pca = PCA(min(50, *data.logged["train"].shape), random_state=data.rng)
    train = pca.fit_transform(data.logged["train"])
    k = min(15, len(train))
    fitted = KNeighborsClassifier(k, weights="distance").fit(train, data.y["train"])

    def smoothed(part: str) -> np.ndarray:  # a class nobody votes for is unlikely, not impossible
        votes = data.spread(fitted.predict_proba(pca.transform(data.logged[part])), fitted.classes_)
        return (votes + 0.1 / k) / (1 + 0.1 / k * data.n_classes)

    return smoothed("test"), smoothed("val") if "val" in data.parts else None


def _celltypist(data: _Data) -> tuple[np.ndarray, np.ndarray | None]:
    import contextlib
    import io
    import logging

    from anndata import AnnData

    names = (
        [f"g{i}" for i in range(data.X.shape[1])]
        if data.gene_names is None
        else list(map(str, data.gene_names))
    )

    def cells(part: str) -> AnnData:
        return AnnData(
            sp.csr_matrix(data.X[data.parts[part]], dtype=np.float32), var=pd.DataFrame(index=pd.Index(names))
        )

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import celltypist

        celltypist.logger.set_level(logging.ERROR)
        train = cells("train")
        train.obs["label"] = [f"c{code}" for code in data.y["train"]]
        fitted = celltypist.train(
            train,
            labels="label",
            check_expression=False,
            feature_selection=True,
            use_SGD=True,
            n_jobs=1,
            max_iter=200,
        )

        def predicted(part: str) -> np.ndarray:
            found = celltypist.annotate(cells(part), model=fitted).decision_matrix
            codes = np.array([int(name[1:]) for name in found.columns])
            # its own probabilities, a sigmoid per class, are 1 for several classes of one cell
            return data.spread(softmax(found.to_numpy()), codes)

        return predicted("test"), predicted("val") if "val" in data.parts else None


_RUN = {"logistic": _logistic, "pca_knn": _pca_knn, "celltypist": _celltypist}


def _calibrated(test: np.ndarray, val: np.ndarray | None, truth: np.ndarray | None) -> np.ndarray:
    """Test probabilities at the temperature that suits the validation cells."""
    if val is None or truth is None:
        return test
    log_val = np.log(np.maximum(val, 1e-9))
    return softmax(np.log(np.maximum(test, 1e-9)) / fit_temperature(log_val, truth))


def _parts(X: Any, labels: np.ndarray, train: Any, test: Any, val: Any) -> dict[str, np.ndarray]:
    """Rows of each part, checked."""
    if X.ndim != 2 or X.shape[0] != len(labels):
        msg = f"X has shape {X.shape} for {len(labels)} labels; need (n_obs, n_vars) and n_obs labels."
        raise ValueError(msg)
    parts = {}
    for name, given in (("train", train), ("test", test), ("val", val)):
        if given is None:
            continue
        rows = np.asarray(list(given) if isinstance(given, range) else given)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        if not len(rows):
            msg = f"{name} has no cells."
            raise ValueError(msg)
        parts[name] = rows
    everything = np.concatenate(list(parts.values()))
    if len(np.unique(everything)) < len(everything):
        msg = f"{len(everything) - len(np.unique(everything))} rows are in two of train, val and test; they must be disjoint."
        raise ValueError(msg)
    return parts


def _methods(methods: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Methods to run, and those left out."""
    has_celltypist = importlib.util.find_spec("celltypist") is not None
    if methods is None:
        if has_celltypist:
            return list(METHODS), {}
        return [x for x in METHODS if x != "celltypist"], {
            "celltypist": "not installed; pip install 'scellm[celltypist]'"
        }
    if unknown := [name for name in methods if name not in METHODS]:
        msg = f"Unknown baselines {unknown}; choose from {list(METHODS)}."
        raise ValueError(msg)
    if "celltypist" in methods and not has_celltypist:
        msg = "The baseline 'celltypist' needs the package celltypist: pip install 'scellm[celltypist]'."
        raise ImportError(msg)
    return list(methods), {}


def _check(X: Any, classes: np.ndarray, predictions: Any, n_test: int, chosen: Sequence[str]) -> None:
    """Refuse values and predictions that cannot be compared."""
    if len(classes) < 2:
        msg = f"There is one class, {str(classes[0])!r}; two are needed to tell apart."
        raise ValueError(msg)
    largest = X.max() if X.shape[1] else 0
    if largest > 20:
        msg = (
            f"X goes up to {largest:g}, which is no log1p of counts per 10,000. Normalize first: "
            "sc.pp.normalize_total(adata, target_sum=1e4); sc.pp.log1p(adata)."
        )
        raise ValueError(msg)
    for name, given in (predictions or {}).items():
        shape = np.asarray(given).shape
        if shape != (n_test, len(classes)):
            msg = f"The predictions {name!r} have shape {shape}; need {(n_test, len(classes))}, a column per class."
            raise ValueError(msg)
        if name in chosen:
            msg = f"The predictions {name!r} have the name of a baseline; give them another."
            raise ValueError(msg)


def _dense(X: Any) -> np.ndarray:
    return X.toarray() if sp.issparse(X) else np.asarray(X)
