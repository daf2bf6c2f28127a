"""Models: saved, loaded and listed as folders of weights, configuration, genes and card."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._bundle import CellLM, save
    from ._encode import choose_device, choose_precision, encode
    from ._hub import list_models, load
    from ._released import convert_openbiomed

__all__ = ["CellLM", "convert_openbiomed", "list_models", "load", "save"]

_FILES = {
    "_bundle": ("CellLM", "save"),
    "_encode": ("choose_device", "choose_precision", "encode"),
    "_hub": ("list_models", "load"),
    "_released": ("convert_openbiomed",),
}


def __getattr__(name: str) -> object:
    """Import a file when a name in it is first used: `scellm models` lists without torch, in a moment."""
    for file, names in _FILES.items():
        if name in names:
            found = getattr(_import_module(f".{file}", __name__), name)
            globals()[name] = found
            return found
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
