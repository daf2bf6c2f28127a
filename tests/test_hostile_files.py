"""The files of tests/benchmarks/hostile_files.py, in this process: those that took all memory or time are left to it."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "hostile_files", Path(__file__).parent / "benchmarks" / "hostile_files.py"
)
hostile = sys.modules["hostile_files"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)
ALONE = ("10^", "deep", "pipe", "model: weights of NaN")
CASES = [case for case in hostile.cases() if not any(word in case.name for word in ALONE)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_damaged_file_is_named_and_nothing_else_changes(case, tmp_path):
    path = hostile.prepared(case, tmp_path)
    before = hostile.everything(tmp_path)
    said = hostile.outcome(case, path)
    assert hostile.verdict(said, path) == "", said
    assert hostile.everything(tmp_path) == before


def test_control_the_unharmed_files_are_read(tmp_path):
    for make, use in (
        (hostile.h5ad(lambda file: None), hostile.corpus),
        (hostile.folder_of(lambda path: None), hostile.model),
    ):
        folder = tmp_path / use.__name__
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert hostile.outcome(hostile.Case("fine", make, use), make(folder)) == "nothing"
