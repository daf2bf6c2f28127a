"""Every AnnData key the package reads or writes."""

X_SCELLM = "X_scellm"
"""Default key of cell embeddings in `obsm`, and of their record in `uns`."""

HARMONIZE = "scellm_harmonize"
"""Record of `pp.harmonize_genes` in `uns`."""

CELL_TYPE = "scellm_cell_type"
"""Default key of predicted cell types: labels in `obs`, what was measured in `uns`; the others begin with it."""

GENE_IMPORTANCE = "scellm_gene_importance"
"""Default key of `tl.gene_importance`: in `varm`, and its record in `uns`."""

DRUG_RESPONSE = "drug_response"
"""Default key of predicted drug responses: in `obsm`, and their record in `uns`; other results begin with it."""

MALIGNANT = "scellm_malignant"
"""Default key of `tl.malignancy`: probability in `obs`, and its record in `uns`."""

RANK_DRUGS = "rank_drugs"
"""Default key of `tl.rank_drugs` in `uns`."""

DRUG_SIMILARITY = "drug_similarity"
"""Default key of `tl.drug_similarity` in `uns`."""

SEARCH = "scellm_search"
"""Default key of `tl.search`: its record in `uns`; votes, distances and neighbors begin with it."""

FINE_TUNE = "scellm_fine_tune"
"""Default key of the report of `tl.fine_tune` in `uns`."""
