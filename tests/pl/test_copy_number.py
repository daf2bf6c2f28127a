"""pl.copy_number and pl.malignancy: what is drawn is what was found."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import scellm

KEY = "scellm_malignant"


@pytest.fixture
def called():
    """60 cells with results as tl.malignancy writes them: 20 T cells, two clones of 25 and 15."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.ones((60, 3), dtype=np.float32))
    kinds = np.repeat(["T cell", "1", "2"], [20, 25, 15])
    is_clonal = kinds != "T cell"
    adata.obs[KEY] = np.where(is_clonal, 0.95, 0.02).astype(np.float32)
    adata.obs[f"{KEY}_call"] = pd.Categorical(np.where(is_clonal, "malignant", "normal"))
    adata.obs[f"{KEY}_expression"] = 0.5
    adata.obs[f"{KEY}_copy_number"] = is_clonal * 1.0
    adata.obs[f"{KEY}_clone"] = pd.Categorical([kind if kind != "T cell" else None for kind in kinds])
    adata.obs[f"{KEY}_label"] = pd.Categorical(np.where(is_clonal, "malignant (epithelial)", "T cell"))
    profile = rng.normal(0, 0.05, (60, 30)).astype(np.float32)
    profile[is_clonal, :10] += 0.5
    adata.obsm[f"{KEY}_profile"] = profile
    adata.obsm["X_umap"] = rng.normal(size=(60, 2))
    adata.uns[KEY] = {
        "samples": {"sample": np.array([""]), "verdict": np.array(["found"])},
        "arms": {"clone": np.array(["1"])},
        "chromosome": np.repeat(["1", "2", "3"], 10),
        "start": np.arange(30),
    }
    yield adata
    plt.close("all")


def test_rows_are_grouped_by_clone_and_type(called):
    ax = scellm.pl.copy_number(called, show=False)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["T cell (20)", "clone 1 (25)", "clone 2 (15)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    image = np.asarray(ax.images[0].get_array())
    assert image.shape == (60, 30)
    assert image[:20, :10].mean() == pytest.approx(0, abs=0.05)
    assert image[20:, :10].mean() == pytest.approx(0.5, abs=0.05)


def test_many_cells_are_averaged_within_their_group(called):
    many = ad.concat([called] * 40, index_unique="-", uns_merge="same")
    many.obs[f"{KEY}_call"] = pd.Categorical(many.obs[f"{KEY}_call"])
    ax = scellm.pl.copy_number(many, show=False)
    image = np.asarray(ax.images[0].get_array())
    assert len(image) == 1500
    assert ax.get_yticklabels()[1].get_text() == "clone 1 (1,000)"
    assert abs(image[:499, :10].mean()) < 0.05


def test_another_column_and_a_figure(called):
    called.obs["cluster"] = pd.Categorical(["x", "y"] * 30)
    figure = scellm.pl.copy_number(called, groupby="cluster", return_fig=True)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x (30)", "y (30)"]


def test_both_kinds_of_evidence_the_call_and_the_thresholds(called):
    axes = scellm.pl.malignancy(called, show=False)
    assert [ax.get_title() for ax in axes] == [
        "copy number",
        "expression",
        "call",
        "probability and thresholds",
    ]
    drawn = np.asarray(axes[0].collections[-1].get_array())
    assert sorted(drawn) == sorted(called.obs[f"{KEY}_copy_number"])
    assert [text.get_text() for text in axes[2].get_legend().get_texts()] == [
        "malignant (40)",
        "normal (20)",
        "undecided (0)",
    ]
    assert [line.get_xdata()[0] for line in axes[3].lines] == [0.35, 0.8]


def test_what_is_missing_is_said(called):
    with pytest.raises(KeyError, match=r"scellm.tl.malignancy\(adata, key_added='mine'\) first"):
        scellm.pl.copy_number(called, key="mine")
    with pytest.raises(TypeError, match="Need an AnnData"):
        scellm.pl.malignancy(called.obs)
    unread = called.copy()
    unread.obsm[f"{KEY}_profile"][:] = np.nan
    with pytest.raises(
        ValueError, match=r"scellm.get.malignancy\(adata, key='scellm_malignant'\)\['verdict'\]"
    ):
        scellm.pl.copy_number(unread)
    del called.obsm["X_umap"]
    with pytest.raises(KeyError, match="'X_umap' is not in"):
        scellm.pl.malignancy(called)


def test_tables_by_group_and_their_errors(called):
    table = scellm.get.malignancy(called, groupby=f"{KEY}_label").set_index(f"{KEY}_label")
    assert table.loc["malignant (epithelial)", "share_malignant"] == 1
    assert table.loc["T cell", "n_normal"] == 20
    assert table.loc["T cell", "copy_number"] == 0
    with pytest.raises(ValueError, match="what='clones' is unknown"):
        scellm.get.malignancy(called, what="clones")
    with pytest.raises(ValueError, match="leave groupby= out"):
        scellm.get.malignancy(called, what="arms", groupby=KEY)
    with pytest.raises(KeyError, match="Run scellm.tl.malignancy"):
        scellm.get.malignancy(called, key="none")


@pytest.mark.skipif(
    not hasattr(np.dtypes, "StringDType"), reason="numpy 2 has this type, in which zarr gives text"
)
def test_names_of_chromosomes_as_zarr_gives_them(called):
    called.uns[KEY]["chromosome"] = called.uns[KEY]["chromosome"].astype(np.dtypes.StringDType())
    ax = scellm.pl.copy_number(called, show=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
