"""MuData and SpatialData where an AnnData is taken: the part with gene expression is found, and results land in it."""

import warnings
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scellm
from scellm import _containers
from scellm._containers import cells_of, read_any

pytestmark = pytest.mark.filterwarnings("ignore:These cells do not fit")  # toy cells are of no tissue


@pytest.fixture
def rna():
    return scellm.datasets.toy_cells(24, n_vars=1950)


@pytest.fixture
def protein(rna):
    """Antibodies with the names of their genes."""
    names = ["CD4", "CD8A", "CD19", "NCAM1", "CD14"]
    return ad.AnnData(
        np.ones((24, 5), np.float32), obs=pd.DataFrame(index=rna.obs_names), var=pd.DataFrame(index=names)
    )


def mudata_like(**parts):
    return SimpleNamespace(mod=parts)


@pytest.mark.parametrize(
    "name", ["rna", "RNA", "gex", "Gene Expression", "gene_expression", "mRNA", "scRNA-seq"]
)
def test_modality_by_name(rna, protein, name):
    assert cells_of(mudata_like(**{"prot": protein, name: rna})) is rna


@pytest.mark.parametrize("slot", ["mod", "tables"])
def test_the_only_part_with_genes(rna, protein, slot):
    assert cells_of(SimpleNamespace(**{slot: {"a": protein, "b": rna}})) is rna
    assert (
        cells_of(SimpleNamespace(**{slot: {"whatever": protein}})) is protein
    )  # whether it does is said later
    labeled = rna.copy()
    labeled.var["feature_types"] = "Antibody Capture"
    assert cells_of(SimpleNamespace(**{slot: {"a": labeled, "b": rna}})) is rna


def test_table_by_name(rna):
    assert cells_of(SimpleNamespace(tables={"bins_2um": rna.copy(), "table": rna})) is rna


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            ("rna", "gex"),
            r"\['rna', 'gex'\] hold gene expression. Pass the one you mean, for instance mdata.mod\['rna'\]",
        ),
        (
            ("one", "two"),
            r"\['one', 'two'\] hold gene expression. Pass the one you mean, for instance mdata.mod\['one'\]",
        ),
    ],
    ids="+".join,
)
def test_several_are_asked_for(rna, parts, expected):
    with pytest.raises(TypeError, match=expected):
        scellm.tl.embed(mudata_like(**{name: rna.copy() for name in parts}))


def test_none_is_said(protein):
    both = mudata_like(prot=protein, hto=protein.copy())
    with pytest.raises(
        TypeError,
        match=r"the parts \['prot', 'hto'\], of which none is known to hold gene expression.*mdata.mod\['prot'\]",
    ):
        scellm.tl.annotate(both)
    with pytest.raises(TypeError, match="has the parts"):
        cells_of(mudata_like())


def test_other_things_pass(rna):
    for thing in (rna, None, "path", 3, [rna]):
        assert cells_of(thing) is thing


def test_results_land_in_the_modality_and_nowhere_else(rna, protein):
    both = mudata_like(rna=rna, prot=protein)
    alone = rna.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cells in (both, alone):
            assert (
                scellm.tl.annotate(
                    cells,
                    reference=mudata_like(rna=scellm.datasets.toy_cells(40, n_vars=1950, rng=1)),
                    labels="cell_type",
                )
                is None
            )
            scellm.tl.malignancy(cells, sample_key="donor")
    assert rna.obs.equals(alone.obs)
    np.testing.assert_array_equal(rna.obsm["X_scellm"], alone.obsm["X_scellm"])
    assert protein.obs.columns.empty
    assert not protein.uns
    assert scellm.get.annotation(both).equals(scellm.get.annotation(alone))
    copy = scellm.tl.embed(both, key_added="X_other", copy=True)
    assert isinstance(copy, ad.AnnData)
    assert "X_other" not in rna.obsm


def test_the_call_names_no_modality(rna):
    scellm.tl.embed(mudata_like(rna=rna), key_added="mine")
    assert rna.uns["mine"]["call"] == "scellm.tl.embed(adata, key_added='mine')"


# -- the real packages --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of mudata itself
def test_mudata(rna, protein, tmp_path):
    mudata = pytest.importorskip("mudata", reason="needs mudata (extra multi)")
    mdata = mudata.MuData({"prot": protein, "rna": rna})
    scellm.tl.embed(mdata)
    assert mdata.mod["rna"].obsm["X_scellm"].shape[0] == 24
    assert "X_scellm" not in mdata.mod["prot"].obsm
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    again = mudata.read_h5mu(tmp_path / "cells.h5mu")
    np.testing.assert_array_equal(again.mod["rna"].obsm["X_scellm"], rna.obsm["X_scellm"])
    assert again.mod["rna"].uns["X_scellm"]["call"] == "scellm.tl.embed(adata)"
    read = read_any(tmp_path / "cells.h5mu")
    assert read.obs_names.equals(rna.obs_names)
    assert "At a glance" in scellm.report(mdata, tmp_path / "r.html").read_text(encoding="utf-8")
    view = mdata[:10]
    scellm.tl.embed(view, key_added="X_few")
    assert view.mod["rna"].obsm["X_few"].shape[0] == 10


@pytest.mark.filterwarnings("ignore")  # of mudata itself
def test_h5mu_on_the_command_line(rna, protein, tmp_path, capsys, monkeypatch):
    mudata = pytest.importorskip("mudata", reason="needs mudata (extra multi)")
    from scellm._cli import main

    mudata.MuData({"prot": protein, "gex": rna}).write_h5mu(tmp_path / "cells.h5mu")
    assert (
        main(
            [
                "malignancy",
                str(tmp_path / "cells.h5mu"),
                "-o",
                str(tmp_path / "out.h5ad"),
                "--sample-key",
                "donor",
            ]
        )
        == 0
    )
    assert "scellm_malignant" in ad.read_h5ad(tmp_path / "out.h5ad").obs
    monkeypatch.setattr(_containers, "LARGE", 0)
    with _containers.opened(tmp_path / "cells.h5mu") as cells:  # warnings of size are ignored here
        assert not isinstance(cells.X, np.ndarray | sp.spmatrix | sp.sparray)  # on the disk
        assert cells.obs_names.equals(rna.obs_names)
        np.testing.assert_array_equal(sp.csr_array(cells.X[:]).toarray(), sp.csr_array(rna.X).toarray())
    monkeypatch.undo()
    mudata.MuData({"a": rna, "b": rna.copy()}).write_h5mu(tmp_path / "two.h5mu")
    assert main(["malignancy", str(tmp_path / "two.h5mu"), "-o", str(tmp_path / "two.h5ad")]) == 1
    assert "MuData has the parts ['a', 'b']" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # of spatialdata and what it imports
def test_spatialdata(rna, tmp_path):
    spatialdata = pytest.importorskip("spatialdata", reason="needs spatialdata (extra multi)")
    sdata = spatialdata.SpatialData(tables={"bins": rna.copy(), "table": rna})
    scellm.tl.embed(sdata)
    scellm.tl.annotate(sdata)
    table = sdata.tables["table"]
    assert table.obsm["X_scellm"].shape[0] == 24
    assert "scellm_cell_type" in table.obs
    assert "X_scellm" not in sdata.tables["bins"].obsm
    alone = rna.copy()
    scellm.tl.embed(alone)
    np.testing.assert_array_equal(table.obsm["X_scellm"], alone.obsm["X_scellm"])
    assert "At a glance" in scellm.report(sdata, tmp_path / "r.html").read_text(encoding="utf-8")
    sdata.write(tmp_path / "cells.zarr")
    again = spatialdata.read_zarr(tmp_path / "cells.zarr")
    np.testing.assert_array_equal(again.tables["table"].obsm["X_scellm"], alone.obsm["X_scellm"])
    assert scellm.get.annotation(again).equals(scellm.get.annotation(sdata))


@pytest.mark.filterwarnings("ignore")  # of spatialdata and what it imports
def test_spatialdata_with_cells_of_a_region(rna):
    """A table that annotates shapes, as readers of Xenium and CosMx make it."""
    spatialdata = pytest.importorskip("spatialdata", reason="needs spatialdata (extra multi)")
    from spatialdata.models import ShapesModel, TableModel

    places = np.random.default_rng(0).random((rna.n_obs, 2))
    shapes = ShapesModel.parse(places, geometry=0, radius=0.01, index=np.arange(rna.n_obs))
    rna.obs["region"] = pd.Categorical(["cells"] * rna.n_obs)
    rna.obs["cell"] = np.arange(rna.n_obs)
    table = TableModel.parse(rna, region="cells", region_key="region", instance_key="cell")
    sdata = spatialdata.SpatialData(shapes={"cells": shapes}, tables={"cells_table": table})
    scellm.tl.annotate(sdata)
    assert "scellm_cell_type" in sdata.tables["cells_table"].obs
    spatialdata.SpatialData(shapes={"cells": shapes}, tables={"cells_table": table})  # is still valid


@pytest.fixture
def h5mu(rna, protein, tmp_path):
    """Written without mudata; what the other modality holds cannot be read."""
    import h5py
    from anndata.io import write_elem

    path = tmp_path / "cells.h5mu"
    protein.X = np.random.default_rng(0).random((24, 5)).astype(np.float32)
    with h5py.File(path, "w") as file:
        parts = file.create_group("mod")
        write_elem(parts, "prot", protein)
        write_elem(parts, "gex", rna)
        parts["prot/var"].attrs["encoding-version"] = "9.9"
        parts["prot"].create_dataset("pad", data=np.zeros(2**20))
    return path


def test_only_the_named_modality_of_a_file_is_read(h5mu, rna):
    assert read_any(h5mu).obs_names.equals(rna.obs_names)


def test_names_of_columns_are_read_alone(h5mu, rna, tmp_path, monkeypatch):
    rna.write_h5ad(tmp_path / "cells.h5ad")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2 data")
        rna.write_zarr(tmp_path / "cells.zarr")
    monkeypatch.setattr(ad.io, "read_elem", pytest.fail)
    for path in (tmp_path / "cells.h5ad", tmp_path / "cells.zarr", h5mu):
        assert _containers.obs_columns(path) == list(rna.obs), path
    assert _containers.obs_columns(rna) == list(rna.obs)


def test_room_is_asked_for_the_modality_alone(h5mu, rna, monkeypatch):
    asked = []
    monkeypatch.setattr(_containers, "LARGE", 0)
    monkeypatch.setattr(_containers, "check_room", lambda _, size, __: asked.append(size))
    with pytest.warns(UserWarning, match=r"is written as \.h5ad once"), _containers.opened(h5mu) as cells:
        assert cells.obs_names.equals(rna.obs_names)
    assert rna.X.nnz * 4 < asked[0] < 2**20 < h5mu.stat().st_size
