import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.pl._reliability import bins_of


def curve(ax):
    (line,) = [line for line in ax.lines if line.get_marker() == "o"]
    return np.array(line.get_xdata()), np.array(line.get_ydata())


def test_bins_by_hand():
    bins = bins_of(np.array([0.05, 0.95, 0.91, 1.0]), np.array([True, True, False, True]), 10)
    assert bins["cells"].tolist() == [1, 3]
    assert np.allclose(bins["right"], [1, 2 / 3])
    assert np.allclose(bins["confidence"], [0.05, 2.86 / 3])
    assert np.allclose(bins["share"], [0.25, 0.75])


def test_labels_right_as_often_as_said_lie_on_the_diagonal(cells, rng):
    """Truth drawn from the probabilities themselves."""
    cells = ad.concat([cells] * 20, index_unique="-", uns_merge="same")
    p = cells.obsm["scellm_cell_type_probabilities"].astype(float)
    drawn = (p.cumsum(1) < rng.random((len(p), 1)) * p.sum(1, keepdims=True)).sum(1)
    classes = cells.uns["scellm_cell_type"]["classes"]
    cells.obs["drawn"] = pd.Categorical(classes[drawn.clip(max=3)])
    ax = scellm.pl.reliability(cells, "drawn", show=False)
    x, y = curve(ax)
    assert np.abs(x - y).max() < 0.06
    error = float(ax.get_title().rpartition(" ")[2])
    assert error < 0.02
    cells.obs["wrong"] = pd.Categorical(np.roll(cells.obs["drawn"].astype(str), 1))
    control = scellm.pl.reliability(cells, "wrong", show=False)
    assert float(control.get_title().rpartition(" ")[2]) > 0.1


def test_withheld_labels_count_by_their_most_probable_type(cells):
    before = scellm.pl.reliability(cells, "truth", show=False).get_title()
    cells.obs["scellm_cell_type"] = pd.Categorical(["unassigned"] * cells.n_obs)
    assert scellm.pl.reliability(cells, "truth", show=False).get_title() == before


def test_labels_without_probabilities(cells):
    del cells.obsm["scellm_cell_type_probabilities"]
    x, _ = curve(scellm.pl.reliability(cells, "truth", n_bins=4, show=False))
    assert len(x) <= 4


def test_what_is_missing_is_named(cells):
    with pytest.raises(ValueError, match="n_bins=1 must be at least 2"):
        scellm.pl.reliability(cells, "truth", n_bins=1)
    cells.obs["empty"] = pd.Categorical([None] * cells.n_obs, categories=["B"])
    with pytest.raises(ValueError, match="No cell has both a known type"):
        scellm.pl.reliability(cells, "empty")


def test_names_without_one_in_common_are_refused_or_mapped(cells):
    before = scellm.pl.reliability(cells, "truth", show=False).get_title()
    own = {name: f"my {name}" for name in cells.obs["truth"].astype("category").cat.categories}
    cells.obs["mine"] = cells.obs["truth"].astype(object).map(own, na_action="ignore")
    with pytest.raises(
        ValueError, match=r"No type of `adata.obs\['mine'\]` has the name of a predicted one.*Pass mapping="
    ):
        scellm.pl.reliability(cells, "mine", show=False)
    back = {mine: name for name, mine in own.items()}
    assert scellm.pl.reliability(cells, "mine", mapping=back, show=False).get_title() == before
    with pytest.raises(ValueError, match=r"mapping has \['no such type'\]"):
        scellm.pl.reliability(cells, "mine", mapping={"no such type": "a"}, show=False)
