"""Print how large functions, parameter lists and files of a tree are: python tests/benchmarks/shape.py [FOLDER ...].

A folder holds `scellm/`; without one, this repository. Counts are those of `tests/test_shape.py`.
"""

import ast
import sys
from pathlib import Path
from typing import Any

LONGEST_BODY, LONGEST_FILE, MOST_PARAMETERS = 60, 400, 8
NOT_PASSED = {"self", "cls", "ctx"}


def docstring_lines(tree: ast.AST) -> set[int]:
    """Lines of docstrings, also of those below a field."""
    texts = [
        node
        for parent in ast.walk(tree)
        for node in (getattr(parent, "body", None) if isinstance(getattr(parent, "body", None), list) else ())
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    return {line for node in texts for line in range(node.lineno, node.end_lineno + 1)}


def n_code_lines(source: str) -> int:
    """Lines that are not blank, comment or docstring."""
    skipped = docstring_lines(ast.parse(source))
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and at not in skipped for at, line in lines
    )


def measure(root: Path) -> dict[str, Any]:
    """The shape of `root/scellm`."""
    package = root / "scellm"
    sources = {
        path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")
    }
    bodies, public, private = [], [], []
    for file, source in sources.items():
        exported = sources.get(f"{Path(file).parts[0]}/__init__.py", "")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            bodies.append(body[-1].end_lineno - body[0].lineno + 1 if body else 0)
            given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            n = len([x for x in given if x.arg not in NOT_PASSED])
            is_public = not node.name.startswith("_") and f'"{node.name}"' in exported
            (public if is_public else private).append(n)
    lengths = {file: source.count("\n") for file, source in sources.items()}
    readers = [
        file for file, text in sources.items() if "describe_values(" in text or " match_genes(" in text
    ]
    readers = [
        file for file in readers if not file.startswith(("pp/", "data/cells/_values", "data/genes/_match."))
    ]
    return {
        "files that match genes or judge values (pp aside)": len(readers),
        f"private functions with more than {MOST_PARAMETERS} parameters": sum(
            n > MOST_PARAMETERS for n in private
        ),
        "most parameters of a public function": max(public),
        f"bodies over {LONGEST_BODY} lines": sum(n > LONGEST_BODY for n in bodies),
        f"files over {LONGEST_FILE} lines": sum(n > LONGEST_FILE for n in lengths.values()),
        "files": len(sources),
        "lines": sum(lengths.values()),
        "lines of code": sum(map(n_code_lines, sources.values())),
    }


if __name__ == "__main__":
    for folder in sys.argv[1:] or [Path(__file__).parents[2]]:
        print(folder, *(f"{what}: {n}" for what, n in measure(Path(folder)).items()), sep="\n  ")
