"""Floating-point operations of an encoder, counted."""

from __future__ import annotations

from scellm.nn import CellLMConfig


def operations(config: CellLMConfig, genes: int) -> float:
    """Floating-point operations of one view of one cell, forwards.

    Two per multiplication with a weight; attention as FAVOR+ (features of queries and keys, keys times values, queries times
    that) or softmax (two products of genes by genes).
    """
    inner = config.heads * config.dim_head
    weights = 4 * config.dim * inner + 2 * config.ff_mult * config.dim**2
    if config.attention == "favor":
        attention = 4 * inner * config.random_features
    else:
        attention = 2 * genes * inner
    return 2.0 * genes * config.depth * (weights + attention) + 2.0 * genes * config.dim
