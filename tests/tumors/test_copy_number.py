"""Copy number from expression: known gains are found, cell types are not mistaken for them, and the numbers are right."""

import numpy as np
import pytest
import scipy.sparse as sp

from scellm.data import GeneVocabulary
from scellm.tumors import (
    arm_table,
    coherence,
    infer_copy_number,
    load_genome,
    load_panel,
    make_segments,
    profile_windows,
    verdict,
    window_profile,
)
from scellm.tumors._aneuploidy import nuisance
from scellm.tumors._cells import clone_share, mixture_odds, segment_scores
from scellm.tumors._infer import FEWEST_NORMAL

VOCABULARY = GeneVocabulary.default()
N_GENES = 6000
ALTERED = {"7p": 1.5, "7q": 1.5, "1q": 1.5, "10q": 0.5, "13q": 0.5, "6q": 0.5}


@pytest.fixture(scope="module")
def genome():
    return load_genome(VOCABULARY.ensembl_ids, VOCABULARY.symbols)


@pytest.fixture(scope="module")
def panel(genome):
    return load_panel(genome, VOCABULARY.symbols)


def draw(profile, n, genome, rng, altered=None, depth=4000):
    """Poisson cells of a normal profile, with arms at another dose."""
    dose = np.ones(len(genome))
    for arm, factor in (altered or {}).items():
        dose[genome.arm == arm] = factor
    expected = profile * dose
    return sp.csr_array(rng.poisson(depth * expected / expected.sum(), (n, len(expected))).astype(np.float32))


@pytest.fixture(scope="module")
def sample(genome, panel):
    """60 immune cells, 60 epithelial ones and 60 of the same type with six arms altered."""
    rng = np.random.default_rng(0)
    names = [str(name) for name in panel.names]
    immune = panel.expression[next(i for i, name in enumerate(names) if "acrophage" in name)]
    gland = panel.expression[next(i for i, name in enumerate(names) if "luminal" in name or "acinar" in name)]
    counts = sp.vstack(
        [draw(immune, 60, genome, rng), draw(gland, 60, genome, rng), draw(gland, 60, genome, rng, ALTERED)]
    )
    return sp.csr_array(counts), np.repeat([0, 1, 2], 60)


# -- the genome ----------------------------------------------------------------------------------------------


def test_genes_lie_where_they_lie(genome):
    place = dict(zip(VOCABULARY.symbols[genome.ids], genome.arm, strict=True))
    known = {
        "EGFR": "7p",
        "MYC": "8q",
        "TP53": "17p",
        "PTEN": "10q",
        "ERBB2": "17q",
        "RB1": "13q",
        "AR": "Xq",
    }
    assert {name: place[name] for name in known} == known
    number = np.array([23 if name == "X" else int(name) for name in genome.chromosome])
    assert (np.diff(number) >= 0).all()
    for name in ("1", "9"):
        assert (np.diff(genome.start[genome.chromosome == name]) >= 0).all()
    used = set(VOCABULARY.symbols[genome.ids[genome.is_used]])
    assert not used & {"HLA-A", "RPL13", "AR", "KRT8"}


def test_a_vocabulary_without_ids_is_placed_by_symbol(genome):
    other = load_genome(np.full(len(VOCABULARY), ""), VOCABULARY.symbols)
    assert len(other) == len(genome)
    np.testing.assert_array_equal(other.arm, genome.arm)


def test_segments_stay_inside_arms_and_hold_what_is_measured(genome):
    measured = np.arange(len(genome)) % 2 == 0
    segments = make_segments(genome, measured)
    assert measured[segments.genes].all()
    assert segments.sizes.min() >= 30
    for number in range(len(segments)):
        assert set(genome.arm[segments.genes[segments.of_gene == number]]) == {segments.arm[number]}
    assert len(make_segments(genome, np.zeros(len(genome), dtype=bool))) == 0


# -- a group -------------------------------------------------------------------------------------------------


def test_a_group_with_altered_arms_is_aneuploid_and_another_type_is_not(sample, genome, panel):
    counts, group = sample
    pooled = [np.asarray(counts[group == k].sum(axis=0)).ravel() for k in range(3)]
    segments = make_segments(genome, sum(pooled) > 20)
    immune, gland, tumor = (each[segments.genes] / each[segments.genes].sum() for each in pooled)
    directions = nuisance(panel, segments)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    other_type = coherence(gland, immune, segments, directions)
    found = coherence(tumor, gland, segments, directions)
    assert other_type.statistic < 4 < 10 < found.statistic
    assert coherence(gland, immune, segments).statistic > 4  # a control: two studies differ by protocol too
    gained = np.isin(segments.arm, ["7p", "7q", "1q"])
    lost = np.isin(segments.arm, ["10q", "13q", "6q"])
    assert found.estimate[gained].min() > 0.05
    assert found.estimate[lost].max() < -0.05
    assert abs(np.median(found.shift)) < 1e-9
    same = coherence(immune, immune, segments)
    assert same.statistic <= 0
    np.testing.assert_allclose(same.shift, 0)


def test_control_shuffled_segments_are_not_aneuploid(sample, genome):
    counts, group = sample
    pooled = [np.asarray(counts[group == k].sum(axis=0)).ravel() for k in range(3)]
    segments = make_segments(genome, sum(pooled) > 20)
    order = np.random.default_rng(0).permutation(len(segments.genes))
    immune, tumor = (pooled[k][segments.genes][order] for k in (0, 2))
    assert coherence(tumor / tumor.sum(), immune / immune.sum(), segments).statistic < 4


# -- cells ---------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_slow_loop(sample, genome):
    counts, _ = sample
    segments = make_segments(genome, np.asarray(counts.sum(axis=0)).ravel() > 20)
    some = sp.csr_array(counts[:3][:, segments.genes])
    profile = np.random.default_rng(0).dirichlet(np.ones(len(segments.genes)))[None]
    scores, information = segment_scores(some, profile, np.zeros(3, dtype=int), segments)
    for cell in range(3):
        x = some[[cell]].toarray().ravel()
        mu = profile[0] * x.sum()
        residual = np.minimum((x - mu) / (1 + mu), 3)
        for number in (0, 7, len(segments) - 1):
            here = segments.of_gene == number
            assert scores[cell, number] == pytest.approx(residual[here].sum(), rel=1e-3, abs=1e-3)
            assert information[cell, number] == pytest.approx((mu / (1 + mu))[here].sum(), rel=1e-3)


def test_a_cell_shows_all_of_its_clone_or_nothing():
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.3, 40)
    information = np.full((2, 40), 50.0)
    scores = np.stack([50 * (shift - shift.mean()), np.zeros(40)])
    share, precision = clone_share(scores + 7, information, shift)  # a factor on all genes does not count
    np.testing.assert_allclose(share, [1, 0], atol=1e-6)
    np.testing.assert_allclose(precision, 50 * ((shift - shift.mean()) ** 2).sum())


def test_odds_of_a_mixed_group_part_its_cells():
    rng = np.random.default_rng(0)
    truth = np.arange(100) < 60
    share = truth / 0.6 + rng.normal(0, 0.2, 100)
    odds = mixture_odds(share, np.full(100, 25.0), is_clone=True)
    assert ((odds > 0) == truth).all()
    nothing = mixture_odds(rng.normal(0, 0.2, 100), np.full(100, 25.0), is_clone=False)
    assert (nothing > 0).mean() < 0.02


# -- a sample ------------------------------------------------------------------------------------------------


def test_the_tumor_is_found_with_normal_cells_of_the_sample(sample, genome, panel):
    counts, group = sample
    found = infer_copy_number(counts, genome, panel, group, group == 0)
    assert found.is_usable
    assert found.reference == "sample"
    assert found.is_reference.sum() == 60
    assert (found.log_odds[group == 2] > 0).mean() > 0.9
    assert (found.log_odds[group != 2] > 0).mean() < 0.05
    assert found.score[group == 2].mean() == pytest.approx(1, abs=0.2)
    assert (found.clone[group == 2] >= 0).mean() > 0.9
    table = arm_table(found.clones, found.segments)
    state = dict(zip(table["arm"], table["state"], strict=True))
    assert {arm for arm in ALTERED if state.get(arm) == ("gain" if ALTERED[arm] > 1 else "loss")} >= {
        "7q",
        "1q",
        "10q",
        "6q",
    }
    assert sum(value != "neutral" for value in state.values()) <= 9
    text = verdict(found, table, found.log_odds > 0)
    assert "60 normal cells of the sample" in text
    assert "gain of 1q" in text


def test_without_normal_cells_the_panel_is_asked(sample, genome, panel):
    counts, group = sample
    few = np.zeros(len(group), dtype=bool)
    few[: FEWEST_NORMAL - 1] = True
    found = infer_copy_number(counts, genome, panel, group, few)
    assert found.reference == "panel"
    assert not found.is_reference.any()
    assert (found.log_odds[group == 2] > 0).mean() > 0.8
    assert (found.log_odds[group != 2] > 0).mean() < 0.1


def test_normal_cells_alone_have_no_clone(sample, genome, panel):
    counts, group = sample
    normal = group < 2
    found = infer_copy_number(sp.csr_array(counts[normal]), genome, panel, group[normal], group[normal] == 0)
    assert not found.clones
    assert (found.log_odds == 0).all()
    assert "No aneuploid population found" in verdict(
        found, arm_table([], found.segments), found.log_odds > 0
    )


def test_a_panel_of_genes_is_not_read(sample, genome, panel):
    counts, group = sample
    some = counts.copy().tolil()
    some[:, 900:] = 0
    found = infer_copy_number(sp.csr_array(some), genome, panel, group, group == 0)
    assert not found.is_usable
    assert "fewer than the 1,000" in verdict(found, {}, found.log_odds > 0)


def test_cells_called_normal_that_are_aneuploid_are_no_reference(sample, genome, panel):
    counts, group = sample
    found = infer_copy_number(counts, genome, panel, group, group != 1)
    assert not found.is_reference[group == 2].any()
    assert (found.log_odds[group == 2] > 0).mean() > 0.8


def test_two_clones_are_parted(genome, panel):
    rng = np.random.default_rng(1)
    profile = panel.expression[0]
    other = {"7q": 1.5, "1q": 1.5, "3p": 0.5, "8q": 1.5, "17p": 0.5, "5q": 0.5}
    counts = sp.csr_array(
        sp.vstack(
            [
                draw(profile, 60, genome, rng),
                draw(profile, 70, genome, rng, ALTERED),
                draw(profile, 50, genome, rng, other),
            ]
        )
    )
    group = np.repeat([0, 1, 1], [60, 70, 50])
    found = infer_copy_number(counts, genome, panel, group, group == 0)
    clone = found.clone
    assert len(found.clones) == 2
    assert (clone[60:130] == 0).mean() > 0.9  # the largest is the first
    assert (clone[130:] == 1).mean() > 0.9


# -- the profile for figures ---------------------------------------------------------------------------------


def test_windows_hold_101_neighbors_and_show_the_gain(sample, genome):
    counts, group = sample
    genes = np.flatnonzero(genome.is_used & (np.asarray(counts.sum(axis=0)).ravel() > 20))
    windows, chromosome, start = profile_windows(genome, genes)
    sizes = np.asarray(windows.sum(axis=0)).ravel()
    assert sizes.max() == 101
    assert windows.shape == (len(genes), len(chromosome))
    assert len(start) == len(chromosome)
    normal = np.asarray(counts[group == 1].sum(axis=0)).ravel()[genes]
    profile = window_profile(sp.csr_array(counts[:, genes]), normal / normal.sum(), windows)
    np.testing.assert_allclose(np.median(profile, axis=1), 0, atol=1e-6)
    tumor = profile[group == 2].mean(axis=0)
    assert tumor[chromosome == "7"].mean() > 0.15
    assert tumor[chromosome == "13"].mean() < -0.15
    assert abs(tumor[chromosome == "2"].mean()) < 0.1
