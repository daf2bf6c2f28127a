"""Drugs by name, synonym, target and class."""

import numpy as np
import pandas as pd
import pytest

from scellm.drugs import find_drugs
from scellm.drugs._names import shared_targets


@pytest.fixture
def drugs() -> pd.DataFrame:
    rows = [
        ("GDSC:1", "Erlotinib", "Tarceva, OSI-774", "EGFR", "EGFR signaling"),
        ("GDSC:2", "Lapatinib", "Tykerb", "EGFR, ERBB2", "EGFR signaling"),
        ("GDSC:3", "PLX-4720", "PLX4720", "BRAF", "ERK MAPK signaling"),
        ("GDSC:4", "Nutlin-3a (-)", "", "MDM2", "p53 pathway"),
        ("GDSC:5", "Mystery", "Erlotinib", "", ""),
    ]
    return pd.DataFrame(rows, columns=["drug", "name", "synonyms", "target", "drug_class"])


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ("erlotinib", [0]),
        ("OSI 774", [0]),
        ("plx4720", [2]),
        ("nutlin-3a", [3]),
        ("GDSC:4", [3]),
        ("EGFR", [0, 1]),
        ("ERBB2", [1]),
        ("egfr signaling", [0, 1]),
        (["BRAF", "EGFR", "Erlotinib"], [2, 0, 1]),
    ],
    ids=str,
)
def test_drugs_are_found_by_name_synonym_target_and_class(drugs, wanted, rows):
    assert find_drugs(drugs, wanted).tolist() == rows


def test_unknown_names_offer_the_nearest(drugs):
    with pytest.raises(
        KeyError, match="No drug, target or class is named 'Erlotnib'. Did you mean 'Erlotinib'"
    ):
        find_drugs(drugs, "Erlotnib")


def test_names_must_be_text_and_some(drugs):
    with pytest.raises(TypeError, match="found 7"):
        find_drugs(drugs, [7])
    with pytest.raises(ValueError, match="drugs= is empty"):
        find_drugs(drugs, [])
    with pytest.raises(TypeError, match="drugs= takes a name or several names, found 3"):
        find_drugs(drugs, 3)


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("ABL1", "ABL"),
        ("PIK3CA", "PI3Kalpha"),
        ("MTOR", "mTORC1, mTORC2"),
        ("IGF1R", "IGFR1"),
        ("PRMT5", "PMRT5"),
        ("PIK3C3", "VSP34"),
        ("NAE1", "NAE"),
        ("HER2", "ERBB2"),
        ("MEK", "MEK1, MEK2"),
        ("MAP2K2", "MEK1, MEK2"),
    ],
)
def test_targets_are_found_by_symbol_though_the_table_spells_them_otherwise(drugs, wanted, target):
    drugs.loc[0, "target"], drugs.loc[2, "target"] = target, wanted
    rows = find_drugs(drugs, wanted).tolist()
    assert {0, 2} <= set(rows)
    assert set(rows) <= {0, 1, 2}


def test_drugs_share_targets_and_classes(drugs):
    kernel = shared_targets(drugs)
    np.testing.assert_allclose(kernel[0], [1, 0.75, 0, 0, 0])
    assert kernel[4, 4] == 0  # nothing known is nothing shared
    assert np.linalg.eigvalsh(kernel).min() > -1e-6


def test_a_name_as_written_comes_before_one_that_reads_alike(drugs):
    drugs.loc[4, "name"] = "PLX4720"
    assert find_drugs(drugs, "PLX4720").tolist() == [4]
    assert find_drugs(drugs, "PLX-4720").tolist() == [2]
