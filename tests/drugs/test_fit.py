"""Fitting a drug model: it finds what the toy screen was built with, and its intervals hold what they promise."""

import numpy as np
import pandas as pd
import pytest

import scellm
from scellm.drugs import DrugResponseConfig, fit_drug_response
from scellm.drugs._grid import ResponseGrid
from scellm.drugs._solve import solve_response

CONFIG = DrugResponseConfig(folds=4)


@pytest.fixture(scope="module")
def screen():
    return scellm.datasets.toy_drug_screen(60)


@pytest.fixture(scope="module")
def model(screen):
    return fit_drug_response(*screen, config=CONFIG)


def predict(model, log2_tpm):
    values = (np.exp2(log2_tpm[model.vocabulary.symbols].to_numpy()) - 1) * 1e6
    similarity, panel = model.projector().project(values)[0], model.panel(np.arange(len(model.drugs)))
    return model.predict(similarity, panel), model.uncertainty(similarity)[:, None] * panel.std_unit


def test_new_lines_are_predicted_better_than_by_the_mean(screen, model):
    log2_tpm, responses, drugs = scellm.datasets.toy_drug_screen(60)
    train, test = log2_tpm.index[:40], log2_tpm.index[40:]
    known = responses[responses["line"].isin(train)]
    fitted = fit_drug_response(log2_tpm.loc[train], known, drugs, config=CONFIG)
    mean, _ = predict(fitted, log2_tpm.loc[test])
    table = responses[responses["line"].isin(test)]
    rows, columns = test.get_indexer(table["line"]), pd.Index(drugs["drug"]).get_indexer(table["drug"])
    truth = table["ln_ic50"].to_numpy()
    error = np.mean((truth - mean[rows, columns]) ** 2)
    trivial = np.mean((truth - fitted.tensors["mean"][columns]) ** 2)
    assert error < 0.6 * trivial


def test_correlations_of_left_out_lines_are_recorded(model):
    assert (model.drugs["pearson"] > 0.5).all()
    assert model.settings["pearson_at_depth"][0] > model.settings["pearson_at_depth"][-1]


def test_control_shuffled_responses_are_not_predictable(screen):
    log2_tpm, responses, drugs = screen
    rng = np.random.default_rng(0)
    shuffled = responses.assign(ln_ic50=responses.groupby("drug")["ln_ic50"].transform(rng.permutation))
    model = fit_drug_response(log2_tpm, shuffled, drugs, config=CONFIG)
    assert model.drugs["pearson"].mean() < 0.2


def test_intervals_hold_nine_in_ten_new_measurements():
    log2_tpm, responses, drugs = scellm.datasets.toy_drug_screen(240, n_genes=60)
    train, test = log2_tpm.index[:120], log2_tpm.index[120:]
    model = fit_drug_response(
        log2_tpm.loc[train], responses[responses["line"].isin(train)], drugs, config=CONFIG
    )
    mean, std = predict(model, log2_tpm.loc[test])
    table = responses[responses["line"].isin(test)]
    rows, columns = test.get_indexer(table["line"]), pd.Index(drugs["drug"]).get_indexer(table["drug"])
    within = np.abs(table["ln_ic50"].to_numpy() - mean[rows, columns]) <= 1.645 * std[rows, columns]
    assert 0.85 < within.mean() < 0.95


def test_the_order_of_lines_and_genes_does_not_matter(screen, model):
    log2_tpm, responses, drugs = screen
    rng = np.random.default_rng(1)
    genes = fit_drug_response(log2_tpm[rng.permutation(log2_tpm.columns)], responses, drugs, config=CONFIG)
    np.testing.assert_allclose(genes.tensors["response"], model.tensors["response"], atol=1e-3)


def test_an_unseen_drug_gets_mean_and_spread_from_similar_ones(screen):
    log2_tpm, responses, drugs = screen
    grid = ResponseGrid.from_table(responses, pd.Index(log2_tpm.index), pd.Index(drugs["drug"]))
    alike = np.kron(np.eye(4), np.ones((2, 2)))  # the two drugs of a class
    fit = solve_response(np.eye(60), grid.masked(np.arange(8) != 0), alike, alike, CONFIG)
    others = fit.mean[1:].mean()
    assert np.sign(fit.mean[0] - others) == np.sign(fit.mean[1] - others)
    assert np.isfinite(fit.fitted).all()


def test_lines_that_differ_between_screens_do_not_mislead_each_other():
    rng = np.random.default_rng(0)
    n_lines, screens = 60, np.repeat(["one", "other"], [6, 20])
    general = {"one": rng.normal(size=n_lines), "other": rng.normal(size=n_lines)}
    values = np.stack([general[screen] for screen in screens], axis=1)
    values += 0.5 * rng.normal(size=values.shape)
    grid = ResponseGrid(values, np.ones(values.shape, dtype=bool))
    nothing = np.zeros((26, 26))
    known = grid.masked(np.arange(26) != 0)

    def correlation(screens):
        fit = solve_response(np.eye(n_lines), known, nothing, nothing, CONFIG, screens=screens)
        return np.corrcoef(fit.fitted[:, 0], values[:, 0])[0, 1]

    assert correlation(screens) > correlation(None) + 0.1


def test_learnt_drug_covariance_fills_gaps_better(screen):
    log2_tpm, responses, drugs = screen
    grid = ResponseGrid.from_table(responses, pd.Index(log2_tpm.index), pd.Index(drugs["drug"]))
    hidden = grid.measured & (np.random.default_rng(0).random(grid.measured.shape) < 0.2)
    nothing = np.zeros((8, 8))
    errors = [
        np.mean(
            (
                solve_response(
                    np.eye(60), grid.masked(~hidden), nothing, nothing, CONFIG, rounds=rounds
                ).fitted
                - grid.values
            )[hidden]
            ** 2
        )
        for rounds in (0, 2)
    ]
    assert errors[1] < errors[0]


def test_repeated_pairs_are_averaged():
    table = pd.DataFrame({"line": ["a", "a"], "drug": ["x", "x"], "ln_ic50": [1.0, 3.0]})
    grid = ResponseGrid.from_table(table, pd.Index(["a"]), pd.Index(["x"]))
    assert grid.values.tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda e, r, d: (e, r, d.drop(columns="target")), KeyError, "lacks the columns"),
        (lambda e, r, d: (e.to_numpy(), r, d), TypeError, "log2_tpm= must be a DataFrame"),
        (
            lambda e, r, d: (e, r.drop(columns="ln_ic50"), d),
            KeyError,
            r"responses lacks the columns \['ln_ic50'\]",
        ),
        (lambda e, r, d: (e, r.assign(ln_ic50="1.5"), d), TypeError, r"\['ln_ic50'\] must hold numbers"),
        (lambda e, r, d: (e.assign(CD3D="5"), r, d), TypeError, "'CD3D' holds"),
        (lambda e, r, d: (e.assign(CD3D=np.nan), r, d), ValueError, "holds nan for the gene 'CD3D'"),
        (lambda e, r, d: (e.assign(CD3D=-1.0), r, d), ValueError, "holds -1.0 for the gene 'CD3D'"),
        (lambda e, r, d: (e.rename(index={"line1": "line0"}), r, d), ValueError, "line 'line0' is twice"),
        (lambda e, r, d: (e, r, d.assign(drug="TOY:0")), ValueError, "drug 'TOY:0' is twice"),
        (
            lambda e, r, d: (e, r, d.assign(smiles=["C1CC", *d["smiles"][1:]])),
            ValueError,
            "'TOY:0' has no valid SMILES, 'C1CC': .*unclosed ring",
        ),
        (
            lambda e, r, d: (e, r, d.assign(target=np.nan)),
            TypeError,
            "target of the drug 'TOY:0' must be text",
        ),
        (lambda e, r, d: (e, r.assign(line="nobody"), d), KeyError, "line 'nobody' has responses"),
        (lambda e, r, d: (e, r.assign(drug="TOY:99"), d), KeyError, "drug 'TOY:99' has responses"),
        (lambda e, r, d: (e, r.assign(ln_ic50=np.inf), d), ValueError, "not finite"),
        (lambda e, r, d: (e.iloc[:5], r, d), ValueError, "too few for 4 folds"),
        (
            lambda e, r, d: (e.rename(columns={"CD3D": "no gene"}), r, d),
            ValueError,
            "no protein-coding genes",
        ),
    ],
    ids=[
        *(
            "columns",
            "array",
            "response columns",
            "text",
            "text expression",
            "nan",
            "negative",
            "lines twice",
        ),
        *("drugs twice", "smiles", "no target", "line", "drug", "infinite", "few", "gene"),
    ],
)
def test_tables_that_do_not_fit_are_refused(screen, change, error, text):
    with pytest.raises(error, match=text):
        fit_drug_response(*change(*screen), config=CONFIG)


def test_one_fold_is_refused(screen):
    with pytest.raises(ValueError, match=r"folds=1\) leaves nothing out"):
        fit_drug_response(*screen, config=DrugResponseConfig(folds=1))


def test_lines_without_a_line_are_refused(screen):
    lines = pd.DataFrame({"line": screen[0].index[1:], "name": "", "tissue": ""})
    with pytest.raises(KeyError, match="'line0' of log2_tpm= is not in lines="):
        fit_drug_response(*screen, config=CONFIG, lines=lines)


def platform_of(log2_tpm):
    """Fifty genes of two hundred are seen twice as much."""
    return pd.DataFrame({"factor": 2.0, "spread": 0.3}, index=log2_tpm.columns[:50])


def test_a_platform_changes_what_cells_mean_and_not_bulk(screen, model):
    log2_tpm, responses, drugs = screen
    aware = fit_drug_response(log2_tpm, responses, drugs, config=CONFIG, platform=platform_of(log2_tpm))
    assert (aware.drugs["pearson"] > 0.4).all()
    np.testing.assert_array_equal(aware.tensors["response"], model.tensors["response"])
    assert np.abs(aware.tensors["noise"] - model.tensors["noise"]).max() > 1e-3


@pytest.mark.parametrize(
    ("columns", "error", "text"),
    [
        ({"factor": 0.0}, ValueError, "finite and positive"),
        ({"spread": -1.0}, ValueError, "not negative"),
        (None, KeyError, r"lacks the columns \['spread'\]"),
    ],
    ids=["factor", "spread", "missing"],
)
def test_a_platform_that_makes_no_sense(screen, columns, error, text):
    log2_tpm, responses, drugs = screen
    table = platform_of(log2_tpm)
    table = table.drop(columns="spread") if columns is None else table.assign(**columns)
    with pytest.raises(error, match=text):
        fit_drug_response(log2_tpm, responses, drugs, config=CONFIG, platform=table)
