"""Print the lowest versions that pyproject.toml allows as pip constraints: `python .ci/lowest.py > constraints.txt`.

Packages given as arguments are left out, such as torch, which CI pins itself.
"""

import re
import sys
import tomllib
from pathlib import Path

LOWEST = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9][^;,\s]*)")
"""A requirement with a lower bound, as `anndata>=0.11`."""
EXTRAS = ("dask", "drug", "explain", "leiden", "search", "test", "zarr")
"""Those the tests use on Python 3.11."""


def constraints(path: Path, skip: list[str]) -> list[str]:
    """`name==version` of each lower bound."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"]]
    for extra in EXTRAS:
        required += project["optional-dependencies"][extra]
    found = [match.groups() for line in required if (match := LOWEST.match(line))]
    return [f"{name}=={version}" for name, version in found if name not in skip]


if __name__ == "__main__":
    print("\n".join(constraints(Path(__file__).parents[1] / "pyproject.toml", sys.argv[1:])))
