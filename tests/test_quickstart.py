"""The parts of the quickstart; CI runs the whole, with the real cells and weights, as the README says."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import scellm
from scellm import quickstart


@pytest.fixture
def cells():
    """Drawn cells; of 30 B cells 25 are called so, and one cell has a rare type."""
    adata = scellm.datasets.toy_cells(120)
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(120, 2))
    types = adata.obs["cell_type"].astype(str).to_numpy(copy=True)
    types[(types == "B cell").nonzero()[0][:5]] = "unassigned"
    adata.obs["scellm_cell_type"] = pd.Categorical(types)
    return adata


def test_agreement_says_what_most_cells_of_a_label_are_called(cells):
    markers = pd.Series({"B cell": "CD79A, MS4A1, CD19, BANK1"})
    table = quickstart.agreement(cells, markers).set_index("published label")
    assert list(table.loc["B cell"]) == [30, "B cell", "83%", "CD79A, MS4A1, CD19"]
    assert table.loc["NK cell", "share"] == "100%"


def test_cells_are_written_whole(cells, tmp_path):
    path = quickstart.write_cells(cells, tmp_path / "cells.h5ad")
    assert (ad.read_h5ad(path).obsm["X_umap"] == cells.obsm["X_umap"]).all()
    assert [file.name for file in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_type_has_the_color_of_the_label_it_stands_for(cells):
    of_label, of_type = quickstart.type_colors(cells)
    assert of_type["B cell"] == of_label["B cell"]
    assert len({*of_type.values()}) == len(of_type) == 6  # unassigned and novel among them


def test_picture_shows_every_type_in_its_color(cells, tmp_path):
    path = quickstart.draw_umap(cells, tmp_path / "umap.png")
    pixels = imread(path)[..., :3].reshape(-1, 3)
    for name, color in quickstart.type_colors(cells)[1].items():
        rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - rgb).max(axis=1) < 0.01).sum() > 50, name
    assert [file.name for file in tmp_path.iterdir()] == ["umap.png"]


def test_rare_types_are_gathered_in_gray(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "RARE", 0.22)
    path = quickstart.draw_umap(cells, tmp_path / "umap.png")  # 25 of 120 B cells are fewer
    pixels = imread(path)[..., :3].reshape(-1, 3)
    assert (abs(pixels - 0.8).max(axis=1) < 0.01).sum() > 200
