"""Sections on search in an index, on trained models, and on genes; and the text for a methods section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from anndata import AnnData

from .. import get
from .._records import FitRecord, SearchRecord
from .._version import __version__
from ..annotation._records import AnnotationRecord
from ..drugs._record import DrugRecord, RankRecord
from ..get._search import UNLIKE
from ._found import Results
from ._html import Section, facts, percent, sentence, table, tag
from ._labels import absent
from ._provenance import _text

MANY_FAR = 0.5
PAPERS = {
    "Zhao2023": "Zhao S, Zhang J, Nie Z. Large-Scale Cell Representation Learning via Divide-and-Conquer Contrastive Learning. arXiv:2306.04371 (2023).",
    "Wolf2018": "Wolf FA, Angerer P, Theis FJ. SCANPY: large-scale single-cell gene expression data analysis. Genome Biology (2018). doi:10.1186/s13059-017-1382-0",
    "Virshup2024": "Virshup I, Rybakov S, Theis FJ, Angerer P, Wolf FA. anndata: Access and store annotated data matrices. Journal of Open Source Software (2024). doi:10.21105/joss.04371",
    "Guo2017": "Guo C, Pleiss G, Sun Y, Weinberger KQ. On Calibration of Modern Neural Networks. International Conference on Machine Learning (2017).",
    "Gupta2022": "Gupta C, Kuchibhotla AK, Ramdas A. Nested Conformal Prediction and Quantile Out-of-Bag Ensemble Methods. Pattern Recognition (2022). doi:10.1016/j.patcog.2021.108496",
    "Sadinle2019": "Sadinle M, Lei J, Wasserman L. Least Ambiguous Set-Valued Classifiers With Bounded Error Levels. Journal of the American Statistical Association (2019). doi:10.1080/01621459.2017.1395341",
    "Patel2014": "Patel AP, Tirosh I, Trombetta JJ et al. Single-cell RNA-seq highlights intratumoral heterogeneity in primary glioblastoma. Science (2014). doi:10.1126/science.1254257",
    "Tickle2019": "Tickle T, Tirosh I, Georgescu C, Brown M, Haas B. inferCNV of the Trinity CTAT Project (2019).",
    "Iorio2016": "Iorio F, Knijnenburg TA, Vis DJ et al. A Landscape of Pharmacogenomic Interactions in Cancer. Cell (2016). doi:10.1016/j.cell.2016.06.017",
    "Benjamini1995": "Benjamini Y, Hochberg Y. Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing. Journal of the Royal Statistical Society: Series B (1995). doi:10.1111/j.2517-6161.1995.tb02031.x",
    "Douze2024": "Douze M, Guzhva A, Deng C et al. The Faiss library (2024).",
}
"""What methods are cited for, by key of `docs/references.bib`."""


def _weights(record: Mapping[str, Any]) -> str:
    """Hash of the weights, or that they are of no file."""
    digest = _text(record, "sha256")[:12]
    return f"sha256 {digest}" if digest else "not saved, so that no hash tells its weights"


def search_section(adata: AnnData, found: Results) -> Section:
    """Results of `tl.search`."""
    section = Section("search", "Search in an index")
    if not found.searches:
        section.body += absent(
            "No index was searched. To find the cells of an atlas that are most like these type",
            "scellm.tl.index(atlas, 'atlas-index', columns='cell_type')\nscellm.tl.search(adata, 'atlas-index')",
        )
    for key in found.searches:
        record = SearchRecord.known(adata.uns, key)
        far = float((adata.obs[f"{key}_unusual"] > UNLIKE).mean())
        section.body.append(
            facts(
                {
                    "Index": record.index,
                    "Cells in it": int(record.n_indexed),
                    "Neighbors": int(record.k),
                    "In short": record.message,
                },
                f"Search under {key!r}.",
            )
        )
        if far > MANY_FAR:
            section.warn(
                f"{percent(far)} of the cells are unlike all cells of the index: their neighbors say little.",
                f"{percent(far)} of the cells are unlike all cells of the index",
            )
        if record.n_in_index:
            known = f"{record.n_in_index:,} of {adata.n_obs:,} cells are in the index themselves"
            section.warn(f"{known}: what their neighbors say is no test of new cells.", known)
        groupby = next(
            (name for name in [*(f"{x}_coarse" for x in found.labels), *found.labels] if name in adata.obs),
            None,
        )
        rows = get.search(adata, groupby, key=key).groupby(["group", "column"], sort=False).head(3)
        section.body.append(
            table(
                rows,
                "What the cells are most like, by group: the most frequent values among their neighbors.",
            )
        )
    return section


def training_section(adata: AnnData, found: Results) -> Section | None:
    """Results of `tl.fine_tune`, `tl.few_shot` and `tl.gene_importance`, if there are any."""
    if not found.fits and not found.importance:
        return None
    section = Section("training", "Models of your own, and genes")
    for key in found.fits:
        record = FitRecord.known(adata.uns, key)
        section.body.append(
            facts(
                {
                    "Labels": record.labels,
                    "Classes": ", ".join(record.classes),
                    "In short": record.summary,
                    "Cells in training, validation, test": f"{record.n_train:,}, {record.n_val:,}, {record.n_test:,}",
                },
                f"Training under {key!r}.",
            )
        )
        if record.baseline_is_better:
            section.warn(
                "A simple baseline was better than the trained model on held-out cells. Use the baseline.",
                "a simple baseline was better than the trained model",
            )
    for key in found.importance:
        rows = pd.concat(
            [part.head(10) for _, part in get.gene_importance(adata, key=key).groupby("group", sort=False)]
        )
        section.body.append(
            table(rows, "The ten genes that weigh most in the embedding of each type.", most=200)
        )
    return section


def methods_section(adata: AnnData, found: Results) -> Section:
    """Text that can go into a manuscript, with its references."""
    section = Section("methods", "Text for a methods section")
    sentences = list(_sentences(adata, found))
    if not sentences:
        section.body.append(sentence("There are no results yet to write about."))
        return section
    section.body.append(
        sentence(
            "Check it against what you did outside of scellm, such as filtering, and say who looked at the labels."
        )
    )
    keys = list(dict.fromkeys(key for _, cited in sentences for key in cited))
    written = " ".join(
        words + (f" [{', '.join(str(keys.index(key) + 1) for key in cited)}]." if cited else ".")
        for words, cited in sentences
    )
    section.body.append(tag("blockquote", tag("p", written)))
    section.body.append(tag("h3", "References"))
    section.body.append(tag("ol", *(tag("li", PAPERS[key]) for key in keys)))
    return section


def _sentences(adata: AnnData, found: Results) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Sentences without their full stop, and what they cite."""
    if not found.keys:
        return
    yield (
        f"{adata.n_obs:,} cells were analyzed with scellm {__version__} on AnnData objects",
        ("Virshup2024",),
    )
    yield from _of_embeddings([adata.uns[key] for key in found.embeddings])
    of_labels = [_of_labels(AnnotationRecord.from_uns(adata.uns[key])) for key in found.labels]
    yield from dict.fromkeys(found for several in of_labels for found in several)
    if found.malignant:
        yield (
            "Malignant cells were called from copy number, inferred from expression along the genome relative to normal cells, and from a "
            "logistic regression on the embedding",
            ("Patel2014", "Tickle2019"),
        )
    yield from _of_drugs([DrugRecord.known(adata.uns, key) for key in found.drugs])
    yield from dict.fromkeys(_of_ranks(adata, found))
    for key in found.searches:
        search = SearchRecord.from_uns(adata.uns[key])
        if search is not None:
            yield (
                f"The {int(search.k)} most similar cells of an index of {int(search.n_indexed):,} cells were found by cosine similarity",
                ("Douze2024",),
            )
    if found.basis == "X_umap":
        yield "UMAP coordinates were computed with scanpy", ("Wolf2018",)


def _of_embeddings(records: list[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """One sentence for all embeddings of one model; what was read is said of each kind."""
    by_model: dict[tuple[str, str, bool], list[str]] = {}
    for record in records:
        model = (_text(record, "model"), _weights(record), "scellm.tl.adapt(" in _text(record, "call"))
        read = f"{int(record.get('n_genes', 0)):,} genes of {_text(record, 'matrix')}"
        if read not in by_model.setdefault(model, []):
            by_model[model].append(read)
    for (name, weights, is_adapted), matrices in by_model.items():
        adapted = ", to which principal components of the cells' expression were added" if is_adapted else ""
        yield (
            f"Cells were embedded with the CellLM encoder {name!r} ({weights}){adapted}, which read {' and '.join(matrices)}",
            ("Zhao2023",),
        )


def _of_drugs(records: list[DrugRecord]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """One sentence for all predictions of one model and number of drugs."""
    levels: dict[tuple[int, str, str], list[str]] = {}
    for drugs in records:
        level = f"groups of cells ({drugs.groupby})" if drugs.groupby else "single cells"
        known = levels.setdefault((len(drugs.drugs), drugs.model, drugs.sha256), [])
        known += [level] if level not in known else []
    for (n, model, digest), said in levels.items():
        yield (
            f"Response to {n:,} drugs (ln IC50) was predicted for {' and '.join(said)} with the model {model!r} (sha256 {digest[:12]}), a "
            "Gaussian process trained on cancer cell lines of GDSC",
            ("Iorio2016",),
        )


def _of_ranks(adata: AnnData, found: Results) -> Iterator[tuple[str, tuple[str, ...]]]:
    """How groups were compared."""
    for key in found.ranks:
        rank = RankRecord.known(adata.uns, key)
        test = (
            f"by t tests over samples ({rank.sample_key}), with p-values corrected over drugs"
            if rank.sample_key
            else "by the difference of their means, without a test"
        )
        yield (
            f"Groups of cells ({rank.groupby}) were compared {test}",
            ("Benjamini1995",) if rank.sample_key else (),
        )


def _of_labels(record: AnnotationRecord | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """How cell types were given."""
    if record is None:
        return
    source = {
        "reference": "by label transfer from a labeled reference",
        "fine-tuned": f"by the fine-tuned model {record.model!r}",
        "pretrained": f"from the reference of {record.model!r}",
    }.get(record.mode, "with scellm")
    yield (
        f"Types were assigned {source} ({len(record.classes)} types), with probabilities calibrated by temperature scaling",
        ("Guo2017",),
    )
    if record.n_neighbors:
        yield (
            f"The {record.n_neighbors} nearest cells of the same data in the embedding had a say in the type of each cell",
            (),
        )
    if record.names_replaced:
        yield (
            f"Names that were wrong more often than right in studies left out were replaced by the broader ones ({', '.join(record.names_replaced)})",
            (),
        )
    if record.target_error is not None:
        yield (
            f"The error of labels or label sets was controlled at {record.target_error:g} by split conformal prediction",
            ("Gupta2022",) if record.nodes else ("Sadinle2019",),
        )
    if record.min_confidence is not None:
        yield (
            f"Cells without a type of probability {record.min_confidence:g} or more were left unassigned",
            (),
        )
    if record.novelty_error is not None:
        yield (
            f"Cells farther from the reference than all but {record.novelty_error:g} of its held-out cells were called novel",
            (),
        )
