"""Figures."""

from ._annotation import annotation
from ._compare import compare
from ._confidence import confidence
from ._confusion_matrix import confusion_matrix
from ._copy_number import copy_number
from ._drug_response import drug_response
from ._malignancy import malignancy
from ._markers import markers
from ._rank_drugs import rank_drugs
from ._reliability import reliability
from ._search import search
from ._training_history import training_history

__all__ = [
    "annotation",
    "compare",
    "confidence",
    "confusion_matrix",
    "copy_number",
    "drug_response",
    "malignancy",
    "markers",
    "rank_drugs",
    "reliability",
    "search",
    "training_history",
]
