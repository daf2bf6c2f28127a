"""Cells to try things on."""

from ._cell_lines import cell_lines
from ._pancreas import pancreas
from ._toy import toy_cells
from ._toy_drugs import toy_drug_screen
from ._two_studies import two_studies

__all__ = ["cell_lines", "pancreas", "toy_cells", "toy_drug_screen", "two_studies"]
