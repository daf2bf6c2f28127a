"""pl.drug_response on predictions filled in by hand: what is drawn, and what is refused."""

import warnings

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

import scellm

mpl.use("Agg")

KEY = "drug_response"
DRUGS = ["Erlotinib", "Lapatinib", "AZD1152-HQPA", "5-Fluorouracil", "17-AAG/x"]
CLASSES = ["EGFR signaling", "EGFR signaling", "Mitosis", "", "Protein stability"]
GROUPS = ["T cell, CD4+", "B/plasma", "NK"]


def filled(values, std, applicability, *, drugs=DRUGS, classes=CLASSES, groupby=""):
    """Cells with results as `tl.drug_response` writes them."""
    n_obs = len(values)
    groups = pd.Categorical([GROUPS[i % 3] for i in range(n_obs)], categories=[*GROUPS, "empty"])
    obs = pd.DataFrame({"group": groups}, index=[f"cell{i}" for i in range(n_obs)])
    adata = ad.AnnData(obs=obs)
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(n_obs, 2)).astype(np.float32)
    adata.obsm[KEY] = np.asarray(values, dtype=np.float32)
    adata.obs[f"{KEY}_uncertainty"] = np.float32(1)
    adata.obs[f"{KEY}_applicability"] = np.asarray(applicability, dtype=np.float32)
    adata.uns[KEY] = {
        "scellm_version": "0",
        "model": "toy",
        "drugs": np.array(drugs, dtype=object),
        "drug_class": np.array(classes, dtype=object),
        "target": np.array([""] * len(drugs), dtype=object),
        "units": "ln uM",
        "mean": np.arange(len(drugs), dtype=np.float32),
        "spread": np.full(len(drugs), 2, dtype=np.float32),
        "std_unit": np.nan_to_num(np.asarray(std, dtype=np.float32)).max(0),
        "groupby": groupby,
    }
    return adata


@pytest.fixture
def adata():
    """12 cells in three groups; the third drug is not predictable, the fourth not in the second group."""
    level = np.array([0.0, 3.0, -1.0, 1.0, 2.0])
    effect = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 1.0], [-2.0, 1.0, 0.0, 0.0, 0.5]])
    values = level + effect[np.arange(12) % 3] + np.repeat([-0.1, 0.1], 6)[:, None]
    std = np.tile([0.5, 1.0, 1.0, 0.5, 2.0], (12, 1))
    values[:, 2] = std[:, 2] = np.nan
    values[1::3, 3] = std[1::3, 3] = np.nan
    return filled(values, std, [0.5, 0.5, 2.0] * 3 + [2.0, 0.5, 2.0])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    mpl.pyplot.close("all")


def draw(adata, **options):
    result = scellm.pl.drug_response(adata, show=False, **options)
    (result[0] if isinstance(result, list) else result).figure.canvas.draw()
    return result


def named(ax, gid):
    """What was drawn under a name."""
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def columns(ax):
    """Drugs below the grid, in their order."""
    return [
        text.get_text()
        for text in ax.get_xticklabels()
        if not text.get_text().startswith(("cells out", "outs", "applic"))
    ]


def rows(ax):
    """Names without the number of cells."""
    return [text.get_text().split(" (n = ")[0] for text in ax.get_yticklabels()]


def colour_of(ax, group, drug):
    """RGB of one cell of the heatmap."""
    (image,) = named(ax, "responses")
    return np.asarray(image.get_array())[rows(ax).index(group), columns(ax).index(drug)]


def mean_response(adata, group, drug):
    cells = (adata.obs["group"] == group).to_numpy()
    return float(adata.obsm[KEY][cells, DRUGS.index(drug)].mean())


# The grid


@pytest.mark.parametrize("kind", ["heatmap", "dotplot"])
def test_every_group_and_drug_is_there_once(adata, kind):
    ax = draw(adata, groupby="group", kind=kind)
    assert sorted(rows(ax)) == sorted(GROUPS)  # a category without cells is not drawn
    assert sorted(columns(ax)) == sorted(DRUGS)
    assert ax.get_ylabel() == "group"


def test_heatmap_colours_are_those_of_group_means(adata):
    """The surest prediction has the full color of its mean; lower is darker."""
    ax = draw(adata, groupby="group")
    cmap, values = mpl.colormaps["viridis"], adata.obsm[KEY]
    low = min(mean_response(adata, g, d) for g in GROUPS for d in DRUGS if d not in DRUGS[2:4])
    high = max(mean_response(adata, g, d) for g in GROUPS for d in DRUGS if d not in DRUGS[2:4])
    for group in GROUPS:
        expected = cmap((mean_response(adata, group, "Erlotinib") - low) / (high - low))[:3]
        np.testing.assert_allclose(colour_of(ax, group, "Erlotinib"), expected, atol=0.01)
    assert np.isnan(values[:, 2]).all()
    np.testing.assert_allclose(colour_of(ax, "NK", "AZD1152-HQPA"), to_rgb("#D9D9D9"))


def test_less_certain_is_paler(adata):
    """A standard deviation twice the smallest leaves half of the color, mixed with white."""
    before = colour_of(draw(adata, groupby="group"), "NK", "Lapatinib")  # std 1, the surest has 0.5
    adata.uns[KEY]["std_unit"][:] = 0.5
    full = colour_of(draw(adata, groupby="group"), "NK", "Lapatinib")
    np.testing.assert_allclose(before, 1 - 0.5 * (1 - full), atol=1e-6)


def test_dots_are_smaller_where_less_certain(adata):
    ax = draw(adata, groupby="group", kind="dotplot")
    (dots,) = named(ax, "responses")
    size = {
        (columns(ax)[int(x)], rows(ax)[int(y)]): s
        for (x, y), s in zip(dots.get_offsets(), dots.get_sizes(), strict=True)
    }
    assert size["Erlotinib", "NK"] == pytest.approx(2 * size["Lapatinib", "NK"])
    assert size["Erlotinib", "NK"] == pytest.approx(4 * size["17-AAG/x", "NK"])
    assert ("AZD1152-HQPA", "NK") not in size
    assert ("5-Fluorouracil", "B/plasma") not in size
    assert len(size) == 3 * 3 + 2
    crosses = [c for c in ax.collections if c.get_gid() is None]
    assert len(crosses[0].get_offsets()) == 3 + 1


def test_what_is_not_predictable_is_hatched_and_explained(adata):
    ax = draw(adata, groupby="group")
    assert len(named(ax, "unknown")) == 3 + 1
    bar = ax.figure.axes[1]
    assert [text.get_text() for text in bar.get_legend().get_texts()] == ["not predictable"]
    adata.obsm[KEY] = np.nan_to_num(adata.obsm[KEY])
    ax = draw(adata, groupby="group")
    assert named(ax, "unknown") == []
    assert ax.figure.axes[1].get_legend() is None


@pytest.mark.parametrize(("kind", "center"), [("heatmap", False), ("dotplot", False), ("heatmap", True)])
def test_the_colour_bar_has_units_and_the_direction(adata, kind, center):
    bar = draw(adata, groupby="group", kind=kind, center=center).figure.axes[1]
    assert bar.get_ylabel() == (
        "z, spreads of the drug\nover cell lines:\nlower = more sensitive"
        if center
        else "ln IC50, ln µM:\nlower = more sensitive"
    )


def test_of_one_group_the_drugs_with_the_lowest_z_are_drawn(adata):
    """z is what `get.drug_response` has; the most potent drug of these, the third by its number, is not the first by it."""
    adata.obsm[KEY][:] = [3.0, 1.0, -2.0, 0.0, 1.0]  # z: 1.5, 0, -2, -1.5
    adata.obsm[KEY][:, 4] = -1.0  # z: -2.5
    adata.uns[KEY]["groupby"], adata.obs["all"] = "all", "tumor"
    ax = draw(adata, n_drugs=2, center=True)
    assert columns(ax) == ["17-AAG/x", "AZD1152-HQPA"]
    assert ax.get_legend().get_title().get_text() == "2 of 5 drugs: those with the lowest z"
    table = scellm.get.drug_response(adata, n_drugs=2)
    assert table["drug"].tolist() == ["17-AAG/x", "AZD1152-HQPA"]
    assert table["z"].tolist() == [-2.5, -2.0]


def test_z_has_white_in_the_middle(adata):
    ax = draw(adata, groupby="group", center=True)
    low, high = ax.figure.axes[1].get_ylim()
    assert low == pytest.approx(-high)
    assert colour_of(ax, "T cell, CD4+", "Erlotinib") == pytest.approx(
        np.array([0.97] * 3), abs=0.03
    )  # as in cell lines
    red, _, blue = colour_of(ax, "NK", "Erlotinib")
    assert red > blue  # more sensitive is orange


def test_predictions_without_means_are_drawn_less_their_mean_over_cells(adata):
    del adata.uns[KEY]["mean"]
    with pytest.warns(UserWarning, match=r"Run scellm\.tl\.drug_response\(adata\) again for z"):
        ax = draw(adata, groupby="group", center=True)
    assert ax.figure.axes[1].get_ylabel() == "ln IC50 less the mean, ln µM:\nlower = more sensitive"


def test_cells_outside_of_the_training_lines_are_counted(adata):
    ax = draw(adata, groupby="group")
    found = dict(zip(rows(ax), [text.get_text() for text in named(ax, "outside")], strict=True))
    assert found == {"T cell, CD4+": "25 %", "B/plasma": "0 %", "NK": "100 %"}
    del adata.obs[f"{KEY}_applicability"]
    assert named(draw(adata, groupby="group"), "outside") == []


def test_groups_predicted_as_one_show_their_applicability(adata):
    adata.uns[KEY]["groupby"] = "group"
    adata.obs[f"{KEY}_applicability"] = np.tile([0.5, 1.254, np.nan], 4).astype(np.float32)
    ax = draw(adata, sort=False)
    assert [text.get_text() for text in named(ax, "outside")] == ["0.50", "1.25"]
    assert [text.get_weight() for text in named(ax, "outside")] == ["normal", "bold"]


@pytest.mark.parametrize("kind", ["heatmap", "dotplot", "umap"])
def test_no_grid_lines_of_the_style(adata, kind):
    """scanpy.settings.set_figure_params switches them on for all axes."""
    with mpl.rc_context({"axes.grid": True}):
        axes = draw(adata, groupby="group", kind=kind)
        for ax in (axes[0] if isinstance(axes, list) else axes).figure.axes:
            assert not any(line.get_visible() for line in [*ax.get_xgridlines(), *ax.get_ygridlines()])


def test_classes_are_marked_above(adata):
    ax = draw(adata, groupby="group")
    legend = {
        text.get_text(): to_rgb(patch.get_facecolor())
        for text, patch in zip(ax.get_legend().get_texts(), ax.get_legend().get_patches(), strict=True)
    }
    assert next(iter(legend)) == "EGFR signaling"  # the commonest first
    marks = {columns(ax)[int(box.get_x() + 0.5)]: to_rgb(box.get_facecolor()) for box in named(ax, "class")}
    assert marks == {
        drug: legend[name] for drug, name in zip(DRUGS, CLASSES, strict=True) if name
    }  # none above a drug without a class


def test_many_classes_are_numbered():
    n = 12
    classes = [f"class {i}" for i in range(n)]
    adata = filled(
        np.zeros((6, n)), np.ones((6, n)), np.zeros(6), drugs=[f"d{i}" for i in range(n)], classes=classes
    )
    ax = draw(adata, groupby="group")
    labels = [text.get_text().split(" ", 1) for text in ax.get_legend().get_texts()]
    numbers = {name: number for number, name in labels}
    drawn = {round(text.get_position()[0]): text.get_text() for text in ax.texts if text.get_text().isdigit()}
    assert {columns(ax)[x]: number for x, number in drawn.items()} == {
        f"d{i}": numbers[f"class {i}"] for i in range(n)
    }


def test_similar_ones_stand_side_by_side(adata):
    values = np.array([[0, 9, 0, 9, 5], [9, 0, 9, 0, 5], [0, 8, 0, 9, 5]], dtype=np.float32)
    adata.obsm[KEY] = np.tile(values, (4, 1))
    ax = draw(adata, groupby="group")
    order = columns(ax)
    assert abs(order.index(DRUGS[0]) - order.index(DRUGS[2])) == 1
    assert abs(order.index(DRUGS[1]) - order.index(DRUGS[3])) == 1
    assert rows(ax).index("B/plasma") != 1
    ax = draw(adata, groupby="group", sort=False)
    assert columns(ax) == DRUGS
    assert rows(ax) == GROUPS


def test_named_drugs_keep_their_order_and_classes_stand_for_theirs(adata):
    asked = ["5-fluorouracil", "Erlotinib"]
    assert columns(draw(adata, groupby="group", drugs=asked)) == ["5-Fluorouracil", "Erlotinib"]
    assert columns(draw(adata, groupby="group", drugs="EGFR signaling")) == ["Erlotinib", "Lapatinib"]
    assert columns(draw(adata, groupby="group", drugs=("17-AAG/x",))) == ["17-AAG/x"]


def test_too_many_drugs_are_left_out_and_said():
    """Those that differ between groups stay."""
    rng = np.random.default_rng(0)
    values = np.tile(rng.normal(0, 9, 60), (6, 1))
    values[::3, [7, 31]] += 5
    values[:, 5] = np.nan
    names = [f"drug {i}" for i in range(60)]
    adata = filled(values, np.ones((6, 60)), np.zeros(6), drugs=names, classes=["a"] * 60)
    ax = draw(adata, groupby="group")
    assert len(columns(ax)) == 50
    assert {"drug 7", "drug 31"} <= set(columns(ax))
    assert "drug 5" not in columns(ax)
    assert (
        ax.get_legend()
        .get_title()
        .get_text()
        .startswith("50 of 60 drugs: those whose prediction differs most")
    )
    assert len(columns(draw(adata, groupby="group", drugs=names))) == 60
    assert set(columns(draw(adata, groupby="group", n_drugs=2))) == {"drug 7", "drug 31"}
    assert len(columns(draw(adata, groupby="group", n_drugs=100))) == 60
    adata.uns[KEY]["drug_class"] = np.array([""] * 60, dtype=object)
    assert draw(adata, groupby="group").get_title(loc="left").startswith("50 of 60 drugs")


def test_drugs_are_those_that_differ_among_groups_the_model_can_judge():
    values = np.zeros((6, 60))
    values[2::3, 40] = 9  # only between a group outside and the others
    values[1::3, 7] = 1
    names = [f"drug {i}" for i in range(60)]
    for outside, shown in ((2.0, "drug 7"), (0.0, "drug 40")):
        adata = filled(values, np.ones((6, 60)), [0, 0, outside] * 2, drugs=names, classes=["a"] * 60)
        assert columns(draw(adata, groupby="group", n_drugs=1)) == [shown]
    adata = filled(values, np.ones((6, 60)), [0.5, 1.2, 2.0] * 2, drugs=names, classes=["a"] * 60)
    ax = draw(adata, groupby="group", n_drugs=1)  # one group inside is nothing to compare
    assert columns(ax) == ["drug 7"]
    assert ax.get_legend().get_title().get_text().endswith("between the two groups most like cell lines")
    adata = filled(values, np.ones((6, 60)), [0, 0, 2.0] * 2, drugs=names, classes=["a"] * 60)
    assert rows(draw(adata, groupby="group", groups=["NK", "B/plasma"], sort=False)) == ["NK", "B/plasma"]
    with pytest.raises(KeyError, match=r"\['none'\] of groups= are no groups"):
        draw(adata, groupby="group", groups="none")


# Cells


def test_without_groups_the_heatmap_has_a_row_per_cell(adata):
    ax = draw(adata)
    (image,) = named(ax, "responses")
    assert image.get_array().shape == (12, 5, 3)
    (marks,) = named(ax, "outside")
    assert (np.asarray(marks.get_array())[:, 0, 0] < 0.5).sum() == 5
    assert ax.get_ylabel() == "12 cells"


def test_groups_of_the_prediction_are_taken_by_default(adata):
    adata.uns[KEY]["groupby"] = "group"
    assert sorted(rows(draw(adata))) == sorted(GROUPS)
    del adata.obs["group"]
    assert draw(adata).get_ylabel() == "12 cells"


def test_umap_has_a_panel_per_drug_and_one_for_applicability(adata):
    axes = draw(adata, kind="umap", drugs=["Erlotinib", "AZD1152-HQPA"])
    assert [ax.get_title() for ax in axes] == [
        "Erlotinib\nEGFR signaling",
        "AZD1152-HQPA\nMitosis",
        "applicability\n42 % of cells outside",
    ]
    (dots,) = named(axes[0], "responses")
    order = [
        int(np.flatnonzero((adata.obsm["X_umap"] == xy).all(1))[0])
        for xy in np.asarray(dots.get_offsets(), np.float32)
    ]
    assert sorted(order) == list(range(12))
    darkness = dots.get_facecolors()[:, :3].sum(1)
    values = adata.obsm[KEY][order, 0]
    assert np.corrcoef(darkness, values)[0, 1] > 0.9  # lower is darker, whatever the order of drawing
    np.testing.assert_allclose(
        named(axes[1], "responses")[0].get_facecolors()[:, :3], [to_rgb("#D9D9D9")] * 12
    )
    assert axes[1].get_legend().get_texts()[0].get_text() == "not predictable (12)"


def test_violins_show_cells_median_and_uncertainty(adata):
    axes = draw(adata, kind="violin", groupby="group", drugs=["Erlotinib", "5-Fluorouracil"])
    texts = [text.get_text() for text in axes[0].get_yticklabels()]
    assert texts == ["T cell, CD4+ (n = 4, 25 % outside)", "B/plasma (n = 4)", "NK (n = 4, 100 % outside)"]
    medians = {int(line.get_ydata()[0]): line.get_xdata()[0] for line in named(axes[0], "median")}
    assert medians == pytest.approx({0: 0.0, 1: 2.0, 2: -2.0}, abs=0.11)
    for line in named(axes[0], "std"):
        assert np.ptp(line.get_xdata()) == pytest.approx(1.0)  # ± 0.5
    assert len(named(axes[0], "violin")) == 3
    assert [line.get_ydata() for line in named(axes[1], "unknown")] == [1]


def test_a_group_predicted_as_one_is_drawn_as_a_point(adata):
    adata.obsm[KEY][:] = 1.0
    (ax,) = draw(adata, kind="violin", groupby="group", drugs="Erlotinib")
    assert named(ax, "violin") == []
    assert len(named(ax, "median")) == 3


def test_without_groups_dots_and_violins_take_all_cells(adata):
    assert rows(draw(adata, kind="dotplot")) == ["all cells"]
    (text,) = draw(adata, kind="violin", drugs="Erlotinib")[0].get_yticklabels()
    assert text.get_text() == "all cells (n = 12, 42 % outside)"


def test_cells_without_a_group_are_counted(adata):
    adata.obs.loc[["cell0", "cell1"], "group"] = np.nan
    with pytest.warns(UserWarning, match=r"2 of 12 cells have no value in obs\['group'\]"):
        draw(adata, groupby="group")


# scanpy's manners


@pytest.mark.parametrize("kind", ["heatmap", "dotplot", "umap", "violin"])
def test_given_axes_figures_and_showing(adata, kind, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(True))
    options = {"groupby": "group", "kind": kind, "drugs": "Erlotinib"}
    figure, ax = mpl.pyplot.subplots()
    found = scellm.pl.drug_response(adata, ax=ax, **options)
    assert (found[0] if isinstance(found, list) else found) is ax
    figure.canvas.draw()
    assert isinstance(scellm.pl.drug_response(adata, return_fig=True, **options), mpl.figure.Figure)
    assert shown == []
    assert scellm.pl.drug_response(adata, **options) is None
    assert shown == [True]


@pytest.mark.parametrize("kind", ["heatmap", "dotplot"])
@pytest.mark.parametrize("layout", [None, "constrained"], ids=str)
def test_given_axes_hold_the_colour_bar_too(adata, kind, layout):
    figure, (ax, neighbour) = mpl.pyplot.subplots(1, 2, figsize=(11, 4), layout=layout)
    place = ax.get_subplotspec()
    scellm.pl.drug_response(adata, groupby="group", kind=kind, ax=ax)
    figure.canvas.draw()
    bar = figure.axes[2]
    assert "lower = more sensitive" in bar.get_ylabel()
    assert ax.get_subplotspec() == place
    right = bar.get_tightbbox().x1
    assert ax.get_window_extent().x1 < bar.get_window_extent().x0
    assert right < neighbour.get_window_extent().x0


@pytest.mark.parametrize("kind", ["heatmap", "dotplot", "umap", "violin"])
def test_the_cells_are_left_alone(adata, kind):
    before = adata.copy()
    draw(adata, groupby="group", kind=kind)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.obsm[KEY], before.obsm[KEY])
    assert list(adata.uns) == list(before.uns)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_read_from_a_file_are_drawn_the_same(adata, tmp_path, suffix):
    expected = np.asarray(named(draw(adata, groupby="group"), "responses")[0].get_array())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
        back = getattr(ad, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    found = np.asarray(named(draw(back, groupby="group"), "responses")[0].get_array())
    np.testing.assert_array_equal(found, expected)


def test_nothing_is_predictable(adata):
    adata.obsm[KEY][:] = np.nan
    adata.obs[f"{KEY}_uncertainty"] = np.nan
    for kind in ("heatmap", "dotplot", "umap", "violin"):
        draw(adata, groupby="group", kind=kind)


# Refused


def refused(adata, error, text, **options):
    with pytest.raises(error, match=text):
        scellm.pl.drug_response(adata, show=False, **options)


def test_before_the_prediction_it_says_what_to_run(adata):
    refused(scellm.datasets.toy_cells(4), KeyError, r"Run scellm.tl.drug_response\(adata\) first")
    refused(
        adata, KeyError, r"under 'mine'.*There are responses under \['drug_response'\]: pass key=", key="mine"
    )
    refused(adata.obs, TypeError, "Need an AnnData object, found DataFrame")


def test_unknown_names(adata):
    refused(
        adata,
        KeyError,
        "named 'Erlotinip'. Did you mean 'Erlotinib'.*predictions of 5 drugs",
        drugs="Erlotinip",
    )
    refused(adata, KeyError, "Did you mean 'EGFR signaling'", drugs=["Erlotinib", "EGFR signalling"])
    refused(adata, ValueError, "drugs= is empty", drugs=[])
    refused(adata, KeyError, r"'louvain' is not in `adata.obs`", groupby="louvain")
    refused(adata, TypeError, "holds float32 numbers, not labels or groups", groupby=f"{KEY}_applicability")
    refused(adata, ValueError, "n_drugs=0 must be at least 1", n_drugs=0)
    refused(adata, ValueError, "kind='bars' is unknown; choose one of 'heatmap'", kind="bars")


def test_what_cannot_be_drawn(adata):
    _, ax = mpl.pyplot.subplots()
    refused(adata, ValueError, r"ax= takes one drug for kind='umap', found 5", kind="umap", ax=ax)
    del adata.obsm["X_umap"]
    refused(adata, KeyError, r"no UMAP.*scanpy.pp.neighbors", kind="umap")
    refused(adata[:0], ValueError, "no cells")
    adata.uns[KEY]["drugs"] = np.array(["one"], dtype=object)
    refused(adata, ValueError, r"names 1 drugs, .* has the shape \(12, 5\)")
    adata.obs["group"] = pd.Categorical([np.nan] * 12)
    adata.uns[KEY]["drugs"] = np.array(DRUGS, dtype=object)
    refused(adata, ValueError, r"No cell has a value in obs\['group'\]", groupby="group")
