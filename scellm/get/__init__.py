"""Results as tables."""

from ._annotation import annotation
from ._drug_response import drug_response, rank_drugs
from ._embedding import embedding
from ._gene_importance import gene_importance
from ._malignancy import malignancy
from ._search import search

__all__ = [
    "annotation",
    "drug_response",
    "embedding",
    "gene_importance",
    "malignancy",
    "rank_drugs",
    "search",
]
