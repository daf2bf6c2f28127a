"""A run that cannot tell cells apart stops and says what to change."""

import dataclasses

import pandas as pd
import pytest

import scellm
from scellm.data import GeneVocabulary
from scellm.nn import CellLMConfig
from scellm.train import CollapseError
from scellm.train._collapse import CollapseWatch


def lines(n, *, anisotropy=0.2, every=20, first=21):
    return [{"step": float(first + i * every), "anisotropy": anisotropy} for i in range(n)]


def reasons(rows, *, loss=1.0, guessing=4.0, watch=None):
    watch = watch or CollapseWatch()
    return [watch.look(row, loss, guessing) for row in rows]


def test_embeddings_in_a_narrow_cone_are_found_after_five_lines():
    found = reasons(lines(6, anisotropy=0.98))
    assert found[:4] == [None] * 4
    assert "all cells point the same way (anisotropy 0.980" in found[4]


def test_a_loss_of_guessing_is_found_after_five_lines():
    found = reasons(lines(5), loss=3.97)
    assert found[:4] == [None] * 4
    assert "the contrastive loss is that of guessing (3.970; log N is 4.000)" in found[4]


@pytest.mark.parametrize(
    ("rows", "loss", "guessing"),
    [
        (lines(9, anisotropy=0.94), 3.9, 4.0),
        (lines(9), None, None),  # no contrastive objective
        (lines(5, anisotropy=0.98, first=1, every=4), 3.99, 4.0),  # the first 20 steps
        (lines(6, anisotropy=0.98, every=1), 3.99, 4.0),  # a line for every step: too short a time
        (lines(4, anisotropy=0.98) + lines(1, first=101) + lines(4, anisotropy=0.98, first=121), 1.0, 4.0),
    ],
    ids=["healthy", "nothing compared", "begin", "few steps", "recovered"],
)
def test_control_other_runs_go_on(rows, loss, guessing):
    assert reasons(rows, loss=loss, guessing=guessing) == [None] * len(rows)


def test_the_warm_up_is_not_judged():
    watch = CollapseWatch(first_step=200)
    assert reasons(lines(9, anisotropy=0.98), watch=watch) == [None] * 9
    assert reasons(lines(5, anisotropy=0.98, first=201), watch=watch)[-1] is not None


@pytest.fixture
def run(tmp_path):
    """Toy cells for an encoder with blocks."""
    cells = scellm.datasets.toy_cells(80, n_vars=400)
    config = dataclasses.replace(CellLMConfig.named("tiny", n_genes=400), dropout=0.1)

    def start(**options):
        fixed = {
            "vocabulary": GeneVocabulary.default().subset(cells.var_names),
            "min_overlap": 0.5,
            "batch_size": 32,
            "max_steps": 70,
            "log_every": 5,
            "show_progress": False,
            "checkpoint_dir": tmp_path,
            "objectives": ["contrastive"],
        }
        return scellm.tl.pretrain(cells, config=config, **{**fixed, **options})

    return start


def test_a_run_that_learns_nothing_stops(run, tmp_path):
    """At such a temperature all cells are alike to the loss, whatever the encoder does."""
    with pytest.raises(CollapseError, match=r"collapsed by step \d+.*that of guessing") as error:
        run(temperature=1000.0)
    for remedy in ("learning_rate", "pooling", "views"):
        assert remedy in str(error.value)
    steps = pd.read_csv(tmp_path / "log.csv")["step"]
    assert steps.iloc[-1] == 45  # lines 25 to 45, which are kept


def test_a_run_whose_cells_become_one_stops(run, monkeypatch):
    from scellm.train import _trainer

    real = _trainer.embedding_quality
    monkeypatch.setattr(_trainer, "embedding_quality", lambda *a: real(*a) | {"anisotropy": 0.999})
    with pytest.raises(RuntimeError, match=r"all cells point the same way \(anisotropy 0.999"):
        run()


def test_control_a_run_that_learns_goes_on(run):
    assert run(learning_rate=5e-3).history["step"].iloc[-1] == 70


@pytest.mark.parametrize("log_every", [20, 30])
def test_a_run_of_too_few_lines_to_be_sure_says_so_at_its_end(run, log_every):
    with pytest.warns(
        UserWarning,
        match="may have collapsed: in the last .*guessing, too few to be sure. Change one of these",
    ):
        run(temperature=1000.0, max_steps=60, log_every=log_every)


def test_control_the_end_says_nothing_where_cells_were_apart_again():
    watch = CollapseWatch()
    reasons(lines(3, anisotropy=0.98), watch=watch)
    assert watch.at_end() == "in the last 3 lines of the log all cells point the same way"
    reasons(lines(1, first=101), watch=watch)
    assert watch.at_end() is None


def test_one_line_of_several_may_be_chance():
    watch = CollapseWatch()
    reasons(lines(19), watch=watch)
    reasons(lines(1, anisotropy=0.98, first=901), watch=watch)
    assert watch.at_end() is None
    watch = CollapseWatch()
    reasons(lines(1, anisotropy=0.98), watch=watch)
    assert watch.at_end() == "in the last line of the log all cells point the same way"
