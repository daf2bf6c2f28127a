"""The table on the front page, from stored results: python tests/benchmarks/front_page.py.

Writes it between two comments of `README.md`; `tests/test_readme.py` fails if it is not what the results say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- table: made by tests/benchmarks/front_page.py -->", "<!-- table ends -->"


LINES = ("li2017_cell_lines", "pollen2014")
"""Sets of the page of malignancy that are mixtures of cell lines."""


def result(name: str) -> dict[str, Any]:
    """Facts and tables of one benchmark."""
    return json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def mean(rows: list[dict[str, Any]], column: str) -> float:
    """Mean of a column over rows."""
    return sum(row[column] for row in rows) / len(rows)


def table() -> str:
    """One row per task: ours, the simple baseline, where to read more."""
    embedding = result("embedding")["tables"]["Macro-F1"]
    adapted = result("adapt")["tables"]["Macro-F1, benchmark sets"][-1]
    labels = result("annotation")["facts"]["parts"]
    few = [row for row in labels["few_shot"]["rows"] if row["cells per type"] == 5]
    malignant = result("malignancy")["tables"]["AUC, sets with both classes"]
    drug = result("drug_response")
    lines = drug["facts"]["splits"]["unseen lines"]
    drugs = {name: row["per drug"] for name, row in lines.items()}
    baseline = "logistic regression on genes"
    rows = [
        (
            f"Embedding, nothing trained: neighbors tell the type, macro-F1, {len(embedding) - 1} datasets",
            f"{embedding[-1]['scellm']:.3f}",
            f"{embedding[-1]['PCA']:.3f} (PCA of each dataset)",
            "embedding",
        ),
        (
            "The same, adapted to the cells in seconds by `tl.adapt`",
            f"{adapted['adapted']:.3f}",
            f"{adapted['PCA']:.3f} (the same)",
            "adapt",
        ),
        (
            f"Cell types without labels of yours: macro-F1, {len(labels['zero_shot']['rows'])} datasets",
            f"{mean(labels['zero_shot']['rows'], 'scellm'):.3f}",
            f"{mean(labels['zero_shot']['rows'], 'logistic regression'):.3f} ({baseline})",
            "annotation",
        ),
        (
            f"Five labeled cells per type: macro-F1, {len(few)} datasets",
            f"{mean(few, 'scellm'):.3f}",
            f"{mean(few, 'logistic regression'):.3f} ({baseline})",
            "annotation",
        ),
        (
            f"Malignant cells: AUC, {len(malignant)} sets left out ({len(malignant) - len(LINES)} tumors, {len(LINES)} mixtures of cell lines)",
            f"{mean(malignant, 'both'):.3f}",
            f"{mean(malignant, 'genes'):.3f} ({baseline})",
            "malignancy",
        ),
        (
            "Drug response of cell lines left out: correlation per drug",
            f"{drugs['scellm-drug']:.3f}",
            f"{drugs['ridge per drug']:.3f} (ridge regression per drug)",
            "drug_response",
        ),
    ]
    single = {
        row["predicted from"]: row["Spearman per drug"]
        for row in reversed(drug["tables"]["Single cells of lines left out"])
    }
    rows.append(
        (
            "The same from single cells of lines left out: rank correlation per drug, 35 lines",
            f"{single['sums of single cells']:.3f}",
            f"{single['nearest line']:.3f} (nearest cell line)",
            "drug_response",
        )
    )
    text = "| Task | scellm | Simple baseline |\n| --- | --- | --- |\n"
    return text + "".join(
        f"| [{task}](docs/benchmarks/{page}.md) | {ours} | {other} |\n" for task, ours, other, page in rows
    )


def with_table(readme: str) -> str:
    """The README with the table put between its two comments."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the table."""
    page = ROOT / "README.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
