"""pl.rank_drugs on a ranking filled in by hand: what is drawn, and what is refused."""

import warnings

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import scellm

mpl.use("Agg")

DRUGS = ["Erlotinib", "Nutlin-3a (-)", "17-AAG/x", "Cisplatin"]
EFFECT = np.array([[-1.0, 0.5, -0.2, np.nan], [1.0, -0.5, 0.2, 0.0]], dtype=np.float32)


@pytest.fixture
def adata():
    """Two groups, four drugs; a target is expressed, hardly expressed, or unknown."""
    adata = ad.AnnData(obs=pd.DataFrame(index=["a", "b"]))
    adata.uns["rank_drugs"] = {
        "scellm_version": "0",
        "groups": np.array(["T cell, CD4+", "B/plasma"]),
        "drugs": np.array(DRUGS),
        "target": np.array(["EGFR", "MDM2", "HSP90AA1, HSP90AB1 and many more of them", ""]),
        "drug_class": np.array(["a", "b", "c", "d"]),
        "effect": EFFECT,
        "low": EFFECT - 0.3,
        "high": EFFECT + 0.1,
        "p_value": np.full((2, 4), 0.01, dtype=np.float32),
        "p_adjusted": np.array([[0.001, 0.2, 0.04, np.nan], [0.5] * 4], dtype=np.float32),
        "target_expressed": np.array([[0.63, 0.01, 0.0, np.nan], [0.2, 0.3, 0.4, np.nan]], dtype=np.float32),
        "effect_sd": EFFECT,
        "spread": np.ones(4),
        "ln_ic50": np.log([[0.0123, 4.0, 1234.0, 1.0]] * 2),
        "n_samples": np.array([[3, 3], [3, 3]]),
        "groupby": "group",
        "reference": "rest",
        "sample_key": "donor",
        "replicates": "samples",
        "key": "drug_response",
    }
    return adata


@pytest.fixture(autouse=True)
def close_figures():
    yield
    mpl.pyplot.close("all")


def draw(adata, **options):
    axes = scellm.pl.rank_drugs(adata, show=False, **options)
    axes[0].figure.canvas.draw()
    return axes


def named(ax, gid):
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def names(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_most_sensitive_first_with_intervals(adata):
    first, second = draw(adata)
    assert first.get_title() == "T cell, CD4+"
    assert names(first) == ["Erlotinib *", "17-AAG/x *", "Nutlin-3a (-)", "Cisplatin"]
    assert names(second) == ["Nutlin-3a (-)", "Cisplatin", "17-AAG/x", "Erlotinib"]
    dots = {int(dot.get_ydata()[0]): float(dot.get_xdata()[0]) for dot in named(first, "effect")}
    assert dots == pytest.approx({0: -1.0, 1: -0.2, 2: 0.5})
    lines = {int(line.get_ydata()[0]): tuple(line.get_xdata()) for line in named(first, "interval")}
    assert lines[0] == pytest.approx((-1.3, -0.9))
    assert set(lines) == {0, 1, 2}  # none where nothing is known
    assert "not predictable" in [text.get_text() for text in first.texts]


def test_dots_are_in_units_of_the_spread_of_a_drug(adata):
    spread = np.array([10, 1, 1, 1], dtype=np.float32)
    adata.uns["rank_drugs"] |= {"effect_sd": EFFECT / spread, "spread": spread}
    first, _ = draw(adata)
    assert names(first)[:2] == ["17-AAG/x *", "Erlotinib *"]
    line = next(line for line in named(first, "interval") if line.get_ydata()[0] == 1)
    assert tuple(line.get_xdata()) == pytest.approx((-0.13, -0.09))


def test_an_effect_of_0_has_its_interval(adata):
    adata.uns["rank_drugs"]["spread"] = np.array([1, 1, 1, 2.0])
    _, second = draw(adata)
    assert names(second)[1] == "Cisplatin"
    line = next(line for line in named(second, "interval") if line.get_ydata()[0] == 1)
    assert tuple(line.get_xdata()) == pytest.approx((-0.15, 0.05))


def test_expressed_targets_are_marked(adata):
    first, _ = draw(adata)
    looks = {
        int(dot.get_ydata()[0]): (to_hex(dot.get_markeredgecolor()), to_hex(dot.get_markerfacecolor()))
        for dot in named(first, "effect")
    }
    assert looks[0] == ("#0072b2", "#0072b2")
    assert looks[2] == looks[1] == ("#d55e00", "#ffffff")
    texts = [text.get_text() for text in first.texts]
    assert "0.012 µM; EGFR: 63 %" in texts
    assert "1 µM; target not known" in texts
    assert any(text.startswith("1,200 µM; HSP90AA1, HSP90AB1") and text.endswith("…: 0 %") for text in texts)


def test_units_reference_and_what_the_interval_is(adata):
    axes = draw(adata)
    text = axes[0].figure._supxlabel.get_text()
    assert (
        "difference of ln IC50 from other cells, units of the drug's spread: lower = more sensitive" in text
    )
    assert "95 % interval over samples, error of the model not included; * adjusted p < 0.05" in text
    record = adata.uns["rank_drugs"]
    record |= {"reference": "NK", "replicates": "cells", "p_adjusted": np.full((2, 4), np.nan)}
    (ax,) = draw(adata, groups="B/plasma")
    assert "from NK" in ax.get_xlabel()
    assert "interval over cells" in ax.get_xlabel()
    assert "adjusted" not in ax.get_xlabel()


def test_groups_and_numbers(adata):
    assert [ax.get_title() for ax in draw(adata, groups=["B/plasma", "T cell, CD4+"])] == [
        "B/plasma",
        "T cell, CD4+",
    ]
    (ax,) = draw(adata, groups="B/plasma", n_drugs=2)
    assert names(ax) == ["Nutlin-3a (-)", "Cisplatin"]
    assert len(names(draw(adata, n_drugs=99)[0])) == 4


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_read_from_a_file_are_drawn_the_same(adata, tmp_path, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
        back = getattr(ad, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    for found, expected in zip(draw(back), draw(adata), strict=True):
        assert names(found) == names(expected)
        assert [text.get_text() for text in found.texts] == [text.get_text() for text in expected.texts]


def test_given_axes_figures_and_showing(adata, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(True))
    figure, (ax, other) = mpl.pyplot.subplots(1, 2)
    assert scellm.pl.rank_drugs(adata, groups="B/plasma", ax=ax) == [ax]
    assert figure._supxlabel is None  # a figure of somebody else gets no text
    assert len(other.lines) == 0
    assert isinstance(scellm.pl.rank_drugs(adata, return_fig=True), mpl.figure.Figure)
    assert shown == []
    assert scellm.pl.rank_drugs(adata) is None
    assert shown == [True]


def refused(adata, error, text, **options):
    with pytest.raises(error, match=text):
        scellm.pl.rank_drugs(adata, show=False, **options)


def test_refused(adata):
    refused(
        adata,
        KeyError,
        r"'B cell'\] were not ranked; there are the groups \['T cell, CD4\+'",
        groups="B cell",
    )
    refused(adata, ValueError, "groups= is empty", groups=[])
    refused(adata, ValueError, "n_drugs=0 must be at least 1", n_drugs=0)
    refused(adata, ValueError, "ax= takes one group, found 2", ax=mpl.pyplot.subplots()[1])
    refused(adata, KeyError, r"under 'mine'. Run scellm.tl.rank_drugs\(adata, groupby\) first", key="mine")
    with pytest.raises(TypeError, match="Need an AnnData object, found DataFrame"):
        scellm.pl.rank_drugs(adata.obs)
