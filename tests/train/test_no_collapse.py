"""The first steps of every shipped recipe on real cells: cells stay apart, and the contrast is learned."""

import dataclasses
import functools
import math
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import scellm
from scellm.datasets import toy_cells
from scellm.nn import CellLMConfig, Encoder
from scellm.tl import pretrain
from scellm.train._recipe_file import PACKAGED, read_recipe

KANG = Path(__file__).parents[3] / "shared/data/corpus/kang_ifnb_pbmc.h5ad"
BATCH = 64
RECIPES = sorted(
    path.name.removesuffix(".toml") for path in PACKAGED.iterdir() if path.name.endswith(".toml")
)


@functools.cache
def real_cells() -> ad.AnnData:
    """Labeled blood cells of one study; training leaves them as they are."""
    if not KANG.exists():
        pytest.skip("needs the training corpus, which is not part of the project")
    adata = ad.read_h5ad(KANG, backed="r")
    chosen = np.sort(np.random.default_rng(0).choice(adata.n_obs, 512, replace=False))
    adata = adata[chosen].to_memory()
    adata.X = adata.X.astype(np.float32)
    return adata


def first_steps(cells: ad.AnnData, config: CellLMConfig, objectives: dict, n_steps: int, rate: float):
    """The log of the first steps."""
    compared = {name: weight for name, weight in objectives.items() if name != "normal_cancer"}
    model = pretrain(
        cells,
        config=config,
        gene_init="pca",
        objectives=compared,
        batch_size=BATCH,
        max_steps=n_steps,
        views={"max_genes": 96},
        learning_rate=rate,
        warmup=0.0,
        min_overlap=0.02,
        log_every=1,
        show_progress=False,
        max_genes=256,
    )
    return model.history


@functools.cache
def first_steps_on_real_cells(config: CellLMConfig, objectives: tuple, rate: float):
    """The same on real cells, once for stages that recipes have in common."""
    return first_steps(real_cells(), config, dict(objectives), 20, rate)


def narrow(config: CellLMConfig) -> CellLMConfig:
    """The same architecture with fewer dimensions, for the time this takes."""
    return dataclasses.replace(config, dim=min(config.dim, 64), heads=2, dim_head=16, ff_mult=2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_collapses(recipe):
    found = read_recipe(recipe)
    for stage in found.stages:
        config = narrow(found.architecture(stage, 19_315))
        objectives = tuple(stage.recipe.objectives.items())
        log = first_steps_on_real_cells(config, objectives, stage.recipe.learning_rate)
        assert log["anisotropy"].iloc[1] < 0.95, stage.name
        assert log["contrastive"].iloc[-5:].min() < 0.97 * math.log(BATCH), stage.name


def block_on_shipped_bag(cells: ad.AnnData, pooling: str):
    """The log of two steps of `scellm-small` with one block that starts at zero, at the rate of its recipe."""
    small = scellm.models.load("scellm-small")
    config = dataclasses.replace(small.config, cell_embedding=pooling)
    encoder = Encoder(config)
    encoder.load_state_dict(small.encoder.state_dict())
    return pretrain(
        cells,
        config=dataclasses.replace(config, depth=1),
        init=dataclasses.replace(small, encoder=encoder.eval(), config=config),
        objectives={"contrastive": 1.0},
        batch_size=BATCH,
        max_steps=2,
        views={"max_genes": 128},
        learning_rate=2e-3,  # per 256 cells: 1e-3 for this batch
        warmup=0.0,
        min_overlap=0.02,
        log_every=1,
        show_progress=False,
        max_genes=256,
    ).history


def test_one_step_leaves_the_shipped_bag_with_a_block_apart():
    log = block_on_shipped_bag(real_cells(), "bag")
    assert log["anisotropy"].max() < 0.95
    assert log["contrastive"].iloc[1] < 0.97 * math.log(BATCH)


def test_control_with_the_sum_over_genes_it_collapses_at_that_step():
    log = block_on_shipped_bag(real_cells(), "unit")
    assert log["anisotropy"].min() > 0.95
    assert log["contrastive"].iloc[1] > 0.97 * math.log(BATCH)


def test_toy_cells_stay_apart_with_blocks_on_a_bag():
    config = CellLMConfig(
        n_genes=19_315,
        dim=32,
        depth=1,
        heads=2,
        dim_head=16,
        ff_mult=2,
        attention="softmax",
        expression="continuous",
        amount="sqrt",
        cell_embedding="bag",
    )
    log = first_steps(toy_cells(128, n_vars=1950), config, {"contrastive": 1.0}, 3, 1e-3)
    assert log["anisotropy"].max() < 0.95
