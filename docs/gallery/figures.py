"""The figures of the gallery and of the API pages: python docs/gallery/figures.py [NAME ...].

One function for each figure; its body is what the page shows. Writes `docs/_static/gallery/NAME.png`.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import scanpy as sc
from anndata import AnnData
from PIL import Image

import scellm

OUT = Path(__file__).parents[1] / "_static" / "gallery"


@cache
def pancreas() -> AnnData:
    """Cells of a pancreas with types and a UMAP."""
    adata = scellm.datasets.pancreas()
    scellm.tl.annotate(adata)
    sc.pp.neighbors(adata, use_rep="X_scellm")
    sc.tl.umap(adata, random_state=0)
    return adata


@cache
def tumor() -> AnnData:
    """Cells of oligodendrogliomas, judged malignant or not."""
    import infercnvpy

    adata = infercnvpy.datasets.oligodendroglioma()
    scellm.tl.embed(adata)
    scellm.tl.malignancy(adata)
    sc.pp.neighbors(adata, use_rep="X_scellm")
    sc.tl.umap(adata, random_state=0)
    return adata


@cache
def lines() -> AnnData:
    """Cell lines with predicted drug response, by line and cell by cell."""
    adata = scellm.datasets.cell_lines()
    scellm.tl.drug_response(adata, groupby="cell_line")
    scellm.tl.drug_response(adata, key_added="by_cell")
    scellm.tl.rank_drugs(adata, "cell_line", key="by_cell")
    return adata


@cache
def own_model() -> tuple[scellm.models.CellLM, AnnData, AnnData]:
    """A fine-tuned model, the cells it learned from, and others that it has labeled."""
    adata = scellm.datasets.pancreas()
    adata = adata[adata.obs.groupby("cell_type", observed=True)["cell_type"].transform("size") > 50].copy()
    later = adata[::4].copy()
    train = adata[[i for i in range(adata.n_obs) if i % 4]].copy()
    options = scellm.train.FineTuneOptions(max_epochs=10)
    model = scellm.tl.fine_tune(train, "cell_type", training=options)
    scellm.tl.annotate(later, model)
    return model, train, later


@cache
def found() -> AnnData:
    """Half of the cells looked up among the others."""
    adata = pancreas()
    folder = Path(tempfile.mkdtemp()) / "index"
    scellm.tl.index(adata[::2].copy(), folder, columns=["cell_type"])
    later = adata[1::2].copy()
    scellm.tl.search(later, folder)
    return later


def annotation() -> None:
    """Types on a UMAP, and how sure each cell is."""
    scellm.pl.annotation(pancreas())


def confidence() -> None:
    """Confidence of each type: which labels need a second look."""
    scellm.pl.confidence(pancreas())


def markers() -> None:
    """Do the cells express the markers of their label?"""
    adata = pancreas()
    n_cells = adata.obs.groupby("scellm_cell_type", observed=True)["scellm_cell_type"].transform("size")
    scellm.pl.markers(adata[n_cells > 30].copy(), n_genes=2)


def confusion_matrix() -> None:
    """Predicted types beside labels that you trust."""
    scellm.pl.confusion_matrix(pancreas(), "cell_type")


def reliability() -> None:
    """Is a confidence of 0.8 right in 8 of 10 cells?"""
    scellm.pl.reliability(own_model()[2], "cell_type", n_bins=6)


def compare() -> None:
    """A fine-tuned model beside simple baselines, overall and by type."""
    scellm.pl.compare(own_model()[1])


def training_history() -> None:
    """Losses and scores of a training run."""
    scellm.pl.training_history(own_model()[0])


def malignancy() -> None:
    """Malignant cells, with both kinds of evidence."""
    scellm.pl.malignancy(tumor())


def copy_number() -> None:
    """Gains and losses along the genome, cell by cell."""
    scellm.pl.copy_number(tumor())


def drug_response() -> None:
    """Which groups each drug hits more (orange) or less (purple)."""
    scellm.pl.drug_response(lines(), center=True, n_drugs=20)


def drug_response_dotplot() -> None:
    """Chosen drugs; small dots are uncertain."""
    drugs = ["Nilotinib", "Dasatinib", "Nutlin-3a (-)", "Trametinib", "Gefitinib", "Cisplatin"]
    scellm.pl.drug_response(lines(), kind="dotplot", center=True, drugs=drugs)


def drug_response_violin() -> None:
    """Predictions of single cells by group."""
    drugs = ["Nilotinib", "Nutlin-3a (-)"]
    scellm.pl.drug_response(lines(), key="by_cell", kind="violin", groupby="cell_line", drugs=drugs)


def rank_drugs() -> None:
    """Drugs that differ most between a group and the others."""
    scellm.pl.rank_drugs(lines(), groups=["K562", "HCT116"], n_drugs=8)


def search() -> None:
    """What each group of cells looks most like in an index."""
    adata = found()
    n_cells = adata.obs.groupby("scellm_cell_type", observed=True)["scellm_cell_type"].transform("size")
    scellm.pl.search(adata[n_cells > 10].copy(), "scellm_cell_type")


FIGURES = (
    annotation,
    confidence,
    markers,
    confusion_matrix,
    reliability,
    compare,
    training_history,
    malignancy,
    copy_number,
    drug_response,
    drug_response_dotplot,
    drug_response_violin,
    rank_drugs,
    search,
)
"""In the order of the page."""


def main() -> None:
    """Draw all figures, or those named on the command line."""
    mpl.use("agg")
    warnings.simplefilter("ignore")  # the tutorials show and explain them
    OUT.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        if len(sys.argv) == 1 or figure.__name__ in sys.argv[1:]:
            figure()
            path = OUT / f"{figure.__name__}.png"
            plt.gcf().savefig(path, dpi=75, bbox_inches="tight")
            Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
            plt.close("all")
            print(figure.__name__, flush=True)


if __name__ == "__main__":
    main()
