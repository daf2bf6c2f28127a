"""tl.fine_tune: learns, stops by the validation cells, goes on where it was killed, and tells when a baseline wins."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import scellm
from scellm.datasets._toy import MARKERS
from scellm.models import load, save
from scellm.tl import annotate, few_shot
from scellm.train import FineTuneOptions
from scellm.train import _fine_tune as loop_file

KEY = "scellm_fine_tune"
CELLS = scellm.datasets.toy_cells(240, n_vars=2000, n_donors=6)
QUICK = {"labels": "cell_type", "val_by": "donor", "max_epochs": 3, "baseline": False, "batch_size": 64}


OF_TRAINING = {field.name for field in dataclasses.fields(FineTuneOptions)}


def fine_tune(adata, **options):
    """`tl.fine_tune` with the options of training beside the others; those of `QUICK` only where there are epochs."""
    if options.get("strategy") == "head":
        options = {
            name: value
            for name, value in options.items()
            if (name, value) not in QUICK.items() or name not in OF_TRAINING
        }
    training = {name: options.pop(name) for name in OF_TRAINING & set(options)}
    return scellm.tl.fine_tune(adata, training=FineTuneOptions(**training), **options)


@pytest.fixture
def adata():
    return CELLS.copy()


@pytest.fixture
def tune(bag_model):
    def tuned(adata, **options):
        return fine_tune(adata, **{"model": bag_model, **QUICK, **options})

    return tuned


def weights(model):
    return {name: x.numpy() for name, x in model.encoder.state_dict().items()} | model.parts[
        "cell_type"
    ].tensors


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# -- what comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["head", "lora", "full"])
def test_model_with_a_head(adata, tune, bag_model, strategy, tmp_path):
    before = {name: x.clone() for name, x in bag_model.encoder.state_dict().items()}
    model = tune(adata, strategy=strategy)
    report = adata.uns[KEY]
    assert report["test"]["macro_f1"] > 0.9
    assert report["classes"].tolist() == sorted(adata.obs["cell_type"].cat.categories)
    assert all(torch.equal(x, before[name]) for name, x in bag_model.encoder.state_dict().items())
    moved = not np.array_equal(weights(model)["gene_embedding.weight"], before["gene_embedding.weight"])
    assert moved == (strategy != "head" and report["best_epoch"] > 0)
    new = scellm.datasets.toy_cells(40, n_vars=2000)
    loaded = load(save(model, tmp_path / "m"))
    results = []
    for m in (model, loaded):
        cells = new.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # toys of another seed are another batch
            annotate(cells, model=m, target_error=0.1, align=False)
        results.append(cells)
    assert (results[0].obs["scellm_cell_type"] == results[1].obs["scellm_cell_type"]).all()
    np.testing.assert_allclose(
        *(x.obsm["scellm_cell_type_probabilities"] for x in results), rtol=1e-4, atol=1e-5
    )
    assert results[0].uns["scellm_cell_type"]["mode"] == "fine-tuned"
    assert "fine-tuned on" in loaded.card
    assert report["summary"] in loaded.card


@pytest.mark.parametrize("strategy", ["lora", "full"])
@pytest.mark.parametrize("contrastive", [0.0, 0.2], ids="contrastive {}".format)
def test_training_lowers_the_loss(adata, tune, strategy, contrastive):
    model = tune(adata, strategy=strategy, max_epochs=4, contrastive=contrastive, patience=9)
    losses = model.history["cell_type"].dropna().to_numpy()
    assert losses[-1] < 0.8 * losses[0]
    assert ("contrastive" in model.history) == (contrastive > 0)


def test_transformers_are_tuned_too(adata, make_bag_model):
    options = {"depth": 1, "heads": 2, "dim_head": 8, "ff_mult": 1, "attention": "softmax", "dropout": 0.1}
    model = make_bag_model(**options)
    small = adata[:, ::2].copy()
    small = small[:96].copy()
    for strategy in ("lora", "full"):
        result = fine_tune(
            small,
            model=model,
            **{**QUICK, "max_epochs": 1},
            strategy=strategy,
            min_overlap=0.01,
            calibrate=False,
        )
        assert set(result.encoder.state_dict()) == set(model.encoder.state_dict())


def test_shuffled_labels_are_not_learnt(adata, tune):
    adata.obs["cell_type"] = np.random.default_rng(0).permutation(adata.obs["cell_type"])
    tune(adata)
    assert adata.uns[KEY]["test"]["macro_f1"] < 0.5


def test_uncertain_classes_are_calibrated(adata, tune):
    """Two classes that are one: a confident head is wrong in half of the cells, and temperature mends it."""
    labels = adata.obs["cell_type"].astype(str).to_numpy().copy()
    labels[np.random.default_rng(0).random(len(labels)) < 0.5] += " too"
    adata.obs["cell_type"] = labels
    tune(adata, strategy="head", val_size=0.4)
    report = adata.uns[KEY]["test"]
    assert report["ece"] < report["ece_before"]
    assert (report["coverage"] >= 1 - report["target_errors"] - 0.15).all()


def test_report_survives_a_file(adata, tune, tmp_path):
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"NK cell": "NK/T"})
    tune(adata, strategy="head", baseline=["logistic"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad").uns[KEY]
    assert "NK/T" in back["classes"]
    np.testing.assert_array_equal(back["test"]["f1_by_class"], adata.uns[KEY]["test"]["f1_by_class"])
    assert back["baselines"]["methods"].tolist() == adata.uns[KEY]["baselines"]["methods"].tolist()
    assert pd.Series(back["split"]).value_counts().to_dict() == {
        part: back[f"n_{part}"] for part in ("train", "val", "test")
    }


def test_history_is_drawn(adata, tune):
    import matplotlib.pyplot as plt

    ax = scellm.pl.training_history(tune(adata), show=False)
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {"val loss", "cell type"}
    plt.close("all")


# -- splits ---------------------------------------------------------------------------------------------------


def test_groups_are_whole(adata, tune):
    tune(adata, strategy="head")
    split = pd.Series(adata.uns[KEY]["split"], index=adata.obs_names)
    assert (split.groupby(adata.obs["donor"].to_numpy()).nunique() == 1).all()
    assert set(split) == {"train", "val", "test"}


def test_random_split_warns_of_donors(adata, tune):
    with pytest.warns(
        UserWarning, match=r"held out at random, though adata.obs has 'donor'.*Pass val_by='donor'"
    ):
        tune(adata, strategy="head", val_by=None)
    del adata.obs["donor"]
    tune(adata, strategy="head", val_by=None)  # nothing to warn of


def test_test_cells_play_no_part(adata, tune):
    one = tune(adata)
    is_test = adata.uns[KEY]["split"] == "test"
    other = adata.copy()
    other.X = other.X.toarray()
    other.X[is_test] = other.X[is_test][::-1] + 1
    assert_same_weights(one, tune(other))
    changed = adata.copy()
    changed.X = changed.X.toarray()
    is_train = adata.uns[KEY]["split"] == "train"
    changed.X[is_train] = changed.X[is_train] + 1
    with pytest.raises(AssertionError):  # control
        assert_same_weights(one, tune(changed))


def test_best_epoch_is_kept(adata, tune, bag_model, monkeypatch):
    scores = iter([0.5, 0.9, 0.7, 0.6, 0.5])
    macro_f1 = loop_file.macro_f1
    monkeypatch.setattr(loop_file, "_fit_head", _fit_head_without_scoring(loop_file._fit_head, macro_f1))
    monkeypatch.setattr(loop_file, "macro_f1", lambda *_: next(scores))  # of the epochs, not of the penalties
    model = tune(adata, max_epochs=9, patience=2)
    assert adata.uns[KEY]["best_epoch"] == 1
    assert len(model.history) == 4  # start, the best, and two without gain
    scores = iter([0.5, 0.9])
    assert_same_weights(model, tune(adata, max_epochs=1))  # the weights of epoch 1, not of the last
    scores = iter([0.9, 0.5])
    start = tune(adata, max_epochs=1)
    assert adata.uns[KEY]["best_epoch"] == 0
    np.testing.assert_array_equal(
        weights(start)["gene_embedding.weight"], bag_model.encoder.gene_embedding.weight.detach()
    )


def _fit_head_without_scoring(fit_head, macro_f1):
    def fit(*args):
        current, loop_file.macro_f1 = loop_file.macro_f1, macro_f1
        try:
            return fit_head(*args)
        finally:
            loop_file.macro_f1 = current

    return fit


def test_same_seed_same_weights(adata, tune):
    one = tune(adata)
    assert_same_weights(one, tune(adata))
    with pytest.raises(AssertionError):  # control
        assert_same_weights(one, tune(adata, rng=1))


# -- stopped and resumed --------------------------------------------------------------------------------------


class Stop(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_interrupted_run_goes_on_and_ends_the_same(adata, tune, tmp_path, monkeypatch, strategy):
    options = {"strategy": strategy, "max_epochs": 4, "patience": 9, "gene_dropout": 0.3}
    expected = tune(adata.copy(), **options)
    untouched = adata.copy()
    save_state = loop_file._Run._save

    def stop_after_two(self, folder):
        save_state(self, folder)
        if self.epoch == 2:
            raise Stop

    monkeypatch.setattr(loop_file._Run, "_save", stop_after_two)
    with pytest.raises(Stop):
        tune(adata, **options, checkpoint_dir=tmp_path)
    assert list(adata.uns) == list(untouched.uns) == []
    pd.testing.assert_frame_equal(adata.obs, untouched.obs)
    monkeypatch.setattr(loop_file._Run, "_save", save_state)
    epochs = []
    one_epoch = loop_file._Run._one_epoch
    monkeypatch.setattr(
        loop_file._Run, "_one_epoch", lambda self: epochs.append(self.epoch) or one_epoch(self)
    )
    resumed = tune(adata, **options, checkpoint_dir=tmp_path, resume="must")
    assert epochs == [3, 4]
    assert_same_weights(resumed, expected)
    assert resumed.history["epoch"].tolist() == expected.history["epoch"].tolist()
    done = tune(adata, **options, checkpoint_dir=tmp_path)
    assert epochs == [3, 4]  # nothing left to do
    assert_same_weights(done, expected)


SCRIPT = """
import sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("ignore")
import torch; torch.set_num_threads(1)
import scellm
from conftest import bag_of_genes
from scellm.train import _fine_tune as loop
if {kill}:
    save = loop._Run._save
    def save_and_die(self, folder):
        save(self, folder)
        if self.epoch == 2:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    loop._Run._save = save_and_die
adata = scellm.datasets.toy_cells(160, n_vars=2000, n_donors=4)
model = scellm.tl.fine_tune(adata, labels="cell_type", model=bag_of_genes(), val_by="donor",
    training=scellm.train.FineTuneOptions(max_epochs=3, patience=9), baseline=False, checkpoint_dir={folder!r})
scellm.models.save(model, {out!r})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_killed_run_goes_on_and_ends_the_same(tmp_path):
    tests = os.path.dirname(__file__)  # noqa: PTH120

    def run(folder, out, *, kill):
        script = SCRIPT.format(tests=tests, kill=kill, folder=str(tmp_path / folder), out=str(tmp_path / out))
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    killed = run("stopped", "none", kill=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "none").exists()
    for folder, out in (("stopped", "resumed"), ("whole", "expected")):
        done = run(folder, out, kill=False)
        assert done.returncode == 0, done.stderr
    assert_same_weights(load(tmp_path / "resumed"), load(tmp_path / "expected"))


def test_checkpoint_of_another_run_is_refused(adata, tune, tmp_path):
    tune(adata, max_epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"is of another run \(lora_rank: 8 -> 4\)"):
        tune(adata, max_epochs=1, checkpoint_dir=tmp_path, lora_rank=4)
    fewer = adata[:200].copy()
    with pytest.raises(ValueError, match=r"is of another run \(cells: "):
        tune(fewer, max_epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(FileExistsError, match="resume='never', but .* holds step"):
        tune(adata, max_epochs=1, checkpoint_dir=tmp_path, resume="never")
    with pytest.raises(FileNotFoundError, match="resume='must', but there is no checkpoint"):
        tune(adata, checkpoint_dir=tmp_path / "none", resume="must")


# -- baselines ------------------------------------------------------------------------------------------------


def test_baselines_stand_beside_it(adata, tune):
    tune(adata, strategy="head", baseline=True)
    table = adata.uns[KEY]["baselines"]
    assert set(table["methods"]) == {"scellm", "logistic", "pca_knn"}
    mine = table["methods"].tolist().index("scellm")
    assert table["macro_f1"][mine] == pytest.approx(adata.uns[KEY]["test"]["macro_f1"])
    assert table["f1_by_class"].shape == (3, 4)


def test_baseline_that_wins_is_said(adata, bag_model):
    """A random bag whose markers are drowned: genes themselves do better."""
    weak = dataclasses.replace(bag_model, encoder=type(bag_model.encoder)(bag_model.config).eval())
    with pytest.warns(
        UserWarning, match=r"A simple baseline is better here: logistic regression .*method='logistic'"
    ):
        fine_tune(adata, model=weak, **{**QUICK, "baseline": ["logistic"]}, strategy="head")
    assert "A simple baseline is better here" in adata.uns[KEY]["summary"]


def test_without_test_cells_the_report_says_so(adata, tune):
    tune(adata, strategy="head", test_size=0)
    report = adata.uns[KEY]
    assert report["evaluated_on"] == "val"
    assert "test" not in report
    assert "too good for new cells" in report["summary"]


# -- options --------------------------------------------------------------------------------------------------


def test_without_calibration_there_are_no_sets(adata, tune):
    model = tune(adata, strategy="head", calibrate=False)
    assert "coverage" not in adata.uns[KEY]["test"]
    cells = adata.copy()
    annotate(cells, model=model, align=False)
    assert cells.obs["scellm_cell_type_novelty"].isna().all()
    with pytest.raises(ValueError, match=r"target_error needs held-out cells.*calibrate=True"):
        annotate(cells, model=model, target_error=0.1)


def test_classes_too_small_are_set_aside_and_named(adata, tune):
    labels = adata.obs["cell_type"].astype(str).to_numpy().copy()
    labels[:3] = "rare/one"
    labels[3:5] = ""
    adata.obs["cell_type"] = labels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tune(adata, strategy="head")
    texts = " ".join(str(x.message) for x in caught)
    assert re.search(r"fewer than 5 cells was set aside: 'rare/one' \(3\)", texts)
    assert re.search(r"2 of 240 cells in `adata` have no label", texts)
    report = adata.uns[KEY]
    assert report["excluded_classes"].tolist() == ["rare/one"]
    assert (np.asarray(report["split"])[:5] == "").all()


def test_class_of_held_out_groups_alone_is_named(adata, tune):
    labels = adata.obs["cell_type"].astype(str).to_numpy().copy()
    # every group has a class of its own: whatever is held out, training lacks its class
    labels = np.where(
        adata.obs["cell_type"] == "monocyte", [f"monocyte of {d}" for d in adata.obs["donor"]], labels
    )
    adata.obs["cell_type"] = labels
    with pytest.warns(UserWarning, match=r"2 classes are in held-out groups alone.*'monocyte of donor\d'"):
        tune(adata, strategy="head")
    assert len(adata.uns[KEY]["classes"]) == 3 + 6 - 2
    assert adata.uns[KEY]["n_class_not_in_training"] == 20


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"labels": "type"},
            KeyError,
            r"'type' is not in `adata.obs`, which has \['cell_type', 'donor', 'lab'\]",
        ),
        ({"labels": "lab"}, ValueError, r"has 1 class with at least 5 cells"),
        ({"val_by": "lab"}, ValueError, r"val_by='lab' has one group \('here'\)"),
        ({"test_by": "lab"}, ValueError, r"test_by='lab' has one group"),
        ({"val_by": "clinic"}, KeyError, r"'clinic' is not in `adata.obs`"),
        (
            {"strategy": "adapter"},
            ValueError,
            r"strategy='adapter' is unknown; choose one of \['head', 'lora', 'full'\]",
        ),
        ({"class_weight": "equal"}, ValueError, r"class_weight='equal' is unknown"),
        ({"max_epochs": 0}, ValueError, r"max_epochs=0 must be a whole number of at least 1"),
        ({"patience": 1.5}, ValueError, r"patience=1.5 must be a whole number"),
        ({"gene_dropout": 1.0}, ValueError, r"gene_dropout=1.0 must be in \[0, 1\)"),
        ({"learning_rate": 0}, ValueError, r"learning_rate=0 must be positive"),
        ({"val_size": 0}, ValueError, r"val_size=0 and test_size=0.2 are shares of the cells"),
        (
            {"val_size": 0.5, "test_size": 0.5},
            ValueError,
            r"shares of the cells that leave some for training",
        ),
        ({"min_cells": 0}, ValueError, r"min_cells=0 must be"),
        ({"lora_rank": 4}, ValueError, r"lora_rank=4 has no effect with strategy='head'"),
        ({"strategy": "full", "lora_rank": 4}, ValueError, r"lora_rank=4 has no effect with strategy='full'"),
        (
            {"strategy": "lora", "temperature": 0.5},
            ValueError,
            r"temperature=0.5 has no effect with contrastive=0",
        ),
        ({"resume": "never"}, ValueError, r"resume='never' has no effect without checkpoint_dir="),
        ({"checkpoint_dir": "here"}, ValueError, r"checkpoint_dir has no effect with strategy='head'"),
        ({"resume": "maybe"}, ValueError, r"resume='maybe' is unknown"),
        ({"layer": "counts"}, KeyError, r"'counts' is not in `adata.layers`"),
        ({"key_added": "theirs"}, ValueError, r"adata.uns\['theirs'\]` already exists"),
        ({"baseline": ["forest"]}, ValueError, r"Unknown baselines \['forest'\]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_faulty_arguments(adata, tune, options, error, text):
    adata.obs["lab"] = "here"
    adata.uns["theirs"] = {"mine": 1}
    with pytest.raises(error, match=text):
        tune(adata, **{"strategy": "head", **options})
    assert list(adata.uns) == ["theirs"]


def test_faulty_objects(tune):
    with pytest.raises(TypeError, match="Need an AnnData object, found DataFrame"):
        tune(CELLS.obs)


def test_facts_are_json(adata, tune):
    model = tune(adata, strategy="head")
    assert json.loads(json.dumps(model.provenance))["n_cells"]["train"] == adata.uns[KEY]["n_train"]
    assert textwrap.shorten(model.provenance["description"], 40)


# -- few labeled cells ---------------------------------------------------------------------------------------

FEW = {"labels": "response", "baseline": False}


@pytest.fixture
def few():
    """Cells of two kinds, six labeled in every donor; and which are sensitive."""
    cells = scellm.datasets.toy_cells(240, n_vars=2000, n_donors=6)
    cells = cells[cells.obs["cell_type"].isin(["monocyte", "NK cell"])].copy()
    sensitive = (cells.obs["cell_type"] == "monocyte").to_numpy()
    return with_labels(cells, sensitive, labelled_of_each_donor(cells, sensitive, 3)), sensitive


def labelled_of_each_donor(cells, sensitive, n):
    donors = cells.obs["donor"].to_numpy()
    rows = [
        np.flatnonzero((donors == donor) & (sensitive == kind))[:n]
        for donor in np.unique(donors)
        for kind in (False, True)
    ]
    return np.sort(np.concatenate(rows))


def with_labels(cells, sensitive, rows):
    cells.obs["response"] = None
    cells.obs.loc[cells.obs_names[rows], "response"] = np.where(sensitive[rows], "sensitive", "resistant")
    return cells


def respond(adata, model, **options):
    return few_shot(adata, model=model, **{**FEW, "val_by": "donor", **options})


def annotated(cells, model, **options):
    cells = cells.copy()
    annotate(cells, model=model, novelty_error=None, **options)
    return cells.obs["scellm_cell_type"].astype(str).to_numpy(), cells


def test_few_labelled_cells_are_enough(few, bag_model):
    adata, sensitive = few
    before = adata.copy()
    model = respond(adata, bag_model)
    report = adata.uns[KEY]
    is_labelled = before.obs["response"].notna().to_numpy()
    found, _ = annotated(adata[~is_labelled], model)
    truth = np.where(sensitive[~is_labelled], "sensitive", "resistant")
    assert (found == truth).mean() > 0.95
    assert report["settings"]["strategy"] == "few_shot"
    assert report["evaluated_on"] == "held_out"
    assert report["held_out"]["macro_f1"] > 0.9
    assert (
        report["n_train"] == report["n_held_out"] == is_labelled.sum() == (report["split"] == "train").sum()
    )
    assert report["n_unlabeled"] == (~is_labelled).sum() == (report["split"] == "unlabeled").sum()
    assert "No encoder is used" in report["summary"]
    assert set(adata.uns) - set(before.uns) == {KEY}
    del adata.uns[KEY]
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert (adata.X != before.X).nnz == 0
    assert list(adata.obsm) == list(before.obsm)


def test_shuffled_responses_are_not_learnt(few, bag_model):
    adata, sensitive = few
    rows = np.flatnonzero(adata.obs["response"].notna())
    adata = with_labels(adata, np.random.default_rng(1).permutation(sensitive), rows)
    respond(adata, bag_model)
    assert adata.uns[KEY]["held_out"]["macro_f1"] < 0.7


def test_head_on_genes_is_saved_and_loaded(few, bag_model, tmp_path):
    adata, _ = few
    model = respond(adata, bag_model)
    loaded = load(save(model, tmp_path / "m"))
    new = scellm.datasets.toy_cells(60, n_vars=2000, rng=5)
    found = [annotated(new, m, target_error=0.1)[1] for m in (model, loaded)]
    for key in ("scellm_cell_type_probabilities", "scellm_cell_type_set"):
        np.testing.assert_array_equal(*(cells.obsm[key] for cells in found))
    record = found[1].uns["scellm_cell_type"]
    assert (record["mode"], record["method"]) == ("fine-tuned", "logistic")
    assert adata.uns[KEY]["summary"] in loaded.card
    assert loaded.parts["cell_type"].meta["genes"]
    assert loaded.parts["cell_type"].meta["facts"]["strategy"] == "few_shot"
    same = {name: x.numpy() for name, x in bag_model.encoder.state_dict().items()}
    for name, x in loaded.encoder.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), same[name])


def test_same_labels_same_head(few, bag_model):
    adata, _ = few
    one, other = respond(adata.copy(), bag_model), respond(adata.copy(), bag_model)
    assert_same_weights(one, other)
    changed = adata.copy()
    changed.obs["response"] = changed.obs["response"].map(
        {"sensitive": "resistant", "resistant": "sensitive"}
    )
    with pytest.raises(AssertionError):  # control
        assert_same_weights(one, respond(changed, bag_model))


@pytest.mark.parametrize("strange", ["text", "category", "nan text", "bool"])
def test_cells_without_a_label_may_say_so_in_any_way(few, bag_model, strange):
    adata, _ = few
    expected = respond(adata.copy(), bag_model)
    labels = adata.obs["response"]
    adata.obs["response"] = {
        "text": labels.fillna("").astype(str),
        "category": labels.astype("category"),
        "nan text": labels.fillna("NaN").astype(str),
        "bool": labels.map({"sensitive": True, "resistant": False}).astype("boolean"),
    }[strange]
    model = respond(adata, bag_model)
    np.testing.assert_array_equal(
        model.parts["cell_type"].tensors["weight"], expected.parts["cell_type"].tensors["weight"]
    )


def test_numbers_as_responses_are_refused_with_a_way_out(few, bag_model):
    adata, _ = few
    adata.obs["response"] = adata.obs["response"].map({"sensitive": 1.5, "resistant": 0.5}).astype(float)
    with pytest.raises(TypeError, match=r"holds float64 numbers, not labels.*astype\(str\)"):
        respond(adata, bag_model)
    adata.obs["response"] = adata.obs["response"].astype(str)
    respond(adata, bag_model)
    assert adata.uns[KEY]["classes"].tolist() == ["0.5", "1.5"]


def test_zeros_and_ones_with_gaps_are_two_classes(few, bag_model):
    adata, _ = few
    adata.obs["response"] = adata.obs["response"].map({"sensitive": 1, "resistant": 0}).astype(float)
    respond(adata, bag_model)
    assert adata.uns[KEY]["classes"].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("n_sensitive", "found"), [(0, r"'resistant' \(6 cells\)"), (1, r"'sensitive' \(1 cells\)")]
)
def test_one_class_is_refused(few, bag_model, n_sensitive, found):
    adata, sensitive = few
    rows = np.concatenate([np.flatnonzero(~sensitive)[:6], np.flatnonzero(sensitive)[:n_sensitive]])
    adata = with_labels(adata, sensitive, rows)
    with pytest.raises(ValueError, match=r"has 1 class with at least 2 cells; two are needed.*" + found):
        respond(adata, bag_model, val_by=None)
    assert KEY not in adata.uns


def test_five_cells(few, bag_model):
    """Two of one class, three of the other: fitted, and what they cannot tell is said."""
    adata, sensitive = few
    del adata.obs["donor"]
    rows = np.concatenate([np.flatnonzero(~sensitive)[:2], np.flatnonzero(sensitive)[:3]])
    adata = with_labels(adata, sensitive, rows)
    with pytest.warns(UserWarning, match=r"5 labeled cells are few to calibrate on.*Label 20 or more"):
        model = respond(adata, bag_model, val_by=None, baseline=True)
    assert "too few to tell which is better" in adata.uns[KEY]["summary"]
    found, cells = annotated(adata, model, target_error=0.05)
    assert (cells.obsm["scellm_cell_type_set"]).all()  # five cells cannot promise 5 %
    assert set(found) == {"unassigned"}
    found, _ = annotated(adata, model)
    assert (found == np.where(sensitive, "sensitive", "resistant")).mean() > 0.9


def test_few_cells_warn_of_donors_and_hold_them_out(few, bag_model):
    adata, _ = few
    with pytest.warns(UserWarning, match=r"held out at random, though adata.obs has 'donor'"):
        respond(adata, bag_model, val_by=None)
    assert adata.uns[KEY]["n_folds"] == 5
    adata.obs["lab"] = "here"
    with pytest.raises(ValueError, match=r"val_by='lab' has one group \('here'\)"):
        respond(adata, bag_model, val_by="lab", key_added="other")
    with pytest.raises(KeyError, match=r"'clinic' is not in `adata.obs`"):
        respond(adata, bag_model, val_by="clinic", key_added="other")
    adata.obs["culture"] = np.where(adata.obs["response"] == "sensitive", "treated", "untreated")
    with pytest.raises(ValueError, match=r"without its group there is one class left"):
        respond(adata, bag_model, val_by="culture", key_added="other")
    assert "other" not in adata.uns


def test_test_donors_play_no_part(few, bag_model):
    adata, _ = few
    one = respond(adata, bag_model, test_by="donor")
    report = adata.uns[KEY]
    assert report["evaluated_on"] == "test"
    assert report["n_test"] > 0
    is_test = adata.obs["donor"].isin(adata.obs["donor"][report["split"] == "test"]).to_numpy()
    assert set(report["split"][is_test]) == {"test", ""}
    other = adata.copy()
    other.X = other.X.toarray()
    other.X[is_test] = other.X[is_test][::-1] * 2
    again = respond(other, bag_model, test_by="donor")
    np.testing.assert_array_equal(
        one.parts["cell_type"].tensors["weight"], again.parts["cell_type"].tensors["weight"]
    )


def test_test_cells_leave_two_of_each_class(few, bag_model):
    adata, sensitive = few
    del adata.obs["donor"]
    rows = np.concatenate([np.flatnonzero(~sensitive)[:9], np.flatnonzero(sensitive)[:3]])
    adata = with_labels(adata, sensitive, rows)
    with pytest.raises(ValueError, match=r"At least 2 labeled cells of each class.*'sensitive' \(1 cells\)"):
        respond(adata, bag_model, val_by=None, test_size=0.6)


def test_baselines_of_few_cells_are_of_the_same_folds(few, bag_model, tmp_path):
    import matplotlib.pyplot as plt

    adata, _ = few
    respond(adata, bag_model, baseline=True)
    table = adata.uns[KEY]["baselines"]
    assert table["methods"].tolist() == ["scellm", "logistic", "embedding"]
    assert table["macro_f1"][0] == pytest.approx(adata.uns[KEY]["held_out"]["macro_f1"])
    assert table["f1_by_class"].shape == (3, 2)
    ax = scellm.pl.compare(adata, show=False)
    assert "head on embedding" in [text.get_text() for text in ax.get_yticklabels()]
    plt.close("all")
    adata.obs["response"] = adata.obs["response"].astype("category")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad").uns[KEY]
    assert back["summary"] == adata.uns[KEY]["summary"]
    with pytest.raises(ValueError, match=r"Unknown baselines \['pca_knn'\]; choose from"):
        respond(adata, bag_model, baseline=["pca_knn"])


def test_embedding_that_is_better_is_said(few, bag_model):
    """Noise of other kinds of cells in all genes but the markers, which the bag alone looks at."""
    adata, _ = few
    noisy = adata.copy()
    noisy.X = noisy.X.toarray()
    rng = np.random.default_rng(0)
    markers = adata.var_names.isin([x for genes in MARKERS.values() for x in genes])
    loud = rng.permutation(np.flatnonzero(~markers))[:600].reshape(30, 20)
    for genes in loud:  # programs that have nothing to do with the response
        noisy.X[np.ix_(np.flatnonzero(rng.random(len(noisy)) < 0.5), genes)] += 40
    with pytest.warns(
        UserWarning, match=r"A simple baseline is better here: .*the embedding. Use it: .*strategy='head'"
    ):
        respond(noisy, bag_model, baseline=True)
    assert noisy.uns[KEY]["baseline_is_better"]


def test_genes_that_the_other_cells_lack(few, bag_model):
    adata, sensitive = few
    model = respond(adata, bag_model)
    head = model.parts["cell_type"].meta["genes"]
    truth = np.where(sensitive, "sensitive", "resistant")
    lacking = adata[:, ~adata.var_names.isin(head[:: len(head) // 400])].copy()
    with pytest.warns(UserWarning, match=r"lacks \d+ of the \d+ genes of the head; they count as average"):
        found, _ = annotated(lacking, model, min_overlap=0.01)
    assert (found == truth).mean() > 0.9
    with pytest.raises(ValueError, match=r"of the \d+ genes of the head \(\d+ %, need 50 %\)"):
        annotated(adata[:, ~adata.var_names.isin(head[::3] + head[1::3])], model, min_overlap=0.01)


def test_cells_without_genes_stay_unassigned_by_a_head_on_genes(few, bag_model):
    adata, _ = few
    adata.X = adata.X.toarray()
    adata.X[[0, 50]] = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = respond(adata, bag_model)
        found, cells = annotated(adata, model)
    assert "labeled cells express no vocabulary gene" in " ".join(str(x.message) for x in caught)
    assert (found[[0, 50]] == "unassigned").all()
    assert np.isnan(cells.obsm["scellm_cell_type_probabilities"][[0, 50]]).all()
    assert adata.uns[KEY]["split"][0] == ""


def test_head_on_genes_without_calibration(few, bag_model):
    adata, _ = few
    model = respond(adata, bag_model, calibrate=False)
    assert "coverage" not in adata.uns[KEY]["held_out"]
    with pytest.raises(ValueError, match="target_error needs held-out cells"):
        annotated(adata, model, target_error=0.1)


def test_cell_types_from_few_labels(adata, bag_model):
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    adata.obs["cell_type"] = np.where(np.arange(240) < 60, truth, "")
    model = few_shot(adata, "cell_type", model=bag_model, val_by="donor", baseline=False)
    found, _ = annotated(adata, model)
    assert (found == truth).mean() > 0.95
    assert len(adata.uns[KEY]["classes"]) == 4


def test_copies_of_training_cells_among_the_held_out_are_told(tune, adata):
    cells = adata[:120].copy()
    both = ad.concat([cells, cells], index_unique="-")
    del both.obs["donor"]
    with pytest.warns(
        UserWarning, match=r"of \d+ held-out cells are the same measurement as a training cell"
    ):
        tune(both, strategy="head", val_by=None, test_size=0.2)


def test_no_word_of_copies_where_donors_are_held_out(tune, adata):
    cells = adata[:120].copy()
    both = ad.concat([cells, cells], index_unique="-")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*same measurement")
        tune(both, strategy="head", val_by="donor", test_size=0)


@pytest.fixture
def twice(adata):
    """Every cell twice, by two "donors" that are copies of each other; a third of them labeled."""
    cells = adata[:60].copy()
    both = ad.concat([cells, cells], index_unique="-")
    both.obs["donor"] = both.obs["donor"].astype(str) + np.repeat(["", " again"], 60)
    both.obs["together"] = both.obs["donor"].str.removesuffix(" again")
    both.obs["known"] = both.obs["cell_type"].astype(str).where(np.tile(np.arange(60) % 2 == 0, 2))
    return both


@pytest.mark.parametrize("val_by", [None, "donor"])
def test_copies_among_few_labels_are_told(twice, bag_model, val_by):
    if val_by is None:
        del twice.obs["donor"], twice.obs["together"]
    with pytest.warns(UserWarning, match=r"60 of 60 labeled cells are the same measurement as another"):
        few_shot(twice, "known", model=bag_model, val_by=val_by, baseline=False, calibrate=False)


def test_copies_of_few_labels_in_the_test_are_told(twice, bag_model):
    options = {"test_by": "donor", "val_by": "together", "test_size": 0.3}
    with pytest.warns(UserWarning, match=r"of \d+ held-out cells are the same measurement as a training"):
        few_shot(twice, "known", model=bag_model, baseline=False, calibrate=False, **options)


def test_no_word_of_copies_among_few_labels_that_stay_together(twice, bag_model):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*same measurement")
        few_shot(twice, "known", model=bag_model, val_by="together", baseline=False, calibrate=False)
