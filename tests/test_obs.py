"""One door to columns of obs: what is a label, what is missing, what is refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scellm._obs import has_column, read_groups, read_text


def cells(**columns):
    n = len(next(iter(columns.values())))
    return ad.AnnData(
        np.ones((n, 1), np.float32), obs=pd.DataFrame(columns, index=[f"c{i}" for i in range(n)])
    )


def test_missing_labels_and_blanks():
    column = ["B", " B ", "T  cell", "nan", "NA", "Unknown", "", None, np.nan]
    found = read_text(cells(g=np.array(column, dtype=object)), "g").tolist()
    assert found == ["B", "B", "T cell", *[""] * 6]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([10, 9, 10], ["9", "10"]),
        ([True, False, True], ["False", "True"]),
        (pd.Categorical(["z", "a", "z"], categories=["z", "a", "unused"], ordered=True), ["z", "a"]),
        (pd.Categorical(["a", "a ", "nan"]), ["a"]),
        (["b", "a", None], ["a", "b"]),
    ],
    ids=["integers", "bool", "ordered", "blanks", "text"],
)
def test_groups_have_cells_and_an_order(column, expected):
    groups = read_groups(cells(g=column), "g")
    assert groups.categories.tolist() == expected
    assert len(groups) == 3


def test_what_is_refused():
    adata = cells(g=[1.5, 2.5], d=["a", "b"])
    with pytest.raises(TypeError, match=r"obs\['g'\] holds float64 numbers, not labels"):
        read_text(adata, "g")
    with pytest.raises(KeyError, match=r"'x' is not in `reference.obs`, which has \['g', 'd'\]"):
        read_text(adata, "x", name="reference")
    with pytest.raises(TypeError, match="named by text"):
        read_text(adata, ["g"])


def test_two_columns_of_one_name_are_refused_and_the_advice_works():
    adata = cells(g=["a", "b"], d=["a", "b"])
    adata.obs = pd.concat([adata.obs, adata.obs[["g"]]], axis=1)
    with pytest.raises(
        ValueError, match=r"has 2 columns named 'g'. Keep the first of each name: adata.obs = "
    ) as error:
        read_text(adata, "g")
    assert not has_column(adata, "g")
    assert read_text(adata, "d").tolist() == ["a", "b"]
    exec(str(error.value).partition("each name: ")[2].rstrip("."), {"adata": adata})
    assert read_text(adata, "g").tolist() == ["a", "b"]
