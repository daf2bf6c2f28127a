"""Tools: what is computed from cells."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._adapt import adapt
    from ._annotate import annotate
    from ._drug_response import drug_response
    from ._drug_similarity import drug_similarity
    from ._embed import embed
    from ._few_shot import few_shot
    from ._fine_tune import fine_tune
    from ._fit_reference import fit_reference
    from ._gene_importance import gene_importance
    from ._index import index
    from ._malignancy import malignancy
    from ._pretrain import pretrain
    from ._rank_drugs import rank_drugs
    from ._search import search

__all__ = [
    "adapt",
    "annotate",
    "drug_response",
    "drug_similarity",
    "embed",
    "few_shot",
    "fine_tune",
    "fit_reference",
    "gene_importance",
    "index",
    "malignancy",
    "pretrain",
    "rank_drugs",
    "search",
]


def __getattr__(name: str) -> object:
    """Import a tool when it is first used: pretraining runs on machines without anndata."""
    if name in __all__:
        return getattr(_import_module(f"._{name}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
