"""The page of the drugs that the shipped model knows.

    python tests/benchmarks/drug_panel.py

Writes `docs/guide/drug_panel.md`. Run it again whenever the drug model changes.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import scellm
from scellm.drugs import DrugModel
from scellm.drugs._targets import target_genes
from scellm.tl._drug_doubts import WEAK

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "drug_panel.md"
TEXT = """# All drugs

The {n_drugs} drugs that `scellm.tl.drug_response` can predict without a structure, by pathway. In **bold** the {n_panel} of
the panel, which are predicted where none is named: drugs of GDSC2 whose target or class is known, and whose response in
unseen cell lines can be predicted. The others are predicted when they are asked for. Search the page with the browser, or the site with the search box. A
drug can be asked for by its name, another name, a target, a gene, or a pathway:
`scellm.tl.drug_response(adata, "Erlotinib")`, `"EGFR"`, `"EGFR signaling"`.

*Lines* are the cell lines in which the drug was measured. *Unseen lines* is the correlation between predicted and measured ln IC50
over cell lines that were left out. Below {weak} a drug is **not predictable** from expression ({n_weak} drugs): do not use it. GDSC1 and
GDSC2 are two screens of one institute with different assays and doses; compare drugs within one.

A drug that is not here can be given as a structure: [how to](../howto/drug_response.md). The only antibody in these screens is cetuximab. The table is
`scellm.drugs.load_drug_model().drugs`; this page is made from it by `python tests/benchmarks/drug_panel.py`.
"""
HEAD = """| drug | other names | targets | genes of the targets | screen | lines | unseen lines |
| --- | --- | --- | --- | --- | --- | --- |"""
UNKNOWN = ("", "Unclassified")
"""Pathways that say nothing."""


def listed(text: str) -> list[str]:
    """Parts of a text between commas."""
    return [part for part in map(str.strip, text.split(",")) if part]


def row(drug: pd.Series) -> str:
    """A line of the table."""
    name = f"**{drug['name']}**" if drug["panel"] else drug["name"]
    genes = ", ".join(target_genes(drug["target"]))
    r = f"{drug['pearson']:.2f}" + (", not predictable" if drug["pearson"] < WEAK else "")
    other = ", ".join(part for part in listed(drug["synonyms"]) if part != drug["name"])
    targets = ", ".join(listed(drug["target"]))
    cells = [
        name,
        other,
        targets,
        "" if genes == targets else genes,
        drug["screen"],
        drug["n_lines"],
        r,
    ]
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def page(model: DrugModel) -> str:
    """The page, all of it from the model."""
    drugs = model.drugs
    text = TEXT.format(
        n_drugs=len(drugs),
        n_panel=int(drugs["panel"].sum()),
        weak=WEAK,
        n_weak=int((drugs["pearson"] < WEAK).sum()),
    )
    sections = []
    pathway = drugs["drug_class"].where(~drugs["drug_class"].isin(UNKNOWN), "Pathway not known")
    for name, part in drugs.groupby(pathway):
        ordered = part.sort_values("name", key=lambda names: names.str.casefold())
        rows = "\n".join(row(drug) for _, drug in ordered.iterrows())
        sections.append((name == "Pathway not known", f"## {name}\n\n{HEAD}\n{rows}\n"))
    return "\n".join([text, *(section for _, section in sorted(sections))])


if __name__ == "__main__":
    PAGE.write_text(page(scellm.drugs.load_drug_model()), encoding="utf-8")
