import pytest

from scellm.nn import CellLMConfig, Encoder


def test_base_has_the_size_of_the_paper():
    config = CellLMConfig.named("base")
    assert (config.n_genes, config.dim, config.depth, config.heads, config.dim_head) == (
        19_379,
        512,
        10,
        16,
        64,
    )
    assert config.random_features == 266  # int(64 ln 64)
    assert config.max_bin == 5
    import torch

    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in Encoder(config).parameters())
    assert 50e6 < n_parameters < 60e6


@pytest.mark.parametrize("name", ["tiny", "small", "transformer", "base"])
def test_dictionary_round_trip(name):
    config = CellLMConfig.named(name, n_genes=20)
    assert CellLMConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"n_genes": 0}, "n_genes is 0; it must be a whole number of at least 1"),
        ({"dim": 10**18}, "dim is 1000000000000000000; .*at most 65,536"),
        ({"dim": 256.5}, "dim is 256.5; it must be a whole number"),
        ({"depth": True}, "depth is True; it must be a whole number"),
        ({"heads": "4"}, "heads is '4'; it must be a whole number"),
        ({"attention": ["softmax"]}, r"attention is \['softmax'\]; choose"),
        ({"attention": "flash"}, r"attention is 'flash'; choose one of \('favor', 'softmax'\)"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
        ({"n_expression_tokens": 3}, "at least 4"),
        ({"attention": "softmax", "padded_context": 100}, "leave it None"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_configuration_fails_when_it_is_built(fields, text):
    with pytest.raises(ValueError, match=text):
        CellLMConfig(**{"n_genes": 10, **fields})


def test_unknown_fields_name_the_nearest():
    with pytest.raises(ValueError, match="Unknown field 'n_gene'.*Did you mean 'n_genes'"):
        CellLMConfig.from_dict({"n_gene": 3})
    with pytest.raises(ValueError, match="needs the field 'n_genes'"):
        CellLMConfig.from_dict({"dim": 3})
    with pytest.raises(
        ValueError,
        match=r"No configuration is named 'large'; choose one of \['base', 'small', 'tiny', 'transformer'\]",
    ):
        CellLMConfig.named("large")
