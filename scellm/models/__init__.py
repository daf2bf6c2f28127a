"""Models: saved, loaded and listed as folders of weights, configuration, genes and card."""

from . import _fork
from ._bundle import CellLM, save
from ._encode import choose_device, choose_precision, encode
from ._hub import list_models, load
from ._released import convert_openbiomed

__all__ = ["CellLM", "convert_openbiomed", "list_models", "load", "save"]
