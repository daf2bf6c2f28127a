"""The page: whole, safe, the same from memory and files, and honest about what is not there."""

import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scellm
from scellm._cli import main
from scellm._report._html import Section, number_text, percent, sentence, table, tag, text
from scellm._report._others import PAPERS
from scellm._report._style import STYLE

SECTIONS = ("summary", "input", "provenance", "labels", "malignancy", "drugs", "search", "methods")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "B & T <b>cell</b> 'x'",
    "</style></table><iframe src=//evil>",
    "`code` &amp; &#60;",
)


VOID = {"img", "meta", "br"}
OUTSIDE = ("src", "href", "action", "data", "poster", "srcset", "style", "background")


class Page(HTMLParser):
    """Elements in order, each with its attributes and the names of those it is in."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.faults, self.words = [], [], [], []
        self.feed(text)
        self.close()
        if self.open:
            self.faults.append(f"never closed: {self.open}")

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes), tuple(self.open)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        if not self.open or self.open[-1] != name:
            self.faults.append(f"</{name}> inside {self.open[-3:]}")
        else:
            self.open.pop()

    def handle_data(self, text):
        if "style" not in self.open:
            self.words.append(text)

    def all(self, name):
        return [attributes for found, attributes, _ in self.elements if found == name]

    @property
    def text(self):
        return "".join(self.words)


def faults(text):
    """What a page lacks: structure, names of images and tables, independence of anything outside."""
    page = Page(text)
    found = list(page.faults)
    if [a.get("lang") for a in page.all("html")] != ["en"]:
        found.append("no language")
    if len(page.all("title")) != 1 or len(page.all("main")) != 1:
        found.append("needs one title and one main")
    levels = [
        int(name[1]) for name, *_ in page.elements if len(name) == 2 and name[0] == "h" and name[1].isdigit()
    ]
    if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in pairwise(levels)):
        found.append(f"levels of headings: {levels}")
    found += ["image without text" for a in page.all("img") if not (a.get("alt") or "").strip()]
    for name, attributes, inside in page.elements:
        if name in ("script", "iframe", "object", "embed", "form", "base") or any(
            key.startswith("on") for key in attributes
        ):
            found.append(f"active: {name} {attributes}")
        if name == "table" and "div" not in inside:
            found.append("table that can widen the page")
        if name == "th" and attributes.get("scope") not in ("col", "row"):
            found.append("header without scope")
        for key in OUTSIDE:
            value = attributes.get(key) or ""
            if value and not value.startswith(("#", "data:image/")):
                found.append(f"points outside: {key}={value[:60]}")
    if len(page.all("caption")) != len(page.all("table")):
        found.append("table without caption")
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    if len(ids) != len(set(ids)):
        found.append("the same id twice")
    found += [f"dead link {a['href']}" for a in page.all("a") if a["href"][1:] not in ids]
    return found


def rename_types(adata, names):
    """The same results with other names of types."""
    old = list(adata.obs["scellm_cell_type"].cat.categories)
    new = dict(zip(old, names, strict=False))
    adata.obs["scellm_cell_type"] = adata.obs["scellm_cell_type"].cat.rename_categories(new)
    adata.uns["scellm_cell_type"]["classes"] = np.array(
        [new.get(name, name) for name in adata.uns["scellm_cell_type"]["classes"]], dtype=object
    )
    return adata


def chromium(*arguments):
    """What Chromium prints."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def section(page, name):
    """The text of one section."""
    return Page(re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0]).text


def test_page_is_whole(page):
    assert faults(page) == []
    assert [a["id"] for a in Page(page).all("section")] == list(SECTIONS)


def test_figures_are_inside_with_words(page):
    images = Page(page).all("img")
    assert len(images) >= 6
    assert all(a["src"].startswith("data:image/") and len(a["alt"]) > 30 for a in images)
    assert "No figure" not in section(page, "malignancy").replace("No figure: Copy number was not read", "")


def test_says_what_was_found(page, cells):
    labels = section(page, "labels")
    for name, n in cells.obs["scellm_cell_type"].value_counts().items():
        assert re.search(rf"{re.escape(name)}{n}", labels.replace("\n", "")), name
    assert cells.uns["scellm_cell_type"]["summary"] in labels
    assert "donor0" in labels  # by sample
    for verdict in cells.uns["scellm_malignant"]["samples"]["verdict"]:
        assert verdict in section(page, "malignancy")
    assert "Erlotinib" in section(page, "drugs")
    assert scellm.models.load("scellm-small").sha256 in section(page, "provenance")


def test_calls_can_be_typed_again(page, cells):
    found = section(page, "provenance")
    assert "scellm.tl.malignancy(adata, sample_key='donor')" in found
    assert "scellm.tl.drug_response(adata, drugs=['Erlotinib', 'Dabrafenib'])" in found
    assert "scellm.tl.annotate(adata, reference=<AnnData of 120 cells>, labels='cell_type')" in found
    again = cells.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eval(cells.uns["rank_drugs"]["call"], {"scellm": scellm, "adata": again})
    np.testing.assert_array_equal(again.uns["rank_drugs"]["effect"], cells.uns["rank_drugs"]["effect"])


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_same_page_from_a_file(cells, page, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    getattr(cells, f"write_{suffix}")(path)
    other = scellm.report(path, tmp_path / "other.html").read_text(encoding="utf-8")
    assert faults(other) == []
    for name in SECTIONS[2:]:
        assert comparable(section(other, name)) == comparable(section(page, name)), name


def comparable(words):
    """Text without what differs between two runs: date, hash of the file."""
    return re.sub(r"Date.*?UTC|File sha256[0-9a-f]+", "", words)


def test_adata_is_left_as_it_is(cells, tmp_path):
    cells.uns.pop("scellm_cell_type_colors", None)
    before = cells.copy()
    scellm.report(cells, tmp_path / "report.html")
    assert set(cells.uns) == set(before.uns)
    assert cells.obs.equals(before.obs)
    assert list(cells.obsm) == list(before.obsm)


@pytest.mark.parametrize(
    "kept",
    [(), ("X_scellm",), ("scellm_cell_type",), ("scellm_malignant", "rank_drugs"), ("drug_response",)],
    ids="+".join,
)
def test_any_combination(cells, tmp_path, kept):
    for key in set(cells.uns) - set(kept):
        del cells.uns[key]
    page = scellm.report(cells, tmp_path / "report.html", figures=False).read_text(encoding="utf-8")
    assert faults(page) == []
    absent = {
        "labels": ("scellm_cell_type", "scellm.tl.annotate(adata)"),
        "malignancy": ("scellm_malignant", "scellm.tl.malignancy(adata"),
        "search": ("scellm_search", "scellm.tl.search(adata"),
    }
    for name, (key, line) in absent.items():
        assert (line in section(page, name)) == (key not in kept), name
    assert ("scellm.tl.drug_response(adata)" in section(page, "drugs")) == (
        not {"drug_response", "rank_drugs"} & set(kept)
    )


def test_own_keys_are_found(done, tmp_path):
    adata = scellm.datasets.toy_cells(30, n_vars=1950)
    scellm.tl.embed(adata, key_added="mine")
    page = scellm.report(adata, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "scellm.tl.embed(adata, key_added='mine')" in section(page, "provenance")


@pytest.mark.filterwarnings("ignore:30 of 30 cells are in the index")
def test_results_of_search(done, tmp_path):
    pytest.importorskip("faiss", reason="needs faiss (extra search)")
    adata = scellm.datasets.toy_cells(30, n_vars=1950)
    others = scellm.datasets.toy_cells(30, n_vars=1950, rng=1)
    scellm.tl.index(others, tmp_path / "index", columns="cell_type", show_progress=False)
    scellm.tl.search(adata, tmp_path / "index", k=3)
    found = section(scellm.report(adata, tmp_path / "r.html").read_text(encoding="utf-8"), "search")
    assert "30 cells among 30" in found
    assert "agreement" in found
    assert "in the index themselves" not in found
    with pytest.warns(UserWarning, match="in the index themselves"):
        scellm.tl.search(others, tmp_path / "index", k=3)
    page = scellm.report(others, tmp_path / "s.html").read_text(encoding="utf-8")
    assert "30 of 30 cells are in the index themselves" in section(page, "search")


def test_a_single_sample_is_named(cells, tmp_path):
    for key in ("scellm_malignant", "rank_drugs"):
        del cells.uns[key]
    cells.obs["patient"] = "P7"
    page = scellm.report(cells, tmp_path / "a.html", figures=False).read_text(encoding="utf-8")
    assert "2 in obs['donor']" in section(page, "input")  # several are found before one
    del cells.obs["donor"]
    page = scellm.report(cells, tmp_path / "b.html", figures=False).read_text(encoding="utf-8")
    assert "1 in obs['patient']" in section(page, "input")
    labels = section(page, "labels")
    assert "By sample" in labels
    assert "no column of samples" not in labels


# -- hostile words ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*[Gg]lyph")
def test_hostile_names_stay_text(cells, tmp_path):
    rename_types(cells, HOSTILE)
    cells.obs["donor"] = np.resize(HOSTILE[:2], cells.n_obs)
    cells.uns["scellm_cell_type"]["summary"] = HOSTILE[3]
    cells.uns["scellm_cell_type"]["call"] = HOSTILE[0]
    cells.uns["X_scellm"]["model"] = HOSTILE[1]
    cells.uns["drug_response"]["drugs"] = np.array(HOSTILE[:2])
    cells.uns[HOSTILE[1]] = cells.uns.pop("rank_drugs")
    page = scellm.report(cells, tmp_path / "report.html", title=HOSTILE[0], sample_key="donor").read_text(
        encoding="utf-8"
    )
    assert faults(page) == []
    assert Page(page).text.count(HOSTILE[0]) >= 3  # shown as it is
    for words in HOSTILE[:4]:
        assert words not in page


def test_control_unsafe_pages_are_found(page):
    for bad in (
        "<script>1</script>",
        '<img src="https://a.b/c.png" alt="x">',
        "<table></table>",
        "<p>",
        '<p onclick="x">a</p>',
    ):
        assert faults(page.replace("</main>", f"{bad}</main>")) != [], bad
    assert faults(page.replace("<h3>", "<h4>").replace("</h3>", "</h4>")) != []
    assert faults(page.replace(' alt="', ' data-x="')) != []


def test_escaping():
    assert text("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"
    assert text("a\x00b\x1b\ud800c") == "a\ufffdb\ufffd\ufffdc"
    assert tag("a", "<", href='"#') == '<a href="&quot;#">&lt;</a>'
    assert sentence("type `a<b` here") == "<p>type <code>a&lt;b</code> here</p>"
    assert sentence("one ` only") == "<p>one ` only</p>"
    assert text(text("<")) == "&lt;"  # once


def test_numbers_and_tables():
    assert [number_text(x) for x in (1234, 0.123, 0.00012, float("nan"), None, True, 1234.5)] == [
        "1,234",
        "0.12",
        "0.0001",
        "–",
        "–",
        "yes",
        "1,234",
    ]
    assert [percent(x) for x in (0, 0.001, 0.5, float("nan"))] == [
        "0 %",
        "&lt; 1 %".replace("&lt;", "<"),
        "50 %",
        "–",
    ]
    shown = table(pd.DataFrame({"a": range(70), "b": ["x"] * 70}), "Rows.")
    assert shown.count("<tr>") == 61
    assert "The first 60 of 70 rows." in shown
    assert Section("x", "<").html.startswith('<section id="x" aria-label="&lt;"><h2>&lt;</h2>')


# -- warnings in plain words --------------------------------------------------------------------------------------


def test_doubts_stand_first(cells, tmp_path):
    record = cells.uns["scellm_cell_type"]
    record |= {"fits": False, "doubts": "no tissue has such a mix", "mode": "pretrained"}
    cells.obsm["X_scellm"][0] += 1
    cells.uns["drug_response"]["scellm_version"] = "0.0.1"
    page = scellm.report(cells, tmp_path / "r.html", figures=False).read_text(encoding="utf-8")
    first = section(page, "summary")
    for words in (
        "do not fit the shipped reference: no tissue has such a mix",
        "is not the embedding that its record describes",
        "several versions of scellm",
    ):
        assert words in first
    assert "Read this first" in first


def test_control_no_doubts_without_reason(done, tmp_path):
    adata = scellm.datasets.toy_cells(30, n_vars=19315)
    scellm.tl.embed(adata)
    page = scellm.report(adata, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Read this first" not in page
    assert "unchanged since" in section(page, "provenance")


@pytest.mark.parametrize(
    "key", ["scellm_cell_type", "scellm_malignant", "drug_response", "rank_drugs", "X_scellm"]
)
def test_damaged_records_cost_a_section_at_most(cells, tmp_path, key, monkeypatch):
    monkeypatch.setattr(
        "scellm._report._report.input_section", lambda *_: Section("input", "Input check")
    )  # reads no record
    record = cells.uns[key]
    for name in list(record):
        cells.uns[key] = {**record, name: np.array([[1.0, 2.0]])}
        page = scellm.report(cells, tmp_path / "r.html", figures=False).read_text(encoding="utf-8")
        assert faults(page) == [], name
        assert [a["id"] for a in Page(page).all("section")] == list(SECTIONS), name


def test_cells_that_were_left_out(cells, tmp_path):
    page = scellm.report(cells[:20], tmp_path / "r.html").read_text(encoding="utf-8")
    assert faults(page) == []
    assert "20 cells" in page
    assert "is not the embedding that its record describes" in page
    joined = ad.concat([cells[:20], cells[20:]])  # drops uns
    assert "holds no results of scellm" in scellm.report(joined, tmp_path / "r.html").read_text(
        encoding="utf-8"
    )


# -- where it is written ------------------------------------------------------------------------------------------


def test_only_reports_are_replaced(cells, tmp_path):
    target = tmp_path / "r.html"
    assert scellm.report(cells, target, figures=False) == target
    scellm.report(cells, target, figures=False)
    other = tmp_path / "thesis.html"
    other.write_text("<html>mine</html>")
    with pytest.raises(ValueError, match="is no report of scellm, so it is not replaced"):
        scellm.report(cells, other)
    assert other.read_text() == "<html>mine</html>"
    with pytest.raises(ValueError, match=r"is a folder. Name a file in it: .*report.html"):
        scellm.report(cells, tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        scellm.report(cells, tmp_path / "nowhere" / "r.html")
    with pytest.raises(KeyError, match="'nobody' is not in `adata.obs`"):
        scellm.report(cells, target, sample_key="nobody")
    with pytest.raises(TypeError, match="Need an AnnData object, found int"):
        scellm.report(3, target)


def test_command_line(cells, tmp_path, capsys):
    cells.write_h5ad(tmp_path / "a.h5ad")
    cells[:30].copy().write_h5ad(tmp_path / "b.h5ad")
    assert (
        main(
            [
                "report",
                str(tmp_path / "a.h5ad"),
                "-o",
                str(tmp_path / "a.html"),
                "--title",
                "Mine",
                "--no-figures",
            ]
        )
        == 0
    )
    assert "<h1>Mine</h1>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert main(["report", str(tmp_path / "*.h5ad"), "-o", str(tmp_path / "out"), "--no-figures"]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.html")} == {"a.html", "b.html"}
    assert "b.h5ad -> " in capsys.readouterr().out
    assert main(["report", str(tmp_path / "a.h5ad"), "-o", str(tmp_path / "a.html")]) == 1
    assert "--overwrite" in capsys.readouterr().err


# -- how it looks -------------------------------------------------------------------------------------------------


def luminance(colour):
    """Relative luminance of WCAG."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", STYLE.split("@media (prefers-color-scheme")[0]))
    if scheme:
        dark = STYLE.split("@media (prefers-color-scheme: dark)")[1].split("} }")[0]
        colours |= dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark))
    for ink in ("ink", "soft", "link"):
        for paper in ("paper", "shade", "warn"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast("#777777", "#808080") < 4.5  # the formula can say no


@pytest.fixture(scope="module")
def browser():
    if shutil.which("chromium") is None:
        pytest.skip("needs Chromium (chromium)")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_sideways_scroll(browser, page, tmp_path, width):
    assert sideways(page, tmp_path, width) <= width


def test_control_wide_content_is_found(browser, page, tmp_path):
    assert sideways(page.replace("</main>", '<p style="width:900px">x</p></main>'), tmp_path, 390) > 390


def sideways(page, folder, width):
    """Width that the page wants in a window of this width, as Chromium lays it out."""
    script = "<script>addEventListener('load', () => parent.postMessage(document.documentElement.scrollWidth, '*'))</script>"
    inner = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace(
        "</body>", f"{script}</body>"
    )
    (folder / "inner.html").write_text(inner, encoding="utf-8")
    outer = f"<body style='margin:0'><iframe src='inner.html' style='border:0;width:{width}px;height:800px'></iframe><p id=found></p>"
    outer += "<script>addEventListener('message', e => { document.getElementById('found').textContent = 'width ' + e.data })</script>"
    (folder / "outer.html").write_text(outer, encoding="utf-8")
    said = chromium("--virtual-time-budget=10000", "--dump-dom", f"file://{folder}/outer.html")
    return int(re.search(r"width (\d+)", said)[1])


def test_prints(browser, page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    chromium(
        "--no-pdf-header-footer", f"--print-to-pdf={tmp_path}/report.pdf", f"file://{tmp_path}/page.html"
    )
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 40


def test_browser_shows_it_and_nothing_runs(browser, page, tmp_path):
    bad = page.replace(
        "</main>", "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"></main>"
    )
    (tmp_path / "bad.html").write_text(bad, encoding="utf-8")
    shown = chromium("--virtual-time-budget=3000", "--dump-dom", f"file://{tmp_path}/bad.html")
    assert "<title>ran" not in shown  # the policy of the page forbids scripts
    assert "At a glance" in shown


def test_references_are_those_of_the_documentation():
    path = Path(__file__).parents[2] / "docs" / "references.bib"
    if not path.exists():
        pytest.skip("docs/ is not here; references are checked in a checkout")
    entries = dict(re.findall(r"@\w+\{(\w+),(.*?)\n\}", path.read_text(encoding="utf-8"), re.DOTALL))
    for key, cited in PAPERS.items():
        title = re.sub(r"[{}]", "", re.search(r"title\s*=\s*\{(.*)\},?\n", entries[key])[1])
        assert title.lower() in cited.lower(), key
        assert re.search(r"year\s*=\s*\{(\d+)\}", entries[key])[1] in cited
        doi = re.search(r"doi\s*=\s*\{(.*?)\}", entries[key])
        if doi and "arXiv" not in doi[1]:
            assert doi[1] in cited


# -- the opening weighs doubts ------------------------------------------------------------------------------------


def opening_of(cells, folder):
    page = scellm.report(cells, folder / "r.html", figures=False).read_text(encoding="utf-8")
    assert faults(page) == []
    return Page(re.search(r'<p class="opening">.*?</p>', page)[0]).text


def sure(cells):
    """The same cells with sure labels, all genes, and nothing else."""
    for key in set(cells.uns) - {"scellm_cell_type"}:
        del cells.uns[key]
    cells.obs["scellm_cell_type_confidence"] = 0.95
    cells.obs["scellm_cell_type"] = (
        cells.obs["scellm_cell_type"].astype(str).replace({"novel": "B cell", "unassigned": "B cell"})
    )
    cells.uns["scellm_cell_type"] |= {"novelty_shift": 1.0, "fits": True}
    return cells


@pytest.fixture
def all_genes(monkeypatch):
    monkeypatch.setattr("scellm._report._input.FEW_GENES", 5.0)


def test_opening_without_doubt_says_what_is_wrong_all_the_same(cells, tmp_path, all_genes):
    said = opening_of(sure(cells), tmp_path)
    assert said.startswith(
        "No check of this page found a reason for doubt. It looked at how many known genes"
    )
    assert "about 5 of 100 names are wrong all the same" in said


@pytest.mark.parametrize(
    ("change", "start", "doubt"),
    [
        ({"confidence": 0.6}, "These results are doubtful: ", "about 40 of 100 names are wrong by their own"),
        (
            {"confidence": 0.8},
            "Use these results with care: ",
            "about 20 of 100 names are wrong by their own",
        ),
        ({"unassigned": 0.5}, "These results are doubtful: ", "50 % of the cells got no type"),
        (
            {"novel": 0.2},
            "Use these results with care: ",
            "20 % of the cells are like nothing in the reference",
        ),
        ({"fits": False}, "These results are doubtful: ", "the cells do not fit the reference"),
        ({"genes": 80.0}, "Use these results with care: ", "% of the genes that the model knows"),
    ],
    ids=lambda x: "+".join(x) if isinstance(x, dict) else "",
)
def test_opening_weighs_doubts(cells, tmp_path, all_genes, monkeypatch, change, start, doubt):
    sure(cells)
    if "confidence" in change:
        cells.obs["scellm_cell_type_confidence"] = change["confidence"]
    for name in ("unassigned", "novel"):
        n = round(change.get(name, 0) * cells.n_obs)
        cells.obs.iloc[:n, cells.obs.columns.get_loc("scellm_cell_type")] = name
    cells.uns["scellm_cell_type"] |= {"fits": change.get("fits", True), "doubts": "no tissue has such a mix"}
    if "genes" in change:
        monkeypatch.setattr("scellm._report._input.FEW_GENES", change["genes"])
    said = opening_of(cells, tmp_path)
    assert said.startswith(start), said
    assert doubt in said


def test_opening_says_that_cells_lie_outside_of_the_drug_model(cells, tmp_path, all_genes):
    drugs = {"drug_response": cells.uns["drug_response"]}
    cells = sure(cells)
    cells.uns |= drugs
    for outside, start in ((0.2, "Use these results with care: "), (0.8, "These results are doubtful: ")):
        values = np.zeros(cells.n_obs)
        values[: round(outside * cells.n_obs)] = 2.0
        cells.obs["drug_response_applicability"] = values
        said = opening_of(cells, tmp_path)
        assert said.startswith(start)
        assert f"{100 * outside:.0f} % of the cells are unlike what the drug model has seen" in said


def test_several_columns_of_labels_are_told_apart(cells, tmp_path, all_genes):
    sure(cells)
    for name in ("", "_confidence"):
        cells.obs[f"other{name}"] = cells.obs[f"scellm_cell_type{name}"]
    cells.uns["other"] = cells.uns["scellm_cell_type"]
    cells.obs["other_confidence"] = 0.8
    page = scellm.report(cells, tmp_path / "r.html", figures=False).read_text(encoding="utf-8")
    assert "Labels 'other': By their own confidence, about 20 of 100" in section(page, "labels")
    assert opening_of(cells, tmp_path).startswith("No check")  # of the labels that a reader looks at first
    cells.obs["other_confidence"] = 0.5
    assert "about 50 of 100 names are wrong by their own confidence ('other')" in opening_of(cells, tmp_path)


# -- types --------------------------------------------------------------------------------------------------------


def with_left_out(monkeypatch, recall, precision):
    """`get.annotation` with the columns of studies left out."""
    plain = scellm.get.annotation

    def annotation(adata, **options):
        found = plain(adata, **options)
        found["recall_left_out"] = found["label"].map(recall)
        found["precision_left_out"] = found["label"].map(precision)
        return found

    monkeypatch.setattr("scellm.get.annotation", annotation)


def test_names_that_were_wrong_in_other_studies_are_said(cells, tmp_path, monkeypatch, all_genes):
    sure(cells)
    kinds = ["B cell"] * 30 + ["T cell"] * 20 + ["NK cell"] * 9 + ["platelet"]
    cells.obs["scellm_cell_type"] = pd.Categorical(kinds)
    with_left_out(
        monkeypatch,
        {"B cell": 0.9, "T cell": 0.7, "platelet": 0.2},
        {"B cell": 0.8, "T cell": 0.31, "platelet": 0.1},
    )
    page = scellm.report(cells, tmp_path / "r.html", figures=False).read_text(encoding="utf-8")
    found = section(page, "labels")
    assert "T cell (20 cells; 31 of 100 were right)" in found
    assert "no second study has the type: NK cell (9 cells)." in found
    assert "B cell (30 cells" not in found
    assert "platelet (1 cells" not in found  # rare
    assert "recognized in left-out studies" in found
    assert "90 %80 %" in found
    assert "33 % of the cells have names that were mostly wrong in other studies" in section(page, "summary")
    assert "15 % of the cells have names that were not tested in other studies" in section(page, "summary")
    assert "These results are doubtful" in section(page, "summary")


def test_control_no_columns_or_empty_ones_say_nothing(cells, tmp_path, monkeypatch, all_genes):
    sure(cells)
    plain = scellm.report(cells, tmp_path / "r.html", figures=False).read_text(encoding="utf-8")
    with_left_out(monkeypatch, {}, {})
    empty = scellm.report(cells, tmp_path / "r.html", figures=False).read_text(encoding="utf-8")
    for page in (plain, empty):
        assert "left-out studies" not in page
        assert "frequent names" not in page


def test_rare_types_are_gathered(cells, tmp_path):
    kinds = ["B cell"] * 52 + ["a"] * 3 + ["b"] * 3 + ["c"] * 2
    cells.obs["scellm_cell_type"] = pd.Categorical(kinds)
    page = scellm.report(cells, tmp_path / "r.html").read_text(encoding="utf-8")
    found = section(page, "labels")
    assert "3 rare types of 8 cells together are not in the table: a (3), b (3), c (2)." in found
    assert "Without 3 rare types of 8 cells." in found
    assert len(re.findall(r'<th scope="row">B cell</th>', page)) >= 1
    assert '<th scope="row">a</th><td class="n">3' not in page
    cells.obs["scellm_cell_type"] = pd.Categorical(["B cell"] * 57 + ["a"] * 3)
    page = scellm.report(cells, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "rare types" not in page  # one alone stays
    cells.obs["scellm_cell_type"] = pd.Categorical(["B cell"] * 40 + ["a", "b", "c", "d", "e"] * 4)
    page = scellm.report(cells, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "rare types" not in page  # together they are a third of the cells


# -- calls and methods --------------------------------------------------------------------------------------------


def test_calls_of_models_in_memory_can_be_typed(done, tmp_path):
    adata = scellm.datasets.toy_cells(30, n_vars=1950)
    scellm.tl.embed(adata)
    scellm.tl.embed(adata, scellm.models.load("scellm-small"), key_added="loaded")
    adapted = scellm.tl.adapt(adata, n_components=4)
    scellm.tl.embed(adata, adapted, key_added="X_adapted")
    call = adata.uns["X_adapted"]["call"]
    assert (
        call == "scellm.tl.embed(adata, model=scellm.tl.adapt(adata, n_components=4), key_added='X_adapted')"
    )
    again = adata.copy()
    eval(call, {"scellm": scellm, "adata": again})
    np.testing.assert_array_equal(again.obsm["X_adapted"], adata.obsm["X_adapted"])
    saved = scellm.models.load(scellm.models.save(adapted, tmp_path / "own"))
    scellm.tl.embed(adata, saved, key_added="saved")
    assert adata.uns["saved"]["call"].startswith(f"scellm.tl.embed(adata, model={str(tmp_path / 'own')!r}")
    assert adata.uns["loaded"]["call"] == "scellm.tl.embed(adata, model='scellm-small', key_added='loaded')"
    other = scellm.datasets.toy_cells(12, n_vars=1950)
    scellm.tl.embed(other, adapted)
    assert "scellm.tl.adapt(<AnnData of 30 cells>, n_components=4)" in other.uns["X_scellm"]["call"]


def test_methods_say_each_model_once(done, tmp_path):
    adata = scellm.datasets.toy_cells(30, n_vars=1950)
    for key in ("X_scellm", "again", "third"):
        scellm.tl.embed(adata, key_added=key)
    scellm.tl.embed(adata, scellm.tl.adapt(adata, n_components=4), key_added="X_adapted")
    found = section(scellm.report(adata, tmp_path / "r.html").read_text(encoding="utf-8"), "methods")
    assert found.count("Cells were embedded with the CellLM encoder 'scellm-small'") == 1
    assert found.count("Cells were embedded") == 2
    assert "to which principal components of the cells' expression were added" in found
