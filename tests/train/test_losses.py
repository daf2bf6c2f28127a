import numpy as np
import pytest
import torch

from scellm.train import masked_gene_loss


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
