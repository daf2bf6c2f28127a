"""Objectives, views and the training loop."""

from ._bag import encode_bag
from ._losses import info_nce, masked_gene_loss
from ._pretrain import PretrainConfig, average, gene_gain, grow, pretrain, start_from_corpus
from ._views import ViewConfig, draw_view

__all__ = [
    "PretrainConfig",
    "ViewConfig",
    "average",
    "draw_view",
    "encode_bag",
    "gene_gain",
    "grow",
    "info_nce",
    "masked_gene_loss",
    "pretrain",
    "start_from_corpus",
]
