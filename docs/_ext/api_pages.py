"""API pages from what the package exports: one page per namespace, one table row per name in `__all__`.

Nothing is listed by hand, so a public name cannot be missing and a removed one cannot linger.
`tests/test_api.py` reads the same pages.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

NAMESPACES = {
    "pp": "Before embedding: which genes, which values",
    "tl": "What is done with cells",
    "pl": "Figures of what the tools wrote",
    "get": "Tables of what the tools wrote",
    "models": "Weights with their configuration, genes and provenance",
    "drugs": "Drug response without AnnData: compounds, models, their fit",
    "datasets": "Cells to try things on",
    "data": "Genes and tokens, without AnnData",
    "nn": "The encoder and its parts: tensors in, tensors out",
    "train": "Objectives and loops",
    "metrics": "Scores, and the baselines they stand beside",
}
"""Public namespaces in the order of the pages; `tests/test_api.py` compares them with `scellm.__all__`."""

SEE = {
    "scellm.tl.annotate": (
        "guide/annotate",
        "tutorials/cell_types",
        "howto/annotate",
        "benchmarks/annotation",
    ),
    "scellm.tl.embed": (
        "guide/embed",
        "tutorials/embed",
        "tutorials/batches",
        "howto/large-files",
        "benchmarks/embedding",
    ),
    "scellm.tl.adapt": ("guide/embed", "howto/batches", "benchmarks/adapt"),
    "scellm.tl.fit_reference": ("guide/annotate", "tutorials/annotate", "howto/annotate"),
    "scellm.tl.fine_tune": ("guide/annotate", "tutorials/fine_tune", "benchmarks/annotation"),
    "scellm.tl.few_shot": ("howto/drug_response", "benchmarks/drug_response"),
    "scellm.tl.drug_response": ("guide/drug_response", "tutorials/drug_response", "benchmarks/drug_response"),
    "scellm.tl.rank_drugs": ("guide/drug_response", "tutorials/drug_response", "benchmarks/drug_response"),
    "scellm.tl.drug_similarity": ("guide/drug_response", "howto/drug_response"),
    "scellm.tl.malignancy": ("guide/malignancy", "tutorials/tumor", "benchmarks/malignancy"),
    "scellm.tl.gene_importance": ("guide/annotate", "tutorials/annotate"),
    "scellm.tl.index": ("howto/search", "benchmarks/search"),
    "scellm.tl.search": ("howto/search", "benchmarks/search"),
    "scellm.tl.pretrain": (
        "guide/pretrain",
        "tutorials/pretrain",
        "howto/pretrain",
        "benchmarks/transformer",
    ),
    "scellm.pp.check_input": ("howto/refused-input", "tutorials/cell_types"),
    "scellm.pp.harmonize_genes": ("guide/genes",),
    "scellm.pl.annotation": ("guide/annotate", "tutorials/cell_types"),
    "scellm.pl.confidence": ("guide/annotate", "tutorials/annotate"),
    "scellm.pl.markers": ("guide/annotate", "tutorials/cell_types"),
    "scellm.pl.confusion_matrix": ("guide/annotate", "tutorials/annotate"),
    "scellm.pl.reliability": ("guide/annotate", "tutorials/annotate"),
    "scellm.pl.compare": ("guide/annotate", "tutorials/fine_tune"),
    "scellm.pl.training_history": ("guide/pretrain", "tutorials/pretrain"),
    "scellm.pl.malignancy": ("guide/malignancy", "tutorials/tumor"),
    "scellm.pl.copy_number": ("guide/malignancy", "tutorials/tumor"),
    "scellm.pl.drug_response": ("guide/drug_response", "tutorials/drug_response"),
    "scellm.pl.search": ("howto/search", "benchmarks/search"),
    "scellm.pl.rank_drugs": ("guide/drug_response", "tutorials/drug_response"),
}
"""Guide, tutorial, how-to and benchmark of a function; shown on its page."""

HEADINGS = {"function": "Functions", "class": "Classes", "other": "Data"}


def kind(value: object) -> str:
    """Heading under which a public value is listed."""
    if inspect.isclass(value):
        return "class"
    return "function" if callable(value) else "other"


def namespace_page(name: str) -> str | None:
    """MyST source of the page of one namespace; `None` while it exports nothing."""
    module = import_module(f"scellm.{name}")
    public = sorted(getattr(module, "__all__", ()))
    if not public:
        return None
    lines = [f"# `scellm.{name}`", "", f"{NAMESPACES[name]}.", ""]
    lines += [
        "```{eval-rst}",
        f".. module:: scellm.{name}",
        "",
        f".. currentmodule:: scellm.{name}",
        "```",
        "",
    ]
    for group, heading in HEADINGS.items():
        members = [member for member in public if kind(getattr(module, member)) == group]
        if not members:
            continue
        lines += [
            f"## {heading}",
            "",
            "```{eval-rst}",
            ".. autosummary::",
            "   :toctree: generated",
            "   :nosignatures:",
        ]
        lines += ["", *(f"   {member}" for member in members), "```", ""]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Sources by file name, the index among them."""
    found = {name: page for name in NAMESPACES if (page := namespace_page(name)) is not None}
    index = ["# API", "", "Import the package as", "", "```python", "import scellm", "```", ""]
    index += ["| Namespace | What is in it |", "| --- | --- |"]
    index += [f"| [`scellm.{name}`]({name}.md) | {NAMESPACES[name]} |" for name in found]
    index += ["", "And one function at the top:", "", "```{eval-rst}", ".. currentmodule:: scellm", ""]
    index += [".. autosummary::", "   :toctree: generated", "   :nosignatures:", "", "   report", "```"]
    index += ["", "```{toctree}", ":hidden:", "", *found, "```", ""]
    return {f"{name}.md": page for name, page in found.items()} | {"index.md": "\n".join(index)}


def write_pages(folder: Path) -> None:
    """Write the pages, leaving unchanged ones alone and removing those of namespaces that export nothing now."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
