"""tl.rank_drugs and get.rank_drugs: effects, donors, corrections, targets."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy import stats

import scellm

DRUGS = ["braf", "none", "other"]


@pytest.fixture
def cells() -> AnnData:
    """Six donors with cells of two kinds; kind A is two units more sensitive to the first drug."""
    rng = np.random.default_rng(0)
    donor, kind = np.repeat(np.arange(6), 20), np.tile(np.repeat(["A", "B"], 10), 6)
    values = rng.normal(0, 1, (6, 1, 3)).repeat(20, 1).reshape(120, 3) + rng.normal(0, 0.3, (120, 3))
    values[kind == "A", 0] -= 2
    X = np.zeros((120, 3), dtype=np.float32)
    X[:, 0] = kind == "A"
    X[:, 2] = 1
    adata = AnnData(
        X, obs=pd.DataFrame({"kind": kind, "donor": donor}).set_index(pd.Index(map(str, range(120))))
    )
    adata.var_names = ["BRAF", "MAP2K1", "ACTB"]
    adata.obsm["drug_response"] = values.astype(np.float32)
    adata.uns["drug_response"] = {
        "scellm_version": "0",
        "drugs": np.array(DRUGS),
        "target": np.array(["BRAF", "Microtubule", "MEK1, MEK2"]),
        "drug_class": np.array(["ERK", "Mitosis", "ERK"]),
        "mean": np.array([5.0, 0.0, 1.0], dtype=np.float32),
        "spread": np.array([2.0, 1.0, 1.0], dtype=np.float32),
        "groupby": "",
    }
    return adata


def rank(adata, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scellm.tl.rank_drugs(adata, "kind", sample_key="donor", **options)
    return scellm.get.rank_drugs(adata)


def test_the_planted_effect_is_found_and_nothing_else(cells):
    table = rank(cells).set_index(["group", "drug"])
    row = table.loc[("A", "braf")]
    assert row["effect"] == pytest.approx(-2, abs=0.2)
    assert row["low"] < row["effect"] < row["high"] < -1.5
    assert row["effect_sd"] == pytest.approx(row["effect"] / 2)
    assert row["p_adjusted"] < 0.001
    assert (table.drop(index=[("A", "braf"), ("B", "braf")])["p_adjusted"] > 0.05).all()
    assert table.loc[("B", "braf"), "effect"] == pytest.approx(-row["effect"])


def test_drugs_are_ranked_by_what_is_unusual_for_them(cells):
    """A difference of two counts little for a drug that cell lines need very different doses of."""
    cells.uns["drug_response"]["spread"][0] = 100
    cells.obsm["drug_response"][:, 1] -= 0.5 * (cells.obs["kind"] == "A")
    table = rank(cells)
    of_a = table[table["group"] == "A"]
    assert of_a["drug"].iloc[0] == "none"
    assert (of_a["effect_sd"].diff().dropna() >= 0).all()
    assert of_a.set_index("drug")["effect"].idxmin() == "braf"
    for name in ("uncertainty", "applicability"):
        cells.obs[f"drug_response_{name}"] = np.float32(0.5)
    by_kind = scellm.get.drug_response(cells, groupby="kind").pivot(
        index="drug", columns="kind", values=["z", "ln_ic50"]
    )
    for name in ("A", "B"):  # the same z and ln IC50 as get.drug_response gives, as donors are of one size
        ranked = table[table["group"] == name].set_index("drug")
        for column in ("z", "ln_ic50"):
            expected = by_kind[column, name]
            assert ranked[column].reindex(expected.index).to_numpy() == pytest.approx(
                expected.to_numpy(), abs=1e-5
            )
    difference = (by_kind["z", "A"] - by_kind["z", "B"]).reindex(of_a["drug"])
    assert of_a["effect_sd"].to_numpy() == pytest.approx(difference.to_numpy(), abs=1e-5)


def test_most_sensitive_first_and_filtered(cells):
    table = rank(cells)
    assert table["group"].tolist() == ["A"] * 3 + ["B"] * 3
    assert table["drug"][0] == "braf"
    only = scellm.get.rank_drugs(cells, groups="A", max_p_adjusted=0.05)
    assert only["drug"].tolist() == ["braf"]


def test_the_test_is_paired_over_donors(cells):
    row = rank(cells).set_index(["group", "drug"]).loc[("A", "other")]
    means = pd.DataFrame(cells.obsm["drug_response"]).groupby(
        [cells.obs["kind"].to_numpy(), cells.obs["donor"].to_numpy()]
    )
    means = means.mean()[2]
    expected = stats.ttest_rel(means["A"], means["B"])
    assert row["p_value"] == pytest.approx(expected.pvalue, rel=1e-3)
    assert row["n_samples"] == row["n_reference"] == 6


def test_donors_of_one_kind_each_are_compared_unpaired(cells):
    cells.obs["donor"] = [f"{d}{k}" for d, k in zip(cells.obs["donor"], cells.obs["kind"], strict=True)]
    row = rank(cells).set_index(["group", "drug"]).loc[("A", "braf")]
    assert row["effect"] == pytest.approx(-2, abs=0.2)
    assert row["p_value"] < 0.1


def test_many_cells_of_few_donors_are_no_evidence(cells):
    """Cells of two donors: an effect, but neither test nor a claim."""
    cells.obs["donor"] = cells.obs["donor"] % 2
    with pytest.warns(UserWarning, match="have no p-value: fewer than 3 samples"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor")
    assert np.isnan(cells.uns["rank_drugs"]["p_value"]).all()


def test_without_donors_there_is_no_p_value(cells):
    with pytest.warns(UserWarning, match="no p-values"):
        scellm.tl.rank_drugs(cells, "kind")
    table = scellm.get.rank_drugs(cells)
    assert table["p_value"].isna().all()
    assert table["effect"].notna().all()
    assert cells.uns["rank_drugs"]["replicates"] == "cells"


def test_targets_are_found_by_alias(cells):
    table = rank(cells).set_index(["group", "drug"])["target_expressed"]
    assert table[("A", "braf")] == 1
    assert table[("B", "braf")] == 0
    assert np.isnan(table[("A", "none")])  # microtubules are no gene
    assert table[("A", "other")] == 0  # MEK1 is MAP2K1, which no cell expresses


@pytest.mark.parametrize("change", [sp.csr_matrix, np.int64], ids=["sparse", "integers"])
def test_targets_are_the_same_however_cells_are_stored(cells, change):
    cells.X[::3, 1] = 2
    expected = rank(cells)["target_expressed"]
    again = cells.copy()
    del again.uns["rank_drugs"]
    again.X = change(cells.X)
    np.testing.assert_array_equal(rank(again)["target_expressed"], expected)


def test_targets_in_blocks_are_counted_by_hand(cells, monkeypatch):
    monkeypatch.setattr("scellm.data.cells._expression.ROWS_PER_BLOCK", 7)
    cells.X[::3, 1] = 2
    table = rank(cells).set_index(["group", "drug"])["target_expressed"]
    for kind in "AB":
        of_kind = cells.X[(cells.obs["kind"] == kind).to_numpy()]
        assert table[(kind, "braf")] == np.float32((of_kind[:, 0] > 0).mean())
        assert table[(kind, "other")] == np.float32((of_kind[:, 1] > 0).mean())


def test_scaled_values_say_nothing_of_what_is_expressed(cells):
    cells.layers["counts"] = cells.X.copy()
    cells.X = np.random.default_rng(0).normal(size=cells.shape).astype(np.float32)
    with pytest.raises(ValueError, match=r"`adata\.X` cannot be read as expression.*layer='counts'"):
        rank(cells)
    assert "rank_drugs" not in cells.uns
    assert rank(cells, layer="counts")["target_expressed"].max() == 1


def test_a_reference_group(cells):
    table = rank(cells, reference="B")
    assert table["group"].unique().tolist() == ["A"]
    assert table["effect"][0] == pytest.approx(-2, abs=0.2)


def test_intervals_are_those_of_a_paired_t_test_over_donors(cells):
    row = rank(cells, level=0.9).set_index(["group", "drug"]).loc[("A", "other")]
    means = pd.DataFrame(cells.obsm["drug_response"]).groupby(
        [cells.obs["kind"].to_numpy(), cells.obs["donor"].to_numpy()]
    )
    means = means.mean()[2]
    low, high = stats.ttest_rel(means["A"], means["B"]).confidence_interval(0.9)
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-5)


def test_groups_outside_of_what_the_model_has_seen_are_named(cells):
    cells.obs["drug_response_applicability"] = np.where(cells.obs["kind"] == "A", 0.5, 1.4)
    with pytest.warns(UserWarning, match=r"1 of 2 groups \(B\) are unlike any cancer cell line"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor")


def test_a_group_of_one_cell_has_an_effect_and_no_interval(cells):
    cells.obs["kind"] = cells.obs["kind"].where(np.arange(120) > 0, "alone")
    with pytest.warns(UserWarning, match="no p-value"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor")
    row = scellm.get.rank_drugs(cells, groups="alone").iloc[0]
    assert np.isfinite(row["effect"])
    assert np.isnan([row["low"], row["high"], row["p_value"]]).all()


def test_predictions_by_the_group_itself_say_nothing_of_spread(cells):
    cells.uns["drug_response"]["groupby"] = "kind"
    with pytest.warns(UserWarning, match="every cell of a group has the same one"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor")


def test_results_survive_a_file(cells, tmp_path):
    import anndata as ad

    table = rank(cells)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(scellm.get.rank_drugs(ad.read_h5ad(tmp_path / "cells.h5ad")), table)


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        (lambda a: a.obsm.pop("drug_response"), {}, KeyError, "Run scellm.tl.drug_response"),
        (lambda a: a.obs.pop("kind"), {}, KeyError, "'kind' is not in `adata.obs`"),
        (
            lambda a: a.obs.pop("donor"),
            {},
            KeyError,
            "'donor' is not in `adata.obs`",
        ),
        (lambda a: a.obs.__setitem__("kind", "A"), {}, ValueError, "at least two"),
        (lambda a: None, {"reference": "C"}, KeyError, "reference='C' is no group"),
        (lambda a: None, {"level": 1.0}, ValueError, "level=1.0 must lie between 0 and 1"),
        (
            lambda a: a.obsm["drug_response"].__setitem__(slice(None), np.nan),
            {},
            ValueError,
            "has a prediction",
        ),
        (lambda a: a.uns.__setitem__("rank_drugs", 3), {}, ValueError, "not written by tl.rank_drugs"),
    ],
    ids=["no results", "groupby", "donor", "one group", "reference", "level", "nan", "key"],
)
def test_what_cannot_be_ranked_is_refused(cells, change, options, error, text):
    change(cells)
    with pytest.raises(error, match=text):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor", **options)


def test_tables_say_what_to_run_first(cells):
    with pytest.raises(KeyError, match="Run scellm.tl.rank_drugs"):
        scellm.get.rank_drugs(cells)
    rank(cells)
    with pytest.raises(KeyError, match="were not ranked"):
        scellm.get.rank_drugs(cells, groups="C")


@pytest.mark.filterwarnings("ignore:Without sample_key")
def test_without_samples_the_effect_is_the_difference_of_means_in_any_order(cells):
    kept = np.concatenate([np.arange(60), np.flatnonzero(cells.obs["kind"] == "B")[30:]])
    cells = cells[kept].copy()  # unequal groups
    values, is_a = cells.obsm["drug_response"].astype(np.float64), (cells.obs["kind"] == "A").to_numpy()
    truth = values[is_a].mean(0) - values[~is_a].mean(0)
    order = np.random.default_rng(1).permutation(cells.n_obs)
    for adata in (cells, cells[order].copy()):
        scellm.tl.rank_drugs(adata, "kind")
        record = adata.uns["rank_drugs"]
        at = record["groups"].tolist().index("A")
        np.testing.assert_allclose(record["effect"][at], truth, atol=1e-5)
        assert record["n_samples"][at].tolist() == [is_a.sum(), (~is_a).sum()]
        assert ((record["low"][at] <= truth) & (truth <= record["high"][at])).all()


def test_predictions_by_groups_across_samples_have_no_p_values(cells):
    cells.uns["drug_response"]["groupby"] = "fine"
    cells.obs["fine"] = np.arange(120) % 7
    with pytest.warns(UserWarning, match="neither p-values nor intervals"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor")
    for field in ("p_value", "p_adjusted", "low", "high"):
        assert np.isnan(cells.uns["rank_drugs"][field]).all()


def test_control_predictions_by_groups_of_one_sample_have(cells):
    cells.uns["drug_response"]["groupby"] = "own"
    cells.obs["own"] = cells.obs["donor"].astype(str) + cells.obs["kind"]
    assert np.isfinite(rank(cells)["p_value"]).all()


def test_samples_that_are_not_compared_are_not_counted(cells):
    cells.obs.loc[(cells.obs["donor"] == 5) & (cells.obs["kind"] == "A"), "kind"] = "B"
    rank(cells)
    assert (cells.uns["rank_drugs"]["n_samples"] == 5).all()


def test_cells_without_a_sample_are_counted(cells):
    cells.obs["donor"] = cells.obs["donor"].astype(str).where(np.arange(120) >= 10, "unknown")
    with pytest.warns(UserWarning, match="10 cells have no sample"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor")
    cells.obs["donor"] = np.nan
    with pytest.raises(ValueError, match="no cell with a group and a prediction has a sample"):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor", key_added="again")


def test_measurements_are_no_groups(cells):
    cells.obs["score"] = np.linspace(0, 1, 120)
    with pytest.raises(TypeError, match="numbers, not labels or groups"):
        scellm.tl.rank_drugs(cells, "score")


def test_some_groups_are_ranked_against_all_others(cells):
    cells.obs["kind"] = cells.obs["kind"].where(cells.obs["donor"] < 3, cells.obs["kind"] + "2")
    everything = rank(cells)
    some = rank(cells, groups=["B", "A"])
    assert some["group"].unique().tolist() == ["B", "A"]
    assert rank(cells, groups="B")["group"].unique().tolist() == ["B"]
    expected = everything.set_index(["group", "drug"])["effect"]
    np.testing.assert_allclose(
        some.set_index(["group", "drug"])["effect"], expected.loc[some.set_index(["group", "drug"]).index]
    )


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"groups": "C"}, KeyError, r"\['C'\] of groups= are no groups of `adata.obs\['kind'\]`"),
        ({"groups": []}, ValueError, "groups= is empty; name at least one of"),
        ({"groups": ["A", "B"], "reference": "B"}, ValueError, "holds the reference 'B'"),
    ],
    ids=["unknown", "empty", "reference"],
)
def test_groups_that_cannot_be_ranked_are_refused(cells, options, error, text):
    with pytest.raises(error, match=text):
        scellm.tl.rank_drugs(cells, "kind", sample_key="donor", **options)


def test_predictions_by_groups_are_compared_at_once_and_in_silence_of_scipy(cells):
    """No resampling of cells that share one prediction, and the only warning is ours."""
    cells.uns["drug_response"]["groupby"] = "kind"
    for kind in ("A", "B"):
        cells.obsm["drug_response"][cells.obs["kind"] == kind] = cells.obsm["drug_response"][
            cells.obs["kind"] == kind
        ][0]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scellm.tl.rank_drugs(cells, "kind")
    assert len(said) == 1
    assert "Run tl.drug_response cell by cell" in str(said[0].message)
    assert np.isfinite(cells.uns["rank_drugs"]["effect"]).all()
    assert np.isnan(cells.uns["rank_drugs"]["low"]).all()


def test_progress_is_shown_when_asked_for(cells, capsys):
    rank(cells, show_progress=True)
    assert "rank drugs" in capsys.readouterr().err
    rank(cells)
    assert "rank drugs" not in capsys.readouterr().err
