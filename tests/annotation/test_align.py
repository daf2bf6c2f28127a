import dataclasses

import numpy as np
import pytest

import scellm
from scellm.annotation._align import _Strangeness, align_cells, batch_shift
from scellm.annotation._annotator import unit
from scellm.annotation._fit import fit_annotator

D = 24
CLASSES = ["a", "b", "c", "d", "e"]


def draw(rng, centres, sizes, spread=0.25):
    """Cells around the centers of their types, and their types."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return (centres[codes] + rng.normal(0, spread, (len(codes), D))).astype(np.float32), codes


@pytest.fixture
def world():
    """An annotator, the centers of its types, and a direction that a protocol moves cells in."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (6, D)).astype(np.float32)
    vectors, codes = draw(rng, centres[:5], [80] * 5)
    move = (1.2 * rng.normal(0, 1, D)).astype(np.float32)
    return fit_annotator(vectors, codes, CLASSES, method="linear"), centres, move, rng


def test_shift_is_found_whatever_the_proportions_of_types(world):
    annotator, centres, move, rng = world
    for sizes in ([60] * 5, [250, 10, 10, 10, 10], [5, 5, 100, 100, 0]):
        there, _ = draw(rng, centres[:5], sizes)
        codes = np.repeat(np.arange(5), sizes)
        moved = unit(there + move)
        true_shift = np.mean(
            [moved[codes == k].mean(0) - unit(annotator.exemplars.cells)[annotator.exemplars.labels == k].mean(0)
             for k in range(5) if sizes[k]], axis=0,
        )  # fmt: skip
        found = batch_shift(annotator, moved)
        assert np.linalg.norm(found - true_shift) < 0.35 * np.linalg.norm(true_shift)
        control = moved.mean(0) - unit(annotator.exemplars.cells).mean(
            0
        )  # what a plain mean takes for the shift
        if max(sizes) > 100:
            assert np.linalg.norm(control - true_shift) > 1.2 * np.linalg.norm(found - true_shift)


def test_labels_come_back_and_known_cells_are_no_longer_novel(world):
    annotator, centres, move, rng = world
    vectors, codes = draw(rng, centres[:5], [60, 30, 90, 20, 60])
    moved = vectors + 0.4 * move + 0.6 * (centres[0] - centres[2])  # towards one type, away from another
    found, length = align_cells(annotator, moved, "auto")
    assert length > 0.3

    def right(x):
        return (annotator.probabilities(x).argmax(1) == codes).mean()

    def alarms(x):
        return (annotator.novelty_scores(annotator.outlier_score(x), 0.05) > 1).mean()

    assert right(found) > 0.97 > right(moved)
    assert alarms(found) + 0.2 < alarms(moved)


def test_a_type_that_the_reference_lacks_does_not_pull(world):
    annotator, centres, move, rng = world
    vectors, codes = draw(rng, centres, [50] * 5 + [80])
    found, _ = align_cells(annotator, vectors + move, "auto")
    known = codes < 5
    assert (annotator.probabilities(found[known]).argmax(1) == codes[known]).mean() > 0.97
    strange = annotator.outlier_score(found)
    assert np.median(strange[~known]) > 1.5 * np.median(strange[known])


def test_cells_of_the_same_study_are_left_where_they_are(world):
    annotator, centres, _, rng = world
    vectors, _ = draw(rng, centres[:5], [100, 10, 40, 40, 40])
    found, length = align_cells(annotator, vectors, "auto")
    assert found is vectors
    assert length == 0


def test_a_part_of_many_cells_gives_the_same_shift(world, monkeypatch):
    annotator, centres, move, rng = world
    vectors, _ = draw(rng, centres[:5], [100] * 5)
    whole, length = align_cells(annotator, vectors + move, True)
    monkeypatch.setattr("scellm.annotation._align.MOST_CELLS", 250)
    part, other = align_cells(annotator, vectors + move, True)
    assert abs(length - other) < 0.1 * length
    assert np.abs(part - whole).max() < 0.1
    assert not np.array_equal(part, whole)


def test_few_cells_empty_cells_and_no(world):
    annotator, centres, move, rng = world
    vectors, _ = draw(rng, centres[:5], [30] * 5)
    moved = vectors + move
    assert align_cells(annotator, moved[::5], True)[1] == 0  # 30 cells
    assert align_cells(annotator, moved, False)[0] is moved
    moved[3] = np.nan
    found, length = align_cells(annotator, moved, True)
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()
    assert length > 0
    nothing = np.full((4, D), np.nan, np.float32)
    assert align_cells(annotator, nothing, "auto")[0] is nothing


def test_annotate_takes_the_option():
    adata, reference = scellm.datasets.toy_cells(60, rng=1), scellm.datasets.toy_cells(80)
    options = {"reference": reference, "labels": "cell_type", "novelty_error": None}
    scellm.tl.annotate(adata, **options, align=True)
    assert adata.uns["scellm_cell_type"]["batch_shift"] > 0
    scellm.tl.annotate(adata, **options, align=False)
    assert adata.uns["scellm_cell_type"]["batch_shift"] == 0
    with pytest.raises(ValueError, match="align='yes' is unknown; choose 'auto', True or False"):
        scellm.tl.annotate(adata, **options, align="yes")


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_distances_less_a_shift_are_those_of_moved_cells(world, method):
    annotator, centres, move, rng = world
    annotator.head = dataclasses.replace(annotator.head, kind=method)
    vectors = unit(draw(rng, centres, [60] * 6)[0])
    less = _Strangeness(annotator, vectors)
    for shift in (np.zeros(D, np.float32), 0.1 * move, 0.6 * vectors[5]):
        np.testing.assert_allclose(
            less(shift), annotator.outlier_score(vectors - shift), rtol=1e-4, atol=1e-5
        )
