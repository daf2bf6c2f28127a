"""A head from a few labeled cells: what the others add, what is never looked at, and what is written out in genes."""

import numpy as np
import pytest
import scipy.sparse as sp

from scellm.annotation._annotator import Annotator
from scellm.annotation._few_labels import (
    BaselineOptions,
    FewCells,
    FewLabelsConfig,
    _Components,
    _fit_head,
    fit_few_labels,
)

CLASSES = ["resistant", "sensitive"]
N_GENES = 60
GENES = [f"g{i}" for i in range(N_GENES)]


def two_kinds(n=200, rng=0):
    """(n, 60) log expression of two kinds of cells, a fifth of the genes apart in all, noise in each, and their kind."""
    rng = np.random.default_rng(rng)
    codes = (np.arange(n) % 2).astype(np.int64)
    apart = np.zeros(N_GENES)
    apart[:12] = 0.8
    X = 2 + apart * codes[:, None] + rng.normal(size=(n, N_GENES))
    return sp.csr_array(np.maximum(X, 0).astype(np.float32)), codes


def fit(X, codes, labelled, *, config=None, **options):
    labelled = np.asarray(labelled)
    of_cells = {"unlabelled": np.setdiff1d(np.arange(X.shape[0]), labelled)}
    of_cells |= {name: options.pop(name) for name in ("unlabelled", "groups", "test") if name in options}
    beside = {name: options.pop(name) for name in ("methods", "embedding") if name in options}
    cells = FewCells(
        logged=X, genes=GENES, labelled=labelled, codes=codes[labelled], classes=CLASSES, **of_cells
    )
    return fit_few_labels(cells, config or FewLabelsConfig(), baselines=BaselineOptions(**beside), **options)


def vectors(annotator, X):
    return X[:, [GENES.index(name) for name in annotator.head.genes]].toarray()


def accuracy(annotator, X, codes):
    return float((annotator.logits(vectors(annotator, X)).argmax(axis=1) == codes).mean())


def test_cells_without_a_label_help():
    X, codes = two_kinds()
    new, truth = two_kinds(400, rng=1)
    with_, without = [], []
    for seed in range(8):
        labelled = np.sort(np.random.default_rng(seed).permutation(100)[:3] * 2 + [[0], [1]], axis=None)
        with_.append(accuracy(fit(X, codes, labelled).annotator, new, truth))
        alone = fit(X, codes, labelled, unlabelled=np.zeros(0, dtype=int)).annotator
        without.append(accuracy(alone, new, truth))
    assert np.mean(with_) > np.mean(without) + 0.05


def test_head_in_genes_is_the_head_in_components():
    X, codes = two_kinds()
    labelled, config = np.arange(10), FewLabelsConfig()
    space = _Components(X, labelled, np.arange(10, 200), config)
    weight, bias = _fit_head(space, X, labelled, codes[labelled], 2, config)
    annotator = fit(X, codes, labelled).annotator
    np.testing.assert_allclose(
        annotator.logits(vectors(annotator, X)), space.place(X) @ weight.T + bias, rtol=1e-3, atol=1e-3
    )


def test_components_are_those_of_scikit_learn_by_spread():
    from sklearn.decomposition import PCA

    X, _ = two_kinds()
    space = _Components(X, np.arange(10), np.arange(10, 200), FewLabelsConfig(n_components=5))
    plain = PCA(5, svd_solver="full").fit_transform(X.toarray())
    expected = plain * plain.std(axis=0)
    expected /= np.sqrt((expected**2).sum(axis=1).mean())
    np.testing.assert_allclose(np.abs(space.place(X)), np.abs(expected), atol=1e-3)


def test_order_of_cells_does_not_matter():
    X, codes = two_kinds()
    one = fit(X, codes, np.arange(12))
    order = np.random.default_rng(0).permutation(200)
    place = np.argsort(order)  # where each cell went
    other = fit(X[order], codes[order], place[:12])
    found = [f.annotator.logits(vectors(f.annotator, X)) for f in (one, other)]
    np.testing.assert_allclose(*found, rtol=1e-2, atol=2e-2)


def test_test_cells_are_never_looked_at():
    X, codes = two_kinds()
    test = np.arange(150, 200)
    options = {"unlabelled": np.arange(12, 150), "test": test}
    one = fit(X, codes, np.arange(12), **options)
    changed = X.toarray()
    changed[test] = changed[test][::-1] * 3
    other = fit(sp.csr_array(changed), codes, np.arange(12), **options)
    np.testing.assert_array_equal(one.annotator.head.weight, other.annotator.head.weight)
    np.testing.assert_array_equal(one.annotator.calibration.novelty, other.annotator.calibration.novelty)
    assert one.test_logits["scellm"].shape == (50, 2)
    changed[20] *= 3
    control = fit(sp.csr_array(changed), codes, np.arange(12), **options)
    assert not np.array_equal(one.annotator.head.weight, control.annotator.head.weight)


def test_held_out_groups_are_held_out_with_their_unlabelled_cells():
    X, codes = two_kinds()
    groups = np.array(["a", "b", "c", "d"], dtype=object)[np.arange(200) // 2 % 4]
    labelled = np.arange(24)
    one = fit(X, codes, labelled, groups=groups)
    assert one.n_folds == 4
    assert one.report["held_out"] == "groups"
    changed = X.toarray()
    mine = np.flatnonzero(groups == "a")
    changed[mine[mine >= 24]] *= 2  # cells of donor a without a label
    other = fit(sp.csr_array(changed), codes, labelled, groups=groups)
    is_a = groups[labelled[one.held_out]] == "a"
    np.testing.assert_array_equal(one.logits["scellm"][is_a], other.logits["scellm"][is_a])
    assert not np.array_equal(one.logits["scellm"][~is_a], other.logits["scellm"][~is_a])  # control


def test_groups_that_leave_one_class_cannot_be_held_out():
    X, codes = two_kinds()
    with pytest.raises(ValueError, match=r"without its group there is one class left.*Leave val_by out"):
        fit(X, codes, np.arange(20), groups=np.array(["a", "b"], dtype=object)[codes])


@pytest.mark.parametrize(("n", "is_sharpened"), [(8, False), (80, True)], ids=["few", "many"])
def test_few_right_answers_do_not_raise_the_confidence(n, is_sharpened):
    X, codes = two_kinds()
    X = X.toarray()
    X[:, :12] += 3 * codes[:, None]  # never wrong
    annotator = fit(sp.csr_array(X), codes, np.arange(n)).annotator
    assert (annotator.calibration.temperature < 1) == is_sharpened
    assert annotator.calibration.n_cells == n


def test_without_calibration_nothing_is_said():
    X, codes = two_kinds()
    annotator = fit(X, codes, np.arange(10), calibrated=False).annotator
    assert not annotator.is_calibrated
    assert annotator.calibration.temperature == 1
    assert annotator.report == {}


def test_novelty_is_about_all_cells():
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 2
    programs = rng.normal(size=(4, N_GENES))  # of both kinds, but for their share of the first
    mixed = rng.normal(size=(300, 4)) + np.outer(codes, [3, 0, 0, 0])
    X = sp.csr_array((5 + mixed @ programs + 0.3 * rng.normal(size=(300, N_GENES))).astype(np.float32))
    seen, new = X[:200], X[200:]

    def share_novel(annotator, cells):
        strange = annotator.outlier_score(vectors(annotator, cells))
        return float((annotator.novelty_scores(strange, 0.05) > 1).mean())

    annotator = fit(seen, codes[:200], np.arange(6)).annotator
    assert share_novel(annotator, new) < 0.2
    odd = sp.csr_array((new.toarray() + 2 * rng.normal(size=N_GENES)).astype(np.float32))
    assert share_novel(annotator, odd) > 0.6
    alone = fit(seen, codes[:200], np.arange(6), unlabelled=np.zeros(0, dtype=int)).annotator
    assert share_novel(alone, odd) < 0.2  # control: six cells do not know what is unusual


def test_stored_head_says_the_same():
    X, codes = two_kinds()
    annotator = fit(X, codes, np.arange(30)).annotator
    again = Annotator.from_part(annotator.to_part())
    assert again.head.genes == annotator.head.genes
    np.testing.assert_array_equal(
        again.probabilities(vectors(again, X)), annotator.probabilities(vectors(annotator, X))
    )


def test_more_than_two_classes():
    X, codes = two_kinds()
    X, codes = X.toarray(), codes.copy()
    codes[::4] = 2
    X[::4, 30:40] += 2
    cells = FewCells(
        logged=sp.csr_array(X),
        genes=GENES,
        labelled=np.arange(24),
        codes=codes[:24],
        classes=["a", "b", "c"],
        unlabelled=np.arange(24, 200),
    )
    fitted = fit_few_labels(cells, FewLabelsConfig(), baselines=BaselineOptions(methods=("logistic",)))
    assert accuracy(fitted.annotator, sp.csr_array(X), codes) > 0.85
    assert fitted.logits["logistic"].shape == (24, 3)


def test_genes_that_do_not_vary():
    X = sp.csr_array(np.ones((20, N_GENES), np.float32))
    with pytest.raises(ValueError, match="No gene varies"):
        fit(X, np.arange(20) % 2, np.arange(6))
