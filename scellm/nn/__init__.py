"""Networks: the encoder and the heads on it. Tensors in, tensors out."""

from ._bag import encode_bag
from ._config import CellLMConfig
from ._drug_response import apply_parts, line_kernel, solve_grid, unexplained, whitener
from ._encoder import Encoder, Encoding
from ._heads import CancerHead, ContrastiveHead, MaskedGeneHead, MaskedValueHead

__all__ = [
    "CancerHead",
    "CellLMConfig",
    "ContrastiveHead",
    "Encoder",
    "Encoding",
    "MaskedGeneHead",
    "MaskedValueHead",
    "apply_parts",
    "encode_bag",
    "line_kernel",
    "solve_grid",
    "unexplained",
    "whitener",
]
