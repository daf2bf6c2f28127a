"""A small bag of genes that looks at the markers of toy cells: the quickest model that tells them apart."""

import numpy as np
import pytest
import torch

from scellm.data import GeneVocabulary, TokenConfig
from scellm.datasets._toy import MARKERS
from scellm.models import CellLM
from scellm.nn import CellLMConfig, Encoder


def bag_of_genes(**options):
    vocabulary = GeneVocabulary.default()
    fields = {"dim": 24, "depth": 0, "expression": "continuous", "cell_embedding": "mean", **options}
    config = CellLMConfig(n_genes=len(vocabulary), **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(config).eval()
        marker = torch.from_numpy(
            np.isin(vocabulary.symbols, [x for genes in MARKERS.values() for x in genes])
        )
        with torch.no_grad():  # as if it had learned which genes matter
            encoder.gene_embedding.weight.mul_(20)
            encoder.expression.log_gain[: len(vocabulary)] = torch.where(marker, 0.0, -4.0)
    return CellLM(
        encoder=encoder,
        config=config,
        tokens=TokenConfig(),
        vocabulary=vocabulary,
        name="bag",
        sha256="0" * 64,
    )


@pytest.fixture(scope="session")
def bag_model():
    return bag_of_genes()


@pytest.fixture(scope="session")
def make_bag_model():
    return bag_of_genes
