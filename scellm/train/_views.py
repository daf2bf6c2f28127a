"""Two looks at one cell: fewer counts, fewer genes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from .._fields import check_fields
from ..data import Tokens, log_normalize


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How a view of a cell is drawn (ours).

    Parameters
    ----------
    keep_counts
        Range of the share of counts that is kept, drawn per cell: as if it had been sequenced less deeply.
    max_counts
        Deeper cells are thinned to this many counts first, so that full-length protocols look like droplets.
    drop_genes
        Range of the share of expressed genes left out, drawn per cell.
    max_genes
        About this many genes stay at most, a random choice.
    target_sum
        Scale of the values, as in `TokenConfig`.
    """

    keep_counts: tuple[float, float] = (0.4, 1.0)
    max_counts: float = 20_000
    drop_genes: tuple[float, float] = (0.1, 0.7)
    max_genes: int = 256
    target_sum: float = 1e4

    def __post_init__(self) -> None:
        for name in ("keep_counts", "drop_genes"):
            low, high = limits = tuple(getattr(self, name))
            if not 0 <= low <= high <= 1:
                msg = f"ViewConfig.{name} is {limits}; it must be two shares between 0 and 1, the smaller one first."
                raise ValueError(msg)
            object.__setattr__(self, name, limits)
        for name in ("max_counts", "max_genes", "target_sum"):
            if not getattr(self, name) > 0:
                msg = f"ViewConfig.{name} is {getattr(self, name)}; it must be positive."
                raise ValueError(msg)

    @property
    def is_identity(self) -> bool:
        """Whether both views of a cell hold the same genes and values, apart from cells that are too long or deep."""
        return self.keep_counts == (1, 1) and self.drop_genes == (0, 0)

    @classmethod
    def named(cls, name: Literal["dropout", "genes", "counts", "genes+counts"], **changes: Any) -> ViewConfig:
        """One of the named ways to draw views.

        Parameters
        ----------
        name
            `"dropout"`: the cell itself twice, so that only the encoder's dropout makes a difference, as published
            (paper, section 3.2.3). `"genes"`: random subsets of its genes. `"counts"`: binomially thinned counts.
            `"genes+counts"`: both, the default (ours).
        changes
            Other fields.

        Raises
        ------
        ValueError
            Unknown name or field.
        """
        if name not in _NAMED:
            msg = f"No views are named {name!r}; choose one of {list(_NAMED)}."
            raise ValueError(msg)
        return cls.from_dict(_NAMED[name] | changes)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ViewConfig:
        """Build from plain values; unknown fields are an error that names the nearest known one.

        Raises
        ------
        ValueError
            Unknown fields or values out of range.
        """
        check_fields(fields, [x.name for x in dataclasses.fields(cls)], "views")
        return cls(**fields)


_WHOLE_CELL: dict[str, Any] = {"keep_counts": (1, 1), "drop_genes": (0, 0), "max_counts": 1e9}
_NAMED: dict[str, dict[str, Any]] = {
    "dropout": _WHOLE_CELL,
    "genes": {"keep_counts": (1, 1)},
    "counts": {"drop_genes": (0, 0)},
    "genes+counts": {},
}


def draw_view(counts: sp.csr_array, config: ViewConfig, rng: np.random.Generator) -> Tokens:
    """Draw one view of each cell.

    Parameters
    ----------
    counts
        (B, n_genes) linear expression. Whole numbers are thinned binomially, others by a Poisson draw.
    config
        What is drawn.
    rng
        Source of randomness; everything is drawn here, nothing later.
    """
    lengths = np.diff(counts.indptr)
    totals = counts.sum(1, dtype=np.float64)
    share = rng.uniform(*config.keep_counts, size=len(lengths))
    share *= np.minimum(1, config.max_counts / np.maximum(totals, 1))
    share = np.repeat(share, lengths)
    if np.array_equal(counts.data, np.rint(counts.data)):
        sampled = rng.binomial(counts.data.astype(np.int64), share)
    else:
        sampled = rng.poisson(counts.data * share)
    thinned = sp.csr_array((sampled.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)
    thinned = thinned.copy()
    thinned.eliminate_zeros()
    return _subset(log_normalize(thinned, config.target_sum), config, rng)


def _subset(values: sp.csr_array, config: ViewConfig, rng: np.random.Generator) -> Tokens:
    """Keep each gene of a cell with the same chance."""
    lengths = np.diff(values.indptr)
    share = 1 - rng.uniform(*config.drop_genes, size=len(lengths))
    share = np.minimum(share, config.max_genes / np.maximum(lengths, 1))
    kept = rng.random(len(values.data), dtype=np.float32) < np.repeat(share.astype(np.float32), lengths)
    indptr = np.concatenate([[0], np.cumsum(kept)])[values.indptr]
    return Tokens(values.indices[kept].astype(np.int32), values.data[kept], indptr)
