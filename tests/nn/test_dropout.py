"""A mask belongs to a cell, a layer and a use, and to nothing else."""

import pytest
import torch

from scellm.nn._dropout import CellDropout, keep_mask

KEYS = torch.randint(-(2**62), 2**62, (40,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(rate):
    kept = keep_mask(KEYS, 10_001, salt=3, rate=rate)
    assert kept.shape == (40, 10_001)
    assert kept.double().mean() == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / 400_000) ** 0.5)
    assert kept.double().mean(1).std() == pytest.approx((rate * (1 - rate) / 10_001) ** 0.5, rel=0.4)


def test_masks_of_cells_layers_and_places_are_unrelated():
    kept = keep_mask(KEYS, 10_000, salt=0, rate=0.5).double() - 0.5
    other = keep_mask(KEYS, 10_000, salt=1, rate=0.5).double() - 0.5
    neighbours = keep_mask(KEYS + 1, 10_000, salt=0, rate=0.5).double() - 0.5

    def correlation(a, b):
        return (a * b).mean(1).abs().max() * 4

    for a, b in [(kept, other), (kept, neighbours), (kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])]:
        assert correlation(a, b) < 0.05  # 5 standard errors
    assert correlation(kept, kept) > 0.99  # control


def test_company_order_and_length_do_not_matter():
    whole = keep_mask(KEYS, 96, salt=0, rate=0.3)
    assert torch.equal(keep_mask(KEYS[7:9].flip(0), 41, salt=0, rate=0.3), whole[[8, 7], :41])


def test_values_and_gradients():
    layer = CellDropout(0.25, salt=2).train()
    x = torch.ones(40, 6, 5, dtype=torch.float64, requires_grad=True)
    out = layer(x, KEYS)
    assert out.detach().unique().tolist() == pytest.approx([0, 4 / 3])
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
    assert torch.equal(layer(x, KEYS), out)
    assert not torch.equal(CellDropout(0.25, salt=3).train()(x, KEYS), out)
    assert layer.eval()(x, KEYS) is x


def test_without_keys_it_is_torchs():
    x = torch.ones(3, 50)
    torch.manual_seed(0)
    expected = torch.nn.functional.dropout(x, 0.4)
    torch.manual_seed(0)
    assert torch.equal(CellDropout(0.4).train()(x), expected)
