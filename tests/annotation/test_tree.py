"""The tree over types: sums, the way down, the deepest node that is sure enough, and its promise."""

import numpy as np
import pytest

from scellm.annotation._fit_tree import allowed_classes, fit_on_tree
from scellm.annotation._softmax import fit_softmax
from scellm.annotation._tree import Tree
from scellm.metrics._conformal import conformal_threshold, score_quantiles
from scellm.metrics._logistic import logistic_regression


@pytest.fixture
def tree():
    """lymphocyte > T cell > CD4, CD8; lymphocyte > B cell; macrophage > microglia, itself a class."""
    return Tree(
        names=["lymphocyte", "T cell", "CD4", "CD8", "B cell", "macrophage", "microglia"],
        parents=np.array([-1, 0, 1, 1, 0, -1, 5]),
        node_of_class=np.array([2, 3, 4, 5, 6]),
        is_lineage=np.array([True, False, False, False, False, True, False]),
    )


def test_probabilities_add_up(tree):
    sums = tree.sums(np.array([[0.4, 0.3, 0.1, 0.15, 0.05]]))
    np.testing.assert_allclose(sums, [[0.8, 0.7, 0.4, 0.3, 0.1, 0.2, 0.05]])
    assert tree.path(3) == ["lymphocyte", "T cell", "CD8"]
    assert tree.lineage.tolist() == [0, 0, 0, 0, 0, 5, 5]


def test_a_cell_gets_the_deepest_node_that_is_sure_enough(tree):
    p = np.array([[0.4, 0.3, 0.1, 0.15, 0.05]])
    for least, node in ((0.0, 2), (0.4, 2), (0.5, 1), (0.75, 0), (0.9, -1)):
        assert tree.deepest(p, least)[0] == node


def test_the_way_is_not_that_of_the_likeliest_class(tree):
    """Two T cells of 0.3 each are more than one macrophage of 0.4."""
    nodes, values = tree.chains(np.array([[0.3, 0.3, 0.0, 0.4, 0.0]]))
    assert nodes[0].tolist() == [0, 1, 2]
    assert (np.diff(values[0]) <= 0).all()


def test_a_class_with_types_below_it_may_be_the_answer(tree):
    assert tree.deepest(np.array([[0, 0, 0, 0.6, 0.4]]), 0.0)[0] == 5
    assert tree.deepest(np.array([[0, 0, 0, 0.4, 0.6]]), 0.0)[0] == 6


def test_first_wrong_node(tree):
    p = np.array([[0.4, 0.3, 0.1, 0.15, 0.05]] * 4)
    truth = np.array([2, 3, 4, 1])  # right; wrong at the leaf; wrong at T cell; known as T cell only
    np.testing.assert_allclose(tree.first_wrong(p, truth), [0, 0.4, 0.7, 0])


def test_the_promise_holds_for_exchangeable_cells(tree):
    """Named node = truth or an ancestor for 1 - error of new cells; a level without calibration breaks it."""
    rng = np.random.default_rng(0)

    def draw(n):
        truth = rng.integers(0, 5, n)
        logits = rng.normal(0, 1, (n, 5))
        logits[np.arange(n), truth] += 1.0
        p = np.exp(2 * logits)  # too sure
        return p / p.sum(1, keepdims=True), tree.node_of_class[truth]

    p, truth = draw(4000)
    quantiles = score_quantiles(tree.first_wrong(p, truth), np.ones(4000))
    new, is_now = draw(20_000)
    above = tree.above
    rates = []
    for least in (conformal_threshold(quantiles, 4000, 0.1) + 2e-6, 0.5):
        named = tree.deepest(new, least)
        rates.append(np.where(named >= 0, above[is_now, named], True).mean())
    assert 0.89 < rates[0] < 0.93
    assert rates[1] < 0.8


def test_distance_counts_edges(tree):
    assert tree.distance(np.array([2, 2, 2, -1]), np.array([2, 3, 6, 2])).tolist() == [0, 2, 5, 3]


def test_nodes_survive_a_file(tree):
    again = Tree.from_meta(tree.to_meta())
    assert again.names == tree.names
    np.testing.assert_array_equal(again.above, tree.above)


def test_what_does_not_fit_together_is_refused(tree):
    with pytest.raises(ValueError, match="names twice, or a child before its parent"):
        Tree(
            names=["a", "b"],
            parents=np.array([1, -1]),
            node_of_class=np.array([0]),
            is_lineage=np.zeros(2, bool),
        )


def test_labels_of_any_depth_teach(tree):
    """Cells known as T cells only move the sum of CD4 and CD8, and more of them do not pull to either."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (5, 16))
    classes = rng.integers(0, 5, 600)
    vectors = (centres[classes] + rng.normal(0, 0.4, (600, 16))).astype(np.float32)
    nodes = tree.node_of_class[classes].copy()
    t_cells = np.flatnonzero(np.isin(nodes, [2, 3]))
    nodes[t_cells[::2]] = 1
    assert allowed_classes(tree, np.array([1, 2, 5])).tolist() == [
        [True, True, False, False, False],
        [True, False, False, False, False],
        [False, False, False, True, False],
    ]
    annotator = fit_on_tree(vectors, nodes, tree, groups=np.zeros(600), max_exemplars=100)
    found = annotator.probabilities(vectors).argmax(1)
    assert (found == classes).mean() > 0.97


def test_with_one_class_allowed_it_is_logistic_regression():
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (300, 8)).astype(np.float32)
    codes = (vectors[:, :3] + rng.normal(0, 0.5, (300, 3))).argmax(1)
    ours, _ = fit_softmax(vectors, np.eye(3, dtype=bool)[codes], np.ones(300))
    theirs, _ = logistic_regression(vectors, codes, 3, balanced=False)
    np.testing.assert_allclose(ours - ours.mean(0), theirs - theirs.mean(0), atol=0.02)
