"""The bag, its scales from the corpus, growth and averages."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import scellm
from scellm.data import log_normalize
from scellm.nn import CellLMConfig, Encoder, encode_bag
from scellm.train import (
    bag_values,
    deepen,
    gene_discriminants,
    gene_gain,
    gene_loadings,
    init_from_corpus,
)
from scellm.train._start import growth_problems


@pytest.fixture(scope="module")
def counts():
    return sp.csr_array(scellm.datasets.toy_cells(100, n_vars=500).X.astype(np.float32))


def new_encoder(**changes):
    torch.manual_seed(0)
    return Encoder(dataclasses.replace(CellLMConfig.named("tiny", n_genes=500), **changes))


def packed(counts):
    values = log_normalize(counts, 1e4)
    ids = torch.from_numpy(values.indices.astype(np.int64))
    return ids, torch.from_numpy(values.data), torch.from_numpy(values.indptr.astype(np.int64))


def test_the_bag_is_the_encoder_without_blocks(counts):
    encoder = new_encoder(depth=0).eval()
    ids, values, indptr = packed(counts[:9])
    with torch.no_grad():
        bag = encode_bag(encoder, ids, values, indptr)
        for i in range(9):
            own = slice(int(indptr[i]), int(indptr[i + 1]))
            n = own.stop - own.start
            cell = encoder(ids[None, own], values[None, own], torch.ones(1, n, dtype=torch.bool)).cells
            torch.testing.assert_close(bag[i : i + 1], cell, rtol=1e-4, atol=1e-5)


def test_a_grown_encoder_starts_as_the_bag(counts):
    bag = new_encoder(depth=0).eval()
    encoder = deepen(bag, new_encoder().config).eval()
    ids, values, _ = packed(counts[:1])
    whole = torch.ones(1, len(ids), dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(ids[None], values[None], whole).cells, bag(ids[None], values[None], whole).cells
        )


def test_blocks_that_are_there_stay():
    trained = new_encoder(depth=1)
    with torch.no_grad():
        for block in trained.blocks:
            block.feed_forward.contract.weight.normal_()
    same = deepen(trained, trained.config).state_dict()
    assert all(torch.equal(same[name], value) for name, value in trained.state_dict().items())
    deeper = deepen(trained, dataclasses.replace(trained.config, depth=2))
    assert torch.equal(
        deeper.blocks[0].feed_forward.contract.weight, trained.blocks[0].feed_forward.contract.weight
    )
    assert not deeper.blocks[1].feed_forward.contract.weight.any()


@pytest.mark.parametrize("field", ["depth", "cell_depth"])
def test_an_encoder_may_grow_and_not_shrink(field):
    small, large = (new_encoder(**{field: n}).config for n in (1, 2))
    assert growth_problems(small, large) == []
    assert growth_problems(large, small) == [f"{field} 2 -> 1"]


def test_the_mean_cell_starts_at_zero(counts):
    encoder = new_encoder(depth=0)
    init_from_corpus(encoder, {"toy": counts}, 1e4)
    with torch.no_grad():
        cells = encode_bag(encoder, *packed(counts), finished=False)
    assert cells.mean(0).norm() < 0.2 * cells.std(0).norm()


def test_gain_is_the_inverse_spread():
    rng = np.random.default_rng(0)
    counts = rng.poisson([1.0, 30.0, 0.0, 5.0], (500, 4)).astype(np.float32)
    gain = gene_gain({"one": sp.csr_array(counts)}, 1e4, limits=(0.001, 1000.0))
    values = np.log1p(counts * (1e4 / counts.sum(1, keepdims=True)))
    np.testing.assert_allclose(gain[[0, 1, 3]], 1 / (2 * values.std(0)[[0, 1, 3]]), rtol=1e-3)
    assert np.isfinite(gain[2])  # never seen: as the median gene
    assert gene_gain({"one": sp.csr_array(counts)}, 1e4, limits=(0.3, 3.0)).max() <= 3


def test_loadings_are_those_of_a_dense_decomposition(counts):
    """Within-dataset principal components, written out with everything dense."""
    corpus = {"one": counts[:60], "two": counts[60:, ::-1].copy()}
    corpus = {name: sp.csr_array(x) for name, x in corpus.items()}
    gain = np.linspace(0.5, 1.5, counts.shape[1]).astype(np.float32)
    found = gene_loadings(corpus, 3, 1e4, gain=gain, n_rounds=12)
    blocks = []
    for x in corpus.values():
        values = np.minimum(log_normalize(x, 1e4).toarray() * gain, 5) / np.diff(x.indptr)[:, None]
        blocks.append((values - values.mean(0)) / np.sqrt(len(values)))
    _, spread, axes = np.linalg.svd(np.concatenate(blocks), full_matrices=False)
    expected = (axes[:3] / np.sqrt(spread[:3])[:, None]).T
    cosines = (found * expected).sum(0) / np.linalg.norm(found, axis=0) / np.linalg.norm(expected, axis=0)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.linalg.norm(expected, axis=0), rtol=1e-4)


def test_an_encoder_that_starts_from_loadings_separates_types_untrained(counts):
    types = np.array(scellm.datasets.toy_cells(100, n_vars=500).obs["cell_type"])

    def score(genes):
        encoder = new_encoder(depth=0, cell_depth=0).eval()
        init_from_corpus(encoder, {"toy": counts}, 1e4, gene_init=genes)
        with torch.no_grad():
            return scellm.metrics.neighbor_score(encode_bag(encoder, *packed(counts)).numpy(), types).macro_f1

    assert score("pca") > max(0.95, score("random") + 0.02)


UNIT = CellLMConfig(
    n_genes=500, expression="continuous", amount="sqrt", cell_embedding="unit", depth=0, dim=16
)


def test_bag_values_are_what_the_bag_computes(counts):
    """Also for square roots of unit length, where neither depth nor the number of genes is left."""
    encoder = Encoder(UNIT)
    with torch.no_grad():
        cells = encode_bag(encoder, *packed(counts), finished=False)
        values = bag_values(counts, UNIT, 1e4, np.ones(500, np.float32))
        expected = values @ encoder.gene_embedding.weight[:500].numpy() + encoder.expression.bias.numpy()
    np.testing.assert_allclose(cells.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(np.sqrt((values**2).sum(1)), 1, atol=1e-5)


def test_discriminants_are_those_of_scikit_learn(counts):
    """One dataset, all components, next to no ridge: the plain Fisher discriminants."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    few = sp.csr_array(counts[:, :40])
    few = few[few.sum(1) > 0]
    few = few[: few.shape[0] // 3 * 3]
    types = (
        (np.arange(few.shape[0]) % 3).astype(str).astype(object)
    )  # of one size, so that weights do not matter
    config = CellLMConfig(n_genes=40, expression="continuous", amount="sqrt", cell_embedding="unit", depth=0)
    gain = np.ones(40, np.float32)
    found = gene_discriminants(
        {"one": few},
        {"one": types},
        2,
        1e4,
        gain=gain,
        config=config,
        ridge=1e-9,
        n_components=40,
        n_rounds=12,
    )
    values = bag_values(few, config, 1e4, gain).toarray()
    expected = values @ LinearDiscriminantAnalysis(solver="eigen").fit(values, types).scalings_[:, :2]
    mine = values @ found
    # the same plane: each of ours is a combination of theirs
    fitted = expected @ np.linalg.lstsq(expected - expected.mean(0), mine - mine.mean(0), rcond=None)[0]
    residual = (mine - mine.mean(0)) - (fitted - fitted.mean(0))
    assert np.linalg.norm(residual) < 1e-2 * np.linalg.norm(mine - mine.mean(0))


def test_control_loadings_are_not_the_discriminants(counts):
    types = np.array(scellm.datasets.toy_cells(100, n_vars=500).obs["cell_type"]).astype(object)
    options = {"gain": np.ones(500, np.float32), "config": UNIT}
    loadings = gene_loadings({"toy": counts}, 2, 1e4, **options)
    directions = gene_discriminants({"toy": counts}, {"toy": types}, 2, 1e4, **options)
    values = bag_values(counts, UNIT, 1e4, options["gain"])

    def separation(axes):
        scores = values @ axes
        means = np.array([scores[types == kind].mean(0) for kind in np.unique(types)])
        within = np.concatenate(
            [scores[types == kind] - scores[types == kind].mean(0) for kind in np.unique(types)]
        )
        return means.std(0).sum() / within.std(0).mean()

    assert separation(directions) > separation(loadings)


def test_discriminants_need_types(counts):
    options = {"gain": np.ones(500, np.float32), "config": UNIT}
    nothing = np.full(counts.shape[0], "", dtype=object)
    with pytest.raises(ValueError, match="No dataset has two labeled cell types"):
        gene_discriminants({"toy": counts}, {"toy": nothing}, 4, 1e4, **options)
    with pytest.raises(ValueError, match="needs labels"):
        init_from_corpus(Encoder(UNIT), {"toy": counts}, 1e4, gene_init="lda")


def test_a_start_from_discriminants_has_a_constant_coordinate(counts):
    types = np.array(scellm.datasets.toy_cells(100, n_vars=500).obs["cell_type"]).astype(object)
    encoder = Encoder(UNIT)
    init_from_corpus(encoder, {"toy": counts}, 1e4, gene_init="lda", labels={"toy": types})
    with torch.no_grad():
        cells = encode_bag(encoder, *packed(counts), finished=False).numpy()
    assert cells[:, -1].std() < 1e-6
    np.testing.assert_allclose(
        cells[0, -1], 1.5 * np.median(np.linalg.norm(cells[:, :-1], axis=1)), rtol=0.05
    )


def test_a_corpus_of_few_cells_has_few_components(counts):
    loadings = gene_loadings({"few": counts[:5]}, 16, 1e4, gain=np.ones(500, np.float32))
    assert loadings.shape == (500, 16)
    assert np.isfinite(loadings).all()
