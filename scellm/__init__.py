"""scellm: single-cell foundation-model toolkit around CellLM, for AnnData and scanpy."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import data, datasets, drugs, get, metrics, models, nn, pl, pp, tl, train
    from ._report import report

__all__ = [
    "__version__",
    "data",
    "datasets",
    "drugs",
    "get",
    "metrics",
    "models",
    "nn",
    "pl",
    "pp",
    "report",
    "tl",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a namespace when it is first used, so that `import scellm` stays light."""
    if name == "report":
        return _import_module("._report", __name__).report
    if name in __all__:
        return _import_module(f".{name}", __name__)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
