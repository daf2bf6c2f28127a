"""Datasets for training: folders of h5ad files onto one vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import scipy.sparse as sp

from ._tokens import gene_counts
from ._values import describe_values
from ._vocabulary import GeneVocabulary

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class CorpusDataset:
    """Cells of one study over the vocabulary."""

    counts: sp.csr_array
    """(n_cells, n_genes) float32 linear expression; whole numbers where the study has counts."""
    values: str
    """What the file held, as `describe_values` names it."""
    n_matched: int
    """Vocabulary genes the study measured."""
    about: dict[str, str] = field(default_factory=dict)
    """What the file says of itself: `paper`, `provenance` and `licence` from `uns`, `tissue`, `organism` and
    numbers of cancer and normal cells from `obs`, as far as they are there."""


def read_corpus(folders: Iterable[str | Path], vocabulary: GeneVocabulary) -> dict[str, CorpusDataset]:
    """Read every h5ad file of some folders, harmonised onto a vocabulary.

    Parameters
    ----------
    folders
        Folders of `.h5ad` files with expression in `X`.
    vocabulary
        Genes of the columns.

    Returns
    -------
    Datasets by file name, sorted.

    Raises
    ------
    FileNotFoundError
        A folder holds no `.h5ad` file.
    ValueError
        A file's values cannot be brought to linear scale, or two files share a name.
    """
    import anndata

    corpus: dict[str, CorpusDataset] = {}
    for folder in map(Path, folders):
        paths = sorted(folder.glob("*.h5ad"))
        if not paths:
            msg = f"No .h5ad file in {folder}."
            raise FileNotFoundError(msg)
        for path in paths:
            if path.stem in corpus:
                msg = f"Two files of the corpus are called {path.name}; rename one."
                raise ValueError(msg)
            adata = anndata.read_h5ad(path)
            report = describe_values(adata.X)
            if not report.usable:
                msg = f"{path}: {report.message}"
                raise ValueError(msg)
            match = vocabulary.match(adata.var_names)
            counts = gene_counts(adata.X, match.ids, len(vocabulary), report.linearize)
            corpus[path.stem] = CorpusDataset(counts, report.kind, match.n_genes, _about(adata))
    return dict(sorted(corpus.items()))


def _about(adata: AnnData) -> dict[str, str]:
    """Where cells come from, for the model card."""
    about = {key: str(adata.uns[key]) for key in ("paper", "provenance", "licence") if adata.uns.get(key)}
    for key in ("tissue", "organism"):
        if key in adata.obs:
            about[key] = ", ".join(sorted(map(str, adata.obs[key].unique())))
    if "malignant" in adata.obs:
        is_cancer = adata.obs["malignant"].astype(str)
        about |= {"cancer": str((is_cancer == "True").sum()), "normal": str((is_cancer == "False").sum())}
    return about
