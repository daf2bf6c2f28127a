"""Gene vocabulary, tokens, and cells to train on."""

from ._batches import Batch, Sampler, shard
from ._corpus import Corpus
from ._expression import Expression, ReadOptions
from ._gene_match import GeneMatch
from ._match import gene_names, match_genes
from ._pack import pack
from ._results_file import check_target, write_results
from ._rows import check_finite, open_matrix, open_store, row_blocks
from ._sources import CellSource
from ._structure import check_structure
from ._tokens import TokenConfig, Tokens, gene_counts, log_normalize, tokenize
from ._values import ValueReport, describe_values
from ._vocabulary import GeneVocabulary

__all__ = [
    "Batch",
    "CellSource",
    "Corpus",
    "Expression",
    "GeneMatch",
    "GeneVocabulary",
    "ReadOptions",
    "Sampler",
    "TokenConfig",
    "Tokens",
    "ValueReport",
    "check_finite",
    "check_structure",
    "check_target",
    "describe_values",
    "gene_counts",
    "gene_names",
    "log_normalize",
    "match_genes",
    "open_matrix",
    "open_store",
    "pack",
    "row_blocks",
    "shard",
    "tokenize",
    "write_results",
]
