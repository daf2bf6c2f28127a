"""The reader: the same cells from any container, and a fingerprint that knows when they are others."""

import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scellm
from scellm.data import Expression, GeneVocabulary, ReadOptions, TokenConfig, gene_counts, log_normalize
from scellm.data.cells import _expression as reader
from scellm.data.cells._fingerprint import LINE, Fingerprint, fingerprint_of

V = GeneVocabulary.default()


@pytest.fixture
def adata():
    return scellm.datasets.toy_cells(60, n_vars=2500)


def fingerprint(cells, **options):
    with Expression.open(cells, V, ReadOptions(**options)) as found:
        return found.fingerprint


def stored(adata, kind, folder):
    """The cells in another container."""
    if kind in ("csc", "dense", "int64", "float64"):
        adata = adata.copy()
        X = adata.X
        adata.X = {"csc": X.tocsc, "dense": X.toarray}.get(kind, lambda: X.astype(kind))()
        return adata
    if kind == "dask":
        da = pytest.importorskip("dask.array")
        adata = adata.copy()
        adata.X = da.from_array(adata.X.toarray(), chunks=(13, 2500))
        return adata
    path = folder / f"cells.{'zarr' if kind == 'zarr' else 'h5ad'}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2 data")
        getattr(adata, f"write_{path.suffix[1:]}")(path)
    return ad.read_h5ad(path, backed="r") if kind == "backed" else path


@pytest.mark.parametrize(
    "kind", ["csc", "dense", "int64", "float64", "dask", "h5ad", "zarr", "backed"], ids=str
)
def test_the_same_cells_from_any_container(adata, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "ROWS_PER_BLOCK", 25)
    with Expression.open(adata, V) as cells, Expression.open(stored(adata, kind, tmp_path), V) as other:
        assert cells.fingerprint == other.fingerprint
        for mine, theirs in zip(cells.counts(), other.counts(), strict=True):
            assert mine[0] == theirs[0]
            np.testing.assert_array_equal(mine[1].toarray(), theirs[1].toarray())


def test_blocks_are_the_rows_in_every_form(adata, monkeypatch):
    monkeypatch.setattr(reader, "ROWS_PER_BLOCK", 25)
    with Expression.open(adata, V) as cells:
        expected = gene_counts(adata.X, V.match(adata.var_names).ids, len(V)).toarray()
        np.testing.assert_array_equal(np.vstack([x.toarray() for _, x in cells.counts()]), expected)
        logged = np.vstack([x.toarray() for _, x in cells.log1p()])
        np.testing.assert_array_equal(logged, log_normalize(sp.csr_array(expected), 1e4).toarray())
        whole = list(cells.tokens(TokenConfig()))
        assert [start for start, _ in whole] == [0, 25, 50]
        some = cells.tokens_of(np.array([30, 2]), TokenConfig())
        first = whole[1][1][np.array([5])]
        np.testing.assert_array_equal(some[np.array([0])].values, first.values)
        assert cells.has_gene.sum() == cells.match.n_genes == 2500


CHANGES = {
    "one value": lambda a: a.X.data.__setitem__(7, a.X.data[7] + 1),
    "two cells swapped": lambda a: setattr(a, "X", a.X[[1, 0, *range(2, 60)]]),
    "two values swapped": lambda a: a.X.data.__setitem__(
        np.array([0, at := int(np.flatnonzero(a.X.data != a.X.data[0])[0])]), a.X.data[[at, 0]]
    ),
    "a gene renamed": lambda a: setattr(a, "var_names", ["B2M-other", *a.var_names[1:]]),
    "genes shuffled": lambda a: setattr(a, "var_names", a.var_names[::-1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_values_or_names_have_another_fingerprint(adata, change):
    before = fingerprint(adata)
    assert fingerprint(adata.copy()) == before
    change(adata)
    assert fingerprint(adata) != before


def test_other_cells_columns_and_matrices_have_another_fingerprint(adata):
    adata.layers["counts"] = adata.X.copy()
    found = [fingerprint(adata), fingerprint(adata[:50].copy()), fingerprint(adata[:, :2400].copy())]
    found += [fingerprint(adata, layer="counts"), fingerprint(adata, gene_key="ensembl_id")]
    assert len(set(found)) == len(found)


def test_names_of_cells_do_not_count(adata):
    before = fingerprint(adata)
    adata.obs_names = [f"cell {i}" for i in range(60)]
    assert fingerprint(adata) == before


def test_small_whole_numbers_are_told_apart_in_every_place():
    """Floats of small counts differ in few bits: any two that are swapped must show, whichever half of a word they fill."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4, 4 * LINE).astype(np.float32)
    before = fingerprint_of(values)
    for _ in range(2000):
        i, j = rng.choice(len(values), 2, replace=False)
        if values[i] != values[j]:
            values[[i, j]] = values[[j, i]]
            assert fingerprint_of(values) != before
            values[[i, j]] = values[[j, i]]


def test_facts_are_kept_apart():
    assert Fingerprint(["ab", "c"]).hexdigest() != Fingerprint(["a", "bc"]).hexdigest()


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_overlap_is_a_fraction(value):
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        ReadOptions(min_overlap=value)


READERS = {
    "embed": scellm.tl.embed,
    "malignancy": lambda adata, **options: scellm.tl.malignancy(adata, sample_key="donor", **options),
    "drug_response": scellm.tl.drug_response,
    "corpus": scellm.data.Corpus.build,
    "gene_importance": lambda adata, **options: scellm.tl.gene_importance(adata, "cell_type", **options),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_one_wording_of_refusals_with_advice_that_works(read):
    adata = scellm.datasets.toy_cells(60, n_vars=8000)
    counts = adata.X.toarray()
    adata.layers["scaled"] = counts - counts.mean(0)
    adata.layers["counts"] = adata.X
    with pytest.raises(ValueError, match=r"`adata.layers\['scaled'\]` cannot be read as expression") as error:
        read(adata, layer="scaled")
    text = str(error.value)
    assert "Negative values (smallest -" in text
    assert "Pass layer='counts' or neither layer= nor use_raw=, whose values can be read." in text
    if read is READERS["embed"]:
        read(adata, layer="counts")


def test_the_dataset_is_named_once(adata):
    adata.X.data[3] = np.nan
    with pytest.raises(ValueError, match=r"^Dataset 'mine': `adata.X` cannot be read"):
        scellm.data.Corpus.build({"mine": adata})
