"""pl.search: bars are the shares of the table, and nothing is told apart that has no color."""

import numpy as np
import pandas as pd
import pytest

import scellm

KEY = "scellm_search"


@pytest.fixture
def found():
    adata = scellm.datasets.toy_cells(40, n_vars=60)
    adata.obs[f"{KEY}_tissue"] = pd.Categorical(["blood"] * 20 + ["lung"] * 12 + ["liver"] * 6 + ["skin"] * 2)
    adata.obs[f"{KEY}_tissue_share"] = np.float32(0.8)
    adata.obs[f"{KEY}_unusual"] = np.where(np.arange(40) < 10, 1.0, 0.5).astype(np.float32)
    adata.obs["cluster"] = pd.Categorical(["0"] * 30 + ["1"] * 10)
    adata.uns[KEY] = {"index": "i", "model": "m", "sha256": "s", "k": 15, "columns": ["tissue"], "n_indexed": 9, "message": ""}  # fmt: skip
    return adata


def test_bars_are_the_shares_of_the_table(found):
    ax = scellm.pl.search(found, "cluster", n_values=2, show=False)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1", "0"]
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers}
    assert np.allclose(widths["blood"], [0, 20 / 30])
    assert np.allclose(widths["lung"], [2 / 10, 10 / 30])
    assert np.allclose(widths["others"], [8 / 10, 0])
    dots = ax.collections[0].get_offsets()
    assert np.allclose(dots[:, 0], [0, 10 / 30])
    assert "blood" in [text.get_text() for text in ax.texts]


def test_all_cells_as_one_group(found):
    ax = scellm.pl.search(found, show=False)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["all"]
    assert "others" not in [bars.get_label() for bars in ax.containers]


def test_what_is_missing_is_named(found):
    with pytest.raises(KeyError, match="column='study' was not searched for"):
        scellm.pl.search(found, column="study")
    with pytest.raises(ValueError, match="n_values=0"):
        scellm.pl.search(found, n_values=0)
    del found.uns[KEY]
    with pytest.raises(KeyError, match=r"Run scellm\.tl\.search"):
        scellm.pl.search(found)
