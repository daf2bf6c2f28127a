import numpy as np
import pytest
import torch

from scellm.train import info_nce, masked_gene_loss


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_info_nce_is_the_formula_written_out(views):
    a, b = ([x / np.linalg.norm(x) for x in view.numpy()] for view in views)

    def one_way(a, b):
        terms = []
        for i in range(6):
            scores = [np.exp(a[i] @ b[j] / 0.3) for j in range(6)]
            terms.append(-np.log(scores[i] / sum(scores)))
        return np.mean(terms)

    expected = (one_way(a, b) + one_way(b, a)) / 2
    assert float(info_nce(*views, temperature=0.3)) == pytest.approx(expected, rel=1e-12)


def test_info_nce_ignores_length_and_prefers_equal_views(views):
    first, second = views
    loss = info_nce(first, second, temperature=0.1)
    torch.testing.assert_close(info_nce(first * 7, second / 3, temperature=0.1), loss)
    assert info_nce(first, first, temperature=0.1) < loss
    assert info_nce(first, first.roll(1, 0), temperature=0.1) > loss


def test_masked_gene_loss_looks_at_masked_positions_only():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 8, generator=generator)
    values = torch.tensor([[0.2, 1.7, 9.0, 3.0], [2.0, 0.99, 4.5, 5.0]])
    is_masked = torch.tensor([[True, False, True, False], [False, True, False, False]])
    loss = masked_gene_loss(logits, values, is_masked)
    bins = {(0, 0): 0, (0, 2): 5, (1, 1): 0}  # the integer part, at most 5
    expected = -np.mean([float(logits[at].log_softmax(0)[bin_]) for at, bin_ in bins.items()])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    changed = logits.clone()
    changed[~is_masked] += torch.randn(5, 8, generator=generator)
    torch.testing.assert_close(masked_gene_loss(changed, values, is_masked), loss)
