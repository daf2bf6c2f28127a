"""Networks: the encoder and the heads on it. Tensors in, tensors out."""

from ._bag import encode_bag
from ._config import CellLMConfig
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
    "encode_bag",
]
