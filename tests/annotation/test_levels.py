"""Trees over a user's labels: columns from coarse to fine, and ids of the Cell Ontology."""

import numpy as np
import pytest

from scellm.annotation._levels import cell_ontology, tree_of_ids, tree_of_levels

FINE = np.array(["CD4", "CD8", "B cell", "monocyte", "monocyte"], dtype=object)
BROAD = np.array(["T cell", "T cell", "B cell", "myeloid", "myeloid"], dtype=object)
CLASSES = ["B cell", "CD4", "CD8", "monocyte"]


def test_columns():
    tree = tree_of_levels(FINE, {"broad": BROAD}, CLASSES)
    paths = {tree.names[node]: tree.path(node) for node in tree.node_of_class}
    assert paths["CD4"] == ["T cell", "CD4"]
    assert paths["B cell"] == ["B cell"]  # one name at two levels is one node
    assert [tree.names[node] for node in tree.node_of_class] == CLASSES
    assert {name for name, x in zip(tree.names, tree.is_lineage, strict=True) if x} == {
        "T cell",
        "B cell",
        "myeloid",
    }


def test_cells_without_a_broad_type_stand_at_the_top():
    tree = tree_of_levels(FINE, {"broad": np.array(["", "T cell", "", "", ""], dtype=object)}, CLASSES)
    assert tree.path(tree.names.index("CD4")) == ["CD4"]
    assert tree.path(tree.names.index("CD8")) == ["T cell", "CD8"]


def test_contradictions_are_named():
    broad = BROAD.copy()
    broad[4] = "stroma"
    with pytest.raises(ValueError, match="'monocyte' is under 'myeloid' in some cells and under 'stroma'"):
        tree_of_levels(FINE, {"broad": broad}, CLASSES)
    with pytest.raises(
        ValueError, match="name 'CD4' twice on one path, with others between: CD4 > T cell > CD4"
    ):
        tree_of_levels(FINE[:1], {"a": FINE[:1], "b": BROAD[:1]}, ["CD4"])


def test_ids_make_the_tree_of_the_ontology():
    ids = {
        "Bs": "CL:0000236",
        "CD4": "CL:0000624",
        "CD8": "CL:0000625",
        "beta": "CL:0000169",
        "alpha": "CL:0000171",
    }
    tree, replaced = tree_of_ids(ids)
    assert replaced == {}
    path = tree.path(tree.names.index("CD4"))
    assert any("T cell" in name for name in path[:-1])
    assert path[0] != tree.path(tree.names.index("beta"))[0]
    assert tree.ids[tree.names.index("Bs")] == "CL:0000236"
    assert [tree.names[node] for node in tree.node_of_class] == list(ids)


def test_an_ancestor_that_is_a_type_keeps_its_name():
    tree, _ = tree_of_ids({"T": "CL:0000084", "helper": "CL:0000624", "mono": "CL:0000576"})
    assert tree.path(tree.names.index("helper"))[-2:] == ["T", "helper"]


def test_types_without_a_common_ancestor():
    tree, _ = tree_of_ids({"neuron": "CL:0000540", "hepatocyte": "CL:0000182"})
    assert all(len(tree.path(node)) == 1 for node in tree.node_of_class)


def test_obsolete_ids_are_replaced_and_wrong_ones_refused():
    names, _, replaced_by = cell_ontology()
    old, new = next((a, b) for a, b in replaced_by.items() if b.startswith("CL:") and not replaced_by.get(b))
    tree, replaced = tree_of_ids({"x": old, "mono": "CL:0000576"})
    assert replaced == {old: new}
    assert new in tree.ids
    gone = next(a for a, b in replaced_by.items() if b == "none")
    assert gone in names
    with pytest.raises(ValueError, match="obsolete without a successor"):
        tree_of_ids({"x": gone, "mono": "CL:0000576"})
    with pytest.raises(ValueError, match="'CL:9999999' of 'x' is no id of the Cell Ontology"):
        tree_of_ids({"x": "CL:9999999"})
