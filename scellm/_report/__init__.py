"""One HTML page of all that was done with some cells; `scellm.report` is its door."""

from ._report import report

__all__ = ["report"]
