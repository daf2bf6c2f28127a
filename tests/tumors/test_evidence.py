"""Both kinds of evidence in one probability, calls, and names of malignant cells."""

import numpy as np
import pytest

from scellm.tumors import (
    LINEAGE,
    Combination,
    CopyNumber,
    Segments,
    call,
    combine,
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


COARSE = {
    "hepatocyte": "epithelial cell",
    "keratinocyte": "epithelial cell",
    "macrophage": "myeloid leukocyte",
    "astrocyte": "glia",
}


def test_a_clone_is_named_by_the_lineage_of_most_of_its_cells():
    types = np.array(
        ["hepatocyte", "keratinocyte", "macrophage", "astrocyte", "macrophage", "hepatocyte"], dtype=object
    )
    malignant = np.array([True, True, True, True, False, False])
    names = malignant_names(types, malignant, np.array([0, 0, 0, 1, -1, -1]), COARSE)
    assert names.tolist() == [
        *["malignant (epithelial)"] * 3,
        "malignant (neural)",
        "macrophage",
        "hepatocyte",
    ]
    split = malignant_names(types[[0, 2]], np.ones(2, dtype=bool), np.array([0, 0]), COARSE)
    assert split.tolist() == ["malignant (unclear)"] * 2
    assert types[0] == "hepatocyte"  # not changed in place


def test_a_tumor_of_blood_is_not_of_all_immune_cells():
    """As in an anaplastic thyroid cancer, whose cells the reference does not know."""
    coarse = COARSE | {"T cell": "lymphocyte", "plasma cell": "lymphocyte", "fibroblast": "stromal cell"}

    def named(**counts):
        types = np.repeat([name.replace("_", " ") for name in counts], list(counts.values())).astype(object)
        return malignant_names(types, np.ones(len(types), bool), np.zeros(len(types), int), coarse)[0]

    assert named(T_cell=7, plasma_cell=6, macrophage=6, fibroblast=4) == "malignant (unclear)"
    assert named(T_cell=15, macrophage=4, fibroblast=4) == "malignant (hematopoietic)"
    assert named(macrophage=15, T_cell=4, fibroblast=4) == "malignant (hematopoietic)"


def test_every_coarse_lineage_of_the_shipped_reference_has_a_name():
    import scellm
    from scellm.tl._malignancy_samples import coarse_lineages

    coarse = coarse_lineages(scellm.models.load("scellm-small"))
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
