"""harmonize_genes: one column per vocabulary gene, under its approved symbol."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .._checks import get_matrix, layer_names
from .._containers import takes_cells
from .._keys import HARMONIZE
from .._warn import warn
from ..data import GeneMatch, GeneVocabulary, ValueReport, describe_values
from ..data.genes._match import match_genes


@takes_cells
def harmonize_genes(
    adata: AnnData,
    *,
    vocabulary: GeneVocabulary | None = None,
    gene_key: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    organism: str | None = None,
) -> AnnData:
    """Bring genes onto the vocabulary: approved symbols, one column per gene, in vocabulary order.

    Finds Ensembl ids, approved, previous and alias symbols, other case, spreadsheet dates and mouse
    one-to-one orthologs; a name that several genes share is left out and listed. `tl.embed` does this by
    itself: the function is for looking at the result, and for other tools. It does not normalize.

    Unlike most functions that take an AnnData it returns a new one, since the genes change; `adata` stays
    as it is.

    Parameters
    ----------
    adata
        Cells x genes. Backed and dask matrices are read into memory.
    vocabulary
        Genes to bring the data onto; `None` takes the packaged human protein-coding genes.
    gene_key
        Column of `var` with symbols or Ensembl ids; `None` takes `var_names`, or a column such as `gene_ids`
        where `var_names` are not gene names.
    layer
        Layer that becomes `X` of the result; `None` takes `adata.X`.
    use_raw
        Take `adata.raw.X` and its genes instead. The layers then have other columns and are left out.
    organism
        "human" or "mouse"; `None` decides from the names.

    Returns
    -------
    A new `AnnData` with the genes that are present. `obs`, `obsm`, `obsp` and `uns` are copies; `varm`, `varp`
    and `raw` belong to the old genes and are left out. Sparse matrices stay sparse. Columns of one gene are
    summed: counts and linear values as they are, log1p values after undoing the logarithm, which is then taken
    again; of scaled values only the first column is kept, with a warning. Sets:

    `var_names`
        Vocabulary symbols.
    `var["ensembl_id"]`, `var["gene_id"]`, `var["original_name"]` : str, int, str
        Ensembl id, id in the vocabulary, and the names as they were (joined by `|` where columns were summed).
        The other columns of `var` are those of the gene's first column.
    `uns["scellm_harmonize"]` : dict
        `vocabulary`, `where`, `namespace`, `organism`, `n_columns`, `n_genes`, `n_vocabulary`, `n_duplicates`,
        `match_type` (columns per way of matching) and `ambiguous` (the names left out because several genes share them).

    Raises
    ------
    KeyError
        `layer` is not in `adata.layers`, or `gene_key` not in `var`.
    TypeError
        Gene names that are not text.
    ValueError
        No vocabulary gene at all, no cells, or an absent `X` or `raw`.

    Examples
    --------
    >>> import scellm
    >>> adata = scellm.datasets.toy_cells(8)
    >>> adata.var_names = adata.var["ensembl_id"].astype(str)
    >>> scellm.pp.harmonize_genes(adata).var_names[:3].tolist()
    ['A1BG', 'A4GNT', 'AADAT']
    """
    X, var, _ = get_matrix(adata, layer, use_raw)
    vocabulary = GeneVocabulary.default() if vocabulary is None else vocabulary
    raw_var = None if use_raw or adata.raw is None else adata.raw.var
    holder = "adata.raw" if use_raw else "adata"
    match = match_genes(
        var, vocabulary, gene_key, min_overlap=0, organism=organism, raw_var=raw_var, holder=holder
    )
    layers = {} if use_raw else {key: adata.layers[key] for key in layer_names(adata)}
    result = AnnData(
        _sum_columns(X, match.ids),
        obs=adata.obs.copy(),
        var=_new_var(var, match, vocabulary),
        obsm={key: value.copy() for key, value in adata.obsm.items()},
        obsp={key: value.copy() for key, value in adata.obsp.items()},
        uns=deepcopy(dict(adata.uns)),
        layers={key: _sum_columns(values, match.ids) for key, values in layers.items()},
    )
    result.uns[HARMONIZE] = _report(match, vocabulary)
    return result


def _new_var(var: pd.DataFrame, match: GeneMatch, vocabulary: GeneVocabulary) -> pd.DataFrame:
    """Table of the genes present, in vocabulary order."""
    genes, first = _first_columns(match.ids)
    originals = pd.Series(match.names[match.ids >= 0]).groupby(match.ids[match.ids >= 0]).agg("|".join)
    new = var.iloc[first].copy()
    new.index = pd.Index(vocabulary.symbols[genes].astype(object))
    new["ensembl_id"] = vocabulary.ensembl_ids[genes].astype(object)
    new["gene_id"] = genes
    new["original_name"] = originals.loc[genes].to_numpy()
    return new


def _first_columns(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gene ids present, ascending, and the first column of each."""
    columns = np.flatnonzero(ids >= 0)
    genes, at = np.unique(ids[columns], return_index=True)
    return genes, columns[at]


def _sum_columns(X: Any, ids: np.ndarray) -> Any:
    """One column per gene, in order of gene id; only columns that are really summed change their values."""
    X = X.compute() if hasattr(X, "compute") else X
    X = _plain(X[:] if not isinstance(X, np.ndarray) and not sp.issparse(X) else X)  # X[:]: backed
    genes, first = _first_columns(ids)
    columns = np.flatnonzero(ids >= 0)
    n_columns = np.bincount(ids[columns], minlength=genes[-1] + 1)[genes]
    shared = np.flatnonzero(n_columns > 1)
    if not len(shared):
        return X[:, first]
    values = describe_values(X)
    if not values.usable and values.kind != "empty":
        text = (
            f"{int((n_columns[shared] - 1).sum())} columns belong to genes that have a column already. They cannot be "
            f"summed ({values.message}) and are left out."
        )
        warn(text)
        return X[:, first]
    of_shared = columns[np.isin(ids[columns], genes[shared])]
    selector = sp.csr_array(
        (
            np.ones(len(of_shared)),
            (np.arange(len(of_shared)), np.searchsorted(genes[shared], ids[of_shared])),
        ),
        shape=(len(of_shared), len(shared)),
    )
    return _replace_columns(X[:, first], shared, _sum(X[:, of_shared], selector, values))


def _plain(X: Any) -> Any:
    """Numpy's or scipy's own class, same memory.

    A matrix of an AnnData view, and every copy of it made by slicing or `astype`, writes into that AnnData.
    """
    if not sp.issparse(X):
        return np.asarray(X)
    own = next(kind for kind in type(X).__mro__ if kind.__module__.startswith("scipy."))
    return own(X)


def _sum(X: Any, selector: sp.csr_array, values: ValueReport) -> Any:
    """Sums of columns at linear scale, given back at the scale of `X`."""
    if sp.issparse(X):
        linear = sp.csr_array(X, dtype=np.float64)
        linear.data = values.linearize(linear.data) if values.usable else linear.data
    else:
        linear = values.linearize(X.astype(np.float64)) if values.usable else X.astype(np.float64)
    sums = linear @ selector
    if values.kind == "log1p":
        sums = (
            sums.log1p() / np.log(values.base) if sp.issparse(sums) else np.log1p(sums) / np.log(values.base)
        )
    return sums


def _replace_columns(X: Any, columns: np.ndarray, new: Any) -> Any:
    """`X` with some columns replaced; integers become wider where a sum needs it."""
    dtype = X.dtype
    if dtype.kind in "bui":
        largest = new.max() if new.shape[0] else 0
        dtype = dtype if dtype.kind != "b" and largest <= np.iinfo(dtype).max else np.dtype(np.int64)
    if not sp.issparse(X):
        X = np.array(X, dtype=dtype)
        X[:, columns] = new
        return X
    keep = np.setdiff1d(np.arange(X.shape[1]), columns)
    order = np.argsort(np.concatenate([keep, columns]))
    stacked = sp.hstack([X[:, keep].tocsc(), new.tocsc()], format="csc")[:, order]
    return type(X)(stacked.asformat(X.format).astype(dtype))


def _report(match: GeneMatch, vocabulary: GeneVocabulary) -> dict[str, Any]:
    """The match as plain values that h5ad can hold."""
    return {
        "vocabulary": vocabulary.source,
        "where": match.where,
        "namespace": match.namespace,
        "organism": match.organism,
        "n_columns": len(match.names),
        "n_genes": match.n_genes,
        "n_vocabulary": match.n_vocabulary,
        "n_duplicates": match.n_duplicates,
        "match_type": dict(Counter(match.match_type.tolist())),
        "ambiguous": np.array(match.ambiguous, dtype=object),
    }
