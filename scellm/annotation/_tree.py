"""The tree over the types: probabilities add up along it, and a cell gets the deepest node that is sure enough."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

SLACK = 1e-6
"""Rounding of sums of float32 probabilities."""
LINEAGE_DOUBT = 0.7
"""What counts of the doubt in a lineage where an error is promised; above lineages its square counts (ours, chosen on studies
of the corpus left out: docs/benchmarks/left_out.md)."""


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
    lineage_doubt
        What counts of the doubt 1 - p in a lineage, above 0 and at most 1; see `scores`.
    """

    names: list[str]
    parents: np.ndarray
    node_of_class: np.ndarray
    is_lineage: np.ndarray
    ids: list[str] = field(default_factory=list)
    lineage_doubt: float = LINEAGE_DOUBT

    def __post_init__(self) -> None:
        places = np.arange(len(self.names))
        if len(set(self.names)) < len(self.names) or not (self.parents < places).all():
            msg = "The tree does not fit together: names twice, or a child before its parent."
            raise ValueError(msg)
        if len(self.ids) not in (0, len(self.names)) or len(self.is_lineage) != len(self.names):
            msg = "The tree does not fit together: ids or lineages of another number of nodes."
            raise ValueError(msg)
        if not 0 < self.lineage_doubt <= 1:
            msg = f"The tree does not fit together: lineage_doubt is {self.lineage_doubt}, it must be above 0 and at most 1."
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

    def scores(self, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What nodes are worth where an error is promised: 1 - c (1 - p), which never falls below p.

        c is 1 below lineages, `lineage_doubt` at them and its square above. It falls on the way up and p rises, so that
        the score never rises on a way down. 0 where there is no node.

        Parameters
        ----------
        nodes
            Any shape, -1 for none.
        values
            Their probabilities p.
        """
        is_above = self.above[self.is_lineage].any(axis=0) & ~self.is_lineage
        counts = np.where(self.is_lineage, self.lineage_doubt, np.where(is_above, self.lineage_doubt**2, 1.0))
        return np.where(nodes >= 0, 1 - counts[nodes] * (1 - values), 0.0)

    def deepest(
        self, probabilities: np.ndarray, least: float = 0.0, *, least_score: float = 0.0
    ) -> np.ndarray:
        """(n,) the deepest node on the likeliest way down that is sure enough; -1 if none is.

        Parameters
        ----------
        probabilities
            (n, K).
        least
            What its probability must reach.
        least_score
            What its score must reach.
        """
        nodes, values = self.chains(probabilities)
        is_sure = (values >= least - SLACK) & (self.scores(nodes, values) >= least_score - SLACK)
        depth = ((nodes >= 0) & is_sure).sum(axis=1)
        return np.where(depth > 0, nodes[np.arange(len(nodes)), np.maximum(depth, 1) - 1], -1)

    def first_wrong(self, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) score of the first node on the way down that the truth is not in; 0 if there is none.

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
        return np.where(wrong, self.scores(nodes, values), 0).max(axis=1, initial=0)

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
        return replace(self, node_of_class=self.node_of_class[classes])

    def to_meta(self) -> dict[str, Any]:
        """Plain lists."""
        return {
            "names": list(self.names),
            "parents": [int(x) for x in self.parents],
            "node_of_class": [int(x) for x in self.node_of_class],
            "is_lineage": [bool(x) for x in self.is_lineage],
            "ids": list(self.ids),
            "lineage_doubt": float(self.lineage_doubt),
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Tree:
        """The tree of plain lists; one written before lineages had a score of their own keeps its thresholds."""
        return cls(
            names=[str(x) for x in meta["names"]],
            parents=np.array(meta["parents"], dtype=int),
            node_of_class=np.array(meta["node_of_class"], dtype=int),
            is_lineage=np.array(meta["is_lineage"], dtype=bool),
            ids=[str(x) for x in meta["ids"]],
            lineage_doubt=float(meta.get("lineage_doubt", 1.0)),
        )
