"""Tokens through an encoder: a bag is computed packed and gives the same."""

import numpy as np
import torch

from scellm.data import Tokens
from scellm.models._encode import BatchSize, encode


def tokens():
    rng = np.random.default_rng(0)
    lengths = np.array([3, 0, 8, 1, 5])
    gene_ids = np.concatenate([np.sort(rng.permutation(12)[:n]) for n in lengths]).astype(np.int32)
    values = rng.gamma(2.0, size=len(gene_ids)).astype(np.float32)
    return Tokens(gene_ids, values, np.concatenate([[0], np.cumsum(lengths)]))


def test_a_bag_is_computed_packed_and_equals_its_encoder(make_model):
    model = make_model(depth=0)
    cells = tokens()
    found = encode(model, cells, device=torch.device("cpu"))
    one_by_one = encode(model, cells, device=torch.device("cpu"), batches=BatchSize(1))
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5, atol=1e-6)
    gene_ids, values, is_gene = (torch.from_numpy(x) for x in cells.padded(np.arange(5)))
    with torch.inference_mode():
        expected = model.encoder(gene_ids, values, is_gene).cells.numpy()
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2, 3, 4]], expected[[0, 2, 3, 4]], rtol=1e-4, atol=1e-5)


def test_control_a_deeper_encoder_is_not_taken_for_a_bag(make_model):
    model = make_model()
    assert not model.config.is_bag
    assert np.isfinite(encode(model, tokens(), device=torch.device("cpu"))[0]).all()
