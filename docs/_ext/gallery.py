"""The gallery page, from `docs/gallery/figures.py`: a thumbnail, the code and the function of each figure.

`FIGURES_OF` tells the API pages which figures a function of `scellm.pl` draws.
"""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "gallery"


def figures() -> dict[str, tuple[str, str]]:
    """Name of each figure, its first line and the function of `scellm.pl` that draws it, in order."""
    tree = ast.parse((FOLDER / "figures.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    (order,) = (
        node.value.elts
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FIGURES"
    )
    found = {}
    for element in order:
        function = functions[element.id]
        (drawn,) = {
            node.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and getattr(node.value, "attr", "") == "pl"
        }
        found[element.id] = (ast.get_docstring(function), drawn)
    return found


def figures_of() -> dict[str, list[tuple[str, str]]]:
    """Figures, with their first lines, of each function by its full name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, (line, drawn) in figures().items():
        found.setdefault(f"scellm.pl.{drawn}", []).append((name, line))
    return found


def page() -> str:
    """MyST source of the gallery."""
    lines = [
        "# Gallery",
        "",
        "Every figure of `scellm.pl`, on real cells. Choose one to see the code that draws it.",
        "",
    ]
    lines += ["::::{grid} 1 2 2 3", ":gutter: 3", ""]
    for name, (line, _) in figures().items():
        lines += [
            ":::{grid-item-card}",
            f":img-top: ../_static/gallery/{name}.png",
            f":img-alt: {line}",
            f":link: gallery-{name.replace('_', '-')}",
            ":link-type: ref",
            ":class-card: gallery-card",
            line,
            ":::",
            "",
        ]
    lines += ["::::", ""]
    for name, (line, drawn) in figures().items():
        title = name.replace("_", " ").capitalize()
        lines += [
            f"(gallery-{name.replace('_', '-')})=",
            f"## {title}",
            "",
            f"{line} {{func}}`scellm.pl.{drawn}`",
            "",
        ]
        lines += [f"![{line}](../_static/gallery/{name}.png)", ""]
        lines += ["```{literalinclude} figures.py", f":pyobject: {name}", "```", ""]
    lines += [
        "## The cells",
        "",
        "How the cells of the figures were prepared; all of them come with packages of PyPI.",
        "",
    ]
    for name in ("pancreas", "own_model", "tumor", "lines", "found"):
        lines += ["```{literalinclude} figures.py", f":pyobject: {name}", "```", ""]
    return "\n".join(lines)


def write_gallery() -> None:
    """Write the page, leaving an unchanged one alone."""
    path, text = FOLDER / "index.md", page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
