"""What the documentation makes of the package and of stored results: gallery, links of API pages, folded benchmarks."""

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import scellm
from scellm._cli import _parser

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "_ext"))
import fold
import gallery
import order
from api_pages import SEE

DOCS = Path(__file__).parents[1] / "docs"

PAGE = """# Title

About it.

Second paragraph.

![picture](a.png)

- how it was done

## Prose

Words.

### Deeper

More.

## Numbers

| a | b |
| --- | --- |
| 1 | 2 |

## More numbers

| c |
| --- |
| 3 |

Made by `python tests/benchmarks/x.py` on: a machine.
"""


def test_every_figure_of_pl_is_in_the_gallery_with_a_picture():
    figures = gallery.figures()
    drawn = {f"scellm.pl.{name}" for name in scellm.pl.__all__}
    assert drawn == set(gallery.figures_of()), "draw them in docs/gallery/figures.py and run it"
    for name, (line, _) in figures.items():
        assert line.endswith((".", "?")), name
        assert (DOCS / "_static" / "gallery" / f"{name}.png").stat().st_size < 300_000


@pytest.mark.parametrize("name", SEE)
def test_pages_that_api_pages_link_exist(name):
    module, _, function = name.rpartition(".")
    assert function in getattr(scellm, module.split(".")[1]).__all__
    for page in SEE[name]:
        source = DOCS.parent if page.startswith("tutorials/") else DOCS
        assert any((source / f"{page}{ending}").is_file() for ending in (".md", ".ipynb")), page


def blocks(page, language="python"):
    """Code of a page."""
    return re.findall(
        rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL
    )


def test_all_commands_are_on_their_page():
    page = (DOCS / "howto" / "command-line.md").read_text(encoding="utf-8")
    listed = re.search(r"All commands: (.*?)\.\n", page, re.DOTALL).group(1)
    commands = next(action for action in _parser()._actions if hasattr(action, "choices") and action.choices)
    assert sorted(re.findall("`(.*?)`", listed)) == sorted(commands.choices)


def test_the_recipe_for_batches_runs():
    pytest.importorskip("harmonypy", reason="needs harmonypy (extra harmony)")
    adata = scellm.datasets.toy_cells(60, n_vars=1950)
    adata.obs["batch"] = ["a", "b"] * 30
    (code,) = blocks("howto/batches")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of harmonypy and umap
        exec(code, {"adata": adata})
    assert adata.obsm["X_scellm_harmony"].shape == adata.obsm["X_scellm"].shape
    assert not np.allclose(adata.obsm["X_scellm_harmony"], adata.obsm["X_scellm"])
    assert "neighbors" in adata.uns


def test_every_tutorial_has_a_card_and_a_place():
    page = (DOCS / "tutorials.md").read_text(encoding="utf-8")
    for path in (DOCS.parent / "tutorials").glob("*.ipynb"):
        assert f":link: tutorials/{path.stem}\n" in page
        assert f"\ntutorials/{path.stem}\n" in page
    for image in re.findall(r":img-top: (\S+)", page):
        assert (DOCS / image).is_file(), image


def test_tutorials_are_spread_over_the_pages():
    tutorials = [f"tutorials/{path.stem}" for path in (DOCS.parent / "tutorials").glob("*.ipynb")]
    others = [f"api/{i:03d}" for i in range(200)]
    found = order.spread(sorted([*others, *tutorials]))
    places = sorted(found.index(name) for name in tutorials)
    assert found[0] == order.SLOWEST
    assert min(np.diff(places)) > 200 // len(tutorials)
    assert [name for name in found if name in others] == others
    assert sorted(found) == sorted([*others, *tutorials])
    assert order.spread(others) == others


def test_every_tool_and_figure_has_links():
    names = {f"scellm.{part}.{name}" for part in ("tl", "pl", "pp") for name in getattr(scellm, part).__all__}
    assert not names - set(SEE), "give them links in SEE of docs/_ext/api_pages.py"


def test_a_benchmark_page_begins_with_question_figure_and_first_table():
    page = fold.fold(PAGE, "embedding")
    wanted = [
        "# Title",
        "**Question.**",
        "![picture]",
        "## Numbers",
        "{dropdown} What is compared",
        "{dropdown} Prose",
    ]
    places = [page.index(text) for text in [*wanted, "{dropdown} More numbers", "Made by"]]
    assert places == sorted(places)
    assert "**Deeper**" in page
    assert "### Deeper" not in page
    assert page.count("::::::") == 6


def test_long_prose_after_the_first_table_is_folded_and_short_prose_is_not():
    long = PAGE.replace("| 1 | 2 |\n", "| 1 | 2 |\n\n" + "Some words. " * 80 + "\n")
    page = fold.fold(long, "embedding")
    assert page.index("| 1 | 2 |") < page.index("{dropdown} Notes on the table") < page.index("Some words.")
    short = PAGE.replace("| 1 | 2 |\n", "| 1 | 2 |\n\nSome words.\n")
    assert "Notes on the table" not in fold.fold(short, "embedding")


@pytest.mark.parametrize("path", sorted((DOCS / "benchmarks").glob("*.md")), ids=lambda path: path.stem)
def test_nothing_of_a_benchmark_page_is_lost(path):
    text = path.read_text(encoding="utf-8")
    folded = fold.fold(text, path.stem)
    for line in text.splitlines():
        if line.startswith("|") or line.startswith("!["):
            assert line in folded


def test_every_benchmark_has_a_question():
    pages = {path.stem for path in (DOCS / "benchmarks").glob("*.md")} - {"index"}
    unasked = {
        page
        for page in pages - set(fold.QUESTIONS)
        if "**Question" not in (DOCS / "benchmarks" / f"{page}.md").read_text("utf-8")
    }
    assert not unasked, "give them a question in docs/_ext/fold.py"
