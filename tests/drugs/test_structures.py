"""SMILES, fingerprints, descriptors and how alike structures are."""

import builtins

import numpy as np
import pytest

from scellm.drugs import descriptors, fingerprints, read_smiles, structure_kernel, tanimoto


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
