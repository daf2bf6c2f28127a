"""Preprocessing: what a data set holds, and its genes on the vocabulary."""

from ._check_input import check_input
from ._harmonize import harmonize_genes

__all__ = ["check_input", "harmonize_genes"]
