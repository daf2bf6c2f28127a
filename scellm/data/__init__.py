"""Gene vocabulary, tokens and readers."""

from ._corpus import CorpusDataset, read_corpus
from ._match import GeneMatch, gene_names, match_genes
from ._rows import check_finite, open_matrix, open_store, row_blocks
from ._tokens import TokenConfig, Tokens, gene_counts, log_normalize, tokenize
from ._values import ValueReport, describe_values
from ._vocabulary import GeneVocabulary

__all__ = [
    "CorpusDataset",
    "GeneMatch",
    "GeneVocabulary",
    "TokenConfig",
    "Tokens",
    "ValueReport",
    "check_finite",
    "describe_values",
    "gene_counts",
    "gene_names",
    "log_normalize",
    "match_genes",
    "open_matrix",
    "open_store",
    "read_corpus",
    "row_blocks",
    "tokenize",
]
