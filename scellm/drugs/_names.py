"""Names of drugs: found by name, synonym, target or class."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ._structures import tanimoto
from ._targets import genes_of, target_genes

DRUG_COLUMNS = ("drug", "name", "synonyms", "target", "drug_class", "screen", "smiles", "inchikey")
"""Columns a table of drugs must have; "" where nothing is known."""


def find_drugs(
    drugs: pd.DataFrame,
    wanted: str | Iterable[str],
    *,
    known: str = "The model knows",
    remedy: str = "for another compound pass smiles=",
) -> np.ndarray:
    """Rows of the drugs that names, synonyms, targets or classes mean.

    A name or synonym means one compound (of several screens, the first row); a target or class all of its drugs.

    Parameters
    ----------
    drugs
        Table with `DRUG_COLUMNS`; synonyms and targets separated by commas.
    wanted
        Names, in any case, with or without hyphens and blanks; targets also as gene symbols and families (`MEK`).
    known, remedy
        How an error begins that lists the drugs there are, and what it says to do.

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
        msg = "drugs= is empty; name at least one drug, target or class, or leave it out."
        raise ValueError(msg)
    by_name, by_group, spelled = _index(drugs)
    exact = {
        text: row for row, text in reversed(list(enumerate(drugs["name"])))
    }  # also of compounds that differ in signs
    found: list[int] = []
    for name in names:
        if not isinstance(name, str):
            msg = f"Drugs are given by name, found {name!r} ({type(name).__name__})."
            raise TypeError(msg)
        key = _plain(name)
        groups = (by_group.get(group, []) for group in (key, *map(_plain, genes_of(name))))
        if name in exact:
            rows = [exact[name]]
        else:
            rows = [by_name[key]] if key in by_name else sorted(set().union(*groups))
        if not rows:
            near = difflib.get_close_matches(key, spelled, n=4, cutoff=0.6)
            near = list(dict.fromkeys(spelled[text] for text in near))
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            msg = (
                f"No drug, target or class is named {name!r}.{hint} {known} {len(drugs)} drugs, such as "
                f"{', '.join(drugs['name'].iloc[:4])}; {remedy}."
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
        of_drug = [*map(str.strip, target.split(",")), *target_genes(target), drug_class]
        for group in {_plain(text): text for text in reversed(of_drug)}.values():
            if _plain(group):
                by_group.setdefault(_plain(group), []).append(row)
                spelled.setdefault(_plain(group), group)
    return by_name, by_group, spelled


def _plain(name: str) -> str:
    """A name without case, blanks and punctuation, so that PLX4720 is PLX-4720."""
    return re.sub(r"[\W_]+", "", name).casefold()


def shared_targets(drugs: pd.DataFrame) -> np.ndarray:
    """Kernel of what is known of drugs' action, (n, n): half for shared targets (Jaccard), half for one class."""
    sets = [
        set(target_genes(targets)) or {text.strip() for text in targets.split(",") if text.strip()}
        for targets in drugs["target"]
    ]
    names = sorted(set().union(*sets)) if sets else []
    has = np.array([[name in one for name in names] for one in sets], dtype=bool).reshape(
        len(sets), len(names)
    )
    classes = drugs["drug_class"].to_numpy()
    same = (classes[:, None] == classes) & (classes != "")[:, None]
    return 0.5 * tanimoto(has, has) + 0.5 * same
