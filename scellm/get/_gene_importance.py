"""gene_importance: uns -> one line per type and gene."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from .._keys import GENE_IMPORTANCE


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
    """
    if key not in adata.uns:
        msg = (
            f"{key!r} is not in `adata.uns`, which has {list(adata.uns)}. "
            f"Run scellm.tl.gene_importance(adata, groupby{'' if key == GENE_IMPORTANCE else f', key_added={key!r}'}) first."
        )
        raise KeyError(msg)
    stored = adata.uns[key]
    names = [str(name) for name in stored["groups"]]
    if group is not None and group not in names:
        msg = f"group={group!r} is not among the types that were explained: {names}."
        raise KeyError(msg)
    tables = []
    for i, name in enumerate(names):
        if group is not None and name != group:
            continue
        table = pd.DataFrame(
            {
                "group": name,
                "gene": [str(gene) for gene in stored["genes"]],
                "importance": stored["importance"][:, i],
                "expression": stored["expression"][:, i],
            }
        )
        table = table[table["expression"] > 0].sort_values("importance", ascending=False, kind="stable")
        table.insert(2, "rank", range(1, len(table) + 1))
        tables.append(table if n_genes is None else table.head(n_genes))
    return pd.concat(tables, ignore_index=True)
