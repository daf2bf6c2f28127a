"""Trees over a user's own labels: from columns that go from coarse to fine, or from ids of the Cell Ontology."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ._tree import Tree

ONTOLOGY = Path(__file__).with_name("cell_ontology.tsv.gz")
ROOT = "CL:0000000"


def tree_of_levels(labels: np.ndarray, levels: dict[str, np.ndarray], classes: Sequence[str]) -> Tree:
    """The tree that columns make over the classes; the first column holds the lineages.

    Parameters
    ----------
    labels
        (n,) finest labels.
    levels
        Column -> (n,) labels, from coarse to fine, "" where there is none.
    classes
        The finest labels that are classes.

    Raises
    ------
    ValueError
        One label under two of a coarser column, or one name at two places of the tree.
    """
    parent: dict[str, str] = {}
    lineages: list[str] = []
    columns = [*levels.items(), ("labels", labels)]
    rows = np.isin(labels, list(classes))
    for row in np.flatnonzero(rows):
        path: list[str] = []
        for _, values in columns:
            name = str(values[row])
            if name and (not path or path[-1] != name):
                path.append(name)
        if len(set(path)) < len(path):
            msg = f"levels= name {path[0]!r} twice on one path, with others between: {' > '.join(path)}. Rename one of them."
            raise ValueError(msg)
        for name, above in zip(path, ["", *path[:-1]], strict=True):
            if parent.setdefault(name, above) != above:
                msg = (
                    f"levels= contradict each other: {name!r} is under {parent[name] or 'nothing'!r} in some cells and under "
                    f"{above or 'nothing'!r} in others. Each type needs one place; correct the columns "
                    f"{list(levels)}, or leave levels= out."
                )
                raise ValueError(msg)
        lineages.append(path[0])
    return _tree(parent, set(lineages), list(classes), {})


def tree_of_ids(ids: dict[str, str]) -> tuple[Tree, dict[str, str]]:
    """The tree over classes with ids of the Cell Ontology, and the obsolete ids that were replaced.

    Of the ancestors those are kept that tell the classes apart: at each node the classes are split by the ancestors that
    hold the most of them.

    Raises
    ------
    ValueError
        Ids that the ontology does not have, or obsolete ones without a successor.
    """
    names, parents, replaced_by = cell_ontology()
    replaced: dict[str, str] = {}
    found: dict[str, str] = {}
    for label, term in ids.items():
        now = term
        if replaced_by.get(term):
            now = replaced[term] = replaced_by[term]
        if now not in names:
            msg = f"{term!r} of {label!r} is {'obsolete without a successor' if term in names else 'no id of the Cell Ontology (CL:0000236 is one)'}. Correct it in the column of ids."
            raise ValueError(msg)
        found[label] = now
    above = {label: _ancestors(term, parents) for label, term in found.items()}
    parent: dict[str, str] = {}
    id_of = {label: found[label] for label in ids}
    _split(list(ids), "", above, names, parent, id_of)
    lineages = {label for label in parent if not parent[label]}
    return _tree(parent, lineages, list(ids), id_of), replaced


def _split(
    labels: list[str],
    under: str,
    above: dict[str, set[str]],
    names: dict[str, str],
    parent: dict[str, str],
    id_of: dict[str, str],
    used: frozenset[str] = frozenset(),
) -> None:
    """Put labels under a node, by way of the ancestors that hold several but not all of them."""
    left = list(labels)
    while left:
        holds: dict[str, list[str]] = {}
        for label in left:
            for term in above[label] - used:
                holds.setdefault(term, []).append(label)
        several = {t: x for t, x in holds.items() if 1 < len(x) < len(labels)}
        if not several:
            for label in left:
                parent[label] = under
            return
        # the widest; of equal ones the lowest, which has the most ancestors
        term = max(several, key=lambda t: (len(several[t]), len(_ancestors(t, cell_ontology()[1])), t))
        mine = several[term]
        owner = next((label for label in mine if id_of.get(label) == term), names[term])
        if owner in parent or (owner in above and owner not in mine):
            owner = f"{owner} ({term})"
        parent[owner], id_of[owner] = under, term
        below = [label for label in mine if label != owner]
        _split(below, owner, above, names, parent, id_of, used | {term})
        left = [label for label in left if label not in mine]


def _tree(parent: dict[str, str], lineages: set[str], classes: list[str], ids: dict[str, str]) -> Tree:
    """Nodes in an order with parents first."""
    order: list[str] = []

    def add(name: str) -> None:
        if name not in order:
            if parent[name]:
                add(parent[name])
            order.append(name)

    for name in [*classes, *parent]:
        add(name)
    place = {name: i for i, name in enumerate(order)}
    return Tree(
        names=order,
        parents=np.array([place.get(parent[name], -1) for name in order]),
        node_of_class=np.array([place[name] for name in classes]),
        is_lineage=np.array([name in lineages for name in order]),
        ids=[ids.get(name, "") for name in order],
    )


def _ancestors(term: str, parents: dict[str, list[str]]) -> set[str]:
    """A term and all above it, without the root of all cells."""
    found: set[str] = set()
    open_terms = [term]
    while open_terms:
        now = open_terms.pop()
        if now not in found and now != ROOT:
            found.add(now)
            open_terms += parents.get(now, [])
    return found


@cache
def cell_ontology() -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Names, parents and replacements by id."""
    names: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    replaced: dict[str, str] = {}
    with gzip.open(ONTOLOGY, "rt", encoding="utf-8") as file:
        for line in list(file)[2:]:
            term, name, above, instead = line.rstrip("\n").split("\t")
            names[term], parents[term] = name, above.split(";") if above else []
            if instead:
                replaced[term] = instead if instead.startswith("CL:") else "none"
    return names, parents, replaced
