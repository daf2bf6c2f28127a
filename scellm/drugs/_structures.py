"""Drugs: finding them by name, and structures as fingerprints."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

FINGERPRINT_BITS = 2048
"""Bits of a Morgan fingerprint of radius 2, as in ECFP4."""
DRUG_COLUMNS = ("drug", "name", "synonyms", "target", "drug_class", "screen", "smiles", "inchikey")
"""Columns a table of drugs must have; "" where nothing is known."""
TARGET_ALIASES = {
    "abl1": ("abl", "bcrabl"),
    "pik3ca": ("pi3kalpha",),
    "mtor": ("mtorc1", "mtorc2"),
    "igf1r": ("igfr1",),
    "prmt5": ("pmrt5",),
    "pik3c3": ("vps34", "vsp34"),
    "vps34": ("pik3c3", "vsp34"),
    "nae1": ("nae",),
    "her2": ("erbb2",),
    "erbb2": ("her2",),
    "mek": ("mek1", "mek2", "map2k1", "map2k2"),
    "map2k1": ("mek1",),
    "map2k2": ("mek2",),
    "mek1": ("map2k1",),
    "mek2": ("map2k2",),
}
"""Other spellings of targets in tables of drugs, misspelled ones of GDSC among them; all as `_plain` gives them."""


@dataclass(frozen=True)
class Structure:
    """A compound as it was read."""

    smiles: str
    """Canonical SMILES of what was used."""
    inchikey: str
    note: str
    """What was left out, "" if nothing."""


def find_drugs(drugs: pd.DataFrame, wanted: str | Iterable[str]) -> np.ndarray:
    """Rows of the drugs that names, synonyms, targets or classes mean.

    A name or synonym means one compound (of several screens, the first row); a target or class all of its drugs.

    Parameters
    ----------
    drugs
        Table with `DRUG_COLUMNS`; synonyms and targets separated by commas.
    wanted
        Names, in any case, with or without hyphens and blanks; targets also as gene symbols or by `TARGET_ALIASES`.

    Returns
    -------
    Row numbers in the order asked for, each once.

    Raises
    ------
    KeyError
        A name is not known; the nearest ones are listed.
    TypeError
        A name is no text, or `wanted` neither text nor several names.
    ValueError
        No name is given.
    """
    if not isinstance(wanted, Iterable):
        msg = f"drugs= takes a name or several names, found {wanted!r} ({type(wanted).__name__})."
        raise TypeError(msg)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        msg = "drugs= is empty; name at least one drug, target or class, or leave it out for the panel."
        raise ValueError(msg)
    by_name, by_group, spelled = _index(drugs)
    found: list[int] = []
    for name in names:
        if not isinstance(name, str):
            msg = f"Drugs are given by name, found {name!r} ({type(name).__name__})."
            raise TypeError(msg)
        key = _plain(name)
        groups = (by_group.get(group, []) for group in (key, *TARGET_ALIASES.get(key, ())))
        rows = [by_name[key]] if key in by_name else sorted(set().union(*groups))
        if not rows:
            near = difflib.get_close_matches(key, spelled, n=4, cutoff=0.6)
            near = list(dict.fromkeys(spelled[text] for text in near))
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            msg = (
                f"No drug, target or class is named {name!r}.{hint} The model knows {len(drugs)} drugs, such as "
                f"{', '.join(drugs['name'].iloc[:4])}; for another compound pass smiles=."
            )
            raise KeyError(msg)
        found += rows
    return np.array(list(dict.fromkeys(found)), dtype=np.int64)


def _index(drugs: pd.DataFrame) -> tuple[dict[str, int], dict[str, list[int]], dict[str, str]]:
    """Row of each plain name, rows of each plain target and class, and how each is spelled."""
    by_name: dict[str, int] = {}
    by_group: dict[str, list[int]] = {}
    spelled: dict[str, str] = {}

    def add(text: str, row: int) -> None:
        if _plain(text):
            by_name.setdefault(_plain(text), row)
            spelled.setdefault(_plain(text), text)

    for column in ("drug", "name"):  # names of their own before synonyms of others
        for row, text in enumerate(drugs[column]):
            add(text, row)
    for row, text in enumerate(drugs["synonyms"]):
        for synonym in text.split(","):
            add(synonym.strip(), row)
    for row, (target, drug_class) in enumerate(zip(drugs["target"], drugs["drug_class"], strict=True)):
        for group in dict.fromkeys([*map(str.strip, target.split(",")), drug_class]):
            if _plain(group):
                by_group.setdefault(_plain(group), []).append(row)
                spelled.setdefault(_plain(group), group)
    return by_name, by_group, spelled


def _plain(name: str) -> str:
    """A name without case, blanks and punctuation, so that PLX4720 is PLX-4720."""
    return re.sub(r"[\W_]+", "", name).casefold()


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
    molecule, reason = _parse(smiles.strip())
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


def _parse(smiles: str) -> tuple[Any, str]:
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
    aromatic rings, chiral centres; counts and the surface as ln(1 + x).

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
        Fingerprints (n, bits) and standardised descriptors (n, 9). No bits means no known structure: 0 with all.
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


def shared_targets(drugs: pd.DataFrame) -> np.ndarray:
    """Kernel of what is known of drugs' action, (n, n): half for shared targets (Jaccard), half for one class."""
    sets = [{text.strip() for text in targets.split(",") if text.strip()} for targets in drugs["target"]]
    names = sorted(set().union(*sets)) if sets else []
    has = np.array([[name in one for name in names] for one in sets], dtype=bool).reshape(
        len(sets), len(names)
    )
    classes = drugs["drug_class"].to_numpy()
    same = (classes[:, None] == classes) & (classes != "")[:, None]
    return 0.5 * tanimoto(has, has) + 0.5 * same


def _rdkit() -> Any:
    """RDKit, or an error that names the extra."""
    try:
        import rdkit
        import rdkit.Chem
    except ImportError as error:
        msg = "Reading SMILES needs RDKit: pip install 'scellm[drug]'. Drugs of the model by name do not need it."
        raise ImportError(msg) from error
    return rdkit
