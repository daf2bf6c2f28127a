"""Which labels of a blood sample hold, and which evidence would have said so: the example of docs/howto/trust.md.

    python tests/benchmarks/trust.py DATA

`pbmc3k` in DATA has labels of its authors, which are used for nothing but to look. Writes `docs/benchmarks/trust.md` and
`.json`, and the figure `docs/_static/trust.png`.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _report import DOCS, write

import scellm

MEANT = {
    "B": "B cell",
    "CD14 Monocytes": "classical monocyte",
    "CD4 T": "CD4 T cell",
    "CD8 T": "CD8 T cell",
    "Dendritic": "dendritic cell",
    "FCGR3A Monocytes": "non-classical monocyte",
    "Megakaryocytes": "platelet",
    "NK": "NK cell",
}
"""Names of the authors, as nodes of the tree."""
ASKED = {
    "CD4 T cell": "IL7R",
    "classical monocyte": "S100A8",
    "naive B cell": "TCL1A",
    "memory or cytotoxic CD8 T cell": "CD8A",
    "non-classical monocyte": "FCGR3A",
    "NK cell": "GNLY",
    "monocyte": "LYZ",
    "cDC2": "FCER1A",
    "T cell": "CD3D",
    "naive CD4 T cell": "CCR7",
}
"""A gene by which a biologist would know the type, chosen by us."""
LEAST = 0.005
"""Share of cells from which a label is shown."""
POOR = 0.6
"""Below it a bar is drawn in orange."""
EDGES = (0.0, 0.7, 0.9, 1.01)
TEXT = """
{n:,} blood cells (10x pbmc3k) with the labels of their authors, annotated by `scellm.tl.annotate(adata)` with the shipped reference, which has
not seen them. A label counts as compatible if it is the authors' type, a subtype of it, or a broader name above it; the authors name eight
types and do not tell subtypes of T cells apart. *Recognized in other studies* is the share of the type's cells that got its name when
their whole study was left out of the reference, *right in other studies*, if it is there, the share of the cells of that name that were of the
type; both are empty where no second study has the type. The last columns are the share of cells with at least one count of a gene by which the type is known, in the
cells of the label and in all others.

Lineages are right for **{lineage:.1%}** of the cells, names are compatible for **{compatible:.1%}**, and the mean confidence is {confidence:.2f}. Of the {n_cd8:,} cells called
memory or cytotoxic CD8 T cells the authors call {cd8_right:.0%} CD8 T cells. Of {n_b:,} naive B cells they call {b_right:.1%} B cells, and {b_gene:.0%} express *TCL1A*. Of
{n_dc2} cDC2 they call {dc2_right:.0%} dendritic cells, and {dc2_gene:.0%} express *FCER1A*. All {n_naive} naive CD4 T cells are CD4 T cells to them.

![Confidence, recognition in other studies and a gene of each label](../_static/trust.png)
"""


def is_compatible(label: str, meant: str, paths: dict[str, list[str]]) -> bool:
    """Whether one of two nodes is the other or above it."""
    return meant in paths.get(label, []) or label in paths.get(meant, [])


def express(adata: ad.AnnData, gene: str, cells: np.ndarray) -> float:
    """Share of cells with a count."""
    return float((adata[cells, gene].X > 0).mean())


def labels_table(adata: ad.AnnData, compatible: np.ndarray) -> pd.DataFrame:
    """A row for each frequent label."""
    found = scellm.get.annotation(adata)
    facts = scellm.models.load("scellm-small").parts["reference"].meta["facts"]["types"]
    known = dict(zip(adata.uns["scellm_cell_type"]["nodes"], facts, strict=True))
    labels = adata.obs["scellm_cell_type"].astype(str).to_numpy()
    rows = []
    for row in found[found["n_cells"] >= LEAST * adata.n_obs].to_dict("records"):
        name = row["label"]
        cells, gene = labels == name, ASKED.get(name, "")
        recall = row.get("recall_left_out", known[name]["recall"])
        rows.append(
            {
                "label": name,
                "cells": row["n_cells"],
                "mean confidence": row["confidence"],
                "recognized in other studies": recall if recall >= 0 else np.nan,
                "right in other studies": row.get("precision_left_out", np.nan),
                "compatible with the authors": float(compatible[cells].mean()),
                "gene": gene,
                "express it": express(adata, gene, cells) if gene else np.nan,
                "other cells": express(adata, gene, ~cells) if gene else np.nan,
            }
        )
    table = pd.DataFrame(rows).dropna(axis="columns", how="all")
    return table.astype(object).where(table.notna(), None)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Confidence, recognition in other studies and the gene, label by label."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    place = np.arange(len(table))[::-1]
    fig, axes = plt.subplots(
        1, 4, figsize=(10.4, 0.6 + 0.245 * len(table)), sharey=True, layout="constrained"
    )
    parts = (
        ("how sure it is\n(confidence)", "mean confidence", "#4C78A8"),
        ("recognized in\nother studies", "recognized in other studies", "#54A24B"),
        ("right when so named\nin other studies", "right in other studies", "#35807A"),
        ("cells that express\na gene of the type", "express it", "#B279A2"),
    )
    for ax, (title, column, colour) in zip(axes, parts, strict=True):
        values = table[column].astype(float)
        colours = [colour if value >= POOR or column == "express it" else "#D55E00" for value in values]
        ax.barh(place, values.fillna(0), height=0.66, color=colours)
        for y, value, gene in zip(place, values, table["gene"], strict=True):
            said = f"{value:.2f}" if np.isfinite(value) else "unknown"
            text = f"{said}  {gene}" if column == "express it" else said
            inside = np.isfinite(value) and value > 0.5
            ax.text(
                value - 0.02 if inside else np.nan_to_num(value) + 0.02,
                y,
                text,
                va="center",
                ha="right" if inside else "left",
                fontsize=8,
                color="white" if inside else "0.25",
            )
        ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], title=title)
        ax.title.set_fontsize(9.5)
        ax.tick_params(length=0, labelsize=8)
        ax.spines[["top", "right", "bottom"]].set_visible(False)
    names = [f"{name} ({n:,})" for name, n in zip(table["label"], table["cells"], strict=True)]
    axes[0].set_yticks(place, names, fontsize=8.5)
    fig.savefig(path, dpi=150, facecolor="white")
    plt.close(fig)


def main() -> None:
    """Annotate, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    adata = ad.read_h5ad(parser.parse_args().data / "pbmc3k.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scellm.tl.annotate(adata)
    record = adata.uns["scellm_cell_type"]
    paths = {str(path).split(" > ")[-1]: str(path).split(" > ") for path in record["paths"]}
    labels = adata.obs["scellm_cell_type"].astype(str).to_numpy()
    meant = adata.obs["cell_type"].astype(str).map(MEANT).to_numpy()
    compatible = np.array([is_compatible(a, b, paths) for a, b in zip(labels, meant, strict=True)])
    lineages = adata.obs["scellm_cell_type_coarse"].astype(str).to_numpy()
    right_lineage = np.array([one in paths[m] for one, m in zip(lineages, meant, strict=True)])
    confidence = adata.obs["scellm_cell_type_confidence"].to_numpy(float)
    bins = pd.cut(confidence, EDGES, right=False, labels=["below 0.7", "0.7 to 0.9", "0.9 and more"])
    by_confidence = (
        pd.DataFrame(
            {
                "confidence": bins,
                "cells": 1,
                "compatible": compatible,
                "lineage right": right_lineage,
            }
        )
        .groupby("confidence", observed=False)
        .agg({"cells": "sum", "compatible": "mean", "lineage right": "mean"})
        .reset_index()
        .iloc[::-1]
    )
    by_confidence["confidence"] = by_confidence["confidence"].astype(str)
    table = labels_table(adata, compatible)
    facts = {
        "n": adata.n_obs,
        "lineage": float(right_lineage.mean()),
        "compatible": float(compatible.mean()),
        "confidence": float(confidence.mean()),
        "summary": str(record["summary"]),
    }
    for short, name, theirs in (
        ("cd8", "memory or cytotoxic CD8 T cell", "CD8 T cell"),
        ("b", "naive B cell", "B cell"),
        ("dc2", "cDC2", "dendritic cell"),
        ("naive", "naive CD4 T cell", "CD4 T cell"),
    ):
        cells = labels == name
        facts |= {
            f"n_{short}": int(cells.sum()),
            f"{short}_right": float((meant[cells] == theirs).mean()),
            f"{short}_gene": express(adata, ASKED[name], cells),
        }
    draw(table, DOCS.parent / "_static" / "trust.png")
    tables = {"Labels of at least one cell in two hundred": table, "By confidence": by_confidence}
    print(write("trust", "Which labels of a blood sample hold?", TEXT.format(**facts), tables, facts))


if __name__ == "__main__":
    main()
