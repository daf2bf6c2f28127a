"""Cells of any depth projected to cell lines: known cell lines are found again, shallow cells stay near the average."""

import numpy as np
import pytest

import scellm
from scellm.drugs._fit_projection import fit_projector
from scellm.drugs._profiles import DEEP, DEPTHS, Platform, downsample
from scellm.drugs._projection import CellLineProjector


@pytest.fixture(scope="module")
def log2_tpm() -> np.ndarray:
    return scellm.datasets.toy_drug_screen(48)[0].to_numpy()


@pytest.fixture(scope="module")
def statistics(log2_tpm) -> dict[str, np.ndarray]:
    return fit_projector(log2_tpm)


def linear(log2_tpm: np.ndarray) -> np.ndarray:
    return np.exp2(log2_tpm) - 1


def test_a_bulk_profile_is_its_own_line(statistics, log2_tpm):
    reader = CellLineProjector(statistics)
    similarity, _, depth = reader.project(linear(log2_tpm), np.ones(48, dtype=bool))
    assert (similarity.argmax(1) == np.arange(48)).all()
    np.testing.assert_allclose(similarity, reader.kernel_similarity, atol=2e-3)
    assert (depth >= DEEP).any()  # others lack the barely expressed genes that tell bulk from counts


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4], ids="times{:g}".format)
def test_the_scale_of_the_values_does_not_matter(statistics, log2_tpm, scale):
    counts = downsample(linear(log2_tpm), 3_000)
    reader = CellLineProjector(statistics)
    first, again = reader.project(counts), reader.project(counts * scale)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_fewer_counts_say_less_of_a_line(statistics, log2_tpm):
    reader = CellLineProjector(statistics)
    own = [
        np.diag(reader.project(downsample(linear(log2_tpm), depth, rng=1))[0]).mean()
        for depth in (30, 300, 3_000, 30_000)
    ]
    assert own == sorted(own)
    assert own[0] < 0.7 < own[-1]


def test_a_cell_does_not_depend_on_its_company(statistics, log2_tpm):
    reader = CellLineProjector(statistics)
    counts = np.concatenate([downsample(linear(log2_tpm), depth) for depth in (40, 900, 20_000)])
    together, alone = reader.project(counts)[0], reader.project(counts[70:71])[0]
    np.testing.assert_allclose(together[70:71], alone, atol=1e-5)


def test_missing_genes_cost_little_while_enough_remain(statistics, log2_tpm):
    present = np.sort(np.random.default_rng(0).choice(200, 120, replace=False))
    counts = downsample(linear(log2_tpm), 10_000)
    whole = CellLineProjector(statistics).project(counts)
    part = CellLineProjector(statistics, present).project(counts[:, present])
    kinds = part[0].argmax(1) % 4 == np.arange(48) % 4
    assert kinds.mean() > 0.9
    assert np.corrcoef(whole[0].ravel(), part[0].ravel())[0, 1] > 0.8


def test_what_a_platform_does_to_genes_is_read_through(statistics, log2_tpm):
    """Cells of another platform are as similar to the lines as their bulk is, if the reader was told, and less else."""
    platform = Platform(np.exp2(np.random.default_rng(3).normal(0, 1.5, 200)), np.full(200, 0.3))
    counts = downsample(platform.simulate(linear(log2_tpm), rng=4), 10_000)
    truth = CellLineProjector(statistics).kernel_similarity
    off = ~np.eye(48, dtype=bool)

    def fidelity(known):
        similarity = CellLineProjector(fit_projector(log2_tpm, platform=known)).project(counts)[0]
        return np.corrcoef(similarity[off], truth[off])[0, 1]

    assert fidelity(platform) > 0.8
    assert fidelity(None) < fidelity(platform) - 0.1


def test_sums_of_cells_are_read_as_cells_however_deep(log2_tpm):
    platform = Platform(np.exp2(np.random.default_rng(0).normal(0, 1.5, 200)), np.full(200, 0.3))
    reader = CellLineProjector(fit_projector(log2_tpm, platform=platform))
    sums = downsample(platform.simulate(linear(log2_tpm), rng=1), 3_000_000)
    is_deep = reader.project(sums)[2] >= DEEP
    assert is_deep.any()
    off = ~np.eye(48, dtype=bool)[is_deep]

    def fidelity(is_bulk):
        similarity = reader.project(sums[is_deep], is_bulk)[0]
        return np.corrcoef(similarity[off], reader.kernel_similarity[is_deep][off])[0, 1]

    assert fidelity(np.zeros(is_deep.sum(), dtype=bool)) > fidelity(None) + 0.03


def test_cells_with_fractions_of_reads_are_cells(log2_tpm):
    """The smallest value of RSEM or TPM is no count: a single cell whose sum is `DEEP` of it is no bulk."""
    known = Platform(np.exp2(np.random.default_rng(0).normal(0, 1.5, 200)), np.full(200, 0.3))
    reader = CellLineProjector(fit_projector(log2_tpm, platform=known))
    counts = downsample(known.simulate(linear(log2_tpm), rng=1), 150)
    fractions = counts * 7
    fractions[np.arange(48), counts.argmax(1)] += 0.5
    fractions[np.arange(48), (counts == 0).argmax(1)] = 1e-5
    as_counts, found = reader.project(counts), reader.project(fractions)
    assert not reader.is_bulk(fractions).any()
    assert np.corrcoef(found[0].ravel(), as_counts[0].ravel())[0, 1] > 0.9
    assert (found[2] < 1_000).all()


def test_counts_are_believed_up_to_the_most_that_cells_have(statistics, log2_tpm):
    reader = CellLineProjector(statistics)
    counts = downsample(linear(log2_tpm), 150)
    for counted, is_kept in ((counts.sum(1), True), (np.full(48, 90_000.0), True), (np.full(48, 2e5), False)):
        found = reader.cell_counts(counts, counted)
        assert ((found == counted) == is_kept).all()
    assert ((found > 20) & (found < 1_000)).all()


def test_bulk_is_read_the_same_whatever_the_platform(statistics, log2_tpm):
    aware = CellLineProjector(fit_projector(log2_tpm, platform=Platform(np.full(200, 3.0), np.ones(200))))
    values = linear(log2_tpm) * 1e6
    is_bulk = CellLineProjector(statistics).project(values)[2] >= DEEP
    similarity = CellLineProjector(statistics).project(values[is_bulk])[0]
    np.testing.assert_allclose(aware.project(values[is_bulk])[0], similarity, atol=1e-5)


def test_cells_unlike_all_lines_lie_further(statistics, log2_tpm):
    reader = CellLineProjector(statistics)
    counts = downsample(linear(log2_tpm), 10_000)
    shuffled = counts[:, np.random.default_rng(0).permutation(200)]
    near, far = reader.project(counts)[1], reader.project(shuffled)[1]
    assert (near < 1).mean() > 0.85
    assert np.median(far) > np.median(near)


def test_a_cell_without_counts_is_unknown(statistics, log2_tpm):
    counts = downsample(linear(log2_tpm[:3]), 500)
    counts[1] = 0
    similarity, distance, depth = CellLineProjector(statistics).project(counts)
    assert np.isnan(similarity).any(1).tolist() == [False, True, False]
    assert np.isnan(distance).tolist() == [False, True, False]
    assert depth[1] == 0


def test_the_statistics_hold_no_profiles(statistics):
    assert {
        key: value.shape[0] for key, value in statistics.items() if value.ndim > 1 and value.shape[0] == 48
    } == {"line_vectors": 48}
    assert statistics["gain"].shape == statistics["noise"].shape == (len(DEPTHS), 200)
