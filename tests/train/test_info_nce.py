"""Loss and gradients over stripes are those of the formula with all similarities at once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scellm.train import info_nce, supervised_contrastive

N, D = 11, 6
GROUP = torch.tensor([0, 0, 1, 1, 1, 0, 2, 0, 1, 1, 0])  # cell 6 is alone in its group
TYPE = torch.tensor([0, 0, -1, -1, 2, 2, 0, 1, 1, 3, 0])


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(N, D, generator=generator, dtype=torch.float64)
    second = first + 0.7 * torch.randn(N, D, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


def allowed(group, exclude):
    """(N, N) who may be a negative of whom, self not counted."""
    may = torch.ones(N, N, dtype=torch.bool)
    if group is not None:
        may &= group[:, None] == group
    if exclude is not None:
        may &= (exclude[:, None] != exclude) | (exclude == -1)[:, None]
    return may


def plain_info_nce(first, second, t, group=None, exclude=None, *, symmetric=True):
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    similarity = first @ second.T / t
    similarity = similarity.masked_fill(
        ~(allowed(group, exclude) | torch.eye(N, dtype=torch.bool)), -torch.inf
    )
    same = torch.arange(N)
    if not symmetric:
        return F.cross_entropy(similarity, same)
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


def plain_nt_xent(first, second, t, group=None, exclude=None, labels=None):
    """Written out, view by view."""
    both = F.normalize(torch.cat([first, second]), dim=1)
    may = allowed(group, exclude)
    terms = []
    for i in range(2 * N):
        positives = [(i + N) % (2 * N)]
        if labels is not None and labels[i % N] != -1:
            positives += [
                j
                for j in range(2 * N)
                if j % N != i % N and labels[j % N] == labels[i % N] and may[i % N, j % N]
            ]
        others = [
            j
            for j in range(2 * N)
            if j != i and (j in positives or may[i % N, j % N]) and (j % N != i % N or j in positives)
        ]
        total = torch.logsumexp(torch.stack([both[i] @ both[j] / t for j in others]), 0)
        terms.append(torch.stack([total - both[i] @ both[p] / t for p in positives]).mean())
    return torch.stack(terms).mean()


LOSSES = {
    "info_nce": (info_nce, plain_info_nce, {}),
    "info_nce, one direction": (info_nce, plain_info_nce, {"symmetric": False}),
    "info_nce, within groups": (info_nce, plain_info_nce, {"group": GROUP}),
    "info_nce, types excluded": (info_nce, plain_info_nce, {"exclude": TYPE}),
    "info_nce, both": (info_nce, plain_info_nce, {"group": GROUP, "exclude": TYPE}),
    "supervised": (supervised_contrastive, plain_nt_xent, {"labels": TYPE}),
    "supervised, within groups": (supervised_contrastive, plain_nt_xent, {"labels": TYPE, "group": GROUP}),
    "supervised, no labels": (supervised_contrastive, plain_nt_xent, {"labels": torch.full((N,), -1)}),
}


@pytest.mark.parametrize("n_rows", [1, 4, 1000], ids="stripe{}".format)
@pytest.mark.parametrize(("loss", "plain", "options"), LOSSES.values(), ids=LOSSES.keys())
def test_value_and_gradients_are_those_of_the_formula(views, loss, plain, options, n_rows):
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    n_keys = N if loss is info_nce else 2 * N
    found = loss(*views, temperature=temperature, stripe_bytes=n_rows * n_keys * 8, **options)
    expected = plain(*views, temperature, **options)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    wanted = (*views, temperature)
    for one, other in zip(
        torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_without_gradients_the_value_is_the_same(views):
    for loss, _, options in LOSSES.values():
        with torch.no_grad():
            value = loss(*views, temperature=0.3, **options)
        torch.testing.assert_close(value, loss(*views, temperature=0.3, **options).detach())


def test_the_gradient_is_scaled_by_what_comes_after(views):
    once = torch.autograd.grad(info_nce(*views), views)
    thrice = torch.autograd.grad(3 * info_nce(*views), views)
    torch.testing.assert_close(thrice[0], 3 * once[0])


def nearly_equal_views(n, dtype):
    """As two dropout masks make them: the loss is near 0 and its gradient all but cancels."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(n, 64, generator=generator, dtype=torch.float64)
    second = first + 0.05 * torch.randn(n, 64, generator=generator, dtype=torch.float64)
    return [x.float().to(dtype).requires_grad_() for x in (first, second)]


def test_single_precision_where_the_loss_is_near_zero():
    def graded(loss, dtype):
        views = nearly_equal_views(256, dtype)
        value = loss(*views)
        gradient = torch.cat(torch.autograd.grad(value, views)).double()
        # what lies along the representations is removed by the normalization
        return value.item(), gradient

    def ours(first, second):
        return info_nce(first, second, temperature=0.06)

    def usual(first, second):
        similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / 0.06
        same = torch.arange(len(first))
        return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2

    value, exact = graded(usual, torch.float64)
    assert 1e-5 < value < 1e-3
    assert graded(ours, torch.float64)[0] == pytest.approx(value, rel=1e-9)
    single, found = graded(ours, torch.float32)
    assert single == pytest.approx(value, rel=1e-5)
    assert (found - exact).norm() / exact.norm() < 1e-5
    _, control = graded(usual, torch.float32)
    assert (control - exact).norm() / exact.norm() > 1e-4


def test_similarities_are_never_all_there_at_once():
    """No tensor of the sweep, forward or backward, has more than the bytes of a stripe."""
    from torch.utils._python_dispatch import TorchDispatchMode

    n, stripe = 512, 16 * 512 * 4

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for x in result if isinstance(result, tuple | list) else [result]:
                if isinstance(x, torch.Tensor):
                    self.bytes = max(self.bytes, x.numel() * x.element_size())
            return result

    views = nearly_equal_views(n, torch.float32)
    keys = 2 * n * 64 * 4  # both views of all cells
    with Largest() as largest:
        info_nce(*views, stripe_bytes=stripe, group=torch.arange(n) % 3).backward()
    assert largest.bytes <= keys < n * n * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": torch.randn(1, 3), "second": torch.randn(1, 3)}, "1 cell has no negatives"),
        ({"second": torch.randn(4, 3)}, r"found \(5, 3\) and \(4, 3\)"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive"),
        ({"temperature": torch.tensor(-1.0)}, "temperature is -1.0"),
        ({"group": torch.arange(4)}, r"group has shape \(4,\) for 5 cells"),
    ],
    ids=["one cell", "shapes", "zero temperature", "negative temperature", "group"],
)
def test_refused(change, message):
    arguments = {"first": torch.randn(5, 3), "second": torch.randn(5, 3)} | change
    with pytest.raises(ValueError, match=message):
        info_nce(arguments.pop("first"), arguments.pop("second"), **arguments)


def test_a_cell_alone_in_its_group_costs_nothing():
    first, second = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = info_nce(first, second, group=torch.tensor([0, 0, 1]))
    gradient = torch.autograd.grad(loss, first)[0]
    assert np.isfinite(loss.item())
    assert gradient[2].abs().max() == 0 < gradient[0].abs().max()
