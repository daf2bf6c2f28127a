"""Imports point down, and `import scellm` is light, silent and leaves the session alone."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import scellm

PACKAGE = Path(scellm.__file__).parent

LAYER = {
    "_cluster": 0,
    "_keys": 0,
    "_fields": 0,
    "_files": 0,
    "_formats": 0.2,
    "_calls": 0,
    "_checks": 0.5,
    "_containers": 1.2,
    "_warn": 0,
    "_version": 0,
    "_records": 0.5,
    "_room": 0,
    "_obs": 0.5,
    "data": 1,
    "nn": 1,
    "metrics": 1,
    "datasets": 2,
    "models": 2,
    "drugs": 3,
    "tumors": 1.5,
    "annotation": 2.5,
    "atlas": 2,
    "train": 3,
    "get": 4,
    "pl": 4,
    "pp": 4,
    "tl": 4,
    "_cli": 6,
    "_report": 5,
    "_cli_completion": 5,
    "_cli_fit": 5.7,
    "_cli_index": 5.7,
    "_cli_log": 5.3,
    "_cli_notes": 5.6,
    "_cli_options": 4.5,
    "_cli_pretrain": 5,
    "_cli_signature": 5.5,
    "_cli_tools": 5.7,
    "_cli_work": 5.6,
    "__main__": 7,
    "quickstart": 5,
}
"""A part imports from itself and from lower layers. `_keys` and `_checks` are lowest, programs highest."""

FORBIDDEN = {
    "nn": {"anndata", "scanpy", "pandas", "h5py", "pathlib", "os", "io"},  # never sees AnnData or a path
    "pl": {"torch", "scellm.nn", "scellm.models", "scellm.train", "scellm.tl"},  # reads keys
    "drugs": {
        "anndata",
        "scanpy",
        "torch",
        "scellm._checks",
        "scellm._keys",
        "scellm.annotation",
    },  # arrays in, arrays out
    "annotation": {"anndata", "scanpy", "scellm.drugs"},  # arrays in, arrays out
    "atlas": {"anndata", "scanpy", "torch", "scellm.data", "scellm.models"},  # arrays in, arrays out
    "tumors": {
        "anndata",
        "scanpy",
        "torch",
        "scellm._checks",
        "scellm._keys",
        "scellm.data",
    },  # arrays in, arrays out
    "_keys": {"torch", "anndata", "scanpy"},
}


def imported_names(source: str, package: str) -> set[str]:
    """Dotted names imported anywhere in a file, relative ones resolved against `package`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            # `from scellm import nn` imports scellm.nn, `from torch import Tensor` imports torch
            names |= {f"{base}.{alias.name}" if base == "scellm" else base for alias in node.names}
    return names


def violations(source: str, module: str) -> list[str]:
    """What a file of the package (dotted name `scellm.part.file`) imports and must not."""
    part = module.split(".")[1]
    package = module.rpartition(".")[0]
    found = []
    for name in sorted(imported_names(source, package)):
        if any(name == other or name.startswith(f"{other}.") for other in FORBIDDEN.get(part, ())):
            found.append(f"{module} imports {name}")
        if not name.startswith("scellm."):
            continue
        other = name.split(".")[1]
        if other == "__version__" or other == part:
            continue
        if other not in LAYER:
            found.append(f"{module} imports {name}, which has no layer")
        elif LAYER[other] >= LAYER[part]:
            found.append(f"{module} imports {name}, which is not below it")
    return found


def package_modules() -> dict[str, Path]:
    return {
        ".".join(["scellm", *path.relative_to(PACKAGE).with_suffix("").parts]): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "__init__.py"
    }


@pytest.mark.parametrize(("module", "path"), package_modules().items(), ids=package_modules())
def test_imports_point_down(module, path):
    assert module.split(".")[1] in LAYER, f"give {module} a layer"
    assert violations(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("from ...nn import Encoder", "scellm.data.cells._tokens", "scellm.nn"),
        ("from scellm import nn", "scellm.data.cells._tokens", "scellm.nn"),
        ("import scellm.tl", "scellm.models._hub", "scellm.tl"),
        ("def f():\n    from ..train import pretrain", "scellm.models._hub", "scellm.train"),
        ("from pathlib import Path", "scellm.nn._encoder", "pathlib"),
        ("from torch import Tensor", "scellm.pl._history", "torch"),
        ("from ..pp import check_input", "scellm.tl._embed", "scellm.pp"),
        ("from .. import utils", "scellm.tl._embed", "no layer"),
    ],
)
def test_control_upward_imports_are_found(source, module, expected):
    (found,) = violations(source, module)
    assert expected in found


def test_control_downward_imports_are_allowed():
    source = "from .._keys import X_SCELLM\nfrom ..models import load\nfrom ._other import thing\nimport numpy as np"
    assert violations(source, "scellm.tl._embed") == []


PROBE = """
import json, logging, sys, warnings
filters, loggers = list(warnings.filters), set(logging.root.manager.loggerDict)
before = set(sys.modules)
{statement}
print(json.dumps({{
    "new": sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}),
    "n_new": len(set(sys.modules) - before),
    "filters_kept": warnings.filters == filters,
    "handlers": [str(handler) for handler in logging.root.handlers],
    "new_loggers": sorted(set(logging.root.manager.loggerDict) - loggers),
}}))
"""


def fresh_interpreter(statement: str) -> dict:
    """What a statement does to a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_import_is_light_and_silent():
    state = fresh_interpreter("import scellm")
    heavy = {
        "torch",
        "matplotlib",
        "scanpy",
        "anndata",
        "pandas",
        "numpy",
        "scipy",
        "sklearn",
        "huggingface_hub",
    }
    assert heavy.isdisjoint(state["new"])
    assert state["n_new"] < 40, state["new"]
    assert state["filters_kept"]
    assert state["handlers"] == []
    assert state["new_loggers"] == []


def test_control_the_probe_sees_torch():
    assert "torch" in fresh_interpreter("import scellm; scellm.nn")["new"]


@pytest.mark.parametrize("namespace", sorted(set(scellm.__all__) - {"__version__", "report"}))
def test_namespaces_import_on_first_use(namespace):
    assert getattr(scellm, namespace).__name__ == f"scellm.{namespace}"


def test_report_is_a_function_and_its_module_does_not_hide_it():
    state = fresh_interpreter(
        "import scellm; assert callable(scellm.report); import scellm._report; scellm.report.__call__"
    )
    assert "anndata" in state["new"]


def test_plotting_does_not_import_torch():
    assert "torch" not in fresh_interpreter("import scellm; scellm.pl")["new"]


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 'scellm' has no attribute 'utils'"):
        scellm.utils  # noqa: B018


ROOMS = ("genes", "cells", "corpus")
"""Rooms of `scellm.data`, the lowest first: a room knows itself and those before it."""


def rooms_above(source: str, module: str) -> set[str]:
    """Rooms that a file of `scellm.data` imports from and must not know."""
    names = {
        name for name in imported_names(source, module.rpartition(".")[0]) if name.startswith("scellm.data.")
    }
    above = ROOMS[ROOMS.index(module.split(".")[2]) + 1 :]
    return {name.split(".")[2] for name in names} & set(above)


@pytest.mark.parametrize(
    ("module", "path"),
    [(m, p) for m, p in package_modules().items() if m.startswith("scellm.data.") and m.count(".") > 2],
    ids=str,
)
def test_rooms_of_data_know_those_below_only(module, path):
    assert rooms_above(path.read_text(encoding="utf-8"), module) == set()


def test_control_rooms_above_are_found():
    assert rooms_above("from ..corpus._pack import pack", "scellm.data.cells._rows") == {"corpus"}
    assert rooms_above("from ..genes._match import gene_names", "scellm.data.cells._rows") == set()


JUDGES = {"describe_values", "match_genes"}
MAY_JUDGE = (
    "scellm.data.cells._expression",
    "scellm.data.genes._match",
    "scellm.data.cells._values",
    "scellm.pp.",
)


def judges(source: str) -> set[str]:
    """Calls in a file that decide what genes or values are."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return JUDGES & {getattr(call, "id", getattr(call, "attr", None)) for call in calls}


@pytest.mark.parametrize(("module", "path"), package_modules().items(), ids=package_modules())
def test_only_the_reader_matches_genes_and_judges_values(module, path):
    if not module.startswith(MAY_JUDGE):
        assert judges(path.read_text(encoding="utf-8")) == set(), "use data.Expression"


def test_control_calls_of_judges_are_found():
    assert judges("kind = data.describe_values(X)") == {"describe_values"}
    assert judges("match_genes(var, vocabulary)\ndescribe_values") == {"match_genes"}
