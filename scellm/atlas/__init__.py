"""Atlas search: nearest neighbors among many embedded cells. Arrays in, arrays out."""

from ._index import AtlasIndex, build_index, open_index
from ._vote import Vote, vote

__all__ = ["AtlasIndex", "Vote", "build_index", "open_index", "vote"]
