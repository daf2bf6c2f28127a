"""Both kinds of evidence in one probability, calls, and names of malignant cells."""

import numpy as np
import pytest

from scellm.tumors import (
    LINEAGE,
    LINEAGES,
    Combination,
    CopyNumber,
    Segments,
    call,
    combine,
    lineage_probabilities,
    malignant_names,
    normal_types,
)

WEIGHTS = Combination(head=0.5, copy=0.4, found=2.0, absent=-7.0)


def copies(log_odds, *, is_usable=True, has_clone=True):
    n, none = len(log_odds), np.zeros(0, dtype=int)
    return CopyNumber(
        is_usable=is_usable,
        reference="sample",
        is_reference=np.zeros(n, dtype=bool),
        score=np.zeros(n),
        log_odds=np.asarray(log_odds, dtype=float),
        clone=np.full(n, -1),
        segments=Segments(none, none, np.zeros(0, dtype=str)),
        statistic=np.zeros(n),
        normal=np.zeros(0),
        clones=[object()] if has_clone else [],
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=float)))


def test_the_formula():
    head = np.array([1.0, -2.0, 100.0])
    both = combine(head, copies([3.0, -4.0, 50.0]), WEIGHTS)
    np.testing.assert_allclose(both, sigmoid([0.5 + 2 + 1.2, -1 + 2 - 1.6, 3 + 2 + 4]))  # bounded at 6 and 10
    np.testing.assert_allclose(
        combine(head, copies([0, 0, 0], has_clone=False), WEIGHTS), sigmoid([-6.5, -8, -4])
    )


@pytest.mark.parametrize("evidence", [None, copies([5.0], is_usable=False)], ids=["none", "too few genes"])
def test_without_copy_number_the_head_is_alone(evidence):
    np.testing.assert_allclose(combine(np.array([1.5]), evidence, WEIGHTS), sigmoid([1.5]))


def test_more_of_either_evidence_is_never_less_malignant():
    for head in ([-1.0, 0.0, 2.0], [0.0, 0.0, 0.0]):
        assert (np.diff(combine(np.array(head), copies([-1.0, 0.0, 2.0]), WEIGHTS)) > 0).all()


def test_calls_and_their_thresholds():
    probability = np.array([0.35, 0.36, 0.79, 0.8, 0.98, np.nan])
    assert call(probability, is_alone=False).tolist() == [
        "normal",
        "undecided",
        "undecided",
        "malignant",
        "malignant",
        "undecided",
    ]
    assert call(probability, is_alone=True).tolist() == [
        "normal",
        *["undecided"] * 3,
        "malignant",
        "undecided",
    ]


def likely(**lineages):
    """(1, L) probabilities of one cell; what is left is spread over the other lineages."""
    rest = (1 - sum(lineages.values())) / (len(LINEAGES) - len(lineages))
    return np.array([[lineages.get(name, rest) for name in LINEAGES]])


def test_a_clone_is_named_by_what_its_cells_are_on_average():
    """Cells that the reference does not know say little, and do not outvote those that it knows."""
    sure, unsure = likely(epithelial=0.9), likely(hematopoietic=0.35, epithelial=0.3)
    lineages = np.vstack([sure, sure, unsure, likely(neural=0.9), unsure, unsure])
    types = np.array(["duct cell", "T cell", "T cell", "astrocyte", "T cell", "hepatocyte"], dtype=object)
    malignant = np.array([True, True, True, True, False, False])
    names = malignant_names(types, malignant, np.array([0, 0, 0, 1, -1, -1]), lineages)
    assert names.tolist() == [
        *["malignant (epithelial)"] * 3,
        "malignant (neural)",
        "T cell",
        "hepatocyte",
    ]
    split = malignant_names(types[:2], np.ones(2, dtype=bool), np.array([0, 0]), lineages[[1, 2]] * 0.8)
    assert split.tolist() == ["malignant (unclear)"] * 2
    assert types[0] == "duct cell"  # not changed in place


def test_cells_of_no_known_lineage_are_unclear():
    """As in an anaplastic thyroid cancer: unknown cells were called immune cells of all kinds."""
    unsure = np.repeat(likely(hematopoietic=0.42), 20, axis=0)
    types, here = np.full(20, "T cell", dtype=object), np.ones(20, dtype=bool)
    assert set(malignant_names(types, here, np.zeros(20, int), unsure)) == {"malignant (unclear)"}
    leukemia = np.repeat(likely(hematopoietic=0.58), 20, axis=0)
    assert set(malignant_names(types, here, np.zeros(20, int), leukemia)) == {"malignant (hematopoietic)"}
    assert set(malignant_names(types, here, np.zeros(20, int), 0 * leukemia)) == {"malignant (unclear)"}


def test_probabilities_of_lineages_are_sums_over_types():
    coarse = {
        "hepatocyte": "epithelial cell",
        "macrophage": "myeloid leukocyte",
        "T cell": "lymphocyte",
        "cell": "",
    }
    found = lineage_probabilities(np.array([[0.2, 0.3, 0.4, 0.1]]), list(coarse), coarse)
    assert dict(zip(LINEAGES, found[0], strict=True)) == pytest.approx(
        dict.fromkeys(LINEAGES, 0.0) | {"epithelial": 0.2, "hematopoietic": 0.7}
    )


def test_every_coarse_lineage_of_the_shipped_reference_has_a_name():
    import scellm
    from scellm.tl._annotate_sources import of_model
    from scellm.tl._malignancy_types import coarse_lineages

    coarse = coarse_lineages(of_model(scellm.models.load("scellm-small"))[0])
    assert set(coarse.values()) - {""} == set(LINEAGE)
    assert {
        "B cell",
        "CD4 T cell",
        "macrophage",
        "endothelial cell",
        "fibroblast",
        "pericyte",
    } <= normal_types(coarse)
    assert not normal_types(coarse) & {
        "beta cell",
        "thymocyte",
        "melanocyte",
        "epithelial cell",
        "adipocyte",
        "blood cell",
    }
