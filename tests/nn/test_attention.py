"""FAVOR+ against plain forms of the same mathematics."""

import pytest
import torch

from scellm.nn._attention import (
    EPS,
    Positions,
    favor_attention,
    key_features,
    orthogonal_projection,
    plain_favor_attention,
    query_features,
)


@pytest.fixture
def qkv():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 11, 8, generator=generator, dtype=torch.float64) for _ in range(3)]


def all_present(n_cells, n_positions):
    return Positions(torch.ones(n_cells, n_positions, dtype=torch.bool), torch.ones(n_cells, n_positions))


def test_projection_blocks_are_orthogonal():
    projection = orthogonal_projection(20, 8, torch.Generator().manual_seed(0))
    assert projection.shape == (20, 8)
    first = projection[:8] / projection[:8].norm(dim=1, keepdim=True)
    torch.testing.assert_close(first @ first.T, torch.eye(8), atol=1e-5, rtol=0)


def test_favor_approaches_softmax_attention_as_features_grow(qkv):
    q, k, v = qkv
    q, k = q / 2, k / 2  # long vectors need far more features
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    errors = []
    for n_features in (16, 256, 4096):
        per_seed = []
        for seed in range(5):
            projection = orthogonal_projection(n_features, 8, torch.Generator().manual_seed(seed)).double()
            approximate = favor_attention(q, k, v, projection, all_present(2, 11))
            per_seed.append((approximate - exact).norm() / exact.norm())
        errors.append(float(torch.stack(per_seed).mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2]
    assert errors[2] < 0.1  # not zero: EPS is added to every feature


def test_features_are_the_formula_written_out(qkv):
    q, k, _ = qkv
    projection = orthogonal_projection(12, 8, torch.Generator().manual_seed(1)).double()
    present = torch.ones(2, 11, dtype=torch.bool)
    phi_q, phi_k = query_features(q, projection), key_features(k, projection, present)
    scale = 8**-0.25
    for cell in range(2):
        key_exponents = torch.stack(
            [torch.stack([projection @ (x * scale) for x in head]) for head in k[cell]]
        )  # (H, G, M)
        for head in range(3):
            for position in range(11):
                x = q[cell, head, position] * scale
                exponent = projection @ x
                plain = 12**-0.5 * ((exponent - x.dot(x) / 2 - exponent.max()).exp() + EPS)
                torch.testing.assert_close(phi_q[cell, head, position], plain)
                y = k[cell, head, position] * scale
                plain = 12**-0.5 * ((projection @ y - y.dot(y) / 2 - key_exponents.max()).exp() + EPS)
                torch.testing.assert_close(phi_k[cell, head, position], plain)


def test_one_position_with_multiplicity_equals_many_copies(qkv):
    q, k, v = qkv
    projection = orthogonal_projection(12, 8, torch.Generator().manual_seed(1)).double()
    is_token = torch.ones(2, 11, dtype=torch.bool)
    is_token[:, -1] = False  # the last position is padding
    multiplicity = is_token.double()
    multiplicity[:, -1] = 7
    short = favor_attention(q, k, v, projection, Positions(is_token, multiplicity))

    def copied(x):
        return torch.cat([x, x[:, :, -1:].expand(-1, -1, 6, -1)], dim=2)

    long = Positions(torch.nn.functional.pad(is_token, (0, 6)), torch.ones(2, 17, dtype=torch.float64))
    padded = favor_attention(copied(q), copied(k), copied(v), projection, long)
    torch.testing.assert_close(short, padded[:, :, :11], rtol=1e-12, atol=1e-12)
    without = favor_attention(q, k, v, projection, Positions(is_token, is_token.double()))
    assert (without - short).abs().max() > 1e-3  # control: padding does change the result


def test_filler_changes_nothing_however_large(qkv):
    q, k, v = qkv
    projection = orthogonal_projection(12, 8, torch.Generator().manual_seed(1)).double()
    plain = favor_attention(q, k, v, projection, all_present(2, 11))
    filler = torch.full((2, 3, 4, 8), 50.0, dtype=torch.float64)
    q, k, v = (torch.cat([x, filler], dim=2) for x in (q, k, v))
    present = torch.arange(15).expand(2, -1) < 11
    filled = favor_attention(q, k, v, projection, Positions(present, present.double()))
    torch.testing.assert_close(plain, filled[:, :, :11], rtol=1e-12, atol=1e-12)


def with_filler():
    is_token = torch.ones(2, 11, dtype=torch.bool)
    is_token[1, 7:] = False
    multiplicity = is_token.double()
    multiplicity[0, 3] = 5.0
    return Positions(is_token, multiplicity)


def test_gradients_with_features_computed_again(qkv):
    projection = orthogonal_projection(12, 8, torch.Generator().manual_seed(1)).double()
    qkv = [x.requires_grad_() for x in qkv]
    weight = torch.randn(2, 3, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad((favor_attention(*qkv, projection, with_filler()) * weight).sum(), qkv)
    plain = torch.autograd.grad((plain_favor_attention(*qkv, projection, *with_filler()) * weight).sum(), qkv)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one, other)


def test_gradients_are_those_of_differences():
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)
    ]
    projection = orthogonal_projection(5, 4, torch.Generator().manual_seed(1)).double()
    positions = Positions(torch.tensor([[True, True, False]]), torch.tensor([[1.0, 1.0, 3.0]]).double())
    assert torch.autograd.gradcheck(lambda *x: favor_attention(*x, projection, positions), qkv)


def test_autocast_is_the_same_the_second_time(qkv):
    projection = orthogonal_projection(12, 8, torch.Generator().manual_seed(1))
    qkv = [x.float().requires_grad_() for x in qkv]
    with torch.autocast("cpu", torch.bfloat16):
        found = favor_attention(*qkv, projection, all_present(2, 11))
        plain = plain_favor_attention(*qkv, projection, *all_present(2, 11))
    assert torch.equal(found, plain)
    found, plain = (torch.autograd.grad(x.float().square().sum(), qkv) for x in (found, plain))
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_features_are_not_kept_for_the_backward_pass(qkv):
    projection = orthogonal_projection(33, 8, torch.Generator().manual_seed(1)).double()
    qkv = [x.requires_grad_() for x in qkv]

    def kept_bytes(attention):
        seen = {}

        def pack(x):
            seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            attention()
        return sum(seen.values())

    plain = kept_bytes(lambda: plain_favor_attention(*qkv, projection, *with_filler()))
    assert kept_bytes(lambda: favor_attention(*qkv, projection, with_filler())) < plain / 4
