import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

import scellm

KEY = "scellm_cell_type"


def rows(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_boxes_hold_the_middle_half_and_the_surest_is_on_top(cells):
    ax = scellm.pl.confidence(cells, show=False)
    values = cells.obs[f"{KEY}_confidence"].astype(float).groupby(cells.obs[KEY], observed=True)
    quantiles = values.quantile([0.25, 0.5, 0.75]).unstack().sort_values([0.5, 0.25])
    names = [row.rpartition(" (")[0] for row in rows(ax)]
    assert names == list(quantiles.index)
    for box, (_, expected) in zip(ax.patches, quantiles.iterrows(), strict=True):
        assert np.isclose(box.get_x(), expected[0.25])
        assert np.isclose(box.get_x() + box.get_width(), expected[0.75])
    colours = dict(zip(cells.obs[KEY].cat.categories, cells.uns[f"{KEY}_colors"], strict=True))
    assert [to_hex(box.get_facecolor()) for box in ax.patches] == [to_hex(colours[name]) for name in names]


def test_threshold_is_drawn_where_there_was_one(cells):
    def threshold(ax):
        return [line.get_xdata()[0] for line in ax.lines if list(line.get_xdata()) == [0.4, 0.4]]

    assert threshold(scellm.pl.confidence(cells, show=False)) == [0.4]
    del cells.uns[KEY]["min_confidence"]
    assert threshold(scellm.pl.confidence(cells, show=False)) == []


def test_by_another_column(cells):
    ax = scellm.pl.confidence(cells, groupby="donor", show=False)
    assert sorted(row.rpartition(" (")[0] for row in rows(ax)) == ["donor0", "donor1"]


def test_forty_types_are_readable(many):
    ax = scellm.pl.confidence(many, show=False)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert len(boxes) == 42
    assert all(lower.y1 <= upper.y1 - 0.7 * upper.height for lower, upper in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_what_is_missing_is_named(cells):
    with pytest.raises(KeyError, match="groupby='cluster' is not in `adata.obs`"):
        scellm.pl.confidence(cells, groupby="cluster")
    cells.obs[f"{KEY}_confidence"] = np.float32(np.nan)
    with pytest.raises(ValueError, match="holds NaN only"):
        scellm.pl.confidence(cells)
