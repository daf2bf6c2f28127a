"""gene_importance: uns -> one line per type and gene."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from .._checks import check_anndata
from .._containers import takes_cells
from .._keys import GENE_IMPORTANCE
from .._records import ImportanceRecord


@takes_cells
def gene_importance(
    adata: AnnData, *, key: str = GENE_IMPORTANCE, group: str | None = None, n_genes: int | None = None
) -> pd.DataFrame:
    """The genes of each type, most important first.

    Parameters
    ----------
    adata
        Cells that `tl.gene_importance` has seen.
    key
        Its key in `adata.uns`.
    group
        One type; `None` takes all.
    n_genes
        Genes per type; `None` takes all that its cells express.

    Returns
    -------
    Table with a line per type and gene: `group`, `gene`, `rank` from 1, `importance` (share of the cosine with the
    type's direction that is due to the gene, mean over cells; below 0 where it speaks against the type) and
    `expression` (mean ln(1 + counts per target sum)).

    Raises
    ------
    KeyError
        `key` is not in `adata.uns`, or it has no such type.
    TypeError
        `adata` is not an AnnData.
    """
    check_anndata(adata)
    record = ImportanceRecord.from_uns(adata.uns.get(key))
    if record is None:
        msg = (
            f"There is no gene importance under {key!r} in `adata.uns`, which has {list(adata.uns)}. "
            f"Run scellm.tl.gene_importance(adata, groupby{'' if key == GENE_IMPORTANCE else f', key_added={key!r}'}) first."
        )
        raise KeyError(msg)
    if group is not None and group not in record.groups:
        msg = f"group={group!r} is not among the types that were explained: {record.groups}."
        raise KeyError(msg)
    tables = [record.table(name) for name in ([group] if group is not None else record.groups)]
    return pd.concat(
        [table if n_genes is None else table.head(n_genes) for table in tables], ignore_index=True
    )
