import re
from types import SimpleNamespace

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


@pytest.fixture
def full_log(log):
    """As the pretraining loop writes it."""
    return log.assign(
        masked_gene=[0.6, 0.5, 0.4],
        gradient_norm=9.0,
        kept_chunks=1.0,
        n_empty=0.0,
        temperature=0.1,
        alignment=[0.5, None, 0.3],
        uniformity=[-1, -1.5, -2],
        anisotropy=[0.9, 0.5, 0.2],
        cells_per_second=1e3,
        memory_gib=1.0,
    )


@pytest.fixture(autouse=True)
def close_figures():
    yield
    mpl.pyplot.close("all")


def drawn(ax):
    """Label, steps and values of each curve."""
    return [
        (line.get_label(), list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if not line.get_label().startswith("_")
    ]


def test_stages_follow_each_other(log, tmp_path):
    log.assign(masked_gene=[0.6, 0.5, 0.4]).to_csv(tmp_path / "full.csv", index=False)
    ax = scellm.pl.training_history({"bag": log, "full": tmp_path / "full.csv"}, show=False)
    assert [curve[:2] for curve in drawn(ax)] == [
        ("contrastive", [0, 20, 40]),
        ("contrastive", [40, 60, 80]),
        ("masked gene", [40, 60, 80]),
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["contrastive", "masked gene"]
    assert ax.figure.axes == [ax]  # such logs say nothing of embeddings


def test_embeddings_have_a_panel_beneath(full_log):
    ax = scellm.pl.training_history(full_log, show=False)
    losses, below = ax.figure.axes
    assert losses is ax
    assert [label for label, *_ in drawn(ax)] == ["contrastive", "masked gene"]
    curves = {label.split()[0]: (x, y) for label, x, y in drawn(below)}
    assert curves == {
        "alignment": ([0, 40], [0.5, 0.3]),  # lines without one are bridged
        "uniformity": ([0, 20, 40], [-1, -1.5, -2]),
        "anisotropy": ([0, 20, 40], [0.9, 0.5, 0.2]),
    }


def test_draws_losses_alone_on_given_axes(full_log):
    figure, ax = mpl.pyplot.subplots()
    assert scellm.pl.training_history(full_log, ax=ax) is ax
    assert [y for *_, y in drawn(ax)] == [[3, 2, 1], [0.6, 0.5, 0.4]]
    assert figure.axes == [ax]


@pytest.mark.parametrize("kind", ["table", "model", "file", "folder", "stages of folders"])
def test_takes_what_a_run_leaves(full_log, tmp_path, kind):
    full_log.to_csv(tmp_path / "log.csv", index=False)
    given = {
        "table": full_log,
        "model": SimpleNamespace(history=full_log),
        "file": str(tmp_path / "log.csv"),
        "folder": tmp_path,
        "stages of folders": {"only": tmp_path},
    }[kind]
    ax = scellm.pl.training_history(given, show=False)
    assert drawn(ax)[0] == ("contrastive", [0, 20, 40], [3, 2, 1])


def test_shows_its_own_figure(log, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(True))
    assert scellm.pl.training_history(log) is None
    assert shown == [True]


def test_the_table_is_left_alone(full_log):
    before = full_log.copy()
    scellm.pl.training_history(full_log, show=False)
    pd.testing.assert_frame_equal(full_log, before)


def test_what_is_no_log_is_refused(log, tmp_path):
    for table in (log[["step", "seconds"]], log.iloc[:0]):
        with pytest.raises(KeyError, match="needs a column 'step' and at least one loss; found"):
            scellm.pl.training_history(table)
    with pytest.raises(ValueError, match="was loaded, not trained here"):
        scellm.pl.training_history(SimpleNamespace(history=None))
    with pytest.raises(FileNotFoundError, match=r"no log.csv in .* Pass the checkpoint_dir"):
        scellm.pl.training_history(tmp_path)
    (tmp_path / "bag").mkdir()
    log.to_csv(tmp_path / "bag" / "log.csv", index=False)
    with pytest.raises(FileNotFoundError, match=re.escape("holds the stages ['bag']; pass them in their")):
        scellm.pl.training_history(tmp_path)
