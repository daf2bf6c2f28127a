"""Objectives, views, the divide-and-conquer step and the training loop."""

from ._batch import TrainingBatch, draw_batch
from ._collapse import CollapseError
from ._distributed import World, processes
from ._divide_and_conquer import DivideAndConquer, Encoded, StepReport
from ._fine_tune_options import FineTuneOptions
from ._gene_directions import bag_values, gene_discriminants, gene_loadings
from ._info_nce import info_nce, supervised_contrastive
from ._losses import masked_gene_loss, masked_value_loss, normal_cancer_loss
from ._recipe import PretrainConfig
from ._start import deepen, gene_gain, init_from_corpus, sample_corpus, sample_labels
from ._trainer import train
from ._views import ViewConfig, draw_view

__all__ = [
    "CollapseError",
    "DivideAndConquer",
    "Encoded",
    "FineTuneOptions",
    "PretrainConfig",
    "StepReport",
    "TrainingBatch",
    "ViewConfig",
    "World",
    "bag_values",
    "deepen",
    "draw_batch",
    "draw_view",
    "gene_discriminants",
    "gene_gain",
    "gene_loadings",
    "info_nce",
    "init_from_corpus",
    "masked_gene_loss",
    "masked_value_loss",
    "normal_cancer_loss",
    "processes",
    "sample_corpus",
    "sample_labels",
    "supervised_contrastive",
    "train",
]
