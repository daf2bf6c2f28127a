"""Labeled sets for the annotation benchmark, and the names their types have in common."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

DATA = Path(__file__).parents[3] / "shared" / "data"
HELD_OUT = (
    "baron_h1_pancreas",
    "darmanis_brain",
    "lawlor_islets",
    "pbmc3k",
    "pollen2014",
    "zheng68k_mini",
    "zheng_sorted_pbmc_mudan",
)
"""Sets of which no cell is in the training corpus; only these are tested on."""
SHORT = {
    "baron_h1_pancreas": "baron",
    "darmanis_brain": "darmanis",
    "enge_pancreas": "enge",
    "kang_ifnb_pbmc": "kang",
    "lawlor_islets": "lawlor",
    "pdac_moncada": "moncada",
    "pollen2014": "pollen",
    "zheng_sorted_pbmc_mudan": "zheng sorted",
    "zheng68k_mini": "zheng68k",
}
MOST_CELLS = 3000
"""Larger sets are thinned evenly over types."""

PANCREAS = {
    "alpha": ("alpha", "Alpha"),
    "beta": ("beta", "Beta"),
    "delta": ("delta", "Delta"),
    "gamma": ("gamma", "Gamma/PP"),
    "epsilon": ("epsilon",),
    "acinar": ("acinar", "Acinar", "Acinar cells"),
    "ductal": (
        "ductal",
        "Ductal",
        "Ductal APOL1 high-hypoxic",
        "Ductal CRISP3 high-centroacinar like",
        "Ductal MHC Class II",
        "Ductal terminal ductal like",
    ),
    "stellate": ("stellate", "Stellate", "activated_stellate", "quiescent_stellate"),
    "endothelial": ("endothelial", "Endothelial cells"),
    "macrophage": ("macrophage", "Macrophages A", "Macrophages B"),
    "mast": ("mast", "Mast cells"),
}
"""Common name -> names in the pancreas sets. Not in it, and left out: mesenchymal (Enge), tumor clones (Moncada), ..."""
BLOOD = {
    "B": ("B", "B Activated", "B cell", "CD19+ B", "bcell"),
    "CD4 T": (
        "CD4 T",
        "CD4 Memory T",
        "CD4 Naive T",
        "CD4+ T Helper2",
        "CD4+/CD25 T Reg",
        "CD4+/CD45RA+/CD25- Naive T",
        "CD4+/CD45RO+ Memory",
        "helper T",
        "memory T",
        "naive T",
        "regulatory T",
    ),
    "CD8 T": (
        "CD8 T",
        "CD8+ Cytotoxic T",
        "CD8+/CD45RA+ Naive Cytotoxic",
        "cytotoxic T",
        "naive cytotoxic T",
    ),
    "NK": ("NK", "CD56+ NK", "cd56_NK"),
    "CD14 monocyte": ("CD14 Mono", "CD14 Monocytes", "CD14 monocyte", "CD14+ Monocyte"),
    "CD16 monocyte": ("CD16 Mono", "FCGR3A Monocytes"),
    "dendritic": ("DC", "Dendritic"),
}
"""Common name -> names in the blood sets. Not in it: megakaryocytes, CD34+, "T activated" (Kang)."""

ONTOLOGY = {
    "alpha": ("alpha cell",),
    "beta": ("beta cell",),
    "delta": ("delta cell",),
    "gamma": ("gamma cell",),
    "epsilon": ("epsilon cell",),
    "acinar": ("acinar cell",),
    "ductal": ("pancreatic duct cell",),
    "stellate": ("pancreatic stellate cell",),
    "endothelial": ("endothelial cell",),
    "macrophage": ("macrophage",),
    "mast": ("mast cell",),
    "B": ("B cell",),
    "CD4 T": ("CD4 T cell",),
    "CD8 T": ("CD8 T cell",),
    "NK": ("NK cell",),
    "CD14 monocyte": ("classical monocyte",),
    "CD16 monocyte": ("non-classical monocyte",),
    "dendritic": ("dendritic cell",),
    "CD34+": ("blood stem or progenitor cell",),
    "Megakaryocytes": ("platelet or megakaryocyte",),
    "Astrocyte": ("astrocyte",),
    "Oligodendrocyte": ("oligodendrocyte",),
    "OPC": ("OPC",),
    "microglia": ("microglia",),
    "Neuron": ("brain neuron",),
    "Vascular": ("endothelial cell",),
    "keratinocyte": ("keratinocyte",),
    "BJ fibroblast": ("fibroblast",),
    "HCC1954BL (CRL-2339, B-lymphoblastoid)": ("B cell",),
}
"""Name in the sets, common where there is one -> nodes of the shipped reference that are right. Others are not in it."""
TISSUE = {
    "baron_h1_pancreas": "pancreas",
    "lawlor_islets": "pancreas",
    "darmanis_brain": "brain",
    "pbmc3k": "blood",
    "zheng68k_mini": "blood",
    "zheng_sorted_pbmc_mudan": "blood",
    "pollen2014": None,
}
"""What a user would pass as `tissue=`; pollen holds cell lines of several."""

DIRECTIONS = (
    (("enge_pancreas",), "baron_h1_pancreas"),
    (("pdac_moncada",), "baron_h1_pancreas"),
    (("lawlor_islets",), "baron_h1_pancreas"),
    (("enge_pancreas", "pdac_moncada", "lawlor_islets"), "baron_h1_pancreas"),
    (("enge_pancreas",), "lawlor_islets"),
    (("baron_h1_pancreas",), "lawlor_islets"),
    (("baron_h1_pancreas", "enge_pancreas", "pdac_moncada"), "lawlor_islets"),
    (("kang_ifnb_pbmc",), "pbmc3k"),
    (("zheng_sorted_pbmc_mudan",), "pbmc3k"),
    (("kang_ifnb_pbmc", "zheng_sorted_pbmc_mudan"), "pbmc3k"),
    (("kang_ifnb_pbmc",), "zheng_sorted_pbmc_mudan"),
    (("pbmc3k",), "zheng_sorted_pbmc_mudan"),
    (("kang_ifnb_pbmc",), "zheng68k_mini"),
    (("pbmc3k",), "zheng68k_mini"),
    (("kang_ifnb_pbmc", "pbmc3k"), "zheng68k_mini"),
)
"""(references, query). References may be sets of the corpus; queries never are."""


def short(*names: str) -> str:
    """Names for tables."""
    return " + ".join(SHORT.get(name, name) for name in names)


@cache
def _read(name: str) -> ad.AnnData:
    """The labeled cells of a set: counts, float32."""
    folders = ("benchmarks", "corpus", "corpus_wide")
    path = next(
        DATA / folder / f"{name}.h5ad" for folder in folders if (DATA / folder / f"{name}.h5ad").exists()
    )
    adata = ad.read_h5ad(path)
    adata = adata[adata.obs["cell_type"].astype(str) != "NA"]
    found = ad.AnnData(
        sp.csr_matrix(adata.X, dtype=np.float32),
        obs=pd.DataFrame({"cell_type": adata.obs["cell_type"].astype(str).to_numpy()}),
        var=pd.DataFrame(index=adata.var_names.astype(str)),
    )
    found.obs_names = [f"{name}-{i}" for i in range(found.n_obs)]
    found.obs["study"] = SHORT.get(name, name)
    return found[thin(found.obs["cell_type"].to_numpy(), MOST_CELLS)].copy()


def read(name: str, *, common: bool = False, fewest: int = 1) -> ad.AnnData:
    """A set, its types in `cell_type` as categorical.

    Parameters
    ----------
    name
        File without suffix.
    common
        Common names; cells of other types are left out.
    fewest
        Types of fewer cells are left out.
    """
    adata = _read(name).copy()
    if common:
        is_pancreas = "pancreas" in name or "islets" in name or "pdac" in name
        table = PANCREAS if is_pancreas else BLOOD
        names = {old: new for new, olds in table.items() for old in olds}
        adata.obs["cell_type"] = adata.obs["cell_type"].map(names)
        adata = adata[adata.obs["cell_type"].notna()].copy()
    sizes = adata.obs["cell_type"].value_counts()
    adata = adata[adata.obs["cell_type"].isin(sizes.index[sizes >= fewest])].copy()
    adata.obs["cell_type"] = adata.obs["cell_type"].astype("category")
    return adata


def read_for_ontology(name: str) -> ad.AnnData:
    """A set with common names where there are any, else its own; types that the shipped reference lacks are left out."""
    adata = _read(name).copy()
    names = {old: new for table in (PANCREAS, BLOOD) for new, olds in table.items() for old in olds}
    adata.obs["cell_type"] = adata.obs["cell_type"].map(lambda old: names.get(old, old))
    return adata[adata.obs["cell_type"].isin(list(ONTOLOGY))].copy()


def join(names: tuple[str, ...], *, fewest: int = 3) -> ad.AnnData:
    """Several sets with common names as one, over the genes all of them have; `study` says whose a cell is."""
    parts = [read(name, common=True) for name in names]
    joined = ad.concat(parts, join="inner", merge="same") if len(parts) > 1 else parts[0]
    sizes = joined.obs["cell_type"].value_counts()
    joined = joined[joined.obs["cell_type"].isin(sizes.index[sizes >= fewest])].copy()
    for column in ("cell_type", "study"):
        joined.obs[column] = joined.obs[column].astype(str).astype("category")
    return joined


def thin(labels: np.ndarray, most: int) -> np.ndarray:
    """Rows in order, at most `most` of them, drawn evenly over types and all of the rare ones."""
    if len(labels) <= most:
        return np.arange(len(labels))
    rng = np.random.default_rng(0)
    names, sizes = np.unique(labels, return_counts=True)
    per_type = most
    while np.minimum(sizes, per_type).sum() > most:
        per_type -= 1
    rows = [rng.permutation(np.flatnonzero(labels == name))[:per_type] for name in names]
    return np.sort(np.concatenate(rows))
