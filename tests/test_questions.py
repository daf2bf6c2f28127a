"""Ten questions that new users ask: each is answered at most two clicks from the front page.

A click is a link in the text of a page; what stands in the sidebar, and search, are not counted.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
if not DOCS.is_dir():
    pytest.skip("docs/ is not here; pages are checked in a checkout", allow_module_level=True)
MOST_CLICKS = 2
QUESTIONS = {
    "How do I label my own 10x sample?": ("tutorials/cell_types", "Your own sample comes from Cell Ranger"),
    "Which labels do I trust?": ("howto/trust", "## An example"),
    "What does the confidence mean?": ("faq", "### What does the confidence mean?"),
    "What are unassigned and novel cells?": (
        "faq",
        '### What is the difference between "unassigned" and "novel"?',
    ),
    "Counts or log values?": ("faq", "### Counts or log-normalized values?"),
    "What about batches?": ("faq", "### Several batches or donors?"),
    "Mouse, nuclei, panels, spatial?": ("faq", "### Gene panels (Xenium, CosMx, MERSCOPE, targeted)?"),
    "How do I use labels of my own?": ("tutorials/annotate", "fit_reference(reference,"),
    "How do I run a hundred samples on a cluster?": ("howto/cluster", "#SBATCH --array"),
    "How far do I trust predicted drug response?": ("guide/drug_response", "## What it is not"),
}
"""Page and words of each answer."""


def source(page, root=DOCS):
    """The file of a page."""
    folder = root.parent if page.startswith("tutorials/") else root
    return next(
        (path for ending in (".md", ".ipynb") if (path := folder / f"{page}{ending}").is_file()), None
    )


def links(page, root=DOCS):
    """Pages that the text of a page links to."""
    path = source(page, root)
    if path is None:
        return set()
    text = path.read_text(encoding="utf-8")
    for included in re.findall(r"```\{include\} (\S+)", text):
        more = (path.parent / included).read_text(encoding="utf-8")
        text += more.split("<!-- docs: the README ends here -->")[0].replace("](docs/", "](")
    text = re.sub(r"```\{toctree\}.*?```", "", text, flags=re.DOTALL) + "".join(
        re.findall(r"```\{toctree\}(?!\n:hidden:).*?```", text, flags=re.DOTALL)
    )
    found = re.findall(r"\{doc\}`(?:[^`<]*<)?([\w./-]+)>?`", text)
    found += re.findall(r"\]\(([\w./-]+)\.(?:md|ipynb)[#\w-]*\)", text)
    found += re.findall(r":link: (\S+)", text)
    found += [
        one for one in re.findall(r"(?m)^([\w-]+(?:/[\w-]+)*)$", text) if source_beside(one, page, root)
    ]
    here = Path(page).parent
    return {resolved(one, here, root) for one in found}


def source_beside(name, page, root):
    return source((Path(page).parent / name).as_posix(), root) is not None


def resolved(link, here, root):
    """The name of a page from a link, which is relative to a page or to the root."""
    parts = []
    for part in (here / link).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    beside = "/".join(parts)
    return beside if source(beside, root) else link.lstrip("./")


def clicks(wanted, root=DOCS):
    """Fewest clicks from the front page; one more than allowed if there is no such way."""
    reached, at = {"index"}, {"index"}
    for n in range(1, MOST_CLICKS + 1):
        at = {one for page in at for one in links(page, root)} - reached
        if wanted in at:
            return n
        reached |= at
    return MOST_CLICKS + 1


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_two_clicks_away(question):
    page, words = QUESTIONS[question]
    assert words in source(page).read_text(encoding="utf-8")
    assert clicks(page) <= MOST_CLICKS


def test_control_pages_without_links_are_far(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[a](a.md)\n```{toctree}\n:hidden:\nd\n```\n")
    (docs / "a.md").write_text("{doc}`b`")
    (docs / "b.md").write_text("{doc}`c <c>`")
    for name in "cd":
        (docs / f"{name}.md").write_text("Far.")
    assert [clicks(name, docs) for name in "abcd"] == [1, 2, 3, 3]
