"""Scores of genes beside those of the embedding: what they add, and that they fade with the genes."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

import scellm
from scellm.annotation._annotator import Annotator
from scellm.annotation._fit import fit_one
from scellm.annotation._gene_head import GeneHead
from scellm.metrics._calibration import softmax
from scellm.models._limits import part_problem

N, K, G, F = 40, 3, 6, 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def head(rng):
    return GeneHead(
        genes=[f"GENE{i}" for i in range(G)],
        centre=rng.normal(size=G).astype(np.float32),
        scale=rng.uniform(0.5, 2, G).astype(np.float32),
        weight=rng.normal(size=(K, G)).astype(np.float16).astype(np.float32),
        bias=rng.normal(size=K).astype(np.float32),
        kept=0.6,
    )


@pytest.fixture
def logged(rng):
    return sp.csr_array(rng.poisson(1, (N, G)).astype(np.float32))


@pytest.fixture
def annotator(rng, head):
    vectors, codes = rng.normal(size=(N, F)), np.arange(N) % K
    found = fit_one("linear", vectors, codes, ["a", "b", "c"])
    found.gene_head = head
    return found


def test_scores_are_those_of_logistic_regression(head, logged):
    expected = ((logged.toarray() - head.centre) / head.scale) @ head.weight.T + head.bias
    np.testing.assert_allclose(head.logits(logged, np.ones(G, bool)), expected, rtol=1e-5)


def test_one_gene_does_not_decide_alone(head, logged):
    """Standardized values are cut at 10."""
    far = logged.copy()
    far.data[:] = 1e6
    assert np.abs(head.standardize(far, np.ones(G, bool))).max() == 10


def test_probabilities_are_of_both(annotator, head, logged, rng):
    vectors = rng.normal(size=(N, F))
    genes = head.scores(logged, np.ones(G, bool))
    expected = softmax(0.6 * annotator.logits(vectors) + head.logits(logged, np.ones(G, bool)))
    np.testing.assert_allclose(annotator.probabilities(vectors, genes), expected, rtol=1e-4)


def test_a_gene_that_is_not_measured_says_nothing(head, logged):
    has = np.arange(G) > 0
    other = logged.toarray()
    other[:, 0] = 5
    one, two = (head.logits(sp.csr_array(x), has) for x in (logged, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("n_there", "weigh"), [(6, 1.0), (3, np.sqrt(0.5)), (0, 0.0)])
def test_genes_weigh_by_the_root_of_their_share(head, logged, n_there, weigh):
    has = np.arange(G) < n_there
    found = head.scores(logged, has)
    np.testing.assert_allclose(found.values, weigh * head.logits(logged, has), rtol=1e-5)
    assert found.kept == pytest.approx(1 - 0.4 * weigh)


def test_without_any_of_its_genes_the_embedding_is_alone(annotator, head, logged, rng):
    vectors = rng.normal(size=(N, F))
    found = annotator.probabilities(vectors, head.scores(logged, np.zeros(G, bool)))
    np.testing.assert_array_equal(found, annotator.probabilities(vectors))


def test_survives_as_a_part(annotator, head):
    part = annotator.to_part()
    assert part.tensors["gene_weight"].dtype == np.float16
    found = Annotator.from_part(part).gene_head
    for field in dataclasses.fields(GeneHead):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(head, field.name))
    assert part_problem("reference", part.tensors, part.meta) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"genes": ["A"] * G}, "has a gene twice"),
        ({"genes": []}, "lists no genes"),
        ({"genes": ["A", "B"]}, r"gene_centre has shape \(6,\), needed is \(2,\)"),
        ({"kept": float("nan")}, "kept of its gene_head is nan"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(annotator, change, said):
    part = annotator.to_part()
    part.meta["gene_head"] |= change
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(part_problem("reference", part.tensors, part.meta))


def test_other_classes_are_refused(annotator, head):
    short = dataclasses.replace(head, weight=head.weight[:2], bias=head.bias[:2])
    with pytest.raises(ValueError, match="its genes score 2 classes of 3"):
        dataclasses.replace(annotator, gene_head=short)


def test_arrays_of_other_lengths_are_refused(head):
    with pytest.raises(ValueError, match=r"scale has shape \(5,\), not \(6,\)"):
        dataclasses.replace(head, scale=head.scale[:5])


def test_the_shipped_reference_has_one():
    model = scellm.models.load("scellm-small")
    head = Annotator.from_part(model.parts["reference"]).gene_head
    assert set(head.genes) <= set(model.vocabulary.symbols)
    assert 0 < head.kept < 1
