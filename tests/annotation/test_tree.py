"""The tree over types: sums, the way down, the deepest node that is sure enough, and its promise."""

from dataclasses import replace

import numpy as np
import pytest

from scellm.annotation._fit_tree import allowed_classes, fit_on_tree
from scellm.annotation._softmax import fit_softmax
from scellm.annotation._tree import Tree
from scellm.metrics._conformal import conformal_threshold, score_quantiles
from scellm.metrics._logistic import logistic_regression
from scellm.models._limits import part_problem


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
    above, other = replace(tree, lineage_doubt=0.5), np.array([6] * 4)  # wrong at the lineage, of 0.8
    np.testing.assert_allclose(above.first_wrong(p, truth), [0, 0.4, 0.7, 0])
    np.testing.assert_allclose(above.first_wrong(p, other), 1 - 0.5 * 0.2)


def random_tree(rng):
    """Up to five levels, with a lineage on every path."""
    n = int(rng.integers(4, 25))
    parents = np.array([int(rng.integers(-1, i)) if i else -1 for i in range(n)])
    is_lineage = np.zeros(n, dtype=bool)
    has = np.zeros(n, dtype=bool)
    for node in range(n):
        has[node] = parents[node] >= 0 and has[parents[node]]
        is_leaf = not (parents == node).any()
        is_lineage[node] = not has[node] and (is_leaf or rng.random() < 0.4)
        has[node] |= is_lineage[node]
    leaves = np.flatnonzero(~np.isin(np.arange(n), parents))
    return Tree(
        names=[str(i) for i in range(n)],
        parents=parents,
        node_of_class=leaves,
        is_lineage=is_lineage,
        lineage_doubt=float(rng.uniform(0.05, 1)),
    )


@pytest.mark.parametrize("seed", range(20), ids="tree{}".format)
def test_scores_never_rise_on_the_way_down(seed):
    """So what is above the threshold is the first part of the way, and its last node is found by counting."""
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    p = rng.dirichlet(np.full(len(tree.node_of_class), 0.3), 200).astype(np.float32)
    nodes, values = tree.chains(p)
    scores = tree.scores(nodes, values)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    assert (scores >= values - 1e-6).all()
    least, least_score = rng.uniform(0, 0.6), rng.uniform(0.2, 0.95)
    for way, value, found in zip(nodes, values, tree.deepest(p, least, least_score=least_score), strict=True):
        named = -1
        for node, x in zip(way[way >= 0], value, strict=False):
            lineages_at_or_below = np.flatnonzero(tree.above[:, node] & tree.is_lineage)
            power = 1 if tree.is_lineage[node] else 2 if len(lineages_at_or_below) else 0
            if x >= least and 1 - tree.lineage_doubt**power * (1 - x) >= least_score:
                named = node
        assert found == named


def test_doubt_that_counts_less_further_down_would_rise(tree):
    """The check above can fail: milder at types than at lineages is no score to stop at."""
    _, values = tree.chains(np.array([[0.4, 0.3, 0.1, 0.15, 0.05]]))
    upside_down = 1 - np.array([1.0, 1.0, 0.2]) * (1 - values)
    assert (np.diff(upside_down, axis=1) > 1e-6).any()


def test_a_probability_that_is_asked_for_stays_one(tree):
    p = np.array([[0.4, 0.3, 0.1, 0.15, 0.05]])
    mild = replace(tree, lineage_doubt=0.1)
    for least in (0.0, 0.4, 0.5, 0.75, 0.9):
        assert mild.deepest(p, least) == tree.deepest(p, least)
    assert mild.deepest(p, least_score=0.9)[0] == 0  # 1 - 0.1 * 0.2 = 0.98
    assert mild.deepest(p, 0.85, least_score=0.9)[0] == -1
    assert replace(tree, lineage_doubt=1.0).deepest(p, least_score=0.9)[0] == -1


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
        named = tree.deepest(new, least_score=least)
        rates.append(np.where(named >= 0, above[is_now, named], True).mean())
    assert 0.89 < rates[0] < 0.93
    assert rates[1] < 0.8


@pytest.mark.parametrize("doubt", [0.2, 0.7, 1.0], ids="doubt{}".format)
def test_the_promise_holds_whatever_doubt_in_lineages_counts(tree, doubt):
    """As long as held-out and new cells are scored alike: the threshold of another doubt breaks it."""
    rng = np.random.default_rng(1)
    tree, plain = replace(tree, lineage_doubt=doubt), replace(tree, lineage_doubt=1.0)

    def draw(n):
        truth = rng.integers(0, 5, n)
        logits = rng.normal(0, 1, (n, 5))
        logits[np.arange(n), truth] += 1.5
        p = np.exp(2 * logits)
        return p / p.sum(1, keepdims=True), tree.node_of_class[truth]

    (p, truth), (new, is_now) = draw(4000), draw(20_000)
    rates = []
    for scored in (tree, plain):
        quantiles = score_quantiles(scored.first_wrong(p, truth), np.ones(4000))
        named = tree.deepest(new, least_score=conformal_threshold(quantiles, 4000, 0.1) + 2e-6)
        rates.append(np.where(named >= 0, tree.above[is_now, named], True).mean())
    assert 0.89 < rates[0] < 0.93
    assert rates[1] < 0.89 or doubt > 0.5


def test_more_cells_are_named_where_lineages_are_mostly_right(tree):
    """What doubt in lineages counts less for: the same error is asked for."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 5, 8000)
    logits = rng.normal(0, 1, (8000, 5))
    logits[np.arange(8000), truth] += 1
    logits += 2.5 * tree.holds[truth][:, [0, 0, 0, 5, 5]]  # the lineage is told better than the type
    p = np.exp(logits)
    p, nodes, shares = p / p.sum(1, keepdims=True), tree.node_of_class[truth], []
    for doubt in (1.0, 0.7, 0.4):
        some = replace(tree, lineage_doubt=doubt)
        quantiles = score_quantiles(some.first_wrong(p[:4000], nodes[:4000]), np.ones(4000))
        named = some.deepest(p[4000:], least_score=conformal_threshold(quantiles, 4000, 0.05) + 2e-6)
        shares.append((named >= 0).mean())
    assert shares[0] < shares[1] < shares[2]


def test_distance_counts_edges(tree):
    assert tree.distance(np.array([2, 2, 2, -1]), np.array([2, 3, 6, 2])).tolist() == [0, 2, 5, 3]


def test_nodes_survive_a_file(tree):
    again = Tree.from_meta(tree.to_meta())
    assert again.names == tree.names
    np.testing.assert_array_equal(again.above, tree.above)
    assert Tree.from_meta(replace(tree, lineage_doubt=0.3).to_meta()).lineage_doubt == 0.3


def test_nodes_of_an_older_file_keep_their_thresholds(tree):
    """Its held-out cells were scored by plain probabilities."""
    older = {name: value for name, value in tree.to_meta().items() if name != "lineage_doubt"}
    again = Tree.from_meta(older)
    nodes, values = again.chains(np.array([[0.4, 0.3, 0.1, 0.15, 0.05]]))
    np.testing.assert_allclose(again.scores(nodes, values), values)


def test_what_does_not_fit_together_is_refused(tree):
    with pytest.raises(ValueError, match="names twice, or a child before its parent"):
        Tree(
            names=["a", "b"],
            parents=np.array([1, -1]),
            node_of_class=np.array([0]),
            is_lineage=np.zeros(2, bool),
        )
    for doubt in (0.0, -1.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="lineage_doubt is .*, it must be above 0 and at most 1"):
            replace(tree, lineage_doubt=doubt)


@pytest.mark.parametrize("doubt", [0, 2, True, "0.7", float("nan")], ids="doubt{}".format)
def test_a_damaged_tree_in_a_file_is_refused(tree, doubt):
    meta = {"classes": list("abcde"), "tree": tree.to_meta()}
    tensors = {"exemplars": np.zeros((1, 4), np.float32)}
    assert "lineage_doubt" not in (part_problem("reference", tensors, meta) or "")
    meta["tree"]["lineage_doubt"] = doubt
    assert "lineage_doubt of its tree is" in part_problem("reference", tensors, meta)


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
