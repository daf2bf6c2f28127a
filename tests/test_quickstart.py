"""The parts of the quickstart; CI runs the whole, with the weights, as the README says."""

import anndata as ad
import pytest
import scanpy as sc
from matplotlib.image import imread

from scellm import quickstart


@pytest.fixture(scope="module")
def cells():
    """scanpy's cells, with PCA of the scaled values in place of the embedding."""
    adata = sc.datasets.pbmc68k_reduced()
    adata.obsm["X_scellm"] = adata.obsm["X_pca"]
    adata.obsm["X_pca"] = quickstart.pca_of_raw(adata)
    adata.obs["scellm_cell_type"] = adata.obs["louvain"]
    return adata


def test_comparison_is_one_honest_line(cells):
    line = quickstart.comparison(cells)
    assert "\n" not in line
    assert "9 types, 8 cells of rarer types left out" in line
    assert "X_scellm 0.7" in line
    assert "PCA of the same cells 0.7" in line


def test_cells_are_written_whole(cells, tmp_path):
    path = quickstart.write_cells(cells, tmp_path / "cells.h5ad")
    assert (ad.read_h5ad(path).obsm["X_scellm"] == cells.obsm["X_scellm"]).all()
    assert [file.name for file in tmp_path.iterdir()] == ["cells.h5ad"]


def test_picture_shows_every_type_in_its_colour(cells, tmp_path):
    path = quickstart.draw_umap(cells, tmp_path / "umap.png")
    pixels = imread(path)[..., :3].reshape(-1, 3)
    for colour in cells.uns["bulk_labels_colors"]:
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - rgb).max(axis=1) < 0.01).sum() > 50, colour
    assert [file.name for file in tmp_path.iterdir()] == ["umap.png"]
