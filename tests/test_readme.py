"""The front page says what the results say, and its lines run."""

import importlib.util
import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt

import scellm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def front_page():
    path = ROOT / "tests" / "benchmarks" / "front_page.py"
    spec = importlib.util.spec_from_file_location("front_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_is_what_the_stored_results_say():
    assert front_page().with_table(README) == README, "run python tests/benchmarks/front_page.py"


def test_control_another_number_is_found():
    number = re.search(r"\| (0\.\d{3}) \|", README).group(1)
    changed = README.replace(number, "0.999")
    assert front_page().with_table(changed) != changed


def test_the_five_lines_run(tmp_path, monkeypatch):
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    scellm.datasets.toy_cells(60).write_h5ad("my_cells.h5ad")
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # drawn cells are like no tissue
        exec(compile(block, "README.md", "exec"), names)
    assert names["adata"].obs["scellm_cell_type"].nunique() > 1
    plt.close("all")


def test_pictures_of_the_front_page_are_there_and_described():
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert pictures
    for text, path in pictures:
        assert len(text) > 20
        assert (ROOT / path).stat().st_size < 300_000
