"""Tools: what is computed from cells."""

from ._embed import embed
from ._pretrain import pretrain

__all__ = ["embed", "pretrain"]
