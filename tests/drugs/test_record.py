"""Records of predictions and of rankings: written, read, also from files and from elsewhere."""

import anndata as ad
import numpy as np
import pytest

from scellm.drugs._record import DrugRecord, RankRecord


def record(n: int) -> DrugRecord:
    return DrugRecord(
        drugs=[f"drug {i}" for i in range(n)],
        target=["EGFR"] * n,
        pearson=np.full(n, 0.5),
        spread=np.full(n, 2.0),
        columns=["drug_response:drug 0"] if n == 1 else [],
        groupby="leiden",
        n_genes=12,
        median_counts=3.5,
    )


def ranking() -> RankRecord:
    pairs = ("effect", "effect_sd", "low", "high", "p_value", "p_adjusted", "target_expressed")
    values = {name: np.array([[1.0, -1.0], [np.nan, 0.5]]) for name in pairs}
    return RankRecord(
        groups=["a", "b"], drugs=["x", "y"], target=["", ""], drug_class=["", ""], n_samples=np.array([[3, 4], [5, 6]]),
        **values,
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 3])
def test_a_record_survives_a_file(n, tmp_path):
    adata = ad.AnnData(np.zeros((1, 1), dtype=np.float32))
    adata.uns["r"] = record(n).to_uns()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = DrugRecord.from_uns(ad.read_h5ad(tmp_path / "cells.h5ad").uns["r"])
    for name, value in vars(record(n)).items():
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)
    assert isinstance(again.drugs, list)


def test_a_record_from_elsewhere_needs_only_drugs():
    found = DrugRecord.from_uns(
        {"drugs": np.array(["a", "b"]), "drug_class": np.array(["nan", "x"], dtype=object)}
    )
    assert found.drug_class == ["", "x"]
    assert found.target == found.synonyms == ["", ""]
    assert np.isnan(found.pearson).all()
    assert found.table()["name"].tolist() == ["a", "b"]


def test_records_are_told_from_other_entries():
    assert DrugRecord.is_in(record(2).to_uns())
    assert RankRecord.is_in(ranking().to_uns())
    for other in (None, 3, {}, {"drugs": ["a"], "structure": 1}, ranking().to_uns()):
        assert not DrugRecord.is_in(other)
    assert not RankRecord.is_in(record(2).to_uns())


def test_a_ranking_is_read_as_it_was_written():
    again = RankRecord.from_uns(ranking().to_uns())
    for name, value in vars(ranking()).items():
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)


def test_groups_of_a_ranking_are_chosen_in_the_order_asked_for():
    found = ranking()
    assert found.choose(None) == ["a", "b"]
    assert found.choose(["b", "a", "b"]) == ["b", "a"]
    assert found.choose("b") == ["b"]
    with pytest.raises(KeyError, match=r"\['c'\] were not ranked; there are the groups \['a', 'b'\]"):
        found.choose("c")
    with pytest.raises(ValueError, match="groups= is empty; name at least one of"):
        found.choose([])


def test_the_table_of_a_group_has_the_most_sensitive_first():
    table = ranking().table("a")
    assert table["drug"].tolist() == ["y", "x"]
    assert table["n_reference"].tolist() == [4, 4]
