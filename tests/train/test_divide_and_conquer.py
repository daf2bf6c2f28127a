"""The two-pass step gives the gradients of one graph, and says so when it cannot."""

import dataclasses

import numpy as np
import pytest
import torch

from scellm.nn import CellLMConfig, Encoder
from scellm.train import DivideAndConquer, Encoded, info_nce
from scellm.train import _divide_and_conquer as module

N_CELLS, N_GENES = 13, 40
BASE = dataclasses.replace(CellLMConfig.named("tiny", n_genes=N_GENES), dropout=0.2)
CONFIGS = {
    "softmax": BASE,
    "favor": dataclasses.replace(BASE, attention="favor"),
    "published": dataclasses.replace(
        BASE, attention="favor", expression="bins", cell_embedding="cls", padded_context=64
    ),
}


class Views:
    """Two views of some cells, of different lengths, as rows of the step."""

    def __init__(self, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        n = 2 * N_CELLS
        self.lengths = torch.randint(3, 25, (n,), generator=generator).numpy()
        self.gene_ids = torch.stack([torch.randperm(N_GENES, generator=generator)[:25] for _ in range(n)])
        self.values = torch.rand(n, 25, generator=generator, dtype=dtype) * 5
        self.keys = torch.randint(-(2**62), 2**62, (n,), generator=generator)
        self.is_masked = torch.rand(n, 25, generator=generator) < 0.3

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, rows):
        width = int(self.lengths[rows].max())
        is_gene = torch.arange(width) < torch.from_numpy(self.lengths[rows])[:, None]
        return {
            "gene_ids": self.gene_ids[rows][:, :width],
            "values": self.values[rows][:, :width],
            "is_gene": is_gene,
            "is_masked": self.is_masked[rows][:, :width] & is_gene,
            "dropout_keys": self.keys[rows],
        }


def new_encoder(config=BASE, dtype=torch.float64):
    torch.manual_seed(0)
    return Encoder(config).to(dtype).train()


def encode_with(encoder, *, masked=True, keys=True):
    """`encode` of the step: contrastive representations, and masked genes as a sum over cells."""

    def encode(batch):
        batch = batch if keys else batch | {"dropout_keys": None}
        encoding = encoder(**(batch if masked else batch | {"is_masked": None}))
        if not masked or not torch.is_grad_enabled():
            return encoding.cells
        hidden = batch["is_masked"]
        bins = batch["values"][hidden].clamp(0, 5).long()
        logits = encoder.masked_gene(encoding.genes)[hidden]
        return Encoded(
            encoding.cells,
            {"masked_gene": torch.nn.functional.cross_entropy(logits, bins, reduction="sum") / 100},
        )

    return encode


def contrast(representations):
    first, second = representations.chunk(2)
    return info_nce(first, second, temperature=0.2)


def gradients(encoder):
    """All gradients in one vector."""
    found = torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]).clone()
    encoder.zero_grad(set_to_none=True)
    return found


def one_graph(encoder, rows, encode, chunks=None):
    """The plain step: everything in one graph; chunk by chunk only where that decides the random numbers."""
    chunks = [np.arange(len(rows))] if chunks is None else chunks
    encoded = [encode(rows[chunk]) for chunk in chunks]
    encoded = [x if isinstance(x, Encoded) else Encoded(x) for x in encoded]
    order = torch.from_numpy(np.concatenate(chunks))
    representations = torch.cat([x.representations for x in encoded])[order.argsort()]
    total = contrast(representations) + sum(sum(x.losses.values()) for x in encoded)
    total.backward()
    return float(total.detach()), gradients(encoder)


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("tokens", [1, 60, 10_000], ids="tokens{}".format)
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0], ids="kept{}".format)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_gradients_are_those_of_one_graph(config, kept, tokens, monkeypatch):
    """Two dropout layers a block, two objectives, any chunking, any share of kept graphs."""
    encoder, rows = new_encoder(config), Views()
    encode = encode_with(encoder)
    total, expected = one_graph(encoder, rows, encode)
    plan = DivideAndConquer._plan

    def keeping(self, lengths):
        chunks, _ = plan(self, lengths)
        return chunks, round(kept * len(chunks))

    monkeypatch.setattr(DivideAndConquer, "_plan", keeping)
    step = DivideAndConquer(encode, contrast, modules=[encoder], tokens_per_chunk=tokens)
    report = step(rows)
    assert report.n_chunks == 1 if tokens == 10_000 else report.n_chunks > 4
    assert difference(gradients(encoder), expected) < 1e-12
    assert sum(report.losses.values()) == pytest.approx(total, rel=1e-12)
    assert set(report.losses) == {"contrastive", "masked_gene"}


def test_single_precision(monkeypatch):
    encoder, rows = new_encoder(dtype=torch.float32), Views(torch.float32)
    encode = encode_with(encoder)
    _, expected = one_graph(encoder, rows, encode)
    DivideAndConquer(encode, contrast, modules=[encoder], tokens_per_chunk=60)(rows)
    assert difference(gradients(encoder), expected) < 1e-6


def test_dropout_of_torch_is_replayed_and_the_state_goes_on():
    """Without keys, masks come from torch's generator: compare with one graph built chunk by chunk."""
    encoder, rows = new_encoder(), Views()
    encode = encode_with(encoder, masked=False, keys=False)
    step = DivideAndConquer(encode, contrast, modules=[encoder], tokens_per_chunk=60)
    step(rows)  # measures
    gradients(encoder)
    chunks, _ = step._plan(rows.lengths)
    torch.manual_seed(5)
    _, expected = one_graph(encoder, rows, encode, chunks)
    after = torch.rand(1)
    step._plan = lambda _: (chunks, 1)
    torch.manual_seed(5)
    assert step(rows).n_chunks > 2
    assert difference(gradients(encoder), expected) < 1e-12
    assert torch.equal(torch.rand(1), after)


def without_keeping(step):
    plan = step._plan
    step._plan = lambda lengths: (plan(lengths)[0], 0)
    return step


def test_control_dropout_that_is_not_replayed(monkeypatch):
    encoder, rows = new_encoder(), Views()
    encode = encode_with(encoder, masked=False, keys=False)
    step = without_keeping(DivideAndConquer(encode, contrast, modules=[encoder], tokens_per_chunk=60))
    step(rows)
    monkeypatch.setattr(module._RandomState, "restore", lambda self: None)
    with pytest.raises(RuntimeError, match="encoded differently the second time"):
        step(rows)
    monkeypatch.setattr(module, "REPLAY_TOLERANCE", 100)
    gradients(encoder)
    chunks, _ = step._plan(rows.lengths)
    torch.manual_seed(5)
    _, expected = one_graph(encoder, rows, encode, chunks)
    torch.manual_seed(5)
    step(rows)
    assert difference(gradients(encoder), expected) > 1e-2


def test_control_projections_redrawn_between_the_passes():
    encoder, rows = new_encoder(CONFIGS["favor"]), Views()
    plain = encode_with(encoder, masked=False)
    n_calls = 0

    def encode(batch):  # what the published code does: a redraw after so many calls of forward
        nonlocal n_calls
        n_calls += 1
        if n_calls % 5 == 0:
            encoder.redraw_projections(torch.Generator().manual_seed(n_calls))
        return plain(batch)

    step = without_keeping(DivideAndConquer(encode, contrast, modules=[encoder], tokens_per_chunk=60))
    with pytest.raises(RuntimeError, match="redraw random projections between optimizer steps"):
        step(rows)


def test_control_batch_norm(monkeypatch):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 4)
    ).double()
    cells = torch.randn(24, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="'1' is batch norm.*Use layer norm"):
        DivideAndConquer(encoder, contrast, tokens_per_chunk=6)
    monkeypatch.setattr(DivideAndConquer, "_check_modules", lambda self: None)
    contrast(encoder(cells)).backward()
    expected = gradients(encoder)
    DivideAndConquer(encoder, contrast, tokens_per_chunk=6)(cells)
    assert difference(gradients(encoder), expected) > 1e-2
    encoder.eval()  # then it is a constant
    contrast(encoder(cells)).backward()
    expected = gradients(encoder)
    DivideAndConquer(encoder, contrast, tokens_per_chunk=6)(cells)
    assert difference(gradients(encoder), expected) < 1e-12


def test_a_learnt_temperature_gets_its_gradient():
    encoder, rows = new_encoder(), Views()
    encode = encode_with(encoder, masked=False)
    found = []
    for tokens in (40, 10_000):
        log_temperature = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)

        def loss(r, log_temperature=log_temperature):
            return info_nce(*r.chunk(2), temperature=log_temperature.exp())

        DivideAndConquer(encode, loss, modules=[encoder], tokens_per_chunk=tokens)(rows)
        found.append(float(log_temperature.grad))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert abs(found[0]) > 1e-3


def test_only_sums_over_cells_need_one_pass():
    encoder, rows = new_encoder(), Views()
    encode, n_calls = encode_with(encoder), 0
    everything = encode(rows[np.arange(len(rows))])
    everything.losses["masked_gene"].backward()
    expected = gradients(encoder)

    def counted(batch):
        nonlocal n_calls
        n_calls += 1
        return encode(batch)

    step = DivideAndConquer(counted, None, modules=[encoder], tokens_per_chunk=60)
    report = step(rows)
    assert n_calls == report.n_chunks + 1  # one to measure
    assert difference(gradients(encoder), expected) < 1e-12
    torch.testing.assert_close(report.representations, everything.representations.detach())


def test_the_budget_decides_what_is_kept():
    encoder, rows = new_encoder(), Views()
    encode = encode_with(encoder, masked=False)
    step = DivideAndConquer(encode, contrast, modules=[encoder], tokens_per_chunk=60, memory_budget="1GiB")
    report = step(rows)
    assert report.n_kept == report.n_chunks > 4
    assert report.bytes_per_token > 1000
    everything = report.bytes_per_token * rows.lengths.sum()
    kept = []
    for share in (0.25, 0.5, 0.75):
        step = DivideAndConquer(
            encode, contrast, modules=[encoder], tokens_per_chunk=25, memory_budget=share * everything
        )
        kept.append(step(rows).n_kept / step(rows).n_chunks)
    assert 0 <= kept[0] < kept[1] < kept[2] < 1


def test_measured_bytes_are_those_the_graph_keeps():
    """A layer of which it is known: x @ w keeps x, relu keeps its result."""
    width, n_rows = 64, 50
    first, second = (torch.nn.Linear(width, width, bias=False) for _ in range(2))
    cells = torch.randn(n_rows, width)
    step = DivideAndConquer(
        lambda x: second(first(x).relu()), contrast, modules=[first, second], tokens_per_chunk=n_rows
    )
    step.bytes_per_token = step._measure(cells, np.ones(n_rows, np.int64))
    assert step.bytes_per_token == pytest.approx(2 * width * 4)


def test_small_budget_names_the_smallest_that_works():
    encoder, rows = new_encoder(), Views()
    step = DivideAndConquer(encode_with(encoder), contrast, modules=[encoder], memory_budget="4KiB")
    with pytest.raises(
        ValueError, match=r"memory_budget is 4KiB; one row of \d+ tokens needs .*KiB"
    ) as error:
        step(rows)
    smallest = str(error.value).partition("memory_budget='")[2].partition("'")[0]
    DivideAndConquer(encode_with(encoder), contrast, modules=[encoder], memory_budget=smallest)(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_budget": "lots"}, "memory_budget='lots' is no amount of memory; pass for instance '8GiB'"),
        ({"memory_budget": 0}, "memory_budget=0 is no amount"),
        ({"memory_budget": "3 parsecs"}, "is no amount"),
        ({"tokens_per_chunk": 0}, "tokens_per_chunk=0 must be 'auto' or a positive whole number"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        DivideAndConquer(torch.nn.Linear(2, 2), contrast, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GiB", 8 << 30), ("1.5 mb", 1_500_000), ("64K", None), (2048, 2048), ("100", 100)],
)
def test_amounts_of_memory(text, expected):
    from scellm.train._memory import parse_bytes

    if expected is None:
        with pytest.raises(ValueError, match="no amount"):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == expected
