"""Every AnnData key the package reads or writes."""

X_SCELLM = "X_scellm"
"""Default key of cell embeddings in `obsm`, and of their record in `uns`."""

HARMONIZE = "scellm_harmonize"
"""Record of `pp.harmonize_genes` in `uns`."""
