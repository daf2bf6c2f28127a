"""Results as tables."""

from ._embedding import embedding
from ._gene_importance import gene_importance

__all__ = ["embedding", "gene_importance"]
