"""Datasets that fit the shipped reference and that do not, to set and to test the verdict of `tl.annotate`."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp

MOST = 400


def read(data: Path, name: str, most: int = MOST) -> ad.AnnData:
    """Cells of a set, thinned."""
    path = next(
        p
        for folder in ("corpus", "corpus_wide", "corpus_more", "benchmarks")
        if (p := data / folder / f"{name}.h5ad").exists()
    )
    adata = ad.read_h5ad(path)
    if adata.n_obs > most:
        adata = adata[np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:most])].copy()
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    return adata


def shuffled_genes(adata: ad.AnnData) -> ad.AnnData:
    """Every gene under the name of another."""
    found = adata.copy()
    found.var = found.var[[]].copy()
    found.var_names = np.random.default_rng(0).permutation(adata.var_names)
    return found


def empty_droplets(adata: ad.AnnData, depth: int = 600) -> ad.AnnData:
    """Counts drawn from the sum over all cells."""
    total = np.asarray(adata.X.sum(axis=0)).ravel().astype(float)
    counts = np.random.default_rng(0).multinomial(depth, total / total.sum(), size=300)
    return ad.AnnData(sp.csr_matrix(counts, dtype=np.float32), var=adata.var[[]].copy())


def doublets(adata: ad.AnnData) -> ad.AnnData:
    """Sums of two cells of different labels."""
    rng = np.random.default_rng(0)
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    one = rng.permutation(adata.n_obs)
    other = np.array([rng.choice(np.flatnonzero(labels != labels[i])) for i in one])
    return ad.AnnData(
        sp.csr_matrix(adata.X[one] + adata.X[other], dtype=np.float32), var=adata.var[[]].copy()
    )


def only(adata: ad.AnnData, value: str) -> ad.AnnData:
    """Cells with this entry in the column malignant."""
    return adata[adata.obs["malignant"].astype(str) == value].copy()


def sets(data: Path) -> list[tuple[str, str, bool, ad.AnnData]]:
    """Name, "set" or "test", whether it fits, cells. The verdict is set on the first and measured on the second."""

    def of(name: str) -> ad.AnnData:
        return read(data, name)

    fitting_set = (
        "pbmc_10studies_tidytx",
        "pbmc_hao_speck",
        "pbmc_pisces",
        "zheng_pbmc_donorA",
        "kang_ifnb_pbmc",
        "enge_pancreas",
        "leukocytes_sinclair_mini",
        "pbmc_eccite_mimitou",
        "camp2015_neocortex",
        "breast_komen_gtex",
        "dengue_pbmc_zanini",
        "luad_kim_mini",
        "immune_celltypist_demo",
    )
    fitting_test = (
        "pbmc3k",
        "baron_h1_pancreas",
        "darmanis_brain",
        "lawlor_islets",
        "zheng68k_mini",
        "zheng_sorted_pbmc_mudan",
        "pbmc_10k_protein_v3",
        "pbmc_5k_protein_v3",
        "trex_tcells",
        "bone_marrow_hca_mini",
    )
    found = [(name, "set", True, of(name)) for name in fitting_set]
    found += [(name, "test", True, of(name)) for name in fitting_test]
    for name in (
        "a549_metastasis_cp007",
        "scmixology_sc_celseq2",
        "ipsc_cardio_scdatasets",
        "yan_embryo",
        "mouse_epidermis_joost",
        "thyroid_atc2_copykat",
    ):
        found.append((name, "set", False, of(name)))
    found.append(("gbm_mgh136", "set", False, only(of("gbm_mgh136"), "True")))
    found.append(("shuffled dengue", "set", False, shuffled_genes(of("dengue_pbmc_zanini"))))
    found.append(("empty enge", "set", False, empty_droplets(of("enge_pancreas"))))
    found.append(("empty kang", "set", False, empty_droplets(of("kang_ifnb_pbmc"))))
    found.append(("doublets enge", "set", False, doublets(of("enge_pancreas"))))
    for name in (
        "copykat_tnbc",
        "blakeley_embryo",
        "ipsc_cardiac_friedman",
        "li2017_cell_lines",
        "mouse_cortex_zeisel",
    ):
        found.append((name, "test", False, of(name)))
    found.append(
        ("oligodendroglioma, malignant", "test", False, only(of("oligodendroglioma_tirosh"), "True"))
    )
    found.append(("moncada, malignant", "test", False, only(read(data, "pdac_moncada", 5000), "True")))
    found.append(("shuffled pbmc3k", "test", False, shuffled_genes(of("pbmc3k"))))
    found.append(("empty baron", "test", False, empty_droplets(of("baron_h1_pancreas"))))
    found.append(("doublets baron", "test", False, doublets(of("baron_h1_pancreas"))))
    return found
