"""Sentences of what a reader meets first are short: under 5 % have more than 30 words."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONG, SHARE = 30, 0.05
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("index", "install", "faq", "coming-from", "tutorials")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    *sorted((ROOT / "tutorials").glob("*.ipynb")),
]


def prose(text: str) -> list[str]:
    """Paragraphs and list items of MyST, without code, tables, headings, options and directives."""
    text = re.sub(r"(?ms)^(`{3,}|~{3,}).*?^\1`*\s*$", "", text)
    text = re.sub(r"(?s)<!--.*?-->", "", text)
    text = re.sub(r"\{\w+\}`([^`<]*)(<[^`]*>)?`", r"\1", text)  # roles
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)  # links
    text = re.sub(r"`[^`]*`", "code", text)
    lines = [
        ""
        if re.match(r"\s*(\||#|:|\(\w[\w-]*\)=|\+\+\+)", line)
        else re.sub(r"^\s*([-*]|\d+\.|>) ", "\n\n", line)
        for line in text.splitlines()
    ]
    return [part for part in re.split(r"\n\s*\n", "\n".join(lines)) if part.strip()]


def sentences(text: str) -> list[str]:
    """Sentences of all paragraphs; a colon before a list or at the end of a line ends one as well."""
    found = []
    for paragraph in prose(text):
        joined = re.sub(r"[*_]", "", " ".join(paragraph.split()))
        found += re.split(r"(?<=[.!?:;])\s+(?=[A-Z0-9\"(*])", joined)
    return [sentence for sentence in found if re.search(r"[a-z]", sentence)]


def text_of(path: Path) -> str:
    """The words of a page or of the text cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def long_sentences(text: str) -> list[str]:
    """Those of more than `LONG` words."""
    return [sentence for sentence in sentences(text) if len(sentence.split()) > LONG]


def test_sentences_are_short():
    texts = {path.name: text_of(path) for path in PAGES}
    long = [f"{name}: {sentence}" for name, text in texts.items() for sentence in long_sentences(text)]
    total = sum(len(sentences(text)) for text in texts.values())
    assert total > 300
    assert len(long) / total < SHARE, f"{len(long)} of {total}:\n" + "\n".join(long)


@pytest.mark.parametrize(
    ("text", "n_sentences", "n_long"),
    [
        ("Cells are read. Nothing else\nhappens.", 2, 0),
        (" ".join(["word"] * 31) + ".", 1, 1),
        (f"```python\n{'word ' * 40}\n```\n\n| {'word ' * 40} |\n\nShort.", 1, 0),
        (f"- one {'word ' * 20}\n- two {'word ' * 20}", 2, 0),
    ],
    ids=["two", "long", "code and tables do not count", "items are sentences"],
)
def test_control_what_counts_as_a_sentence(text, n_sentences, n_long):
    assert len(sentences(text)) == n_sentences
    assert len(long_sentences(text)) == n_long
