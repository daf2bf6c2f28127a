import itertools

import numpy as np
import pandas as pd
import pytest

import scellm


def ticks(ax):
    return (
        [text.get_text() for text in ax.get_yticklabels()],
        [text.get_text() for text in ax.get_xticklabels()],
    )


@pytest.fixture
def six(cells):
    """Six cells whose matrix can be counted by hand; one has no known type."""
    adata = cells[:7].copy()
    adata.obs["known"] = pd.Categorical(["B", "B", "B", "T", "T", "mast", None])
    adata.obs["found"] = pd.Categorical(["B", "B", "T", "T", "novel", "unassigned", "B"])
    return adata


def test_matrix_is_counted_right(six):
    ax = scellm.pl.confusion_matrix(six, "known", key="found", normalize=False, show=False)
    assert ticks(ax) == (["B", "T", "mast"], ["B", "T", "unassigned", "novel"])
    assert ax.images[0].get_array().tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert sorted(text.get_text() for text in ax.texts) == ["1", "1", "1", "1", "2"]
    assert ax.get_title() == "6 cells; 1 without a known type left out"


def test_rows_add_up_to_one(six):
    ax = scellm.pl.confusion_matrix(six, "known", key="found", show=False)
    assert np.allclose(ax.images[0].get_array().sum(axis=1), 1)
    assert "67" in {text.get_text() for text in ax.texts}  # two of three


def test_what_agrees_is_on_the_diagonal(cells):
    ax = scellm.pl.confusion_matrix(cells, "truth", show=False)
    rows, columns = ticks(ax)
    assert columns == [*rows, "unassigned", "novel"]
    expected = [
        float((cells.obs.loc[cells.obs["truth"] == name, "scellm_cell_type"] == name).mean()) for name in rows
    ]
    assert np.allclose(np.diag(ax.images[0].get_array()), expected)


def test_forty_types_have_names_without_numbers(many):
    ax = scellm.pl.confusion_matrix(many, "truth", show=False)
    assert len(ticks(ax)[0]) == 40
    assert not ax.texts
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y0 + 0.7 * lower.height for upper, lower in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_what_is_missing_is_named(cells):
    with pytest.raises(KeyError, match="'donor2' is not in `adata.obs`.*column of the known types"):
        scellm.pl.confusion_matrix(cells, "donor2")
    cells.obs["empty"] = pd.Categorical([None] * cells.n_obs, categories=["B"])
    with pytest.raises(ValueError, match="No cell has both a known type"):
        scellm.pl.confusion_matrix(cells, "empty")


def test_other_names_stand_at_their_best_match(cells):
    """All names differ: the order is that which puts most cells on the diagonal."""
    names = list(cells.obs["truth"].cat.categories)
    shuffled = dict(zip(names, ["z", "y", "a", "b"], strict=True))
    cells.obs["mine"] = cells.obs["truth"].cat.rename_categories(shuffled)
    ax = scellm.pl.confusion_matrix(cells, "mine", show=False)
    rows, columns = ticks(ax)
    back = {new: old for old, new in shuffled.items()}
    assert [back[row] for row in rows] == columns[:4]
    assert columns[4:] == ["unassigned", "novel"]


def test_names_are_mapped(cells):
    cells.obs["mine"] = cells.obs["truth"].cat.rename_categories({"B cell": "Bs"})
    plain = ticks(scellm.pl.confusion_matrix(cells, "truth", show=False))
    mapped = ticks(scellm.pl.confusion_matrix(cells, "mine", mapping={"Bs": "B cell"}, show=False))
    assert sorted(mapped[0]) == sorted(plain[0])
    with pytest.raises(ValueError, match=r"mapping has \['C'\], which are no types of"):
        scellm.pl.confusion_matrix(cells, "mine", mapping={"C": "B cell"})
