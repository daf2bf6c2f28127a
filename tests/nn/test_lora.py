"""Low-rank changes add nothing at first, are all that is trained, and merge into plain weights."""

import copy

import pytest
import torch

from scellm.nn import CellLMConfig, Encoder
from scellm.nn._lora import LowRank, add_lora, merge_lora


@pytest.fixture(params=["bag", "transformer"])
def encoder(request):
    options = {"depth": 0} if request.param == "bag" else {}
    config = CellLMConfig.from_dict(CellLMConfig.named("tiny", n_genes=30).to_dict() | options)
    torch.manual_seed(0)
    return Encoder(config).eval()


CELLS = (torch.arange(12).reshape(2, 6), torch.rand(2, 6) + 0.1, torch.ones(2, 6, dtype=torch.bool))


def train(encoder, parameters, n_steps=3):
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(n_steps):
        optimizer.zero_grad()
        encoder(*CELLS).cells[:, 0].sum().backward()
        optimizer.step()


def test_nothing_is_added_before_training(encoder):
    before = encoder(*CELLS).cells
    add_lora(encoder, rank=2)
    assert torch.equal(encoder(*CELLS).cells, before)


def test_only_the_changes_are_trained_and_merging_keeps_the_result(encoder):
    start = copy.deepcopy(encoder).state_dict()
    parameters = add_lora(encoder, rank=2)
    assert {id(x) for x in encoder.parameters() if x.requires_grad} == {id(x) for x in parameters}
    train(encoder, parameters)
    trained = encoder(*CELLS).cells.detach()
    merge_lora(encoder)
    assert set(encoder.state_dict()) == set(start)
    torch.testing.assert_close(encoder(*CELLS).cells, trained)
    changed = {name for name, x in encoder.state_dict().items() if not torch.equal(x, start[name])}
    assert "gene_embedding.weight" in changed
    assert not any("norm" in name or name.endswith("bias") for name in changed)
    difference = encoder.state_dict()["gene_embedding.weight"] - start["gene_embedding.weight"]
    assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 2
    assert all(x.requires_grad for x in encoder.parameters())


def test_layers_smaller_than_the_rank_are_left_alone():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 40))
    assert add_lora(layer, rank=4) == []
    assert not layer[0].weight.requires_grad


def test_scale():
    change = LowRank((5, 4), rank=2, alpha=6.0)
    with torch.no_grad():
        change.left.fill_(1)
    torch.testing.assert_close(change(torch.zeros(5, 4)), 3 * torch.ones(5, 2) @ change.right)
