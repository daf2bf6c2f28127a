"""How well types were recognized where whole studies were left out."""

import numpy as np

from scellm.annotation._left_out import doubtful_names, left_out_rates, named_instead


def test_rates_of_few_cells_are_not_known():
    types = [
        {"recall": 0.9, "n_tested": 50, "precision": 0.4, "n_named": 20},
        {
            "recall": -1.0,
            "n_tested": 0,
            "precision": 0.0,
            "n_named": 300,
        },  # nothing there that could confirm it
        {"recall": 1.0, "n_tested": 19, "precision": -1.0, "n_named": 0},
        {"recall": -1.0, "precision": -1.0},
    ]
    found = left_out_rates(types)
    np.testing.assert_array_equal(found["recall_left_out"], [0.9, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found["precision_left_out"], [0.4, np.nan, np.nan, np.nan])


def test_frequent_names_that_are_often_wrong_are_told():
    names = np.array(["T cell"] * 50 + ["memory T cell"] * 30 + ["naive T cell"] * 19 + ["rare"])
    nodes, parents = ["T cell", "memory T cell", "naive T cell", "rare"], ["", "T cell", "T cell", "T cell"]
    found = doubtful_names(names, nodes, parents, np.array([0.9, 0.32, np.nan, 0.0]))
    assert found == "'memory T cell' (30 % of the cells, right in 32 %, so read 'T cell')"
    assert doubtful_names(names, nodes, parents, np.array([0.9, 0.5, np.nan, 0.0])) == ""


def test_names_that_are_often_wrong_are_those_above():
    rates = [(0.9, 50), (0.4, 50), (0.4, 50), (0.1, 50), (0.0, 5)]
    types = [{"recall": 1.0, "n_tested": 50, "precision": right, "n_named": n} for right, n in rates]
    parents = np.array([-1, 0, 1, -1, 0])
    assert named_instead(types, parents) == (0, 0, 0, 3, 4)
