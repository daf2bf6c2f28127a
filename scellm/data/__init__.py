"""Gene vocabulary, tokens, and cells to train on."""

from ._batches import Batch, Sampler, shard
from ._corpus import Corpus
from ._drugs import descriptors, find_drugs, fingerprints, read_smiles, structure_kernel, tanimoto
from ._gene_match import GeneMatch
from ._match import gene_names, match_genes
from ._pack import pack
from ._profiles import draw_counts
from ._rows import check_finite, open_matrix, open_store, row_blocks
from ._sources import CellSource
from ._tokens import TokenConfig, Tokens, gene_counts, log_normalize, tokenize
from ._values import ValueReport, describe_values
from ._vocabulary import GeneVocabulary

__all__ = [
    "Batch",
    "CellSource",
    "Corpus",
    "GeneMatch",
    "GeneVocabulary",
    "Sampler",
    "TokenConfig",
    "Tokens",
    "ValueReport",
    "check_finite",
    "describe_values",
    "descriptors",
    "draw_counts",
    "find_drugs",
    "fingerprints",
    "gene_counts",
    "gene_names",
    "log_normalize",
    "match_genes",
    "open_matrix",
    "open_store",
    "pack",
    "read_smiles",
    "row_blocks",
    "shard",
    "structure_kernel",
    "tanimoto",
    "tokenize",
]
