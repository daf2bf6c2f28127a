"""Parts are disjoint, of the size asked for, and keep groups whole."""

import numpy as np
import pytest

from scellm.annotation._split import split_cells

CODES = np.repeat(np.arange(4), [100, 60, 30, 10])
DONORS = np.arange(200) % 8


def parts(split):
    return split.train, split.val, split.test


def test_cells_of_each_class_are_in_each_part():
    split = split_cells(CODES, val_size=0.1, test_size=0.2)
    assert sorted(np.concatenate(parts(split))) == list(range(200))
    assert [len(part) for part in parts(split)] == pytest.approx([140, 20, 40], abs=3)
    for part in parts(split):
        assert set(CODES[part]) == {0, 1, 2, 3}


def test_small_classes_leave_cells_for_training():
    split = split_cells(np.array([0] * 50 + [1] * 3 + [2] * 2), val_size=0.1, test_size=0.2)
    codes = np.array([0] * 50 + [1] * 3 + [2] * 2)
    assert set(codes[split.train]) == {0, 1, 2}


def test_groups_are_whole_and_the_same_seed_gives_the_same_split():
    split = split_cells(CODES, val_size=0.15, test_size=0.25, val_groups=DONORS, test_groups=DONORS, rng=3)
    groups = [set(DONORS[part]) for part in parts(split)]
    assert sum(len(x) for x in groups) == 8
    assert all(groups)
    again = split_cells(CODES, val_size=0.15, test_size=0.25, val_groups=DONORS, test_groups=DONORS, rng=3)
    assert all(np.array_equal(a, b) for a, b in zip(parts(split), parts(again), strict=True))
    other = split_cells(CODES, val_size=0.15, test_size=0.25, val_groups=DONORS, test_groups=DONORS, rng=4)
    assert not np.array_equal(split.test, other.test)


def test_group_with_most_shared_classes_is_held_out():
    codes = np.array([0, 1, 2, 3] * 10 + [4] * 10)
    groups = np.repeat(["a", "b", "c", "d", "only 4"], 10)
    split = split_cells(codes, val_size=0.2, test_size=0, val_groups=groups)
    assert "only 4" not in groups[split.val]


def test_no_test_part():
    split = split_cells(CODES, val_size=0.2, test_size=0)
    assert len(split.test) == 0


def test_too_few_groups():
    with pytest.raises(ValueError, match=r"val_by has 1 group left \(\d\) after .*pass test_size=0"):
        split_cells(CODES, val_size=0.2, test_size=0.2, val_groups=DONORS % 2, test_groups=DONORS % 2)
