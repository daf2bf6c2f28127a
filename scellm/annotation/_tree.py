"""The tree over the types: probabilities add up along it, and a cell gets the deepest node that is sure enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SLACK = 1e-6
"""Rounding of sums of float32 probabilities."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Nodes with a parent each; classes are nodes, most of them leaves.

    Parameters
    ----------
    names
        (M,) names, no two alike; a parent stands before its children.
    parents
        (M,) place of the parent, -1 for a node at the top.
    node_of_class
        (K,) node of each class. A class may be a node with children: cells of it that are none of them.
    is_lineage
        (M,) nodes that are named in the coarse column; no two on one path.
    ids
        (M,) ids of an ontology, "" for none.
    """

    names: list[str]
    parents: np.ndarray
    node_of_class: np.ndarray
    is_lineage: np.ndarray
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        places = np.arange(len(self.names))
        if len(set(self.names)) < len(self.names) or not (self.parents < places).all():
            msg = "The tree does not fit together: names twice, or a child before its parent."
            raise ValueError(msg)
        if len(self.ids) not in (0, len(self.names)) or len(self.is_lineage) != len(self.names):
            msg = "The tree does not fit together: ids or lineages of another number of nodes."
            raise ValueError(msg)

    @property
    def above(self) -> np.ndarray:
        """(M, M) bool, whether the node of the column is the node of the row or an ancestor of it."""
        found = np.eye(len(self.names), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[node] |= found[parent]
        return found

    @property
    def holds(self) -> np.ndarray:
        """(K, M) bool, whether a class belongs to a node."""
        return self.above[self.node_of_class]

    @property
    def lineage(self) -> np.ndarray:
        """(M,) the lineage at or above each node, -1 where there is none."""
        found = np.full(len(self.names), -1)
        for node, parent in enumerate(self.parents):
            found[node] = node if self.is_lineage[node] else (found[parent] if parent >= 0 else -1)
        return found

    def path(self, node: int) -> list[str]:
        """Names from the top down to a node."""
        found: list[str] = []
        while node >= 0:
            found.append(self.names[node])
            node = int(self.parents[node])
        return found[::-1]

    def sums(self, probabilities: np.ndarray) -> np.ndarray:
        """(n, M) probability of each node: the sum over its classes."""
        return probabilities @ self.holds.astype(probabilities.dtype)

    def chains(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest way down: (n, D) nodes, -1 after the last, and (n, D) their probabilities, which never rise.

        At each node the way goes to the likeliest child, and ends where a cell is likelier to be of the node's own class.
        """
        sums = self.sums(probabilities)
        own = np.zeros_like(sums)
        own[:, self.node_of_class] = probabilities
        depth = int(self.above.sum(axis=1).max())
        nodes = np.full((len(sums), depth), -1)
        values = np.zeros((len(sums), depth), dtype=sums.dtype)
        at = np.full(len(sums), -1)
        is_open = np.ones(len(sums), dtype=bool)
        for level in range(depth):
            for node in np.unique(at[is_open]):
                rows = np.flatnonzero(is_open & (at == node))
                children = np.flatnonzero(self.parents == node)
                if not len(children):
                    is_open[rows] = False
                    continue
                best = sums[np.ix_(rows, children)].argmax(axis=1)
                value = sums[rows, children[best]]
                goes = value >= own[rows, node] if node >= 0 else np.ones(len(rows), dtype=bool)
                is_open[rows[~goes]] = False
                nodes[rows[goes], level] = children[best[goes]]
                values[rows[goes], level] = value[goes]
            at = np.where(is_open, nodes[:, level], at)
        return nodes, values

    def deepest(self, probabilities: np.ndarray, least: float) -> np.ndarray:
        """(n,) the deepest node on the likeliest way down whose probability is at least `least`; -1 if none is."""
        nodes, values = self.chains(probabilities)
        depth = ((nodes >= 0) & (values >= least - SLACK)).sum(axis=1)
        return np.where(depth > 0, nodes[np.arange(len(nodes)), np.maximum(depth, 1) - 1], -1)

    def first_wrong(self, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) probability of the first node on the way down that the truth is not in; 0 if there is none.

        As in `agrees`.

        Parameters
        ----------
        probabilities
            (n, K).
        truth
            (n,) true node.
        """
        nodes, values = self.chains(probabilities)
        wrong = (nodes >= 0) & ~self.agrees(nodes, truth[:, None])
        return np.where(wrong, values, 0).max(axis=1, initial=0)

    def agrees(self, nodes: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Whether nodes are the truth or an ancestor of it.

        A node below a truth that is no class agrees: of a cell known as a T cell nobody knows that it is no CD4 T cell.
        """
        above = self.above
        is_class = np.zeros(len(self.names), dtype=bool)
        is_class[self.node_of_class] = True
        return above[truth, nodes] | (above[nodes, truth] & ~is_class[truth])

    def distance(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(n,) edges between two nodes of each row; -1 is the root above all."""
        above = np.vstack([self.above, np.zeros(len(self.names), dtype=bool)])
        return (above[one] ^ above[other]).sum(axis=1)

    def keep(self, classes: np.ndarray) -> Tree:
        """The tree of some of the classes, with all nodes."""
        return Tree(
            names=self.names,
            parents=self.parents,
            node_of_class=self.node_of_class[classes],
            is_lineage=self.is_lineage,
            ids=self.ids,
        )

    def to_meta(self) -> dict[str, Any]:
        """Plain lists."""
        return {
            "names": list(self.names),
            "parents": [int(x) for x in self.parents],
            "node_of_class": [int(x) for x in self.node_of_class],
            "is_lineage": [bool(x) for x in self.is_lineage],
            "ids": list(self.ids),
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Tree:
        """The tree of plain lists."""
        return cls(
            names=[str(x) for x in meta["names"]],
            parents=np.array(meta["parents"], dtype=int),
            node_of_class=np.array(meta["node_of_class"], dtype=int),
            is_lineage=np.array(meta["is_lineage"], dtype=bool),
            ids=[str(x) for x in meta["ids"]],
        )
