"""Objectives, views and the training loop."""

from ._bag import encode_bag
from ._distributed import World, processes
from ._divide_and_conquer import DivideAndConquer, Encoded, StepReport
from ._info_nce import info_nce, nt_xent, supervised_contrastive
from ._losses import masked_gene_loss
from ._pretrain import PretrainConfig, average, gene_gain, grow, pretrain, start_from_corpus
from ._views import ViewConfig, draw_view

__all__ = [
    "DivideAndConquer",
    "Encoded",
    "PretrainConfig",
    "StepReport",
    "ViewConfig",
    "World",
    "average",
    "draw_view",
    "encode_bag",
    "gene_gain",
    "grow",
    "info_nce",
    "masked_gene_loss",
    "nt_xent",
    "pretrain",
    "processes",
    "start_from_corpus",
    "supervised_contrastive",
]
