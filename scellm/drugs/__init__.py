"""Drug response: compounds, the Gaussian process over cell lines and drugs, its fit and its predictions. Arrays in, arrays out."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._config import DrugResponseConfig
    from ._files import load_drug_model, save_drug_model
    from ._fit import fit_drug_response
    from ._model import DrugModel
    from ._names import find_drugs
    from ._panel import Panel
    from ._process import cell_line_kernel, inv_cholesky, kron_cg, kron_matvec, posterior_variance
    from ._structures import descriptors, fingerprints, read_smiles, structure_kernel, tanimoto

__all__ = [
    "DrugModel",
    "DrugResponseConfig",
    "Panel",
    "cell_line_kernel",
    "descriptors",
    "find_drugs",
    "fingerprints",
    "fit_drug_response",
    "inv_cholesky",
    "kron_cg",
    "kron_matvec",
    "load_drug_model",
    "posterior_variance",
    "read_smiles",
    "save_drug_model",
    "structure_kernel",
    "tanimoto",
]

_FILE_OF = {
    "DrugModel": "_model",
    "DrugResponseConfig": "_config",
    "Panel": "_panel",
    "find_drugs": "_names",
    "fit_drug_response": "_fit",
    "load_drug_model": "_files",
    "save_drug_model": "_files",
}
_FILE_OF |= dict.fromkeys(
    ("cell_line_kernel", "inv_cholesky", "kron_cg", "kron_matvec", "posterior_variance"), "_process"
)
_FILE_OF |= dict.fromkeys(
    ("descriptors", "fingerprints", "read_smiles", "structure_kernel", "tanimoto"), "_structures"
)


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: figures read the records of predictions without torch."""
    if name in __all__:
        return getattr(_import_module(f".{_FILE_OF[name]}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
