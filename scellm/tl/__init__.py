"""Tools: what is computed from cells."""

from ._embed import embed

__all__ = ["embed"]
