"""Every number of quality in README, guides, how-tos and cards is one that a stored result, a constant or a stated choice backs.

A number is backed in one of four ways:

- its paragraph or row of a table links to a page of `docs/benchmarks`, and the results of that page hold it;
- its page was made by a benchmark (`MADE_FROM`), whose results hold it;
- `numbers.toml` names the value of the results, or the constant of the code, that it is;
- `numbers.toml` says why it is no result.
"""

import importlib
import json
import math
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "benchmarks"
if not RESULTS.is_dir():
    pytest.skip("docs/ is not here; numbers are checked in a checkout", allow_module_level=True)
TABLE = {
    page: found["entry"]
    for page, found in tomllib.loads(
        (Path(__file__).parent / "numbers.toml").read_text(encoding="utf-8")
    ).items()
}
NUMBER = re.compile(
    r"(?<![\w.,/=>-])(\d+(?:\.\d+)?) ?(%|times|-?fold)(?!\w)|(?<![\w.,/=>-])(0?\.\d{2,4})(?![\w.])"
)
"""Percentages, multiples, and decimals below one."""
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/guide").glob("*.md")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
    *sorted((ROOT / "scellm/models/weights").glob("*/README.md")),
]
MADE_FROM = {
    "docs/guide/cell_types.md": ("reference", "types of the reference"),
    "docs/howto/trust.md": ("trust",),
    "docs/guide/drug_panel.md": ("drugs of the model",),
    "scellm/models/weights/scellm-small/README.md": (
        "ablation",
        "annotation",
        "embedding",
        "malignancy",
        "reference",
        "speed",
    ),
    "scellm/models/weights/scellm-transformer/README.md": ("transformer",),
    "scellm/models/weights/scellm-drug/README.md": ("drug_response",),
}
"""Pages that scripts of `tests/benchmarks` write, or whose numbers are theirs, and the results."""


def values_in(found):
    """All numbers of a result, those in its sentences too."""
    if isinstance(found, dict):
        for one in found.values():
            yield from values_in(one)
    elif isinstance(found, list):
        for one in found:
            yield from values_in(one)
    elif isinstance(found, bool) or found is None:
        return
    elif isinstance(found, int | float):
        yield float(found)
    else:
        yield from (float(text) for text in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", str(found)))


def result(name):
    """Stored results of a benchmark."""
    if name == "types of the reference":
        path = ROOT / "scellm/models/weights/scellm-small/reference.json"
        types = json.loads(path.read_text(encoding="utf-8"))["meta"]["facts"]["types"]
        return [one[rate] for one in types for rate in ("recall", "precision")]
    if name == "drugs of the model":
        import scellm

        return scellm.drugs.load_drug_model().drugs["pearson"].astype(float).tolist()
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def is_value(text, unit, values):
    """Whether a number as it is written is one of the values, rounded."""
    digits = len(text.partition(".")[2])
    step = 10.0**-digits
    scales = (1, 100) if unit == "%" else (1,)
    wanted = float(text)
    return any(
        math.isfinite(value) and abs(abs(value) * scale - wanted) <= step / 2 + 1e-9
        for value in values
        for scale in scales
    )


def without_made(text):
    """Without tables that a script of the benchmarks writes between two comments, and a test of its own compares."""

    def gone(found):
        return " " if (ROOT / found[1]).exists() else found[0]

    return re.sub(r"<!-- table: made by (\S+) -->.*?<!-- table ends -->", gone, text, flags=re.DOTALL)


def paragraphs(text):
    """Paragraphs and rows of tables without code, formulas and comments."""
    text = without_made(text)
    for pattern in (
        r"\A---\n.*?\n---\n",
        r"```.*?```",
        r"\$\$.*?\$\$",
        r"<!--.*?-->",
        r"`[^`\n]*`",
        r"\$[^$\n]*\$",
    ):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return [part for part in re.split(r"\n\s*\n|\n(?=\|)|\n(?=- )", text) if part.strip()]


def path_value(path):
    """The value that `embedding: facts.means.scellm` or `scellm.annotation._fit: MARGIN` names; `1 - ...` what is left of it."""
    if path.startswith("1 - "):
        return 1 - path_value(path.removeprefix("1 - "))
    place, _, inside = (part.strip() for part in path.partition(":"))
    if place.startswith("scellm."):
        return float(getattr(importlib.import_module(place), inside))
    found = result(place)
    for name in inside.split("."):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return float(found)


def unbacked(page, text):
    """Numbers of a page that nothing backs, each with its paragraph."""
    table = {entry["number"]: entry for entry in TABLE.get(page, [])}
    made = [value for name in MADE_FROM.get(page, ()) for value in values_in(result(name))]
    for part in paragraphs(text):
        linked = [
            name for name in re.findall(r"benchmarks/(\w+)\.md", part) if (RESULTS / f"{name}.json").exists()
        ]
        values = made + [value for name in linked for value in values_in(result(name))]
        for number, unit, decimal in NUMBER.findall(part):
            shown = f"{number} {unit}".strip() if number else decimal
            if is_value(number or decimal, unit, values):
                continue
            entry = table.get(shown)
            if entry is None or (
                "is" in entry and not is_value(number or decimal, unit, [path_value(entry["is"])])
            ):
                yield f"{shown}: {' '.join(part.split())[:160]}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_numbers_are_backed(path):
    page = path.relative_to(ROOT).as_posix()
    found = list(unbacked(page, path.read_text(encoding="utf-8")))
    assert found == [], (
        "Link the paragraph to the page of docs/benchmarks that has the number, or give it an entry in tests/numbers.toml"
    )


def test_entries_say_what_they_are():
    for page, entries in TABLE.items():
        for entry in entries:
            assert set(entry) - {"number"} in ({"is"}, {"why"}), (page, entry)
            assert len(entry.get("why", "a long enough reason")) > 15, (page, entry)


def test_control_a_number_that_no_result_backs_fails():
    assert list(unbacked("docs/new.md", "Our method has 0.987 and is 3-fold, or 40 % better."))
    means = "On seven sets it is 0.9153, see [benchmark](benchmarks/embedding.md)."
    assert list(unbacked("docs/new.md", means.replace("0.9153", "0.0007")))
    assert list(unbacked("docs/new.md", "`0.987` in code, version 0.2.0, and 12,000 cells in 10 s")) == []
    page = "scellm/models/weights/scellm-small/README.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    numbers = re.findall(r"(?<= )0\.\d{3}(?= )", text)
    changed = [
        list(unbacked(page, text.replace(number, f"{float(number) / 7 + 3e-6:.6f}"[:6])))
        for number in numbers[:12]
    ]
    assert sum(map(bool, changed)) > len(changed) / 2  # some land on another result by chance


def test_made_tables_need_their_script():
    table = "<!-- table: made by {} -->\n| 0.987 |\n<!-- table ends -->"
    assert list(unbacked("docs/new.md", table.format("tests/benchmarks/embedding.py"))) == []
    assert list(unbacked("docs/new.md", table.format("tests/benchmarks/nothing.py")))


@pytest.mark.parametrize(
    ("text", "unit", "values", "expected"),
    [
        ("0.915", "", [0.9149], True),
        ("0.915", "", [0.9141], False),
        ("92", "%", [0.915], True),
        ("92", "%", [0.9], False),
        ("2.7", "times", [2.718], True),
        ("0.30", "", [0.304], True),
    ],
)
def test_rounding(text, unit, values, expected):
    assert is_value(text, unit, values) == expected
