"""Views drawn on a device from a corpus in its memory: the same statistics as on the host, the same draw every time."""

import dataclasses
import shutil
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import scellm
from scellm.data import Batch, Corpus, GeneVocabulary
from scellm.train import PretrainConfig, World, _resident, _trainer, draw_batch
from scellm.train._corpus_batches import CorpusBatches
from scellm.train._resident import ResidentCorpus, corpus_bytes, resident
from scellm.train._thinning import binomial, poisson, uniform

CPU = torch.device("cpu")
VIEWS = {"keep_counts": (0.3, 0.8), "drop_genes": (0.1, 0.6), "max_genes": 10_000, "max_counts": 1e9}
N = 200_000


def numbers(n=N, seed=0):
    keys = torch.from_numpy(np.random.default_rng(seed).integers(-(2**62), 2**62, size=1)).repeat(n)
    return uniform(keys, torch.arange(n, dtype=torch.int32))


def test_numbers_are_uniform_and_go_by_their_key():
    u, other = numbers().numpy(), numbers(seed=1).numpy()
    assert u.min() > 0
    assert u.max() < 1
    np.testing.assert_allclose(np.histogram(u, 20, (0, 1))[0], N / 20, rtol=0.05)
    assert abs(np.corrcoef(u, other)[0, 1]) < 0.01
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.01
    keys = torch.arange(N) * 2**20  # keys that are alike
    across = uniform(keys, torch.zeros(N, dtype=torch.int32)).numpy()
    np.testing.assert_allclose(np.histogram(across, 20, (0, 1))[0], N / 20, rtol=0.05)


@pytest.mark.parametrize("share", [0.02, 0.4, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 3, 40, 300, 20_000])
def test_counts_are_thinned_as_numpy_thins_them(count, share):
    drawn = binomial(torch.full((N,), float(count)), torch.full((N,), share), numbers()).numpy()
    wanted = np.random.default_rng(0).binomial(count, share, N)
    error = np.sqrt(count * share * (1 - share) / N)
    assert drawn.mean() == pytest.approx(count * share, abs=5 * error + 1e-6)
    assert drawn.var() == pytest.approx(count * share * (1 - share), rel=0.02, abs=1e-9)
    assert drawn.min() >= 0
    assert drawn.max() <= count
    steps = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(np.quantile(drawn, steps), np.quantile(wanted, steps), atol=1)


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 15.9, 16.1, 700.0])
def test_estimated_counts_are_drawn_as_numpy_draws_them(mean):
    drawn = poisson(torch.full((N,), mean), numbers()).numpy()
    assert drawn.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / N) + 1e-6)
    assert drawn.var() == pytest.approx(mean, rel=0.02)
    np.testing.assert_array_equal(drawn, np.rint(drawn))


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    names = GeneVocabulary.default().symbols[:400]
    parts = {}
    for name, scale in (("counts", 1.0), ("estimates", 0.7)):
        x = sp.csr_array((rng.poisson(2.0, (192, 400)) * scale).astype(np.float32))
        obs = pd.DataFrame({"malignant": ["True", "False"] * 96}, index=[f"{name}{i}" for i in range(192)])
        parts[name] = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Corpus.build(parts, min_overlap=0.01)


def recipe(**changes):
    fields = {"objectives": ["contrastive", "masked_value"], "views": VIEWS, "batch_size": 256, **changes}
    return PretrainConfig.from_dict(fields)


def both(corpus, dataset, settings, step):
    """A batch of one dataset as host and as device draw it."""
    chosen = Batch(np.full(192, dataset), np.arange(192))
    unknown = np.full(192, np.nan, dtype=np.float32)
    host = draw_batch(corpus.counts(dataset, chosen.row), unknown, settings, step=step)
    options = {"step": step, "first": 0, "is_packed": False}
    return host, ResidentCorpus(corpus, CPU).draw(chosen, unknown, settings, **options)


@pytest.mark.parametrize("dataset", [0, 1])
def test_views_are_those_of_the_host_on_average(corpus, dataset):
    settings = recipe()
    found = {"host": [], "device": []}
    for step in range(6):
        for where, batch in zip(found, both(corpus, dataset, settings, step), strict=True):
            values = batch.tokens.values if where == "host" else batch.values.numpy()
            totals = 1e4 / np.expm1(np.minimum.reduceat(values, np.r_[0, np.cumsum(batch.lengths)[:-1]]))
            masked = np.asarray(batch.is_masked)
            found[where].append(
                {
                    "genes": batch.lengths.mean(),
                    "spread of genes": batch.lengths.std(),
                    "value": values.mean(),
                    "spread of values": values.std(),
                    "counts left": np.median(totals),
                    "masked": masked[len(masked) // 2 :].mean(),
                }
            )
    host, device = (pd.DataFrame(rows) for rows in found.values())
    for name in host:
        difference = abs(host[name].mean() - device[name].mean())
        allowed = 4 * np.sqrt(host[name].var() / 6 + device[name].var() / 6) + 0.01 * host[name].mean()
        assert difference < allowed, (name, host[name].mean(), device[name].mean())
    assert host["masked"].mean() > 0.1


def test_keeping_everything_gives_the_cells_themselves(corpus):
    views = {"keep_counts": (1, 1), "drop_genes": (0, 0), "max_genes": 10_000, "max_counts": 1e12}
    host, device = both(corpus, 0, recipe(views=views), 0)
    np.testing.assert_array_equal(host.lengths, device.lengths)
    rows = np.array([5, 200, 7, 383])
    first, second = host[rows], device[rows]
    for name in ("gene_ids", "is_gene", "is_cancer"):
        assert torch.equal(first[name].nan_to_num(-1), second[name].nan_to_num(-1)), name
    torch.testing.assert_close(first["values"], second["values"])
    packed = (
        dataclasses.replace(host, is_packed=True)[rows],
        dataclasses.replace(device, is_packed=True)[rows],
    )
    for name in ("gene_ids", "indptr"):
        assert torch.equal(packed[0][name], packed[1][name]), name


def test_deep_and_long_cells_are_cut_down(corpus):
    settings = recipe(views={**VIEWS, "max_counts": 100, "max_genes": 30})
    host, device = both(corpus, 0, settings, 0)
    assert device.lengths.mean() == pytest.approx(host.lengths.mean(), abs=1.5)


def test_a_draw_depends_on_cell_and_step_alone(corpus):
    cells, settings = ResidentCorpus(corpus, CPU), recipe()
    unknown = np.full(192, np.nan, dtype=np.float32)
    chosen = Batch(np.full(192, 0), np.arange(192))
    options = {"first": 0, "is_packed": False}
    whole = cells.draw(chosen, unknown, settings, step=3, **options)
    again = cells.draw(chosen, unknown, settings, step=3, **options)
    assert torch.equal(whole.values, again.values)
    assert torch.equal(whole.is_masked, again.is_masked)
    other = cells.draw(chosen, unknown, settings, step=4, **options)
    assert not np.array_equal(whole.lengths, other.lengths)
    # the second process of two draws the same for its cells
    part = Batch(chosen.dataset[128:], chosen.row[128:])
    own = cells.draw(part, unknown[128:], settings, step=3, first=128, is_packed=False)
    rows = np.arange(128, 192)
    mine, theirs = own[np.arange(64)], whole[rows]
    for name, x in mine.items():
        assert torch.equal(x.nan_to_num(-1), theirs[name].nan_to_num(-1)), name


def test_empty_cells_are_left_out():
    x = sp.csr_array(np.r_[np.eye(3, 400), np.zeros((1, 400)), np.ones((2, 400))].astype(np.float32) * 5)
    names = GeneVocabulary.default().symbols[:400]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corpus = Corpus.build(ad.AnnData(x, var=pd.DataFrame(index=names)), min_overlap=0.01)
    views = {"keep_counts": (1, 1), "drop_genes": (0, 0)}
    chosen = Batch(np.zeros(6, int), np.arange(6))
    options = {"step": 0, "first": 0, "is_packed": False}
    batch = ResidentCorpus(corpus, CPU).draw(chosen, np.arange(6.0), recipe(views=views), **options)
    np.testing.assert_array_equal(batch.cells, [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(batch.is_cancer[:5], [0, 1, 2, 4, 5])
    assert batch[np.array([3, 8])]["gene_ids"].shape[1] >= 200
    assert len(batch.is_masked) == len(batch.values) == batch.lengths.sum()


def test_too_little_memory_falls_back_and_says_so(corpus, monkeypatch):
    monkeypatch.setattr(_resident, "available_bytes", lambda device: 1000)
    with pytest.warns(
        UserWarning, match=r"does not go into the memory of cpu: it takes .* GB there, and at most"
    ):
        batches = CorpusBatches(
            corpus, recipe(views_on="device"), World.current(), is_packed=False, device=CPU
        )
    assert batches.resident is None
    assert len(batches.prepare(0).batch) == 512


def test_on_a_cpu_views_are_drawn_by_the_host_unless_asked(corpus):
    assert resident(corpus, "auto", CPU) is resident(corpus, "host", CPU) is None
    assert resident(corpus, "device", CPU) is not None
    held = ResidentCorpus(corpus, CPU)
    n_bytes = held.counts.numel() * 4 + held.gene_ids.numel() * held.gene_ids.element_size()
    assert corpus_bytes(corpus) == pytest.approx(2 * n_bytes, rel=0.05)


def test_a_resumed_run_is_the_run_in_a_piece(corpus, tmp_path):
    options = {
        "config": "tiny",
        "views_on": "device",
        "objectives": ["contrastive", "masked_gene", "normal_cancer"],
        "batch_size": 64,
        "views": {"max_genes": 40},
        "checkpoint_every": 2,
        "show_progress": False,
    }
    whole = scellm.tl.pretrain(corpus, max_steps=4, checkpoint_dir=tmp_path / "whole", **options)
    folder = tmp_path / "whole"
    shutil.rmtree(folder / "step-00000004")
    again = scellm.tl.pretrain(corpus, max_steps=4, checkpoint_dir=folder, resume="must", **options)
    for (name, x), y in zip(
        whole.encoder.state_dict().items(), again.encoder.state_dict().values(), strict=True
    ):
        assert torch.equal(x, y), name
    host = scellm.tl.pretrain(corpus, max_steps=4, **{**options, "views_on": "host"})
    assert not torch.equal(host.encoder.gene_embedding.weight, again.encoder.gene_embedding.weight)


def test_going_on_with_other_draws_is_said(corpus, tmp_path, monkeypatch):
    options = {
        "config": "tiny",
        "views_on": "device",
        "objectives": ["contrastive"],
        "batch_size": 64,
        "views": {"max_genes": 40},
        "show_progress": False,
        "checkpoint_dir": tmp_path,
        "dropout": 0.1,
        "checkpoint_every": 1,
    }
    scellm.tl.pretrain(corpus, max_steps=2, **options)
    shutil.rmtree(tmp_path / "step-00000002")
    said = []
    monkeypatch.setattr(_resident, "available_bytes", lambda device: 1000)
    monkeypatch.setattr(_trainer, "warn", said.append)
    with pytest.warns(UserWarning, match="does not go into the memory of cpu"):
        scellm.tl.pretrain(corpus, max_steps=2, **options)
    assert any("drew its views on the device and goes on drawing them on the host" in line for line in said)
