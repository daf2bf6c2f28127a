"""Gene vocabulary, tokens, and cells to train on."""

from .cells._expression import Expression, ReadOptions
from .cells._results_file import check_target, write_results
from .cells._rows import check_finite, open_cells, open_matrix, open_store, row_blocks
from .cells._structure import check_structure
from .cells._tokens import TokenConfig, Tokens, as_tokens, gene_counts, log_normalize, tokenize
from .cells._values import ValueReport, describe_values
from .corpus._batches import Batch, Sampler, shard
from .corpus._corpus import Corpus
from .corpus._pack import pack
from .corpus._sources import CellSource
from .genes._gene_match import GeneMatch
from .genes._match import gene_names, match_genes
from .genes._vocabulary import GeneVocabulary

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
    "as_tokens",
    "check_finite",
    "check_structure",
    "check_target",
    "describe_values",
    "gene_counts",
    "gene_names",
    "log_normalize",
    "match_genes",
    "open_cells",
    "open_matrix",
    "open_store",
    "pack",
    "row_blocks",
    "shard",
    "tokenize",
    "write_results",
]
