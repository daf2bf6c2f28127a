import warnings

import numpy as np
import pytest
import scanpy as sc

import scellm

KEY = "scellm_cell_type"


def drawn(ax):
    """Share and relative mean by (type, gene)."""
    genes = [text.get_text() for text in ax.get_xticklabels()]
    types = [text.get_text().rpartition(" (")[0] for text in ax.get_yticklabels()]
    dots = ax.collections[0]
    return {
        (types[int(y)], genes[int(x)]): (size / 110, value)
        for (x, y), size, value in zip(dots.get_offsets(), dots.get_sizes(), dots.get_array(), strict=True)
    }


@pytest.fixture
def typed(cells):
    """Labels that are the true types, so that markers must agree."""
    cells.obs[KEY] = cells.obs["cell_type"]
    return cells


def test_size_is_the_share_and_colour_the_mean(typed):
    ax = scellm.pl.markers(typed, {"B cell": ["MS4A1", "CD79A"], "monocyte": ["LYZ"]}, show=False)
    found = drawn(ax)
    X = typed.X.toarray()
    logged = np.log1p(X / X.sum(1, keepdims=True) * 1e4)
    for gene in ("MS4A1", "LYZ"):
        column = typed.var_names.get_loc(gene)
        means = {
            name: logged[(typed.obs[KEY] == name).to_numpy(), column].mean()
            for name in typed.obs[KEY].cat.categories
        }
        for name, mean in means.items():
            share, colour = found[name, gene]
            assert np.isclose(share, (X[(typed.obs[KEY] == name).to_numpy(), column] > 0).mean(), atol=1e-6)
            assert np.isclose(colour, mean / max(means.values()), atol=1e-5)
    assert found["B cell", "MS4A1"][1] == 1
    assert found["monocyte", "LYZ"][1] == 1
    assert [text.get_text() for text in ax.texts] == ["B cell", "monocyte"]


def test_logarithms_are_drawn_as_they_are_in_any_storage(typed):
    expected = drawn(scellm.pl.markers(typed, ["LYZ", "CD3E"], show=False))
    sc.pp.normalize_total(typed, target_sum=1e4)
    sc.pp.log1p(typed)
    typed.layers["dense"] = typed.X.toarray()
    for layer in (None, "dense"):
        found = drawn(scellm.pl.markers(typed, ["LYZ", "CD3E"], layer=layer, show=False))
        assert found.keys() == expected.keys()
        assert all(np.allclose(found[dot], expected[dot], atol=1e-5) for dot in found)


def test_ranked_genes_of_scanpy(typed):
    sc.pp.normalize_total(typed, target_sum=1e4)
    sc.pp.log1p(typed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(typed, KEY)
    ax = scellm.pl.markers(typed, n_genes=2, show=False)
    genes = [text.get_text() for text in ax.get_xticklabels()]
    names = typed.uns["rank_genes_groups"]["names"]
    assert genes == [gene for group in names.dtype.names for gene in names[group][:2]]
    with pytest.raises(KeyError, match="the one that is there was made for 'scellm_cell_type'"):
        scellm.pl.markers(typed, key="donor")


def test_unknown_markers_are_named(typed):
    with pytest.warns(UserWarning, match="1 markers are not in `adata.X` and are not drawn: NOGENE"):
        ax = scellm.pl.markers(typed, {"B cell": ["MS4A1", "NOGENE"], "x": ["NOGENE"]}, show=False)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["MS4A1"]
    with pytest.raises(KeyError, match=r"None of the markers \['NOGENE'\]"):
        scellm.pl.markers(typed, ["NOGENE"])
    with pytest.raises(KeyError, match="is needed for 'scellm_cell_type', and there is none"):
        scellm.pl.markers(typed)


def test_scaled_values_are_refused(typed):
    sc.pp.log1p(typed)
    typed.layers["scaled"] = typed.X.toarray() - 1
    with pytest.raises(ValueError, match=r"`adata.layers\['scaled'\]` cannot be read as expression"):
        scellm.pl.markers(typed, ["LYZ"], layer="scaled")


def test_nothing_is_changed(typed):
    before = typed.copy()
    scellm.pl.markers(typed, ["LYZ"], show=False)
    assert (typed.X != before.X).nnz == 0
    assert set(typed.uns) == set(before.uns)


def test_genes_that_the_reference_knows_of_the_labels(cells):
    names = [str(name) for name in cells.obs["scellm_cell_type"].cat.categories]
    genes = [str(gene) for gene in cells.var_names[: len(names)]]
    cells.uns["scellm_cell_type"] |= {
        "nodes": np.array([*names, "elsewhere"], dtype=object),
        "markers": np.array([*(f"NOT THERE, {gene}" for gene in genes), "ABSENT"], dtype=object),
    }
    ax = scellm.pl.markers(cells, show=False)
    assert [text.get_text() for text in ax.get_xticklabels()] == genes  # genes the data lacks are passed over
