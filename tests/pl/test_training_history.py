import matplotlib as mpl
import pandas as pd
import pytest

import scellm

mpl.use("Agg")


@pytest.fixture
def log():
    return pd.DataFrame(
        {"step": [0, 20, 40], "seconds": [0, 1, 2], "learning_rate": [1, 1, 1], "contrastive": [3, 2, 1]}
    )


@pytest.fixture(autouse=True)
def close_figures():
    yield
    mpl.pyplot.close("all")


def test_stages_follow_each_other(log, tmp_path):
    log.assign(masked_gene=[0.6, 0.5, 0.4]).to_csv(tmp_path / "full.csv", index=False)
    ax = scellm.pl.training_history({"bag": log, "full": tmp_path / "full.csv"}, show=False)
    drawn = [(line.get_label(), line.get_xdata().tolist()) for line in ax.lines if len(line.get_xdata()) == 3]
    assert drawn == [
        ("contrastive", [0, 20, 40]),
        ("contrastive", [40, 60, 80]),
        ("masked gene", [40, 60, 80]),
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["contrastive", "masked gene"]


def test_draws_on_given_axes(log):
    _, ax = mpl.pyplot.subplots()
    assert scellm.pl.training_history(log, ax=ax) is ax
    assert ax.lines[0].get_ydata().tolist() == [3, 2, 1]


def test_shows_its_own_figure(log, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(True))
    assert scellm.pl.training_history(log) is None
    assert shown == [True]


def test_what_is_no_log_is_refused(log):
    with pytest.raises(KeyError, match="needs a column 'step' and at least one loss; found"):
        scellm.pl.training_history(log[["step", "seconds"]])
