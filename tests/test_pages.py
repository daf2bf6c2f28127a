"""Built pages in a real browser: none may scroll sideways on a phone. CI measures all of them after the build."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import phone

BUILT = Path(__file__).parents[1] / "docs" / "_build" / "html"
STYLE = Path(__file__).parents[1] / "docs" / "_static" / "scellm.css"

pytestmark = pytest.mark.skipif(phone.browser() is None, reason="needs Chromium to measure pages")


def page(folder, body):
    text = f"<meta name='viewport' content='width=device-width'><style>{STYLE.read_text('utf-8')}</style>"
    folder.joinpath("index.html").write_text(f"{text}<article class='bd-article'>{body}</article>", "utf-8")
    return phone.measure(folder)


def test_long_names_break_and_wide_tables_scroll_by_themselves(tmp_path):
    name = "scellm.metrics.expected_calibration_error_of_a_long_name_that_goes_on()"
    cells = "".join(f"<td>column_{i}</td>" for i in range(30))
    code = f"<p><code class='literal'><span class='pre'>{name}</span></code></p>"
    found = page(tmp_path, f"{code}<table><tr>{cells}</tr></table><pre>{'x' * 300}</pre>")
    assert found == {"pages": 1, "wide": []}


def test_control_a_wide_element_is_found_and_named(tmp_path):
    found = page(tmp_path, "<div class='far' style='width:600px'>wide</div>")
    assert found["wide"][0]["page"] == "index.html"
    assert found["wide"][0]["width"] >= 600
    assert "div.far: wide" in found["wide"][0]["because"]


@pytest.mark.skipif(not BUILT.is_dir(), reason="pages are not built: python -m sphinx docs docs/_build/html")
def test_no_page_scrolls_sideways_on_a_phone():
    found = phone.measure(BUILT)
    assert found["pages"] > 100
    assert found["wide"] == []
