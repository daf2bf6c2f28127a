"""Benchmark pages as a reader needs them: question, verdict, figure and first table; all else folded.

The pages are written by `tests/benchmarks/` as plain tables. Here, as they are read, the first section with a table comes
first and every other section becomes a dropdown.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

QUESTIONS = {
    "ablation": "Which parts of the recipe make the shipped embedding what it is?",
    "adapt": "Does adapting the model to the cells it embeds tell their types apart better?",
    "annotation": "How often is a label right: without labels of yours, with few, and across studies?",
    "divide_and_conquer": "Is the two-pass training step exact, and what does it cost in time and memory?",
    "drug_response": "Which of the cells that the model has never seen does a drug hit more?",
    "drug_response_618": "What did the drug model before this one reach, with fewer genes?",
    "embedding": "Do neighbors in the embedding have the same cell type, without any training?",
    "engine": "How fast is the encoder, and does it give the same numbers everywhere?",
    "first_figure": "How long does it take from a clone to labeled cells in a figure?",
    "first_steps": "Do encoders with attention collapse in their first steps?",
    "house": "How large are the functions and files of the source?",
    "left_out": "Is the shipped reference better than the same reference on genes?",
    "malignancy": "Which cells of a tumor that the model has never seen are malignant?",
    "paper": "Which claims of the CellLM paper hold here?",
    "reference": "Which types does the shipped reference recognize in studies left out?",
    "scaling": "Does a larger model, or more cells, help?",
    "search": "Does the atlas search find the true nearest cells, and how fast?",
    "speed": "How many cells are embedded in a second, and what does padding that is not computed save?",
    "growth": "Do time and memory grow in proportion to the number of cells?",
    "batches": "Which way of joining batches mixes them and keeps the types?",
    "block_trials": "Which options of a block of attention make it better than the bag it is put on?",
    "transformer": "Does a block of attention on a bag of genes tell cell types apart better?",
    "trust": "Which labels of a blood sample are right, and which evidence says so?",
    "verdict": "Does scellm notice cells that the reference does not fit?",
}
"""What a page answers; shown first where the page does not say it itself."""
VERDICTS = {
    "annotation": "Ahead of regression on genes with few labels and across studies, about as good without labels of yours. "
    "Confidence is too high where the cells are of another study.",
}
"""What a page found, where it does not say it itself; in words, as numbers are in its tables."""
LONG_PROSE = 600
"""Characters after the first table from which they are folded."""
MADE = re.compile(r"(?m)^Made by `[^\n]*\n?\Z")


def has_table(text: str) -> bool:
    """Whether there is a table of MyST or HTML."""
    return re.search(r"(?m)^\|[ :]*-", text) is not None or "<table" in text


def dropdown(section: str) -> str:
    """A section as a closed dropdown; headings below it become bold lines."""
    title, _, body = section.partition("\n")
    body = re.sub(r"(?m)^#{3,6} +(.*)$", r"**\1**", body)
    return f"::::::{{dropdown}} {title.removeprefix('## ').strip()}\n{body.strip()}\n::::::\n"


def with_verdict_first(text: str, name: str) -> str:
    """The verdict that was stored with the numbers moved to the second line."""
    stored = Path(__file__).parents[1] / "benchmarks" / f"{name}.json"
    facts = json.loads(stored.read_text(encoding="utf-8")).get("facts", {}) if stored.exists() else {}
    verdict = facts.get("verdict") if isinstance(facts, dict) else None
    if not isinstance(verdict, str) or verdict not in text or "**Verdict" in text:
        return text
    question, _, rest = text.lstrip().partition("\n\n")
    return f"\n{question}\n\n**Verdict.** {verdict}\n\n{rest.replace(verdict, '').strip()}\n"


def shortened(text: str) -> tuple[str, list[str]]:
    """What stands before the first section, up to its figure and table, and the rest as a section of its own."""
    blocks = re.split(r"\n{2,}", text.strip())
    shown = [i for i, block in enumerate(blocks) if block.startswith("![") or has_table(block)]
    lists = [i for i, block in enumerate(blocks) if block.startswith("- ")]
    n_kept = max(shown) + 1 if shown else min([3, *lists])
    kept, rest = "\n\n".join(blocks[:n_kept]), "\n\n".join(blocks[n_kept:])
    if not rest or kept.count("```") % 2 or kept.count("$$") % 2:
        return text, []
    return f"\n{kept}\n", [f"## What is compared, and how\n\n{rest}\n"]


def split_after_table(section: str) -> tuple[str, list[str]]:
    """A section up to its first table, and long prose after it as a section of its own."""
    blocks = re.split(r"\n{2,}", section.strip())
    at = next(i for i, block in enumerate(blocks) if has_table(block))
    kept, rest = "\n\n".join(blocks[: at + 1]), "\n\n".join(blocks[at + 1 :])
    if len(rest) < LONG_PROSE or ":::" in rest or kept.count("```") % 2 or kept.count("$$") % 2:
        return section, []
    return f"{kept}\n", [f"## Notes on the table\n\n{rest}\n"]


def fold(text: str, name: str) -> str:
    """The page in the order of its readers."""
    made = MADE.search(text.rstrip() + "\n")
    foot = made.group().strip() if made else ""
    text = MADE.sub("", text.rstrip() + "\n")
    head, *sections = re.split(r"(?m)^(?=## )", text)
    title, _, rest = head.partition("\n")
    if name in QUESTIONS and "**Question" not in rest:
        verdict = f"\n**Verdict.** {VERDICTS[name]}\n" if name in VERDICTS else ""
        rest = f"\n**Question.** {QUESTIONS[name]}\n{verdict}{rest}"
    rest, details = shortened(with_verdict_first(rest, name))
    first = None if has_table(rest) else next((part for part in sections if has_table(part)), None)
    shown, notes = ("", []) if first is None else split_after_table(first)
    parts = [f"{title}\n{rest.rstrip()}\n", shown]
    parts += [dropdown(part) for part in [*notes, *details, *sections] if part is not first]
    return "\n".join([*parts, foot]) + "\n"


def on_read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Fold the benchmark pages."""
    folder, _, name = docname.rpartition("/")
    if folder == "benchmarks" and name != "index":
        source[0] = fold(source[0], name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before each page is read."""
    app.connect("source-read", on_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
