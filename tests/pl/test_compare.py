from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import scellm

KEY = "scellm_fine_tune"


@pytest.fixture
def comparison():
    methods = ["pca_knn", "scellm", "logistic"]
    table = pd.DataFrame(
        {"macro_f1": [0.6, 0.8, 0.9], "accuracy": [0.7, 0.85, 0.95], "balanced_accuracy": [0.65, 0.8, 0.9]},
        index=methods,
    )
    per_class = pd.DataFrame(
        [[0.9, 0.2, 0.7, np.nan], [0.9, 0.7, 0.8, np.nan], [0.9, 0.9, 0.9, np.nan]],
        index=methods,
        columns=["B", "NK/T", "T", "absent"],
    )
    return SimpleNamespace(table=table, per_class=per_class)


@pytest.fixture
def reported(cells, comparison):
    """Cells with the report of `tl.fine_tune`."""
    table = {name: comparison.table[name].to_numpy() for name in comparison.table}
    table["methods"] = np.array(comparison.table.index, dtype=object)
    table["f1_by_class"] = comparison.per_class.to_numpy()
    cells.uns[KEY] = {"classes": np.array(comparison.per_class.columns, dtype=object), "baselines": table}
    return cells


def labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_methods_are_sorted_and_numbered(reported, comparison, kind):
    ax = scellm.pl.compare(reported if kind == "report" else comparison, show=False)
    assert labels(ax) == ["logistic regression", "scellm", "PCA + neighbors"]
    assert [text.get_text() for text in ax.texts] == ["0.900", "0.800", "0.600"]
    below = ax.figure.axes[1]
    assert labels(below) == ["NK/T", "T", "B"]  # by how far the methods differ; absent classes are not drawn
    assert {tuple(np.round(c.get_offsets()[0], 3)) for c in below.collections[1:]} == {
        (0.9, 0),
        (0.7, 0),
        (0.2, 0),
    }


def test_a_method_has_one_colour(comparison):
    above = scellm.pl.compare(comparison, show=False)
    below = above.figure.axes[1]
    of_class = {c.get_label(): tuple(c.get_facecolor()[0]) for c in below.collections[1:]}
    dots = [c for c in above.collections if len(c.get_offsets()) == 1 and len(c.get_facecolor())]
    of_score = {labels(above)[int(c.get_offsets()[0][1])]: tuple(c.get_facecolor()[0]) for c in dots}
    assert of_class == of_score
    assert len(set(of_class.values())) == 3


def test_table_or_axes_alone_have_no_second_panel(comparison):
    assert len(scellm.pl.compare(comparison.table, show=False).figure.axes) == 1
    ax = scellm.pl.compare(comparison.table, show=False)
    assert scellm.pl.compare(comparison, ax=ax) is ax
    assert len(ax.figure.axes) == 1


def test_result_of_compare_baselines_is_drawn():
    import scanpy as sc

    adata = scellm.datasets.toy_cells(160, n_vars=300)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    found = scellm.metrics.compare_baselines(
        adata.X,
        adata.obs["cell_type"],
        train=range(100),
        test=range(100, 160),
        methods=["logistic", "pca_knn"],
    )
    ax = scellm.pl.compare(found, show=False)
    assert len(labels(ax)) == 2
    assert len(labels(ax.figure.axes[1])) == 4


def test_what_is_missing_is_named(cells, comparison):
    with pytest.raises(KeyError, match="'scellm_fine_tune' is not in `adata.uns`.*fine_tune.*writes it"):
        scellm.pl.compare(cells)
    cells.uns[KEY] = {"classes": np.array(["a"])}
    with pytest.raises(
        KeyError, match="has no baselines to compare with; run tl.fine_tune with baseline=True"
    ):
        scellm.pl.compare(cells)
    with pytest.raises(TypeError, match="found int"):
        scellm.pl.compare(3)
    with pytest.raises(KeyError, match="needs a column 'macro_f1'"):
        scellm.pl.compare(comparison.table[["accuracy"]])
