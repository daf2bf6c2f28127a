"""The directive `layers`: the table of layers that tests/test_imports.py checks, with the first line of each part."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def layers() -> dict[str, float]:
    """`LAYER` of the test, read without running it."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYER":
            return ast.literal_eval(node.value)
    msg = "tests/test_imports.py has no LAYER"
    raise LookupError(msg)


def first_line(part: str) -> str:
    """What a part says of itself."""
    folder = ROOT / "scellm" / part
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


class Layers(Directive):
    """A table, highest layer first."""

    def run(self) -> list[Any]:
        """Make the table."""
        lines = ["| Layer | Part | |", "| --- | --- | --- |"]
        found = layers()
        for rank, level in reversed(list(enumerate(sorted(set(found.values()))))):
            lines += [f"| {rank} | `{name}` | {first_line(name)} |" for name in found if found[name] == level]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="layers"), 0, node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("layers", Layers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
