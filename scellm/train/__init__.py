"""Objectives, views, the divide-and-conquer step and the training loop."""

from ._batch import TrainingBatch, draw_batch
from ._distributed import World, processes
from ._divide_and_conquer import DivideAndConquer, Encoded, StepReport
from ._fine_tune_options import FineTuneOptions
from ._gene_directions import bag_values, gene_discriminants, gene_loadings
from ._info_nce import info_nce, nt_xent, supervised_contrastive
from ._loop import train
from ._losses import masked_gene_loss, masked_value_loss, normal_cancer_loss
from ._recipe import PretrainConfig
from ._start import average, gene_gain, grow, sample_corpus, sample_labels, start_from_corpus
from ._views import ViewConfig, draw_view

__all__ = [
    "DivideAndConquer",
    "Encoded",
    "FineTuneOptions",
    "PretrainConfig",
    "StepReport",
    "TrainingBatch",
    "ViewConfig",
    "World",
    "average",
    "bag_values",
    "draw_batch",
    "draw_view",
    "gene_discriminants",
    "gene_gain",
    "gene_loadings",
    "grow",
    "info_nce",
    "masked_gene_loss",
    "masked_value_loss",
    "normal_cancer_loss",
    "nt_xent",
    "processes",
    "sample_corpus",
    "sample_labels",
    "start_from_corpus",
    "supervised_contrastive",
    "train",
]
