"""Cells to try things on."""

from ._toy import toy_cells

__all__ = ["toy_cells"]
