"""Parameters of functions in two groups: those one chooses, and those whose defaults rarely change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ADVANCED = {
    "align",
    "ax",
    "batch_size",
    "checkpoint_every",
    "copy",
    "device",
    "dtype",
    "gene_key",
    "key_added",
    "layer",
    "log_every",
    "memory_budget",
    "min_overlap",
    "n_jobs",
    "novelty_error",
    "num_workers",
    "output",
    "precision",
    "reference_layer",
    "return_fig",
    "rng",
    "save",
    "show",
    "show_progress",
    "target_error",
    "use_raw",
}
"""Names that mean the same in every function: which matrix, where results go, randomness, speed, figures."""
FEWEST = 3
"""Functions with fewer advanced parameters are left alone."""


def split(body: nodes.field_body) -> nodes.definition_list | None:
    """Take the advanced parameters out of a list and return them; `None` where there are few."""
    listed = next(iter(body.findall(nodes.definition_list)), None)
    if listed is None:
        return None
    items = [item for item in listed.children if isinstance(item, nodes.definition_list_item)]
    advanced = [
        item for item in items if next(iter(item.findall(nodes.strong)), nodes.Text("")).astext() in ADVANCED
    ]
    if len(advanced) < FEWEST or len(advanced) == len(items):
        return None
    others = nodes.definition_list()
    for item in advanced:
        listed.remove(item)
        others += item
    return others


def group_parameters(app: Sphinx, doctree: nodes.document) -> None:
    """Add a field "Advanced parameters" after each field "Parameters"."""
    for field in list(doctree.findall(nodes.field)):
        name, body = field.children
        if name.astext() != "Parameters" or not isinstance(body, nodes.field_body):
            continue
        others = split(body)
        if others is not None:
            place = field.parent.index(field) + 1
            advanced = nodes.field(
                "", nodes.field_name("", "Advanced parameters"), nodes.field_body("", others)
            )
            field.parent.insert(place, advanced)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run on every page that was read."""
    app.connect("doctree-read", group_parameters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
