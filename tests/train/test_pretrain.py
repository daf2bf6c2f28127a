import copy
import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import scellm
from scellm.metrics import neighbor_score
from scellm.models import CellLM
from scellm.nn import CellLMConfig, Encoder
from scellm.train import (
    PretrainConfig,
    ViewConfig,
    average,
    encode_bag,
    gene_gain,
    grow,
    pretrain,
    start_from_corpus,
)
from scellm.train import small as small_script

RECIPE = PretrainConfig(
    batch_size=24, n_steps=8, learning_rate=1e-2, precision="fp32", views=ViewConfig(max_genes=60)
)


@pytest.fixture(scope="module")
def toy():
    adata = scellm.datasets.toy_cells(100, n_vars=500)
    adata.var_names = adata.var_names.astype(str)
    return adata


@pytest.fixture(scope="module")
def corpus(toy):
    return {"toy": sp.csr_array(toy.X.astype(np.float32))}


def new_encoder(**changes):
    torch.manual_seed(0)
    return Encoder(dataclasses.replace(CellLMConfig.named("tiny", n_genes=500), **changes))


def packed(counts):
    from scellm.data import log_normalize

    values = log_normalize(counts, 1e4)
    ids = torch.from_numpy(values.indices.astype(np.int64))
    return ids, torch.from_numpy(values.data), torch.from_numpy(values.indptr.astype(np.int64))


def test_the_bag_is_the_encoder_without_blocks(corpus):
    encoder = new_encoder(depth=0).eval()
    counts = corpus["toy"][:9]
    ids, values, indptr = packed(counts)
    with torch.no_grad():
        bag = encode_bag(encoder, ids, values, indptr)
        for i in range(9):
            own = slice(int(indptr[i]), int(indptr[i + 1]))
            n = own.stop - own.start
            cell = encoder(ids[None, own], values[None, own], torch.ones(1, n, dtype=torch.bool)).cells
            torch.testing.assert_close(bag[i : i + 1], cell, rtol=1e-4, atol=1e-5)


def test_a_grown_encoder_starts_as_the_bag_and_then_learns(corpus):
    bag = new_encoder(depth=0).eval()
    encoder = grow(bag, new_encoder().config).eval()
    ids, values, _ = packed(corpus["toy"][:1])
    whole = torch.ones(1, len(ids), dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(ids[None], values[None], whole).cells, bag(ids[None], values[None], whole).cells
        )
    pretrain(encoder, corpus, RECIPE, rng=np.random.default_rng(0), show_progress=False)
    assert encoder.blocks[1].attention.to_out.weight.abs().max() > 0


def macro_f1(encoder, toy, counts):
    with torch.no_grad():
        ids, values, indptr = packed(counts)
        cells = [
            encoder(ids[None, a:b], values[None, a:b], torch.ones(1, b - a, dtype=torch.bool)).cells[0]
            for a, b in pairwise(indptr.tolist())
        ]
    return neighbor_score(torch.stack(cells).numpy(), toy.obs["cell_type"]).macro_f1


def test_both_stages_learn_and_types_separate(toy, corpus):
    """The recipe of the shipped weights in small: the bag, then the blocks."""
    bag = new_encoder(depth=0)
    start_from_corpus(bag, corpus, 1e4)
    untrained = macro_f1(bag.eval(), toy, corpus["toy"])
    logged = []
    recipe = dataclasses.replace(RECIPE, bag=True, n_steps=61)
    pretrain(bag, corpus, recipe, rng=np.random.default_rng(0), show_progress=False, log=logged.append)
    assert [row["step"] for row in logged] == [0, 20, 40, 60]
    assert logged[-1]["contrastive"] < logged[0]["contrastive"] - 0.15
    assert "masked_gene" not in logged[0]
    trained = macro_f1(bag, toy, corpus["toy"])
    assert trained > max(0.9, untrained + 0.1)

    encoder = grow(bag, new_encoder().config)
    logged.clear()
    recipe = dataclasses.replace(RECIPE, n_steps=41, learning_rate=2e-3)
    pretrain(encoder, corpus, recipe, rng=np.random.default_rng(0), show_progress=False, log=logged.append)
    assert logged[-1]["masked_gene"] < 0.8 * logged[0]["masked_gene"]
    assert macro_f1(encoder, toy, corpus["toy"]) > 0.9


def test_the_bag_can_be_kept_while_the_blocks_learn(corpus):
    bag = new_encoder(depth=0)
    encoder = grow(bag, new_encoder().config)
    recipe = dataclasses.replace(RECIPE, n_steps=3, keep_bag=True)
    pretrain(encoder, corpus, recipe, rng=np.random.default_rng(0), show_progress=False)
    learnt = {
        name
        for name, new in encoder.state_dict().items()
        if not torch.equal(new, grow(bag, encoder.config).state_dict()[name])
    }
    kept = {"gene_embedding.weight", "expression.log_gain", "expression.bias", "norm.weight", "norm.bias"}
    assert not kept & learnt
    assert {
        "blocks.0.attention.to_out.weight",
        "blocks.1.feed_forward.contract.weight",
        "masked_gene.weight",
    } <= learnt
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_the_average_lies_between(corpus):
    start = grow(new_encoder(depth=0), new_encoder().config)
    trained = copy.deepcopy(start)
    pretrain(
        trained,
        corpus,
        dataclasses.replace(RECIPE, n_steps=2),
        rng=np.random.default_rng(0),
        show_progress=False,
    )
    middle = average(start, trained, 0.5).state_dict()
    for name, first in start.state_dict().items():
        second = trained.state_dict()[name]
        is_head = name.startswith(("masked_gene", "expression.mask_embedding"))
        torch.testing.assert_close(middle[name], second if is_head else (first + second) / 2)


def test_same_seed_same_weights(corpus):
    trained = []
    for seed in (0, 0, 1):
        encoder = new_encoder()
        pretrain(
            encoder,
            corpus,
            dataclasses.replace(RECIPE, n_steps=3),
            rng=np.random.default_rng(seed),
            show_progress=False,
        )
        trained.append(encoder.gene_embedding.weight.detach())
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_the_mean_cell_starts_at_zero(corpus):
    encoder = new_encoder(depth=0)
    start_from_corpus(encoder, corpus, 1e4)
    with torch.no_grad():
        mean = encode_bag(encoder, *packed(corpus["toy"]), finished=False).mean(0)
        spread = encode_bag(encoder, *packed(corpus["toy"]), finished=False).std(0).norm()
    assert mean.norm() < 0.2 * spread


def test_gain_is_the_inverse_spread():
    rng = np.random.default_rng(0)
    counts = rng.poisson([1.0, 30.0, 0.0, 5.0], (500, 4)).astype(np.float32)
    gain = gene_gain({"one": sp.csr_array(counts)}, 1e4, limits=(0.001, 1000.0))
    values = np.log1p(counts * (1e4 / counts.sum(1, keepdims=True)))
    np.testing.assert_allclose(gain[[0, 1, 3]], 1 / (2 * values.std(0)[[0, 1, 3]]), rtol=1e-3)
    assert np.isfinite(gain[2])  # never seen: as the median gene
    assert gene_gain({"one": sp.csr_array(counts)}, 1e4, limits=(0.3, 3.0)).max() <= 3


def test_the_script_of_the_shipped_weights_makes_a_model(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    for i in range(2):
        scellm.datasets.toy_cells(40, n_vars=400, rng=i).write_h5ad(tmp_path / "corpus" / f"toy{i}.h5ad")
    arguments = ["--corpus", str(tmp_path / "corpus"), "--out", str(tmp_path / "run"), "--config", "tiny"]
    small_script.main([*arguments, "--bag-steps", "3", "--blocks-steps", "2"])
    model = scellm.models.load(tmp_path / "run" / "scellm-tiny")
    assert isinstance(model, CellLM)
    assert model.provenance["n_cells"] == 80
    assert set(model.provenance["datasets"]) == {"toy0", "toy1"}
    assert (tmp_path / "run" / "bag.csv").read_text().startswith("step,")
    assert {name: stage["n_steps"] for name, stage in model.provenance["stages"].items()} == {
        "bag": 3,
        "blocks": 2,
    }
    small_script.main([*arguments, "--blocks-steps", "1"])
    assert "First stage taken from" in capsys.readouterr().out
