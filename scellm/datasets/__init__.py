"""Cells to try things on."""

from ._toy import toy_cells
from ._toy_drugs import toy_drug_screen

__all__ = ["toy_cells", "toy_drug_screen"]
