"""The page of drugs agrees with the model that is shipped."""

import importlib.util
import re
from pathlib import Path

import pytest

import scellm

ROOT = Path(__file__).parents[2]
SCRIPT, PAGE = ROOT / "tests/benchmarks/drug_panel.py", ROOT / "docs/guide/drug_panel.md"
if not (SCRIPT.exists() and PAGE.exists()):
    pytest.skip("docs/ is not here; the page is checked in a checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def model():
    return scellm.drugs.load_drug_model()


def test_the_page_is_that_of_the_shipped_model(model):
    spec = importlib.util.spec_from_file_location("drug_panel", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    said = "docs/guide/drug_panel.md is of another model: run python tests/benchmarks/drug_panel.py"
    assert PAGE.read_text(encoding="utf-8") == script.page(model), said


def test_every_drug_has_one_line_and_can_be_asked_for_by_what_stands_there(model):
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if not line.startswith(("| drug |", "| --- "))
    ]
    assert {len(row) for row in rows} == {7}
    names = [row[0].strip("*") for row in rows]
    assert sorted(names) == sorted(model.drugs["name"])
    by_name = model.drugs.set_index("name")
    for row in rows:
        drug = by_name.loc[row[0].strip("*")]
        assert (row[0].startswith("**")) == bool(drug["panel"])
        assert int(row[5]) == drug["n_lines"]
        assert float(re.match(r"-?[\d.]+", row[6])[0]) == pytest.approx(drug["pearson"], abs=0.005)
        assert ("not predictable" in row[6]) == (drug["pearson"] < 0.2)
        asked = scellm.drugs.find_drugs(model.drugs, [row[0].strip("*")])
        assert model.drugs["name"].iloc[asked].tolist() == [row[0].strip("*")]
