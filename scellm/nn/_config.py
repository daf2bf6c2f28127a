"""The architecture of an encoder, one field per choice."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from .._fields import check_fields


@dataclass(frozen=True, kw_only=True)
class CellLMConfig:
    """Architecture of a CellLM encoder :cite:p:`Zhao2023`.

    The defaults are those of the published model, except where marked "ours". A configuration is checked
    when it is built, so that a wrong one fails before any data is read.

    Parameters
    ----------
    n_genes
        Size of the gene vocabulary. The embedding table has two more rows, for CLS and PAD.
    dim
        Size `D` of hidden states and of the cell embedding.
    depth
        Number of encoder blocks; 0 leaves a bag of genes, the first stage of our pretraining.
    heads, dim_head
        Number of attention heads and their size; `heads * dim_head` may differ from `dim`.
    ff_mult
        Width of the feed-forward layer as a multiple of `dim`.
    attention
        `"favor"`: FAVOR+ linear attention :cite:p:`Choromanski2021`, as published. `"softmax"`: exact
        attention (ours).
    n_features
        Random features `M` per head of FAVOR+; `None` is `int(dim_head * ln(dim_head))`, as published.
    expression
        `"bins"`: the integer part of log1p expression picks one of a few embeddings, as published.
        `"continuous"`: the gene embedding is scaled by its expression (ours).
    amount
        Scale of continuous expression. `"log1p"`: log1p of normalized counts. `"sqrt"`: their square root, whose
        Poisson noise is the same at every level (ours).
    n_expression_tokens
        Expression bins plus two special tokens (CLS, PAD); 8 as published, so bins are 0 to 5. Also the
        number of classes the masked-gene head predicts.
    cell_embedding
        `"cls"`: hidden state of a CLS position, as published. `"mean"`: mean over the genes (ours). `"unit"`: sum
        over the genes, after the amounts of each cell are scaled to a vector of length 1 (ours); for encoders without
        blocks: whatever these add to every token is multiplied by the square root of the number of genes and drowns
        the cell. `"bag"`: that sum over the *input* tokens, plus the mean over the genes of what the blocks changed
        (ours); the blocks start at zero, so the encoder starts as the bag. Both need continuous expression.
    cell_depth
        Feed-forward blocks on the pooled cell embedding (ours): cheap, as they run once per cell.
    padded_context
        If set, attention behaves as if every cell were padded to this many positions, as in the published
        code, where padding takes part in the normalizer. Costs one position, not thousands.
    dropout
        Dropout after attention and feed-forward layers.
    """

    n_genes: int
    dim: int = 512
    depth: int = 10
    heads: int = 16
    dim_head: int = 64
    ff_mult: int = 4
    attention: Literal["favor", "softmax"] = "favor"
    n_features: int | None = None
    expression: Literal["bins", "continuous"] = "bins"
    amount: Literal["log1p", "sqrt"] = "log1p"
    n_expression_tokens: int = 8
    cell_embedding: Literal["cls", "mean", "unit", "bag"] = "cls"
    cell_depth: int = 0
    padded_context: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field, (least, most) in _LIMITS.items():
            value = getattr(self, field)
            if value is None and field in ("n_features", "padded_context"):
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= most:
                msg = f"CellLMConfig.{field} is {value!r}; it must be a whole number of at least {least}, at most {most:,}."
                raise ValueError(msg)
        for field, choices in _CHOICES.items():
            if not isinstance(getattr(self, field), str) or getattr(self, field) not in choices:
                msg = f"CellLMConfig.{field} is {getattr(self, field)!r}; choose one of {choices}."
                raise ValueError(msg)
        if self.expression != "continuous" and (self.amount != "log1p" or self.has_unit_amounts):
            msg = (
                f"CellLMConfig(amount={self.amount!r}, cell_embedding={self.cell_embedding!r}) needs "
                f"expression='continuous'; it is {self.expression!r}."
            )
            raise ValueError(msg)
        if self.n_expression_tokens < 4:
            msg = (
                f"CellLMConfig.n_expression_tokens is {self.n_expression_tokens}; it counts the bins plus CLS "
                "and PAD, so it must be at least 4."
            )
            raise ValueError(msg)
        if (
            isinstance(self.dropout, bool)
            or not isinstance(self.dropout, int | float)
            or not 0 <= self.dropout < 1
        ):
            msg = f"CellLMConfig.dropout is {self.dropout}; it must be in [0, 1)."
            raise ValueError(msg)
        if self.padded_context is not None and self.attention != "favor":
            msg = (
                "CellLMConfig.padded_context reproduces padding of the published FAVOR+ encoder; "
                f"with attention={self.attention!r} leave it None."
            )
            raise ValueError(msg)

    @property
    def max_bin(self) -> int:
        """Largest expression bin; log1p values are clipped to it."""
        return self.n_expression_tokens - 3

    @property
    def random_features(self) -> int:
        """Random features `M` per head."""
        return self.n_features or max(1, int(self.dim_head * math.log(self.dim_head)))

    @property
    def has_unit_amounts(self) -> bool:
        """Whether the amounts of each cell are scaled to a vector of length 1."""
        return self.cell_embedding in ("unit", "bag")

    @property
    def is_bag(self) -> bool:
        """Whether the encoder is a bag of genes, which `encode_bag` computes without making tokens."""
        return self.depth == 0 and self.expression == "continuous" and self.cell_embedding != "cls"

    def to_dict(self) -> dict[str, Any]:
        """Fields as a plain dictionary, for `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> CellLMConfig:
        """Build from a dictionary; unknown fields are an error that names the nearest known one.

        Raises
        ------
        ValueError
            Unknown or missing fields, or values that do not make an encoder.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        check_fields(fields, known, "an encoder configuration", kind="field")
        if "n_genes" not in fields:
            msg = "An encoder configuration needs the field 'n_genes'."
            raise ValueError(msg)
        return cls(**fields)

    @classmethod
    def named(
        cls, name: Literal["tiny", "small", "transformer", "base"], *, n_genes: int = 19_379
    ) -> CellLMConfig:
        """One of the named configurations.

        Parameters
        ----------
        name
            `"tiny"`: for tests. `"small"` and `"transformer"`: those of the models and recipes of these names, a
            bag of genes and a bag with one block of attention (ours). `"base"`: the published size, over 50 million
            parameters (paper, section 4.1).
        n_genes
            Size of the vocabulary; 19,379 in the paper.

        Raises
        ------
        ValueError
            Unknown name.
        """
        if name not in _NAMED:
            msg = f"No configuration is named {name!r}; choose one of {sorted(_NAMED)}."
            raise ValueError(msg)
        return cls(n_genes=n_genes, **_NAMED[name])


_LIMITS = {
    "n_genes": (1, 1_000_000),
    "dim": (1, 65_536),
    "depth": (0, 1_000),
    "heads": (1, 1_024),
    "dim_head": (1, 65_536),
    "ff_mult": (1, 1_024),
    "cell_depth": (0, 1_000),
    "n_features": (1, 1_000_000),
    "n_expression_tokens": (1, 100_000),
    "padded_context": (1, 10**9),
}
"""Whole numbers from and up to; far more than any machine trains, and few enough to be refused at once."""
_CHOICES = {
    "attention": ("favor", "softmax"),
    "expression": ("bins", "continuous"),
    "amount": ("log1p", "sqrt"),
    "cell_embedding": ("cls", "mean", "unit", "bag"),
}

_OURS = {"attention": "softmax", "expression": "continuous"}
_NAMED: dict[str, dict[str, Any]] = {
    "tiny": {
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "dim_head": 8,
        "ff_mult": 2,
        "cell_depth": 1,
        "cell_embedding": "mean",
        **_OURS,
    },
    "small": {
        "dim": 256,
        "depth": 0,
        "heads": 4,
        "dim_head": 32,
        "amount": "sqrt",
        "cell_embedding": "unit",
        **_OURS,
    },
    "transformer": {
        "dim": 128,
        "depth": 1,
        "heads": 4,
        "dim_head": 32,
        "ff_mult": 2,
        "amount": "sqrt",
        "cell_embedding": "bag",
        **_OURS,
    },
    "base": {"padded_context": 6000},
}
