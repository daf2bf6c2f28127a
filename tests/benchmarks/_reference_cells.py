"""Cells of all labeled sources with the type of the tree that each is known as."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from training_corpus import drawn

import scellm
from scellm.annotation._tree import Tree
from scellm.data import Expression, ReadOptions
from scellm.metrics._cell_hashes import cell_hashes

TYPES = Path(__file__).with_name("reference_types.tsv")
PER_PROFILE = 12
PER_TYPE = 60
"""Measured cells of one type in one study, at most."""
MIN_OVERLAP = 0.05
SOURCE = ("paper", "provenance", "licence")
"""What is told of a source."""
FROM_TUMOUR = ("pdac_moncada",)
"""Sets whose cells are marked by the origin of the sample; the types they name are not of the tumor."""
SAME_STUDY = {
    "dengue_pbmc_zanini": ("drawn_landmarks_Zanini_2018",),
    "enge_pancreas": ("drawn_FUMA_GSE81547_Human_Pancreas",),
    "allergy_bcells_croote": ("drawn_landmarks_Croote_2018",),
    "bone_marrow_hca_mini": ("drawn_CPL_Human__Adult__ImmuneCensus_HCA", "drawn_numbat_ref_hca"),
    "oligodendroglioma_tirosh": (),
}
"""Measured set -> profiles of the same cells, left out with it."""
TISSUES = {
    "lung": ("lung", "bronchoalveolar"),
    "airway": ("airway", "nasal", "trachea"),
    "intestine": ("colon", "ileum", "rectum", "intestine"),
    "bone marrow": ("marrow", "immune census"),
    "blood": ("blood",),
    "brain": (
        "brain",
        "cerebellum",
        "cerebrum",
        "hypothalamus",
        "striatum",
        "hindbrain",
        "spinal cord",
    ),
    "eye": ("eye", "retina"),
    "skin": ("skin",),
    "breast": ("breast", "mammary"),
    "uterus": ("decidua", "uterus"),
    "placenta": ("placenta",),
    "adrenal gland": ("adrenal",),
    "muscle": ("muscle",),
    "bone": ("bone (", "rib", "calvaria"),
    "thymus": ("thymus", "thymic"),
    "bladder": ("bladder",),
} | {
    name: (name,)
    for name in (
        "pancreas",
        "liver",
        "stomach",
        "esophagus",
        "heart",
        "kidney",
        "prostate",
        "testis",
        "ovary",
        "spleen",
    )
}
"""Name of a tissue -> what its sources call it. Tumor microenvironments and mixtures have none."""
UBERON = {
    "intestine": "intestine",
    "airway": "respiratory airway",
    "breast": "breast",
    "muscle": "skeletal muscle tissue",
    "eye": "eye",
    "bone": "bone element",
    "adipose": "adipose tissue",
    "bladder": "urinary bladder",
    "prostate": "prostate gland",
    "lymph node": "lymph node",
}
"""Tissue -> its label in Uberon, where that is another."""


def table() -> pd.DataFrame:
    """The curated tree, parents before children."""
    rows = pd.read_csv(TYPES, sep="\t", keep_default_na=False)
    done: list[int] = []
    while len(done) < len(rows):
        there = {"", *rows["type"].iloc[done]}
        new = [i for i in range(len(rows)) if i not in done and rows["parent"].iloc[i] in there]
        if not new:
            msg = f"No parent of {sorted(set(rows['parent']) - set(rows['type']))}"
            raise ValueError(msg)
        done += new
    return rows.iloc[done].reset_index(drop=True)


def tree_of(rows: pd.DataFrame, present: set[str], ids: list[str]) -> Tree:
    """The tree with the types that have cells as classes: leaves, and nodes marked as their own."""
    place = {name: i for i, name in enumerate(rows["type"])}
    parents = np.array([place.get(name, -1) for name in rows["parent"]])
    is_class = (~np.isin(np.arange(len(rows)), parents)) | rows["kind"].str.contains("own").to_numpy()
    classes = [i for i, name in enumerate(rows["type"]) if is_class[i] and name in present]
    return Tree(
        names=list(rows["type"]),
        parents=parents,
        node_of_class=np.array(classes),
        is_lineage=rows["kind"].str.contains("lineage").to_numpy(),
        ids=ids,
    )


def named(labels: pd.Series, rows: pd.DataFrame, column: str, dataset: str) -> pd.Series:
    """Labels of a source as names of the tree; `SOURCE@label` counts in datasets with SOURCE in their name only."""
    general, special = {}, {}
    for name, listed in zip(rows["type"], rows[column], strict=True):
        for label in filter(None, map(str.strip, listed.split(";"))):
            source, _, plain = label.rpartition("@")
            if source.lower() in dataset.lower():
                (special if source else general)[plain] = name
    return labels.map(lambda label: special.get(label, general.get(label)))


def is_mouse(name: str) -> bool:
    """By name: mouse sets are called so."""
    return "mouse" in name.lower() or "tabula" in name.lower()


def tissue_of(text: str) -> str:
    """The common name of a tissue, "" for a mixture."""
    for name, words in TISSUES.items():
        if any(word in text.lower() for word in words) and "tumour" not in text and "cell line" not in text:
            return name
    return ""


def measured(data: Path, rows: pd.DataFrame, rng: np.random.Generator) -> list[ad.AnnData]:
    """Labeled cells of the corpus, at most `PER_TYPE` of a type and study; tumors and cell lines left out."""
    found = []
    for folder in ("corpus", "corpus_wide", "corpus_more"):
        for path in sorted((data / folder).glob("*.h5ad")):
            adata = ad.read_h5ad(path)
            column = "mouse" if is_mouse(path.stem) else "labels"
            label = named(adata.obs["cell_type"].astype(str), rows, column, path.stem)
            if path.stem not in FROM_TUMOUR:
                label[adata.obs["malignant"].astype(str) == "True"] = None
            kept = [
                rng.permutation(np.flatnonzero(label == name))[:PER_TYPE] for name in label.dropna().unique()
            ]
            if not kept:
                continue
            kept = np.sort(np.concatenate(kept))
            part = adata[kept].copy()
            part.X = part.X.astype(np.float32)
            part.obs = _columns(label.iloc[kept], adata.obs["tissue"].iloc[kept])
            part.uns = {
                "name": path.stem,
                "is_real": True,
                "is_mouse": is_mouse(path.stem),
                **{field: str(adata.uns.get(field, "")) for field in SOURCE},
            }
            found.append(part)
    return found


def around_profiles(data: Path, rows: pd.DataFrame, rng: np.random.Generator) -> list[ad.AnnData]:
    """Cells drawn around the mean profiles of the listed types, a dataset per study."""
    found = []
    for path in sorted((data / "profiles").glob("*celltypes*.h5ad")) + sorted(
        (data / "profiles").glob("mouse_orthologs_more.h5ad")
    ):
        column = "mouse" if is_mouse(path.stem) else "labels"
        for name, adata in drawn(path, PER_PROFILE, rng).items():
            where = f"{name} {adata.obs['tissue'].iloc[0]}"
            label = named(adata.obs["cell_type"].astype(str), rows, column, where)
            label[adata.obs["malignant"] == "True"] = None
            if not label.notna().any():
                continue
            part = adata[label.notna().to_numpy()].copy()
            part.obs = _columns(label.dropna(), adata.obs["tissue"][label.notna()])
            part.uns = {
                "name": name,
                "is_real": False,
                "is_mouse": is_mouse(name),
                **{field: str(adata.uns.get(field, "")) for field in SOURCE},
            }
            found.append(part)
    return found


def _columns(label: pd.Series, tissue: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"type": label.astype(str), "tissue": tissue.astype(str).map(tissue_of)})


def embedded(
    datasets: list[ad.AnnData], model: scellm.models.CellLM
) -> tuple[np.ndarray, pd.DataFrame, sp.csr_array, np.ndarray, np.ndarray]:
    """Vectors; a table of the cells; log1p CP10k over the vocabulary; marks of the cells; genes each set has."""
    vectors, tables, logged, marks, has = [], [], [], [], []
    for adata in datasets:
        try:
            scellm.tl.embed(adata, model, min_overlap=MIN_OVERLAP, show_progress=False)
        except ValueError as problem:
            print("left out:", adata.uns["name"], str(problem)[:90])
            continue
        good = np.isfinite(adata.obsm["X_scellm"]).all(axis=1)
        with Expression.open(adata, model.vocabulary, ReadOptions(min_overlap=MIN_OVERLAP)) as cells:
            values = sp.csr_array(sp.vstack([block for _, block in cells.log1p()], format="csr"))[good]
            has.append(np.tile(cells.has_gene, (1, 1)))
        part = adata.obs[good].copy()
        for name in ("name", "is_real", "is_mouse"):
            part[name] = adata.uns[name]
        vectors.append(adata.obsm["X_scellm"][good])
        tables.append(part)
        logged.append(values)
        real = adata.uns["is_real"]
        empty = np.zeros((int(good.sum()), 12), np.int64)
        marks.append(cell_hashes(values, list(model.vocabulary.symbols)) if real else empty)
    cells = pd.concat(tables, ignore_index=True)
    return (
        np.concatenate(vectors),
        cells,
        sp.csr_array(sp.vstack(logged, format="csr")),
        np.concatenate(marks),
        np.concatenate(has),
    )
