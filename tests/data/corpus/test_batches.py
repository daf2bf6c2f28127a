"""The sampler: shares, epochs, no cell twice, and the same batches after a restart."""

import json
from collections import Counter

import numpy as np
import pytest

from scellm.data import Sampler, shard

SIZES = [7, 100, 1000, 3, 450]
BLOCKS = [1, 16, 16, 1, 64]


def draw(sampler, n):
    return [sampler.next() for _ in range(n)]


def pairs(batch):
    return list(zip(batch.dataset.tolist(), batch.row.tolist(), strict=True))


@pytest.mark.parametrize("block_sizes", [None, BLOCKS], ids=["single", "blocks"])
@pytest.mark.parametrize("power", [0, 0.5, 1])
@pytest.mark.parametrize("batch_size", [2, 64, 500, 1559])
def test_batches_are_full_and_hold_no_cell_twice(batch_size, power, block_sizes):
    sampler = Sampler(SIZES, block_sizes, batch_size=batch_size, power=power)
    for batch in draw(sampler, 60):
        assert len(batch) == len(batch.row) == batch_size
        assert batch.dataset.dtype == batch.row.dtype == np.int64
        assert (np.diff(batch.dataset) >= 0).all()
        assert (batch.row >= 0).all()
        assert (batch.row < np.array(SIZES)[batch.dataset]).all()
        assert len(set(pairs(batch))) == batch_size


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_shares_follow_the_power(power):
    sizes = np.array([100, 900, 9000])
    shares = Sampler(sizes, batch_size=30, power=power).shares
    expected = {0: [10, 10, 10], 0.5: 30 * np.sqrt(sizes) / np.sqrt(sizes).sum(), 1: [0.3, 2.7, 27]}
    np.testing.assert_allclose(shares, expected[power], rtol=1e-6)
    assert shares.sum() == 30


def test_no_dataset_gives_more_cells_than_it_has():
    sampler = Sampler([2, 5, 1000], batch_size=300, power=0)
    np.testing.assert_array_equal(sampler.shares, [2, 5, 293])
    assert Counter(sampler.next().dataset.tolist()) == {0: 2, 1: 5, 2: 293}
    everything = Sampler(SIZES, batch_size=sum(SIZES), power=0)
    for batch in draw(everything, 3):
        assert sorted(pairs(batch)) == [(d, r) for d, size in enumerate(SIZES) for r in range(size)]


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_over_many_batches_shares_are_exact(seed):
    sampler = Sampler(SIZES, batch_size=37, power=0.5, seed=seed)
    seen = np.zeros(len(SIZES))
    for step in range(1, 201):
        n = np.bincount(sampler.next().dataset, minlength=len(SIZES))
        assert (np.abs(n - sampler.shares) < 1).all()
        seen += n
        assert (
            np.abs(seen - step * sampler.shares) < 4
        ).all()  # random rounding would be off by 7 at the end


@pytest.mark.parametrize("blocks", [1, 4, 16], ids="block{}".format)
def test_every_cell_comes_once_per_epoch(blocks):
    sizes = [50, 203]
    sampler = Sampler(sizes, [blocks, blocks], batch_size=31, power=0.3)
    seen = [Counter(), Counter()]
    for _ in range(100):
        for dataset, row in pairs(sampler.next()):
            seen[dataset][row] += 1
        for dataset, counts in enumerate(seen):
            times = [counts[row] for row in range(sizes[dataset])]
            assert (
                max(times) - min(times) <= 2
            )  # at the change of epochs cells may be held for the next batch
            assert sum(times) / sizes[dataset] == pytest.approx(sampler.epochs[dataset])
    assert min(sampler.epochs) > 3


def test_one_dataset_in_even_batches_is_read_epoch_by_epoch():
    sampler = Sampler([40], batch_size=8)
    epochs = [np.concatenate([batch.row for batch in draw(sampler, 5)]) for _ in range(3)]
    for rows in epochs:
        assert sorted(rows.tolist()) == list(range(40))
    assert not np.array_equal(epochs[0], epochs[1])
    assert sampler.epochs.tolist() == [3]


def test_blocks_stay_together():
    sampler = Sampler([100], [16], batch_size=20)
    rows = np.concatenate([batch.row for batch in draw(sampler, 5)])
    starts = np.flatnonzero(np.diff(rows, prepend=-9) != 1)
    assert {int(row) for row in rows[starts]} <= set(range(0, 100, 16))
    assert len(starts) <= 7
    assert sorted(rows.tolist()) == list(range(100))
    assert rows.tolist() != list(range(100))


def test_cells_held_over_the_end_of_an_epoch_come_next():
    sampler = Sampler([10], batch_size=7)
    state = None
    for _ in range(50):
        sampler.next()
        if sampler.state_dict()["held"]:
            state = sampler.state_dict()
            break
    held = state["held"]["0"]
    assert sampler.next().row[: len(held)].tolist() == held


@pytest.mark.parametrize("after", [0, 1, 13, 40])
@pytest.mark.parametrize("block_sizes", [None, BLOCKS], ids=["single", "blocks"])
def test_a_restored_run_gives_the_same_batches(after, block_sizes):
    options = {"batch_size": 97, "power": 0.4, "seed": 3}
    sampler = Sampler(SIZES, block_sizes, **options)
    draw(sampler, after)
    text = json.dumps(sampler.state_dict())
    assert len(text) < 1000
    other = Sampler(SIZES, block_sizes, **options)
    draw(other, 5)
    other.load_state_dict(json.loads(text))
    assert other.step == after
    for one, two in zip(draw(sampler, 30), draw(other, 30), strict=True):
        np.testing.assert_array_equal(one.dataset, two.dataset)
        np.testing.assert_array_equal(one.row, two.row)


def test_control_another_seed_gives_other_batches():
    one, two = (draw(Sampler(SIZES, batch_size=64, seed=seed), 2) for seed in (0, 1))
    assert not np.array_equal(one[0].row, two[0].row)
    again = draw(Sampler(SIZES, batch_size=64, seed=0), 2)
    np.testing.assert_array_equal(one[1].row, again[1].row)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sizes": [5, 6]}, r"sizes was \[5, 5\], is \[5, 6\]"),
        ({"block_sizes": [2, 2]}, r"block_sizes was \[1, 1\], is \[2, 2\]"),
        ({"batch_size": 4}, "batch_size was 3, is 4"),
        ({"power": 1}, "power was 0.5, is 1.0"),
        ({"seed": 2}, "seed was 0, is 2"),
    ],
    ids=["sizes", "block_sizes", "batch_size", "power", "seed"],
)
def test_the_state_of_another_sampler_is_refused(options, text):
    state = Sampler([5, 5], batch_size=3).state_dict()
    other = Sampler(**{"sizes": [5, 5], "batch_size": 3, **options})
    with pytest.raises(ValueError, match=f"The state is of a sampler over other data .*: {text}"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 11}, "batch_size is 11, but there are only 10 cells"),
        ({"batch_size": 1}, "batch_size is 1; need at least 2"),
        ({"power": 1.5}, "power is 1.5; need a number from 0"),
        ({"power": float("nan")}, "power is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"sizes": [5, 0]}, r"at least 1; found \[5, 0\]"),
        ({"sizes": []}, "sizes must hold"),
        ({"block_sizes": [1]}, "block_sizes must hold one number"),
        ({"block_sizes": [1, 0]}, "block_sizes must hold one number"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_fail_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        Sampler(**{"sizes": [5, 5], "batch_size": 4, **options})


# -- shard --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [64, 100, 640, 641, 1000, 32768])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_shards_are_whole_blocks_that_make_up_the_batch(batch_size, world_size):
    n_blocks = -(-batch_size // 64)
    if n_blocks < world_size:
        with pytest.raises(
            ValueError,
            match=f"A batch of {batch_size} cells has {n_blocks} blocks of 64, too few for {world_size}",
        ):
            shard(batch_size, 0, world_size)
        return
    parts = [shard(batch_size, rank, world_size) for rank in range(world_size)]
    cells = np.concatenate([np.arange(batch_size)[part] for part in parts])
    np.testing.assert_array_equal(cells, np.arange(batch_size))
    blocks = [-(-(part.stop - part.start) // 64) for part in parts]
    assert max(blocks) - min(blocks) <= 1
    assert all(part.start % 64 == 0 for part in parts)


def test_the_way_out_of_too_few_blocks_works():
    with pytest.raises(ValueError, match="Use at least batch_size=449, better 512, or at most 2 processes"):
        shard(100, 0, 8)
    assert shard(449, 7, 8) == slice(448, 449)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_is_not_there(rank):
    with pytest.raises(ValueError, match=f"rank is {rank}; with 2 processes it is 0 to 1"):
        shard(256, rank, 2)


def test_a_batch_of_few_datasets():
    sizes = [5, 40, 300, 300, 1000]
    sampler = Sampler(sizes, batch_size=100, datasets_per_batch=2, seed=3)
    seen = np.zeros(5)
    for _ in range(400):
        batch = sampler.next()
        counts = np.bincount(batch.dataset, minlength=5)
        assert counts.sum() == 100
        assert (counts <= sizes).all()
        assert len(set(zip(batch.dataset.tolist(), batch.row.tolist(), strict=True))) == 100
        chosen = np.flatnonzero(counts)
        if np.array(sizes)[chosen].sum() > 100 and len(chosen) == 2 and min(np.array(sizes)[chosen]) >= 50:
            assert counts[chosen].tolist() == [50, 50]
        seen[chosen] += 1
    assert 2 <= seen.sum() / 400 < 2.5  # a third where two have too few cells
    assert seen[4] > seen[2] > seen[1] > seen[0] > 0
    again = Sampler(sizes, batch_size=100, datasets_per_batch=2, seed=3)
    np.testing.assert_array_equal(
        again.next().row, Sampler(sizes, batch_size=100, datasets_per_batch=2, seed=3).next().row
    )
    state = sampler.state_dict()
    expected = [sampler.next() for _ in range(3)]
    again.load_state_dict(state)
    for batch in expected:
        found = again.next()
        np.testing.assert_array_equal(found.row, batch.row)
        np.testing.assert_array_equal(found.dataset, batch.dataset)
    with pytest.raises(ValueError, match="datasets_per_batch is 0"):
        Sampler(sizes, batch_size=100, datasets_per_batch=0)
    with pytest.raises(ValueError, match="datasets_per_batch was 2, is None"):
        Sampler(sizes, batch_size=100, seed=3).load_state_dict(state)
