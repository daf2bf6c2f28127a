"""The size of functions, parameter lists and files may only shrink, and modules import each other in no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import scellm

PACKAGE = Path(scellm.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}

LONGEST_BODY, LONGEST_FILE = 60, 400
MOST_PARAMETERS, MOST_PUBLIC_PARAMETERS = 8, 20
LONG_FILES = {
    "data/cells/_expression.py": "the one reader: what it gives, records and refuses belongs together",
    "train/_info_nce.py": "the loss in stripes: formulas, forward and backward side by side",
    "train/_trainer.py": "the loop in plain sight, step by step",
}
"""Files that may be longer, and why."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    """All functions and methods of a file."""
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def body_length(function: Function) -> int:
    """Lines of a body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def n_parameters(function: Function) -> int:
    """Parameters, without self, cls, the context of an autograd function, and the stars."""
    names = [x.arg for x in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls", "ctx")])


def is_public(function: Function, file: str) -> bool:
    """Whether a package exports the function: the `__init__` of its part of `scellm` names it."""
    text = SOURCES.get(f"{Path(file).parts[0]}/__init__.py", "")
    return not function.name.startswith("_") and f'"{function.name}"' in text


def imports(source: str, module: str) -> set[str]:
    """Modules of the package that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module.split(".")[: -node.level]
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, in order; empty if there are none."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if found := visit(other, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def module_graph() -> dict[str, set[str]]:
    """What each private module imports of other private modules."""
    modules = {
        f"scellm.{file.removesuffix('.py').replace('/', '.')}": text
        for file, text in SOURCES.items()
        if not file.endswith("__init__.py")
    }
    return {module: imports(text, module) & modules.keys() - {module} for module, text in modules.items()}


def test_bodies_fit_on_a_screen():
    long = {
        f"{file}:{function.name}": body_length(function)
        for file, source in SOURCES.items()
        for function in functions(source)
        if body_length(function) > LONGEST_BODY
    }
    assert long == {}


def test_few_files_are_long_each_with_its_reason():
    long = {file for file, source in SOURCES.items() if source.count("\n") > LONGEST_FILE}
    assert long == set(LONG_FILES)


def test_functions_have_few_parameters():
    many = {
        f"{file}:{function.name}": n_parameters(function)
        for file, source in SOURCES.items()
        for function in functions(source)
        if n_parameters(function) > (MOST_PUBLIC_PARAMETERS if is_public(function, file) else MOST_PARAMETERS)
    }
    assert many == {}


def test_control_public_functions_may_have_more():
    embed = next(f for f in functions(SOURCES["tl/_embed.py"]) if f.name == "embed")
    assert n_parameters(embed) > MOST_PARAMETERS
    assert is_public(embed, "tl/_embed.py")
    (hidden,) = functions("def _embed(): ...")
    assert not is_public(hidden, "tl/_embed.py")


def test_no_circle_of_imports():
    assert circle(module_graph()) == []


def test_control_what_is_too_large_is_found():
    lines = "\n".join("    x = 1" for _ in range(61))
    (function,) = functions(f"def f(self, a, *, b, **c):\n    '''Say.'''\n{lines}\n")
    assert body_length(function) == 61
    assert n_parameters(function) == 2
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ._other import thing", "scellm.tl._other"),
        ("from ..data import Corpus", "scellm.data.Corpus"),
        ("from .. import data", "scellm.data"),
    ],
)
def test_control_imports_are_resolved(source, expected):
    assert expected in imports(source, "scellm.tl._embed")
