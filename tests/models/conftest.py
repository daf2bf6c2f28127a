"""A tiny model, and folders of it that are broken in one way each."""

import json
import shutil

import numpy as np
import pytest
import torch

from scellm.data import GeneVocabulary, TokenConfig
from scellm.models import CellLM, save
from scellm.models._manifest import write_manifest
from scellm.nn import CellLMConfig, Encoder

N_GENES = 12


def tiny_model(name="tiny", **options):
    """A model of a few thousand random weights over 12 genes."""
    config = CellLMConfig.named("tiny", n_genes=N_GENES)
    if options:
        config = CellLMConfig.from_dict(config.to_dict() | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(config).eval()
    return CellLM(
        encoder=encoder,
        config=config,
        tokens=TokenConfig(max_genes=8),
        vocabulary=GeneVocabulary(
            ensembl_ids=[f"ENSG{i:011d}" for i in range(N_GENES)],
            symbols=[f"GENE{i}" for i in range(N_GENES)],
            source="made for tests",
        ),
        provenance={"description": "Random weights for tests.", "data": {"cells": 0, "sets": ["none"]}},
        name=name,
    )


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def make_model():
    return tiny_model


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory):
    return save(tiny_model(), tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def bundle(saved_once, tmp_path):
    """A saved model that a test may damage."""
    return shutil.copytree(saved_once, tmp_path / "tiny")


@pytest.fixture
def edit_json():
    """Change a JSON file of a bundle and, unless told not to, its manifest: a forged, not a damaged file."""

    def edit(folder, name, change, *, sign=True):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
        if sign:
            write_manifest(folder)

    return edit


@pytest.fixture
def embedding():
    """Embeddings of two cells with fixed genes, as numpy."""

    def of(model):
        gene_ids = torch.tensor([[0, 3, 5], [2, 11, 0]])
        is_gene = torch.tensor([[True, True, True], [True, True, False]])
        with torch.no_grad():
            return np.asarray(model.encoder(gene_ids, gene_ids * 0.3 + 0.1, is_gene).cells)

    return of


@pytest.fixture(autouse=True)
def own_hub_cache(tmp_path, monkeypatch):
    """Neither the cache nor the settings of whoever runs the tests play a part."""
    for variable in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
