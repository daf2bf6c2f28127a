"""Tutorials are read among the other pages: `sphinx -j 2` hands out neighbors together, and they would all be executed by one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

SLOWEST = "tutorials/pretrain"
"""Takes as long as four others, so it comes first."""


def spread(names: list[str]) -> list[str]:
    """The same pages with a tutorial at the start of each of as many equal parts as there are tutorials."""
    tutorials = sorted((x for x in names if x.startswith("tutorials/")), key=lambda x: (x != SLOWEST, x))
    others = [x for x in names if x not in tutorials]
    found = []
    for i, tutorial in enumerate(tutorials):
        start, stop = (len(others) * k // len(tutorials) for k in (i, i + 1))
        found += [tutorial, *others[start:stop]]
    return found or others


def reorder(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Read in that order."""
    names[:] = spread(names)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the order."""
    app.connect("env-before-read-docs", reorder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
