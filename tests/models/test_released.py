"""The published CellLM: the same encodings from the same checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import scellm
from scellm.data import tokenize
from scellm.models._released import _IN_LAYER, _OUTER

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "celllm_small"
needs_golden = pytest.mark.skipif(
    not GOLDEN.exists(), reason="needs the golden encodings, which are not shipped"
)
SYMBOLS = [f"G{i}" for i in range(300)]


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The converted model, its cells' tokens, and what the original computed."""
    out = tmp_path_factory.mktemp("golden") / "celllm"
    context = json.loads((GOLDEN / "config.json").read_text())["max_seq_len"]
    scellm.models.convert_openbiomed(GOLDEN / "checkpoint.pth", SYMBOLS, out, context=context)
    model = scellm.models.load(out)
    cells = np.load(GOLDEN / "cells.npz")
    tokens = tokenize(
        cells["expression"], np.arange(300), 300, model.tokens, linearize=np.expm1, normalize=False
    )
    return model, tokens, cells


@needs_golden
def test_tokens_are_those_of_the_original(golden):
    _, tokens, cells = golden
    assert tokens.n_truncated == 2  # more than 127 expressed genes: cut in gene order
    for i in range(len(tokens)):
        original = cells["gene_ids"][i]
        assert original[0] == 300  # CLS
        np.testing.assert_array_equal(tokens[np.array([i])].gene_ids, original[original < 300])


@needs_golden
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "cell by cell"])
def test_encodings_and_logits_are_those_of_the_original(golden, together):
    model, tokens, cells = golden
    batches = [np.arange(7)] if together else [np.array([i]) for i in range(7)]
    for rows in batches:
        gene_ids, values, is_gene = map(torch.from_numpy, tokens.padded(rows))
        with torch.no_grad():
            encoding = model.encoder(gene_ids, values, is_gene)
            logits = model.encoder.masked_gene(encoding.genes).numpy()
        n = is_gene.shape[1]
        original = cells["encodings"][rows]
        np.testing.assert_allclose(encoding.cells.numpy(), original[:, 0], atol=1e-5)
        np.testing.assert_allclose(encoding.genes.numpy(), original[:, 1 : n + 1], atol=1e-5)
        mask = is_gene.numpy()
        np.testing.assert_allclose(logits[mask], cells["logits"][rows][:, 1 : n + 1][mask], atol=1e-5)


@needs_golden
def test_leaving_the_padding_out_would_be_seen(golden):
    """Control: without padding in the normalizer the encodings are far from the original's."""
    import dataclasses

    from scellm.nn import Encoder

    model, tokens, cells = golden
    bare = Encoder(dataclasses.replace(model.config, padded_context=None)).eval()
    bare.load_state_dict(model.encoder.state_dict())
    with torch.no_grad():
        found = bare(*map(torch.from_numpy, tokens.padded(np.arange(7)))).cells.numpy()
    assert np.abs(found - cells["encodings"][:, 0]).max() > 0.1


def published_state(*, n_genes=20, dim=8, depth=2, heads=2, dim_head=4, n_features=5):
    """A random checkpoint with the published names."""
    generator = torch.Generator().manual_seed(0)
    inner, hidden = heads * dim_head, 4 * dim
    shapes = {
        "pos_emb.emb.weight": (n_genes + 2, dim),
        "token_emb.weight": (8, dim),
        "to_out.weight": (8, dim),
    }
    shapes |= {"to_out.bias": (8,), "norm.weight": (dim,), "norm.bias": (dim,)}
    in_layer = {
        "0.norm.weight": (dim,), "0.norm.bias": (dim,), "1.norm.weight": (dim,), "1.norm.bias": (dim,),
        "0.fn.to_q.weight": (inner, dim), "0.fn.to_k.weight": (inner, dim), "0.fn.to_v.weight": (inner, dim),
        "0.fn.to_out.weight": (dim, inner), "0.fn.to_out.bias": (dim,),
        "0.fn.fast_attention.projection_matrix": (n_features, dim_head),
        "1.fn.fn.w1.weight": (hidden, dim), "1.fn.fn.w1.bias": (hidden,),
        "1.fn.fn.w2.weight": (dim, hidden), "1.fn.fn.w2.bias": (dim,),
    }  # fmt: skip
    assert set(in_layer) == set(_IN_LAYER)
    assert set(shapes) == set(_OUTER)
    shapes |= {
        f"performer.net.layers.{i}.{name}": shape for i in range(depth) for name, shape in in_layer.items()
    }
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state["pos_emb.emb.weight"] = state["pos_emb.emb.weight"].double()
    state["performer.calls_since_last_redraw"] = torch.tensor(0)
    return state


@pytest.fixture
def checkpoint(tmp_path):
    def write(state, **more):
        torch.save({"model_state_dict": state, **more}, tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth"

    return write


def test_conversion_reads_the_architecture_from_the_shapes(checkpoint, tmp_path):
    symbols = ["CD3D", "MS4A1", *(f"G{i}" for i in range(18))]
    (tmp_path / "genes.txt").write_text("\n".join(symbols) + "\n")
    state = {f"module.{name}": tensor for name, tensor in published_state().items()}
    scellm.models.convert_openbiomed(checkpoint(state), tmp_path / "genes.txt", tmp_path / "out")
    model = scellm.models.load(tmp_path / "out")
    config = model.config
    assert (config.n_genes, config.dim, config.depth, config.heads, config.dim_head) == (20, 8, 2, 2, 4)
    assert (config.random_features, config.padded_context, config.cell_embedding) == (5, 6000, "cls")
    assert model.tokens.max_genes == 5999
    assert model.tokens.truncation == "first"
    assert model.vocabulary.symbols.tolist() == symbols
    assert model.vocabulary.ensembl_ids[:3].tolist() == ["ENSG00000167286", "ENSG00000156738", ""]
    torch.testing.assert_close(
        model.encoder.gene_embedding.weight, published_state()["pos_emb.emb.weight"].float()
    )


def test_what_does_not_fit_is_named(checkpoint, tmp_path):
    convert = scellm.models.convert_openbiomed
    state = published_state()
    with pytest.raises(ValueError, match="gene list has 3 genes, the checkpoint 20"):
        convert(checkpoint(state), ["A", "B", "C"], tmp_path / "out")
    genes = [f"G{i}" for i in range(20)]
    missing = {name: tensor for name, tensor in state.items() if name != "norm.bias"}
    with pytest.raises(ValueError, match=r"missing \['norm.bias'\]; unexpected \['extra'\]"):
        convert(checkpoint(missing | {"extra": torch.zeros(1)}), genes, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no CellLM checkpoint: \['pos_emb.emb.weight'"):
        convert(checkpoint({"other": torch.zeros(1)}), genes, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        convert(tmp_path / "absent.pth", genes, tmp_path / "out")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="should hold {'model_state_dict'"):
        convert(tmp_path / "list.pth", genes, tmp_path / "out")
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        convert(tmp_path / "noise.pth", genes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (print, ("code was run",))


def test_no_code_in_a_checkpoint_is_run(tmp_path, capsys):
    torch.save({"model_state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        scellm.models.convert_openbiomed(tmp_path / "evil.pth", ["A"], tmp_path / "out")
    assert "code was run" not in capsys.readouterr().out
