import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

import scellm
from scellm.pl._colours import palette


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn_colours(ax):
    """Color of every cell by its coordinates."""
    (dots,) = [c for c in ax.collections if len(c.get_offsets())][:1]
    return {
        tuple(xy): to_hex(colour)
        for xy, colour in zip(dots.get_offsets(), dots.get_facecolors(), strict=True)
    }


def test_each_cell_has_the_colour_of_its_label(cells):
    left, right = scellm.pl.annotation(cells, show=False)
    found = drawn_colours(left)
    colours = dict(
        zip(cells.obs["scellm_cell_type"].cat.categories, cells.uns["scellm_cell_type_colors"], strict=True)
    )
    for xy, label in zip(cells.obsm["X_umap"], cells.obs["scellm_cell_type"], strict=True):
        assert found[tuple(xy)] == to_hex(colours[label])
    assert legend(left)[-2].startswith("unassigned (")
    assert legend(left)[-1] == "novel (3)"
    assert (left.get_title(), right.get_title()) == ("cell type", "confidence")


def test_the_least_sure_cells_are_drawn_last(cells):
    cells.obs.loc[cells.obs_names[7], "scellm_cell_type_confidence"] = np.nan
    _, right = scellm.pl.annotation(cells, show=False)
    unknown, known = [c for c in right.collections if len(c.get_offsets())][:2]
    assert np.allclose(unknown.get_offsets(), cells.obsm["X_umap"][[7]])
    values = known.get_array()
    assert len(values) == cells.n_obs - 1
    assert (np.diff(values) <= 0).all()
    assert known.get_clim() == (0, 1)


def test_colours_are_those_of_scanpy(cells):
    key = "scellm_cell_type"
    given = ["#101010", "#202020", "#303030", "#404040", "#505050", "#606060"]
    cells.uns[f"{key}_colors"] = given
    left, _ = scellm.pl.annotation(cells, show=False)
    assert set(drawn_colours(left).values()) == set(given)
    assert cells.uns[f"{key}_colors"] is given


def test_views_stay_views(cells):
    view = cells[::2]
    scellm.pl.annotation(view, show=False)
    assert view.is_view
    assert "scellm_cell_type_colors" not in view.uns


def test_many_types_are_numbered_and_named(many):
    many.obs["scellm_cell_type"] = many.obs["truth"]
    left, _ = scellm.pl.annotation(many, show=False)
    names = [
        name for name in many.obs["scellm_cell_type"].cat.categories if name not in ("unassigned", "novel")
    ]
    assert len(names) == 40
    numbers = [text.get_text() for text in left.texts]
    assert sorted(map(int, numbers)) == list(range(1, 41))
    assert [entry.rpartition(" (")[0] for entry in legend(left)[:40]] == [
        f"{i} {name}" for i, name in enumerate(names, 1)
    ]
    figure = left.figure
    figure.canvas.draw()
    for text in left.get_legend().get_texts():  # nothing is cut off
        box = text.get_window_extent()
        assert 0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert 0 <= box.y0
        assert box.y1 <= figure.bbox.y1


def test_rare_types_are_drawn_as_one_where_there_are_many(many):
    labels = many.obs["truth"].astype(str).to_numpy()
    rare = {f"type number {i}" for i in range(30, 40)}
    is_rare = np.isin(labels, list(rare))
    labels[is_rare & (np.arange(len(labels)) >= 200)] = "type number 0"  # five cells are left of each
    many.obs["scellm_cell_type"] = pd.Categorical(labels)
    left, _ = scellm.pl.annotation(many, show=False)
    assert "10 rare types (50)" in legend(left)
    assert not any(f"{name} (" in entry for name in rare for entry in legend(left))
    assert len(left.texts) == 30


def test_numbers_do_not_collide(many):
    many.obs["scellm_cell_type"] = many.obs["truth"]
    many.obsm["X_umap"] = np.random.default_rng(1).normal(size=(many.n_obs, 2))  # all on one heap
    left, _ = scellm.pl.annotation(many, show=False)
    places = np.array([text.xy for text in left.texts])
    room = np.ptp(many.obsm["X_umap"], axis=0) * (0.032, 0.05)
    near = (np.abs(places[:, None] - places[None]) < room).all(axis=2)
    assert near.sum() - len(places) <= 0.1 * len(places) ** 2 / 40


def test_few_types_are_not_numbered(cells):
    left, _ = scellm.pl.annotation(cells, show=False)
    assert not left.texts


def test_forty_colours_differ_and_the_first_seven_also_in_lightness():
    colours = palette([*map(str, range(40)), "novel", "unassigned"])
    assert len(set(colours.values())) == 42
    light = sorted(np.dot(to_rgb(colours[str(i)]), (0.299, 0.587, 0.114)) for i in range(7))
    assert np.diff(light).min() > 0.01
    assert (colours["novel"], colours["unassigned"]) == ("#000000", "#C8C8C8")


def test_how_it_ends_is_as_in_scanpy(cells, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(True))
    assert scellm.pl.annotation(cells) is None
    assert isinstance(scellm.pl.annotation(cells, return_fig=True), mpl.figure.Figure)
    _, axes = mpl.pyplot.subplots(1, 2)
    assert scellm.pl.annotation(cells, ax=axes) == list(axes)
    assert shown == [True]


def test_labels_of_text_without_colours_in_uns(cells):
    cells.obs["scellm_cell_type"] = cells.obs["scellm_cell_type"].astype(str)
    scellm.pl.annotation(cells, show=False)
    assert "scellm_cell_type_colors" not in cells.uns


def test_what_is_missing_is_named(cells):
    with pytest.raises(TypeError, match="Need an AnnData object, found DataFrame"):
        scellm.pl.annotation(pd.DataFrame())
    with pytest.raises(
        KeyError, match=r"'mine' is not in `adata.obs`, .*annotate\(adata, key_added='mine'\)"
    ):
        scellm.pl.annotation(cells, key="mine")
    with pytest.raises(KeyError, match="labels of another tool have no confidence"):
        scellm.pl.annotation(cells, key="truth")
    with pytest.raises(ValueError, match="takes two axes.*found 1"):
        scellm.pl.annotation(cells, ax=mpl.pyplot.gca())
    del cells.obsm["X_umap"]
    with pytest.raises(
        KeyError, match=r"computes nothing; a UMAP is made by scellm.tl.embed\(adata\); scanpy"
    ):
        scellm.pl.annotation(cells)
    cells.obsm["X_scellm"] = np.zeros((cells.n_obs, 2))
    with pytest.raises(KeyError, match=r"computes nothing; a UMAP is made by scanpy.pp.neighbors"):
        scellm.pl.annotation(cells)
