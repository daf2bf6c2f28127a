"""A cell's embedding depends on that cell alone."""

import dataclasses

import pytest
import torch

from scellm.nn import CellLMConfig, Encoder, _attention

N_GENES = 50
TINY = CellLMConfig.named("tiny", n_genes=N_GENES)
CONFIGS = {
    "softmax-continuous-mean": TINY,
    "favor-continuous-mean": dataclasses.replace(TINY, attention="favor"),
    "favor-bins-cls": dataclasses.replace(TINY, attention="favor", expression="bins", cell_embedding="cls"),
    "favor-bins-cls-padded": dataclasses.replace(
        TINY, attention="favor", expression="bins", cell_embedding="cls", padded_context=64
    ),
    "bag": dataclasses.replace(TINY, depth=0),
    "softmax-sqrt-unit": dataclasses.replace(TINY, amount="sqrt", cell_embedding="unit"),
    "softmax-sqrt-bag": dataclasses.replace(TINY, amount="sqrt", cell_embedding="bag"),
    "bag-sqrt-unit": dataclasses.replace(TINY, depth=0, amount="sqrt", cell_embedding="unit"),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def encoder(request):
    torch.manual_seed(0)
    return Encoder(request.param).eval()


@pytest.fixture
def cells():
    """Six cells of 3 to 28 genes, filled up to 28 positions."""
    generator = torch.Generator().manual_seed(1)
    is_gene = torch.arange(28) < torch.tensor([3, 28, 11, 7, 19, 5])[:, None]
    gene_ids = torch.stack(
        [torch.randperm(N_GENES, generator=generator)[:28].sort().values for _ in range(6)]
    )
    values = torch.rand(6, 28, generator=generator) * 6
    return gene_ids, values, is_gene


def encode(encoder, cells):
    with torch.no_grad():
        return encoder(*cells).cells


def test_shapes(encoder, cells):
    with torch.no_grad():
        encoding = encoder(*cells)
    assert encoding.cells.shape == (6, 16)
    assert encoding.genes.shape == (6, 28, 16)
    assert (encoding.genes[~cells[2]] == 0).all()
    assert encoding.cells.isfinite().all()
    assert encoding.cells.std(0).min() > 0


def test_same_row_alone_in_any_order_and_with_more_filler(encoder, cells):
    together = encode(encoder, cells)
    for i in range(6):
        n = int(cells[2][i].sum())
        alone = encode(encoder, [x[i : i + 1, :n] for x in cells])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-6)
    order = torch.tensor([5, 2, 0, 4, 1, 3])
    torch.testing.assert_close(
        encode(encoder, [x[order] for x in cells]), together[order], rtol=1e-5, atol=1e-6
    )
    filled = [
        torch.nn.functional.pad(x, (0, 9), value=value)
        for x, value in zip(cells, (7, 99.0, False), strict=True)
    ]
    torch.testing.assert_close(encode(encoder, filled), together, rtol=1e-5, atol=1e-6)


def test_order_of_genes_does_not_matter(encoder, cells):
    order = torch.randperm(28, generator=torch.Generator().manual_seed(2))
    shuffled = encode(encoder, [x[:, order] for x in cells])
    torch.testing.assert_close(shuffled, encode(encoder, cells), rtol=1e-5, atol=1e-6)


def test_control_a_leaking_encoder_is_found(cells, monkeypatch):
    """With the stabiliser of the published batches, a maximum over all cells, the test above fails."""

    def over_the_batch(k, projection, present):
        projected, half_norm = _attention._exponents(k, projection)
        exponent = projected - half_norm - projected.amax()
        return projection.shape[0] ** -0.5 * (exponent.exp() + _attention.EPS)

    monkeypatch.setattr(_attention, "key_features", over_the_batch)
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        test_same_row_alone_in_any_order_and_with_more_filler(
            Encoder(CONFIGS["favor-bins-cls"]).eval(), cells
        )


def test_expression_and_genes_matter(encoder, cells):
    gene_ids, values, is_gene = cells
    before = encode(encoder, cells)
    assert (encode(encoder, (gene_ids, values.flip(1), is_gene)) - before).abs().amax(1).min() > 1e-5
    assert (encode(encoder, ((gene_ids + 1) % N_GENES, values, is_gene)) - before).abs().amax(1).min() > 1e-5


def test_masked_values_are_hidden(encoder, cells):
    gene_ids, values, is_gene = cells
    is_masked = torch.zeros_like(is_gene)
    is_masked[:, 1] = True
    other = values.clone()
    other[:, 1] = 4.5 - other[:, 1] * 0.5
    with torch.no_grad():
        hidden = encoder(gene_ids, values, is_gene, is_masked=is_masked).cells
        same = encoder(gene_ids, other, is_gene, is_masked=is_masked).cells
        seen = encoder(gene_ids, other, is_gene).cells
    torch.testing.assert_close(hidden, same)
    assert (seen - hidden).abs().max() > 1e-5


def test_projections_change_only_when_asked(cells):
    torch.manual_seed(0)
    encoder = Encoder(CONFIGS["favor-bins-cls"]).train()
    before = encode(encoder, cells)
    torch.testing.assert_close(encode(encoder, cells), before, rtol=0, atol=0)
    assert "blocks.0.attention.projection" in encoder.state_dict()
    with torch.no_grad():
        encoder.redraw_projections(torch.Generator().manual_seed(5))
    assert (encode(encoder, cells) - before).abs().max() > 1e-4


@pytest.mark.parametrize("n_genes", [1, 40])
def test_virtual_padding_equals_padding(n_genes):
    """The one PAD position with a multiplicity against padding written out position by position."""
    torch.manual_seed(0)
    encoder = Encoder(CONFIGS["favor-bins-cls-padded"]).eval()
    gene_ids = torch.randperm(N_GENES)[:n_genes].sort().values[None]
    values = torch.rand(1, n_genes) * 6
    ours = encode(encoder, (gene_ids, values, torch.ones(1, n_genes, dtype=torch.bool)))

    from scellm.nn._attention import Positions

    n_padded = 64 - 1 - n_genes
    with torch.no_grad():
        x = encoder.expression(encoder.gene_embedding(gene_ids), values, gene_ids, None)
        special = [encoder._special(1, offset) for offset in (1, 2)]
        x = torch.cat([special[0], x, special[1].expand(1, n_padded, -1)], dim=1)
        is_token = (torch.arange(64) <= n_genes)[None]
        for block in encoder.blocks:
            x = block(x, Positions(is_token, torch.ones(1, 64)))
        plain = encoder.finish(x[:, 0])
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


# -- an encoder that starts as its bag ------------------------------------------------------------------------

BLOCKS_ON_BAG = dataclasses.replace(TINY, amount="sqrt", cell_embedding="bag")


def test_blocks_on_a_bag_start_as_the_bag(cells):
    torch.manual_seed(0)
    encoder = Encoder(BLOCKS_ON_BAG).eval()
    bag = Encoder(dataclasses.replace(BLOCKS_ON_BAG, depth=0, cell_embedding="unit")).eval()
    bag.load_state_dict(
        {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("blocks")}
    )
    torch.testing.assert_close(encode(encoder, cells), encode(bag, cells), rtol=0, atol=1e-6)


def moved_by_a_constant(cell_embedding: str, cells) -> torch.Tensor:
    """How far pooled cells move, (B,), if the last block adds the same unit vector to every token."""
    torch.manual_seed(0)
    config = dataclasses.replace(BLOCKS_ON_BAG, cell_embedding=cell_embedding, depth=1)
    encoder = Encoder(config).eval()
    encoder.silence_blocks()
    encoder.finish = lambda pooled, keys=None: pooled
    before = encode(encoder, cells)
    with torch.no_grad():
        encoder.blocks[0].feed_forward.contract.bias[0] = 1.0
    return (encode(encoder, cells) - before).norm(dim=1)


def test_what_blocks_add_to_every_token_moves_a_cell_as_far(cells):
    torch.testing.assert_close(moved_by_a_constant("bag", cells), torch.ones(6))


def test_control_a_sum_multiplies_it_by_the_root_of_the_number_of_genes(cells):
    torch.testing.assert_close(moved_by_a_constant("unit", cells), cells[2].sum(1).float().sqrt())


def test_hidden_values_are_not_in_the_bag(cells):
    torch.manual_seed(0)
    encoder = Encoder(dataclasses.replace(BLOCKS_ON_BAG, depth=0)).eval()
    gene_ids, values, is_gene = cells
    is_masked = torch.zeros_like(is_gene)
    is_masked[:, 0] = True
    with torch.no_grad():
        hidden = encoder(*cells, is_masked=is_masked).cells
        without = encoder(gene_ids[:, 1:], values[:, 1:], is_gene[:, 1:]).cells
    torch.testing.assert_close(hidden, without)


ENDS = {
    "published": {"padded_context": 40},
    "cls": {"attention": "softmax"},
    "mean": {"attention": "softmax", "cell_embedding": "mean"},
    "unit": {"attention": "softmax", "expression": "continuous", "cell_embedding": "unit"},
    "bag": {"attention": "softmax", "expression": "continuous", "amount": "sqrt", "cell_embedding": "bag"},
    "depth 0": {"expression": "continuous", "cell_embedding": "bag", "depth": 0},
}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("fields", ENDS.values(), ids=ENDS)
def test_what_is_not_wanted_is_not_computed_and_nothing_else_changes(fields, dropout):
    torch.manual_seed(0)
    config = CellLMConfig(
        **{"n_genes": 50, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "dropout": dropout, **fields}
    )
    encoder = Encoder(config).train()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    gene_ids = torch.randint(50, (5, 12))
    is_gene = torch.arange(12) < torch.tensor([[12], [3], [7], [1], [12]])
    cells = {"values": torch.rand(5, 12) * 5, "is_gene": is_gene, "dropout_keys": torch.arange(5)}
    is_masked = (torch.rand(5, 12) < 0.3) & is_gene

    def results(wanted):
        encoder.zero_grad()
        found = encoder(gene_ids, **cells, is_masked=is_masked, wanted=wanted)
        genes = found.genes[is_masked] if wanted == "all" else found.genes
        (found.cells.square().sum() + (genes.square() * 2).sum()).backward()
        gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
        return found.cells, genes, gradients

    whole, masked = results("all"), results("masked")
    torch.testing.assert_close(masked[0], whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(masked[1], whole[1], rtol=1e-4, atol=1e-5)
    assert masked[2].keys() == whole[2].keys()
    for name, gradient in whole[2].items():
        torch.testing.assert_close(masked[2][name], gradient, rtol=1e-3, atol=1e-4, msg=name)
    none = encoder(gene_ids, **cells, is_masked=is_masked, wanted="none")
    torch.testing.assert_close(none.cells, whole[0], rtol=1e-4, atol=1e-5)
    assert none.genes.shape == (0, 16)
