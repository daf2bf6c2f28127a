"""Targets of drugs as approved symbols: families, misspellings of the source, mechanisms without a gene; every drug of the model."""

import pytest

from scellm.data import GeneVocabulary
from scellm.drugs import find_drugs, load_drug_model
from scellm.drugs._targets import FAMILIES, genes_of, target_genes


@pytest.mark.parametrize(
    ("target", "genes"),
    [
        ("ABL", ["ABL1", "ABL2"]),
        ("PI3Kalpha", ["PIK3CA"]),
        ("MTORC1", ["MTOR", "RPTOR"]),
        ("KRAS (G12C)", ["KRAS"]),
        ("NAE", ["NAE1", "UBA3"]),
        ("IKK-1", ["CHUK"]),
        ("IGFR1, PMRT5, VSP34", ["IGF1R", "PRMT5", "PIK3C3"]),
        ("MEK1, MEK2", ["MAP2K1", "MAP2K2"]),
        ("BRAF, BRAF", ["BRAF"]),
        ("BET", ["BRD2", "BRD3", "BRD4", "BRDT"]),
        ("PKC", ["PRKCA", "PRKCB", "PRKCD", "PRKCE"]),
        ("Microtubule stabiliser", []),
        ("Antimetabolite (DNA & RNA)", []),
        ("", []),
        ("no such thing", []),
    ],
    ids=str,
)
def test_targets_are_genes(target, genes):
    assert target_genes(target) == genes


def test_the_table_holds_approved_symbols_only():
    vocabulary = GeneVocabulary.default()
    genes = sorted(
        {gene for line in FAMILIES.strip().splitlines() for gene in line.rsplit(":", 1)[1].split()}
    )
    assert vocabulary.match(genes, organism="human").symbols.tolist() == genes


@pytest.fixture(scope="module")
def drugs():
    return load_drug_model().drugs


def test_every_target_of_every_drug_is_a_gene_or_said_to_be_none(drugs):
    from scellm.drugs._targets import _plain, _tables

    symbols = set(GeneVocabulary.default().symbols)
    parts = {part.strip() for text in drugs["target"] for part in text.split(",") if part.strip()}
    unknown = [part for part in parts if not genes_of(part) and _plain(part) not in _tables()[1]]
    assert unknown == []
    assert {gene for part in parts for gene in genes_of(part)} <= symbols


def test_drugs_of_the_panel_have_targets_but_for_mechanisms(drugs):
    panel = drugs[drugs["panel"]]
    assert panel["target"].map(lambda text: bool(target_genes(text))).mean() > 0.8


def test_every_gene_finds_its_drugs(drugs):
    """Through the index that names are looked up in; building it for each gene would take minutes."""
    from scellm.drugs._names import _index, _plain

    _, by_group, _ = _index(drugs)
    for row, text in enumerate(drugs["target"]):
        assert all(row in by_group[_plain(gene)] for gene in target_genes(text))
    assert find_drugs(drugs, "ABL1").tolist() == by_group["abl1"]


def test_two_names_of_one_drug_are_one(drugs):
    assert len(find_drugs(drugs, ["PLX-4720", "PLX4720"])) == 1
