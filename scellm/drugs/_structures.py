"""Structures of drugs: SMILES, fingerprints, descriptors and how alike they are."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FINGERPRINT_BITS = 2048
"""Bits of a Morgan fingerprint of radius 2, as in ECFP4."""


@dataclass(frozen=True)
class Structure:
    """A compound as it was read."""

    smiles: str
    """Canonical SMILES of what was used."""
    inchikey: str
    note: str
    """What was left out, "" if nothing."""


def read_smiles(smiles: str) -> Structure:
    """Read a SMILES; of a salt or mixture the largest part is taken.

    Raises
    ------
    ImportError
        RDKit is not installed.
    TypeError
        `smiles` is no text.
    ValueError
        It is no valid SMILES; the message holds RDKit's reason.
    """
    rdkit = _rdkit()
    if not isinstance(smiles, str):
        msg = f"A SMILES must be text, found {smiles!r} ({type(smiles).__name__})."
        raise TypeError(msg)
    molecule, reason = parse_smiles(smiles.strip())
    if molecule is None or not molecule.GetNumAtoms():
        msg = f"{smiles!r} is no valid SMILES: {reason or 'it holds no atom'}"
        raise ValueError(msg)
    parts = rdkit.Chem.GetMolFrags(molecule, asMols=True)
    note = ""
    if len(parts) > 1:
        molecule = max(parts, key=lambda part: (part.GetNumHeavyAtoms(), rdkit.Chem.MolToSmiles(part)))
        others = sorted(rdkit.Chem.MolToSmiles(part) for part in parts if part is not molecule)
        note = f"{len(parts)} parts; the largest was used, left out: {', '.join(others)}"
    return Structure(rdkit.Chem.MolToSmiles(molecule), rdkit.Chem.MolToInchiKey(molecule), note)


def parse_smiles(smiles: str) -> tuple[Any, str]:
    """The molecule, or `None` and what RDKit said about it."""
    rdkit = _rdkit()
    from rdkit import rdBase

    heard = io.StringIO()
    rdBase.LogToPythonStderr()
    try:
        with contextlib.redirect_stderr(heard):
            molecule = rdkit.Chem.MolFromSmiles(smiles)
    finally:
        rdBase.LogToCppStreams()
    lines = [re.sub(r"^\[[\d:]+\]\s*", "", line).strip() for line in heard.getvalue().splitlines()]
    reason = " ".join(line.replace("SMILES Parse Error: ", "") for line in lines if line)
    return molecule, reason


def fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """Morgan fingerprints of radius 2 (ECFP4), bool, (n, 2048).

    Parameters
    ----------
    smiles
        Valid SMILES.

    Raises
    ------
    ImportError
        RDKit is not installed.
    """
    rdkit = _rdkit()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=FINGERPRINT_BITS)
    bits = [generator.GetFingerprintAsNumPy(rdkit.Chem.MolFromSmiles(text)) for text in smiles]
    return np.array(bits, dtype=bool).reshape(len(bits), FINGERPRINT_BITS)


def descriptors(smiles: Sequence[str]) -> np.ndarray:
    """Nine numbers of a molecule's size, polarity and shape, float64, (n, 9).

    Heavy atoms, Crippen's logP, polar surface, hydrogen-bond donors, rings, rotatable bonds, share of sp3 carbons,
    aromatic rings, chiral centers; counts and the surface as ln(1 + x).

    Parameters
    ----------
    smiles
        Valid SMILES.

    Raises
    ------
    ImportError
        RDKit is not installed.
    """
    rdkit = _rdkit()
    from rdkit.Chem import Crippen, rdMolDescriptors

    rows = []
    for text in smiles:
        molecule = rdkit.Chem.MolFromSmiles(text)
        chiral = rdkit.Chem.FindMolChiralCenters(
            molecule, includeUnassigned=True, useLegacyImplementation=False
        )
        counts = (
            molecule.GetNumHeavyAtoms(),
            rdMolDescriptors.CalcTPSA(molecule),
            rdMolDescriptors.CalcNumHBD(molecule),
            rdMolDescriptors.CalcNumRings(molecule),
            rdMolDescriptors.CalcNumRotatableBonds(molecule),
            rdMolDescriptors.CalcNumAromaticRings(molecule),
            len(chiral),
        )
        others = Crippen.MolLogP(molecule), rdMolDescriptors.CalcFractionCSP3(molecule)
        rows.append([*np.log1p(counts), *others])
    return np.array(rows, dtype=np.float64).reshape(len(rows), 9)


def structure_kernel(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Half Tanimoto similarity, half exp(-d / 2) of the mean squared difference d of descriptors, (n, m).

    Parameters
    ----------
    first, second
        Fingerprints (n, bits) and standardized descriptors (n, 9). No bits means no known structure: 0 with all.
    """
    (bits, numbers), (other_bits, other_numbers) = first, second
    apart = ((numbers[:, None] - other_numbers) ** 2).mean(-1)
    known = bits.any(1)[:, None] & other_bits.any(1)
    return 0.5 * (tanimoto(bits, other_bits) + np.where(known, np.exp(-apart / 2), 0))


def tanimoto(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shared bits over bits of either, (n, m); 0 where there are none.

    Parameters
    ----------
    first, second
        Fingerprints of shapes (n, bits) and (m, bits).
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    shared = first @ second.T
    either = first.sum(1)[:, None] + second.sum(1) - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)


def _rdkit() -> Any:
    """RDKit, or an error that names the extra."""
    try:
        import rdkit
        import rdkit.Chem
    except ImportError as error:
        msg = "Reading SMILES needs RDKit: pip install 'scellm[drug]'. Drugs of the model by name do not need it."
        raise ImportError(msg) from error
    return rdkit


def structures(smiles: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fingerprints (D, 2048) and standardized descriptors (D, 9), zero for ""; their center and spread (9,)."""
    known = np.array([bool(text) for text in smiles])
    bits, numbers = np.zeros((len(smiles), FINGERPRINT_BITS), dtype=bool), np.zeros((len(smiles), 9))
    if not known.any():
        return bits, numbers, np.zeros(9), np.ones(9)
    texts = [text for text in smiles if text]
    bits[known], found = fingerprints(texts), descriptors(texts)
    center, spread = found.mean(0), np.maximum(found.std(0), 1e-3)
    numbers[known] = (found - center) / spread
    return bits, numbers, center, spread
