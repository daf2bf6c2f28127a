"""annotation: what the cells of a cluster, sample or type were called, and what speaks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .._checks import check_anndata, get_matrix
from .._containers import takes_cells
from .._keys import CELL_TYPE
from .._obs import read_groups
from ..annotation._records import AnnotationRecord

REFUSALS = ("unassigned", "novel")
EXPRESSED = 0.1
"""Share of a group's cells with a count of a marker from which the group expresses it (ours)."""


@takes_cells
def annotation(
    adata: AnnData,
    *,
    key: str = CELL_TYPE,
    groupby: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
) -> pd.DataFrame:
    """What each group of cells was called, how sure that is, and which markers speak for it.

    The markers are those that the shipped reference learned from its own cells, so they are evidence beside the label, not
    the label's own. A marker counts as expressed if a tenth of the group's cells have any of it; genes that the data
    does not have are not listed.

    Parameters
    ----------
    adata
        Cells that `tl.annotate` has labeled.
    key
        Key of the labels.
    groupby
        Column of `obs` with clusters, samples or conditions; `None` takes the labels themselves.
    layer, use_raw
        Expression to look for markers in; as in `tl.embed`.
    gene_key
        Column of `var` with gene symbols; `None` takes the names of the columns.

    Returns
    -------
    Table with a row per group, largest first: `group`, `n_cells`, `label` (the most common one), `share` (of the group's cells),
    `lineage`, `ontology_id`, `confidence` (mean), `runner_up` (the second most common label, or of types the
    next most probable one), `unassigned` and `novel` (shares), `recall_left_out` and
    `precision_left_out` (where whole studies were left out of the shipped reference: share of the cells of this label that got it or a
    finer one, and share of the cells so named that were of it; NaN where fewer than 20 cells tell), `markers_expressed` and `markers_lacking` (genes of
    the label, comma between; empty for labels without known markers).

    Raises
    ------
    KeyError
        No labels under `key`, or no such column.
    TypeError
        `adata` is not an AnnData; `groupby` of measurements.

    Examples
    --------
    >>> import warnings
    >>> adata = scellm.datasets.toy_cells(60, n_vars=1950)
    >>> with warnings.catch_warnings():  # toy cells fit no tissue
    ...     warnings.simplefilter("ignore")
    ...     scellm.tl.annotate(adata)
    >>> int(scellm.get.annotation(adata, groupby="cell_type")["n_cells"].sum())
    60
    """
    check_anndata(adata)
    record = AnnotationRecord.from_uns(adata.uns.get(key))
    if key not in adata.obs or record is None:
        added = "" if key == CELL_TYPE else f", key_added={key!r}"
        msg = f"There are no labels of tl.annotate under {key!r}. Run scellm.tl.annotate(adata{added}) first."
        raise KeyError(msg)
    labels = adata.obs[key].astype(str).to_numpy()
    groups = read_groups(adata, key if groupby is None else groupby)
    markers = _Markers(adata, record, labels, layer, use_raw, gene_key)
    rows = []
    for code, group in enumerate(groups.categories):
        cells = np.flatnonzero(groups.codes == code)
        rows.append({"group": group, "n_cells": len(cells), **_row(adata, key, record, labels, cells)})
        rows[-1] |= record.left_out_of(rows[-1]["label"]) | markers.of(rows[-1]["label"], cells)
    table = pd.DataFrame(rows)
    return table.sort_values("n_cells", ascending=False, kind="stable", ignore_index=True)


def _row(
    adata: AnnData, key: str, record: AnnotationRecord, labels: np.ndarray, cells: np.ndarray
) -> dict[str, Any]:
    """Label, runner-up and shares of one group."""
    counts = pd.Series(labels[cells]).value_counts()
    named = counts.drop(labels=list(REFUSALS), errors="ignore")
    order = [*named.index, *(name for name in counts.index if name in REFUSALS)]
    label = order[0]
    runner_up = named.index[1] if len(named) > 1 else _next_class(adata, key, record, label, cells)
    of_label = cells[labels[cells] == label]
    return {
        "label": label,
        "share": float(counts[label] / len(cells)),
        "lineage": _first(adata, f"{key}_coarse", of_label),
        "ontology_id": _first(adata, f"{key}_ontology_id", of_label),
        "confidence": float(adata.obs[f"{key}_confidence"].to_numpy()[cells].mean()),
        "runner_up": str(runner_up),
        **{name: float(counts.get(name, 0) / len(cells)) for name in REFUSALS},
    }


def _next_class(adata: AnnData, key: str, record: AnnotationRecord, label: str, cells: np.ndarray) -> str:
    """The class with the highest mean probability that is not the label or below it."""
    if f"{key}_probabilities" not in adata.obsm:
        return ""
    mean = np.nan_to_num(np.asarray(adata.obsm[f"{key}_probabilities"])[cells]).mean(axis=0)
    classes, paths = record.classes, dict(zip(record.nodes, record.paths, strict=True))
    outside = [i for i, name in enumerate(classes) if label not in paths.get(name, name).split(" > ")]
    return classes[max(outside, key=lambda i: mean[i])] if outside else ""


def _first(adata: AnnData, column: str, cells: np.ndarray) -> str:
    if column not in adata.obs or not len(cells):
        return ""
    value = adata.obs[column].iloc[cells[0]]
    return "" if pd.isna(value) else str(value)


class _Markers:
    """Markers of the labels, and which cells express them."""

    def __init__(
        self,
        adata: AnnData,
        record: AnnotationRecord,
        labels: np.ndarray,
        layer: str | None,
        use_raw: bool | None,
        gene_key: str | None,
    ) -> None:
        self.known = record.markers_of()
        self.genes = pd.Index([])
        if not self.known:
            return
        matrix, var, _ = get_matrix(adata, layer, use_raw)
        symbols = pd.Index((var.index if gene_key is None else var[gene_key]).astype(str))
        wanted = {gene for name in set(labels) for gene in self.known.get(name, ())}
        self.genes = pd.Index(sorted(wanted & set(symbols)))
        columns = [int(np.flatnonzero(symbols == gene)[0]) for gene in self.genes]
        matrix = matrix[:] if not isinstance(matrix, np.ndarray) and not sp.issparse(matrix) else matrix
        self.expressed = sp.csr_array(matrix[:, columns] > 0) if columns else sp.csr_array((adata.n_obs, 0))

    def of(self, label: str, cells: np.ndarray) -> dict[str, str]:
        """The genes of a label that a tenth of the cells express, and the others."""
        genes = [gene for gene in self.known.get(label, ()) if gene in self.genes]
        if not genes:
            return {"markers_expressed": "", "markers_lacking": ""}
        share = np.asarray(self.expressed[cells].mean(axis=0)).ravel()[self.genes.get_indexer(genes)]
        has = share >= EXPRESSED
        return {
            "markers_expressed": ", ".join(g for g, x in zip(genes, has, strict=True) if x),
            "markers_lacking": ", ".join(g for g, x in zip(genes, has, strict=True) if not x),
        }
