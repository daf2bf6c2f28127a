"""tl.embed on a tiny random model: what is written, what is refused, and that nothing else changes."""

import dataclasses
import os
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

import scellm
from scellm.data import GeneVocabulary, TokenConfig
from scellm.models import CellLM
from scellm.nn import CellLMConfig, Encoder

KEY = "X_scellm"


@pytest.fixture(scope="module")
def model():
    vocabulary = GeneVocabulary.default()
    config = CellLMConfig.named("tiny", n_genes=len(vocabulary))
    torch.manual_seed(0)
    return CellLM(
        encoder=Encoder(config).eval(),
        config=config,
        tokens=TokenConfig(),
        vocabulary=vocabulary,
        name="tiny",
    )


@pytest.fixture
def adata():
    return scellm.datasets.toy_cells(24)


def embedded(adata, model, **options):
    """The embedding, without touching `adata`."""
    return scellm.tl.embed(
        adata, model, copy=True, min_overlap=options.pop("min_overlap", 0.02), **options
    ).obsm[KEY]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# What is written


def test_writes_the_announced_keys_and_nothing_else(adata, model):
    before = adata.copy()
    assert scellm.tl.embed(adata, model) is None
    assert adata.obsm[KEY].shape == (24, 16)
    assert adata.obsm[KEY].dtype == np.float32
    assert np.isfinite(adata.obsm[KEY]).all()
    record = adata.uns[KEY]
    assert record["model"] == "tiny"
    assert record["n_genes"] == adata.n_vars
    assert record["n_empty_cells"] == record["n_truncated_cells"] == record["n_dropped_columns"] == 0
    assert record["gene_coverage"] == pytest.approx(adata.n_vars / len(model.vocabulary))
    del adata.obsm[KEY], adata.uns[KEY]
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert list(adata.uns) == list(before.uns)
    assert list(adata.obsm) == list(before.obsm)


def test_copy_leaves_the_input_alone(adata, model):
    result = scellm.tl.embed(adata, model, copy=True, key_added="X_other")
    assert "X_other" in result.obsm
    assert "X_other" not in adata.obsm
    assert "X_other" not in adata.uns


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_a_round_trip(adata, model, tmp_path, suffix):
    scellm.tl.embed(adata, model)
    path = tmp_path / f"cells.{suffix}"
    if suffix == "h5ad":
        adata.write_h5ad(path)
        back = ad.read_h5ad(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the zarr format
            adata.write_zarr(path)
            back = ad.read_zarr(path)
    np.testing.assert_array_equal(back.obsm[KEY], adata.obsm[KEY])
    assert {name: str(value) for name, value in back.uns[KEY].items()} == {
        name: str(value) for name, value in adata.uns[KEY].items()
    }


# A cell's row depends on that cell alone


@pytest.mark.parametrize("batch_size", [1, 5, "auto"], ids="batch {}".format)
def test_batch_size_changes_only_rounding(adata, model, batch_size):
    np.testing.assert_allclose(
        embedded(adata, model, batch_size=batch_size),
        embedded(adata, model, batch_size=24),
        rtol=1e-5,
        atol=1e-5,
    )


def test_order_and_company_do_not_matter(adata, model):
    everything = embedded(adata, model)
    order = np.random.default_rng(0).permutation(24)
    close(embedded(adata[order].copy(), model), everything[order])
    close(embedded(adata[3:5].copy(), model), everything[3:5])
    close(embedded(adata[7].copy(), model), everything[7:8])
    genes = np.random.default_rng(0).permutation(adata.n_vars)
    close(embedded(adata[:, genes].copy(), model), everything)


@pytest.mark.parametrize("target_sum", [None, 1e4, 700], ids="to {}".format)
@pytest.mark.parametrize("n_genes", [3000, 800], ids="{} genes".format)
def test_company_does_not_matter_for_log1p_either(adata, model, target_sum, n_genes):
    """Whatever can be guessed from many cells about their normalization must not change the row of one."""
    subset = adata[:, ::3] if n_genes == 800 else adata
    expected = embedded(subset.copy(), model)
    adata.X = adata.X.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    logged = (adata[:, ::3] if n_genes == 800 else adata).copy()
    together = embedded(logged, model)
    close(together, expected)  # and it is the row of the counts
    for i in (0, 7):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the base was guessed from one cell
            close(embedded(logged[i].copy(), model)[0], together[i])


def test_control_a_leaking_encoder_is_found(adata, model, monkeypatch):
    """With statistics over the batch in the encoder, the tests above fail."""
    forward = type(model.encoder).finish

    def leaky(self, cells, keys=None):
        cells = forward(self, cells, keys)
        return cells + 0.1 * cells.mean(0)

    monkeypatch.setattr(type(model.encoder), "finish", leaky)
    with pytest.raises(AssertionError):
        test_order_and_company_do_not_matter(adata, model)
    with pytest.raises(AssertionError):
        test_batch_size_changes_only_rounding(adata, model, 5)


FORMATS = {
    "csc_matrix": lambda x: sp.csc_matrix(x),
    "csr_array": lambda x: sp.csr_array(x),
    "dense": lambda x: x.toarray(),
    "float64": lambda x: x.astype(np.float64),
    "int32": lambda x: x.astype(np.int32),
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "float16 dense": lambda x: x.toarray().astype(np.float16),
    "big-endian": lambda x: x.toarray().astype(">f4"),
    "big-endian int": lambda x: x.toarray().astype(">i4"),
    "int8 dense": lambda x: x.toarray().clip(0, 100).astype(np.int8),
}


@pytest.mark.parametrize("convert", FORMATS.values(), ids=FORMATS.keys())
def test_any_matrix(adata, model, convert):
    adata.X = adata.X.minimum(100).tocsr()
    expected = embedded(adata, model)
    adata.X = convert(adata.X)
    close(embedded(adata, model), expected)


def test_layer_raw_and_views(adata, model):
    expected = embedded(adata, model)
    adata.raw = adata
    adata.layers["counts"] = adata.X.copy()
    adata.X = sc.pp.scale(adata.X.toarray(), copy=True)
    close(embedded(adata, model, layer="counts"), expected)
    close(embedded(adata, model, use_raw=True), expected)
    view = adata[5:9]
    close(scellm.tl.embed(view, model, layer="counts", copy=True).obsm[KEY], expected[5:9])


@pytest.mark.parametrize("target_sum", [1e4, 1e6, 3000])
def test_log1p_gives_the_embedding_of_the_counts(adata, model, target_sum):
    expected = embedded(adata, model)
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    close(embedded(adata, model), expected)
    adata.uns.pop("log1p")
    adata.X = adata.X / np.log(2).astype(np.float32)  # log2(x + 1)
    close(embedded(adata, model), expected)


def test_backed_dask_and_files(adata, model, tmp_path):
    expected = embedded(adata, model)
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    scellm.tl.embed(backed, model)
    close(backed.obsm[KEY], expected)
    backed.file.close()
    dask = pytest.importorskip("dask.array")
    adata.X = dask.from_array(adata.X.toarray(), chunks=(10, adata.n_vars))
    scellm.tl.embed(adata, model)
    close(adata.obsm[KEY], expected)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("matrix", ["csr", "csc", "dense"])
def test_a_file_is_streamed_and_only_gains_the_results(adata, model, tmp_path, suffix, matrix, monkeypatch):
    expected = embedded(adata, model)
    adata.X = {"csr": adata.X, "csc": adata.X.tocsc(), "dense": adata.X.toarray()}[matrix]
    path = tmp_path / f"cells.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        adata.write_h5ad(path) if suffix == "h5ad" else adata.write_zarr(path)
        monkeypatch.setattr("scellm.data.cells._expression.ROWS_PER_BLOCK", 7)
        assert scellm.tl.embed(path, model, output=tmp_path / f"out.{suffix}") is None
        read = ad.read_h5ad if suffix == "h5ad" else ad.read_zarr
        assert KEY not in read(path).obsm
        scellm.tl.embed(str(path), model)
        scellm.tl.embed(str(path), model)  # a second time replaces the results
        for result in (read(path), read(tmp_path / f"out.{suffix}")):
            close(result.obsm[KEY], expected)
            assert result.uns[KEY]["model"] == "tiny"
            assert abs(result.X - adata.X).max() == 0
            pd.testing.assert_frame_equal(result.obs, adata.obs)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, f"out.{suffix}"])  # no leftovers


# Genes


def test_ensembl_ids_with_versions_and_columns(adata, model):
    expected = embedded(adata, model)
    ids = GeneVocabulary.default().match(adata.var_names).ids
    adata.var["gene_ids"] = [f"{GeneVocabulary.default().ensembl_ids[i]}.{i % 9 + 1}" for i in ids]
    adata.var["symbol"] = adata.var_names
    adata.var_names = adata.var["gene_ids"].astype(str).to_numpy()
    close(embedded(adata, model), expected)
    adata.var_names = [f"row{i}" for i in range(adata.n_vars)]
    close(embedded(adata, model), expected)  # a column that names genes is found
    close(embedded(adata, model, gene_key="symbol"), expected)
    with pytest.raises(KeyError, match="'nowhere'"):
        scellm.tl.embed(adata, model, gene_key="nowhere")


def test_duplicate_names_are_summed_and_counted(adata, model):
    expected = embedded(adata, model)
    half = adata.X.copy()
    half.data = np.floor(half.data / 2)
    twice = sp.hstack([half, adata.X - half]).tocsr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own
        doubled = ad.AnnData(twice, obs=adata.obs, var=pd.DataFrame(index=[*adata.var_names] * 2))
        result = scellm.tl.embed(doubled, model, copy=True)
    close(result.obsm[KEY], expected)
    assert result.uns[KEY]["n_duplicate_columns"] > 0


# Cells


def test_empty_cells_are_nan_and_counted(adata, model):
    expected = embedded(adata, model)
    X = adata.X.tolil()
    X[[2, 9]] = 0
    adata.X = X.tocsr()
    with pytest.warns(
        UserWarning, match="2 of 24 cells in `adata.X` express no vocabulary gene; their rows are NaN"
    ):
        scellm.tl.embed(adata, model)
    assert np.isnan(adata.obsm[KEY][[2, 9]]).all()
    kept = [i for i in range(24) if i not in (2, 9)]
    close(adata.obsm[KEY][kept], expected[kept])
    assert adata.uns[KEY]["n_empty_cells"] == 2
    with pytest.raises(ValueError, match="2 of 24 cells.*sc.pp.filter_cells"):
        scellm.tl.embed(adata, model, on_empty="raise")


def test_a_context_shorter_than_a_cell_is_counted(adata, model):
    short = CellLM(
        encoder=model.encoder,
        config=model.config,
        tokens=TokenConfig(max_genes=50),
        vocabulary=model.vocabulary,
    )
    with pytest.warns(
        UserWarning, match="24 of 24 cells express more than 50 genes; of each, the 50 most expressed were"
    ):
        scellm.tl.embed(adata, short)
    assert adata.uns[KEY]["n_truncated_cells"] == 24
    short.tokens = TokenConfig(max_genes=50, truncation="first")
    with pytest.warns(UserWarning, match="the 50 first in the order of the vocabulary were read"):
        scellm.tl.embed(adata, short)
    assert np.isfinite(adata.obsm[KEY]).all()


# Refused


def refused(adata, model, error, text, **options):
    keys = list(adata.obsm), list(adata.uns)
    with pytest.raises(error, match=text):
        scellm.tl.embed(adata, model, **options)
    assert (list(adata.obsm), list(adata.uns)) == keys


def test_scaled_values(adata, model):
    adata.layers["counts"] = adata.X.copy()
    adata.X = sc.pp.scale(np.log1p(adata.X.toarray()), copy=True)
    refused(adata, model, ValueError, "`adata.X` cannot be read as expression.*scaled.*layer=")
    adata.raw = adata
    refused(adata, model, ValueError, "Pass layer='counts', whose values can be read")  # raw is scaled, too
    adata.raw = ad.AnnData(adata.layers.pop("counts"), var=adata.var)
    refused(adata, model, ValueError, "Pass use_raw=True, whose values can be read")
    adata.raw = None
    refused(adata, model, ValueError, "no other matrix that can be read")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_values_that_are_not_expression(adata, model, bad):
    adata.X.data[100] = bad
    refused(adata, model, ValueError, r"`adata.X` cannot be read as expression|has the value")


def test_float_counts_are_taken_with_a_warning(adata, model):
    expected = embedded(adata, model)
    adata.X = adata.X.astype(np.float32)
    adata.X.data *= 1.0019
    with pytest.warns(UserWarning, match="`adata.X`: "):
        result = scellm.tl.embed(adata, model, copy=True)
    close(result.obsm[KEY], expected)  # one factor for all is taken out by the normalization


def test_missing_keys_and_matrices(adata, model):
    adata.layers["counts"] = adata.X
    refused(
        adata,
        model,
        KeyError,
        r"'raw_counts' is not in `adata.layers`, which has \['counts'\]",
        layer="raw_counts",
    )
    refused(adata, model, ValueError, "`adata.raw` is None", use_raw=True)
    refused(adata, model, ValueError, "name two matrices", layer="counts", use_raw=True)
    refused(adata, model, ValueError, "cannot be written to h5ad.*'X_a_b'", key_added="X_a/b")
    no_x = ad.AnnData(obs=adata.obs, var=adata.var)
    no_x.layers["counts"] = adata.X
    refused(no_x, model, ValueError, r"`adata.X` is None. Pass layer='counts'")
    refused(adata[:0].copy(), model, ValueError, "0 cells")
    with pytest.raises(TypeError, match="Need an AnnData object, found DataFrame"):
        scellm.tl.embed(adata.to_df(), model)


def test_genes_that_are_not_the_models(adata, model):
    adata.var = pd.DataFrame(index=[f"peak-{i}" for i in range(adata.n_vars)])
    refused(adata, model, ValueError, r"holds 0 of the \d+ vocabulary genes \(0.0 %, need 10 %\)")
    few = scellm.datasets.toy_cells(5, n_vars=300)
    refused(
        few,
        model,
        ValueError,
        r"holds 300 of the \d+ vocabulary genes \(1.6 %, need 10 %\).*or min_overlap=0.015 if this is all",
    )
    assert np.isfinite(embedded(few, model, min_overlap=0.01)).all()
    few.raw = scellm.datasets.toy_cells(5)
    refused(few, model, ValueError, "use_raw=True")


def test_integer_var_names(adata, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own
        adata.var = pd.DataFrame(index=pd.RangeIndex(adata.n_vars))
    refused(adata, model, (TypeError, ValueError), "names|vocabulary genes")


def test_options(adata, model, tmp_path):
    refused(adata, model, ValueError, "precision='fp16' is unknown", precision="fp16")
    refused(adata, model, ValueError, "device='tpu9000' is not a device", device="tpu9000")
    refused(adata, model, ValueError, "batch_size=0 must be 'auto' or a positive", batch_size=0)
    refused(adata, model, ValueError, "on_empty='drop' is unknown", on_empty="drop")
    refused(adata, model, ValueError, "min_overlap=10 is a fraction", min_overlap=10)
    refused(adata, model, ValueError, "output= is for files", output="x.h5ad")
    if not torch.cuda.is_available():
        refused(adata, model, ValueError, "device='cuda' is not at hand here", device="cuda")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        scellm.tl.embed(tmp_path / "absent.h5ad", model)
    (tmp_path / "text.h5ad").write_text("no h5ad")
    with pytest.raises(ValueError, match="neither an .h5ad file nor a .zarr folder"):
        scellm.tl.embed(tmp_path / "text.h5ad", model)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match="copy=True is for AnnData in memory"):
        scellm.tl.embed(tmp_path / "cells.h5ad", model, copy=True)
    with pytest.raises(ValueError, match=r"must end in '.h5ad'"):
        scellm.tl.embed(tmp_path / "cells.h5ad", model, output=tmp_path / "cells.zarr")
    with pytest.raises(FileNotFoundError, match="There is no folder .*absent to write out.h5ad to"):
        scellm.tl.embed(tmp_path / "cells.h5ad", model, output=tmp_path / "absent" / "out.h5ad")
    with pytest.raises(KeyError, match="Layer 'counts' is not in cells.h5ad"):
        scellm.tl.embed(tmp_path / "cells.h5ad", model, layer="counts")


def test_an_interruption_leaves_everything_as_it_was(adata, model, tmp_path, monkeypatch):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    before = (tmp_path / "cells.h5ad").read_bytes()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("scellm.tl._embed.encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scellm.tl.embed(adata, model)
    assert KEY not in adata.obsm
    assert KEY not in adata.uns
    monkeypatch.undo()
    monkeypatch.setattr("scellm.data.cells._results_file.open_store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scellm.tl.embed(tmp_path / "cells.h5ad", model)
    assert (tmp_path / "cells.h5ad").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_a_zarr_folder_is_never_lost(adata, model, tmp_path, monkeypatch):
    """Folders cannot be replaced in one step: when the second step fails, the old folder is back."""
    path = tmp_path / "cells.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the zarr format
        adata.write_zarr(path)
        replace = Path.replace

        def interrupted(self, target):
            if Path(target) == path and ".old" not in self.name:
                raise KeyboardInterrupt
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scellm.tl.embed(path, model)
        back = ad.read_zarr(path)
    assert KEY not in back.obsm
    assert abs(back.X - adata.X).max() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["cells.zarr"]


def test_what_is_not_ours_is_not_overwritten(adata, model):
    adata.uns["neighbors"] = {"params": {}}
    refused(adata, model, ValueError, r"`adata.uns\['neighbors'\]` already exists", key_added="neighbors")
    adata.obsm[KEY] = np.ones((24, 2))
    refused(adata, model, ValueError, r"`adata.obsm\['X_scellm'\]` already exists.*key_added=")
    del adata.obsm[KEY]
    scellm.tl.embed(adata, model)
    scellm.tl.embed(adata, model)  # our own results are replaced


def test_results_whose_record_concat_dropped_are_replaced(adata, model):
    expected = embedded(adata, model)
    scellm.tl.embed(adata, model)
    both = ad.concat([adata, adata], index_unique="-")
    assert KEY in both.obsm
    assert KEY not in both.uns
    both.obsm[KEY] = both.obsm[KEY] * 0
    with pytest.warns(
        UserWarning, match=r"`adata.obsm\['X_scellm'\]` has no record .*concat.*it is replaced"
    ):
        scellm.tl.embed(both, model)
    close(both.obsm[KEY], np.concatenate([expected, expected]))
    both.obsm["mine"] = both.obsm[KEY]
    refused(both, model, ValueError, r"`adata.obsm\['mine'\]` already exists", key_added="mine")


def test_results_that_an_outer_join_filled_up_are_replaced(adata, model):
    expected = embedded(adata, model)
    other = adata.copy()
    scellm.tl.embed(adata, model)
    both = ad.concat([adata, other], join="outer", index_unique="-")
    assert both.obsm[KEY].dtype == np.float64
    with pytest.warns(UserWarning, match=r"has no record .*concat.*it is replaced"):
        scellm.tl.embed(both, model)
    close(both.obsm[KEY], np.concatenate([expected, expected]))
    del both.uns[KEY]
    both.obsm[KEY] = np.where(np.arange(len(both))[:, None] < 3, np.nan, np.pi)  # of the user
    refused(both, model, ValueError, r"`adata.obsm\['X_scellm'\]` already exists")


def test_copies_and_views_of_backed_cells_are_refused_at_once(adata, model, tmp_path, monkeypatch):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr("scellm.tl._embed.encode", lambda *a, **k: pytest.fail("encoded before refusing"))
    for cells, options in ((backed, {"copy": True}), (backed[3:5], {})):
        with pytest.raises(ValueError, match=r"backed AnnData are not supported.*to_memory"):
            scellm.tl.embed(cells, model, **options)
    backed.file.close()


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_permissions_and_links_stay(adata, model, tmp_path):
    path, link = tmp_path / "cells.h5ad", tmp_path / "link.h5ad"
    adata.write_h5ad(path)
    path.chmod(0o440)
    link.symlink_to(path)
    scellm.tl.embed(link, model)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o440
    assert KEY in ad.read_h5ad(path).obsm


def test_files_that_are_no_current_anndata(model, tmp_path):
    with h5py.File(tmp_path / "tenx.h5", "w") as file:
        file.create_group("matrix")
    with pytest.raises(
        ValueError, match=r"tenx.h5 is 10x output. Read it and write it as .h5ad: scanpy.read_10x_h5"
    ):
        scellm.tl.embed(tmp_path / "tenx.h5", model)
    table = np.array([(b"CD3D",), (b"MS4A1",)], dtype=[("index", "S8")])
    with h5py.File(
        tmp_path / "legacy.h5ad", "w"
    ) as file:  # as anndata wrote before 0.7: tables as compound arrays
        file["obs"], file["var"], file["X"] = table, table, np.ones((2, 2))
    with pytest.raises(
        ValueError, match=r"legacy.h5ad was written by an old version of anndata. Read and write"
    ):
        scellm.tl.embed(tmp_path / "legacy.h5ad", model, output=tmp_path / "out.h5ad")


def test_a_model_in_training_mode_is_used_without_dropout(adata, model):
    config = dataclasses.replace(model.config, dropout=0.3)
    torch.manual_seed(0)
    training = dataclasses.replace(model, encoder=Encoder(config).train(), config=config)
    np.testing.assert_array_equal(embedded(adata, training), embedded(adata, training))
    assert training.encoder.training  # left as it was


# Memory and precision


def test_out_of_memory_halves_the_batch_and_goes_on(adata, model, monkeypatch):
    expected = embedded(adata, model)
    forward, n_too_many = model.encoder.forward, []

    def limited(gene_ids, *args, **options):
        if len(gene_ids) > 6:
            n_too_many.append(len(gene_ids))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
        return forward(gene_ids, *args, **options)

    monkeypatch.setattr(model.encoder, "forward", limited)
    monkeypatch.setattr(
        "scellm.data.cells._expression.ROWS_PER_BLOCK", 12
    )  # what fits is remembered from block to block
    with pytest.warns(
        UserWarning, match="Memory of cpu ran out; went on with 6 cells at once. Pass batch_size=6"
    ):
        found = embedded(adata, model, batch_size=24)
    assert n_too_many == [12]
    close(found, expected)

    def always(gene_ids, *args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model.encoder, "forward", always)
    with pytest.raises(MemoryError, match=r"One cell of \d+ genes does not fit"):
        embedded(adata, model, batch_size=1)


def test_bf16_is_close(adata, model):
    exact, coarse = embedded(adata, model), embedded(adata, model, precision="bf16")
    cosine = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert cosine.min() > 0.999
    assert not np.array_equal(exact, coarse)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu(adata, model):
    np.testing.assert_allclose(
        embedded(adata, model, device="cuda", precision="fp32"),
        embedded(adata, model, device="cpu"),
        atol=1e-3,
    )
    assert model.encoder.norm.weight.device.type == "cpu"  # the model is back where it was


def test_scanpy_goes_on_from_there(adata, model):
    scellm.tl.embed(adata, model)
    sc.pp.neighbors(adata, use_rep=KEY, n_neighbors=5)
    assert adata.obsp["connectivities"].shape == (24, 24)
