"""What is handed on beside the code: packages, recipe, citation, cards, forms. All say the same, and machines can read them."""

import importlib.util
import json
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import scellm
from scellm.models._card import LICENSES, model_card

ROOT = Path(__file__).parents[1]
if not (ROOT / "pyproject.toml").exists():
    pytest.skip("these files are in a checkout only", allow_module_level=True)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WEIGHTS = Path(scellm.__file__).parent / "models" / "weights"
CONDA = {"huggingface-hub": "huggingface_hub", "matplotlib": "matplotlib-base", "torch": "pytorch"}
"""Names that differ on conda-forge."""
CARD_FIELDS = {
    "base_model", "datasets", "language", "library_name", "license", "license_link", "license_name", "metrics", "model-index",
    "new_version", "pipeline_tag", "tags", "thumbnail",
}  # fmt: skip
"""Fields of the Hub's schema."""


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def contents():
    """The checker of `.ci`."""
    spec = importlib.util.spec_from_file_location("contents", ROOT / ".ci" / "contents.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version():
    version = scellm.__version__
    assert read_yaml("CITATION.cff")["version"] == version
    assert read_yaml(".conda/recipe.yaml")["context"]["version"] == version
    assert read_yaml(".scverse/meta.yaml")["version"] == f"v{version}"
    shown = json.loads((ROOT / "docs/_static/versions.json").read_text(encoding="utf-8"))
    assert next(one["name"] for one in shown if one.get("preferred")).startswith(
        ".".join(version.split(".")[:2])
    )


def test_recipe_has_the_requirements_of_the_package():
    recipe = read_yaml(".conda/recipe.yaml")
    wanted = {f"python {PROJECT['requires-python']}"}
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w.-]+)(>=.*)", requirement).groups()
        wanted.add(f"{CONDA.get(name, name)} {bound}")
    assert set(recipe["requirements"]["run"]) == wanted
    assert f"python {PROJECT['requires-python']}" in recipe["requirements"]["host"]
    assert recipe["build"]["python"]["entry_points"] == [f"{k} = {v}" for k, v in PROJECT["scripts"].items()]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]


def test_citation():
    found = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license"} <= set(found)
    assert found["license"] == PROJECT["license"]
    assert any("2306.04371" in one["url"] for one in found["references"])


def test_entry_of_the_ecosystem():
    found = read_yaml(".scverse/meta.yaml")
    needed = {
        "name",
        "description",
        "project_home",
        "documentation_home",
        "install",
        "license",
        "tags",
        "version",
        "authors",
    }
    assert needed <= set(found)
    assert found["license"] == PROJECT["license"]
    assert found["install"] == {"pypi": PROJECT["name"]}
    assert all(re.fullmatch(r"10\.\d{4,9}/[-._;()/:A-Z0-9]+", doi) for doi in found["publications"])
    assert "pytest" in found["test_command"]
    assert all(
        found[name].startswith("https://")
        for name in ("project_home", "documentation_home", "tutorials_home")
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms(path):
    form = read_yaml(path)
    if path.stem == "config":
        assert form["contact_links"]
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])


def test_links_of_the_community_pages():
    for path in (ROOT / ".github").glob("*.md"):
        for link in re.findall(r"\]\((?!https)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


# -- model cards --------------------------------------------------------------------------------------------------


def card_problems(text):
    """What the Hub would not take of a card."""
    fields = ModelCard(text).data.to_dict()
    found = [f"unknown field {name}" for name in set(fields) - CARD_FIELDS]
    if fields.get("library_name") != "scellm":
        found.append("library_name")
    if fields.get("license") not in (*LICENSES, "other"):
        found.append(f"license {fields.get('license')}")
    if fields.get("license") == "other" and not fields.get("license_name"):
        found.append("license without a name")
    if not isinstance(fields.get("tags"), list) or not all(isinstance(tag, str) for tag in fields["tags"]):
        found.append("tags")
    return found


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in WEIGHTS.glob("*/README.md")), ids=lambda path: path.name
)
def test_shipped_cards(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card_problems(card) == []
    assert re.search(r"^# ", card, re.MULTILINE)
    assert "data" in card.lower()


@pytest.mark.parametrize("license", ["MIT", "CC-BY-4.0", "ours: ask #1", "a\nb", '"quoted"'])
def test_cards_of_saved_models(license):
    assert (
        card_problems(model_card("mine", {"cells": 3}, {"license": license, "description": "A model."})) == []
    )


def test_control_bad_cards_are_found():
    bad = "---\nlibrary_name: scellm\nlicense: ours\ntags: [3]\nmodel: x\n---\n# a\n"
    assert set(card_problems(bad)) == {"unknown field model", "license ours", "tags"}


# -- contents of the packages -------------------------------------------------------------------------------------


def test_what_is_needed_is_in_the_sources():
    for name in contents().NEEDED:
        assert (ROOT / name).exists(), name


def test_packages_of_the_build_configuration():
    hatchling = pytest.importorskip(
        "hatchling.builders.wheel", reason="needs hatchling, which builds the packages"
    )
    from hatchling.builders.sdist import SdistBuilder

    for builder in (hatchling.WheelBuilder(str(ROOT)), SdistBuilder(str(ROOT))):
        names = [file.distribution_path.replace("\\", "/") for file in builder.recurse_included_files()]
        assert contents().problems([*names, "LICENSE"]) == []


def test_contents_are_judged(tmp_path):
    checker = contents()
    good = [*checker.NEEDED, "scellm-0.2.0.dist-info/licenses/LICENSE"]
    assert checker.problems(good) == []
    assert checker.problems(good[1:]) == ["lacks scellm/__init__.py"]
    assert checker.problems(good[:-1]) == ["lacks the license"]
    for bad in ("tests/test_a.py", "scellm/__pycache__/a.pyc", "docs/index.md", "scellm/data/cells.h5ad"):
        assert checker.problems([*good, bad]) == [f"holds {bad}"]
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as file:
        file.writestr("tests/x.py", "")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        file.add(tmp_path / "a.whl", "scellm-0.2.0/tests/x.py")
    assert checker.names_of(tmp_path / "a.whl") == checker.names_of(tmp_path / "a.tar.gz") == ["tests/x.py"]
    assert checker.main([tmp_path / "a.whl"]) == 1


def test_extras_are_on_the_install_page():
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert [
        name
        for name in PROJECT["optional-dependencies"]
        if f"[{name}]" not in page and f"| `{name}` |" not in page
    ] == []


def test_license_files_are_declared():
    assert PROJECT["license-files"] == ["LICENSE"]
    assert PROJECT["readme"] == "README.md"
