"""Whether a dataset as a whole fits the shipped reference."""

from __future__ import annotations

from ._annotator import Annotator
from ._decide import Result


def doubts_of(annotator: Annotator, result: Result) -> list[str]:
    """Reasons why the cells do not fit, in words; none if they do."""
    return []
