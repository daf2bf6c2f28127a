"""Drugs by name, target and class; SMILES."""

import builtins

import numpy as np
import pandas as pd
import pytest

from scellm.drugs import descriptors, find_drugs, fingerprints, read_smiles, structure_kernel, tanimoto
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


def test_the_largest_part_of_a_salt_is_read():
    salt, free = read_smiles("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"), read_smiles("CC(=O)Oc1ccccc1C(=O)O")
    assert "[Na+]" in salt.note
    assert free.note == ""
    assert salt.inchikey.split("-")[0] == free.inchikey.split("-")[0]


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [("CCX", "position 3"), ("c1ccc", "unclosed ring"), ("C(C)(C)(C)(C)C", "valence"), ("  ", "no atom")],
    ids=["syntax", "ring", "valence", "empty"],
)
def test_invalid_smiles_say_where(smiles, reason, capfd):
    with pytest.raises(ValueError, match=f"no valid SMILES.*{reason}"):
        read_smiles(smiles)
    assert capfd.readouterr().err == ""  # RDKit does not talk past us


def test_smiles_must_be_text():
    with pytest.raises(TypeError, match="must be text"):
        read_smiles(3)


def test_without_rdkit_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("rdkit"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'scellm\[drug\]'"):
        read_smiles("CCO")


def test_fingerprints_do_not_depend_on_how_a_structure_is_written():
    bits = fingerprints(["OCC", "CCO", "c1ccccc1O"])
    assert bits.shape == (3, 2048)
    assert (bits[0] == bits[1]).all()
    assert (bits[0] != bits[2]).any()


def test_tanimoto_is_shared_over_either():
    a = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    b = np.array([[1, 0, 1, 0], [1, 1, 0, 0]], dtype=bool)
    np.testing.assert_allclose(tanimoto(a, b), [[1 / 3, 1], [0, 0]])


def test_drugs_share_targets_and_classes(drugs):
    kernel = shared_targets(drugs)
    np.testing.assert_allclose(kernel[0], [1, 0.75, 0, 0, 0])
    assert kernel[4, 4] == 0  # nothing known is nothing shared
    assert np.linalg.eigvalsh(kernel).min() > -1e-6


def test_descriptors_see_size_and_chirality():
    small, large, chiral = descriptors(["CCO", "CCCCCCCCCCCCO", "C[C@H](O)C(F)Cl"])
    assert small[0] == pytest.approx(np.log1p(3))
    assert large[0] > small[0]
    assert large[7] > small[7]  # logP
    assert chiral[6] > small[6] == 0


def test_structures_are_most_like_themselves_and_unknown_ones_like_none():
    smiles = ["CCO", "CCN", "c1ccc2ccccc2c1"]
    bits, numbers = fingerprints(smiles), descriptors(smiles)
    bits[2] = False  # as where no structure is known
    kernel = structure_kernel((bits, numbers), (bits, numbers))
    np.testing.assert_allclose(np.diag(kernel)[:2], 1)
    assert 0 < kernel[0, 1] < 1
    assert (kernel[2] == 0).all()
    assert np.linalg.eigvalsh(kernel).min() > -1e-6
